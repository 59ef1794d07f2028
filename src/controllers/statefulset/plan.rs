//! The next step of a StatefulSet. Pure.
//!
//! upstream: pkg/controller/statefulset/stateful_set_control.go updateStatefulSet

use std::collections::BTreeMap;
use std::sync::Arc;

use copepod_client::object::MetaExt;
use jiff::Timestamp;

use super::identity;
use crate::common::{pods, revisions};
use crate::kinds::{Pod, StatefulSet, StatefulSetStatus};

/// What one turn does.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Turn {
    /// Numbers of pods to be made, and whether of the newest state of the template.
    pub create: Vec<(i32, bool)>,
    /// Pods that go, by name.
    pub delete: Vec<String>,
    /// The status.
    pub status: StatefulSetStatus,
}

/// Names of the two states of the template that matter.
pub(super) struct Revisions<'a> {
    pub current: &'a str,
    pub update: &'a str,
}

struct View<'a> {
    set: &'a StatefulSet,
    revisions: &'a Revisions<'a>,
    now: Timestamp,
}

impl View<'_> {
    fn first(&self) -> i32 {
        self.set.spec.ordinals.start
    }

    fn wanted(&self) -> i32 {
        self.set.spec.replicas.unwrap_or(1)
    }

    fn in_order(&self) -> bool {
        self.set.spec.pod_management_policy != "Parallel"
    }

    fn partition(&self) -> i32 {
        self.set.spec.update_strategy.rolling_update.as_ref().and_then(|bounds| bounds.partition).unwrap_or(0)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_running_and_ready(pod) && pods::is_available(pod, self.set.spec.min_ready_seconds, self.now)
    }

    fn is_newest(&self, pod: &Pod) -> bool {
        revision_of(pod) == self.revisions.update
    }
}

fn revision_of(pod: &Pod) -> &str {
    pod.metadata.label(revisions::HASH_LABEL).unwrap_or_default()
}

fn is_running_and_ready(pod: &Pod) -> bool {
    pod.status.phase == "Running" && pods::is_ready(pod)
}

fn is_healthy(pod: &Pod) -> bool {
    is_running_and_ready(pod) && !pod.metadata.deleting()
}

pub(super) fn plan(set: &StatefulSet, all: &[Arc<Pod>], revisions: &Revisions<'_>, now: Timestamp) -> Turn {
    let view = View { set, revisions, now };
    let by_ordinal: BTreeMap<i32, &Arc<Pod>> =
        all.iter().filter_map(|pod| Some((identity::ordinal_of(set, pod)?, pod))).collect();
    let mut turn = Turn { status: status(&view, &by_ordinal), ..Turn::default() };
    if set.metadata.deleting() {
        return turn;
    }
    let settled = fill(&view, &by_ordinal, &mut turn) && shrink(&view, &by_ordinal, &mut turn);
    if settled && set.spec.update_strategy.kind != "OnDelete" {
        update(&view, &by_ordinal, &mut turn);
    }
    turn
}

/// Makes what is missing. Returns whether the next stage may begin.
fn fill(view: &View<'_>, by_ordinal: &BTreeMap<i32, &Arc<Pod>>, turn: &mut Turn) -> bool {
    for ordinal in view.first()..view.first() + view.wanted() {
        let waits = match by_ordinal.get(&ordinal) {
            None => {
                turn.create.push((ordinal, made_newest(view, ordinal)));
                true
            }
            // Made anew under the same name once it is gone.
            Some(pod) if pods::is_finished(pod) && !pod.metadata.deleting() => {
                turn.delete.push(pod.metadata.name().to_owned());
                true
            }
            Some(pod) => pod.metadata.deleting() || !view.is_available(pod),
        };
        if waits && view.in_order() {
            return false;
        }
    }
    turn.create.is_empty() && turn.delete.is_empty()
}

/// Whether a new pod of this number is made from the newest state. upstream: newVersionedStatefulSetPod
fn made_newest(view: &View<'_>, ordinal: i32) -> bool {
    if view.set.spec.update_strategy.kind != "RollingUpdate"
        || view.revisions.current == view.revisions.update
    {
        return view.set.spec.update_strategy.kind != "OnDelete"
            || view.revisions.current == view.revisions.update;
    }
    match view.partition() {
        0 => ordinal >= view.first() + view.set.status.current_replicas,
        partition => ordinal >= view.first() + partition,
    }
}

