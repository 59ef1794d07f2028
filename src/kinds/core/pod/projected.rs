//! Projected volumes. upstream: validation.go validateProjectedVolumeSource, validateProjectionSources

use copepod_meta::{ErrorList, names};
use std::collections::BTreeSet;

use super::options::Options;
use super::volumes::{downward_api_file, file_mode, key_to_path, local_non_reserved_path};
use crate::check::At;
use crate::metadata;
use crate::print;

const CONFLICT: &str = "conflicting duplicate paths";
/// upstream: pkg/apis/certificates MaxMaxExpirationSeconds, KubernetesMaxMaxExpirationSeconds
const CERTIFICATE_SECONDS_MAX: i64 = 91 * 86400;
const KUBERNETES_CERTIFICATE_SECONDS_MAX: i64 = 24 * 60 * 60;

/// upstream: validateProjectedVolumeSource
pub fn validate(at: At, opts: &Options, e: &mut ErrorList) {
    file_mode(at.get("defaultMode"), e);
    let mut paths: BTreeSet<&str> = BTreeSet::new();
    for source in at.get("sources").items() {
        let mut found = 0;
        for member in [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ] {
            let projection = source.get(member);
            if !projection.is_set() {
                continue;
            }
            found += 1;
            match member {
                "secret" | "configMap" => keys(projection, at, &mut paths, e),
                "downwardAPI" => downward_api(projection, at, &mut paths, e),
                "serviceAccountToken" => token(projection, at, opts, e),
                "clusterTrustBundle" => trust_bundle(projection, at, &mut paths, e),
                _ => certificate(projection, at, &mut paths, e),
            }
        }
        if found > 1 {
            source.forbidden(e, "may not specify more than 1 volume type per source");
        }
    }
}

fn keys<'v>(at: At<'v, '_>, volume: At, paths: &mut BTreeSet<&'v str>, e: &mut ErrorList) {
    let name = at.get("name");
    name.need(e);
    for item in at.get("items").items() {
        key_to_path(item, e);
        let path = item.get("path").str();
        if !path.is_empty() && !paths.insert(path) {
            volume.invalid_str(e, name.str(), CONFLICT);
        }
    }
}

fn downward_api<'v>(at: At<'v, '_>, volume: At, paths: &mut BTreeSet<&'v str>, e: &mut ErrorList) {
    for file in at.value.list_at(&["items"]) {
        downward_api_file(at.with(file), e);
        let path = file.str_at(&["path"]);
        if !path.is_empty() && !paths.insert(path) {
            volume.invalid_str(e, path, CONFLICT);
        }
    }
}

fn token(at: At, volume: At, opts: &Options, e: &mut ErrorList) {
    let expiration = at.get("expirationSeconds");
    if expiration.int() < 600 {
        expiration.invalid_int(e, "may not specify a duration less than 10 minutes");
    }
    if expiration.int() > 1 << 32 {
        expiration.invalid_int(e, "may not specify a duration larger than 2^32 seconds");
    }
    // Reported at the volume, not at the source, as upstream does.
    let path = volume.get("path");
    let path = path.with(at.value.get("path"));
    if path.need(e) && !opts.non_local_token_path {
        local_non_reserved_path(path, e);
    }
}

fn trust_bundle<'v>(at: At<'v, '_>, volume: At, paths: &mut BTreeSet<&'v str>, e: &mut ErrorList) {
    let (name, signer, selector) = (at.get("name"), at.get("signerName"), at.get("labelSelector"));
    match (name.is_set(), signer.is_set()) {
        (true, true) => {
            let printed = print::internal(at.value, "core/ClusterTrustBundleProjection");
            at.invalid_printed(e, printed, "only one of name and signerName may be used");
        }
        (true, false) => {
            if name.is_empty() {
                name.required(e, "must be a valid object name");
            }
            for message in crate::certificates::trust_bundle_name(name.str()) {
                name.invalid(e, format!("not a valid clustertrustbundlename: {message}"));
            }
            if selector.is_set() {
                let printed = print::json(selector.value, print::LABEL_SELECTOR);
                selector.invalid_printed(e, printed, "labelSelector must be unset if name is specified");
            }
        }
        (false, true) => {
            if signer.is_empty() {
                signer.required(e, "must be a valid signer name");
            }
            crate::certificates::signer_name(signer, e);
            metadata::label_selector(selector, false, e);
        }
        (false, false) => at.required(e, "either name or signerName must be specified"),
    }
    let path = at.get("path");
    path.need(e);
    local_non_reserved_path(path, e);
    if !paths.insert(path.str()) {
        volume.invalid_str(e, path.str(), CONFLICT);
    }
}

fn certificate<'v>(at: At<'v, '_>, volume: At, paths: &mut BTreeSet<&'v str>, e: &mut ErrorList) {
    let signer = at.get("signerName");
    crate::certificates::signer_name(signer, e);
    let annotations = at.get("userAnnotations");
    for key in annotations.map().keys() {
        domain_prefixed_key(annotations, &key.to_lowercase(), e);
    }
    at.get("keyType").one_of(e, &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"]);
    let expiration = at.get("maxExpirationSeconds");
    if expiration.is_set() {
        if expiration.int() < 3600 {
            expiration.invalid_int(e, "if provided, maxExpirationSeconds must be >= 3600");
        }
        let kubernetes = signer.str().split('/').next() == Some("kubernetes.io");
        let max = if kubernetes { KUBERNETES_CERTIFICATE_SECONDS_MAX } else { CERTIFICATE_SECONDS_MAX };
        if expiration.int() > max {
            expiration.invalid_int(e, format!("if provided, maxExpirationSeconds must be <= {max}"));
        }
    }
    let mut found = false;
    for member in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let path = at.get(member);
        if path.is_empty() {
            continue;
        }
        found = true;
        local_non_reserved_path(path, e);
        if !paths.insert(path.str()) {
            volume.invalid_str(e, path.str(), CONFLICT);
        }
    }
    if !found {
        at.required(e, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath");
    }
}

/// `example.com/key`. upstream: apimachinery validation IsDomainPrefixedKey
fn domain_prefixed_key(at: At, key: &str, e: &mut ErrorList) {
    let Some((domain, name)) = key.split_once('/').filter(|(d, n)| !d.is_empty() && !n.is_empty()) else {
        at.invalid_str(e, key, "must be a domain-prefixed key (such as \"acme.io/foo\")");
        return;
    };
    for message in names::dns1123_subdomain(domain) {
        at.invalid_str(e, domain, message);
    }
    for message in names::qualified_name(name) {
        at.invalid_str(e, name, message);
    }
}
