//! What to do about a set of pods, and what to say about it. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use copepod_client::object::MetaExt;
use jiff::Timestamp;

use super::Replicated;
use crate::common::pod_control::Victim;
use crate::common::{conditions, pods};
use crate::kinds::{Pod, ReplicaSetStatus};

/// Creations or deletions in one turn. upstream: replica_set.go BurstReplicas
pub const BURST_MAX: usize = 500;

/// One turn's work.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// As many as wanted.
    Nothing,
    /// So many are missing.
    Create(usize),
    /// These are too many.
    Delete(Vec<Victim>),
}

/// Compares the active pods with the wish. `related` counts pods of sibling sets by node.
///
/// upstream: pkg/controller/replicaset/replica_set.go manageReplicas
pub fn plan(wanted: i32, active: &[Arc<Pod>], related: &HashMap<String, usize>, now: Timestamp) -> Action {
    let wanted = usize::try_from(wanted).unwrap_or(0);
    if active.len() < wanted {
        return Action::Create((wanted - active.len()).min(BURST_MAX));
    }
    if active.len() == wanted {
        return Action::Nothing;
    }
    let excess = (active.len() - wanted).min(BURST_MAX);
    let chosen = pods::choose_to_delete(active.iter().map(Arc::as_ref), related, excess, now);
    Action::Delete(chosen.into_iter().map(Victim::from).collect())
}

/// The status that the pods make; `failure` is what went wrong in this turn.
///
/// upstream: pkg/controller/replicaset/replica_set_utils.go calculateStatus
pub fn status<R: Replicated>(
    set: &R,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&str>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let labels = set.template().labels();
    let labelled = |pod: &Pod| labels.iter().all(|(key, value)| pod.metadata.label(key) == Some(value));
    let count = |which: &dyn Fn(&Pod) -> bool| active.iter().filter(|pod| which(pod)).count() as i32;
    let mut status = set.status().clone();
    status.replicas = active.len() as i32;
    status.fully_labeled_replicas = count(&labelled);
    status.ready_replicas = count(&pods::is_ready);
    status.available_replicas = count(&|pod| pods::is_available(pod, set.min_ready_seconds(), now));
    status.terminating_replicas = R::COUNTS_TERMINATING.then_some(terminating as i32);
    status.observed_generation = set.meta().generation.unwrap_or(0);
    const FAILURE: &str = "ReplicaFailure";
    match (failure, conditions::find(&status.conditions, FAILURE)) {
        (Some(message), None) => {
            let missing = (active.len() as i32) < set.replicas();
            let reason = if missing { "FailedCreate" } else { "FailedDelete" };
            let condition = conditions::new(FAILURE, "True", reason, message, conditions::second(now).0);
            status.conditions.push(condition);
        }
        (None, Some(_)) => conditions::remove(&mut status.conditions, FAILURE),
        _ => {}
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::ReplicaSet;
    use serde_json::{Value, json};

    fn pods(spec: &str) -> Vec<Arc<Pod>> {
        let pod = |word: &str| -> Value {
            let (name, state) = word.split_once(':').unwrap_or((word, "ready"));
            let ready = if state == "ready" { "True" } else { "False" };
            json!({"metadata": {"name": name, "uid": name, "labels": {"app": "x"}}, "spec": {"nodeName": "n"},
                "status": {"phase": if state == "pending" { "Pending" } else { "Running" },
                    "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
        };
        spec.split_whitespace().map(|w| Arc::new(serde_json::from_value(pod(w)).expect("a pod"))).collect()
    }

    #[test]
    fn as_many_pods_as_wanted() {
        let delete = |names: &[&str]| {
            Action::Delete(names.iter().map(|n| Victim { name: (*n).into(), uid: (*n).into() }).collect())
        };
        for (name, wanted, active, want) in [
            ("enough", 2, "a b", Action::Nothing),
            ("missing", 3, "a", Action::Create(2)),
            ("a burst at most", 900, "", Action::Create(BURST_MAX)),
            ("too many: the pending one", 1, "a b:pending", delete(&["b"])),
            ("too many: the unready one", 1, "a:unready b", delete(&["a"])),
            ("none wanted", 0, "a b", delete(&["a", "b"])),
            ("a negative wish is none", -1, "a", delete(&["a"])),
        ] {
            assert_eq!(plan(wanted, &pods(active), &HashMap::new(), Timestamp::UNIX_EPOCH), want, "{name}");
        }
    }

    #[test]
    fn the_status_counts_and_reports_failures() {
        let set: ReplicaSet = serde_json::from_value(json!({"metadata": {"generation": 7},
            "spec": {"replicas": 3, "minReadySeconds": 60,
                "template": {"metadata": {"labels": {"app": "x", "more": "y"}}}}}))
        .expect("a set");
        let now: Timestamp = "2026-01-01T00:00:30Z".parse().expect("a time");
        let made = status(&set, &pods("a b:unready"), 1, Some("quota"), now);
        let shown = serde_json::to_value(&made).expect("JSON");
        assert_eq!(
            shown,
            json!({"replicas": 2, "fullyLabeledReplicas": 0, "readyReplicas": 1, "availableReplicas": 0,
            "terminatingReplicas": 1, "observedGeneration": 7, "conditions": [{"type": "ReplicaFailure",
            "status": "True", "reason": "FailedCreate", "message": "quota",
            "lastTransitionTime": "2026-01-01T00:00:30Z"}]})
        );
        let healed = ReplicaSet { status: made, ..set };
        assert!(status(&healed, &pods("a"), 0, None, now).conditions.is_empty());
    }
}
