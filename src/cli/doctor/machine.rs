//! Kernel, cgroups, disk, swap and limits.

use super::programs::find_program;
use super::{Finding, Weight};
use crate::containerd::can_raise_limits;
use crate::layout::Layout;
use crate::settings::Settings;
use copepod_kubelet::node::pressure::{Signal, Thresholds, room};
use std::path::Path;
use std::process::Command;

/// Each container with a followed log and each program that watches files takes one.
const INOTIFY_INSTANCES_MIN: u64 = 128;
/// Files and folders that all of them may watch together.
const INOTIFY_WATCHES_MIN: u64 = 8192;

pub(super) fn root() -> Result<String, String> {
    match nix::unistd::geteuid().is_root() {
        true => Ok("yes".into()),
        false => Err("sudo copepod up".into()),
    }
}

pub(super) fn findings(layout: &Layout, settings: &Settings) -> Vec<Finding> {
    let oom = match can_raise_limits() {
        true => Ok("yes".into()),
        false => {
            Err("run with CAP_SYS_RESOURCE; without it system pods are not protected from the oom killer"
                .into())
        }
    };
    vec![
        Finding::new(Weight::Needed, "cgroups", cgroups(Path::new("/sys/fs/cgroup"))),
        Finding::new(Weight::Needed, "overlay file system", overlay()),
        Finding::new(
            Weight::Needed,
            "bridges and veth pairs in the kernel",
            in_namespace(
                "modprobe bridge veth",
                &[
                    "ip link add copepod-probe type bridge",
                    "ip link add copepod-a type veth peer name copepod-b",
                ],
            ),
        ),
        Finding::new(
            Weight::Needed,
            "NAT with iptables in the kernel",
            in_namespace(
                "modprobe nf_tables nft_compat nf_nat xt_MASQUERADE xt_comment",
                &["iptables -t nat -A POSTROUTING -m comment --comment copepod -j MASQUERADE"],
            ),
        ),
        Finding::new(Weight::Wished, "services between pods of one bridge (br_netfilter)", br_netfilter()),
        Finding::new(Weight::Warned, "room on the disk", disk(layout.root(), &settings.eviction_hard)),
        Finding::new(Weight::Wished, "swap", swap()),
        Finding::new(
            Weight::Warned,
            "inotify instances",
            at_least("fs.inotify.max_user_instances", INOTIFY_INSTANCES_MIN),
        ),
        Finding::new(
            Weight::Warned,
            "inotify watches",
            at_least("fs.inotify.max_user_watches", INOTIFY_WATCHES_MIN),
        ),
        Finding::new(Weight::Wished, "IP forwarding", forwarding()),
        Finding::new(Weight::Wished, "may lower oom scores", oom),
    ]
}

/// containerd and the kubelet of the cluster both use cgroup files themselves, never systemd: only the controllers count.
fn cgroups(mount: &Path) -> Result<String, String> {
    let wanted = ["cpu", "memory", "pids"];
    if let Ok(text) = std::fs::read_to_string(mount.join("cgroup.controllers")) {
        let there: Vec<&str> = text.split_whitespace().collect();
        let missing: Vec<&str> = wanted.into_iter().filter(|c| !there.contains(c)).collect();
        return match missing.is_empty() {
            true => Ok("v2, driver cgroupfs".into()),
            false => Err(format!(
                "boot with cgroup_enable={}   # cgroup v2 lacks {}",
                missing.join(" cgroup_enable="),
                missing.join(", ")
            )),
        };
    }
    let missing: Vec<&str> = wanted.into_iter().filter(|c| !mount.join(c).is_dir()).collect();
    match missing.is_empty() {
        true => Ok("v1, driver cgroupfs".into()),
        false => Err(format!(
            "mount -t cgroup -o {0} cgroup {1}/{0}   # also {2}",
            missing[0],
            mount.display(),
            missing.join(", ")
        )),
    }
}

