//! How long a job waits after failures. Pure.
//!
//! upstream: pkg/controller/job/backoff_utils.go

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::common::conditions;
use crate::kinds::Pod;

/// Wait after the first failure. upstream: job_controller.go DefaultJobPodFailureBackOff
const BASE: SignedDuration = SignedDuration::from_secs(10);
/// Longest wait. upstream: job_controller.go MaxJobPodFailureBackOff
const MAX: SignedDuration = SignedDuration::from_mins(10);

/// Failures that no success has followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
    last: Option<Timestamp>,
}

impl Backoff {
    /// With pods that have ended since.
    pub(super) fn with(&self, succeeded: &[&Pod], failed: &[&Pod]) -> Self {
        let last_success = succeeded.iter().filter_map(|pod| finished_at(pod)).max();
        let since = |at: &Timestamp| last_success.is_none_or(|success| *at > success);
        let times: Vec<Timestamp> = failed.iter().filter_map(|pod| finished_at(pod)).filter(since).collect();
        let before = if succeeded.is_empty() { self.clone() } else { Self::default() };
        Self { failures: before.failures + times.len() as u32, last: times.into_iter().max().or(before.last) }
    }

    /// The failures of one index: `count` of them, the last one at the end of `pod`.
    pub(super) fn of_index(count: i32, pod: &Pod) -> Self {
        Self { failures: u32::try_from(count).unwrap_or(0), last: finished_at(pod) }
    }

    /// How long to wait yet; `None` if not at all.
    pub(super) fn remaining(&self, now: Timestamp) -> Option<Duration> {
        let doublings = self.failures.checked_sub(1)?.min(16);
        let wait = (BASE * (1i32 << doublings)).min(MAX);
        let left = wait - now.duration_since(self.last?);
        Duration::try_from(left).ok().filter(|left| !left.is_zero())
    }
}

/// When a pod ended: by its containers, else by its condition, else by its deletion.
pub(super) fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let not_ready = || {
        let ready = conditions::find(&pod.status.conditions, "Ready").filter(|c| c.status == "False")?;
        Some(ready.last_transition_time.as_ref()?.0)
    };
    let deleted = || {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        pod.metadata.deletion_timestamp.as_ref()?.0.checked_sub(SignedDuration::from_secs(grace)).ok()
    };
    let created = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    by_containers(pod).or_else(not_ready).or_else(deleted).or_else(created)
}

/// The end of the last container; `None` while one of them has none. Sidecars end after the others.
fn by_containers(pod: &Pod) -> Option<Timestamp> {
    let sidecar = |name: &str| {
        let mut all = pod.spec.init_containers.iter();
        all.any(|c| c.name == name && c.restart_policy.as_deref() == Some("Always"))
    };
    let sidecars = pod.status.init_container_statuses.iter().filter(|status| sidecar(&status.name));
    let ends = pod.status.container_statuses.iter().chain(sidecars);
    let times: Option<Vec<Timestamp>> =
        ends.map(|status| status.state["terminated"]["finishedAt"].as_str()?.parse().ok()).collect();
    times?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(end: &str) -> Pod {
        let state = json!({"terminated": {"finishedAt": format!("2026-01-01T{end}Z")}});
        serde_json::from_value(json!({"status": {"containerStatuses": [{"name": "c", "state": state}]}}))
            .expect("a pod")
    }

    #[test]
    fn failures_double_the_wait_and_a_success_ends_it() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().expect("a time");
        let seconds = |backoff: &Backoff| backoff.remaining(now).map_or(0, |left| left.as_secs());
        let (a, b, later) = (pod("00:59:50"), pod("00:59:55"), pod("00:59:58"));
        let none = Backoff::default();
        assert_eq!(seconds(&none), 0);
        assert_eq!(seconds(&none.with(&[], &[&b])), 5, "ten seconds after the first");
        let two = none.with(&[], &[&a, &b]);
        assert_eq!(seconds(&two), 15, "twenty after the second");
        assert_eq!(seconds(&two.with(&[], &[&later])), 38, "forty after the third");
        assert_eq!(seconds(&two.with(&[], &[])), 15, "nothing new");
        assert_eq!(seconds(&two.with(&[&later], &[])), 0, "a success");
        assert_eq!(seconds(&two.with(&[&a], &[&b])), 5, "only failures after the success");
        assert_eq!(seconds(&Backoff::of_index(9, &later)), 598, "ten minutes at most");
    }

    #[test]
    fn the_end_of_a_pod_is_known_by_the_best_source() {
        let text = |value: serde_json::Value| {
            let pod: Pod = serde_json::from_value(value).expect("a pod");
            finished_at(&pod).map(|at| at.to_string()).unwrap_or_default()
        };
        let created = json!({"creationTimestamp": "2026-01-01T00:00:00Z"});
        let running = json!([{"name": "c", "state": {"running": {}}}]);
        let not_ready =
            json!([{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:02:00Z"}]);
        let sidecar = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}]});
        let ended = |name: &str, minute: i32| json!({"name": name, "state": {"terminated": {"finishedAt": format!("2026-01-01T00:0{minute}:00Z")}}});
        for (name, value, want) in [
            ("created", json!({"metadata": created}), "2026-01-01T00:00:00Z"),
            (
                "deleted, less its grace",
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:01:30Z", "deletionGracePeriodSeconds": 30}}),
                "2026-01-01T00:01:00Z",
            ),
            (
                "not ready, one still runs",
                json!({"metadata": created, "status": {"conditions": not_ready, "containerStatuses": running}}),
                "2026-01-01T00:02:00Z",
            ),
            (
                "the sidecar is the last",
                json!({"metadata": created, "spec": sidecar, "status": {"containerStatuses": [ended("c", 3)],
                    "initContainerStatuses": [ended("s", 4), ended("i", 5)]}}),
                "2026-01-01T00:04:00Z",
            ),
        ] {
            assert_eq!(text(value), want, "{name}");
        }
    }
}
