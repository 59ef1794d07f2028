//! Both kinds of hierarchy on a folder: what the kernel would make in a new cgroup is made by the test.

use std::collections::BTreeMap;

use super::*;
use crate::container::resources::weight;

/// Values that upstream's own function gave: kubelet/cm/cgroup_manager_linux.go getCPUWeight.
#[test]
fn weights_are_upstreams() {
    for (shares, want) in [
        (2, 1),
        (3, 1),
        (100, 4),
        (102, 4),
        (512, 20),
        (1024, 39),
        (2048, 79),
        (10_240, 391),
        (262_144, 10_000),
        (262_145, 10_000),
    ] {
        assert_eq!(weight(shares), want, "{shares}");
    }
}

fn pod(class: &str, resources: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "uid-of-pod"},
        "spec": {"containers": [{"name": "c", "resources": resources}]},
        "status": {"qosClass": class},
    }))
    .expect("a pod")
}

/// Sizes of huge pages, pod, and the files of both kinds.
#[test]
fn a_pods_limits_are_upstreams_in_both_forms() {
    let both = serde_json::json!({"requests": {"cpu": "500m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}});
    let pages = serde_json::json!({"requests": {"cpu": "1", "hugepages-2Mi": "4Mi"}, "limits": {"hugepages-2Mi": "4Mi"}});
    for (name, pod, v1, v2) in [
        (
            "best effort",
            pod("BestEffort", serde_json::json!({})),
            "cpu.shares=2 hugetlb.2MB.limit_in_bytes=0 hugetlb.2MB.rsvd.limit_in_bytes=0",
            "cpu.weight=1 hugetlb.2MB.max=0 hugetlb.2MB.rsvd.max=0",
        ),
        (
            "burstable with all limits",
            pod("Burstable", both),
            "cpu.shares=512 cpu.cfs_period_us=100000 cpu.cfs_quota_us=100000 memory.limit_in_bytes=134217728 hugetlb.2MB.limit_in_bytes=0 hugetlb.2MB.rsvd.limit_in_bytes=0",
            "cpu.weight=20 cpu.max=100000 100000 memory.max=134217728 hugetlb.2MB.max=0 hugetlb.2MB.rsvd.max=0",
        ),
        (
            "huge pages",
            pod("Burstable", pages),
            "cpu.shares=1024 hugetlb.2MB.limit_in_bytes=4194304 hugetlb.2MB.rsvd.limit_in_bytes=4194304",
            "cpu.weight=39 hugetlb.2MB.max=4194304 hugetlb.2MB.rsvd.max=4194304",
        ),
    ] {
        let limits = Limits::of_pod(&pod, &["2MB".to_owned()]);
        for (is_v2, want) in [(false, v1), (true, v2)] {
            let files = limits.files(is_v2).into_iter().map(|(_, file, value)| format!("{file}={value}"));
            assert_eq!(files.collect::<Vec<_>>().join(" "), want, "{name}, v2: {is_v2}");
        }
    }
}

#[test]
fn huge_page_sizes_have_the_kernels_names() {
    for (bytes, want) in [(2 << 20, "2MB"), (1 << 30, "1GB"), (64 << 10, "64KB"), (32 << 20, "32MB")] {
        assert_eq!(limits::huge_page_name(bytes), want);
    }
}

/// A unified hierarchy in a folder. `controllers` is what the kernel offers at the root.
fn unified(controllers: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("cgroup.controllers"), controllers).expect("a file");
    fs::write(dir.path().join("cgroup.subtree_control"), "").expect("a file");
    dir
}

/// Plays the kernel: files that a new cgroup has. A file written to twice keeps the last word only, so each controller is
/// looked for in what was written.
fn populate(dir: &Path, files: &[&str]) {
    fs::create_dir_all(dir).expect("a folder");
    for file in ["cgroup.controllers", "cgroup.subtree_control", "cgroup.procs"].iter().chain(files) {
        fs::write(
            dir.join(file),
            if *file == "cgroup.controllers" { "cpuset cpu io memory hugetlb pids" } else { "" },
        )
        .expect("a file");
    }
}

fn contents(dir: &Path, files: &[&str]) -> BTreeMap<String, String> {
    files
        .iter()
        .map(|file| ((*file).to_owned(), fs::read_to_string(dir.join(file)).expect("a file")))
        .collect()
}

#[test]
fn the_unified_hierarchy_gets_classes_pods_and_limits() {
    let mount = unified("cpuset cpu io memory hugetlb pids");
    let files = ["cpu.weight", "cpu.max", "memory.max"];
    let base = mount.path().join("node/kubepods");
    for part in ["", "burstable", "besteffort", "burstable/poduid-of-pod"] {
        populate(&base.join(part), &files);
    }
    populate(&mount.path().join("node"), &[]);
    let cgroups = Cgroups::at(mount.path(), "/node/", true).expect("cgroups");
    assert!(cgroups.is_v2());
    cgroups.set_up(1900, 1 << 30).expect("set up");
    assert_eq!(contents(&base, &["cpu.weight", "memory.max"])["cpu.weight"], weight(1945).to_string());
    assert_eq!(contents(&base, &["memory.max"])["memory.max"], (1_i64 << 30).to_string());
    assert_eq!(contents(&base.join("besteffort"), &["cpu.weight"])["cpu.weight"], "1");
    // The last controller that was handed down, on the road to the pods.
    for part in ["", "node", "node/kubepods", "node/kubepods/burstable"] {
        let file = mount.path().join(part).join("cgroup.subtree_control");
        assert_eq!(fs::read_to_string(file).expect("a file"), "+pids", "{part}");
    }
    let limits = serde_json::json!({"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "1Mi"}});
    let pod = pod("Burstable", limits);
    assert_eq!(cgroups.parent_of(&pod), "/node/kubepods/burstable/poduid-of-pod");
    cgroups.create_pod(&pod).expect("a pod's cgroup");
    let dir = base.join("burstable/poduid-of-pod");
    let got = contents(&dir, &files);
    assert_eq!(
        (got["cpu.weight"].as_str(), got["cpu.max"].as_str(), got["memory.max"].as_str()),
        ("10", "50000 100000", "1048576")
    );
    assert_eq!(cgroups.pods(), ["uid-of-pod"]);

    // What still runs is found wherever it is.
    fs::write(dir.join("cgroup.procs"), "42\n7\n").expect("a file");
    assert_eq!(cgroups.processes().expect("processes"), [7, 42]);
}

/// The kernel refuses to change what is handed down where processes are: what is on already must not be written again.
#[test]
fn controllers_that_are_on_are_left_alone_and_missing_ones_are_named() {
    let mount = unified("cpu memory pids");
    fs::write(mount.path().join("cgroup.subtree_control"), "cpu memory pids").expect("a file");
    hand_down_controllers(mount.path()).expect("nothing to do");
    let kept = fs::read_to_string(mount.path().join("cgroup.subtree_control")).expect("a file");
    assert_eq!(kept, "cpu memory pids");

    let poor = unified("cpu pids");
    let error = hand_down_controllers(poor.path()).expect_err("no memory controller");
    assert!(error.to_string().ends_with("cgroup controller \"memory\" is missing"), "{error}");
}

/// A node's own processes are told apart from those of its pods, and take no controllers.
#[test]
fn a_nodes_own_processes_are_beside_its_pods() {
    for v2 in [false, true] {
        let dir = tempfile::tempdir().expect("a folder");
        if v2 {
            fs::write(dir.path().join("cgroup.controllers"), "cpu memory pids\n").expect("a file");
        }
        let cgroups = Cgroups::at(dir.path(), "/box/1", true).expect("cgroups");
        assert_eq!(cgroups.joined().expect("none"), Vec::<i32>::new());
        cgroups.join(42).expect("joins");
        assert_eq!(cgroups.joined().expect("one"), [42]);
        let place = if v2 { "box/1/system" } else { "pids/box/1/system" };
        let made: Vec<_> = fs::read_dir(dir.path().join(place)).expect("a folder").flatten().collect();
        assert_eq!(made.len(), 1, "only cgroup.procs was written: {made:?}");
    }
}
