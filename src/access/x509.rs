//! Users from client certificates, and from the headers of a trusted front proxy.
//!
//! The TLS layer takes any client certificate (as Go's `RequestClientCert`); whether it counts is decided here, so that a
//! bad one gets a 401 and not a broken handshake.
//!
//! upstream: apiserver/pkg/authentication/request/{x509/x509.go,headerrequest/requestheader.go}

use crate::authn::{AuthenticationError, Peer};
use arc_swap::ArcSwap;
use copepod_meta::User;
use http::HeaderMap;
use parking_lot::Mutex;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};

const CREDENTIAL_ID_KEY: &str = "authentication.kubernetes.io/credential-id";
/// The subject attribute that holds a user's uid. upstream: x509.go parseUIDFromCert
const UID_OID: &str = "1.3.6.1.4.1.57683.2";

/// A bundle that holds no usable CA.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not PEM, or no certificate in it.
    #[error("data does not contain any valid RSA or ECDSA certificates")]
    Empty,
    /// A certificate that does not parse.
    #[error("unable to parse CA certificate: {0}")]
    Certificate(String),
}

#[derive(Debug)]
struct Bundle {
    anchors: Vec<TrustAnchor<'static>>,
    generation: u64,
}

fn anchors(pem: &[u8]) -> Result<Vec<TrustAnchor<'static>>, BundleError> {
    let mut out = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let der = certificate.map_err(|e| BundleError::Certificate(e.to_string()))?;
        let anchor = anchor_from_trusted_cert(&der).map_err(|e| BundleError::Certificate(e.to_string()))?;
        out.push(anchor.to_owned());
    }
    if out.is_empty() { Err(BundleError::Empty) } else { Ok(out) }
}

/// What was found out about a peer, good for one generation of the bundle and until the certificate ends.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    generation: u64,
    not_after: i64,
    result: Result<Option<Arc<User>>, AuthenticationError>,
}

/// Believes certificates that a CA of its bundle signed for client authentication. The bundle may be replaced at run time.
#[derive(Debug)]
pub struct ClientCertificates {
    bundle: ArcSwap<Bundle>,
}

impl ClientCertificates {
    /// From a PEM bundle of CAs.
    pub fn from_pem(pem: &[u8]) -> Result<ClientCertificates, BundleError> {
        Ok(ClientCertificates {
            bundle: ArcSwap::from_pointee(Bundle { anchors: anchors(pem)?, generation: 1 }),
        })
    }

    /// Replaces the bundle; connections that are open are checked again at their next request.
    pub fn reload(&self, pem: &[u8]) -> Result<(), BundleError> {
        let anchors = anchors(pem)?;
        self.bundle.rcu(|old| Bundle { anchors: anchors.clone(), generation: old.generation + 1 });
        Ok(())
    }

    /// The user of the peer's certificate. `Ok(None)`: the peer sent none, or one without a common name.
    pub fn authenticate(&self, peer: &Peer) -> Result<Option<Arc<User>>, AuthenticationError> {
        self.authenticate_cached(peer, &peer.verified)
    }

    fn authenticate_cached(
        &self,
        peer: &Peer,
        memory: &Mutex<Option<Verified>>,
    ) -> Result<Option<Arc<User>>, AuthenticationError> {
        if peer.chain.is_empty() {
            return Ok(None);
        }
        let bundle = self.bundle.load();
        let now = UnixTime::now();
        let now_seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if let Some(known) = memory.lock().as_ref()
            && known.generation == bundle.generation
            && now_seconds <= known.not_after
        {
            return known.result.clone();
        }
        let (result, not_after) = verify(&bundle.anchors, &peer.chain, now);
        *memory.lock() = Some(Verified { generation: bundle.generation, not_after, result: result.clone() });
        result
    }
}

