//! The controller manager's command line, with upstream's flags.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use copepod_client::{Shutdown, connect};
use copepod_serve::component::Endpoint;
use copepod_serve::flags::{self, GoDuration, Unsupported};
use copepod_serve::{logging, metrics::Registry};

use crate::{CONTROLLERS, Config, LeaderElection};

/// Runs the controllers that bring the cluster to its desired state.
#[derive(Debug, Parser)]
#[command(name = "copepod-controller-manager", version)]
struct Flags {
    /// Path to a kubeconfig file with authorization and master location information.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Controllers to enable: `*` all, `name` this one, `-name` not this one.
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    controllers: Vec<String>,
    /// Start a leader election client and gain leadership before executing the main loop.
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = flags::go_bool, action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// How long non-leader candidates wait after the last renewal before they try to take the lease.
    #[arg(long, default_value = "15s")]
    leader_elect_lease_duration: GoDuration,
    /// How long the leader tries to renew the lease before it stops leading.
    #[arg(long, default_value = "10s")]
    leader_elect_renew_deadline: GoDuration,
    /// Wait between tries to acquire or renew the lease.
    #[arg(long, default_value = "2s")]
    leader_elect_retry_period: GoDuration,
    /// Name of the lease.
    #[arg(long, default_value = "kube-controller-manager")]
    leader_elect_resource_name: String,
    /// Namespace of the lease.
    #[arg(long, default_value = "kube-system")]
    leader_elect_resource_namespace: String,
    /// PEM certificates that are published to every namespace as kube-root-ca.crt.
    #[arg(long)]
    root_ca_file: Option<PathBuf>,
    /// Deployments synced at once.
    #[arg(long, default_value_t = 5)]
    concurrent_deployment_syncs: usize,
    /// ReplicaSets synced at once.
    #[arg(long, default_value_t = 5)]
    concurrent_replicaset_syncs: usize,
    /// ReplicationControllers synced at once.
    #[arg(long, default_value_t = 5)]
    concurrent_rc_syncs: usize,
    /// Namespaces synced at once.
    #[arg(long, default_value_t = 10)]
    concurrent_namespace_syncs: usize,
    /// Service accounts synced at once.
    #[arg(long, default_value_t = 5)]
    concurrent_serviceaccount_token_syncs: usize,
    /// Objects garbage collected at once.
    #[arg(long, default_value_t = 20)]
    concurrent_gc_syncs: usize,
    /// Endpoints synced at once.
    #[arg(long, default_value_t = 5)]
    concurrent_endpoint_syncs: usize,
    /// Services whose EndpointSlices are synced at once.
    #[arg(long, default_value_t = 5)]
    concurrent_service_endpoint_syncs: usize,
    /// Quotas synced at once.
    #[arg(long, default_value_t = 5)]
    concurrent_resource_quota_syncs: usize,
    /// StatefulSets synced at once.
    #[arg(long, default_value_t = 5)]
    concurrent_statefulset_syncs: usize,
    /// DaemonSets synced at once.
    #[arg(long, default_value_t = 2)]
    concurrent_daemonset_syncs: usize,
    /// Jobs synced at once.
    #[arg(long, default_value_t = 5)]
    concurrent_job_syncs: usize,
    /// CronJobs synced at once.
    #[arg(long, default_value_t = 5)]
    concurrent_cron_job_syncs: usize,
    /// Finished jobs that are deleted at once.
    #[arg(long, default_value_t = 5)]
    concurrent_ttl_after_finished_syncs: usize,
    /// Ended pods that may stay; 0 for any number.
    #[arg(long, default_value_t = 12_500)]
    terminated_pod_gc_threshold: usize,
    /// Endpoints in one EndpointSlice at most.
    #[arg(long, default_value_t = 100)]
    max_endpoints_per_slice: usize,
    /// How long a running node may be silent.
    #[arg(long, default_value = "50s")]
    node_monitor_grace_period: GoDuration,
    /// How long a starting node may be silent.
    #[arg(long, default_value = "1m0s")]
    node_startup_grace_period: GoDuration,
    /// How often quotas are counted without any event.
    #[arg(long, default_value = "5m0s")]
    resource_quota_sync_period: GoDuration,
    /// The IP address on which to listen for the --secure-port port.
    #[arg(long, default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// The port on which to serve HTTPS; 0 to serve nothing.
    #[arg(long, default_value_t = 10257)]
    secure_port: u16,
    /// File with the x509 certificate for HTTPS; self-signed if not set.
    #[arg(long, requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// File with the private key of --tls-cert-file.
    #[arg(long, requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Number for the log level verbosity.
    #[arg(short, long, default_value_t = 2)]
    v: u32,
}

const ONE_IDENTITY: &str = "all controllers act with the identity of --kubeconfig";

