//! Pod templates in other objects. upstream: validation.go ValidatePodTemplateSpec

use copepod_meta::pod_references::{CONTAINER_LISTS, all_containers};
use copepod_meta::{ErrorList, Value};

use super::options::Options;
use super::{annotations, spec};
use crate::check::At;
use crate::metadata;

/// Takes away what feature gates that are closed by default hide, unless it is in use, of the pod spec at `path`.
/// upstream: pkg/api/pod/util.go dropDisabledFields
pub fn drop_disabled(object: &mut Value, old: Option<&Value>, path: &[&str]) {
    let old = old.map_or(&Value::Null, |old| old.at(path));
    let Some(spec) = object.at_mut(path) else { return };
    // GenericWorkload
    if old.get("schedulingGroup").is_null() {
        spec.remove(&["schedulingGroup"]);
    }
    // ClusterTrustBundleProjection, PodCertificateRequest
    for member in ["clusterTrustBundle", "podCertificate"] {
        if !projections(old).any(|source| !source.get(member).is_null()) {
            let volumes = items_mut(spec, &["volumes"]);
            let sources = volumes.flat_map(|volume| items_mut(volume, &["projected", "sources"]));
            sources.for_each(|source| drop(source.remove(&[member])));
        }
    }
    // ContainerStopSignals
    const SIGNAL: [&str; 2] = ["lifecycle", "stopSignal"];
    if all_containers(old).all(|container| container.at(&SIGNAL).is_null()) {
        for list in CONTAINER_LISTS {
            for container in items_mut(spec, &[list]) {
                let had_one = container.remove(&SIGNAL).is_some_and(|signal| !signal.is_null());
                if had_one && container.map_at(&["lifecycle"]).iter().all(|(_, hook)| hook.is_null()) {
                    container.remove(&["lifecycle"]);
                }
            }
        }
    }
}

fn projections(spec: &Value) -> impl Iterator<Item = &Value> {
    spec.list_at(&["volumes"]).iter().flat_map(|volume| volume.list_at(&["projected", "sources"]))
}

fn items_mut<'a>(value: &'a mut Value, path: &[&str]) -> impl Iterator<Item = &'a mut Value> {
    value.at_mut(path).and_then(Value::as_list_mut).into_iter().flatten()
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
