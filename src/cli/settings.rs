//! What `up` was told. Kept, so that a second `up` without flags means the same cluster and the other commands find it.

use crate::doctor::network::Range;
use crate::layout::Layout;
use anyhow::Context as _;
use copepod_pki::files::{self, Mode};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// What keeps the objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Storage {
    /// The embedded store in the data folder.
    Embedded,
    /// An etcd that `up` starts from this program.
    Etcd {
        /// Path of the etcd program.
        program: String,
        /// Port on loopback; the peer port is the next one.
        port: u16,
    },
    /// An etcd that somebody else runs.
    External {
        /// `--etcd-servers`
        servers: String,
    },
}

/// Clusters on one machine for which there are defaults; each further one needs flags.
pub const CLUSTERS_MAX: u8 = 16;

/// A port of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The unit that listens there.
    pub unit: &'static str,
    /// The flag of `up` that names another one.
    pub flag: &'static str,
    /// The port.
    pub number: u16,
}

/// The settings of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Name of this machine's node.
    pub node_name: String,
    /// The node's address.
    pub node_ip: IpAddr,
    /// Where the API server listens.
    pub bind_address: IpAddr,
    /// Its port.
    pub secure_port: u16,
    /// The kubelet's port.
    pub kubelet_port: u16,
    /// Ports of the controller manager and the scheduler (health, metrics).
    pub controller_manager_port: u16,
    /// See above.
    pub scheduler_port: u16,
    /// What keeps the objects.
    pub storage: Storage,
    /// A process a component instead of one for all.
    pub separate: bool,
    /// Addresses of pods.
    pub pod_cidr: String,
    /// Addresses of services.
    pub service_cidr: String,
    /// Name of the bridge that pods hang on.
    pub bridge: String,
    /// `cluster.local`
    pub domain: String,
    /// Name of the context in the kubeconfig.
    pub context: String,
    /// The containerd program; `None`: the one in the PATH.
    #[serde(default)]
    pub containerd: Option<String>,
    /// Nodes in namespaces of their own; 0: one node, which is the machine itself.
    #[serde(default)]
    pub nodes: u8,
    /// Addresses of those nodes and of the bridge between them.
    #[serde(default = "first_node_cidr")]
    pub node_cidr: String,
    /// Components for which somebody else runs another program.
    #[serde(default)]
    pub without: Vec<String>,
    /// Folder with hosts.toml files for registries; `None`: containerd's usual one.
    #[serde(default)]
    pub registry_config: Option<String>,
    /// A file with more settings for containerd.
    #[serde(default)]
    pub containerd_import: Option<String>,
    /// Where pods ask for names; `None`: where the node asks.
    #[serde(default)]
    pub cluster_dns: Option<IpAddr>,
    /// What has to stay free on nodes.
    #[serde(default = "eviction_hard")]
    pub eviction_hard: String,
}

/// The machine and its disk are not the cluster's alone, and a tenth of a large disk is more than many machines ever have
/// free: so the room is an amount, not upstream's share.
fn eviction_hard() -> String {
    let room = "nodefs.available<1Gi,imagefs.available<1Gi,nodefs.inodesFree<1%,imagefs.inodesFree<1%";
    format!("memory.available<100Mi,{room}")
}

/// That of the first cluster of a machine; clusters made before there was a choice have no use for it.
fn first_node_cidr() -> String {
    node_cidr(0)
}

fn node_cidr(number: u16) -> String {
    format!("10.200.{number}.0/24")
}

impl Settings {
    /// What a former `up` was told, if there was one.
    pub fn read(layout: &Layout) -> anyhow::Result<Option<Settings>> {
        let path = layout.settings();
        let Some(text) = files::read(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).with_context(|| format!("{} is damaged", path.display()))
    }

    /// What `up` was told; an error when there was no `up`.
    pub fn load(layout: &Layout) -> anyhow::Result<Settings> {
        let root = layout.root().display();
        Settings::read(layout)?
            .with_context(|| format!("there is no cluster in {root}: start one with 'copepod up'"))
    }

