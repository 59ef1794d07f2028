//! The small HTTPS endpoint of a component that serves no API: health for everybody, metrics for this machine.
//!
//! Without certificate files the endpoint makes itself a certificate that lives as long as the process, as upstream's
//! components do. `/metrics` is answered to loopback only: it tells names of objects, and nobody is authenticated here.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::metrics::Registry;
use crate::tls::{TlsError, TlsFiles, TlsSettings};
use crate::{ConnectionInfo, Limits, ServeError, Transport};

/// Why the endpoint cannot be served. All of them are errors of configuration.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address is taken or not ours.
    #[error("could not listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("could not use the serving certificate")]
    Certificate(#[source] TlsError),
    /// No certificate could be made.
    #[error("could not make a self-signed certificate: {0}")]
    SelfSigned(String),
    /// The accept loop ended.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Where a component answers.
pub struct Endpoint {
    /// Address to bind; port 0 means: serve nothing.
    pub address: SocketAddr,
    /// Certificate chain and key; self-signed if `None`.
    pub files: Option<(PathBuf, PathBuf)>,
    /// What `/metrics` shows.
    pub registry: Registry,
}

impl Endpoint {
    /// Serves until `shutdown`.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), EndpointError> {
        if self.address.port() == 0 {
            shutdown.cancelled().await;
            return Ok(());
        }
        let settings = match &self.files {
            Some(pair) => load(pair.clone())?,
            None => self_signed()?,
        };
        let listener = TcpListener::bind(self.address)
            .await
            .map_err(|source| EndpointError::Listen { address: self.address, source })?;
        self.registry.process();
        let registry = self.registry;
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let answer = answer(&request, &registry);
            async move { Ok::<_, Infallible>(answer) }
        });
        let transport = Transport::Tls(Arc::new(settings));
        crate::serve(listener, transport, service, Limits::default(), shutdown).await?;
        Ok(())
    }
}

fn answer(request: &Request<Incoming>, registry: &Registry) -> Response<Full<Bytes>> {
    let local = request.extensions().get::<ConnectionInfo>().is_some_and(|info| info.peer.ip().is_loopback());
    let (code, text) = match request.uri().path() {
        "/healthz" | "/livez" | "/readyz" => {
            let answer = Health::new("healthz").answer(request.uri().query().unwrap_or_default());
            (answer.code, answer.text)
        }
        "/metrics" if local => (StatusCode::OK, registry.render()),
        "/metrics" => (StatusCode::FORBIDDEN, "metrics are for this machine only\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}

fn load(default: (PathBuf, PathBuf)) -> Result<TlsSettings, EndpointError> {
    let files = TlsFiles { default, http2: true, ..TlsFiles::default() };
    TlsSettings::load(files).map_err(EndpointError::Certificate)
}

/// A certificate for `localhost`, kept in memory: its files exist only while they are read.
fn self_signed() -> Result<TlsSettings, EndpointError> {
    let failed = |error: &dyn std::fmt::Display| EndpointError::SelfSigned(error.to_string());
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| failed(&error))?;
    // Several components of one process may come here at once; a folder that is there already is somebody else's.
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("copepod-serving-{}-{number}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&directory).map_err(|error| failed(&error))?;
    let pair = (directory.join("tls.crt"), directory.join("tls.key"));
    let loaded = write_private(&pair.0, &made.cert.pem())
        .and_then(|()| write_private(&pair.1, &made.signing_key.serialize_pem()))
        .map_err(|error| failed(&error))
        .and_then(|()| load(pair));
    if let Err(error) = std::fs::remove_dir_all(&directory) {
        tracing::warn!(%error, directory = %directory.display(), "could not remove the serving key");
    }
    loaded
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// A token that is cancelled by SIGTERM and SIGINT. A second signal ends the process at once, as upstream's do.
pub fn shutdown_on_signals() -> CancellationToken {
    let token = CancellationToken::new();
    let ours = token.clone();
    tokio::spawn(async move {
        let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::warn!("signals are not handled");
            return;
        };
        for _ in 0..2 {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if ours.is_cancelled() {
                std::process::exit(1);
            }
            ours.cancel();
        }
    });
    token
}

/// The `main` of a program that is one component: installs the crypto provider, makes a runtime, listens for signals, says
/// on standard error why it failed. `worker_threads`: `None` for one a core.
pub fn run_main<F>(
    worker_threads: Option<usize>,
    run: impl FnOnce(Vec<String>, CancellationToken) -> F,
) -> std::process::ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    crate::install_crypto_provider();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = worker_threads {
        builder.worker_threads(threads);
    }
    let outcome = builder.enable_all().build().map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async { run(std::env::args().collect(), shutdown_on_signals()).await })
    });
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
