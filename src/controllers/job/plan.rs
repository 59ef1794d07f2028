//! The next step of a job. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use copepod_client::object::MetaExt;
use jiff::{SignedDuration, Timestamp};

use super::{INDEX, TRACKING, indexes};
use crate::common::{conditions, pods};
use crate::kinds::{Condition, Job, JobStatus, Pod};

/// Wait after the first failure. upstream: job_controller.go DefaultJobPodFailureBackOff
const BACKOFF_BASE: SignedDuration = SignedDuration::from_secs(10);
/// Longest wait. upstream: job_controller.go MaxJobPodFailureBackOff
const BACKOFF_MAX: SignedDuration = SignedDuration::from_mins(10);
/// Pods created in one turn. upstream: job_controller.go MaxPodCreateDeletePerSync
const CREATIONS_MAX: usize = 500;
/// Pods listed as uncounted at once. upstream: job_controller.go MaxUncountedPods
const UNCOUNTED_MAX: usize = 500;

/// What one turn does.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Turn {
    /// The status to be written, if it is another one. It is written before anything else is done.
    pub status: Option<JobStatus>,
    /// Pods (by name) whose finalizer can go once the status is written.
    pub untrack: Vec<String>,
    /// Pods to be created: their index, if the job is an indexed one.
    pub create: Vec<Option<i32>>,
    /// Pods to be deleted, by name.
    pub delete: Vec<String>,
    /// Events: reason and message; warnings for failures.
    pub events: Vec<(bool, &'static str, String)>,
    /// Another look after this time.
    pub after: Option<Duration>,
}

/// What is known, worked out once.
struct View<'a> {
    job: &'a Job,
    active: Vec<&'a Arc<Pod>>,
    ended: Vec<&'a Arc<Pod>>,
    succeeded_indexes: BTreeSet<i32>,
    indexed: bool,
    now: Timestamp,
}

/// The index of a pod.
pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotation(INDEX)?.parse().ok()
}

fn tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

/// Whether a pod has ended for the job: deleted ones count as failed.
fn has_failed(pod: &Pod) -> bool {
    pod.status.phase == "Failed" || (pod.metadata.deleting() && pod.status.phase != "Succeeded")
}

/// `ready_to_act` is false while earlier creations and deletions have not been seen.
pub(super) fn plan(job: &Job, all: &[Arc<Pod>], ready_to_act: bool, now: Timestamp) -> Turn {
    let indexed = job.spec.completion_mode.as_deref() == Some("Indexed");
    let mut view = View {
        job,
        active: all.iter().filter(|pod| pods::is_active(pod)).collect(),
        ended: all.iter().filter(|pod| !pods::is_active(pod)).collect(),
        succeeded_indexes: indexes::parse(job.status.completed_indexes.as_deref().unwrap_or_default()),
        indexed,
        now,
    };
    let mut turn = Turn::default();
    let mut status = job.status.clone();
    if super::finished(job).is_some() {
        // Whatever is still marked is let go.
        turn.untrack =
            all.iter().filter(|pod| tracked(pod)).map(|pod| pod.metadata.name().to_owned()).collect();
        return turn;
    }
    let suspended = job.spec.suspend;
    if status.start_time.is_none() && !suspended {
        status.start_time = Some(conditions::second(now));
    }
    count(&mut view, &mut status, &mut turn);

    let failure = failure(&view, &status);
    let ending = conditions::is_true(&status.conditions, "FailureTarget")
        || conditions::is_true(&status.conditions, "SuccessCriteriaMet");
    if let Some((reason, message)) = failure.filter(|_| !ending) {
        status.conditions.push(condition("FailureTarget", "True", reason, message, now));
    }
    let failed = conditions::is_true(&status.conditions, "FailureTarget");
    if failed {
        turn.delete = view.active.iter().map(|pod| pod.metadata.name().to_owned()).collect();
    } else if suspended {
        suspend(&view, &mut status, &mut turn);
    } else {
        resume(&mut status, &mut turn, now);
        if !is_complete(&view, &status) && ready_to_act {
            manage(&view, &status, &mut turn);
        }
    }
    end(&view, &mut status, &mut turn, failed);
    finish(&view, status, turn)
}

