//! Pods as controllers see them: active, ready, available; and which to delete first.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;

use copepod_client::object::MetaExt;
use jiff::{SignedDuration, Timestamp};

use super::conditions;
use crate::kinds::Pod;

/// Whether a pod has not ended and is not being deleted. upstream: pkg/controller/controller_utils.go IsPodActive
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !pod.metadata.deleting()
}

/// Whether a pod has ended.
pub fn is_finished(pod: &Pod) -> bool {
    pod.status.phase == "Succeeded" || pod.status.phase == "Failed"
}

/// Whether a pod is being deleted and has not ended.
pub fn is_terminating(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deleting()
}

/// Whether a pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    conditions::is_true(&pod.status.conditions, "Ready")
}

/// When a pod that is ready becomes available; `None` if it is not ready.
pub fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    let ready = conditions::find(&pod.status.conditions, "Ready").filter(|ready| ready.status == "True")?;
    let since = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
    if min_ready_seconds == 0 {
        return Some(Timestamp::MIN);
    }
    since.checked_add(SignedDuration::from_secs(i64::from(min_ready_seconds))).ok()
}

/// Whether a pod has been ready for so long. upstream: pkg/api/v1/pod/util.go IsPodAvailable
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready_seconds).is_some_and(|at| at <= now)
}

/// The pods to delete, of those given, the least useful first. `related` counts active pods of related owners by node.
///
/// upstream: pkg/controller/controller_utils.go ActivePodsWithRanks.Less
pub fn choose_to_delete<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    related: &HashMap<String, usize>,
    count: usize,
    now: Timestamp,
) -> Vec<&'a Pod> {
    let mut pods: Vec<&Pod> = pods.into_iter().collect();
    if count < pods.len() {
        pods.sort_by(|a, b| order_of_deletion(a, b, related, now));
    }
    pods.truncate(count);
    pods
}

fn order_of_deletion(a: &Pod, b: &Pod, related: &HashMap<String, usize>, now: Timestamp) -> Ordering {
    let assigned = |pod: &Pod| !pod.spec.node_name.is_empty();
    let phase = |pod: &Pod| match pod.status.phase.as_str() {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = |pod: &Pod| -> i32 {
        pod.metadata
            .annotation("controller.kubernetes.io/pod-deletion-cost")
            .and_then(|cost| cost.parse().ok())
            .unwrap_or(0)
    };
    let rank = |pod: &Pod| Reverse(related.get(&pod.spec.node_name).copied().unwrap_or(0));
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| rank(a).cmp(&rank(b)))
        .then_with(|| both_ready(a, b, now))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| {
            age_bucket(a.metadata.creation_timestamp.as_ref().map(|t| t.0), now)
                .cmp(&age_bucket(b.metadata.creation_timestamp.as_ref().map(|t| t.0), now))
        })
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

fn both_ready(a: &Pod, b: &Pod, now: Timestamp) -> Ordering {
    let since = |pod: &Pod| {
        let ready = conditions::find(&pod.status.conditions, "Ready")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    };
    if is_ready(a) && is_ready(b) {
        age_bucket(since(a), now).cmp(&age_bucket(since(b), now))
    } else {
        Ordering::Equal
    }
}

/// Ages on a logarithmic scale, so that pods of about the same age are equal; the younger goes first.
fn age_bucket(since: Option<Timestamp>, now: Timestamp) -> i64 {
    match since {
        None => -1,
        Some(since) => {
            let age = now.duration_since(since).as_nanos().max(1);
            (age as f64).log2().floor() as i64
        }
    }
}

fn restarts(pod: &Pod) -> i32 {
    pod.status.container_statuses.iter().map(|status| status.restart_count).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, extra: Value) -> Pod {
        let mut value = json!({"metadata": {"name": name, "uid": name}, "status": {"phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}]}, "spec": {"nodeName": "n"}});
        for (path, new) in extra.as_object().expect("paths") {
            *value.pointer_mut(path).expect("a known path") = new.clone();
        }
        serde_json::from_value(value).expect("a pod")
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let good = pod("z", json!({}));
        for (name, worse) in [
            ("not assigned", pod("a", json!({"/spec/nodeName": ""}))),
            ("pending", pod("a", json!({"/status/phase": "Pending"}))),
            ("not ready", pod("a", json!({"/status/conditions": []}))),
            (
                "cheaper",
                pod(
                    "a",
                    json!({"/metadata": {"uid": "a",
                "annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"}}}),
                ),
            ),
            (
                "restarted more",
                pod(
                    "a",
                    json!({"/status": {"phase": "Running", "conditions":
                [{"type": "Ready", "status": "True"}], "containerStatuses": [{"restartCount": 3}]}}),
                ),
            ),
        ] {
            let chosen = choose_to_delete([&good, &worse], &HashMap::new(), 1, Timestamp::UNIX_EPOCH);
            assert_eq!(chosen[0].metadata.uid.as_deref(), Some("a"), "{name}");
        }
    }

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let mut ready = pod("a", json!({}));
        ready.status.conditions[0].last_transition_time =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
        let at = |second| Timestamp::from_second(second).expect("a time");
        assert!(is_available(&ready, 0, at(0)));
        assert!(!is_available(&ready, 10, at(9)));
        assert!(is_available(&ready, 10, at(10)));
    }
}
