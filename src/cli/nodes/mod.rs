//! Several nodes on one machine: `copepod up --nodes N`.
//!
//! | module | what |
//! |---|---|
//! | [`plan`] | names, addresses, pod networks. Pure |
//! | [`holder`] | the process that is a node: its namespaces and what is mounted there |
//! | [`points`] | mount points that the machine lacks |
//! | [`network`] | bridge, cables, routes |
//! | [`command`] | `copepod node` |
//! | this one | a node's start and end |
//!
//! A node has a folder of its own, laid out as a one-node cluster's: certificates, kubeconfig, containerd, kubelet, logs,
//! pid files. Its processes are units like all others, started by `copepod node exec`; that is also how somebody else's
//! program gets into a node.
//!
//! Invariants:
//! * whatever runs in a node is in the node's cgroup, so that it is found and ended even when its holder is gone;
//! * a node whose holder died is ended as a whole before it is made anew: its network is another one then.

pub mod command;
pub mod holder;
pub mod network;
pub mod plan;
pub mod points;

use crate::components;
use crate::containerd::{self, Programs};
use crate::down;
use crate::layout::Layout;
use crate::settings::Settings;
use crate::units::{self, Unit};
use crate::{image, kubeconfig};
use anyhow::{Context as _, bail};
use copepod_kubelet::teardown;
use copepod_pki::ClusterPki;
use copepod_pki::files::{self, Mode};
use plan::{Node, Plan, Wanted};
use std::fs;
use std::path::{Path, PathBuf};

/// The unit that is the node.
pub const HOLDER: &str = "node";
/// The units of a node, in the order of their start.
pub const UNITS: [&str; 3] = [HOLDER, "containerd", "kubelet"];
/// Folders of a node.
const FOLDERS: [&str; 9] =
    ["run", "log", "pki", "kubeconfig", "containerd", "cni", "manifests", "kubelet", "var"];

/// A node and where its things are.
#[derive(Clone, Debug)]
pub struct Place {
    /// The node.
    pub node: Node,
    /// Its folder.
    pub layout: Layout,
}

impl Place {
    /// The units that this node has with these settings.
    pub fn units(&self, settings: &Settings) -> impl Iterator<Item = &'static str> {
        let kubelet = settings.runs("kubelet");
        UNITS.into_iter().filter(move |name| kubelet || *name != "kubelet")
    }
}

/// The plan of a cluster's nodes; an error names the flag that makes it impossible.
pub fn plan_of(settings: &Settings) -> Result<Plan, String> {
    plan::plan(Wanted {
        nodes: settings.nodes,
        stem: &settings.node_name,
        bridge: &settings.bridge,
        node_cidr: &settings.node_cidr,
        pod_cidr: &settings.pod_cidr,
    })
}

/// The nodes of a cluster with several; none where the machine itself is the node.
pub fn places(layout: &Layout, settings: &Settings) -> anyhow::Result<Vec<Place>> {
    if settings.nodes == 0 {
        return Ok(Vec::new());
    }
    let plan = plan_of(settings).map_err(anyhow::Error::msg)?;
    Ok(plan.nodes.into_iter().map(|node| Place { layout: layout.node(node.number), node }).collect())
}

/// The names of all nodes.
pub fn names(settings: &Settings) -> anyhow::Result<Vec<String>> {
    if settings.nodes == 0 {
        return Ok(vec![settings.node_name.clone()]);
    }
    let plan = plan_of(settings).map_err(anyhow::Error::msg)?;
    Ok(plan.nodes.into_iter().map(|node| node.name).collect())
}

/// The sockets of every containerd of the cluster.
pub fn sockets(layout: &Layout, settings: &Settings) -> anyhow::Result<Vec<PathBuf>> {
    let places = places(layout, settings)?;
    match places.is_empty() {
        true => Ok(vec![layout.containerd_socket()]),
        false => Ok(places.iter().map(|place| place.layout.containerd_socket()).collect()),
    }
}

/// Certificates, kubeconfigs and configuration of every node, and the bridge between them.
pub fn prepare(layout: &Layout, settings: &Settings, programs: &Programs) -> anyhow::Result<()> {
    let plan = plan_of(settings).map_err(anyhow::Error::msg)?;
    files::private_dir(&layout.join("nodes"))?;
    for place in places(layout, settings)? {
        let own = &place.layout;
        for name in FOLDERS {
            files::private_dir(&own.join(name))?;
        }
        ClusterPki::ensure_node(&layout.pki(), &own.pki(), &place.node.name, place.node.address.into())?;
        let text = kubeconfig::render(own, settings, "node")?;
        files::write(&own.kubeconfig("kubelet"), text.as_bytes(), Mode::Private)?;
        let network = containerd::routed_network(&place.node.pods, &own.join("run/ipam"))?;
        containerd::write_config(own, settings, programs, &network)?;
    }
    points::ensure(layout)?;
    network::make_bridge(layout, settings, &plan)
}

/// A unit that runs in the node.
fn inside(layout: &Layout, place: &Place, unit: Unit) -> anyhow::Result<Unit> {
    let mut command = own_command(layout)?;
    command.extend(["node".into(), "exec".into(), place.node.name.clone(), "--".into()]);
    command.extend(unit.command);
    Ok(Unit { command, ..unit })
}

