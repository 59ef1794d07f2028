//! From flags to a running server, and its orderly end.
//!
//! The listener is open before the start-up objects are made: `/readyz` tells when they are. At the end: `/readyz` fails,
//! then (after `--shutdown-delay-duration`) the listener closes, watches end, requests under way are finished, within a bound.

mod certificates;
mod identity;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use copepod_access::service_account::PublicKeys;
use copepod_access::{AuthenticatorChain, AuthorizerChain};
use copepod_registry::Registry;
use copepod_serve::features::{FeatureGates, Gate, Maturity};
use copepod_serve::health::{Flag, Health};
use copepod_serve::tls::TlsSettings;
use copepod_serve::{Limits, Shutdown, Transport};
use copepod_store::Store;
use copepod_store::embedded::{EmbeddedOptions, EmbeddedStore};
use copepod_store::etcd::{EtcdOptions, EtcdStore};
use http::Request;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::certificates::{Reloaded, Reloader, tls_files};
use self::identity::{Identity, decide, refuse_all};
use crate::bootstrap::{self, Access, Kubernetes, Own, Trust};
use crate::discovery::Discovery;
use crate::filters::{self, InFlight};
use crate::metrics::Metrics;
use crate::openapi::OpenApi;
use crate::options::Options;
use crate::proxy::{Backends, KubeletFiles};
use crate::server::{BODY_BYTES_MAX, Config, Server};
use crate::version;

/// Encoded bodies beyond the stored form, all resources together.
const BODY_CACHE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The store has to answer within; upstream: --etcd-healthcheck-timeout.
const STORE_ANSWER: Duration = Duration::from_secs(2);
/// It is asked so often.
const STORE_PROBE: Duration = Duration::from_secs(5);

