//! The controller manager's command line, with upstream's flags.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use copepod_client::Shutdown;
use copepod_client::connect::accounts::Accounts;
use copepod_client::program::{self, Program, ProgramFlags};
use copepod_serve::flags::{self, GoDuration, Unsupported};
use copepod_serve::metrics::Registry;

use crate::context::Identities;
use crate::{CONTROLLERS, Config};

#[derive(Debug, Clone)]
struct ControllerManager;

impl Program for ControllerManager {
    const AGENT: &'static str = "copepod-controller-manager";
    const LEASE: &'static str = "kube-controller-manager";
    const PORT: u16 = 10257;
}

/// Runs the controllers that bring the cluster to its desired state.
#[derive(Debug, Parser)]
#[command(name = "copepod-controller-manager", version)]
struct Flags {
    #[command(flatten)]
    program: ProgramFlags<ControllerManager>,
    /// Controllers to enable: `*` all, `name` this one, `-name` not this one.
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    controllers: Vec<String>,
    /// Give each controller credentials of its own: a service account in kube-system.
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = flags::go_bool, action = clap::ArgAction::Set)]
    use_service_account_credentials: bool,
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
    /// Endpoints objects that are mirrored at once.
    #[arg(long, default_value = "5", value_parser = between::<1, 50>)]
    mirroring_concurrent_service_endpoint_syncs: usize,
    /// Addresses of one subset of Endpoints that are mirrored at most.
    #[arg(long, default_value = "1000", value_parser = between::<1, 1000>)]
    mirroring_max_endpoints_per_subset: usize,
    /// How long a node is seen not ready before its pods have to go.
    #[arg(long, default_value = "5s")]
    node_monitor_period: GoDuration,
    /// Nodes a second whose pods have to go, in a zone that is well.
    #[arg(long, default_value_t = 0.1)]
    node_eviction_rate: f64,
    /// The same in a large zone that is not well; a small one then loses none.
    #[arg(long, default_value_t = 0.01)]
    secondary_node_eviction_rate: f64,
    /// A zone of more nodes is large.
    #[arg(long, default_value_t = 50)]
    large_cluster_size_threshold: usize,
    /// Share of a zone's nodes (3 at least) that are not ready from which on it is not well.
    #[arg(long, default_value_t = 0.55)]
    unhealthy_zone_threshold: f64,
    /// How long a running node may be silent.
    #[arg(long, default_value = "50s")]
    node_monitor_grace_period: GoDuration,
    /// How long a starting node may be silent.
    #[arg(long, default_value = "1m0s")]
    node_startup_grace_period: GoDuration,
    /// How often quotas are counted without any event.
    #[arg(long, default_value = "5m0s")]
    resource_quota_sync_period: GoDuration,
}

/// A number within upstream's bounds.
fn between<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|error: std::num::ParseIntError| error.to_string())?;
    match number {
        _ if number < MIN => Err(format!("must not be less than {MIN}, but got {number}")),
        _ if number > MAX => Err(format!("must not be more than {MAX}, but got {number}")),
        _ => Ok(number),
    }
}

const NOT_SIGNED: &str = "certificate requests are not signed";
const NO_POD_NETWORKS: &str = "pod networks are not allocated";
const BY_WORKERS: &str = "requests are bounded by the number of workers";

/// Flags of upstream's that would change what this program does.
const UNSUPPORTED: [Unsupported; 9] = [
    Unsupported { name: "service-account-private-key-file", harmless: &[""], why: "no legacy token is made" },
    Unsupported { name: "cluster-signing-cert-file", harmless: &[""], why: NOT_SIGNED },
    Unsupported { name: "cluster-signing-key-file", harmless: &[""], why: NOT_SIGNED },
    Unsupported { name: "allocate-node-cidrs", harmless: &["false"], why: NO_POD_NETWORKS },
    Unsupported { name: "cluster-cidr", harmless: &[""], why: NO_POD_NETWORKS },
    Unsupported { name: "cloud-provider", harmless: &["", "external"], why: "there are no cloud loops" },
    Unsupported {
        name: "mirroring-endpointslice-updates-batch-period",
        harmless: &["0", "0s"],
        why: "changes are not gathered",
    },
    Unsupported { name: "kube-api-qps", harmless: &["20"], why: BY_WORKERS },
    Unsupported { name: "kube-api-burst", harmless: &["30"], why: BY_WORKERS },
];

/// Parses flags (the first argument is the program's name) and runs the controllers until `shutdown`.
pub async fn run(arguments: Vec<String>, shutdown: Shutdown) -> anyhow::Result<()> {
    let flags = Flags::parse_from(program::screen(arguments, &UNSUPPORTED)?);
    let config = config(&flags)?;
    let own_accounts = flags.use_service_account_credentials;
    let work = async |started: program::Started| {
        let identities = if own_accounts {
            let accounts = Accounts::new(started.client.clone(), started.server, ControllerManager::AGENT)?;
            Identities::Accounts(Box::new(accounts))
        } else {
            Identities::Shared(started.client.clone())
        };
        crate::run(started.client, identities, config, started.shutdown).await
    };
    Box::pin(flags.program.run(Registry::new(), shutdown, work)).await
}

fn config(flags: &Flags) -> anyhow::Result<Config> {
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
        controllers: flags.controllers.clone(),
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
        mirroring_concurrent_service_endpoint_syncs: flags.mirroring_concurrent_service_endpoint_syncs,
        mirroring_max_endpoints_per_subset: flags.mirroring_max_endpoints_per_subset,
        node_monitor_period: flags.node_monitor_period.0,
        node_eviction_rate: flags.node_eviction_rate,
        secondary_node_eviction_rate: flags.secondary_node_eviction_rate,
        large_cluster_size_threshold: flags.large_cluster_size_threshold,
        unhealthy_zone_threshold: flags.unhealthy_zone_threshold,
        node_monitor_grace_period: flags.node_monitor_grace_period.0,
        node_startup_grace_period: flags.node_startup_grace_period.0,
        resource_quota_sync_period: flags.resource_quota_sync_period.0,
    })
}
