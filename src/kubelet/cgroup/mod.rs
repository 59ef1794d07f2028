//! The cgroups above containers: `kubepods`, the classes below it, one for each pod.
//!
//! Guaranteed pods are directly below `kubepods`, the others below `burstable` and `besteffort`, as upstream lays them
//! out. The runtime makes the containers' own below the pod's. Driver cgroupfs only: a runtime with the systemd driver is
//! refused at the start ([`crate::config::check_driver`]).
//!
//! | module | what |
//! |---|---|
//! | [`limits`] | what is written into which file, on either kind of hierarchy. Pure |
//!
//! upstream: kubelet/cm/qos_container_manager_linux.go, pod_container_manager_linux.go, cgroup_manager_linux.go

mod limits;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::{
    container::resources::{SHARES_MIN, shares},
    pod::{model::uid, qos::qos_class},
};
use limits::Limits;
pub use limits::huge_page_name;

const MOUNT: &str = "/sys/fs/cgroup";
const KUBEPODS: &str = "kubepods";
/// Where the processes of one of several nodes are that belong to no pod.
const SYSTEM: &str = "system";

/// Controllers of the unified hierarchy that pods cannot do without.
const V2_NEEDED: &[&str] = &["cpu", "memory", "pids"];
/// Controllers that are handed down to pods where the machine has them.
const V2_WANTED: &[&str] = &["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

/// The node's cgroups.
#[derive(Debug)]
pub struct Cgroups {
    /// Hierarchies: one (v2), or one for each controller (v1).
    hierarchies: Vec<PathBuf>,
    /// Where the hierarchies are mounted.
    mount: PathBuf,
    v2: bool,
    /// Cgroup under which `kubepods` is, with a leading and without a trailing slash.
    root: String,
    enabled: bool,
    swap_controller: bool,
    /// Sizes of huge pages, as the names of limit files have them: `2MB`.
    huge_page_sizes: Vec<String>,
    /// Logs of running containers by container id, kept by the workers for rotation.
    pub logs: Mutex<HashMap<String, PathBuf>>,
}

impl Cgroups {
    /// Looks at what the machine has. `enabled` is `--cgroups-per-qos`.
    pub fn new(root: &str, enabled: bool) -> io::Result<Self> {
        Self::at(Path::new(MOUNT), root, enabled)
    }

    /// The same on hierarchies that are mounted elsewhere.
    fn at(mount: &Path, root: &str, enabled: bool) -> io::Result<Self> {
        let v2 = mount.join("cgroup.controllers").exists();
        let hierarchies = if v2 { vec![mount.to_owned()] } else { v1_hierarchies(mount)? };
        let swap_controller = if v2 {
            Path::new("/proc/swaps").exists() && mount.join("system.slice/memory.swap.max").exists()
        } else {
            mount.join("memory/memory.memsw.limit_in_bytes").exists()
        };
        Ok(Cgroups {
            hierarchies,
            mount: mount.to_owned(),
            v2,
            root: root.trim_end_matches('/').to_owned(),
            enabled,
            swap_controller,
            huge_page_sizes: huge_page_sizes(Path::new("/sys/kernel/mm/hugepages"))?,
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

    /// Makes `kubepods`, limited to what pods may use together, and the classes.
    // upstream: kubelet/cm/node_container_manager_linux.go enforceNodeAllocatableCgroups, qos_container_manager_linux.go Start
    pub fn set_up(&self, cpu_milli: i64, memory_bytes: i64) -> io::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let base = format!("{}/{KUBEPODS}", self.root);
        self.create(&base)?;
        let all = Limits { memory_bytes: Some(memory_bytes), ..Limits::of_shares(shares(cpu_milli)) };
        self.apply(&base, &all)?;
        for class in ["burstable", "besteffort"] {
            let path = format!("{base}/{class}");
            self.create(&path)?;
            let huge_pages = self
                .huge_page_sizes
                .iter()
                .map(|size| (size.clone(), limits::HUGE_PAGES_UNBOUNDED))
                .collect();
            self.apply(&path, &Limits { huge_pages, ..Limits::of_shares(SHARES_MIN) })?;
        }
        Ok(())
    }

    /// Makes a pod's cgroup with its limits; an existing one is given them anew.
    pub fn create_pod(&self, pod: &Pod) -> io::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let path = self.parent_of(pod);
        self.create(&path)?;
        self.apply(&path, &Limits::of_pod(pod, &self.huge_page_sizes))
    }

    /// The burstable class gets as many shares as its pods request.
    pub fn set_burstable_shares(&self, milli_cpu: i64) -> io::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        self.apply(&format!("{}/{KUBEPODS}/burstable", self.root), &Limits::of_shares(shares(milli_cpu)))
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
        // Beside v1's hierarchies there may be an empty unified one, in which runc leaves folders too.
        let unified = self.mount.join("unified");
        for hierarchy in self.hierarchies.iter().chain([&unified]) {
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

    /// Processes in `kubepods` and below.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        self.processes_below(&format!("{}/{KUBEPODS}", self.root))
    }

    /// Processes in a cgroup and below.
    pub fn processes_below(&self, cgroup: &str) -> io::Result<Vec<i32>> {
        let mut found = std::collections::BTreeSet::new();
        for hierarchy in &self.hierarchies {
            processes_below(&self.place(hierarchy, cgroup), &mut found)?;
        }
        Ok(found.into_iter().collect())
    }

    /// Puts a process beside `kubepods`, in one hierarchy: it is to be found, not to be limited.
    pub fn join(&self, pid: i32) -> io::Result<()> {
        let directory = self.system();
        fs::create_dir_all(&directory).map_err(|error| at(&directory, error))?;
        let procs = directory.join("cgroup.procs");
        fs::write(&procs, pid.to_string()).map_err(|error| at(&procs, error))
    }

    /// Processes that were put there, with their children.
    pub fn joined(&self) -> io::Result<Vec<i32>> {
        let mut found = std::collections::BTreeSet::new();
        processes_below(&self.system(), &mut found)?;
        Ok(found.into_iter().collect())
    }

    /// Not handed any controllers: a cgroup of v2 that has some for its children can have no processes.
    fn system(&self) -> PathBuf {
        let hierarchy = if self.v2 { self.mount.clone() } else { self.mount.join("pids") };
        self.place(&hierarchy, &format!("{}/{SYSTEM}", self.root))
    }

    /// Makes a cgroup in every hierarchy, ready to be used by its children.
    pub fn create(&self, cgroup: &str) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            let mut path = hierarchy.clone();
            for part in cgroup.split('/').filter(|part| !part.is_empty()) {
                if self.v2 {
                    hand_down_controllers(&path)?;
                }
                let parent = path.clone();
                path.push(part);
                match fs::create_dir(&path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(at(&path, error)),
                }
                if hierarchy.ends_with("cpuset") {
                    inherit_cpuset(&parent, &path)?;
                }
            }
            if self.v2 {
                hand_down_controllers(&path)?;
            }
        }
        Ok(())
    }

    fn apply(&self, cgroup: &str, limits: &Limits) -> io::Result<()> {
        for (controller, file, value) in limits.files(self.v2) {
            let base = if self.v2 { self.mount.clone() } else { self.mount.join(controller) };
            let path = self.place(&base, cgroup).join(file);
            if !path.exists() {
                // The controller is not there; what it would limit is not limited.
                continue;
            }
            fs::write(&path, value).map_err(|error| at(&path, error))?;
        }
        Ok(())
    }
}

