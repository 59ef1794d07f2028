//! `copepod down`: stops pods and processes; with `--purge` nothing of the cluster is left on the machine.

use crate::containerd::Programs;
use crate::layout::Layout;
use crate::nodes::{self, Place};
use crate::settings::Settings;
use crate::units::{self, Unit};
use crate::{kubeconfig, outwards, program, up};
use anyhow::Context as _;
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Stop the cluster and its pods.
#[derive(Debug, Args)]
pub struct Down {
    /// Remove everything that 'up' made: objects, images, certificates, network devices, the kubeconfig's context.
    #[arg(long)]
    purge: bool,
    /// Stop the processes but leave the pods running.
    #[arg(long, conflicts_with = "purge")]
    keep_pods: bool,
}

/// The unit that is stopped last.
const CONTAINERD: &str = "containerd";
/// How long mounts and processes of pods get to go away.
const WAIT: Duration = Duration::from_secs(10);
/// Processes that are no children end without telling: they are looked for.
const POLL: Duration = Duration::from_millis(20);

impl Down {
    /// Runs the command.
    pub fn run(&self, layout: &Layout) -> anyhow::Result<()> {
        let Some(settings) = Settings::read(layout)? else {
            eprintln!("there is no cluster in {}", layout.root().display());
            return Ok(());
        };
        let places = nodes::places(layout, &settings)?;
        // First who would start pods again.
        for place in &places {
            nodes::stop_agents(place)?;
        }
        for name in up::unit_names(&settings).into_iter().rev().filter(|name| *name != CONTAINERD) {
            if units::stop(layout, name)? {
                eprintln!("stopped {name}");
            }
        }
        for place in &places {
            self.stop_node(layout, &settings, place)?;
        }
        match places.is_empty() {
            true => self.stop_machine(layout, &settings)?,
            false if !self.keep_pods => nodes::network::remove(layout, &settings)?,
            false => {}
        }
        if self.purge {
            purge(layout, &settings)?;
            eprintln!("removed {}", layout.root().display());
        }
        Ok(())
    }

    /// containerd last: it is needed to end the pods in an orderly way.
    fn stop_machine(&self, layout: &Layout, settings: &Settings) -> anyhow::Result<()> {
        if !self.keep_pods {
            let unit = Programs::find(settings.containerd.as_deref()).map(|programs| programs.unit(layout));
            remove_pods(layout, unit);
        }
        if units::stop(layout, CONTAINERD)? {
            eprintln!("stopped {CONTAINERD}");
        }
        if self.keep_pods {
            return Ok(());
        }
        kill_leftovers(layout, settings)?;
        outwards::close(settings)
    }

    /// The same in one of several nodes. A node whose pods go on goes on itself.
    fn stop_node(&self, layout: &Layout, settings: &Settings, place: &Place) -> anyhow::Result<()> {
        if self.keep_pods {
            units::stop(&place.layout, CONTAINERD)?;
            return Ok(());
        }
        // Without its holder there is no way into the node, and its pods are killed.
        if units::running(&place.layout, nodes::HOLDER)?.is_some() {
            let unit = Programs::find(settings.containerd.as_deref())
                .and_then(|programs| nodes::containerd_unit(layout, place, &programs));
            remove_pods(&place.layout, unit);
        }
        nodes::end(place)
    }
}

/// Ends all containers and removes all sandboxes, so that CNI gives their addresses, devices and rules back. A containerd
/// that died is started once more for that. What cannot be ended so is killed and taken apart afterwards.
fn remove_pods(layout: &Layout, containerd: anyhow::Result<Unit>) {
    // containerd keeps a folder for each running container: without any there is nothing to end, and it may be gone.
    let tasks = layout.join("containerd/state/io.containerd.runtime.v2.task/k8s.io");
    if std::fs::read_dir(tasks).map_or(true, |mut entries| entries.next().is_none()) {
        return;
    }
    let removed = containerd.and_then(|unit| revive(layout, &unit)).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let socket = layout.containerd_socket();
        Ok(runtime.block_on(copepod_kubelet::teardown::remove_all_pods(&socket))?)
    });
    match removed {
        Ok(0) => {}
        Ok(count) => eprintln!("removed {count} pods"),
        Err(error) => eprintln!("pods cannot end in an orderly way and are killed: {error:#}"),
    }
}

