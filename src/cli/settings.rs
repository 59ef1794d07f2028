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
