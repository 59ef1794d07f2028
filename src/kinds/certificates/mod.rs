//! certificates.k8s.io: names of signers and trust bundles. upstream: pkg/apis/core/validation/names.go

pub(crate) mod request;

use copepod_meta::{ErrorList, names};

use crate::check::At;

const DOMAIN_BYTES_MAX: usize = 253;
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
    if domain.len() > DOMAIN_BYTES_MAX {
        at.too_long(e, DOMAIN_BYTES_MAX);
    }
    labels(at, domain, names::dns1123_label, e);
    if !domain.contains('.') {
        at.invalid_str(e, domain, "should be a domain with at least two segments separated by dots");
    }
    labels(at, path, names::dns1123_subdomain, e);
    if text.len() > SIGNER_BYTES_MAX {
        at.too_long(e, SIGNER_BYTES_MAX);
    }
}

/// The first bad label of a segment.
fn labels(at: At, segment: &str, check: fn(&str) -> Vec<String>, e: &mut ErrorList) {
    let bad = segment.split('.').map(|label| (label, check(label))).find(|(_, wrong)| !wrong.is_empty());
    if let Some((label, wrong)) = bad {
        for message in wrong {
            let quoted = copepod_meta::field::quote(label);
            at.invalid_str(e, segment, format!("validating label {quoted}: {message}"));
        }
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