/// Verifies a chain; the second part is the time (Unix seconds) until which the answer holds.
fn verify(
    anchors: &[TrustAnchor<'static>],
    chain: &[CertificateDer<'static>],
    now: UnixTime,
) -> (Result<Option<Arc<User>>, AuthenticationError>, i64) {
    let leaf = &chain[0];
    let parsed = match X509Certificate::from_der(leaf) {
        Ok((_, parsed)) => parsed,
        Err(e) => {
            return (Err(AuthenticationError(format!("parsing client certificate failed: {e}"))), i64::MAX);
        }
    };
    let not_before = parsed.validity().not_before.timestamp();
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    // Before its time it may become good; after it, it stays bad.
    let until = if seconds < not_before { 0 } else { parsed.validity().not_after.timestamp() };
    let checked = EndEntityCert::try_from(leaf).and_then(|end| {
        let usage = KeyUsage::client_auth();
        end.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, anchors, &chain[1..], now, usage, None, None)
            .map(|_| ())
    });
    if let Err(e) = checked {
        let subject = parsed.subject().to_string();
        return (
            Err(AuthenticationError(format!("verifying certificate {subject} failed: {e}"))),
            until.max(seconds),
        );
    }
    (Ok(user_of(&parsed, leaf).map(Arc::new)), until)
}

/// upstream: x509.go CommonNameUserConversion
fn user_of(certificate: &X509Certificate<'_>, der: &CertificateDer<'_>) -> Option<User> {
    let subject = certificate.subject();
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().unwrap_or("").to_string();
    // Go keeps the last CN of several.
    let name = subject.iter_common_name().last().map(text).filter(|n| !n.is_empty())?;
    let groups = subject.iter_organization().map(text).collect();
    let uid = subject.iter_attributes().find(|a| a.attr_type().to_id_string() == UID_OID).map(text);
    let digest: [u8; 32] = Sha256::digest(der).into();
    let id: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    Some(User {
        name,
        uid: uid.unwrap_or_default(),
        groups,
        extra: vec![(CREDENTIAL_ID_KEY.into(), vec![format!("X509SHA256={id}")])],
    })
}

/// Believes the user headers of a proxy that shows a certificate of the front-proxy CA (`--requestheader-*`).
#[derive(Debug)]
pub struct FrontProxy {
    /// Who may be the proxy.
    pub certificates: ClientCertificates,
    /// Common names allowed; none: any that the CA signed.
    pub allowed_names: Vec<String>,
    /// `X-Remote-User`
    pub username_headers: Vec<String>,
    /// `X-Remote-Uid`
    pub uid_headers: Vec<String>,
    /// `X-Remote-Group`
    pub group_headers: Vec<String>,
    /// `X-Remote-Extra-`
    pub extra_headers_prefix: Vec<String>,
}

impl FrontProxy {
    /// The user that the proxy speaks for. `Ok(None)`: no proxy certificate, or no user header.
    pub fn authenticate(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<User>>, AuthenticationError> {
        // A client certificate of another CA is none of the proxy's business: not an error here.
        let proxy = match self.certificates.authenticate_cached(peer, &peer.front_proxy) {
            Ok(Some(proxy)) => proxy,
            Ok(None) | Err(_) => return Ok(None),
        };
        if !self.allowed_names.is_empty() && !self.allowed_names.contains(&proxy.name) {
            let message = format!("x509: subject with cn={} is not in the allowed list", proxy.name);
            return Err(AuthenticationError(message));
        }
        let first = |names: &[String]| {
            names
                .iter()
                .filter_map(|n| headers.get(n))
                .filter_map(|v| v.to_str().ok())
                .find(|v| !v.is_empty())
        };
        let Some(name) = first(&self.username_headers) else { return Ok(None) };
        let groups = self.group_headers.iter().flat_map(|n| headers.get_all(n));
        let user = User {
            name: name.into(),
            uid: first(&self.uid_headers).unwrap_or("").into(),
            groups: groups.filter_map(|v| v.to_str().ok()).map(Into::into).collect(),
            extra: self.extra(headers),
        };
        Ok(Some(Arc::new(user)))
    }

    fn extra(&self, headers: &HeaderMap) -> Vec<(String, Vec<String>)> {
        let mut out: Vec<(String, Vec<String>)> = Vec::new();
        for prefix in &self.extra_headers_prefix {
            let prefix = prefix.to_ascii_lowercase();
            for (name, value) in headers {
                let (Some(key), Ok(value)) = (name.as_str().strip_prefix(&prefix), value.to_str()) else {
                    continue;
                };
                let key = copepod_meta::url::unescape_path_or_keep(key).into_owned();
                match out.iter_mut().find(|(k, _)| *k == key) {
                    Some((_, values)) => values.push(value.into()),
                    None => out.push((key, vec![value.into()])),
                }
            }
        }
        out.sort();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };

    struct Ca {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    fn ca(name: &str) -> Ca {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Ca { pem, issuer: Issuer::new(params, key) }
    }

    fn leaf(ca: &Ca, name: &str, usage: ExtendedKeyUsagePurpose, year: i32) -> Peer {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "g");
        params.extended_key_usages = vec![usage];
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        Peer::new(vec![params.signed_by(&key, &ca.issuer).expect("a certificate").der().clone()])
    }

    #[test]
    fn only_good_certificates_become_users() {
        let (ours, theirs) = (ca("ca"), ca("ca"));
        let certificates = ClientCertificates::from_pem(ours.pem.as_bytes()).expect("a bundle");
        let client = ExtendedKeyUsagePurpose::ClientAuth;
        for (case, peer, want) in [
            ("good", leaf(&ours, "bob", client.clone(), 2999), "bob/g"),
            ("of another CA", leaf(&theirs, "bob", client.clone(), 2999), "error"),
            ("expired", leaf(&ours, "bob", client.clone(), 2001), "error"),
            ("for servers", leaf(&ours, "bob", ExtendedKeyUsagePurpose::ServerAuth, 2999), "error"),
            ("none", Peer::default(), "nobody"),
        ] {
            for _ in 0..2 {
                let got = match certificates.authenticate(&peer) {
                    Ok(Some(u)) => format!("{}/{}", u.name, u.groups.join(",")),
                    Ok(None) => "nobody".into(),
                    Err(_) => "error".into(),
                };
                assert_eq!(got, want, "{case}");
            }
        }
        let peer = leaf(&ours, "bob", client, 2999);
        assert!(certificates.authenticate(&peer).is_ok());
        certificates.reload(theirs.pem.as_bytes()).expect("a bundle");
        assert!(certificates.authenticate(&peer).is_err(), "the verdict outlived its CA");
    }
}