/// Lists ended pods, and counts those whose finalizer is off.
///
/// upstream: job_controller.go trackJobStatusAndRemoveFinalizers
fn count(view: &mut View<'_>, status: &mut JobStatus, turn: &mut Turn) {
    let marked: BTreeSet<String> =
        view.ended.iter().filter(|pod| tracked(pod)).map(|pod| pod.metadata.uid().to_owned()).collect();
    let settle = |uids: &mut Vec<String>| {
        let before = uids.len();
        uids.retain(|uid| marked.contains(uid));
        (before - uids.len()) as i32
    };
    let succeeded = settle(&mut status.uncounted_terminated_pods.succeeded);
    if !view.indexed {
        status.succeeded += succeeded;
    }
    status.failed += settle(&mut status.uncounted_terminated_pods.failed);
    for pod in view.ended.iter().filter(|pod| tracked(pod)) {
        let uid = pod.metadata.uid().to_owned();
        let uncounted = &mut status.uncounted_terminated_pods;
        let known = uncounted.succeeded.contains(&uid) || uncounted.failed.contains(&uid);
        let room = uncounted.succeeded.len() + uncounted.failed.len() < UNCOUNTED_MAX;
        if !known && !room {
            continue;
        }
        if pod.status.phase == "Succeeded" {
            if view.indexed {
                // An index is counted by being in the set; a second success of it is nothing new.
                let wanted = 0..view.job.spec.completions.unwrap_or(0);
                view.succeeded_indexes.extend(index_of(pod).filter(|index| wanted.contains(index)));
            } else if !known {
                uncounted.succeeded.push(uid);
            }
        } else if has_failed(pod) {
            if !known {
                uncounted.failed.push(uid);
            }
        } else {
            continue;
        }
        turn.untrack.push(pod.metadata.name().to_owned());
    }
    if view.indexed {
        status.completed_indexes = Some(indexes::format(&view.succeeded_indexes));
        status.succeeded = view.succeeded_indexes.len() as i32;
    }
}

fn all_failed(status: &JobStatus) -> i32 {
    status.failed + status.uncounted_terminated_pods.failed.len() as i32
}

fn all_succeeded(status: &JobStatus) -> i32 {
    status.succeeded + status.uncounted_terminated_pods.succeeded.len() as i32
}

