//! A [`kube::Client`] over our own transport: HTTP/2 for everything, HTTP/1.1 for requests that upgrade.
//!
//! Why not kube's own stack: it speaks HTTP/1.1 only, that is one TCP and TLS connection for each watch. Here all
//! requests and watches of a process share one connection, kept alive by pings as client-go's.
//!
//! Invariants: a stream that its reader forgets holds at most [`STREAM_WINDOW_BYTES`] of the connection's
//! [`CONNECTION_WINDOW_BYTES`], so that one slow watch never blocks the others.
//!
//! When it breaks: a dead connection is noticed by an unanswered ping; its streams fail, callers retry, the next request
//! connects anew.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tower::{BoxError, Service, ServiceBuilder};

/// How much of one response may be on its way to a reader that does not read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same for the whole connection: so many forgotten streams before others wait.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// A silent connection is asked for a sign of life. upstream: apimachinery/pkg/util/net/http.go readIdleTimeoutSeconds
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long the answer may take. upstream: apimachinery/pkg/util/net/http.go pingTimeoutSeconds
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// TCP and TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A request is repeated at most so often when the server names a Retry-After. upstream: client-go/rest/request.go
const SERVER_RETRIES_MAX: u32 = 10;

/// Why no client could be made. All are errors of configuration: retrying does not help.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig file could not be read or has no usable context.
    #[error("could not load the kubeconfig")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    /// Neither a kubeconfig nor an in-cluster environment was found.
    #[error("could not find a cluster to connect to")]
    Infer(#[source] kube::config::InferConfigError),
    /// Certificates or credentials cannot be used.
    #[error("could not set up TLS or credentials")]
    Credentials(#[source] kube::Error),
    /// The user agent is no header value.
    #[error("the user agent {0:?} is not a header value")]
    UserAgent(String),
    /// The server URL has no host, or another scheme than http and https.
    #[error("{0} is not the URL of an API server")]
    Url(Uri),
}

/// A client as the kubeconfig file at `path` says; without a path as `KUBECONFIG`, `~/.kube/config` or the pod's own
/// service account say.
pub async fn from_kubeconfig(path: Option<&Path>, user_agent: &str) -> Result<Client, ConnectError> {
    from_config(load(path).await?, user_agent)
}

/// Where and how to connect, as [`from_kubeconfig`] finds it: for programs that make several clients of it.
pub async fn load(path: Option<&Path>) -> Result<Config, ConnectError> {
    match path {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(ConnectError::Kubeconfig)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(ConnectError::Kubeconfig)
        }
        None => Config::infer().await.map_err(ConnectError::Infer),
    }
}

/// A client as a kubeconfig in memory says.
pub async fn from_kubeconfig_value(file: Kubeconfig, user_agent: &str) -> Result<Client, ConnectError> {
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(ConnectError::Kubeconfig)?;
    from_config(config, user_agent)
}

/// A client for `config`. Connects at the first request.
pub fn from_config(mut config: Config, user_agent: &str) -> Result<Client, ConnectError> {
    install_crypto_provider();
    config.headers.push((header::USER_AGENT, agent(user_agent)?));

    let auth = config.auth_layer().map_err(ConnectError::Credentials)?;
    let extra = config.extra_headers_layer().map_err(ConnectError::Credentials)?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(tower::retry::RetryLayer::new(ServerAskedRetry { left: SERVER_RETRIES_MAX }))
        .option_layer(auth)
        .layer(extra)
        .map_err(BoxError::from)
        .service(Transport::new(&config)?);
    Ok(Client::new(service, config.default_namespace))
}

fn agent(text: &str) -> Result<HeaderValue, ConnectError> {
    HeaderValue::from_str(text).map_err(|_| ConnectError::UserAgent(text.to_owned()))
}

/// The one crypto provider of the whole tree. The first call wins; later ones change nothing.
pub fn install_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have been faster: the result is the same provider.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
}