/// An error with the file it is about.
fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn v1_hierarchies(mount: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mounts")?;
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_, point, kind) = (words.next()?, words.next()?, words.next()?);
            (kind == "cgroup" && Path::new(point).starts_with(mount)).then(|| PathBuf::from(point))
        })
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Sizes of huge pages that the kernel has.
fn huge_page_sizes(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // A kernel without huge pages.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(directory, error)),
    };
    let mut sizes = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let kib =
            name.strip_prefix("hugepages-").and_then(|name| name.strip_suffix("kB")?.parse::<i64>().ok());
        sizes.extend(kib.map(|kib| limits::huge_page_name(kib * 1024)));
    }
    sizes.sort();
    Ok(sizes)
}

/// Lets the children of a cgroup use its controllers. Only what is not yet handed down is written: the kernel refuses a
/// change where processes are, and is right to.
fn hand_down_controllers(path: &Path) -> io::Result<()> {
    let words = |file: &str| -> io::Result<Vec<String>> {
        let path = path.join(file);
        let text = fs::read_to_string(&path).map_err(|error| at(&path, error))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    };
    let (there, on) = (words("cgroup.controllers")?, words("cgroup.subtree_control")?);
    for controller in V2_WANTED {
        let has = |list: &[String]| list.iter().any(|word| word == controller);
        if has(&on) {
            continue;
        }
        if !has(&there) {
            if V2_NEEDED.contains(controller) {
                let message = format!("{}: cgroup controller {controller:?} is missing", path.display());
                return Err(io::Error::new(io::ErrorKind::Unsupported, message));
            }
            continue;
        }
        let control = path.join("cgroup.subtree_control");
        if let Err(error) = fs::write(&control, format!("+{controller}")) {
            if V2_NEEDED.contains(controller) {
                return Err(at(&control, error));
            }
            tracing::debug!(%error, controller, path = %control.display(), "cgroup controller");
        }
    }
    Ok(())
}

fn processes_below(path: &Path, found: &mut std::collections::BTreeSet<i32>) -> io::Result<()> {
    let text = match fs::read_to_string(path.join("cgroup.procs")) {
        Ok(text) => text,
        // Gone meanwhile, with its processes.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
        Err(error) => return Err(at(path, error)),
    };
    found.extend(text.lines().filter_map(|line| line.trim().parse::<i32>().ok()));
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes_below(&entry.path(), found)?;
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests;
