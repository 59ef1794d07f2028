//! TLS settings of a listener: certificates chosen by server name, exchanged while running, and client certificates that
//! are asked for but never fail a handshake.
//!
//! Why the client verifier is our own: rustls' ends the handshake with an alert when a certificate is expired or of an
//! unknown authority. Upstream's server (Go's `RequestClientCert`) lets the request go on and answers 401, and a client with a
//! stale certificate and a good token is served. So a handshake only proves that the client holds the key of what it
//! sent; whether the chain is trusted is the authenticator's question ([`ClientCa`]).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

/// What can be wrong with certificates and keys. None of it mends itself; a reload that fails leaves the old ones in use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM of the kind wanted.
    #[error("{path}: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// A file without any certificate.
    #[error("{0}: holds no certificate")]
    Empty(PathBuf),
    /// Key and certificate do not fit, unsupported key, malformed certificate.
    #[error("certificate or key: {0}")]
    Rejected(#[from] rustls::Error),
    /// A name that is no cipher suite of TLS 1.2 or 1.3 that is offered here.
    #[error("Cipher suite {0} not supported or doesn't exist")]
    CipherSuite(String),
    /// Not `VersionTLS12` or `VersionTLS13`.
    #[error("unknown tls version {0:?}")]
    Version(String),
    /// No verifier can be made of the authorities.
    #[error("client certificate authorities: {0}")]
    Authorities(String),
}

/// Where the certificates come from.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Served when no other fits: certificate chain and key.
    pub default: (PathBuf, PathBuf),
    /// More chains and keys; a client's server name chooses. Names are the patterns given, or else the certificate's.
    pub sni: Vec<SniFiles>,
    /// Authorities whose names are sent to clients as a hint which certificate to use.
    pub client_ca: Vec<PathBuf>,
    /// Lowest protocol: `VersionTLS12` (default) or `VersionTLS13`.
    pub min_version: String,
    /// Upstream's names of the suites to offer for TLS 1.2; empty: all good ones.
    pub cipher_suites: Vec<String>,
    /// Whether to offer HTTP/2.
    pub http2: bool,
}

impl TlsFiles {
    /// Every file that a change of the certificates would touch.
    pub fn paths(&self) -> Vec<PathBuf> {
        let pairs = std::iter::once(&self.default)
            .flat_map(|(certificate, key)| [certificate.clone(), key.clone()])
            .chain(self.sni.iter().flat_map(|s| [s.certificate.clone(), s.key.clone()]));
        pairs.chain(self.client_ca.iter().cloned()).collect()
    }
}

/// A certificate chain for certain names.
#[derive(Clone, Debug)]
pub struct SniFiles {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Names, perhaps with a leading `*.`; empty: those in the certificate cannot be told apart here, so it needs at least one.
    pub names: Vec<String>,
}

/// The settings in use. Cheap to read per connection, exchanged by [`TlsSettings::reload`].
pub struct TlsSettings {
    current: ArcSwap<ServerConfig>,
    /// Subjects of the authorities that clients are told of.
    hints: ArcSwap<Vec<DistinguishedName>>,
    files: TlsFiles,
}

impl TlsSettings {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> Result<TlsSettings, TlsError> {
        let hints = hints(&files)?;
        let config = build(&files, hints.clone())?;
        Ok(TlsSettings { current: ArcSwap::from_pointee(config), hints: ArcSwap::from_pointee(hints), files })
    }

    /// The settings for the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads the files again. Connections made before keep what they have.
    pub fn reload(&self) -> Result<(), TlsError> {
        // Authorities that cannot be read are no reason to serve an old certificate: clients get the old hints.
        let hints = hints(&self.files).map(|new| self.hints.store(Arc::new(new)));
        // A new configuration has a new session cache: an old session would bring an old client certificate back.
        self.current.store(Arc::new(build(&self.files, self.hints.load().to_vec())?));
        hints
    }
}

fn hints(files: &TlsFiles) -> Result<Vec<DistinguishedName>, TlsError> {
    let mut roots = RootCertStore::empty();
    for path in &files.client_ca {
        roots.add_parsable_certificates(certificates(path)?);
    }
    Ok(roots.subjects())
}

fn build(files: &TlsFiles, hints: Vec<DistinguishedName>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(provider(&files.cipher_suites)?);
    let versions: &[&rustls::SupportedProtocolVersion] = match files.min_version.as_str() {
        "" | "VersionTLS12" => &[&rustls::version::TLS13, &rustls::version::TLS12],
        "VersionTLS13" => &[&rustls::version::TLS13],
        other => return Err(TlsError::Version(other.into())),
    };
    let verifier = AcceptAll { hints, algorithms: provider.signature_verification_algorithms };
    let mut names = BTreeMap::new();
    for sni in &files.sni {
        let key = Arc::new(certified_key(&sni.certificate, &sni.key, &provider)?);
        for name in &sni.names {
            names.insert(name.to_ascii_lowercase(), Arc::clone(&key));
        }
    }
    let default = Arc::new(certified_key(&files.default.0, &files.default.1, &provider)?);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(ByName { default, names }));
    config.alpn_protocols =
        if files.http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(config)
}

/// The certificates of a PEM file; at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |source| TlsError::Pem { path: path.into(), source };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(pem)?.collect::<Result<_, _>>().map_err(pem)?;
    if found.is_empty() { Err(TlsError::Empty(path.into())) } else { Ok(found) }
}

fn certified_key(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(certificate)?;
    let key =
        PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Pem { path: key.into(), source })?;
    Ok(CertifiedKey::from_der(chain, key, provider)?)
}

/// The provider with the suites that upstream's `--tls-cipher-suites` names; TLS 1.3 suites always stay, as in Go.
fn provider(names: &[String]) -> Result<CryptoProvider, TlsError> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if names.is_empty() {
        return Ok(provider);
    }
    for name in names {
        if !provider.cipher_suites.iter().any(|s| go_name(s) == *name) {
            return Err(TlsError::CipherSuite(name.clone()));
        }
    }
    provider.cipher_suites.retain(|s| s.tls13().is_some() || names.contains(&go_name(s)));
    Ok(provider)
}

/// Go's (IANA's) name of a suite; rustls prefixes those of 1.3 differently.
fn go_name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

#[derive(Debug)]
struct ByName {
    default: Arc<CertifiedKey>,
    names: BTreeMap<String, Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let by_name = hello.server_name().and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard = || name.split_once('.').map(|(_, domain)| format!("*.{domain}"));
            self.names.get(&name).or_else(|| self.names.get(&wildcard()?))
        });
        Some(Arc::clone(by_name.unwrap_or(&self.default)))
    }
}

/// Asks for a certificate, takes any, checks that the client holds its key.
struct AcceptAll {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for AcceptAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptAll").field("hints", &self.hints.len()).finish()
    }
}

impl ClientCertVerifier for AcceptAll {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Authorities that client certificates are checked against, after the handshake.
#[derive(Clone, Debug)]
pub struct ClientCa {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientCa {
    /// From a PEM bundle.
    pub fn load(path: &Path) -> Result<ClientCa, TlsError> {
        ClientCa::new(certificates(path)?)
    }

    /// From certificates.
    pub fn new(authorities: Vec<CertificateDer<'static>>) -> Result<ClientCa, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| TlsError::Authorities(e.to_string()))?;
        Ok(ClientCa { verifier })
    }

    /// Whether the chain (leaf first) leads to one of the authorities, is in time and is for client authentication.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), TlsError> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(TlsError::Authorities("no certificate".into()));
        };
        self.verifier.verify_client_cert(leaf, intermediates, now)?;
        Ok(())
    }
}
