//! What every Copepod binary that listens needs: connections with limits, TLS with reload, health, metrics, flags, logs.
//!
//! | module | what |
//! |---|---|
//! | [`server`] | the accept loop: handshake, HTTP/1.1 or HTTP/2, limits, drain |
//! | [`limits`] | every bound of a connection, named |
//! | [`tls`] | certificates with SNI and reload; client certificates that never fail a handshake |
//! | [`component`] | health and metrics of a component that serves no API; shutdown by signals |
//! | [`body`] | reading a request's body within a bound |
//! | [`health`] | `/healthz`, `/livez`, `/readyz` in upstream's text |
//! | [`metrics`] | counters, gauges, histograms in the Prometheus text format 0.0.4 |
//! | [`flags`] | upstream's flag syntax; refusing by name what is known and not supported |
//! | [`features`] | `--feature-gates` |
//! | [`directory`] | being told that files changed |
//! | [`logging`] | klog's line format over `tracing` |
//!
//! It does not route, authenticate or authorize: it hands a service the request with [`ConnectionInfo`] as an extension.

pub mod body;
pub mod component;
pub mod directory;
pub mod features;
pub mod flags;
pub mod health;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod server;
pub mod tls;

pub use limits::Limits;
pub use server::{ConnectionInfo, ServeError, Transport, serve};
pub use tokio_util::sync::CancellationToken as Shutdown;

/// Installs the one crypto provider of the process. First line of every `main`; later calls change nothing.
pub fn install_crypto_provider() {
    // The only error is "already installed", which is what is wanted.
    let _already = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
