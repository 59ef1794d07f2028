//! `copepod status`: what runs, its memory and CPU, how long certificates are good.

use crate::layout::Layout;
use crate::nodes::plan::Node;
use crate::nodes::{self, Place};
use crate::settings::{Settings, Storage};
use crate::up;
use crate::{kubeconfig, units};
use anyhow::bail;
use copepod_pki::days_left;

/// `copepod status`; an error (exit code 1) when something that should run does not.
pub fn run(layout: &Layout) -> anyhow::Result<()> {
    let settings = Settings::load(layout)?;
    let places = nodes::places(layout, &settings)?;
    println!("cluster    {} ({})", settings.server(), layout.root().display());
    if places.is_empty() {
        println!("node       {} ({})", settings.node_name, settings.node_ip);
    }
    for place in &places {
        let Node { name, address, pods, .. } = &place.node;
        println!("node       {name} ({address}, pods {pods}, {})", place.layout.root().display());
    }
    println!(
        "storage    {}",
        match &settings.storage {
            Storage::Embedded => format!("embedded ({})", layout.store().display()),
            Storage::Etcd { port, .. } => format!("etcd (127.0.0.1:{port})"),
            Storage::External { servers } => format!("etcd ({servers})"),
        }
    );
    println!("containerd {}", settings.containerd.as_deref().unwrap_or("that of the PATH"));
    println!("kubectl    {}", kubeconfig::command(layout, &settings)?);
    if !settings.without.is_empty() {
        println!("without    {}", settings.without.join(", "));
        println!("           certificates in {}", layout.pki().display());
        println!("           kubeconfigs in {}", layout.join("kubeconfig").display());
    }
    println!();
    let dead = processes(layout, &settings, &places)?;
    println!();
    certificates(layout, &settings, &places)?;
    match dead.is_empty() {
        true => Ok(()),
        false => bail!("not running: {}; 'copepod up' starts what is missing", dead.join(", ")),
    }
}

/// Those of the machine, then those of each node; returned are those that do not run.
fn processes(layout: &Layout, settings: &Settings, places: &[Place]) -> anyhow::Result<Vec<String>> {
    println!("{:<28} {:>8} {:>12} {:>10}", "PROCESS", "PID", "MEMORY", "CPU");
    let mut dead = Vec::new();
    let mut show = |layout: &Layout, unit: &str, shown: String| -> anyhow::Result<()> {
        match units::running(layout, unit)? {
            Some(r) => {
                let mib = r.resident_kib as f64 / 1024.0;
                println!("{shown:<28} {:>8} {mib:>8.1} MiB {:>8.1} s", r.pid, r.cpu_ms as f64 / 1000.0);
            }
            None => {
                println!("{shown:<28} {:>8}", "stopped");
                dead.push(shown);
            }
        }
        Ok(())
    };
    for name in up::unit_names(settings) {
        show(layout, name, name.to_owned())?;
    }
    for place in places {
        for name in place.units(settings) {
            let shown = match name {
                nodes::HOLDER => place.node.name.clone(),
                _ => format!("{}/{name}", place.node.name),
            };
            show(&place.layout, name, shown)?;
        }
    }
    Ok(dead)
}

fn certificates(layout: &Layout, settings: &Settings, places: &[Place]) -> anyhow::Result<()> {
    println!("{:<28} {:>10}", "CERTIFICATE", "DAYS LEFT");
    let all =
        ["ca", "front-proxy-ca", "apiserver", "kubelet", "admin", "controller-manager", "scheduler", "node"];
    let nodes_own = ["kubelet", "node"];
    for name in all.into_iter().filter(|name| settings.nodes == 0 || !nodes_own.contains(name)) {
        println!("{name:<28} {:>10}", days_left(&layout.pki().join(format!("{name}.crt")))?);
    }
    for place in places {
        for name in nodes_own {
            let shown = format!("{}/{name}", place.node.name);
            println!("{shown:<28} {:>10}", days_left(&place.layout.pki().join(format!("{name}.crt")))?);
        }
    }
    Ok(())
}
