//! The next step of a job. Pure.
//!
//! upstream: pkg/controller/job/job_controller.go syncJob, manageJob, trackJobStatusAndRemoveFinalizers

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_client::object::MetaExt;
use jiff::{SignedDuration, Timestamp};

use super::backoff::{Backoff, finished_at};
use super::indexes::Indexes;
use super::policy::{self, Failure};
use super::status;
use super::{FAILURES, IGNORED_FAILURES, TRACKING, index_of};
use crate::common::{conditions, pods};
use crate::kinds::{Condition, Job, JobStatus, Pod};

/// Creations or deletions in one turn. upstream: job_controller.go MaxPodCreateDeletePerSync
const ACTIONS_MAX: usize = 500;

/// A pod to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NewPod {
    /// Its index, if the job is an indexed one.
    pub index: Option<i32>,
    /// Failures of its index before it, counted and ignored ones, if the job limits them.
    pub failures: Option<(i32, i32)>,
}

/// What one turn does, in this order.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Turn {
    /// Pods (by name) to be deleted whose end still counts.
    pub delete: Vec<String>,
    /// Pods to be let go and deleted: their end is no failure.
    pub discard: Vec<String>,
    /// Pods to be created.
    pub create: Vec<NewPod>,
    /// The status to be written, if it is another one; it reckons with the actions above.
    pub status: Option<JobStatus>,
    /// The numbers of pods as they are, for a status whose actions failed.
    pub observed: Numbers,
    /// Pods whose finalizer can go once the status is written.
    pub untrack: Vec<String>,
    /// Events: reason and message; warnings for failures.
    pub events: Vec<(bool, String, String)>,
    /// The failures to remember once the status is written.
    pub backoff: Backoff,
    /// Another look after this time.
    pub after: Option<Duration>,
}

/// Pods by what they do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Neither ended nor being deleted.
    pub active: i32,
    /// Those of the active that are ready.
    pub ready: i32,
    /// Being deleted and not ended.
    pub terminating: i32,
}

/// What is known, worked out once.
pub(super) struct View<'a> {
    pub job: &'a Job,
    pub pods: &'a [Arc<Pod>],
    pub active: Vec<&'a Arc<Pod>>,
    pub succeeded: i32,
    pub failed: i32,
    pub completed_indexes: Indexes,
    /// Only where the job limits failures by index.
    pub failed_indexes: Option<Indexes>,
    /// The last failed pod of an index that waits for its successor: it stays until that one knows of its failures.
    pub waiting: BTreeMap<i32, &'a Arc<Pod>>,
    pub now: Timestamp,
}

impl View<'_> {
    pub(super) fn indexed(&self) -> bool {
        self.job.spec.completion_mode.as_deref() == Some("Indexed")
    }

    pub(super) fn completions(&self) -> i32 {
        self.job.spec.completions.unwrap_or(0)
    }

    /// Whether a pod that is on its way out holds its place until it has ended.
    ///
    /// upstream: job_controller.go onlyReplaceFailedPods
    fn replaces_only_failed(&self) -> bool {
        self.job.spec.pod_replacement_policy.as_deref() == Some("Failed")
            || self.job.spec.pod_failure_policy.is_some()
    }

    /// upstream: job_controller.go isPodFailed
    pub(super) fn has_failed(&self, pod: &Pod) -> bool {
        pod.status.phase == "Failed"
            || (!self.replaces_only_failed() && pod.metadata.deleting() && pod.status.phase != "Succeeded")
    }

    /// The index of a pod, if it is one of the job's.
    pub(super) fn index(&self, pod: &Pod) -> Option<i32> {
        index_of(pod).filter(|index| *index < self.completions())
    }

    /// Whether a pod counts at all: one of an indexed job must have a good index.
    pub(super) fn counts(&self, pod: &Pod) -> bool {
        !self.indexed() || self.index(pod).is_some()
    }
}

pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

fn names<'a>(pods: impl IntoIterator<Item = &'a Arc<Pod>>) -> Vec<String> {
    pods.into_iter().map(|pod| pod.metadata.name().to_owned()).collect()
}

