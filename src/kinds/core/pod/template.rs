//! Pod templates in other objects. upstream: validation.go ValidatePodTemplateSpec

use copepod_meta::ErrorList;

use super::options::Options;
use super::{annotations, spec};
use crate::check::At;
use crate::metadata;

/// A template: labels, annotations, spec.
pub fn validate(at: At, opts: &Options, e: &mut ErrorList) {
    let meta = at.get("metadata");
    // Upstream leaves `metadata` out of these paths.
    metadata::labels(at.get("labels").with(meta.value.get("labels")), e);
    metadata::annotations(at.get("annotations").with(meta.value.get("annotations")), e);
    let spec = at.get("spec");
    annotations::validate(meta.get("annotations"), spec.value, opts, e);
    spec::validate(spec, opts, e);
    annotations::match_fields(at.value, spec, e);
    let ephemeral = spec.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden(e, "ephemeral containers not allowed in pod template");
    }
}
