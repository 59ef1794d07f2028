//! Settings: the agent's own struct, upstream's flags, and the fields of `KubeletConfiguration` that are supported.
//!
//! A flag or field that is not supported is refused by name: settings that change nothing would be lies.
//!
//! upstream: cmd/kubelet/app/options/options.go, kubelet/apis/config/v1beta1

use std::collections::BTreeMap;
use std::path::PathBuf;

use copepod_client::Client;
use copepod_meta::quantity::Quantity;
use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;

use crate::node::pressure::Thresholds;

/// Everything the agent needs to know.
#[derive(Clone)]
pub struct KubeletConfig {
    /// The API server.
    pub client: Client,
    /// Name of the node.
    pub node_name: String,
    /// The runtime's socket.
    pub runtime_endpoint: String,
    /// containerd's own socket, if it is another one: for events.
    pub containerd_endpoint: Option<String>,
    /// Directory of pods' files.
    pub root_dir: PathBuf,
    /// Directory of pods' logs.
    pub pod_logs_dir: PathBuf,
    /// Directory of static pods' manifests.
    pub pod_manifest_path: Option<PathBuf>,
    /// Addresses of the node; found out if empty.
    pub node_ips: Vec<String>,
    /// Addresses of the cluster's name server.
    pub cluster_dns: Vec<String>,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// The node's resolv.conf; none: pods get an empty one.
    pub resolv_conf: Option<PathBuf>,
    /// Address the server listens on.
    pub address: String,
    /// Port the server listens on.
    pub port: u16,
    /// The server's certificate and key; a self-signed one is made if there is none.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Authorities of client certificates.
    pub client_ca: Option<PathBuf>,
    /// Cgroup under which `kubepods` is made.
    pub cgroup_root: String,
    /// Whether pods get cgroups of their own.
    pub cgroups_per_qos: bool,
    /// Most pods of the node.
    pub max_pods: u32,
    /// Whether to create the node object.
    pub register_node: bool,
    /// Labels of the node.
    pub node_labels: BTreeMap<String, String>,
    /// Taints of a new node.
    pub register_with_taints: Vec<Taint>,
    /// Image pulls at once.
    pub parallel_pulls: usize,
    /// Size at which a log is rotated.
    pub container_log_max_size: u64,
    /// Files of one log.
    pub container_log_max_files: usize,
    /// What is kept from pods: cpu in thousandths, others in bytes.
    pub reserved: BTreeMap<String, i64>,
    /// What has to stay free, or else the node is under pressure.
    pub eviction_hard: Thresholds,
}

