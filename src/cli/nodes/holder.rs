//! The process that is a node: it keeps the node's namespaces of network, mounts and host name alive, and does nothing else.
//!
//! `up` starts it below `unshare`, so that it is born into new namespaces; it then furnishes them. Mounts of the node do not
//! reach the machine, nor the machine's later ones the node; among the processes of the node they are shared, as
//! propagation of volumes wants it. `/sys` is not mounted anew: the cgroup hierarchies below it would be hidden.
//!
//! When it ends, others may still keep the namespaces alive, but nobody can enter them by it any more: `up` then ends those
//! others and makes the node anew, as a machine that boots.

use super::Place;
use crate::containerd::Programs;
use crate::layout::Layout;
use crate::settings::Settings;
use anyhow::Context as _;
use copepod_pki::files::{self, Mode};
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode as Bits;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Folders of a machine that each node has for itself, with their names in the node's folder. Tests and users write below
/// /tmp by hostPath volumes; the others are fixed in programs of others: CNI's cache, what upstream's kubelet keeps.
pub const KEPT: [(&str, &str); 5] = [
    ("/tmp", "tmp"),
    ("/var/lib/cni", "var/cni"),
    ("/var/lib/kubelet", "var/kubelet"),
    ("/var/log/pods", "var/pods"),
    ("/var/log/containers", "var/containers"),
];
/// The same for what ends with the node: state of runc, sockets of shims, network namespaces of pods.
pub const VOLATILE: [&str; 2] = ["/run/containerd", "/run/netns"];

/// The file that says that the node is furnished.
pub fn marker(layout: &Layout) -> PathBuf {
    layout.join("run/furnished")
}

/// What has to be seen from inside a node wherever it lies: programs and files of the cluster.
fn needed(layout: &Layout, settings: &Settings) -> anyhow::Result<Vec<PathBuf>> {
    let mut out = vec![layout.root().to_owned()];
    let programs = [std::env::current_exe()?, Programs::find(settings.containerd.as_deref())?.containerd];
    out.extend(programs.iter().filter_map(|program| program.parent()).map(Path::to_owned));
    out.extend(settings.registry_config.iter().map(PathBuf::from));
    out.dedup();
    Ok(out)
}

/// Furnishes the namespaces that this process was born into, says so, and waits to be ended.
pub fn hold(layout: &Layout, settings: &Settings, place: &Place) -> anyhow::Result<()> {
    let ends = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    ends.thread_block().context("blocking signals")?;
    nix::unistd::sethostname(&place.node.name).context("setting the host name")?;
    furnish(&needed(layout, settings)?, place)?;
    // Pods of this node are reached through it.
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("net.ipv4.ip_forward")?;
    files::write(&marker(&place.layout), b"", Mode::Public)?;
    ends.wait().context("waiting for the end")?;
    Ok(())
}

fn furnish(needed: &[PathBuf], place: &Place) -> anyhow::Result<()> {
    let covered = |path: &Path| KEPT.iter().any(|(covers, _)| path.starts_with(covers));
    // Held open, because soon there is no way to them by name.
    let handles: Vec<(&PathBuf, OwnedFd)> = needed
        .iter()
        .filter(|path| covered(path))
        .map(|path| {
            let handle = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Bits::empty());
            Ok((path, handle.with_context(|| format!("opening {}", path.display()))?))
        })
        .collect::<anyhow::Result<_>>()?;
    for (point, name) in KEPT {
        let own = place.layout.join(name);
        fs::create_dir_all(&own).with_context(|| format!("making {}", own.display()))?;
        if point == "/tmp" {
            fs::set_permissions(&own, fs::Permissions::from_mode(0o1777))?;
        }
        bind(&own, Path::new(point))?;
    }
    for point in VOLATILE {
        mount(Some("copepod"), point, Some("tmpfs"), MsFlags::empty(), Some("mode=711"))
            .with_context(|| format!("mounting {point}"))?;
    }
    for (path, handle) in &handles {
        fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        bind(Path::new(&format!("/proc/self/fd/{}", handle.as_raw_fd())), path)?;
    }
    let shared = MsFlags::MS_REC | MsFlags::MS_SHARED;
    mount(None::<&str>, "/", None::<&str>, shared, None::<&str>).context("sharing the node's mounts")
}

fn bind(from: &Path, to: &Path) -> anyhow::Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("mounting {} on {}", from.display(), to.display()))
}