fn own_command(layout: &Layout) -> anyhow::Result<Vec<String>> {
    let own = std::env::current_exe().context("which program is this?")?.display().to_string();
    Ok(vec![own, "--data-dir".into(), layout.root().display().to_string()])
}

/// The process of the holder, not yet furnished.
fn holder_unit(layout: &Layout, place: &Place) -> anyhow::Result<Unit> {
    let words = ["unshare", "--net", "--mount", "--uts", "--propagation", "private", "--"];
    let mut command: Vec<String> = words.map(String::from).to_vec();
    command.extend(own_command(layout)?);
    command.extend(["node".into(), "hold".into(), place.node.name.clone()]);
    Ok(Unit { name: HOLDER, command, path_first: None })
}

/// The node's containerd.
pub fn containerd_unit(layout: &Layout, place: &Place, programs: &Programs) -> anyhow::Result<Unit> {
    inside(layout, place, programs.unit(&place.layout))
}

/// The node's kubelet.
pub fn kubelet_unit(layout: &Layout, settings: &Settings, place: &Place) -> anyhow::Result<Unit> {
    let own = std::env::current_exe().context("which program is this?")?.display().to_string();
    let mut command = vec![own, "kubelet".into()];
    let node = components::KubeletOf {
        layout: &place.layout,
        name: &place.node.name,
        address: place.node.address.into(),
        cgroup: &place.node.cgroup,
    };
    command.push(format!("--kubeconfig={}", place.layout.kubeconfig("kubelet").display()));
    command.extend(node.flags(settings));
    inside(layout, place, Unit { name: "kubelet", command, path_first: None })
}

/// Starts the node's holder unless it runs, and joins the node to the others. True if it was started.
pub fn start_holder(
    layout: &Layout,
    settings: &Settings,
    place: &Place,
    wait: impl Fn(&Layout, &'static str, &mut dyn FnMut() -> bool) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let own = &place.layout;
    let runs = units::running(own, HOLDER)?.is_some();
    if !runs {
        end(place)?;
        // What a machine has in memory only, and this node's end has left on the disk.
        for gone in ["containerd/state", "run/ipam", "run/furnished"] {
            remove(&own.join(gone))?;
        }
    }
    teardown::make_cgroup(&place.node.cgroup).context("making the node's cgroup")?;
    units::start(own, &holder_unit(layout, place)?)?;
    let marker = holder::marker(own);
    wait(own, HOLDER, &mut || marker.exists())?;
    let holder = units::running(own, HOLDER)?.context("the node ended")?.pid;
    teardown::join(&place.node.cgroup, holder).context("putting the node into its cgroup")?;
    let plan = plan_of(settings).map_err(anyhow::Error::msg)?;
    network::connect(settings, &plan, place, holder)?;
    Ok(!runs)
}

fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Loads an image file into every node; the names of its images.
pub fn load(layout: &Layout, settings: &Settings, file: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for socket in sockets(layout, settings)? {
        names = image::load(settings, &socket, file)?;
    }
    Ok(names)
}

/// Ends the kubelet of a node, whoever's it is, and all else in the node that is not there for its pods.
pub fn stop_agents(place: &Place) -> anyhow::Result<()> {
    if units::stop(&place.layout, "kubelet")? {
        eprintln!("stopped kubelet of {}", place.node.name);
    }
    let mut kept = Vec::new();
    for name in [HOLDER, "containerd"] {
        kept.extend(units::running(&place.layout, name)?.map(|unit| unit.pid));
    }
    let strangers = || -> anyhow::Result<Vec<i32>> {
        let all = teardown::joined(&place.node.cgroup).context("looking for the node's processes")?;
        Ok(all.into_iter().filter(|pid| !kept.contains(pid) && !down::is_shim(*pid)).collect())
    };
    down::end_all(&format!("processes in node {}", place.node.name), &strangers)
}

/// Ends everything in a node, the holder last.
pub fn end(place: &Place) -> anyhow::Result<()> {
    for name in ["kubelet", "containerd"] {
        if units::stop(&place.layout, name)? {
            eprintln!("stopped {name} of {}", place.node.name);
        }
    }
    let holder = units::running(&place.layout, HOLDER)?.map(|unit| unit.pid);
    let left = || -> anyhow::Result<Vec<i32>> {
        let all =
            teardown::processes_below(&place.node.cgroup).context("looking for the node's processes")?;
        Ok(all.into_iter().filter(|pid| Some(*pid) != holder).collect())
    };
    down::kill_all(&format!("processes of node {}", place.node.name), &left)?;
    if units::stop(&place.layout, HOLDER)? {
        eprintln!("stopped node {}", place.node.name);
    }
    network::disconnect(place)
}

/// The node of this name.
pub fn find(layout: &Layout, settings: &Settings, name: &str) -> anyhow::Result<Place> {
    let places = places(layout, settings)?;
    if places.is_empty() {
        bail!("this cluster's node is the machine itself: start one with 'copepod up --nodes N'");
    }
    let known = places.iter().map(|place| place.node.name.clone()).collect::<Vec<_>>().join(", ");
    places
        .into_iter()
        .find(|place| place.node.name == name)
        .with_context(|| format!("there is no node {name:?}; there are {known}"))
}