impl KubeletConfig {
    /// Settings with upstream's defaults.
    pub fn new(client: Client, node_name: impl Into<String>) -> Self {
        KubeletConfig {
            client,
            node_name: node_name.into(),
            runtime_endpoint: "unix:///run/containerd/containerd.sock".into(),
            containerd_endpoint: None,
            root_dir: "/var/lib/kubelet".into(),
            pod_logs_dir: "/var/log/pods".into(),
            pod_manifest_path: None,
            node_ips: Vec::new(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            resolv_conf: Some("/etc/resolv.conf".into()),
            address: "0.0.0.0".into(),
            port: 10250,
            tls: None,
            client_ca: None,
            cgroup_root: "/".into(),
            cgroups_per_qos: true,
            max_pods: 110,
            register_node: true,
            node_labels: BTreeMap::new(),
            register_with_taints: Vec::new(),
            parallel_pulls: 1,
            container_log_max_size: 10 * 1024 * 1024,
            container_log_max_files: 5,
            reserved: BTreeMap::new(),
            eviction_hard: Thresholds::default(),
        }
    }

    /// Takes over what a `KubeletConfiguration` says.
    pub fn apply(&mut self, file: Configuration) -> Result<(), ConfigError> {
        macro_rules! take {
            ($($field:ident => $target:expr),* $(,)?) => { $(if let Some(value) = file.$field { $target = value.into(); })* };
        }
        take! {
            address => self.address,
            cluster_dns => self.cluster_dns,
            cluster_domain => self.cluster_domain,
            container_log_max_files => self.container_log_max_files,
            max_pods => self.max_pods,
            port => self.port,
            register_node => self.register_node,
            cgroup_root => self.cgroup_root,
            cgroups_per_qos => self.cgroups_per_qos,
            pod_logs_dir => self.pod_logs_dir,
            container_runtime_endpoint => self.runtime_endpoint,
            register_with_taints => self.register_with_taints,
        }
        if let Some(path) = file.resolv_conf {
            self.resolv_conf = (!path.is_empty()).then(|| path.into());
        }
        if let Some(path) = file.static_pod_path.filter(|path| !path.is_empty()) {
            self.pod_manifest_path = Some(path.into());
        }
        if let Some(size) = file.container_log_max_size {
            self.container_log_max_size = u64::try_from(bytes("containerLogMaxSize", &size)?).unwrap_or(0);
        }
        if let (Some(certificate), Some(key)) = (file.tls_cert_file, file.tls_private_key_file) {
            self.tls = Some((certificate.into(), key.into()));
        }
        if let Some(driver) = file.cgroup_driver {
            check_driver(&driver)?;
        }
        match (file.serialize_image_pulls, file.max_parallel_image_pulls) {
            (Some(false), limit) => {
                self.parallel_pulls = limit.map_or(usize::MAX >> 4, |limit| limit as usize)
            }
            (_, Some(limit)) if limit > 1 => {
                return Err(ConfigError::Value(
                    "maxParallelImagePulls",
                    "cannot be larger than 1 unless serializeImagePulls is false".into(),
                ));
            }
            _ => {}
        }
        if let Some(texts) = file.eviction_hard {
            self.eviction_hard =
                Thresholds::parse(texts).map_err(|text| ConfigError::Value("evictionHard", text))?;
        }
        for list in [file.system_reserved, file.kube_reserved].into_iter().flatten() {
            for (name, value) in list {
                let quantity =
                    Quantity::parse(&value).map_err(|_| ConfigError::Value("reserved", value.clone()))?;
                let amount = if name == "cpu" { quantity.milli_value() } else { quantity.value() };
                *self.reserved.entry(name).or_default() += amount;
            }
        }
        if let Some(authentication) = file.authentication {
            if authentication.anonymous.and_then(|anonymous| anonymous.enabled) == Some(true) {
                return Err(ConfigError::Value(
                    "authentication.anonymous.enabled",
                    "anonymous access is not supported".into(),
                ));
            }
            if let Some(path) =
                authentication.x509.and_then(|x509| x509.client_ca_file).filter(|path| !path.is_empty())
            {
                self.client_ca = Some(path.into());
            }
        }
        if file
            .authorization
            .is_some_and(|authorization| authorization.mode.is_some_and(|mode| mode != "Webhook"))
        {
            return Err(ConfigError::Value("authorization.mode", "only Webhook is supported".into()));
        }
        if file.read_only_port.is_some_and(|port| port != 0) {
            return Err(ConfigError::Value("readOnlyPort", "a read-only port is not supported".into()));
        }
        Ok(())
    }

    /// What `/configz` shows.
    pub fn shown(&self) -> serde_json::Value {
        serde_json::json!({
            "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "address": self.address, "port": self.port, "clusterDNS": self.cluster_dns,
            "clusterDomain": self.cluster_domain, "maxPods": self.max_pods, "registerNode": self.register_node,
            "cgroupRoot": self.cgroup_root, "cgroupsPerQOS": self.cgroups_per_qos, "cgroupDriver": "cgroupfs",
            "containerLogMaxFiles": self.container_log_max_files,
            "containerLogMaxSize": self.container_log_max_size.to_string(),
            "containerRuntimeEndpoint": self.runtime_endpoint,
            "staticPodPath": self.pod_manifest_path, "resolvConf": self.resolv_conf, "podLogsDir": self.pod_logs_dir,
            "serializeImagePulls": self.parallel_pulls == 1,
            "evictionHard": self.eviction_hard.texts(),
        })
    }
}

/// Only cgroupfs: systemd has to be asked over D-Bus.
pub fn check_driver(driver: &str) -> Result<(), ConfigError> {
    match driver {
        "cgroupfs" => Ok(()),
        other => {
            Err(ConfigError::Value("cgroupDriver", format!("{other:?} is not supported, use \"cgroupfs\"")))
        }
    }
}

fn bytes(field: &'static str, text: &str) -> Result<i64, ConfigError> {
    Quantity::parse(text).map(|quantity| quantity.value()).map_err(|_| ConfigError::Value(field, text.into()))
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not a KubeletConfiguration, or has a field that is not supported.
    #[error("KubeletConfiguration: {0}")]
    File(String),
    /// A value that is not supported.
    #[error("{0}: {1}")]
    Value(&'static str, String),
    /// The runtime makes cgroups in another way than this agent.
    #[error(
        "the container runtime has cgroup driver {0:?}, this kubelet cgroupfs: set SystemdCgroup = false in [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options] of containerd's config.toml, then: systemctl restart containerd"
    )]
    RuntimeDriver(&'static str),
}

/// The supported part of upstream's `KubeletConfiguration`. Any other field is an error that names it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)] // Upstream's fields, documented there.
pub struct Configuration {
    pub kind: Option<String>,
    pub api_version: Option<String>,
    pub address: Option<String>,
    pub authentication: Option<Authentication>,
    pub authorization: Option<Authorization>,
    pub cgroup_driver: Option<String>,
    pub cgroup_root: Option<String>,
    #[serde(rename = "cgroupsPerQOS")]
    pub cgroups_per_qos: Option<bool>,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Option<Vec<String>>,
    pub cluster_domain: Option<String>,
    pub container_log_max_files: Option<usize>,
    pub container_log_max_size: Option<String>,
    pub container_runtime_endpoint: Option<String>,
    pub eviction_hard: Option<BTreeMap<String, String>>,
    pub kube_reserved: Option<BTreeMap<String, String>>,
    pub max_parallel_image_pulls: Option<u32>,
    pub max_pods: Option<u32>,
    pub pod_logs_dir: Option<String>,
    pub port: Option<u16>,
    pub read_only_port: Option<u16>,
    pub register_node: Option<bool>,
    pub register_with_taints: Option<Vec<Taint>>,
    pub resolv_conf: Option<String>,
    pub serialize_image_pulls: Option<bool>,
    pub static_pod_path: Option<String>,
    pub system_reserved: Option<BTreeMap<String, String>>,
    pub tls_cert_file: Option<String>,
    pub tls_private_key_file: Option<String>,
}

/// `authentication`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Authentication {
    pub anonymous: Option<Enabled>,
    pub webhook: Option<Enabled>,
    pub x509: Option<X509>,
}