/// Why the job has failed, if it has. upstream: job_controller.go syncJob
fn failure(view: &View<'_>, status: &JobStatus) -> Option<(&'static str, &'static str)> {
    let spec = &view.job.spec;
    let limit = spec.backoff_limit.unwrap_or(6);
    let restarts: i32 = if spec.template.0["spec"]["restartPolicy"] == "OnFailure" {
        let of = |pod: &&Arc<Pod>| -> i32 {
            let own = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
            own.map(|container| container.restart_count).sum()
        };
        view.active.iter().map(of).sum()
    } else {
        0
    };
    let past_restarts = if limit == 0 { restarts > 0 } else { restarts >= limit };
    if all_failed(status) > limit || (restarts > 0 && past_restarts) {
        return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    let deadline = spec.active_deadline_seconds.filter(|_| !spec.suspend).map(SignedDuration::from_secs)?;
    let started = status.start_time.as_ref()?.0;
    let late = view.now.duration_since(started) >= deadline;
    late.then_some(("DeadlineExceeded", "Job was active longer than specified deadline"))
}

fn is_complete(view: &View<'_>, status: &JobStatus) -> bool {
    match view.job.spec.completions {
        // Without a number one success is enough, once the others have ended.
        None => all_succeeded(status) > 0 && view.active.is_empty(),
        Some(wanted) => all_succeeded(status) >= wanted,
    }
}

fn suspend(view: &View<'_>, status: &mut JobStatus, turn: &mut Turn) {
    turn.delete = view.active.iter().map(|pod| pod.metadata.name().to_owned()).collect();
    if !conditions::is_true(&status.conditions, "Suspended") {
        conditions::remove(&mut status.conditions, "Suspended");
        status.conditions.push(condition("Suspended", "True", "JobSuspended", "Job suspended", view.now));
        turn.events.push((false, "Suspended", "Job suspended".into()));
    }
    status.start_time = None;
}

fn resume(status: &mut JobStatus, turn: &mut Turn, now: Timestamp) {
    if conditions::is_true(&status.conditions, "Suspended") {
        conditions::remove(&mut status.conditions, "Suspended");
        status.conditions.push(condition("Suspended", "False", "JobResumed", "Job resumed", now));
        status.start_time = Some(conditions::second(now));
        turn.events.push((false, "Resumed", "Job resumed".into()));
    }
}

/// Creates what is missing and deletes what is too much. upstream: job_controller.go manageJob
fn manage(view: &View<'_>, status: &JobStatus, turn: &mut Turn) {
    let spec = &view.job.spec;
    let parallelism = spec.parallelism.unwrap_or(1).max(0);
    let active = view.active.len() as i32;
    let wanted = match spec.completions {
        None if all_succeeded(status) > 0 => active,
        None => parallelism,
        Some(completions) => (completions - all_succeeded(status)).clamp(0, parallelism),
    };
    if active > wanted {
        let excess = (active - wanted) as usize;
        let none = std::collections::HashMap::new();
        let active = view.active.iter().map(|pod| pod.as_ref());
        let chosen = pods::choose_to_delete(active, &none, excess, view.now);
        turn.delete = chosen.into_iter().map(|pod| pod.metadata.name().to_owned()).collect();
        return;
    }
    // Pods that are on their way out still hold their place.
    let terminating = view.ended.iter().filter(|pod| pods::is_terminating(pod)).count() as i32;
    let missing = (wanted - active - terminating).max(0);
    if missing == 0 {
        return;
    }
    if let Some(wait) = backoff(view) {
        turn.after = Some(wait);
        return;
    }
    let missing = (missing as usize).min(CREATIONS_MAX);
    turn.create = if view.indexed {
        let running: BTreeSet<i32> = view
            .active
            .iter()
            .chain(&view.ended)
            .filter(|p| !pods::is_finished(p))
            .filter_map(|p| index_of(p))
            .collect();
        let free = (0..spec.completions.unwrap_or(0))
            .filter(|index| !view.succeeded_indexes.contains(index) && !running.contains(index));
        free.take(missing).map(Some).collect()
    } else {
        vec![None; missing]
    };
}

/// How long to wait after failures that no success has followed. upstream: pkg/controller/job/backoff_utils.go
fn backoff(view: &View<'_>) -> Option<Duration> {
    let ended_at = |pod: &Pod| {
        let states = pod.status.container_statuses.iter().filter_map(|container| {
            container.state["terminated"]["finishedAt"].as_str().and_then(|at| at.parse::<Timestamp>().ok())
        });
        let deleted = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
        states.max().or(deleted).or(pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
    };
    let last_success =
        view.ended.iter().filter(|pod| pod.status.phase == "Succeeded").filter_map(|pod| ended_at(pod)).max();
    let failures: Vec<Timestamp> = view
        .ended
        .iter()
        .filter(|pod| pod.status.phase == "Failed")
        .filter_map(|pod| ended_at(pod))
        .filter(|at| last_success.is_none_or(|success| *at > success))
        .collect();
    let last = failures.iter().max()?;
    let doublings = (failures.len() as u32 - 1).min(16);
    let wait = (BACKOFF_BASE * (1i32 << doublings)).min(BACKOFF_MAX);
    let left = wait - view.now.duration_since(*last);
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

/// The last conditions are set when no pod runs any more and every end is counted.
fn end(view: &View<'_>, status: &mut JobStatus, turn: &mut Turn, failed: bool) {
    if !failed && is_complete(view, status) && !view.job.spec.suspend {
        let (reason, message) = ("CompletionsReached", "Reached expected number of succeeded pods");
        if !conditions::is_true(&status.conditions, "SuccessCriteriaMet") {
            status.conditions.push(condition("SuccessCriteriaMet", "True", reason, message, view.now));
        }
        // An index, or more successes than asked for, may leave pods behind.
        turn.delete = view.active.iter().map(|pod| pod.metadata.name().to_owned()).collect();
    }
    let still_there = view.ended.iter().any(|pod| pods::is_terminating(pod)) || !view.active.is_empty();
    let uncounted = &status.uncounted_terminated_pods;
    let counting = !uncounted.succeeded.is_empty() || !uncounted.failed.is_empty();
    if still_there || counting {
        return;
    }
    if conditions::is_true(&status.conditions, "SuccessCriteriaMet") {
        let (reason, message) = ("CompletionsReached", "Reached expected number of succeeded pods");
        status.conditions.push(condition("Complete", "True", reason, message, view.now));
        status.completion_time = Some(conditions::second(view.now));
        turn.events.push((false, "Completed", "Job completed".into()));
    } else if let Some(target) = conditions::find(&status.conditions, "FailureTarget").cloned() {
        status.conditions.push(condition("Failed", "True", &target.reason, &target.message, view.now));
        let reason =
            if target.reason == "DeadlineExceeded" { "DeadlineExceeded" } else { "BackoffLimitExceeded" };
        turn.events.push((true, reason, target.message));
    }
}

fn finish(view: &View<'_>, mut status: JobStatus, mut turn: Turn) -> Turn {
    status.active = view.active.len() as i32;
    status.ready = view.active.iter().filter(|pod| pods::is_ready(pod)).count() as i32;
    status.terminating = view.ended.iter().filter(|pod| pods::is_terminating(pod)).count() as i32;
    if turn.after.is_none()
        && let (Some(seconds), Some(start)) = (view.job.spec.active_deadline_seconds, &status.start_time)
    {
        let left = SignedDuration::from_secs(seconds) - view.now.duration_since(start.0);
        turn.after = Duration::try_from(left).ok();
    }
    turn.status = (status != view.job.status).then_some(status);
    turn
}

fn condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    let now = conditions::second(now);
    let mut condition = conditions::new(kind, status, reason, message, now.0);
    condition.last_probe_time = Some(now);
    condition
}