/// Removes what is too much, the highest number first. In order, an unhealthy pod is removed only when no lower one is
/// unhealthy: what failed stays there to be looked at. upstream: stateful_set_control.go processCondemned
fn shrink(view: &View<'_>, by_ordinal: &BTreeMap<i32, &Arc<Pod>>, turn: &mut Turn) -> bool {
    let wanted = view.first()..view.first() + view.wanted();
    let condemned: Vec<&&Arc<Pod>> = by_ordinal
        .iter()
        .rev()
        .filter(|(ordinal, _)| !wanted.contains(ordinal))
        .map(|(_, pod)| pod)
        .collect();
    let first_unhealthy =
        by_ordinal.iter().find(|(_, pod)| !is_healthy(pod)).map(|(_, pod)| pod.metadata.name());
    for pod in &condemned {
        if pod.metadata.deleting() {
            if view.in_order() {
                return false;
            }
            continue;
        }
        if view.in_order() && !view.is_available(pod) && first_unhealthy != Some(pod.metadata.name()) {
            return false;
        }
        turn.delete.push(pod.metadata.name().to_owned());
        if view.in_order() {
            return false;
        }
    }
    condemned.is_empty()
}

/// Exchanges one pod of an older state, the highest number first; waits for those that are not healthy.
fn update(view: &View<'_>, by_ordinal: &BTreeMap<i32, &Arc<Pod>>, turn: &mut Turn) {
    let lowest = view.first() + view.partition();
    for (_, pod) in by_ordinal.range(lowest..).rev() {
        if !view.is_newest(pod) && !pod.metadata.deleting() {
            turn.delete.push(pod.metadata.name().to_owned());
            return;
        }
        if !is_healthy(pod) {
            return;
        }
    }
}

