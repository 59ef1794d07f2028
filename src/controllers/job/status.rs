//! A job's status: ends of pods counted once, conditions, and the end. Pure.
//!
//! upstream: pkg/controller/job/job_controller.go trackJobStatusAndRemoveFinalizers, enactJobFinished

use std::collections::HashSet;
use std::sync::Arc;

use copepod_client::object::MetaExt as _;
use jiff::Timestamp;

use super::indexes::Indexes;
use super::plan::{Turn, View, is_tracked};
use super::policy;
use crate::common::conditions;
use crate::kinds::{Condition, JobStatus, Pod};

/// Pods listed as uncounted at once. upstream: job_controller.go MaxUncountedPods
const UNCOUNTED_MAX: usize = 500;

/// A condition that has just become so.
pub(super) fn condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    let now = conditions::second(now);
    let mut condition = conditions::new(kind, status, reason, message, now.0);
    condition.last_probe_time = Some(now);
    condition
}

/// Counts listed pods whose finalizer is off. upstream: job_controller.go cleanUncountedPodsWithoutFinalizers
pub(super) fn settle(status: &mut JobStatus, pods: &[Arc<Pod>]) {
    let tracked: HashSet<&str> =
        pods.iter().filter(|pod| is_tracked(pod)).map(|pod| pod.metadata.uid()).collect();
    let settle = |uids: &mut Vec<String>| {
        let before = uids.len();
        uids.retain(|uid| tracked.contains(uid.as_str()));
        (before - uids.len()) as i32
    };
    status.succeeded += settle(&mut status.uncounted_terminated_pods.succeeded);
    status.failed += settle(&mut status.uncounted_terminated_pods.failed);
}

/// upstream: job_controller.go ensureJobConditionStatus
fn ensure(all: &mut Vec<Condition>, wanted: Condition) -> bool {
    match all.iter_mut().find(|known| known.kind == wanted.kind) {
        Some(known) => {
            let same = known.status == wanted.status
                && known.reason == wanted.reason
                && known.message == wanted.message;
            if !same {
                *known = wanted;
            }
            !same
        }
        None if wanted.status == "False" => false,
        None => {
            all.push(wanted);
            true
        }
    }
}

/// Says that a job is suspended, or goes on.
pub(super) fn suspension(view: &View<'_>, status: &mut JobStatus, turn: &mut Turn) {
    let now = view.now;
    let mut say = |word: &str, reason: &str, event: &str| {
        let message = format!("Job {}", event.to_lowercase());
        let changed = ensure(&mut status.conditions, condition("Suspended", word, reason, &message, now));
        if changed {
            turn.events.push((false, event.into(), message));
        }
        changed
    };
    if view.job.spec.suspend {
        if say("True", "JobSuspended", "Suspended") {
            status.start_time = None;
        }
    } else if say("False", "JobResumed", "Resumed") {
        status.start_time = Some(conditions::second(now));
    }
}

/// Lists ends that are new, names the finalizers that may go, and ends the job when nothing is left to count.
pub(super) fn track(view: &View<'_>, verdict: Option<Condition>, status: &mut JobStatus, turn: &mut Turn) {
    let success = verdict.as_ref().is_some_and(|verdict| verdict.kind == "SuccessCriteriaMet");
    let mut all_listed = true;
    let mut listed = 0;
    for pod in view.pods.iter().filter(|pod| is_tracked(pod)) {
        let ended = pod.status.phase == "Succeeded";
        let failed = view.has_failed(pod);
        if !may_let_go(view, pod, verdict.is_some(), failed) {
            continue;
        }
        turn.untrack.push(pod.metadata.name().to_owned());
        let uid = pod.metadata.uid().to_owned();
        let uncounted = &mut status.uncounted_terminated_pods;
        if ended && !uncounted.failed.contains(&uid) {
            // An index is counted by being in the set.
            if !view.indexed() && !uncounted.succeeded.contains(&uid) {
                uncounted.succeeded.push(uid);
            }
            listed += usize::from(view.indexed());
        } else if (failed || (verdict.is_some() && !success))
            && view.counts(pod)
            && !uncounted.failed.contains(&uid)
            && policy::of_failed(view.job, pod).counts()
        {
            uncounted.failed.push(uid);
        }
        let uncounted = &status.uncounted_terminated_pods;
        if listed + uncounted.succeeded.len() + uncounted.failed.len() >= UNCOUNTED_MAX {
            all_listed = false;
            break;
        }
    }
    if view.indexed() {
        status.succeeded = view.completed_indexes.len();
        status.completed_indexes = Some(view.completed_indexes.to_string()).filter(|text| !text.is_empty());
        status.failed_indexes = view.failed_indexes.as_ref().map(Indexes::to_string);
    }
    let Some(verdict) = verdict else { return };
    ensure(&mut status.conditions, verdict.clone());
    let uncounted = &status.uncounted_terminated_pods;
    let counted = uncounted.succeeded.is_empty() && uncounted.failed.is_empty();
    if all_listed && counted && status.terminating == Some(0) {
        finish(view, &verdict, success, status, turn);
    }
}

/// upstream: job_controller.go canRemoveFinalizer
fn may_let_go(view: &View<'_>, pod: &Arc<Pod>, at_the_end: bool, failed: bool) -> bool {
    let awaited = || {
        let waiting = view.index(pod).and_then(|index| view.waiting.get(&index));
        waiting.is_some_and(|waiting| waiting.metadata.uid == pod.metadata.uid)
    };
    let over = view.job.metadata.deleting() || at_the_end || pod.status.phase == "Succeeded";
    over || (failed && !awaited())
}

fn finish(view: &View<'_>, verdict: &Condition, success: bool, status: &mut JobStatus, turn: &mut Turn) {
    let kind = if success { "Complete" } else { "Failed" };
    ensure(&mut status.conditions, condition(kind, "True", &verdict.reason, &verdict.message, view.now));
    if !success {
        turn.events.push((true, verdict.reason.clone(), verdict.message.clone()));
        return;
    }
    status.completion_time = Some(conditions::second(view.now));
    if view.job.spec.completions.is_some_and(|wanted| status.succeeded > wanted) {
        let message = "Too many succeeded pods running after completion count reached";
        turn.events.push((true, "TooManySucceededPods".into(), message.into()));
    }
    turn.events.push((false, "Completed".into(), "Job completed".into()));
}
