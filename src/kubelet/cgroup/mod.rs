//! The cgroups above containers: `kubepods`, the classes below it, one for each pod.
//!
//! Guaranteed pods are directly below `kubepods`, the others below `burstable` and `besteffort`, as upstream lays them
//! out. The runtime makes the containers' own below the pod's. Driver cgroupfs only: with systemd the settings refuse.
//!
//! upstream: kubelet/cm/qos_container_manager_linux.go, pod_container_manager_linux.go, cgroup_manager_linux.go

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::{
    container::resources::{QUOTA_PERIOD_MICROS, SHARES_MIN, quota, shares, weight},
    pod::{
        model::uid,
        qos::{Side, all_limited, pod_total, qos_class},
    },
};

const MOUNT: &str = "/sys/fs/cgroup";
const KUBEPODS: &str = "kubepods";

/// Controllers a pod's cgroup needs in the unified hierarchy.
const V2_CONTROLLERS: &[&str] = &["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

/// The node's cgroups.
#[derive(Debug)]
pub struct Cgroups {
    /// Hierarchies: one (v2), or one for each controller (v1).
    hierarchies: Vec<PathBuf>,
    v2: bool,
    /// Cgroup under which `kubepods` is, with a leading and without a trailing slash.
    root: String,
    enabled: bool,
    swap_controller: bool,
    /// Logs of running containers by container id, kept by the workers for rotation.
    pub logs: Mutex<HashMap<String, PathBuf>>,
}

impl Cgroups {
    /// Looks at what the machine has. `enabled` is `--cgroups-per-qos`.
    pub fn new(root: &str, enabled: bool) -> io::Result<Self> {
        let v2 = Path::new(MOUNT).join("cgroup.controllers").exists();
        let hierarchies = if v2 { vec![PathBuf::from(MOUNT)] } else { v1_hierarchies()? };
        let swap_controller = if v2 {
            Path::new("/proc/swaps").exists()
                && Path::new(MOUNT).join("system.slice/memory.swap.max").exists()
        } else {
            Path::new(MOUNT).join("memory/memory.memsw.limit_in_bytes").exists()
        };
        Ok(Cgroups {
            hierarchies,
            v2,
            root: root.trim_end_matches('/').to_owned(),
            enabled,
            swap_controller,
            logs: Mutex::default(),
        })
    }

    /// Whether the unified hierarchy is in use.
    pub fn is_v2(&self) -> bool {
        self.v2
    }

    /// Whether swap can be limited.
    pub fn swap_controller(&self) -> bool {
        self.swap_controller
    }

    /// The cgroup that a pod's containers are put below; empty when pods have none.
    pub fn parent_of(&self, pod: &Pod) -> String {
        if !self.enabled {
            return String::new();
        }
        let class = match qos_class(pod) {
            "Burstable" => "burstable/",
            "BestEffort" => "besteffort/",
            _ => "",
        };
        format!("{}/{KUBEPODS}/{class}pod{}", self.root, uid(pod))
    }

    /// Makes `kubepods` and the classes.
    pub fn set_up(&self, allocatable_cpu_milli: i64, allocatable_memory: i64) -> io::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let base = format!("{}/{KUBEPODS}", self.root);
        self.create(&base)?;
        self.limit(&base, Some(shares(allocatable_cpu_milli)), None, Some(allocatable_memory))?;
        for class in ["burstable", "besteffort"] {
            let path = format!("{base}/{class}");
            self.create(&path)?;
            self.limit(&path, Some(SHARES_MIN), None, None)?;
        }
        Ok(())
    }

    /// Makes a pod's cgroup with its limits; an existing one is given them anew.
    // upstream: kubelet/cm/helpers_linux.go ResourceConfigForPod
    pub fn create_pod(&self, pod: &Pod) -> io::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let path = self.parent_of(pod);
        self.create(&path)?;
        let requests = pod_total(pod, "cpu", Side::Requests).unwrap_or(0);
        let cpu_shares = if qos_class(pod) == "BestEffort" { SHARES_MIN } else { shares(requests) };
        let limited =
            |name: &str| all_limited(pod, name).then(|| pod_total(pod, name, Side::Limits)).flatten();
        self.limit(&path, Some(cpu_shares), limited("cpu").map(quota), limited("memory"))
    }

    /// The burstable class gets as many shares as its pods request.
    pub fn set_burstable_shares(&self, milli_cpu: i64) -> io::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        self.limit(&format!("{}/{KUBEPODS}/burstable", self.root), Some(shares(milli_cpu)), None, None)
    }

    /// Removes a pod's cgroup wherever it is. What a process still holds stays, and is told.
    pub fn remove_pod(&self, uid: &str) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            for class in ["", "burstable/", "besteffort/"] {
                let path = self.place(hierarchy, &format!("{}/{KUBEPODS}/{class}pod{uid}", self.root));
                remove_tree(&path)?;
            }
        }
        Ok(())
    }

    /// Removes `kubepods` and, unless it is the machine's own, the root above it.
    pub fn remove_all(&self) -> io::Result<()> {
        let top = if self.root.is_empty() { format!("/{KUBEPODS}") } else { self.root.clone() };
        for hierarchy in &self.hierarchies {
            remove_tree(&self.place(hierarchy, &top))?;
        }
        Ok(())
    }

    /// Uids of pods that have a cgroup.
    pub fn pods(&self) -> Vec<String> {
        let Some(hierarchy) = self.hierarchies.first() else { return Vec::new() };
        let mut found = Vec::new();
        for class in ["", "burstable", "besteffort"] {
            let directory = self.place(hierarchy, &format!("{}/{KUBEPODS}/{class}", self.root));
            // A class that is not there has no pods.
            let Ok(entries) = fs::read_dir(directory) else { continue };
            found.extend(entries.flatten().filter_map(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .strip_prefix("pod")
                    .filter(|uid| uid.len() > 8)
                    .map(str::to_owned)
            }));
        }
        found
    }

    fn place(&self, hierarchy: &Path, cgroup: &str) -> PathBuf {
        hierarchy.join(cgroup.trim_start_matches('/'))
    }

    fn create(&self, cgroup: &str) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            let mut path = hierarchy.clone();
            for part in cgroup.split('/').filter(|part| !part.is_empty()) {
                if self.v2 {
                    enable_controllers(&path);
                }
                let parent = path.clone();
                path.push(part);
                match fs::create_dir(&path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error),
                }
                if hierarchy.ends_with("cpuset") {
                    inherit_cpuset(&parent, &path)?;
                }
            }
            if self.v2 {
                enable_controllers(&path);
            }
        }
        Ok(())
    }

    fn limit(
        &self,
        cgroup: &str,
        cpu_shares: Option<i64>,
        cpu_quota: Option<i64>,
        memory: Option<i64>,
    ) -> io::Result<()> {
        let set = |controller: &str, file: &str, value: String| -> io::Result<()> {
            let base = if self.v2 { PathBuf::from(MOUNT) } else { Path::new(MOUNT).join(controller) };
            let path = self.place(&base, cgroup).join(file);
            if !path.exists() {
                // The controller is not there; what it would limit is not limited.
                return Ok(());
            }
            fs::write(path, value)
        };
        if let Some(value) = cpu_shares {
            if self.v2 {
                set("cpu", "cpu.weight", weight(value).to_string())?;
            } else {
                set("cpu", "cpu.shares", value.to_string())?;
            }
        }
        if let Some(value) = cpu_quota.filter(|value| *value > 0) {
            if self.v2 {
                set("cpu", "cpu.max", format!("{value} {QUOTA_PERIOD_MICROS}"))?;
            } else {
                set("cpu", "cpu.cfs_period_us", QUOTA_PERIOD_MICROS.to_string())?;
                set("cpu", "cpu.cfs_quota_us", value.to_string())?;
            }
        }
        if let Some(value) = memory.filter(|value| *value > 0) {
            let file = if self.v2 { "memory.max" } else { "memory.limit_in_bytes" };
            set("memory", file, value.to_string())?;
        }
        Ok(())
    }
}

fn v1_hierarchies() -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mounts")?;
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_, point, kind) = (words.next()?, words.next()?, words.next()?);
            (kind == "cgroup" && point.starts_with(MOUNT)).then(|| PathBuf::from(point))
        })
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// A controller that cannot be enabled is one the machine does not have.
fn enable_controllers(path: &Path) {
    for controller in V2_CONTROLLERS {
        if let Err(error) = fs::write(path.join("cgroup.subtree_control"), format!("+{controller}")) {
            tracing::debug!(%error, controller, path = %path.display(), "cgroup controller");
        }
    }
}

/// A new cpuset is empty and takes no process until it has processors and memory nodes.
fn inherit_cpuset(parent: &Path, path: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(path.join(file))?.trim().is_empty() {
            fs::write(path.join(file), fs::read_to_string(parent.join(file))?)?;
        }
    }
    Ok(())
}

/// Removes a cgroup and those below it, innermost first.
fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