/// Flags of upstream's that would change what this program does.
const UNSUPPORTED: &[Unsupported] = &[
    Unsupported { name: "master", harmless: &[""], why: "use --kubeconfig" },
    Unsupported { name: "profiling", harmless: &["false"], why: "there is no profiling endpoint" },
    Unsupported { name: "use-service-account-credentials", harmless: &["false"], why: ONE_IDENTITY },
    Unsupported { name: "service-account-private-key-file", harmless: &[""], why: "no legacy token is made" },
    Unsupported {
        name: "cluster-signing-cert-file",
        harmless: &[""],
        why: "certificate requests are not signed",
    },
    Unsupported {
        name: "cluster-signing-key-file",
        harmless: &[""],
        why: "certificate requests are not signed",
    },
    Unsupported { name: "allocate-node-cidrs", harmless: &["false"], why: "pod networks are not allocated" },
    Unsupported { name: "cluster-cidr", harmless: &[""], why: "pod networks are not allocated" },
    Unsupported { name: "cloud-provider", harmless: &["", "external"], why: "there are no cloud loops" },
    Unsupported {
        name: "authentication-kubeconfig",
        harmless: &[""],
        why: "only health endpoints are served",
    },
    Unsupported {
        name: "authorization-kubeconfig",
        harmless: &[""],
        why: "only health endpoints are served",
    },
    Unsupported { name: "feature-gates", harmless: &[""], why: "gates are fixed to their defaults" },
    Unsupported {
        name: "kube-api-qps",
        harmless: &["20"],
        why: "requests are bounded by the number of workers",
    },
    Unsupported {
        name: "kube-api-burst",
        harmless: &["30"],
        why: "requests are bounded by the number of workers",
    },
];

/// Parses flags (the first argument is the program's name) and runs the controllers until `shutdown`.
pub async fn run(arguments: Vec<String>, shutdown: Shutdown) -> anyhow::Result<()> {
    let flags = Flags::parse_from(flags::screen(arguments, UNSUPPORTED)?);
    logging::init(flags.v);
    let client = connect::from_kubeconfig(flags.kubeconfig.as_deref(), "copepod-controller-manager").await?;
    let endpoint = Endpoint {
        address: SocketAddr::new(flags.bind_address, flags.secure_port),
        files: flags.tls_cert_file.clone().zip(flags.tls_private_key_file.clone()),
        registry: Registry::new(),
    };
    let serving = endpoint.serve(shutdown.clone());
    let working = crate::run(client, config(flags)?, shutdown.clone());
    tokio::pin!(working);
    tokio::select! {
        ended = &mut working => ended,
        // The endpoint ends with the shutdown token; the lease is still to be released.
        served = serving => {
            served?;
            working.await
        }
    }
}

fn config(flags: Flags) -> anyhow::Result<Config> {
    for item in &flags.controllers {
        let name = item.strip_prefix('-').unwrap_or(item);
        if name != "*" && !CONTROLLERS.iter().any(|controller| controller.name == name) {
            anyhow::bail!("{name:?} is not in the list of known controllers");
        }
    }
    let root_ca = match &flags.root_ca_file {
        None => None,
        Some(path) => Some(
            std::fs::read_to_string(path).with_context(|| format!("--root-ca-file {}", path.display()))?,
        ),
    };
    Ok(Config {
        controllers: flags.controllers,
        leader_election: flags.leader_elect.then_some(LeaderElection {
            namespace: flags.leader_elect_resource_namespace,
            name: flags.leader_elect_resource_name,
            lease_duration: flags.leader_elect_lease_duration.0,
            renew_deadline: flags.leader_elect_renew_deadline.0,
            retry_period: flags.leader_elect_retry_period.0,
        }),
        root_ca,
        concurrent_deployment_syncs: flags.concurrent_deployment_syncs,
        concurrent_replicaset_syncs: flags.concurrent_replicaset_syncs,
        concurrent_rc_syncs: flags.concurrent_rc_syncs,
        concurrent_namespace_syncs: flags.concurrent_namespace_syncs,
        concurrent_serviceaccount_syncs: flags.concurrent_serviceaccount_token_syncs,
        concurrent_gc_syncs: flags.concurrent_gc_syncs,
        concurrent_endpoint_syncs: flags.concurrent_endpoint_syncs,
        concurrent_service_endpoint_syncs: flags.concurrent_service_endpoint_syncs,
        concurrent_resource_quota_syncs: flags.concurrent_resource_quota_syncs,
        concurrent_statefulset_syncs: flags.concurrent_statefulset_syncs,
        concurrent_daemonset_syncs: flags.concurrent_daemonset_syncs,
        concurrent_job_syncs: flags.concurrent_job_syncs,
        concurrent_cron_job_syncs: flags.concurrent_cron_job_syncs,
        concurrent_ttl_after_finished_syncs: flags.concurrent_ttl_after_finished_syncs,
        terminated_pod_gc_threshold: flags.terminated_pod_gc_threshold,
        max_endpoints_per_slice: flags.max_endpoints_per_slice,
        node_monitor_grace_period: flags.node_monitor_grace_period.0,
        node_startup_grace_period: flags.node_startup_grace_period.0,
        resource_quota_sync_period: flags.resource_quota_sync_period.0,
    })
}