/// Why a server did not start. The operator has to mend something.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A flag, or flags that do not go together.
    #[error("{0}")]
    Flag(String),
    /// A file that cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store.
    #[error("storage: {0}")]
    Store(String),
    /// Certificates and keys.
    #[error(transparent)]
    Tls(#[from] copepod_serve::tls::TlsError),
    /// Certificates that we make ourselves.
    #[error(transparent)]
    Pki(#[from] copepod_pki::PkiError),
    /// The listener.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

fn flag(message: impl std::fmt::Display) -> StartError {
    StartError::Flag(message.to_string())
}

/// A server that has begun to serve.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its parts.
    pub server: Arc<Server>,
    serving: JoinHandle<()>,
}

impl Running {
    /// Whether `/readyz` says ok.
    pub fn is_ready(&self) -> bool {
        self.server.health[READYZ].passes()
    }

    /// Waits until `/readyz` says ok. False when the server ended before.
    pub async fn ready(&self) -> bool {
        while !self.is_ready() {
            if self.serving.is_finished() {
                return false;
            }
            // The checks are flags of many owners without a common signal; this wait is a millisecond at start only.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        true
    }

    /// Waits until the server has ended.
    pub async fn ended(self) {
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the server ended badly");
        }
    }
}

const READYZ: usize = 2;

/// Serves until `shutdown`.
pub async fn run(options: Options, shutdown: Shutdown) -> Result<(), StartError> {
    start(options, shutdown).await?.ended().await;
    Ok(())
}

/// Starts a server; it is reachable when this returns, and ready a little later.
pub async fn start(options: Options, shutdown: Shutdown) -> Result<Running, StartError> {
    copepod_serve::install_crypto_provider();
    set_features(&options)?;
    copepod_kinds::capabilities::allow_privileged(options.misc.allow_privileged);
    let files = tls_files(&options)?;
    let reloader = Reloader::new(&files);
    let tls = Arc::new(TlsSettings::load(files)?);
    let identity = Identity::load(&options)?;
    let store = open_store(&options).await?;
    let listener = listen(&options).await?;
    let address = listener.local_addr().map_err(|source| listen_error(&options, source))?;
    let mut made: Option<(Access, Arc<AuthenticatorChain>, Arc<AuthorizerChain>)> = None;
    let mut failed = None;
    let answers = Arc::new(AtomicBool::new(true));
    tokio::spawn(watch_store(Arc::clone(&store), Arc::clone(&answers), shutdown.clone()));
    let registry =
        Registry::open(registry_config(&options, Arc::clone(&store)), |lister, writer| {
            match decide(&options, &identity, lister.clone(), writer.clone()) {
                Ok((deciders, authenticator, authorizer)) => {
                    made = Some((Access { lister, writer }, authenticator, authorizer));
                    deciders
                }
                Err(error) => {
                    failed = Some(error);
                    refuse_all(lister)
                }
            }
        });
    let registry = registry.await.map_err(|e| StartError::Store(e.to_string()))?;
    if let Some(error) = failed {
        return Err(error);
    }
    let (access, authenticator, authorizer) =
        made.ok_or_else(|| flag("the registry asked for no deciders"))?;
    registry.warm();
    let advertised = advertise_address(&options);
    let config = config(&options, &identity, advertised, address.port())?;
    let ending = Flag::new("process is shutting down");
    let (health, checks) = health(&options, &registry, &answers, &ending);
    let server = Arc::new(Server {
        config,
        registry,
        store,
        authenticator,
        authorizer,
        in_flight: InFlight::new(
            options.generic.max_requests_inflight,
            options.generic.max_mutating_requests_inflight,
        ),
        discovery: Discovery::default(),
        openapi: OpenApi::default(),
        backends: backends(&options)?,
        metrics: Metrics::new(version::GIT_VERSION, feature),
        health,
        shutdown: shutdown.child_token(),
        router: OnceLock::new(),
    });
    let trust = watch::Sender::new(certificates::trust(&options.authentication)?);
    let own = own(&options, &server, advertised, address.port(), trust.subscribe());
    let kept = tokio::spawn(bootstrap::run(access, own, checks, shutdown.clone()));
    let reloaded = Reloaded {
        tls: Arc::clone(&tls),
        authenticator: Arc::clone(&server.authenticator),
        trust,
        options: options.authentication.clone(),
    };
    tokio::spawn(reloader.run(reloaded, shutdown.clone()));
    let life =
        Life { limits: limits(&options), ending, delay: options.generic.shutdown_delay_duration.0, kept };
    let serving = tokio::spawn(serve(listener, tls, Arc::clone(&server), life, shutdown));
    tracing::info!(%address, version = version::GIT_VERSION, "Serving securely");
    Ok(Running { address, server, serving })
}

/// How a server lives and ends.
struct Life {
    limits: Limits,
    ending: Flag,
    /// `--shutdown-delay-duration`
    delay: Duration,
    /// What is kept until the end, and then taken back.
    kept: JoinHandle<()>,
}

/// The life of the listener, from accepting to drained.
async fn serve(
    listener: TcpListener,
    tls: Arc<TlsSettings>,
    server: Arc<Server>,
    life: Life,
    shutdown: Shutdown,
) {
    let service = service(&server);
    let closing = Shutdown::new();
    let orderly = async {
        shutdown.cancelled().await;
        life.ending.set();
        // Our address has to be out of the endpoints before we stop to answer.
        let (kept, ()) = tokio::join!(life.kept, tokio::time::sleep(life.delay));
        if let Err(error) = kept {
            tracing::error!(%error, "the keeping of start-up objects ended badly");
        }
        closing.cancel();
        // Watches would keep their connections for ever.
        server.registry.shutdown();
    };
    let served = copepod_serve::serve(listener, Transport::Tls(tls), service, life.limits, closing.clone());
    let (served, ()) = tokio::join!(served, orderly);
    match served {
        Ok(0) => tracing::info!("all connections have ended"),
        Ok(cut) => tracing::warn!(cut, "connections were cut"),
        Err(error) => tracing::error!(%error, "the listener failed"),
    }
}

/// The server as a service, for connections and for callers inside the process.
pub fn service(
    server: &Arc<Server>,
) -> impl tower::Service<
    Request<hyper::body::Incoming>,
    Response = crate::answer::Answer,
    Error = std::convert::Infallible,
    Future: Send,
> + Clone
+ Send
+ 'static {
    let server = Arc::clone(server);
    tower::service_fn(move |request: Request<hyper::body::Incoming>| {
        let server = Arc::clone(&server);
        async move { Ok(filters::run(server, request.map(Body::new)).await) }
    })
}

/// Asks the store now and then whether it answers; a probe itself must not wait for it.
async fn watch_store(store: Arc<dyn Store>, answers: Arc<AtomicBool>, shutdown: Shutdown) {
    loop {
        let asked = tokio::time::timeout(STORE_ANSWER, store.current_revision()).await;
        let well = matches!(asked, Ok(Ok(_)));
        if answers.swap(well, Ordering::Relaxed) != well {
            tracing::warn!(well, "the store's health changed");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(STORE_PROBE) => {}
        }
    }
}

static FEATURES: OnceLock<FeatureGates> = OnceLock::new();

fn feature(name: &str) -> bool {
    FEATURES.get().is_some_and(|gates| gates.enabled(name))
}

