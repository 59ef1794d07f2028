//! `copepod down`: stops pods and processes; with `--purge` nothing of the cluster is left on the machine.

use crate::layout::Layout;
use crate::settings::Settings;
use crate::units;
use crate::{kubeconfig, up};
use anyhow::Context as _;
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Command;
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

/// How long mounts and processes of pods get to go away.
const WAIT: Duration = Duration::from_secs(10);

impl Down {
    /// Runs the command.
    pub fn run(&self, layout: &Layout) -> anyhow::Result<()> {
        let Some(settings) = Settings::read(layout)? else {
            eprintln!("there is no cluster in {}", layout.root().display());
            return Ok(());
        };
        let mut names = up::unit_names(&settings);
        names.reverse();
        let (last, rest) = (names.pop(), names);
        for name in rest {
            if units::stop(layout, name)? {
                eprintln!("stopped {name}");
            }
        }
        // containerd last: it is needed to end the pods in an orderly way.
        if !self.keep_pods {
            remove_pods(layout)?;
        }
        if let Some(name) = last
            && units::stop(layout, name)?
        {
            eprintln!("stopped {name}");
        }
        if !self.keep_pods {
            kill_shims(layout)?;
        }
        if self.purge {
            purge(layout, &settings)?;
            eprintln!("removed {}", layout.root().display());
        }
        Ok(())
    }
}

/// Ends all containers and removes all sandboxes, so that CNI gives their addresses and devices back.
fn remove_pods(layout: &Layout) -> anyhow::Result<()> {
    let socket = layout.containerd_socket();
    if units::running(layout, "containerd")?.is_none() || !socket.exists() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let removed = runtime.block_on(copepod_kubelet::teardown::remove_all_pods(&socket))?;
    if removed > 0 {
        eprintln!("removed {removed} pods");
    }
    Ok(())
}

/// Processes whose command line names the state folder: shims that lost their containerd, and what runs below them ends
/// with them.
fn kill_shims(layout: &Layout) -> anyhow::Result<()> {
    let needle = layout.containerd_socket().display().to_string();
    let shims = || -> Vec<Pid> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        let ours = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let text = String::from_utf8_lossy(&line);
            text.contains("containerd-shim") && text.contains(&needle)
        };
        pids.filter(ours).map(Pid::from_raw).collect()
    };
    for pid in shims() {
        kill(pid, Signal::SIGKILL).with_context(|| format!("could not kill the shim {pid}"))?;
    }
    let until = Instant::now() + WAIT;
    while !shims().is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn purge(layout: &Layout, settings: &Settings) -> anyhow::Result<()> {
    unmount_below(layout.root())?;
    let link = Path::new("/sys/class/net").join(&settings.bridge);
    if link.exists() {
        run("ip", &["link", "delete", &settings.bridge])?;
    }
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

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("could not run {program}"))?;
    let shown =
        || format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    anyhow::ensure!(output.status.success(), shown());
    Ok(())
}