type HyperClient = hyper_util::client::legacy::Client<Connector, Body>;

/// Sends a request over the shared HTTP/2 connection, or over an HTTP/1.1 connection of its own if it upgrades.
#[derive(Clone)]
struct Transport {
    multiplexed: HyperClient,
    upgrading: HyperClient,
}

impl Transport {
    fn new(config: &Config) -> Result<Self, ConnectError> {
        let url = &config.cluster_url;
        let tls = match url.scheme_str() {
            Some("https") => Some(config.rustls_client_config().map_err(ConnectError::Credentials)?),
            Some("http") => None,
            _ => return Err(ConnectError::Url(url.clone())),
        };
        let name = config.tls_server_name.clone();
        let connector = |protocol: &[u8]| Connector {
            tls: tls.clone().map(|mut tls| {
                tls.alpn_protocols = vec![protocol.to_vec()];
                tokio_rustls::TlsConnector::from(Arc::new(tls))
            }),
            server_name: name.clone(),
        };
        let mut http2 = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_only(true)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT);
        let mut http1 = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        http1.pool_timer(TokioTimer::new()).pool_max_idle_per_host(if tls.is_some() { 0 } else { 8 });
        let upgrading = http1.build(connector(b"http/1.1"));
        // Without TLS there is nothing to negotiate with: a server in the clear is spoken to in HTTP/1.1.
        let multiplexed = if tls.is_some() { http2.build(connector(b"h2")) } else { upgrading.clone() };
        Ok(Self { multiplexed, upgrading })
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Incoming>;
    type Error = hyper_util::client::legacy::Error;
    type Future = hyper_util::client::legacy::ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client =
            if request.headers().contains_key(header::UPGRADE) { &self.upgrading } else { &self.multiplexed };
        client.request(request)
    }
}

/// Opens connections: TCP without delay, then TLS with one ALPN protocol.
#[derive(Clone)]
struct Connector {
    tls: Option<tokio_rustls::TlsConnector>,
    server_name: Option<String>,
}

impl Connector {
    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, BoxError> {
        let host = uri.host().ok_or_else(|| ConnectError::Url(uri.clone()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        let stream = match self.tls {
            None => Stream::Plain(tcp),
            Some(tls) => {
                let name = ServerName::try_from(self.server_name.unwrap_or_else(|| host.to_owned()))?;
                Stream::Tls(Box::new(tls.connect(name, tcp).await?))
            }
        };
        Ok(TokioIo::new(stream))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connect = self.clone().connect(uri);
        Box::pin(async move { tokio::time::timeout(CONNECT_TIMEOUT, connect).await? })
    }
}

/// A connection in the clear or under TLS.
enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
        }
    }
}

impl tokio::io::AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl tokio::io::AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// Repeats a request when, and only when, the server said how long to wait.
///
/// upstream: client-go/rest/with_retry.go IsNextRetry (429 and 5xx with Retry-After)
#[derive(Clone)]
struct ServerAskedRetry {
    left: u32,
}

impl<B> tower::retry::Policy<Request<Body>, Response<B>, BoxError> for ServerAskedRetry {
    type Future = tokio::time::Sleep;

    fn retry(
        &mut self,
        _: &mut Request<Body>,
        result: &mut Result<Response<B>, BoxError>,
    ) -> Option<Self::Future> {
        let response = result.as_ref().ok()?;
        if !(response.status().as_u16() == 429 || response.status().is_server_error()) || self.left == 0 {
            return None;
        }
        let after = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
        self.left -= 1;
        Some(tokio::time::sleep(Duration::from_secs(after)))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        let mut copy = Request::new(request.body().try_clone()?);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        Some(copy)
    }
}

/// Headers a request must carry to be sent over a connection of its own.
pub fn upgrade_headers(protocol: &'static str) -> [(HeaderName, HeaderValue); 2] {
    [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static(protocol)),
    ]
}

pub mod accounts;
#[cfg(test)]
mod tests;
