//! Certificate authorities kept in files, and the leaves that they sign.

use crate::PkiError;
use crate::files::{self, Mode};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::prelude::{GeneralName, X509Certificate};

/// A leaf with fewer days than this left is made anew at the next start.
pub const RENEW_DAYS: i64 = 30;
const LEAF_DAYS: u64 = 365;
const AUTHORITY_DAYS: u64 = 3650;
/// Clocks of other machines may be behind.
const BACKDATED: Duration = Duration::from_secs(300);

/// What a leaf is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Shows who a client is.
    Client,
    /// Shows who a server is.
    Server,
}

/// A certificate wanted.
#[derive(Clone, Debug)]
pub struct Leaf<'a> {
    /// `<file>.crt` and `<file>.key`
    pub file: &'a str,
    /// Common name: the user, for clients.
    pub common_name: &'a str,
    /// Organization: the group, for clients. One at most: rcgen keeps no more.
    pub organization: Option<&'a str>,
    /// What for.
    pub usage: Usage,
    /// Host names of a server.
    pub names: &'a [String],
    /// Addresses of a server.
    pub addresses: &'a [IpAddr],
}

/// An authority, ready to sign.
pub struct Authority {
    /// Its certificate.
    pub certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn validity(params: &mut CertificateParams, days: u64) {
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + Duration::from_secs(days * 86_400)).into();
}

fn damaged(path: &Path) -> impl FnOnce(rcgen::Error) -> PkiError {
    let path = path.display().to_string();
    move |source| PkiError::Damaged { path, source }
}

impl Authority {
    /// The authority in `<file>.crt` and `<file>.key`, made if neither exists.
    pub fn ensure(dir: &Path, file: &str, common_name: &str) -> Result<Authority, PkiError> {
        let (crt, key_path) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, AUTHORITY_DAYS);
        if let (Some(certificate_pem), Some(key)) = (files::read(&crt)?, files::read(&key_path)?) {
            let key = KeyPair::from_pem(&key).map_err(damaged(&key_path))?;
            let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(damaged(&crt))?;
            return Ok(Authority { certificate_pem, issuer });
        }
        let key = KeyPair::generate()?;
        let certificate_pem = params.self_signed(&key)?.pem();
        files::write(&key_path, key.serialize_pem().as_bytes(), Mode::Private)?;
        files::write(&crt, certificate_pem.as_bytes(), Mode::Public)?;
        Ok(Authority { certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// Makes the leaf if it is not there, not good any more or not what is wanted. True if it made one.
    pub fn ensure_leaf(&self, dir: &Path, leaf: &Leaf<'_>) -> Result<bool, PkiError> {
        let (crt, key_path) =
            (dir.join(format!("{}.crt", leaf.file)), dir.join(format!("{}.key", leaf.file)));
        if let (Some(pem), Some(_)) = (files::read(&crt)?, files::read(&key_path)?)
            && self.still_good(&pem, leaf)
        {
            return Ok(false);
        }
        let key = KeyPair::generate()?;
        let certificate = self.params(leaf)?.signed_by(&key, &self.issuer)?;
        // The key first: a certificate without its key would be found good by the next start.
        files::write(&key_path, key.serialize_pem().as_bytes(), Mode::Private)?;
        files::write(&crt, certificate.pem().as_bytes(), Mode::Public)?;
        Ok(true)
    }

    fn params(&self, leaf: &Leaf<'_>) -> Result<CertificateParams, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, leaf.common_name);
        if let Some(organization) = leaf.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match leaf.usage {
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        for name in leaf.names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        params.subject_alt_names.extend(leaf.addresses.iter().map(|a| SanType::IpAddress(*a)));
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, LEAF_DAYS);
        Ok(params)
    }

    fn still_good(&self, pem: &str, leaf: &Leaf<'_>) -> bool {
        let parsed = |certificate: &X509Certificate<'_>, ca: &X509Certificate<'_>| {
            let signed = certificate.verify_signature(Some(ca.public_key())).is_ok();
            let fresh = remaining_days(certificate) >= RENEW_DAYS;
            let text = |mut names: Vec<String>| names.pop().unwrap_or_default();
            let subject = certificate.subject();
            let own = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().unwrap_or("").to_string();
            let name = text(subject.iter_common_name().map(own).collect());
            let organization = text(subject.iter_organization().map(own).collect());
            signed
                && fresh
                && name == leaf.common_name
                && organization == leaf.organization.unwrap_or("")
                && has_names(certificate, leaf)
        };
        with_certificate(pem, |certificate| {
            with_certificate(&self.certificate_pem, |ca| parsed(certificate, ca))
        })
        .flatten()
        .unwrap_or(false)
    }
}

fn has_names(certificate: &X509Certificate<'_>, leaf: &Leaf<'_>) -> bool {
    let names = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.as_slice(),
        _ => &[],
    };
    let dns = |wanted: &String| names.iter().any(|n| matches!(n, GeneralName::DNSName(d) if d == wanted));
    let address = |wanted: &IpAddr| {
        let bytes = match wanted {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        names.iter().any(|n| matches!(n, GeneralName::IPAddress(b) if **b == *bytes))
    };
    leaf.names.iter().all(dns) && leaf.addresses.iter().all(address)
}

fn with_certificate<T>(pem: &str, f: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = block.parse_x509().ok()?;
    Some(f(&certificate))
}

fn remaining_days(certificate: &X509Certificate<'_>) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    (certificate.validity().not_after.timestamp() - now) / 86_400
}

/// Days until the first certificate of a PEM file ends; negative when it has.
pub fn days_left(path: &Path) -> Result<i64, PkiError> {
    let nothing = || PkiError::NoCertificate { path: path.display().to_string() };
    let pem = files::read(path)?.ok_or_else(nothing)?;
    with_certificate(&pem, remaining_days).ok_or_else(nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_made_once_and_anew_when_they_must_be() {
        let dir = tempfile::tempdir().expect("a folder");
        let ca = Authority::ensure(dir.path(), "ca", "test-ca").expect("an authority");
        let names = ["a.example".to_string()];
        let more = [names[0].clone(), "b.example".to_string()];
        let leaf = Leaf {
            file: "server",
            common_name: "server",
            organization: None,
            usage: Usage::Server,
            names: &names,
            addresses: &["127.0.0.1".parse().expect("an address")],
        };
        let made = |ca: &Authority, leaf: &Leaf<'_>| ca.ensure_leaf(dir.path(), leaf).expect("a leaf");
        assert!(made(&ca, &leaf), "first");
        assert!(!made(&ca, &leaf), "again");
        let again = Authority::ensure(dir.path(), "ca", "test-ca").expect("the same authority");
        assert_eq!(ca.certificate_pem, again.certificate_pem);
        assert!(!made(&again, &leaf), "after a restart");
        assert!(made(&again, &Leaf { names: &more, ..leaf.clone() }), "with one more name");
        let other = Authority::ensure(dir.path(), "other", "test-ca").expect("another authority");
        assert!(made(&other, &leaf), "by another authority");
        let days = days_left(&dir.path().join("server.crt")).expect("days");
        assert!((360..=365).contains(&days), "{days}");
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(dir.path().join("server.key")).expect("the key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
