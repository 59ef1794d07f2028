//! The scheduler's command line, with upstream's flags.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Parser;
use copepod_client::{Shutdown, connect};
use copepod_serve::component::Endpoint;
use copepod_serve::flags::{self, GoDuration, Unsupported};
use copepod_serve::{logging, metrics::Registry};

use crate::{Config, LeaderElection};

/// Assigns pods to nodes.
#[derive(Debug, Parser)]
#[command(name = "copepod-scheduler", version)]
struct Flags {
    /// Path to a kubeconfig file with authorization and master location information.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
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
    #[arg(long, default_value = "kube-scheduler")]
    leader_elect_resource_name: String,
    /// Namespace of the lease.
    #[arg(long, default_value = "kube-system")]
    leader_elect_resource_namespace: String,
    /// The IP address on which to listen for the --secure-port port.
    #[arg(long, default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// The port on which to serve HTTPS; 0 to serve nothing.
    #[arg(long, default_value_t = 10259)]
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

/// Flags of upstream's that would change what this program does.
const UNSUPPORTED: &[Unsupported] = &[
    Unsupported {
        name: "config",
        harmless: &[""],
        why: "profiles and plugin settings are fixed to the defaults",
    },
    Unsupported { name: "master", harmless: &[""], why: "use --kubeconfig" },
    Unsupported { name: "profiling", harmless: &["false"], why: "there is no profiling endpoint" },
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
        harmless: &["50"],
        why: "requests are bounded by their number in flight",
    },
    Unsupported {
        name: "kube-api-burst",
        harmless: &["100"],
        why: "requests are bounded by their number in flight",
    },
];

/// Parses flags (the first argument is the program's name) and schedules until `shutdown`.
pub async fn run(arguments: Vec<String>, shutdown: Shutdown) -> anyhow::Result<()> {
    let flags = Flags::parse_from(flags::screen(arguments, UNSUPPORTED)?);
    logging::init(flags.v);
    let client = connect::from_kubeconfig(flags.kubeconfig.as_deref(), "copepod-scheduler").await?;
    let registry = Registry::new();
    let endpoint = Endpoint {
        address: SocketAddr::new(flags.bind_address, flags.secure_port),
        files: flags.tls_cert_file.clone().zip(flags.tls_private_key_file.clone()),
        registry: registry.clone(),
    };
    let serving = endpoint.serve(shutdown.clone());
    let election = flags.leader_elect.then_some(LeaderElection {
        namespace: flags.leader_elect_resource_namespace,
        name: flags.leader_elect_resource_name,
        lease_duration: flags.leader_elect_lease_duration.0,
        renew_deadline: flags.leader_elect_renew_deadline.0,
        retry_period: flags.leader_elect_retry_period.0,
    });
    let config = Config { leader_election: election, registry };
    let scheduling = crate::run(client, config, Shutdown::clone(&shutdown));
    tokio::pin!(scheduling);
    tokio::select! {
        ended = &mut scheduling => ended,
        // The endpoint ends with the shutdown token; the lease is still to be released.
        served = serving => {
            served?;
            scheduling.await
        }
    }
}
