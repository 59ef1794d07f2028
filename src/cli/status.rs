//! `copepod status`: what runs, its memory and CPU, how long certificates are good.

use crate::layout::Layout;
use crate::settings::{Settings, Storage};
use crate::up;
use crate::{kubeconfig, units};
use anyhow::bail;
use copepod_pki::days_left;

/// `copepod status`; an error (exit code 1) when something that should run does not.
pub fn run(layout: &Layout) -> anyhow::Result<()> {
    let settings = Settings::load(layout)?;
    println!("cluster    {} ({})", settings.server(), layout.root().display());
    println!("node       {} ({})", settings.node_name, settings.node_ip);
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
    println!();
    println!("{:<20} {:>8} {:>12} {:>10}", "PROCESS", "PID", "MEMORY", "CPU");
    let mut dead = Vec::new();
    for name in up::unit_names(&settings) {
        match units::running(layout, name)? {
            Some(r) => {
                let mib = r.resident_kib as f64 / 1024.0;
                println!("{name:<20} {:>8} {mib:>8.1} MiB {:>8.1} s", r.pid, r.cpu_ms as f64 / 1000.0);
            }
            None => {
                println!("{name:<20} {:>8}", "stopped");
                dead.push(name);
            }
        }
    }
    println!();
    println!("{:<28} {:>10}", "CERTIFICATE", "DAYS LEFT");
    for name in
        ["ca", "front-proxy-ca", "apiserver", "kubelet", "admin", "controller-manager", "scheduler", "node"]
    {
        let days = days_left(&layout.pki().join(format!("{name}.crt")))?;
        println!("{name:<28} {days:>10}");
    }
    match dead.is_empty() {
        true => Ok(()),
        false => bail!("not running: {}; 'copepod up' starts what is missing", dead.join(", ")),
    }
}