    /// Keeps the settings.
    pub fn save(&self, layout: &Layout) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        Ok(files::write(&layout.settings(), text.as_bytes(), Mode::Public)?)
    }

    /// What `up` without other flags makes of the `number`th cluster of this machine, counted from 0. Clusters of different
    /// numbers have nothing in common: no port, no device, no address of a pod, no context.
    pub fn fresh(number: u8, nodes: u8, node_name: String, node_ip: IpAddr) -> Settings {
        let n = u16::from(number.min(CLUSTERS_MAX));
        let pod_cidr = match nodes {
            0 => format!("10.244.{n}.0/24"),
            // A part of it for each node. Counted downwards, away from the addresses of one-node clusters.
            _ => format!("10.{}.0.0/16", 244 - n),
        };
        Settings {
            node_name,
            node_ip,
            bind_address: [0, 0, 0, 0].into(),
            // In steps of two: an etcd 1000 above takes two ports.
            secure_port: 6443 + 2 * n,
            eviction_hard: eviction_hard(),
            kubelet_port: 10250 + 20 * n,
            controller_manager_port: 10257 + 20 * n,
            scheduler_port: 10259 + 20 * n,
            storage: Storage::Embedded,
            separate: false,
            pod_cidr,
            service_cidr: "10.96.0.0/12".into(),
            bridge: format!("copepod{n}"),
            domain: "cluster.local".into(),
            context: if n == 0 { "copepod".into() } else { format!("copepod-{n}") },
            containerd: None,
            nodes,
            node_cidr: node_cidr(n),
            without: Vec::new(),
            registry_config: None,
            containerd_import: None,
            cluster_dns: None,
        }
    }

    /// Whether the cluster runs this component itself, wherever.
    pub fn runs(&self, component: &str) -> bool {
        !self.without.iter().any(|name| name == component)
    }

    /// Whether the cluster runs this component beside this machine's other programs, not in a node of its own.
    pub fn runs_here(&self, component: &str) -> bool {
        self.runs(component) && !(self.nodes > 0 && component == "kubelet")
    }

    /// The address under which nodes and pods reach the API server.
    pub fn api_address(&self) -> IpAddr {
        match Range::parse(&self.node_cidr) {
            Ok(range) if self.nodes > 0 => range.address(1).into(),
            // What cannot be read is refused by `up` before anything is made of it.
            _ => self.node_ip,
        }
    }

    /// Each port of this machine that the cluster listens on, with the unit that does. Nodes have ports of their own.
    pub fn ports(&self) -> Vec<Port> {
        let unit = |name| if self.separate { name } else { "copepod" };
        let all = [
            ("apiserver", "--secure-port", self.secure_port),
            ("kubelet", "--kubelet-port", self.kubelet_port),
            ("controller-manager", "--controller-manager-port", self.controller_manager_port),
            ("scheduler", "--scheduler-port", self.scheduler_port),
        ];
        let here = all.into_iter().filter(|(name, ..)| self.runs_here(name));
        let mut out: Vec<Port> =
            here.map(|(name, flag, number)| Port { unit: unit(name), flag, number }).collect();
        if let Storage::Etcd { port, .. } = self.storage {
            let etcd = |number| Port { unit: "etcd", flag: "--etcd-port", number };
            out.extend([etcd(port), etcd(port.saturating_add(1))]);
        }
        out
    }

    /// The cgroup of this cluster's pods: named after the bridge, so that two clusters on a machine do not meet.
    pub fn cgroup_root(&self) -> String {
        format!("/{}", self.bridge)
    }

    /// The URL under which this machine, and each node, reaches the API server.
    pub fn server(&self) -> String {
        let host = match self.bind_address {
            any if any.is_unspecified() && self.nodes > 0 => self.api_address(),
            any if any.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            one => one,
        };
        format!("https://{}", SocketAddr::new(host, self.secure_port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component that was killed is started again while the others hold their ports.
    #[test]
    fn a_port_belongs_to_the_process_that_listens() {
        let mut settings = Settings::fresh(0, 0, "n".into(), [192, 0, 2, 1].into());
        let shown = |settings: &Settings| {
            let words = settings.ports().into_iter().map(|port| format!("{}:{}", port.unit, port.number));
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(&settings), "copepod:6443 copepod:10250 copepod:10257 copepod:10259");
        settings.separate = true;
        settings.storage = Storage::Etcd { program: "etcd".into(), port: 5 };
        assert_eq!(
            shown(&settings),
            "apiserver:6443 kubelet:10250 controller-manager:10257 scheduler:10259 etcd:5 etcd:6"
        );
        // What runs in a node, or is somebody else's, takes no port here.
        (settings.nodes, settings.without) = (2, vec!["scheduler".into()]);
        assert_eq!(shown(&settings), "apiserver:6443 controller-manager:10257 etcd:5 etcd:6");
    }

    /// What an `up` from before there were several nodes wrote.
    #[test]
    fn older_settings_are_read() {
        let settings = Settings::fresh(0, 0, "n".into(), [192, 0, 2, 1].into());
        let mut older = serde_json::to_value(&settings).expect("settings");
        let fields = older.as_object_mut().expect("an object");
        for newer in ["nodes", "nodeCidr", "without", "registryConfig", "containerdImport"] {
            assert!(fields.remove(newer).is_some(), "{newer}");
        }
        assert_eq!(serde_json::from_value::<Settings>(older).expect("reads"), settings);
        assert_eq!(settings.server(), "https://127.0.0.1:6443");
        let several = Settings { nodes: 2, ..settings };
        assert_eq!(several.server(), "https://10.200.0.1:6443");
    }

    #[test]
    fn clusters_of_one_machine_share_nothing() {
        for nodes in [0, 2] {
            share_nothing(nodes);
        }
    }

    fn share_nothing(nodes: u8) {
        let mut seen = std::collections::HashSet::new();
        for number in 0..CLUSTERS_MAX {
            let mut settings = Settings::fresh(number, nodes, "n".into(), [192, 0, 2, 1].into());
            settings.storage = Storage::Etcd { program: "etcd".into(), port: settings.secure_port + 1000 };
            let ports = settings.ports().into_iter().map(|port| port.number.to_string());
            let names = [&settings.pod_cidr, &settings.node_cidr, &settings.bridge, &settings.context]
                .map(String::clone);
            for thing in ports.chain(names) {
                assert!(seen.insert(thing.clone()), "{thing} of cluster {number}");
            }
        }
    }
}
