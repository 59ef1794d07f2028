//! The numbers of a budget. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use copepod_client::object::MetaExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::DELETION_TIMEOUT;
use crate::common::{conditions, pods};
use crate::deployment::scaled_value;
use crate::kinds::{Budget, Condition, Pod};

/// How many pods there should be, and how many have to be healthy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub pods: i32,
    pub healthy: i32,
}

/// Whether the numbers depend on what the pods' controllers want.
pub(super) fn needs_scales(budget: &Budget) -> bool {
    budget.spec.max_unavailable.is_some() || matches!(budget.spec.min_available, Some(IntOrString::String(_)))
}

/// The numbers to reach. Pods without a controller that can be scaled make a share impossible.
///
/// upstream: disruption.go getExpectedPodCount
pub(super) fn expected(
    budget: &Budget,
    pods: &[Arc<Pod>],
    scales: &BTreeMap<String, i32>,
) -> Result<Expected, String> {
    let count = pods.len() as i32;
    if !needs_scales(budget) {
        let healthy = match &budget.spec.min_available {
            Some(IntOrString::Int(number)) => *number,
            _ => 0,
        };
        return Ok(Expected { pods: count, healthy });
    }
    let mut total = 0;
    let mut seen = BTreeSet::new();
    for pod in pods {
        let name = pod.metadata.name();
        let owner =
            pod.metadata.controller().ok_or_else(|| format!("found no controller ref for pod {name:?}"))?;
        if seen.insert(owner.uid.clone()) {
            total += scales.get(&owner.uid).ok_or_else(|| {
                format!(
                    "found no controllers for pod {name:?}: {} {:?} cannot be scaled",
                    owner.kind, owner.name
                )
            })?;
        }
    }
    let healthy = match (&budget.spec.max_unavailable, &budget.spec.min_available) {
        (Some(most), _) => (total - scaled_value(Some(most), total, true)).max(0),
        (None, least) => scaled_value(least.as_ref(), total, true),
    };
    Ok(Expected { pods: total, healthy })
}

/// The status, and when to look again for an eviction that was agreed to and not carried out.
///
/// upstream: disruption.go updatePdbStatus, buildDisruptedPodMap
pub(super) fn status(
    budget: &Budget,
    pods: &[Arc<Pod>],
    expected: &Expected,
    now: Timestamp,
) -> (Value, Option<Duration>) {
    let timeout = SignedDuration::try_from(DELETION_TIMEOUT).unwrap_or(SignedDuration::ZERO);
    let mut disrupted = BTreeMap::new();
    let mut again: Option<Duration> = None;
    for (name, since) in &budget.status.disrupted_pods {
        let pending = pods.iter().any(|pod| pod.metadata.name() == name && !pod.metadata.deleting());
        let left = timeout - now.duration_since(since.0);
        if let Some(left) = Duration::try_from(left).ok().filter(|left| pending && !left.is_zero()) {
            disrupted.insert(name.clone(), since.clone());
            again = Some(again.map_or(left, |again| again.min(left)));
        }
    }
    let healthy = pods
        .iter()
        .filter(|pod| {
            !pod.metadata.deleting() && !disrupted.contains_key(pod.metadata.name()) && pods::is_ready(pod)
        })
        .count() as i32;
    let allowed = if expected.pods <= 0 { 0 } else { (healthy - expected.healthy).max(0) };
    let (value, reason, message) =
        if allowed > 0 { ("True", "SufficientPods", "") } else { ("False", "InsufficientPods", "") };
    let status = json!({
        "observedGeneration": budget.metadata.generation.unwrap_or(0),
        "disruptedPods": disrupted, "disruptionsAllowed": allowed, "currentHealthy": healthy,
        "desiredHealthy": expected.healthy, "expectedPods": expected.pods,
        "conditions": with_condition(budget, value, reason, message, now),
    });
    (status, again)
}

/// The status when the numbers cannot be known: nothing may be evicted.
pub(super) fn failed(budget: &Budget, message: &str, now: Timestamp) -> Value {
    let mut status = json!(budget.status);
    status["disruptionsAllowed"] = json!(0);
    status["observedGeneration"] = json!(budget.metadata.generation.unwrap_or(0));
    status["conditions"] = json!(with_condition(budget, "False", "SyncFailed", message, now));
    status
}

fn with_condition(
    budget: &Budget,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Vec<Condition> {
    const KIND: &str = "DisruptionAllowed";
    let mut all = budget.status.conditions.clone();
    let known = conditions::find(&all, KIND).cloned();
    let mut condition = conditions::new(KIND, status, reason, message, conditions::second(now).0);
    condition.observed_generation = budget.metadata.generation;
    if let Some(known) = known.filter(|known| known.status == status) {
        condition.last_transition_time = known.last_transition_time;
    }
    conditions::remove(&mut all, KIND);
    all.push(condition);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(text: &str) -> Vec<Arc<Pod>> {
        let pod = |word: &str| {
            let ready = if word.ends_with('!') { "False" } else { "True" };
            let name = word.trim_end_matches('!');
            let value = json!({"metadata": {"name": name, "ownerReferences": [{"apiVersion": "apps/v1",
                    "kind": "ReplicaSet", "name": "rs", "uid": "RS", "controller": true}]},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
            Arc::new(serde_json::from_value(value).expect("a pod"))
        };
        text.split_whitespace().map(pod).collect()
    }

    #[test]
    fn as_many_may_go_as_are_more_than_needed() {
        let now = Timestamp::UNIX_EPOCH;
        for (name, spec, there, allowed, desired) in [
            ("a number", json!({"minAvailable": 2}), "a b c", 1, 2),
            ("one is not ready", json!({"minAvailable": 2}), "a b c!", 0, 2),
            ("a share, of what is wanted", json!({"minAvailable": "50%"}), "a b c", 1, 2),
            ("so many may be missing", json!({"maxUnavailable": 1}), "a b c", 0, 3),
            ("none there", json!({"minAvailable": 0}), "", 0, 0),
        ] {
            let budget: Budget = serde_json::from_value(json!({"spec": spec})).expect("a budget");
            let scales = BTreeMap::from([("RS".to_owned(), 4)]);
            let pods = pods(there);
            let expected = expected(&budget, &pods, &scales).expect("managed pods");
            let (status, _) = status(&budget, &pods, &expected, now);
            assert_eq!(
                (status["disruptionsAllowed"].as_i64(), status["desiredHealthy"].as_i64()),
                (Some(allowed), Some(desired)),
                "{name}"
            );
        }
        let share: Budget =
            serde_json::from_value(json!({"spec": {"maxUnavailable": "50%"}})).expect("a budget");
        assert!(
            expected(&share, &pods("a"), &BTreeMap::new()).is_err(),
            "nobody says how many there should be"
        );
    }
}
