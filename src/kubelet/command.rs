//! The node agent's command line, with upstream's flag names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use copepod_client::{Shutdown, connect};
use copepod_serve::flags::{GoDuration, KeyValues};

use crate::config::{Configuration, KubeletConfig, check_driver};
use crate::node::pressure::Thresholds;

/// Runs the pods of one node.
#[derive(Parser)]
#[command(name = "copepod-kubelet", version)]
struct Flags {
    /// Path to a kubeconfig file, specifying how to connect to the API server.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// A KubeletConfiguration file; flags win over it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Name of the node; the host's name if empty.
    #[arg(long, default_value = "")]
    hostname_override: String,
    /// The container runtime's socket.
    #[arg(long)]
    container_runtime_endpoint: Option<String>,
    /// containerd's own socket, for events, if it is another one.
    #[arg(long)]
    containerd_endpoint: Option<String>,
    /// Directory of pods' files.
    #[arg(long)]
    root_dir: Option<PathBuf>,
    /// Directory of pods' logs.
    #[arg(long)]
    pod_logs_dir: Option<PathBuf>,
    /// Directory of static pods' manifests.
    #[arg(long)]
    pod_manifest_path: Option<PathBuf>,
    /// Addresses of the node, separated by commas.
    #[arg(long, value_delimiter = ',')]
    node_ip: Vec<String>,
    /// Addresses of the cluster's name server.
    #[arg(long, value_delimiter = ',')]
    cluster_dns: Vec<String>,
    /// Domain of the cluster.
    #[arg(long)]
    cluster_domain: Option<String>,
    /// The node's resolv.conf; empty for none.
    #[arg(long)]
    resolv_conf: Option<String>,
    /// Address to listen on.
    #[arg(long)]
    address: Option<String>,
    /// Port to listen on.
    #[arg(long)]
    port: Option<u16>,
    /// The server's certificate.
    #[arg(long)]
    tls_cert_file: Option<PathBuf>,
    /// The server's key.
    #[arg(long)]
    tls_private_key_file: Option<PathBuf>,
    /// Authorities of client certificates.
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    /// `cgroupfs` is the only one supported.
    #[arg(long, default_value = "cgroupfs")]
    cgroup_driver: String,
    /// Cgroup under which pods' cgroups are made.
    #[arg(long)]
    cgroup_root: Option<String>,
    /// Whether pods get cgroups of their own.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    cgroups_per_qos: Option<bool>,
    /// Most pods of the node.
    #[arg(long)]
    max_pods: Option<u32>,
    /// Whether to create the node object.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    register_node: Option<bool>,
    /// A set of eviction thresholds (e.g. memory.available<1Gi) below which the node is under pressure and takes no more pods.
    #[arg(long)]
    eviction_hard: Option<Thresholds>,
    /// Labels of the node: `key=value,...`.
    #[arg(long)]
    node_labels: Option<KeyValues>,
    /// How long to wait for the end of pods at the agent's own end; they are left running, so only 0s is supported.
    #[arg(long)]
    shutdown_grace_period: Option<GoDuration>,
    /// Verbosity of the log.
    #[arg(short, long, default_value_t = 1)]
    v: u32,
}

/// Parses flags (the first argument is the program's name) and runs the agent until `shutdown`.
pub async fn run(arguments: Vec<String>, shutdown: Shutdown) -> anyhow::Result<()> {
    let flags = Flags::parse_from(arguments);
    copepod_serve::logging::init(flags.v);
    let client = connect::from_kubeconfig(flags.kubeconfig.as_deref(), "copepod-kubelet/v1.36").await?;
    let node_name = if flags.hostname_override.is_empty() {
        nix::unistd::gethostname()?.to_string_lossy().to_lowercase()
    } else {
        flags.hostname_override.clone()
    };
    let mut config = KubeletConfig::new(client, node_name);
    if let Some(path) = &flags.config {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        config.apply(Configuration::parse(&text)?)?;
    }
    apply_flags(&mut config, flags)?;
    crate::run(config, shutdown).await
}

/// Flags win over the file.
fn apply_flags(config: &mut KubeletConfig, flags: Flags) -> anyhow::Result<()> {
    check_driver(&flags.cgroup_driver)?;
    if flags.shutdown_grace_period.is_some_and(|period| !period.0.is_zero()) {
        anyhow::bail!("--shutdown-grace-period is not supported: pods are left running");
    }
    macro_rules! take {
        ($($flag:ident => $target:expr),* $(,)?) => { $(if let Some(value) = flags.$flag { $target = value; })* };
    }
    take! {
        container_runtime_endpoint => config.runtime_endpoint,
        root_dir => config.root_dir,
        pod_logs_dir => config.pod_logs_dir,
        cluster_domain => config.cluster_domain,
        address => config.address,
        port => config.port,
        cgroup_root => config.cgroup_root,
        cgroups_per_qos => config.cgroups_per_qos,
        max_pods => config.max_pods,
        register_node => config.register_node,
        eviction_hard => config.eviction_hard,
    }
    config.containerd_endpoint = flags.containerd_endpoint.or(config.containerd_endpoint.take());
    config.pod_manifest_path = flags.pod_manifest_path.or(config.pod_manifest_path.take());
    config.client_ca = flags.client_ca_file.or(config.client_ca.take());
    if let Some(path) = flags.resolv_conf {
        config.resolv_conf = (!path.is_empty()).then(|| path.into());
    }
    if !flags.node_ip.is_empty() {
        config.node_ips = flags.node_ip;
    }
    if !flags.cluster_dns.is_empty() {
        config.cluster_dns = flags.cluster_dns;
    }
    if let Some(labels) = flags.node_labels {
        config.node_labels.extend(labels.0.into_iter().collect::<BTreeMap<_, _>>());
    }
    match (flags.tls_cert_file, flags.tls_private_key_file) {
        (Some(certificate), Some(key)) => config.tls = Some((certificate, key)),
        (None, None) => {}
        _ => anyhow::bail!("--tls-cert-file and --tls-private-key-file belong together"),
    }
    Ok(())
}
