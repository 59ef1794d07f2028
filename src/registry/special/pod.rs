//! What several subresources do to pods.

use copepod_meta::{CompactString, Map, Value};

/// Sets a condition; its transition time only changes with its status.
/// upstream: pkg/api/v1/pod/util.go UpdatePodCondition
pub(super) fn set_condition(pod: &mut Value, mut condition: Map, now: &CompactString) {
    let conditions = pod.make(&["status", "conditions"]);
    if conditions.as_list().is_none() {
        *conditions = Value::List(Vec::new());
    }
    let Some(list) = conditions.as_list_mut() else { return };
    let ty = condition.str("type").to_string();
    let mut known = list.iter_mut().find(|c| c.str_at(&["type"]) == ty);
    let transition = match &known {
        Some(old) if old.str_at(&["status"]) == condition.str("status") => {
            old.get("lastTransitionTime").clone()
        }
        _ => Value::String(now.clone()),
    };
    condition.insert("lastTransitionTime", transition);
    match &mut known {
        Some(old) => **old = Value::Map(condition),
        None => list.push(Value::Map(condition)),
    }
}

/// Whether the pod is ready. upstream: podutil.IsPodReady
pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod.list_at(&["status", "conditions"]);
    conditions.iter().any(|c| c.str_at(&["type"]) == "Ready" && c.str_at(&["status"]) == "True")
}
