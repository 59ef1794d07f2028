//! certificates.k8s.io: names of signers and trust bundles. upstream: pkg/apis/core/validation/names.go

use copepod_meta::{ErrorList, names};

use crate::check::At;

const SIGNER_BYTES_MAX: usize = 253 + 1 + 63 + 1 + 253;

/// A signer's name, `example.com/path`. upstream: ValidateSignerName
pub fn signer_name(at: At, e: &mut ErrorList) {
    let text = at.str();
    if text.is_empty() {
        return at.required(e, "");
    }
    let mut segments = text.split('/');
    let (Some(domain), Some(path), None) = (segments.next(), segments.next(), segments.next()) else {
        return at
            .invalid(e, "must be a fully qualified domain and path of the form 'example.com/signer-name'");
    };
    if text.len() > SIGNER_BYTES_MAX {
        at.too_long(e, SIGNER_BYTES_MAX);
    }
    for message in names::dns1123_subdomain(domain) {
        let quoted = copepod_meta::field::quote(domain);
        at.invalid(e, format!("validating signerName: {quoted} {message}"));
    }
    if !domain.contains('.') {
        at.invalid(e, "should be a domain with at least two segments separated by dots");
    }
    for message in names::dns1123_subdomain(path) {
        let quoted = copepod_meta::field::quote(path);
        at.invalid(e, format!("validating signerName: {quoted} {message}"));
    }
}

/// What is wrong with a trust bundle's name; bundles of a signer begin with the signer's name, its slash a colon.
/// upstream: ValidateClusterTrustBundleName
pub fn trust_bundle_name(name: &str) -> Vec<String> {
    match name.rsplit_once(':') {
        Some((_, rest)) => names::dns1123_subdomain(rest),
        None => names::dns1123_subdomain(name),
    }
}