/// Gates belong to the process, as in upstream; the first server of a process sets them.
fn set_features(options: &Options) -> Result<(), StartError> {
    let known: Vec<Gate> = copepod_schema::feature_gates()
        .iter()
        .map(|gate| Gate {
            name: gate.name.to_string(),
            default: gate.default,
            locked: gate.locked,
            maturity: match gate.stage {
                copepod_schema::Stage::Alpha => Maturity::Alpha,
                copepod_schema::Stage::Beta => Maturity::Beta,
                _ => Maturity::Other,
            },
        })
        .collect();
    let gates = FeatureGates::parse(&options.generic.feature_gates.join(","), &known).map_err(flag)?;
    FEATURES.get_or_init(|| gates);
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|source| StartError::File { path: path.into(), source })
}

async fn open_store(options: &Options) -> Result<Arc<dyn Store>, StartError> {
    let storage = &options.storage;
    let compact = Some(storage.etcd_compaction_interval.0).filter(|d| !d.is_zero());
    let failed = |e: &dyn std::fmt::Display| StartError::Store(e.to_string());
    match storage.storage.as_deref() {
        Some("memory") => Ok(Arc::new(EmbeddedStore::ephemeral().map_err(|e| failed(&e))?)),
        Some(other) => {
            let Some(folder) = other.strip_prefix("embedded:").filter(|f| !f.is_empty()) else {
                return Err(flag(format!("--storage must be embedded:DIR or memory, not {other:?}")));
            };
            let embedded = EmbeddedOptions { compact_interval: compact, ..EmbeddedOptions::default() };
            Ok(Arc::new(EmbeddedStore::open(Path::new(folder), embedded).map_err(|e| failed(&e))?))
        }
        None if storage.etcd_servers.is_empty() => Err(flag("--etcd-servers must be specified")),
        None => {
            let identity = match (&storage.etcd_certfile, &storage.etcd_keyfile) {
                (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
                (None, None) => None,
                _ => return Err(flag("--etcd-certfile and --etcd-keyfile go together")),
            };
            let etcd = EtcdOptions {
                endpoints: storage.etcd_servers.clone(),
                ca_pem: storage.etcd_cafile.as_deref().map(read).transpose()?,
                identity_pem: identity,
                compact_interval: compact,
            };
            Ok(Arc::new(EtcdStore::connect(etcd).await.map_err(|e| failed(&e))?))
        }
    }
}

fn registry_config(options: &Options, store: Arc<dyn Store>) -> copepod_registry::Config {
    copepod_registry::Config {
        store,
        prefix: options.storage.etcd_prefix.clone(),
        feature,
        service_cidrs: options.misc.service_cluster_ip_range.clone(),
        node_ports: options.misc.service_node_port_range.0.clone(),
        event_ttl: options.storage.event_ttl.0,
        body_cache_bytes_max: BODY_CACHE_BYTES_MAX,
    }
}

fn config(
    options: &Options,
    identity: &Identity,
    advertised: IpAddr,
    port: u16,
) -> Result<Config, StartError> {
    let generic = &options.generic;
    let regexes: Result<Vec<_>, _> =
        generic.cors_allowed_origins.iter().map(|r| regex::Regex::new(r)).collect();
    if !(0.0..=0.02).contains(&generic.goaway_chance) {
        return Err(flag("--goaway-chance can not be less than 0 or greater than 0.02"));
    }
    if !generic.runtime_config.0.values().all(|v| v == "true") {
        return Err(flag("--runtime-config: switching APIs off is not supported by this server"));
    }
    let host = match generic.external_hostname.as_str() {
        "" => SocketAddr::new(advertised, port).to_string(),
        name => format!("{name}:{port}"),
    };
    let algorithms = identity.keys.as_ref().map(PublicKeys::algorithms).unwrap_or_default();
    Ok(Config {
        request_timeout: generic.request_timeout.0,
        watch_timeout_min: Duration::from_secs(generic.min_request_timeout.max(1)),
        goaway_chance: generic.goaway_chance,
        cors_allowed_origins: regexes.map_err(flag)?,
        always_allow_paths: ["/healthz", "/livez", "/readyz"].map(String::from).to_vec(),
        body_bytes_max: BODY_BYTES_MAX,
        external_host: host,
        issuer: options.authentication.service_account_issuer.first().cloned().unwrap_or_default(),
        jwks_uri: options.authentication.service_account_jwks_uri.clone(),
        jwks: identity.keys.as_ref().map(PublicKeys::jwks),
        signing_algorithms: format!("{algorithms:?}"),
    })
}

fn limits(options: &Options) -> Limits {
    let mut limits = Limits::default();
    if options.serving.http2_max_streams_per_connection > 0 {
        limits.streams_max = options.serving.http2_max_streams_per_connection;
    }
    limits.drain_timeout = options.generic.request_timeout.0;
    limits
}

fn backends(options: &Options) -> Result<Backends, StartError> {
    let misc = &options.misc;
    let client = match (&misc.kubelet_client_certificate, &misc.kubelet_client_key) {
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        (None, None) => None,
        _ => return Err(flag("--kubelet-client-certificate and --kubelet-client-key go together")),
    };
    let files = KubeletFiles { client, authority: misc.kubelet_certificate_authority.clone() };
    Backends::new(&files, misc.kubelet_preferred_address_types.clone(), misc.kubelet_timeout.0).map_err(flag)
}

/// What the cluster is told of this server.
fn own(options: &Options, server: &Server, address: IpAddr, port: u16, trust: watch::Receiver<Trust>) -> Own {
    let kubernetes = Kubernetes {
        store: Arc::clone(&server.store),
        prefix: options.storage.etcd_prefix.clone(),
        address,
        port,
    };
    Own {
        service_ranges: options.misc.service_cluster_ip_range.clone(),
        port,
        kubernetes: (options.misc.endpoint_reconciler_type != "none").then_some(kubernetes),
        trust,
        host: host_name(),
        registry: Arc::clone(&server.registry),
        repair: tokio::sync::Mutex::default(),
    }
}

fn host_name() -> String {
    // Linux only, as everything that runs pods.
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or("localhost".into(), |name| name.trim().to_string())
}

/// Where the cluster reaches us: as told, else the address of the default route.
/// upstream: apimachinery/pkg/util/net/interface.go ResolveBindAddress
fn advertise_address(options: &Options) -> IpAddr {
    if let Some(address) = options.generic.advertise_address {
        return address;
    }
    let bind = options.serving.bind_address;
    if !bind.is_unspecified() && !bind.is_loopback() {
        return bind;
    }
    // Nothing is sent: connecting a datagram socket only asks the routing table.
    let routed = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect(("192.0.2.1", 9))?;
        Ok(socket.local_addr()?.ip())
    };
    match routed() {
        Ok(address) if !address.is_unspecified() && !address.is_loopback() => address,
        // A machine without any network; what is advertised is of no use but has to be an address.
        _ => IpAddr::from([192, 0, 2, 1]),
    }
}