/// Starts containerd if it does not run, and waits until it listens.
fn revive(layout: &Layout, unit: &Unit) -> anyhow::Result<()> {
    if units::start(layout, unit)? {
        eprintln!("started containerd once more, to end its pods");
    }
    let until = Instant::now() + WAIT;
    while UnixStream::connect(layout.containerd_socket()).is_err() {
        let alive = units::running(layout, unit.name)?.is_some();
        anyhow::ensure!(
            alive && Instant::now() < until,
            "containerd does not start: {}",
            units::log_tail(layout, unit.name)
        );
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Kills what is left: shims, which are known by the socket on their command line, and what runs in the pods' cgroups.
fn kill_leftovers(layout: &Layout, settings: &Settings) -> anyhow::Result<()> {
    let needle = layout.containerd_socket().display().to_string();
    kill_all("processes of pods", &|| {
        let mut left = shims(&needle)?;
        left.extend(copepod_kubelet::teardown::pod_processes(&settings.cgroup_root())?);
        Ok(left)
    })
}

/// Kills until none are left.
pub fn kill_all(what: &str, left: &dyn Fn() -> anyhow::Result<Vec<i32>>) -> anyhow::Result<()> {
    let until = Instant::now() + WAIT;
    loop {
        let left = left()?;
        if left.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < until, "{what} do not end: {left:?}");
        signal(&left, Signal::SIGKILL)?;
        std::thread::sleep(POLL);
    }
}

/// Asks processes to end, and kills those that do not.
pub fn end_all(what: &str, left: &dyn Fn() -> anyhow::Result<Vec<i32>>) -> anyhow::Result<()> {
    signal(&left()?, Signal::SIGTERM)?;
    let until = Instant::now() + WAIT;
    while !left()?.is_empty() && Instant::now() < until {
        std::thread::sleep(POLL);
    }
    kill_all(what, left)
}

fn signal(processes: &[i32], signal: Signal) -> anyhow::Result<()> {
    for pid in processes {
        match kill(Pid::from_raw(*pid), signal) {
            // It ended by itself.
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("could not send {signal} to {pid}")),
        }
    }
    Ok(())
}

fn command_line(pid: i32) -> String {
    // A process that has just ended has no command line any more.
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).into_owned()
}

/// Whether a process watches over the containers of a pod.
pub fn is_shim(pid: i32) -> bool {
    command_line(pid).contains("containerd-shim")
}

fn shims(needle: &str) -> anyhow::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("reading /proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let text = command_line(pid);
        if text.contains("containerd-shim") && text.contains(needle) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn purge(layout: &Layout, settings: &Settings) -> anyhow::Result<()> {
    unmount_below(layout.root())?;
    nodes::points::remove(layout)?;
    let link = Path::new("/sys/class/net").join(&settings.bridge);
    if link.exists() {
        program::must("ip", &["link", "delete", &settings.bridge])?;
    }
    outwards::restore_forwarding(layout)?;
    for dir in [format!("/run/cni-ipam-{}", settings.bridge), layout.root().display().to_string()] {
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).context(dir),
            _ => {}
        }
    }
    copepod_kubelet::teardown::remove_cgroups(&settings.cgroup_root())
        .context("could not remove the cgroups of pods")?;
    match kubeconfig::user_file() {
        Some(file) => kubeconfig::remove(settings, &file),
        None => Ok(()),
    }
}

/// Deepest first; what is busy is detached lazily, as its processes are gone.
fn unmount_below(root: &Path) -> anyhow::Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|l| l.split(' ').nth(4)).map(|p| p.replace("\\040", " "));
    let mut below: Vec<String> =
        points.filter(|p| Path::new(p).starts_with(root) && Path::new(p) != root).collect();
    below.sort_by_key(|p| std::cmp::Reverse(p.len()));
    for point in below {
        use nix::mount::{MntFlags, umount2};
        umount2(point.as_str(), MntFlags::MNT_DETACH)
            .with_context(|| format!("could not unmount {point}"))?;
    }
    Ok(())
}
