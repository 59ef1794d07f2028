//! Pod templates in other objects. upstream: validation.go ValidatePodTemplateSpec

use copepod_meta::{ErrorList, Value};

use super::options::Options;
use super::{annotations, spec};
use crate::check::At;
use crate::metadata;

/// Takes away what a closed feature gate hides, unless it is in use, of the pod spec at `path`.
/// upstream: pkg/api/pod/util.go dropDisabledSchedulingGroup (GenericWorkload is alpha)
pub fn drop_disabled(object: &mut Value, old: Option<&Value>, path: &[&str]) {
    let used = old.is_some_and(|old| !old.at(path).get("schedulingGroup").is_null());
    if !used && let Some(spec) = object.at_mut(path) {
        spec.remove(&["schedulingGroup"]);
    }
}

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
