//! The running server: what every request may reach.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use copepod_access::AuthenticatorChain;
use copepod_meta::Authorizer;
use copepod_registry::Registry;
use copepod_serve::Shutdown;
use copepod_serve::health::Health;
use copepod_store::Store;

use crate::discovery::Discovery;
use crate::filters::InFlight;
use crate::metrics::Metrics;
use crate::openapi::OpenApi;
use crate::proxy::Backends;
use crate::request_info::RequestInfo;

/// What requests need to know of the flags.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--request-timeout`
    pub request_timeout: Duration,
    /// `--min-request-timeout`: watches last between this and twice as long.
    pub watch_timeout_min: Duration,
    /// `--goaway-chance`
    pub goaway_chance: f64,
    /// `--cors-allowed-origins`
    pub cors_allowed_origins: Vec<regex::Regex>,
    /// Paths that need no authorization.
    pub always_allow_paths: Vec<String>,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// `host:port` under which clients reach this server: in discovery and in the OpenID document.
    pub external_host: String,
    /// `--service-account-issuer`, the first one.
    pub issuer: String,
    /// `--service-account-jwks-uri`, "" for our own.
    pub jwks_uri: String,
    /// The JSON Web Key Set, if service account tokens are verified.
    pub jwks: Option<String>,
    /// `["RS256"]`: with what they are signed, as JSON.
    pub signing_algorithms: String,
}

/// Upstream's limit of a body. upstream: server/config.go MaxRequestBodyBytes
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// The running server.
pub struct Server {
    /// Flags.
    pub config: Config,
    /// Objects.
    pub registry: Arc<Registry>,
    /// The keys behind the objects: not everything in them is an object.
    pub store: Arc<dyn Store>,
    /// Who asks.
    pub authenticator: Arc<AuthenticatorChain>,
    /// Whether they may.
    pub authorizer: Arc<dyn Authorizer>,
    /// Places for requests.
    pub in_flight: InFlight,
    /// What is served, as documents.
    pub discovery: Discovery,
    /// What it looks like, as documents.
    pub openapi: OpenApi,
    /// Nodes, pods and services behind us.
    pub backends: Backends,
    /// Numbers.
    pub metrics: Metrics,
    /// `/healthz`, `/livez`, `/readyz`
    pub health: [Health; 3],
    /// Ends everything that has no end of its own.
    pub shutdown: Shutdown,
    /// The fixed endpoints, made when first asked.
    pub router: OnceLock<axum::Router>,
}

impl Server {
    /// Whether the request's resource is served: labels of metrics are made of served names only.
    pub fn serves(&self, info: &RequestInfo) -> bool {
        info.is_resource && self.registry.lookup(&info.group, &info.version, &info.resource).is_some()
    }
}