/// `authentication.anonymous`, `authentication.webhook`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Enabled {
    pub enabled: Option<bool>,
}

/// `authentication.x509`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct X509 {
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: Option<String>,
}

/// `authorization`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Authorization {
    pub mode: Option<String>,
}

impl Configuration {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let file: Configuration = crate::yaml::read(text).map_err(ConfigError::File)?;
        match (file.kind.as_deref(), file.api_version.as_deref()) {
            (Some("KubeletConfiguration"), Some("kubelet.config.k8s.io/v1beta1")) => Ok(file),
            (kind, version) => Err(ConfigError::File(format!(
                "kind {:?} of apiVersion {:?} is not kubelet.config.k8s.io/v1beta1 KubeletConfiguration",
                kind.unwrap_or_default(),
                version.unwrap_or_default()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n";

    #[test]
    fn files_are_read_and_the_unknown_is_named() {
        let file = Configuration::parse(&format!(
            "{HEAD}clusterDNS: [10.96.0.10]\ncontainerLogMaxSize: 5Mi\nauthentication:\n  x509:\n    clientCAFile: /ca\n"
        ))
        .expect("a configuration");
        assert_eq!(file.cluster_dns, Some(vec!["10.96.0.10".to_owned()]));
        let error = Configuration::parse(&format!("{HEAD}podPidsLimit: 5\n")).expect_err("not supported");
        assert!(error.to_string().contains("podPidsLimit"), "{error}");
        assert!(Configuration::parse("kind: Pod\napiVersion: v1\n").is_err());
        assert!(check_driver("systemd").is_err());
    }
}
