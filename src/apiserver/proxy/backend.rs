//! Connections to what is behind us.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use copepod_serve::tls;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A TCP connection to a pod or node has to be there after so long. Go's default dialer waits 30 s.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Who we are to kubelets and how we know them: `--kubelet-client-certificate`, `--kubelet-client-key`,
/// `--kubelet-certificate-authority`.
#[derive(Clone, Debug, Default)]
pub struct KubeletFiles {
    /// Our certificate and key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Who signed theirs; `None`: any is taken, as upstream does.
    pub authority: Option<PathBuf>,
}

/// Why there is no connection, in Go's words: they reach the user.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// TCP.
    #[error("dial tcp {address}: connect: {source}")]
    Dial {
        /// Where to.
        address: String,
        /// Why not.
        source: Errno,
    },
    /// Names.
    #[error("dial tcp: lookup {0}: no such host")]
    Lookup(String),
    /// TCP, without an answer.
    #[error("dial tcp {0}: i/o timeout")]
    Timeout(String),
    /// TLS.
    #[error("tls: {0}")]
    Tls(#[source] io::Error),
    /// HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// Files of ours.
    #[error("kubelet client configuration: {0}")]
    Files(String),
}

/// An I/O error as the C library words it, without Rust's addition of its number.
#[derive(Debug)]
pub struct Errno(io::Error);

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.kind() {
            io::ErrorKind::ConnectionRefused => f.write_str("connection refused"),
            io::ErrorKind::HostUnreachable => f.write_str("no route to host"),
            io::ErrorKind::NetworkUnreachable => f.write_str("network is unreachable"),
            _ => self.0.fmt(f),
        }
    }
}

impl std::error::Error for Errno {}

/// How to reach what is behind us.
pub struct Backends {
    kubelet: Arc<ClientConfig>,
    /// Pods and services over https: their certificates are unknown to everybody.
    untrusted: Arc<ClientConfig>,
    /// `--kubelet-preferred-address-types`
    pub address_types: Vec<String>,
    /// `--kubelet-timeout`: for the handshake with a kubelet.
    pub timeout: Duration,
}

/// A connection, whatever carries it.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Name or IP.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How it is secured.
    pub security: Security,
}

/// How a connection is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    None,
    /// TLS with our certificate, theirs checked if an authority is known.
    Kubelet,
    /// TLS with anybody.
    Untrusted,
}

impl Address {
    /// `host:port`, brackets round IPv6.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
    /// The scheme of its URLs.
    pub fn scheme(&self) -> &'static str {
        if self.security == Security::None { "http" } else { "https" }
    }
}

impl Backends {
    /// Reads the files.
    pub fn new(
        files: &KubeletFiles,
        address_types: Vec<String>,
        timeout: Duration,
    ) -> Result<Backends, BackendError> {
        let kubelet = Arc::new(config(files)?);
        let untrusted = Arc::new(config(&KubeletFiles::default())?);
        Ok(Backends { kubelet, untrusted, address_types, timeout })
    }

    /// Opens a connection.
    pub async fn dial(&self, to: &Address) -> Result<Box<dyn Io>, BackendError> {
        let authority = to.authority();
        let mut addresses = tokio::net::lookup_host((to.host.as_str(), to.port))
            .await
            .map_err(|_| BackendError::Lookup(to.host.clone()))?;
        let address = addresses.next().ok_or_else(|| BackendError::Lookup(to.host.clone()))?;
        let stream = match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
            Err(_) => return Err(BackendError::Timeout(authority)),
            Ok(Err(source)) => {
                return Err(BackendError::Dial { address: address.to_string(), source: Errno(source) });
            }
            Ok(Ok(stream)) => stream,
        };
        let config = match to.security {
            Security::None => return Ok(Box::new(stream)),
            Security::Kubelet => Arc::clone(&self.kubelet),
            Security::Untrusted => Arc::clone(&self.untrusted),
        };
        let name =
            ServerName::try_from(to.host.clone()).map_err(|e| BackendError::Tls(io::Error::other(e)))?;
        let handshake = tokio_rustls::TlsConnector::from(config).connect(name, stream);
        match tokio::time::timeout(self.timeout.max(Duration::from_secs(5)), handshake).await {
            Err(_) => Err(BackendError::Timeout(authority)),
            Ok(result) => Ok(Box::new(result.map_err(BackendError::Tls)?)),
        }
    }

    /// One HTTP/1.1 request on a connection of its own, closed when the answer has been read.
    pub async fn send(
        &self,
        to: &Address,
        request: Request<UnsyncBoxBody<Bytes, axum::Error>>,
    ) -> Result<Response<Incoming>, BackendError> {
        let stream = TokioIo::new(self.dial(to).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a backend ended");
            }
        });
        Ok(sender.send_request(request).await?)
    }
}

fn config(files: &KubeletFiles) -> Result<ClientConfig, BackendError> {
    let wrong = |e: &dyn std::fmt::Display| BackendError::Files(e.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(&e))?;
    let builder = match &files.authority {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(tls::certificates(path).map_err(|e| wrong(&e))?);
            builder.with_root_certificates(roots)
        }
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody { provider })),
    };
    let mut config = match &files.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = tls::certificates(certificate).map_err(|e| wrong(&e))?;
            let key = read_key(key)?;
            builder.with_client_auth_cert(chain, key).map_err(|e| wrong(&e))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, BackendError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| BackendError::Files(format!("{}: {e}", path.display())))
}

/// Takes any certificate: upstream without `--kubelet-certificate-authority`, and its transport to pods.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
