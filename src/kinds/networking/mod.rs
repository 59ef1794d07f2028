//! networking: who may talk to whom, and by which addresses.

pub(crate) mod ingress;
pub(crate) mod ingress_class;
pub(crate) mod ip_address;
pub(crate) mod network_policy;
pub(crate) mod service_cidr;

use copepod_meta::{ErrorList, names};

use crate::check::At;

/// A name that becomes a segment of a URL, and must be there.
fn need_segment(at: At, e: &mut ErrorList) {
    if at.need(e) {
        at.invalid_each(e, names::path_segment(at.str()));
    }
}

/// A reference by group, kind and name. upstream: validateIngressTypedLocalObjectReference
fn typed_reference(at: At, e: &mut ErrorList) {
    if at.get("apiGroup").is_set() {
        at.get("apiGroup").dns_subdomain(e);
    }
    need_segment(at.get("kind"), e);
    need_segment(at.get("name"), e);
}
