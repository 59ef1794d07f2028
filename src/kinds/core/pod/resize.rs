//! In-place resize: what the subresource keeps and allows. upstream: validation.go ValidatePodResize,
//! pkg/registry/core/pod/strategy.go dropNonResizeUpdates

use copepod_meta::{ErrorList, FieldError, Path, Value, names};

use super::options::Options;
use super::{annotations, qos, update};
use crate::check::At;
use crate::equality::{same, same_as};
use crate::metadata;

const LISTS: [&str; 2] = ["containers", "initContainers"];
const ONLY: &str = "only cpu and memory resources are mutable";

/// Drops every change but those of resources and resize policies. Containers that were added, removed or renamed are left
/// for validation to refuse.
pub fn prepare(pod: &mut Value, old: &Value) {
    let lengths_differ =
        LISTS.iter().any(|l| pod.list_at(&["spec", l]).len() != old.list_at(&["spec", l]).len());
    if lengths_differ {
        return;
    }
    let merged = LISTS.map(|list| merge(pod.list_at(&["spec", list]), old.list_at(&["spec", list])));
    let resources = pod.at(&["spec", "resources"]).clone();
    let mut spec = old.get("spec").clone();
    for (list, containers) in LISTS.iter().zip(merged) {
        if !containers.is_empty() {
            spec.set(&[list], containers);
        }
    }
    match resources {
        Value::Null => {
            spec.remove(&["resources"]);
        }
        resources => spec.set(&["resources"], resources),
    }
    pod.set(&["spec"], spec);
    crate::generic::keep(pod, old, "status");
    metadata::reset_for_status(pod, old);
}

fn merge(new: &[Value], old: &[Value]) -> Vec<Value> {
    if new.iter().zip(old).any(|(a, b)| a.str_at(&["name"]) != b.str_at(&["name"])) {
        return new.to_vec();
    }
    new.iter()
        .zip(old)
        .map(|(new, old)| {
            let mut out = old.clone();
            for member in ["resources", "resizePolicy"] {
                match new.get(member) {
                    Value::Null => {
                        out.remove(&[member]);
                    }
                    value => out.set(&[member], value.clone()),
                }
            }
            out
        })
        .collect()
}

/// upstream: ValidatePodResize
pub fn validate(pod: &Value, old: &Value, opts: &Options, e: &mut ErrorList) {
    if old.map_at(&["metadata", "annotations"]).contains_key(annotations::MIRROR) {
        return e.push(FieldError::forbidden(&Path::nameless(), "static pods cannot be resized"));
    }
    if old.str_at(&["spec", "os", "name"]) == "windows" {
        return e.push(FieldError::forbidden(&Path::nameless(), "windows pods cannot be resized"));
    }
    let before = e.len();
    metadata::validate_update_core(pod, old, e);
    metadata::validate_core(pod, true, &names::dns1123_subdomain_prefixed, e);
    update::metadata_and_spec(pod, opts, e);
    let root = At::root(pod);
    let spec = root.get("spec");
    if qos::stored(old) != qos::compute(pod.get("spec")) {
        spec.invalid_str(
            e,
            pod.str_at(&["status", "qosClass"]),
            "Pod QOS Class may not change as a result of resizing",
        );
    }
    if !node_resizes(old) {
        spec.forbidden(e, "Pod running on node without support for resize");
    }
    let mut masked = spec.value.clone();
    pod_level(spec, old.get("spec"), &mut masked, e);
    if !old.list_at(&["status", "nodeAllocatableResourceClaimStatuses"]).is_empty() {
        spec.forbidden(e, "pods with node allocatable resource claims cannot be resized");
    }
    if !same_order(spec, old.get("spec"), e) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (container, was) in spec.get(list).items().zip(old.list_at(&["spec", list])) {
            if list == "initContainers" && !is_sidecar(was) {
                continue;
            }
            removed(container.get("resources"), was.get("resources"), "resource", e);
        }
    }
    containers(spec, old.get("spec"), &mut masked, e);
    if e.len() == before && !same_as(&masked, old.get("spec"), update::POD_SPEC) {
        spec.forbidden(e, ONLY);
    }
}

