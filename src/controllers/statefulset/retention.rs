//! Who owns the claims of a set's pods: the set, so that they go with it; a pod that goes for good, so that they go with
//! that; or nobody, so that they stay. Pure.
//!
//! upstream: pkg/controller/statefulset/stateful_set_utils.go isClaimOwnerUpToDate, updateClaimOwnerRefForSetAndPod

use copepod_client::object::{MetaExt as _, controller_reference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::identity;
use crate::kinds::{Claim, Pod, StatefulSet};

/// The owners that a claim of a pod should have, if it has other ones.
pub(super) fn owners(set: &StatefulSet, pod: &Pod, claim: &Claim) -> Option<Vec<OwnerReference>> {
    let known = claim.metadata.owner_references.clone().unwrap_or_default();
    let names = |owner: &OwnerReference, kind: &str, name: &str| owner.kind == kind && owner.name == name;
    let of_set = |owner: &OwnerReference| names(owner, "StatefulSet", set.metadata.name());
    let of_pod = |owner: &OwnerReference| names(owner, "Pod", pod.metadata.name());
    // An earlier set or pod of that name owned it: its end takes the claim along, if anybody's does.
    let stale = |owner: &OwnerReference| {
        (of_set(owner) && owner.uid != set.metadata.uid())
            || (of_pod(owner) && owner.uid != pod.metadata.uid())
    };
    if known.iter().any(stale) {
        return None;
    }
    let policy = set.spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
    let (with_set, with_scale) = (policy.when_deleted == "Delete", policy.when_scaled == "Delete");
    let strange = |owner: &OwnerReference| !of_set(owner) && !of_pod(owner) && owner.controller == Some(true);
    let mut wanted: Vec<OwnerReference> =
        known.iter().filter(|owner| !of_set(owner) && !of_pod(owner)).cloned().collect();
    let managed = (with_set || with_scale) && !known.iter().any(strange);
    let leaves = identity::ordinal_of(set, pod).is_none_or(|ordinal| !identity::is_wanted(set, ordinal));
    if managed && with_scale && leaves {
        wanted.push(controller_reference(pod));
    } else if managed && with_set {
        wanted.push(controller_reference(set));
    }
    (wanted != known).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn claims_belong_to_whom_the_policy_says() {
        let owner = |text: &str| -> Value {
            let (kind, name, uid, api) = match text {
                "set" => ("StatefulSet", "db", "SET", "apps/v1"),
                "pod" => ("Pod", "db-1", "POD", "v1"),
                "old-set" => ("StatefulSet", "db", "OLD", "apps/v1"),
                other => ("Other", other, "OTHER", "v1"),
            };
            json!({"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": true})
        };
        for (name, deleted, scaled, replicas, before, want) in [
            ("kept", "Retain", "Retain", 2, "", "same"),
            ("kept, whatever was asked before", "Retain", "Retain", 2, "set", ""),
            ("goes with the set", "Delete", "Retain", 2, "", "set"),
            ("does so already", "Delete", "Retain", 2, "set", "same"),
            ("not with a pod", "Delete", "Retain", 1, "set", "same"),
            ("with a pod that goes for good", "Retain", "Delete", 1, "", "pod"),
            ("a pod that stays", "Retain", "Delete", 2, "", "same"),
            ("a pod that stays after all", "Retain", "Delete", 2, "pod", ""),
            ("both: the pod goes", "Delete", "Delete", 1, "set", "pod"),
            ("both: the pod stays", "Delete", "Delete", 2, "pod", "set"),
            ("another controller's", "Delete", "Delete", 2, "x", "same"),
            ("an earlier set's", "Delete", "Retain", 2, "old-set", "same"),
        ] {
            let set: StatefulSet = serde_json::from_value(json!({"metadata": {"name": "db", "uid": "SET"},
                "spec": {"replicas": replicas, "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled}}}))
            .expect("a set");
            let pod: Pod =
                serde_json::from_value(json!({"metadata": {"name": "db-1", "uid": "POD"}})).expect("a pod");
            let before: Vec<Value> = before.split_whitespace().map(owner).collect();
            let claim: Claim =
                serde_json::from_value(json!({"metadata": {"name": "data-db-1", "ownerReferences": before}}))
                    .expect("a claim");
            let made = owners(&set, &pod, &claim).map(|owners| json!(owners));
            let want =
                (want != "same").then(|| json!(want.split_whitespace().map(owner).collect::<Vec<_>>()));
            assert_eq!(made, want, "{name}");
        }
    }
}