/// `seen_all` is false while earlier creations and deletions have not been seen.
pub(super) fn plan(job: &Job, all: &[Arc<Pod>], seen_all: bool, backoff: &Backoff, now: Timestamp) -> Turn {
    let mut turn = Turn { backoff: backoff.clone(), ..Turn::default() };
    if super::finished(job).is_some() {
        // Whatever is still marked is let go.
        turn.untrack = names(all.iter().filter(|pod| is_tracked(pod)));
        return turn;
    }
    let mut status = job.status.clone();
    status::settle(&mut status, all);
    if status.start_time.is_none() && !job.spec.suspend {
        status.start_time = Some(conditions::second(now));
    }
    let mut view = View {
        job,
        pods: all,
        active: all.iter().filter(|pod| pods::is_active(pod)).collect(),
        succeeded: 0,
        failed: 0,
        completed_indexes: Indexes::default(),
        failed_indexes: None,
        waiting: BTreeMap::new(),
        now,
    };
    count(&mut view, &status, &mut turn);
    turn.observed = numbers(&view);
    let mut after = turn.observed;

    let mut verdict = verdict(&view, &status);
    if verdict.is_some() {
        turn.delete = names(view.active.iter().copied());
        after = Numbers { active: 0, ready: 0, terminating: after.terminating + after.active };
        // Pods that have not been seen yet may still be missing here.
        verdict = verdict.filter(|_| seen_all);
    } else {
        let acts = seen_all && !job.metadata.deleting();
        if acts {
            after = manage(&view, after, &mut turn);
        }
        verdict = completion(&view, after.active);
        if verdict.is_none() && acts {
            status::suspension(&view, &mut status, &mut turn);
        }
    }
    status.active = after.active;
    status.ready = Some(after.ready);
    status.terminating = Some(after.terminating);
    status::track(&view, verdict, &mut status, &mut turn);
    turn.after = turn.after.into_iter().chain(deadline(&view, &status)).min();
    turn.status = (status != job.status).then_some(status);
    turn
}

fn numbers(view: &View<'_>) -> Numbers {
    Numbers {
        active: view.active.len() as i32,
        ready: view.active.iter().filter(|pod| pods::is_ready(pod)).count() as i32,
        terminating: view.pods.iter().filter(|pod| pods::is_terminating(pod)).count() as i32,
    }
}

/// Successes and failures so far, those included that are not in the status yet.
fn count(view: &mut View<'_>, status: &JobStatus, turn: &mut Turn) {
    let (job, uncounted) = (view.job, &status.uncounted_terminated_pods);
    let fresh = |listed: &[String], pod: &Pod| {
        is_tracked(pod) && view.counts(pod) && !listed.iter().any(|uid| uid == pod.metadata.uid())
    };
    let of = |listed: &[String], ended: &dyn Fn(&Pod) -> bool| -> Vec<&Pod> {
        view.pods.iter().map(|pod| &**pod).filter(|pod| fresh(listed, pod) && ended(pod)).collect()
    };
    let succeeded = of(&uncounted.succeeded, &|pod| pod.status.phase == "Succeeded");
    let failed = of(&uncounted.failed, &|pod| view.has_failed(pod));
    let counted = failed.iter().filter(|pod| policy::of_failed(job, pod).counts()).count();
    turn.backoff = turn.backoff.with(&succeeded, &failed);
    let (new_successes, listed) = (succeeded.len(), uncounted.succeeded.len());
    view.failed = status.failed + (counted + uncounted.failed.len()) as i32;
    view.succeeded = status.succeeded + (new_successes + listed) as i32;
    if !view.indexed() {
        return;
    }
    let completions = view.completions();
    let known = Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
    let ended = view.pods.iter().filter(|pod| pod.status.phase == "Succeeded" && is_tracked(pod));
    view.completed_indexes = known.union(&ended.filter_map(|pod| view.index(pod)).collect());
    view.succeeded = view.completed_indexes.len();
    if let Some(limit) = job.spec.backoff_limit_per_index {
        let known = Indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), completions);
        let given_up = view.pods.iter().filter(|pod| is_tracked(pod) && gives_up(view, pod, limit));
        view.failed_indexes = Some(known.union(&given_up.filter_map(|pod| view.index(pod)).collect()));
        view.waiting = waiting(view);
    }
}

/// Whether the failure of a pod is the last that its index may have. upstream: indexed_job_utils.go isIndexFailed
fn gives_up(view: &View<'_>, pod: &Pod, limit: i32) -> bool {
    view.has_failed(pod)
        && match policy::of_failed(view.job, pod) {
            Failure::FailsIndex => true,
            failure => failure.counts() && annotated(pod, FAILURES) >= limit,
        }
}

/// A number that an annotation carries; 0 if it carries none.
fn annotated(pod: &Pod, name: &str) -> i32 {
    pod.metadata.annotation(name).and_then(|text| text.parse().ok()).filter(|n| *n >= 0).unwrap_or(0)
}

/// Failures of a pod's index before it, counted or not.
fn failures_before(pod: &Pod) -> i32 {
    annotated(pod, FAILURES).saturating_add(annotated(pod, IGNORED_FAILURES))
}