/// The first mount of a machine loads the module; until then the kernel does not list the file system.
fn overlay() -> Result<String, String> {
    let known = || {
        let list = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        list.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay")
    };
    let load = || {
        let modprobe = find_program("modprobe")?;
        Command::new(modprobe).arg("overlay").output().ok().filter(|output| output.status.success())
    };
    match known() || (load().is_some() && known()) {
        true => Ok("supported".into()),
        false => {
            Err("modprobe overlay   # if there is no such module: a kernel with CONFIG_OVERLAY_FS".into())
        }
    }
}

/// Does things in a network namespace that ends with the check.
fn in_namespace(mend: &str, commands: &[&str]) -> Result<String, String> {
    if !nix::unistd::geteuid().is_root() {
        return Ok("not looked at: only root can".into());
    }
    for command in commands {
        let mut words = command.split(' ');
        let name = words.next().unwrap_or_default();
        // A missing program is another finding.
        let (Some(unshare), Some(program)) = (find_program("unshare"), find_program(name)) else { continue };
        let mut run = Command::new(unshare);
        run.arg("--net").arg(program).args(words);
        match run.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
                return Err(format!("{mend}   # '{command}' says: {why}"));
            }
            Err(error) => return Err(format!("{mend}   # '{command}': {error}")),
        }
    }
    Ok("works".into())
}

fn br_netfilter() -> Result<String, String> {
    match std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").as_deref().map(str::trim) {
        Ok("1") => Ok("on".into()),
        Ok(_) => Err("sysctl -w net.bridge.bridge-nf-call-iptables=1".into()),
        Err(_) => Err("modprobe br_netfilter".into()),
    }
}

/// The file system that the data folder is, or will be, on: below the thresholds nodes say DiskPressure and take no pods.
fn disk(folder: &Path, thresholds: &str) -> Result<String, String> {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let shown = there.display();
    let room = room(there).map_err(|error| format!("df {shown}   # {error}"))?;
    let thresholds: Thresholds = thresholds.parse()?;
    let least = [Signal::NodeDisk, Signal::ImageDisk].map(|signal| thresholds.amount(signal, room.capacity));
    let (least, free) = (least.into_iter().max().unwrap_or_default(), room.available);
    match free >= least {
        true => Ok(format!("{} MiB free below {shown}", free >> 20)),
        false => Err(format!(
            "free some space below {shown}   # {} MiB are free; below {} MiB nodes have DiskPressure and take no pods ('copepod up --eviction-hard')",
            free >> 20,
            least >> 20
        )),
    }
}

fn swap() -> Result<String, String> {
    let table = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    match table.lines().nth(1) {
        None => Ok("off".into()),
        Some(_) => Err("swapoff -a   # memory limits of pods do not count what is swapped out".into()),
    }
}

fn at_least(name: &str, least: u64) -> Result<String, String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let text = std::fs::read_to_string(&path).map_err(|error| format!("sysctl {name}   # {error}"))?;
    match text.trim().parse::<u64>() {
        Ok(value) if value >= least => Ok(value.to_string()),
        _ => Err(format!("sysctl -w {name}={}   # it is {}", least * 4, text.trim())),
    }
}

fn forwarding() -> Result<String, String> {
    match std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").as_deref().map(str::trim) {
        Ok("1") => Ok("on".into()),
        // The bridge plugin turns it on by itself when it makes the first pod's network.
        _ => Err("sysctl -w net.ipv4.ip_forward=1".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_are_told_apart_and_what_is_missing_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let mend = cgroups(dir.path()).expect_err("nothing is there");
        assert!(mend.starts_with("mount -t cgroup -o cpu ") && mend.ends_with("cpu, memory, pids"), "{mend}");
        for controller in ["cpu", "memory", "pids"] {
            std::fs::create_dir(dir.path().join(controller)).expect("a folder");
        }
        assert_eq!(cgroups(dir.path()), Ok("v1, driver cgroupfs".into()));
        std::fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io pids\n").expect("a file");
        let mend = cgroups(dir.path()).expect_err("memory is missing");
        assert!(mend.starts_with("boot with cgroup_enable=memory"), "{mend}");
        std::fs::write(dir.path().join("cgroup.controllers"), "cpu memory pids\n").expect("a file");
        assert_eq!(cgroups(dir.path()), Ok("v2, driver cgroupfs".into()));
    }
}