async fn listen(options: &Options) -> Result<TcpListener, StartError> {
    let address = SocketAddr::new(options.serving.bind_address, options.serving.secure_port);
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

fn listen_error(options: &Options, source: std::io::Error) -> StartError {
    let address = SocketAddr::new(options.serving.bind_address, options.serving.secure_port);
    StartError::Listen { address, source }
}

type Checks = Vec<(&'static str, Flag)>;

/// `/healthz`, `/livez`, `/readyz` under upstream's names.
fn health(
    options: &Options,
    registry: &Arc<Registry>,
    answers: &Arc<AtomicBool>,
    ending: &Flag,
) -> ([Health; 3], Checks) {
    let checks = bootstrap::checks();
    let names = ["healthz", "livez", "readyz"];
    let all = names.map(Health::new);
    for (health, name) in all.iter().zip(names) {
        health.add("ping", || Ok(()));
        health.add("log", || Ok(()));
        let stores: &[&str] = if name == "readyz" { &["etcd", "etcd-readiness"] } else { &["etcd"] };
        for check in stores {
            let answers = Arc::clone(answers);
            health.add(check, move || {
                if answers.load(Ordering::Relaxed) { Ok(()) } else { Err("the store does not answer".into()) }
            });
        }
        if name == "readyz" {
            let filled = Arc::downgrade(registry);
            health.add("informer-sync", move || match filled.upgrade().map(|r| r.not_ready()) {
                Some(waiting) if waiting.is_empty() => Ok(()),
                Some(waiting) => {
                    Err(format!("{} caches not filled yet: {}", waiting.len(), waiting.join(" ")))
                }
                None => Err("the registry is gone".into()),
            });
        }
        let grace = if name == "livez" { options.generic.livez_grace_period.0 } else { Duration::ZERO };
        for (check, flag) in &checks {
            let flag = flag.clone();
            health.add_after(check, grace, move || flag.check());
        }
        if name == "readyz" {
            let ending = ending.clone();
            health.add("shutdown", move || {
                if ending.is_set() { Err("process is shutting down".into()) } else { Ok(()) }
            });
        }
    }
    (all, checks)
}
