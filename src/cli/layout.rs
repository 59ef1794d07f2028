//! Where everything lies below the data folder. `down --purge` removes the folder and nothing else remains.

use std::path::{Path, PathBuf};

/// Where a cluster lies unless `--data-dir` says otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/copepod";

/// The data folder.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Below `root`, which need not exist yet.
    pub fn new(root: PathBuf) -> Layout {
        Layout { root: std::path::absolute(&root).unwrap_or(root) }
    }
    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Whether it is the one that commands take without `--data-dir`.
    pub fn is_default(&self) -> bool {
        self.root == Path::new(DEFAULT_DATA_DIR)
    }
    /// Something below it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
    /// What `up` was told.
    pub fn settings(&self) -> PathBuf {
        self.join("settings.json")
    }
    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.join("pki")
    }
    /// The kubeconfig of a component or of the administrator.
    pub fn kubeconfig(&self, who: &str) -> PathBuf {
        self.join(&format!("kubeconfig/{who}.kubeconfig"))
    }
    /// The embedded store.
    pub fn store(&self) -> PathBuf {
        self.join("store")
    }
    /// Manifests of static pods.
    pub fn manifests(&self) -> PathBuf {
        self.join("manifests")
    }
    /// The kubelet's own folder: volumes of pods.
    pub fn kubelet(&self) -> PathBuf {
        self.join("kubelet")
    }
    /// containerd's socket. Kept short: a socket's path may have 107 bytes.
    pub fn containerd_socket(&self) -> PathBuf {
        self.join("containerd.sock")
    }
    /// What belongs to one of several nodes, laid out as the cluster's own folder is. By number: names may be too long for
    /// the path of a socket.
    pub fn node(&self, number: u8) -> Layout {
        Layout { root: self.join(&format!("nodes/{number}")) }
    }
    /// A unit's process id.
    pub fn pid(&self, unit: &str) -> PathBuf {
        self.join(&format!("run/{unit}.pid"))
    }
    /// A unit's log.
    pub fn log(&self, unit: &str) -> PathBuf {
        self.join(&format!("log/{unit}.log"))
    }
}
