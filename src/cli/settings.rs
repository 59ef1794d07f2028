//! What `up` was told. Kept, so that a second `up` without flags means the same cluster and the other commands find it.

use crate::layout::Layout;
use anyhow::Context as _;
use copepod_pki::files::{self, Mode};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

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

    /// What `up` without flags makes of the `number`th cluster of this machine, counted from 0. Clusters of different
    /// numbers have nothing in common: no port, no device, no address of a pod, no context.
    pub fn fresh(number: u8, node_name: String, node_ip: IpAddr) -> Settings {
        let n = u16::from(number.min(CLUSTERS_MAX));
        Settings {
            node_name,
            node_ip,
            bind_address: [0, 0, 0, 0].into(),
            // In steps of two: an etcd 1000 above takes two ports.
            secure_port: 6443 + 2 * n,
            kubelet_port: 10250 + 20 * n,
            controller_manager_port: 10257 + 20 * n,
            scheduler_port: 10259 + 20 * n,
            storage: Storage::Embedded,
            separate: false,
            pod_cidr: format!("10.244.{n}.0/24"),
            service_cidr: "10.96.0.0/12".into(),
            bridge: format!("copepod{n}"),
            domain: "cluster.local".into(),
            context: if n == 0 { "copepod".into() } else { format!("copepod-{n}") },
            containerd: None,
        }
    }

    /// Each port that the cluster listens on, with the unit that does.
    pub fn ports(&self) -> Vec<Port> {
        let unit = |name| if self.separate { name } else { "copepod" };
        let mut out = vec![
            Port { unit: unit("apiserver"), flag: "--secure-port", number: self.secure_port },
            Port { unit: unit("kubelet"), flag: "--kubelet-port", number: self.kubelet_port },
            Port {
                unit: unit("controller-manager"),
                flag: "--controller-manager-port",
                number: self.controller_manager_port,
            },
            Port { unit: unit("scheduler"), flag: "--scheduler-port", number: self.scheduler_port },
        ];
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

    /// The URL under which this machine reaches the API server.
    pub fn server(&self) -> String {
        let host = match self.bind_address {
            any if any.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            one => one,
        };
        format!("https://{}", std::net::SocketAddr::new(host, self.secure_port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component that was killed is started again while the others hold their ports.
    #[test]
    fn a_port_belongs_to_the_process_that_listens() {
        let mut settings = Settings::fresh(0, "n".into(), [192, 0, 2, 1].into());
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
    }

    #[test]
    fn clusters_of_one_machine_share_nothing() {
        let mut seen = std::collections::HashSet::new();
        for number in 0..CLUSTERS_MAX {
            let mut settings = Settings::fresh(number, "n".into(), [192, 0, 2, 1].into());
            settings.storage = Storage::Etcd { program: "etcd".into(), port: settings.secure_port + 1000 };
            let ports = settings.ports().into_iter().map(|port| port.number.to_string());
            let names = [settings.pod_cidr.clone(), settings.bridge.clone(), settings.context.clone()];
            for thing in ports.chain(names) {
                assert!(seen.insert(thing.clone()), "{thing} of cluster {number}");
            }
        }
    }
}
