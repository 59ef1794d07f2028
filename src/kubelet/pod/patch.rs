//! Telling the API: status patches with only what changed, and the final deletion.
//!
//! The patch is a strategic merge with the pod's uid as precondition, so that a pod that was deleted and made anew under
//! the same name is not given another one's status. Fields of the status that this agent does not know are not touched.
//!
//! upstream: kubelet/status/status_manager.go syncPod, pkg/util/pod/pod.go PatchPodStatus

use copepod_client::{Client, rest};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value, json};

use super::model::{names, uid};

const PODS: rest::ResourceType = rest::ResourceType::namespaced("", "v1", "pods");

/// Lists that a strategic merge would merge by key but that are whole statements here.
const REPLACED_LISTS: &[&str] = &["podIPs", "hostIPs"];

/// What changed from `before` to `after`; `None` if nothing did.
pub fn status_patch(pod_uid: &str, before: &PodStatus, after: &PodStatus) -> Option<Value> {
    let fields = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (before, after) = (fields(before), fields(after));
    let mut changes = Map::new();
    for (key, value) in &after {
        if before.get(key) == Some(value) {
            continue;
        }
        let change = if REPLACED_LISTS.contains(&key.as_str()) { replaced(value) } else { value.clone() };
        changes.insert(key.clone(), change);
    }
    for key in before.keys().filter(|key| !after.contains_key(*key) && OURS.contains(&key.as_str())) {
        changes.insert(key.clone(), Value::Null);
    }
    if let Some(Value::Array(conditions)) = changes.get_mut("conditions") {
        let old = before.get("conditions").and_then(Value::as_array);
        conditions.retain(|condition| old.is_none_or(|old| !old.contains(condition)));
        clear_lost_texts(conditions, old);
        if conditions.is_empty() {
            changes.remove("conditions");
        }
    }
    (!changes.is_empty()).then(|| json!({"metadata": {"uid": pod_uid}, "status": changes}))
}

/// Fields that this agent owns, and removes when they are gone.
const OURS: &[&str] = &[
    "message",
    "reason",
    "podIP",
    "podIPs",
    "containerStatuses",
    "initContainerStatuses",
    "ephemeralContainerStatuses",
];

/// A merged condition keeps a reason or message that the new one has not: these must be taken away by name.
fn clear_lost_texts(conditions: &mut [Value], old: Option<&Vec<Value>>) {
    for condition in conditions {
        let kind = condition.get("type").cloned();
        let before = old.into_iter().flatten().find(|other| other.get("type") == kind.as_ref());
        if let (Some(Value::Object(before)), Value::Object(now)) = (before, &mut *condition) {
            for key in before.keys() {
                if !now.contains_key(key) {
                    now.insert(key.clone(), Value::Null);
                }
            }
        }
    }
}

fn replaced(value: &Value) -> Value {
    let mut list = vec![json!({"$patch": "replace"})];
    list.extend(value.as_array().into_iter().flatten().cloned());
    Value::Array(list)
}

/// Sends a patch; the pod as the server has it then.
pub async fn send_status(client: &Client, pod: &Pod, patch: &Value) -> Result<Pod, kube::Error> {
    let (namespace, name) = names(pod);
    rest::patch(client, &PODS, namespace, name, "status", rest::PatchType::Strategic, patch).await
}

/// Deletes the pod for good, if it is still the same one.
pub async fn delete(client: &Client, pod: &Pod) -> Result<(), kube::Error> {
    let (namespace, name) = names(pod);
    let options = json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid(pod)}
    });
    match rest::delete(client, &PODS, namespace, name, &options).await {
        Err(error) if !rest::is_not_found(&error) && !rest::is_conflict(&error) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: Value) -> PodStatus {
        serde_json::from_value(json).expect("a status")
    }

    #[test]
    fn only_changes_are_sent() {
        let before = status(json!({
            "phase": "Pending", "reason": "x", "nominatedNodeName": "n",
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m"},
                {"type": "PodScheduled", "status": "True"}
            ]
        }));
        let after = status(json!({
            "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]
        }));
        assert_eq!(
            status_patch("u", &before, &after),
            Some(json!({"metadata": {"uid": "u"}, "status": {
                "phase": "Running", "reason": null, "podIP": "10.0.0.1",
                "podIPs": [{"$patch": "replace"}, {"ip": "10.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": null, "message": null}]
            }}))
        );
        assert_eq!(status_patch("u", &after, &after), None);
    }
}