/// upstream: indexed_job_utils.go getPodsWithDelayedDeletionPerIndex
fn waiting<'a>(view: &View<'a>) -> BTreeMap<i32, &'a Arc<Pod>> {
    let mut waiting: BTreeMap<i32, &Arc<Pod>> = BTreeMap::new();
    let running: Indexes = view.active.iter().filter_map(|pod| view.index(pod)).collect();
    for pod in view.pods.iter().filter(|pod| is_tracked(pod) && view.has_failed(pod)) {
        let Some(index) = view.index(pod) else { continue };
        let given_up = view.failed_indexes.as_ref().is_some_and(|failed| failed.has(index));
        if given_up || view.completed_indexes.has(index) || running.has(index) {
            continue;
        }
        let later = waiting.get(&index).is_none_or(|known| {
            failures_before(known) <= failures_before(pod) && finished_at(known) <= finished_at(pod)
        });
        if later {
            waiting.insert(index, pod);
        }
    }
    waiting
}

/// Whether the job is at its end, and why: the condition that says so first.
fn verdict(view: &View<'_>, status: &JobStatus) -> Option<Condition> {
    let there =
        |kind: &str| conditions::find(&status.conditions, kind).filter(|c| c.status == "True").cloned();
    there("SuccessCriteriaMet").or_else(|| there("FailureTarget")).or_else(|| {
        let failed = failure(view, status);
        let failed = failed
            .map(|(reason, message)| status::condition("FailureTarget", "True", reason, &message, view.now));
        failed.or_else(|| {
            let rules = view.job.spec.success_policy.as_ref().filter(|_| view.indexed())?;
            let message = policy::success(&rules.rules, view.completions(), &view.completed_indexes)?;
            Some(status::condition("SuccessCriteriaMet", "True", "SuccessPolicy", &message, view.now))
        })
    })
}

fn failure(view: &View<'_>, status: &JobStatus) -> Option<(&'static str, String)> {
    let spec = &view.job.spec;
    let fails_job =
        view.pods.iter().filter(|pod| view.has_failed(pod)).find_map(|pod| {
            match policy::of_failed(view.job, pod) {
                Failure::FailsJob(message) => Some(message),
                _ => None,
            }
        });
    if let Some(message) = fails_job {
        return Some(("PodFailurePolicy", message));
    }
    if view.failed > spec.backoff_limit.unwrap_or(6) || too_many_restarts(view) {
        return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".into()));
    }
    let age = status.start_time.as_ref().map(|start| view.now.duration_since(start.0));
    let allowed = spec.active_deadline_seconds.filter(|_| !spec.suspend).map(SignedDuration::from_secs);
    if age.zip(allowed).is_some_and(|(age, allowed)| age >= allowed) {
        return Some(("DeadlineExceeded", "Job was active longer than specified deadline".into()));
    }
    let failed = view.failed_indexes.as_ref().map_or(0, Indexes::len);
    if spec.max_failed_indexes.is_some_and(|most| failed > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(("MaxFailedIndexesExceeded", message.into()));
    }
    let all_over = failed > 0 && failed + view.completed_indexes.len() >= view.completions();
    all_over.then(|| ("FailedIndexes", "Job has failed indexes".into()))
}

/// Containers that are restarted in their pod count by their restarts. upstream: pastBackoffLimitOnFailure
fn too_many_restarts(view: &View<'_>) -> bool {
    if view.job.spec.template.0["spec"]["restartPolicy"] != "OnFailure" {
        return false;
    }
    let alive = view.pods.iter().filter(|pod| matches!(pod.status.phase.as_str(), "Running" | "Pending"));
    let restarts: i32 = alive
        .flat_map(|pod| pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses))
        .map(|container| container.restart_count)
        .sum();
    let limit = view.job.spec.backoff_limit.unwrap_or(6);
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// Whether all that is wanted is there, once the turn's actions are done.
fn completion(view: &View<'_>, active: i32) -> Option<Condition> {
    let enough = match view.job.spec.completions {
        // Without a number one success is enough, once the others have ended.
        None => view.succeeded > 0,
        Some(wanted) => view.succeeded >= wanted,
    };
    (enough && active == 0).then(|| {
        let message = "Reached expected number of succeeded pods";
        status::condition("SuccessCriteriaMet", "True", "CompletionsReached", message, view.now)
    })
}