fn is_sidecar(container: &Value) -> bool {
    container.str_at(&["restartPolicy"]) == "Always"
}

/// A running container without reported resources runs on a node that cannot resize. upstream: isPodResizeRequestSupported
fn node_resizes(pod: &Value) -> bool {
    let mut statuses = pod.list_at(&["status", "containerStatuses"]).iter();
    statuses.find(|c| !c.at(&["state", "running"]).is_null()).is_none_or(|c| !c.get("resources").is_null())
}

/// upstream: validatePodLevelResourcesResize
fn pod_level(spec: At, was: &Value, masked: &mut Value, e: &mut ErrorList) {
    let is_set = |s: &Value| ["requests", "limits"].iter().any(|m| !s.map_at(&["resources", m]).is_empty());
    if !is_set(spec.value) && !is_set(was) {
        return;
    }
    let at = spec.get("resources");
    let had = !was.get("resources").is_null();
    if had && !at.is_set() {
        return at.forbidden(e, "pod-level resources cannot be removed");
    }
    if had {
        removed(at, was.get("resources"), "pod-level resource", e);
    }
    mask(masked, was);
    if !same(masked.get("resources"), was.get("resources")) {
        spec.forbidden(e, "only cpu and memory resources are mutable at pod-level");
    }
}

/// Requests and limits may change, not go. upstream: resourcesRemoved
fn removed(at: At, was: &Value, what: &str, e: &mut ErrorList) {
    for member in ["requests", "limits"] {
        let list = at.get(member);
        if was.map_at(&[member]).keys().any(|name| !list.map().contains_key(name)) {
            list.forbidden(e, format!("{what} {member} cannot be removed"));
        }
    }
}

/// Sets cpu and memory below `resources` back to what they were. upstream: dropCPUMemoryUpdates
fn mask(holder: &mut Value, was: &Value) {
    for member in ["requests", "limits"] {
        for name in ["cpu", "memory"] {
            match was.at(&["resources", member, name]) {
                Value::Null => {
                    holder.remove(&["resources", member, name]);
                }
                value => holder.set(&["resources", member, name], value.clone()),
            }
        }
    }
}

/// upstream: validatePodResizeContainerOrdering
fn same_order(spec: At, was: &Value, e: &mut ErrorList) -> bool {
    let before = e.len();
    for list in LISTS {
        let (at, old) = (spec.get(list), was.list_at(&[list]));
        if at.len() != old.len() {
            at.forbidden(e, format!("{list} may not be added or removed on resize"));
            continue;
        }
        for (container, was) in at.items().zip(old) {
            if container.get("name").str() != was.str_at(&["name"]) {
                container
                    .get("name")
                    .forbidden(e, format!("{list} may not be renamed or reordered on resize"));
            }
        }
    }
    e.len() == before
}

fn containers(spec: At, was: &Value, masked: &mut Value, e: &mut ErrorList) {
    for list in LISTS {
        let Some(items) = masked.at_mut(&[list]).and_then(Value::as_list_mut) else { continue };
        for (i, (container, was)) in items.iter_mut().zip(was.list_at(&[list])).enumerate() {
            let init = list == "initContainers";
            if init && !is_sidecar(container) {
                if !same(container, was) {
                    spec.forbidden(e, "resources for non-sidecar init containers are immutable");
                }
                continue;
            }
            container.remove(&["resources", "claims"]);
            mask(container, was);
            if !same(container, was) {
                match init {
                    false => spec.forbidden(e, ONLY),
                    true => spec.get(list).index(i).forbidden(
                        e,
                        "only cpu and memory resources for init or sidecar containers are mutable",
                    ),
                }
            }
        }
    }
}
