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

/// Ports of API server, kubelet, controller manager and scheduler unless `up` is told others.
pub const DEFAULT_PORTS: [u16; 4] = [6443, 10250, 10257, 10259];

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

    /// Each port that the cluster listens on, with the unit that does.
    pub fn ports(&self) -> Vec<(&'static str, u16)> {
        let components = [
            ("apiserver", self.secure_port),
            ("kubelet", self.kubelet_port),
            ("controller-manager", self.controller_manager_port),
            ("scheduler", self.scheduler_port),
        ];
        let unit = |name| if self.separate { name } else { "copepod" };
        let mut out: Vec<_> = components.into_iter().map(|(name, port)| (unit(name), port)).collect();
        if let Storage::Etcd { port, .. } = self.storage {
            out.extend([("etcd", port), ("etcd", port.saturating_add(1))]);
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

    fn settings(separate: bool, storage: Storage) -> Settings {
        Settings {
            node_name: "n".into(),
            node_ip: [192, 0, 2, 1].into(),
            bind_address: [0, 0, 0, 0].into(),
            secure_port: 1,
            kubelet_port: 2,
            controller_manager_port: 3,
            scheduler_port: 4,
            storage,
            separate,
            pod_cidr: "10.244.0.0/24".into(),
            service_cidr: "10.96.0.0/12".into(),
            bridge: "b".into(),
            domain: "cluster.local".into(),
            context: "c".into(),
        }
    }

    /// A component that was killed is started again while the others hold their ports.
    #[test]
    fn a_port_belongs_to_the_process_that_listens() {
        let one = settings(false, Storage::Embedded).ports();
        assert_eq!(one, [("copepod", 1), ("copepod", 2), ("copepod", 3), ("copepod", 4)]);
        let etcd = Storage::Etcd { program: "etcd".into(), port: 5 };
        let many = settings(true, etcd).ports();
        let want = [
            ("apiserver", 1),
            ("kubelet", 2),
            ("controller-manager", 3),
            ("scheduler", 4),
            ("etcd", 5),
            ("etcd", 6),
        ];
        assert_eq!(many, want);
    }
}