/// upstream: stateful_set_control.go updateStatus, completeRollingUpdate
fn status(view: &View<'_>, by_ordinal: &BTreeMap<i32, &Arc<Pod>>) -> StatefulSetStatus {
    let set = view.set;
    let count = |which: &dyn Fn(&Pod) -> bool| by_ordinal.values().filter(|pod| which(pod)).count() as i32;
    let of = |pod: &Pod, revision: &str| !pod.metadata.deleting() && revision_of(pod) == revision;
    let mut status = StatefulSetStatus {
        observed_generation: set.metadata.generation.unwrap_or(0),
        replicas: by_ordinal.len() as i32,
        ready_replicas: count(&is_running_and_ready),
        available_replicas: count(&|pod| view.is_available(pod)),
        current_replicas: count(&|pod| of(pod, view.revisions.current)),
        updated_replicas: count(&|pod| of(pod, view.revisions.update)),
        current_revision: view.revisions.current.to_owned(),
        update_revision: view.revisions.update.to_owned(),
        collision_count: Some(set.status.collision_count.unwrap_or(0)),
        conditions: set.status.conditions.clone(),
    };
    let complete = set.spec.update_strategy.kind == "RollingUpdate"
        && status.updated_replicas == status.replicas
        && status.ready_replicas == status.replicas
        && view.partition() == 0;
    if complete {
        status.current_replicas = status.updated_replicas;
        status.current_revision = status.update_revision.clone();
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(replicas: i32, policy: &str, strategy: &str, partition: i32, current: i32) -> StatefulSet {
        serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": {"replicas": replicas,
            "podManagementPolicy": policy, "updateStrategy": {"type": strategy, "rollingUpdate": {"partition": partition}}},
            "status": {"currentReplicas": current}}))
        .expect("a set")
    }

    /// `ordinal:revision[!|x|#]`: `!` not ready, `x` being deleted, `#` failed.
    fn pods(text: &str) -> Vec<Arc<Pod>> {
        let pod = |word: &str| {
            let (ordinal, rest) = word.split_once(':').expect("ordinal:revision");
            let ready = if rest.ends_with('!') { "False" } else { "True" };
            let deleted = rest.ends_with('x').then_some("2026-01-01T00:00:00Z");
            let phase = if rest.ends_with('#') { "Failed" } else { "Running" };
            let revision = rest.trim_end_matches(['!', 'x', '#']);
            let value = json!({"metadata": {"name": format!("s-{ordinal}"), "deletionTimestamp": deleted,
                    "labels": {revisions::HASH_LABEL: revision}},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}});
            Arc::new(serde_json::from_value(value).expect("a pod"))
        };
        text.split_whitespace().map(pod).collect()
    }

    fn steps(set: &StatefulSet, text: &str, current: &str) -> String {
        let revisions = Revisions { current, update: "b" };
        let turn = plan(set, &pods(text), &revisions, Timestamp::UNIX_EPOCH);
        let created =
            turn.create.iter().map(|(n, newest)| format!("+{n}:{}", if *newest { "b" } else { current }));
        created.chain(turn.delete.iter().map(|name| format!("-{name}"))).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pods_come_and_go_in_order() {
        let ordered = |n| set(n, "OrderedReady", "RollingUpdate", 0, 0);
        for (name, set, there, want) in [
            ("the first", ordered(3), "", "+0:b"),
            ("waits for the first", ordered(3), "0:b!", ""),
            ("the next", ordered(3), "0:b", "+1:b"),
            ("all at once", set(3, "Parallel", "RollingUpdate", 0, 0), "", "+0:b +1:b +2:b"),
            ("a hole is filled first", ordered(3), "0:b 2:b", "+1:b"),
            ("a failed one is made anew", ordered(2), "0:b# 1:b", "-s-0"),
            ("the last goes first", ordered(1), "0:b 1:b 2:b", "-s-2"),
            ("one at a time", ordered(1), "0:b 1:b 2:bx", ""),
            ("waits for the lowest unhealthy one", ordered(0), "0:b! 1:b! 2:b!", ""),
            ("a healthy one does not wait", ordered(0), "0:b! 1:b! 2:b", "-s-2"),
            ("the only unhealthy one goes", ordered(1), "0:b 1:b 2:b!", "-s-2"),
            (
                "unhealthy ones go at once",
                set(1, "Parallel", "RollingUpdate", 0, 0),
                "0:b 1:b! 2:b!",
                "-s-2 -s-1",
            ),
            ("all go at once", set(1, "Parallel", "RollingUpdate", 0, 0), "0:b 1:b 2:b", "-s-2 -s-1"),
        ] {
            assert_eq!(steps(&set, there, "b"), want, "{name}");
        }
    }

    #[test]
    fn an_update_goes_from_the_highest_number_down() {
        let rolling = |partition, current| set(3, "OrderedReady", "RollingUpdate", partition, current);
        for (name, set, there, want) in [
            ("the highest", rolling(0, 3), "0:a 1:a 2:a", "-s-2"),
            ("waits while it goes", rolling(0, 2), "0:a 1:a 2:ax", ""),
            ("made of the newest", rolling(0, 2), "0:a 1:a", "+2:b"),
            ("the next", rolling(0, 2), "0:a 1:a 2:b", "-s-1"),
            ("waits for health", rolling(0, 2), "0:a 1:a 2:b!", ""),
            ("not below the partition", rolling(2, 2), "0:a 1:a 2:b", ""),
            ("below the partition of the old", rolling(2, 2), "0:a 2:b", "+1:a"),
            ("only when deleted", set(3, "OrderedReady", "OnDelete", 0, 3), "0:a 1:a 2:a", ""),
        ] {
            assert_eq!(steps(&set, there, "a"), want, "{name}");
        }
    }

    #[test]
    fn a_complete_update_makes_the_newest_state_the_current_one() {
        let revisions = Revisions { current: "a", update: "b" };
        let set = set(2, "OrderedReady", "RollingUpdate", 0, 2);
        let status = |text| plan(&set, &pods(text), &revisions, Timestamp::UNIX_EPOCH).status;
        assert_eq!(status("0:b 1:b").current_revision, "b");
        let midway = status("0:a 1:b");
        assert_eq!(
            (midway.current_revision.as_str(), midway.current_replicas, midway.updated_replicas),
            ("a", 1, 1)
        );
    }
}
