//! What an update of a pod may change. upstream: validation.go ValidatePodUpdate, ValidatePodEphemeralContainersUpdate

use copepod_meta::{ErrorList, FieldError, Path, Value, names};

use super::options::Options;
use super::{annotations, scheduling};
use crate::check::At;
use crate::diff;
use crate::equality::{same, same_as};
use crate::print;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// The type by whose facts specs are compared.
pub const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";

/// Metadata and spec, as they must be in any pod. upstream: validatePodMetadataAndSpec (less what the engine checked)
pub fn metadata_and_spec(pod: &Value, opts: &Options, e: &mut ErrorList) {
    let root = At::root(pod);
    let spec = root.get("spec");
    annotations::validate(root.get("metadata.annotations"), spec.value, opts, e);
    super::spec::validate(spec, opts, e);
    if spec.get("serviceAccountName").is_empty() {
        for volume in spec.get("volumes").items() {
            for source in volume.get("projected.sources").items() {
                let token = source.get("serviceAccountToken");
                if token.is_set() {
                    token.forbidden(e, "must not be specified when serviceAccountName is not set");
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get(list).items() {
            super::containers::only_for_pod(container, e);
        }
    }
}

/// upstream: ValidatePodUpdate
pub fn validate(pod: &Value, old: &Value, opts: &Options, e: &mut ErrorList) {
    before_spec(pod, old, opts, e);
    let root = At::root(pod);
    let spec = root.get("spec");
    let was = old.get("spec");
    for list in ["containers", "initContainers"] {
        if !containers(spec.get(list), was.list_at(&[list]).len(), e) {
            return;
        }
    }
    if !deadline(spec.get("activeDeadlineSeconds"), was.get("activeDeadlineSeconds").as_int(), e) {
        return;
    }
    added_tolerations(spec.get("tolerations"), was.list_at(&["tolerations"]), opts, e);
    deleted_gates(spec.get("schedulingGates"), was.list_at(&["schedulingGates"]), e);
    if same_as(spec.value, was, POD_SPEC) {
        return;
    }
    let mut munged = spec.value.clone();
    munge(&mut munged, was);
    if !was.list_at(&["schedulingGates"]).is_empty() {
        gated(spec, &mut munged, was, e);
    }
    if !same_as(&munged, was, POD_SPEC) {
        let text =
            diff::unified(&print::pretty(was, "core/PodSpec"), &print::pretty(&munged, "core/PodSpec"));
        spec.forbidden(e, format!("pod updates may not change fields other than {UPDATABLE}\n{text}"));
    }
}

/// Metadata, the whole spec, annotations: what every update checks first.
fn before_spec(pod: &Value, old: &Value, opts: &Options, e: &mut ErrorList) {
    crate::metadata::validate_update_core(pod, old, e);
    crate::metadata::validate_core(pod, true, &names::dns1123_subdomain_prefixed, e);
    metadata_and_spec(pod, opts, e);
    let root = At::root(pod);
    let was = old.at(&["metadata", "annotations"]);
    annotations::validate_update(root.get("metadata.annotations"), was, pod.get("spec"), opts, e);
}

/// Only images may change; the number of containers may not. upstream: ValidateContainerUpdates
fn containers(list: At, old_len: usize, e: &mut ErrorList) -> bool {
    if list.len() != old_len {
        list.forbidden(e, "pod updates may not add or remove containers");
        return false;
    }
    for container in list.items() {
        let image = container.get("image");
        image.need(e);
        super::containers::only_for_pod(container, e);
    }
    true
}

/// From nothing to a value, or down. False: upstream looks no further.
fn deadline(at: At, old: Option<i64>, e: &mut ErrorList) -> bool {
    match (at.opt_int(), old) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            at.in_range(e, 0, i64::from(i32::MAX));
            false
        }
        (Some(new), Some(old)) if old < new => {
            at.invalid_int(e, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            at.invalid_printed(e, "null".into(), "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

/// upstream: validateOnlyAddedTolerations
fn added_tolerations(list: At, old: &[Value], opts: &Options, e: &mut ErrorList) {
    let matches = |was: &Value, now: &Value| {
        let (mut was, mut now) = (was.clone(), now.clone());
        for toleration in [&mut was, &mut now] {
            toleration.remove(&["tolerationSeconds"]);
        }
        same(&was, &now)
    };
    let kept = |was: &Value| list.value.list_at(&[]).iter().any(|now| matches(was, now));
    if !old.iter().all(kept) {
        return list.forbidden(e, "existing toleration can not be modified except its tolerationSeconds");
    }
    scheduling::tolerations(list, opts.toleration_comparison, e);
}

/// upstream: validateOnlyDeletedSchedulingGates
fn deleted_gates(list: At, old: &[Value], e: &mut ErrorList) {
    for gate in list.items() {
        let name = gate.get("name");
        if !old.iter().any(|g| g.str_at(&["name"]) == name.str()) {
            let message = format!("only deletion is allowed, but found new scheduling gate '{}'", name.str());
            name.forbidden(e, message);
        }
    }
}

/// Sets what may change back to what it was, so that the rest can be compared.
fn munge(spec: &mut Value, was: &Value) {
    for list in ["containers", "initContainers"] {
        let images: Vec<Value> = was.list_at(&[list]).iter().map(|c| c.get("image").clone()).collect();
        if let Some(containers) = spec.at_mut(&[list]).and_then(Value::as_list_mut) {
            for (container, image) in containers.iter_mut().zip(images) {
                container.set(&["image"], image);
            }
        }
    }
    for member in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        put(spec, member, was.get(member));
    }
    let grace = was.int_at(&["terminationGracePeriodSeconds"]);
    if grace < 0 && spec.int_at(&["terminationGracePeriodSeconds"]) == 1 {
        put(spec, "terminationGracePeriodSeconds", was.get("terminationGracePeriodSeconds"));
    }
}

fn put(spec: &mut Value, member: &str, value: &Value) {
    match value {
        Value::Null => {
            spec.remove(&[member]);
        }
        value => spec.set(&[member], value.clone()),
    }
}

/// A pod that waits at its gates may be narrowed down to fewer nodes.
fn gated(spec: At, munged: &mut Value, was: &Value, e: &mut ErrorList) {
    if !same(munged.get("nodeSelector"), was.get("nodeSelector")) {
        let at = spec.get("nodeSelector");
        let kept = |(k, v): (&str, &Value)| at.map().get(k) == Some(v);
        if !was.map_at(&["nodeSelector"]).iter().all(kept) {
            let printed = match at.is_set() {
                true => copepod_meta::debug_json::to_string(at.value),
                false => "null".into(),
            };
            let message = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            at.invalid_printed(e, printed, message);
        }
        put(munged, "nodeSelector", was.get("nodeSelector"));
    }
    let path = ["affinity", "nodeAffinity"];
    if same(munged.at(&path), was.at(&path)) {
        return;
    }
    node_affinity(spec.get("affinity.nodeAffinity"), was.at(&path), e);
    let others = ["podAffinity", "podAntiAffinity"].iter().all(|m| munged.at(&["affinity", m]).is_null());
    if was.get("affinity").is_null() && others {
        munged.remove(&["affinity"]);
    } else if was.at(&path).is_null() {
        munged.remove(&path);
    } else {
        munged.set(&path, was.at(&path).clone());
    }
}

/// upstream: validateNodeAffinityMutation
fn node_affinity(at: At, was: &Value, e: &mut ErrorList) {
    let old = was.list_at(&["requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"]);
    let terms = at.get("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    if old.is_empty() {
        return;
    }
    if old.len() != terms.len() {
        let printed = match terms.is_set() {
            true => print::internal_list(terms.value, "core/NodeSelectorTerm"),
            false => "null".into(),
        };
        let message = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return terms.invalid_printed(e, printed, message);
    }
    for (term, was) in terms.items().zip(old) {
        let empty = ["matchExpressions", "matchFields"].iter().all(|m| was.list_at(&[m]).is_empty());
        let only_additions = ["matchExpressions", "matchFields"].iter().all(|member| {
            let (new, old) = (term.value.list_at(&[member]), was.list_at(&[member]));
            match empty {
                true => new.is_empty(),
                false => new.len() >= old.len() && old.iter().zip(new).all(|(a, b)| same(a, b)),
            }
        });
        if !only_additions {
            let printed = print::internal(term.value, "core/NodeSelectorTerm");
            term.invalid_printed(e, printed, "only additions are allowed (no mutations or deletions)");
        }
    }
}

/// upstream: ValidatePodEphemeralContainersUpdate
pub fn validate_ephemeral(pod: &Value, old: &Value, opts: &Options, e: &mut ErrorList) {
    if old.at(&["metadata", "annotations"]).map_at(&[]).contains_key(annotations::MIRROR) {
        return e.push(FieldError::forbidden(
            &Path::nameless(),
            "static pods do not support ephemeral containers",
        ));
    }
    before_spec(pod, old, opts, e);
    let root = At::root(pod);
    let list = root.get("spec.ephemeralContainers");
    for was in old.list_at(&["spec", "ephemeralContainers"]) {
        let name = was.str_at(&["name"]);
        let quoted = copepod_meta::field::quote(name);
        match list.value.list_at(&[]).iter().rfind(|c| c.str_at(&["name"]) == name) {
            None => list.forbidden(e, format!("existing ephemeral containers {quoted} may not be removed\n")),
            Some(now) if !same_as(was, now, "io.k8s.api.core.v1.EphemeralContainer") => {
                let ty = "core/EphemeralContainer";
                let text = diff::unified(&print::pretty(was, ty), &print::pretty(now, ty));
                list.forbidden(
                    e,
                    format!("existing ephemeral containers {quoted} may not be changed\n{text}"),
                );
            }
            Some(_) => {}
        }
    }
}
