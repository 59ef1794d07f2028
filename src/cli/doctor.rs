//! `copepod doctor`: what a cluster needs of the machine, and the command that mends what is missing.

use crate::containerd::{CNI_PLUGINS, can_raise_limits, cni_dir};
use crate::layout::Layout;
use crate::settings::{DEFAULT_PORTS, Settings};
use crate::units;
use anyhow::bail;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a port may still be held by a process that has just ended.
const PORT_WAIT: Duration = Duration::from_secs(1);

/// One thing looked at.
struct Finding {
    what: String,
    /// `Err`: missing, with the command that mends it.
    state: Result<String, String>,
    /// The cluster cannot do without it.
    needed: bool,
}

fn needed(what: &str, state: Result<String, String>) -> Finding {
    Finding { what: what.into(), state, needed: true }
}

fn wished(what: &str, state: Result<String, String>) -> Finding {
    Finding { what: what.into(), state, needed: false }
}

/// The full path of a program.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Not in everybody's PATH, but where Debian puts what administrators use.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|p| p.is_file())
}

fn program(name: &str, package: &str) -> Result<String, String> {
    match find_program(name) {
        Some(path) => Ok(path.display().to_string()),
        None => Err(format!("apt-get install {package}")),
    }
}

fn cgroups() -> Result<String, String> {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return Ok("v2".into());
    }
    let missing: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|c| !Path::new("/sys/fs/cgroup").join(c).is_dir())
        .collect();
    match missing.is_empty() {
        true => Ok("v1".into()),
        false => Err(format!("mount the cgroup controllers {} below /sys/fs/cgroup", missing.join(", "))),
    }
}

fn overlay() -> Result<String, String> {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    match known.lines().any(|l| l.trim_start_matches("nodev").trim() == "overlay") {
        true => Ok("supported".into()),
        false => Err("modprobe overlay".into()),
    }
}

fn forwarding() -> Result<String, String> {
    match std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").as_deref().map(str::trim) {
        Ok("1") => Ok("on".into()),
        // The bridge plugin turns it on by itself when it makes the first pod's network.
        _ => Err("sysctl -w net.ipv4.ip_forward=1".into()),
    }
}

fn port(port: u16) -> Result<String, String> {
    let mut bound = TcpListener::bind(("0.0.0.0", port));
    // A process that was killed a moment ago still holds its ports while the kernel takes it apart.
    let until = Instant::now() + PORT_WAIT;
    while bound.is_err() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
        bound = TcpListener::bind(("0.0.0.0", port));
    }
    match bound {
        Ok(_) => Ok("free".into()),
        Err(_) => {
            Err(format!("ss -ltnp 'sport = :{port}'   # shows who has it; stop that, or choose another port"))
        }
    }
}

fn root() -> Result<String, String> {
    match nix::unistd::geteuid().is_root() {
        true => Ok("yes".into()),
        false => Err("sudo copepod up".into()),
    }
}

/// What `settings` need of the machine; `None`: those of a first `up` without flags.
fn findings(layout: &Layout, settings: Option<&Settings>) -> anyhow::Result<Vec<Finding>> {
    let mut out = vec![
        needed("runs as root", root()),
        needed("containerd", program("containerd", "containerd")),
        needed("ctr", program("ctr", "containerd")),
        needed("runc", program("runc", "runc")),
        needed(
            &format!("CNI plugins {}", CNI_PLUGINS.join(", ")),
            cni_dir()
                .map(|d| d.display().to_string())
                .ok_or("apt-get install containernetworking-plugins".into()),
        ),
        needed("iptables (for the CNI plugins)", program("iptables", "iptables")),
        needed("cgroups", cgroups()),
        needed("overlay file system", overlay()),
        wished("IP forwarding", forwarding()),
        wished("kubectl", program("kubectl", "kubernetes-client   # or: hack/tools kubectl")),
        wished(
            "may lower oom scores",
            match can_raise_limits() {
                true => Ok("yes".into()),
                false => Err(
                    "run with CAP_SYS_RESOURCE; without it system pods are not protected from the oom killer"
                        .into(),
                ),
            },
        ),
    ];
    let ports = match settings {
        Some(settings) => settings.ports(),
        None => DEFAULT_PORTS.map(|port| ("copepod", port)).to_vec(),
    };
    for (unit, number) in ports {
        // A unit that runs holds its own port, whatever became of the others.
        if units::running(layout, unit)?.is_none() {
            out.push(needed(&format!("port {number} for {unit}"), port(number)));
        }
    }
    Ok(out)
}

/// `copepod doctor`
pub fn run(layout: &Layout) -> anyhow::Result<()> {
    let findings = findings(layout, Settings::read(layout)?.as_ref())?;
    for finding in &findings {
        match (&finding.state, finding.needed) {
            (Ok(state), _) => println!("ok       {}: {state}", finding.what),
            (Err(mend), true) => println!("missing  {}: {mend}", finding.what),
            (Err(mend), false) => println!("note     {}: {mend}", finding.what),
        }
    }
    let missing = findings.iter().filter(|f| f.needed && f.state.is_err()).count();
    if missing > 0 {
        bail!("{missing} thing(s) are missing; the commands above mend them");
    }
    Ok(())
}

/// What `up` with these settings cannot do without; an error that names each and its command.
pub fn require(layout: &Layout, settings: &Settings) -> anyhow::Result<()> {
    let lines: Vec<String> = findings(layout, Some(settings))?
        .into_iter()
        .filter(|f| f.needed)
        .filter_map(|f| f.state.err().map(|mend| format!("  {}: {mend}", f.what)))
        .collect();
    match lines.is_empty() {
        true => Ok(()),
        false => bail!("this machine lacks something:\n{}", lines.join("\n")),
    }
}