/// Creates what is missing, or deletes what is too much; returns the numbers of pods after that.
fn manage(view: &View<'_>, before: Numbers, turn: &mut Turn) -> Numbers {
    let spec = &view.job.spec;
    let parallelism = spec.parallelism.unwrap_or(1).max(0);
    let wanted = match spec.completions {
        _ if spec.suspend => 0,
        None if view.succeeded > 0 => before.active,
        None => parallelism,
        Some(completions) => (completions - view.succeeded).clamp(0, parallelism),
    };
    let too_many = too_many(view, usize::try_from(before.active - wanted).unwrap_or(0));
    if !too_many.is_empty() {
        let gone = too_many.len() as i32;
        let ready = too_many.iter().filter(|pod| pods::is_ready(pod)).count() as i32;
        turn.discard = too_many.iter().map(|pod| pod.metadata.name().to_owned()).collect();
        return Numbers {
            active: before.active - gone,
            ready: before.ready - ready,
            terminating: before.terminating + gone,
        };
    }
    let leaving = if view.replaces_only_failed() { before.terminating } else { 0 };
    let missing = usize::try_from(wanted - before.active - leaving).unwrap_or(0).min(ACTIONS_MAX);
    if missing > 0 && !spec.suspend {
        create(view, missing, turn);
    }
    Numbers { active: before.active + turn.create.len() as i32, ..before }
}

fn create(view: &View<'_>, missing: usize, turn: &mut Turn) {
    let by_index = view.job.spec.backoff_limit_per_index.is_some();
    if !by_index && let Some(wait) = turn.backoff.remaining(view.now) {
        turn.after = Some(wait);
        return;
    }
    if !view.indexed() {
        turn.create = vec![NewPod::default(); missing];
        return;
    }
    for index in free_indexes(view, missing) {
        let before = view.waiting.get(&index);
        let wait = before.and_then(|pod| {
            let failures = failures_before(pod).saturating_add(1);
            Backoff::of_index(failures, pod).remaining(view.now)
        });
        match wait {
            Some(wait) => turn.after = turn.after.into_iter().chain([wait]).min(),
            None => {
                let failures = by_index.then(|| before.map_or((0, 0), |pod| failures_with(view.job, pod)));
                turn.create.push(NewPod { index: Some(index), failures });
            }
        }
    }
}

/// The failures of an index, those of this pod included. upstream: indexed_job_utils.go getNewIndexFailureCounts
fn failures_with(job: &Job, pod: &Pod) -> (i32, i32) {
    let (counted, ignored) = (annotated(pod, FAILURES), annotated(pod, IGNORED_FAILURES));
    if policy::of_failed(job, pod).counts() {
        (counted.saturating_add(1), ignored)
    } else {
        (counted, ignored.saturating_add(1))
    }
}

/// upstream: indexed_job_utils.go firstPendingIndexes
fn free_indexes(view: &View<'_>, count: usize) -> Vec<i32> {
    let mut taken: Indexes = view.active.iter().filter_map(|pod| index_of(pod)).collect();
    if view.replaces_only_failed() {
        let leaving = view.pods.iter().filter(|pod| pods::is_terminating(pod));
        taken = taken.union(&leaving.filter_map(|pod| index_of(pod)).collect());
    }
    taken = taken.union(&view.completed_indexes);
    if let Some(failed) = &view.failed_indexes {
        taken = taken.union(failed);
    }
    taken.missing(count, view.completions())
}

/// At least so many active pods: first those that no index or a wrong one makes useless, then the least useful.
///
/// upstream: job_controller.go activePodsForRemoval
fn too_many<'a>(view: &View<'a>, at_least: usize) -> Vec<&'a Pod> {
    let least = |pods: Vec<&'a Pod>, count: usize| {
        pods::choose_to_delete(pods, &std::collections::HashMap::new(), count, view.now)
    };
    let mut left: Vec<&'a Pod> = view.active.iter().map(|pod| &***pod).collect();
    let mut gone: Vec<&'a Pod> = Vec::new();
    if view.indexed() {
        let mut by_index: BTreeMap<Option<i32>, Vec<&'a Pod>> = BTreeMap::new();
        for pod in left {
            by_index.entry(view.index(pod)).or_default().push(pod);
        }
        gone.extend(by_index.remove(&None).unwrap_or_default());
        left = Vec::new();
        for same in by_index.into_values() {
            let surplus = least(same.clone(), same.len() - 1);
            left.extend(same.iter().filter(|pod| !surplus.iter().any(|other| std::ptr::eq(*other, **pod))));
            gone.extend(surplus);
        }
    }
    if gone.len() < at_least {
        gone.extend(least(left, at_least - gone.len()));
    }
    // All pods of a suspended job go at once.
    if !view.job.spec.suspend {
        gone.truncate(ACTIONS_MAX);
    }
    gone
}

/// When the job has been active for too long.
fn deadline(view: &View<'_>, status: &JobStatus) -> Option<Duration> {
    let seconds = view.job.spec.active_deadline_seconds.filter(|_| !view.job.spec.suspend)?;
    let age = view.now.duration_since(status.start_time.as_ref()?.0);
    Duration::try_from(SignedDuration::from_secs(seconds) - age).ok()
}
