//! What scheduler and controller manager have in common as programs: flags, health endpoint, connection, election.
//!
//! Owns: the flags that both take from upstream, and the order in which such a program starts and ends. Does not: know
//! what the program does once it leads.
//!
//! Invariants: the work begins only with the lease (unless no election is wanted) and is told to end before the lease is
//! given back; the endpoint answers while the program waits for its turn.
//!
//! upstream: component-base/config/options/leaderelectionconfig.go, apiserver/pkg/server/options/serving.go

use std::fmt::Debug;
use std::future::Future;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use copepod_serve::component::Endpoint;
use copepod_serve::flags::{self, GoDuration, Unsupported};
use copepod_serve::logging;
use copepod_serve::metrics::Registry;
use kube::Client;

use crate::{Shutdown, connect, leader};

/// What differs between the programs.
pub trait Program: Debug + Clone + Send + Sync + 'static {
    /// How it names itself to the server.
    const AGENT: &'static str;
    /// Name of its lease, upstream's name for the program.
    const LEASE: &'static str;
    /// Port of its health endpoint.
    const PORT: u16;
}

/// The flags.
#[derive(Debug, clap::Args)]
pub struct ProgramFlags<P: Program> {
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
    #[arg(long, default_value = P::LEASE)]
    leader_elect_resource_name: String,
    /// Namespace of the lease.
    #[arg(long, default_value = "kube-system")]
    leader_elect_resource_namespace: String,
    /// The IP address on which to listen for the --secure-port port.
    #[arg(long, default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// The port on which to serve HTTPS; 0 to serve nothing.
    #[arg(long, default_value_t = P::PORT)]
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
    #[arg(skip)]
    program: PhantomData<P>,
}

/// How long the server is waited for. upstream: kube-controller-manager/app/controllermanager.go CreateControllerContext
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);
/// The first wait between two questions, doubled each time, and the longest.
const HEALTH_WAIT_FIRST: Duration = Duration::from_millis(20);
const HEALTH_WAIT_MOST: Duration = Duration::from_secs(1);

const HEALTH_ONLY: &str = "only health endpoints are served";

/// Flags of upstream's that none of the programs supports.
pub const UNSUPPORTED: [Unsupported; 6] = [
    Unsupported { name: "master", harmless: &[""], why: "use --kubeconfig" },
    Unsupported { name: "profiling", harmless: &["false"], why: "there is no profiling endpoint" },
    Unsupported { name: "authentication-kubeconfig", harmless: &[""], why: HEALTH_ONLY },
    Unsupported { name: "authorization-kubeconfig", harmless: &[""], why: HEALTH_ONLY },
    Unsupported { name: "feature-gates", harmless: &[""], why: "gates are fixed to their defaults" },
    Unsupported { name: "leader-elect-resource-lock", harmless: &["leases"], why: "the lock is a Lease" },
];

/// The program's arguments, less what is refused or has no effect: [`UNSUPPORTED`] and its own rows.
pub fn screen(arguments: Vec<String>, own: &[Unsupported]) -> Result<Vec<String>, flags::FlagError> {
    let rows: Vec<Unsupported> = UNSUPPORTED.iter().chain(own).copied().collect();
    flags::screen(arguments, &rows)
}

/// What the work gets.
pub struct Started {
    /// Speaks with the program's own credentials.
    pub client: Client,
    /// Where the server is, for programs that make more clients.
    pub server: kube::Config,
    /// Ends the work: with the program, or with the lead.
    pub shutdown: Shutdown,
}

impl<P: Program> ProgramFlags<P> {
    /// Connects, serves health and the metrics of `registry`, and does the work while it leads. An error when the lead
    /// was lost: another program may lead now, so that this one has to end.
    pub async fn run<F>(
        self,
        registry: Registry,
        shutdown: Shutdown,
        work: impl FnOnce(Started) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        logging::init(self.v);
        let server = connect::load(self.kubeconfig.as_deref()).await?;
        let client = connect::from_config(server.clone(), P::AGENT)?;
        let endpoint = Endpoint {
            address: SocketAddr::new(self.bind_address, self.secure_port),
            files: self.tls_cert_file.clone().zip(self.tls_private_key_file.clone()),
            registry,
        };
        let serving = endpoint.serve(shutdown.clone());
        let working = async {
            wait_until_healthy(&client, &shutdown).await;
            self.lead(client.clone(), server, shutdown.clone(), work).await
        };
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

    async fn lead<F>(
        self,
        client: Client,
        server: kube::Config,
        shutdown: Shutdown,
        work: impl FnOnce(Started) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        if !self.leader_elect {
            return work(Started { client, server, shutdown }).await;
        }
        let (namespace, name) = (&self.leader_elect_resource_namespace, &self.leader_elect_resource_name);
        let lease = leader::Config {
            lease_duration: self.leader_elect_lease_duration.0,
            renew_deadline: self.leader_elect_renew_deadline.0,
            retry_period: self.leader_elect_retry_period.0,
            ..leader::Config::new(namespace, name, leader::identity())
        };
        let mut result = Ok(());
        let outcome = leader::run(client.clone(), lease, shutdown, async |shutdown| {
            result = work(Started { client, server, shutdown }).await;
        })
        .await;
        match outcome {
            leader::Outcome::Ended => result,
            leader::Outcome::Lost => anyhow::bail!("leaderelection lost"),
        }
    }
}

/// Waits until the server says that it is healthy, roles included, but not for ever: before that a program with upstream's
/// few rights is refused what it will be allowed a moment later.
///
/// upstream: controller-manager/app/helper.go WaitForAPIServer
async fn wait_until_healthy(client: &Client, shutdown: &Shutdown) {
    let healthy = async {
        let mut wait = HEALTH_WAIT_FIRST;
        loop {
            let asked = http::Request::get("/healthz").body(Vec::new());
            let Ok(request) = asked else { return };
            match client.request_text(request).await {
                Ok(_) => return,
                Err(error) => tracing::debug!(%error, "the server is not healthy yet"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(HEALTH_WAIT_MOST);
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        waited = tokio::time::timeout(HEALTH_TIMEOUT, healthy) => {
            if waited.is_err() {
                tracing::warn!("the server is not healthy; going on, what fails is tried again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser};

    #[derive(Debug, Clone)]
    struct Other;
    impl Program for Other {
        const AGENT: &'static str = "some";
        const LEASE: &'static str = "kube-some";
        const PORT: u16 = 1234;
    }

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        program: ProgramFlags<Other>,
    }

    #[test]
    fn defaults_are_the_programs_and_what_is_refused_is_named() {
        Flags::command().debug_assert();
        let parse = |text: &str| {
            let own = [Unsupported { name: "own", harmless: &[""], why: "no" }];
            let arguments = format!("x {text}").split_whitespace().map(str::to_owned).collect();
            screen(arguments, &own).map(|arguments| Flags::parse_from(arguments).program)
        };
        let flags = parse("--leader-elect=false --own= --leader-elect-resource-lock=leases").expect("flags");
        assert_eq!((flags.secure_port, flags.leader_elect_resource_name.as_str()), (1234, "kube-some"));
        assert!(!flags.leader_elect && parse("").expect("flags").leader_elect);
        for refused in
            ["--own=1", "--master=x", "--feature-gates=A=true", "--leader-elect-resource-lock=endpoints"]
        {
            assert!(parse(refused).is_err(), "{refused}");
        }
    }
}
