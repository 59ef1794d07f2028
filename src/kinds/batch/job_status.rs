//! How far a job is. upstream: validateJobStatus, ValidateJobStatusUpdate, getStatusValidationOptions

use copepod_meta::{ErrorList, Value, time};
use std::collections::BTreeSet;

use super::job_spec::{INDEXED, count_indexes, interval_of};
use crate::apps;
use crate::check::{At, IMMUTABLE};
use crate::equality::same;
use crate::print;

const UNCOUNTED: &str = "batch/UncountedTerminatedPods";

/// What the conditions say.
struct State {
    complete: bool,
    failed: bool,
    failure_target: bool,
    criteria_met: bool,
}

impl State {
    fn of(job: &Value) -> State {
        let is = |ty| has(job, ty, "True");
        State {
            complete: is("Complete"),
            failed: is("Failed"),
            failure_target: is("FailureTarget"),
            criteria_met: is("SuccessCriteriaMet"),
        }
    }
    fn finished(&self) -> bool {
        self.complete || self.failed
    }
}

fn has(job: &Value, ty: &str, status: &str) -> bool {
    let mut conditions = job.list_at(&["status", "conditions"]).iter();
    conditions.any(|c| c.str_at(&["type"]) == ty && c.str_at(&["status"]) == status)
}

/// Checks are made of what changed: what was wrong before does not stop other changes.
pub(super) fn validate(job: &Value, old: &Value, e: &mut ErrorList) {
    let root = At::root(job);
    let status = root.get("status");
    apps::not_negative(status, &["active", "succeeded", "failed", "ready", "terminating"], e);
    uncounted(status.get("uncountedTerminatedPods"), e);
    let (new_state, old_state) = (State::of(job), State::of(old));
    let changed = |member: &str| {
        let (a, b) = (status.value.get(member), old.at(&["status", member]));
        // A pointer to zero is not nil; a plain number's absence is zero.
        !same(a, b) || (a.is_null() != b.is_null() && member != "active" && member != "completedIndexes")
    };
    conditions(status, &new_state, &old_state, &changed, e);
    finished(job, status, &new_state, &old_state, &changed, e);
    indexes(job, status, &changed, e);
    let terminating = status.get("terminating");
    let finished_changed = new_state.finished() != old_state.finished();
    if (finished_changed || changed("terminating")) && terminating.int() > 0 && new_state.finished() {
        terminating.invalid(e, "terminating>0 is invalid for finished job");
    }
    let ready = status.get("ready");
    if (changed("ready") || changed("active"))
        && ready.opt_int().is_some_and(|n| n > status.get("active").int())
    {
        ready.invalid(e, "cannot set more ready pods than active");
    }
    let list = status.get("conditions");
    if new_state.criteria_met && new_state.failed {
        list.invalid_omitted(e, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    }
    if new_state.criteria_met && new_state.failure_target {
        list.invalid_omitted(e, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    }
    if !root.get("spec.successPolicy").is_empty() && !new_state.criteria_met && new_state.complete {
        let message = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        list.invalid_omitted(e, message);
    }
    transitions(job, old, &new_state, &old_state, e);
}

fn uncounted(at: At, e: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        for uid in at.get(list).items() {
            if uid.str().is_empty() {
                uid.invalid(e, "must not be empty");
            } else if !seen.insert(uid.str()) {
                uid.duplicate(e);
            }
        }
    }
}

fn conditions(status: At, new: &State, old: &State, changed: &dyn Fn(&str) -> bool, e: &mut ErrorList) {
    let list = status.get("conditions");
    let complete_changed = new.complete != old.complete;
    if (complete_changed || new.failed != old.failed) && new.complete && new.failed {
        list.invalid_omitted(e, "cannot set Complete=True and Failed=true conditions");
    }
    if (complete_changed || new.failure_target != old.failure_target) && new.complete && new.failure_target {
        list.invalid_omitted(e, "cannot set Complete=True and FailureTarget=true conditions");
    }
    let end = status.get("completionTime");
    if complete_changed || changed("completionTime") {
        if end.is_set() && !new.complete {
            end.invalid(e, "cannot set completionTime when there is no Complete=True condition");
        }
        if !end.is_set() && new.complete {
            end.required(e, "completionTime is required for Complete jobs");
        }
    }
    if (changed("startTime") || changed("completionTime"))
        && let (Some(start), Some(finish)) =
            (time::parse(status.get("startTime").str()), time::parse(end.str()))
        && time::seconds_between(start, finish) < 0
    {
        end.invalid(e, "must be equal to or after `startTime`");
    }
    if (new.failed != old.failed || changed("failedIndexes")) && new.failed && !new.failure_target {
        list.invalid_omitted(e, "cannot set Failed=True condition without the FailureTarget=true condition");
    }
    if (complete_changed || new.criteria_met != old.criteria_met) && new.complete && !new.criteria_met {
        let message = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        list.invalid_omitted(e, message);
    }
}

fn finished(
    job: &Value,
    status: At,
    new: &State,
    old: &State,
    changed: &dyn Fn(&str) -> bool,
    e: &mut ErrorList,
) {
    let finished = new.finished();
    let finished_changed = finished != old.finished();
    let active = status.get("active");
    if (finished_changed || changed("active")) && active.int() > 0 && finished {
        active.invalid(e, "active>0 is invalid for finished job");
    }
    let spec = job.get("spec");
    let nothing_to_do =
        spec.get("suspend").as_bool() == Some(true) && spec.get("completions").as_int() == Some(0);
    let start = status.get("startTime");
    if (finished_changed || changed("startTime")) && !nothing_to_do && !start.is_set() && finished {
        start.required(e, "startTime is required for finished job");
    }
    let pods = status.get("uncountedTerminatedPods");
    let some = !pods.get("failed").is_empty() || !pods.get("succeeded").is_empty();
    if (finished_changed || changed("uncountedTerminatedPods")) && finished && some {
        pods.invalid_printed(e, print::internal(pods.value, UNCOUNTED), "must be empty for finished job");
    }
}

fn indexes(job: &Value, status: At, changed: &dyn Fn(&str) -> bool, e: &mut ErrorList) {
    let (done, failed) = (status.get("completedIndexes"), status.get("failedIndexes"));
    let (done_changed, failed_changed) = (changed("completedIndexes"), changed("failedIndexes"));
    let completions = job.at(&["spec", "completions"]).as_int();
    let per_index = !job.at(&["spec", "backoffLimitPerIndex"]).is_null();
    if let Some(completions) = completions {
        if done_changed && let Err(message) = count_indexes(done.str(), completions) {
            done.invalid(e, format!("error parsing completedIndexes: {message}"));
        }
        if failed_changed
            && per_index
            && failed.is_set()
            && let Err(message) = count_indexes(failed.str(), completions)
        {
            failed.invalid(e, format!("error parsing failedIndexes: {message}"));
        }
    }
    if done_changed && !done.str().is_empty() && job.str_at(&["spec", "completionMode"]) != INDEXED {
        done.invalid(e, "cannot set non-empty completedIndexes when non-indexed completion mode");
    }
    if failed_changed && !per_index && failed.is_set() {
        failed.invalid(e, "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
    }
    if let Some(completions) = completions
        && (failed_changed || done_changed)
        && failed.is_set()
        && let Some(index) = overlap(done.str(), failed.str(), completions)
    {
        failed.invalid(e, format!("failedIndexes and completedIndexes overlap at index: {index}"));
    }
}

/// The first index in both lists; what cannot be read is told of elsewhere.
/// upstream: validateFailedIndexesNotOverlapCompleted
fn overlap(done: &str, failed: &str, completions: i64) -> Option<i64> {
    if done.is_empty() || failed.is_empty() {
        return None;
    }
    let all = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|i| interval_of(i, completions).ok()).collect()
    };
    let (done, failed) = (all(done), all(failed));
    let (mut i, mut j) = (0, 0);
    while let (Some(d), Some(f)) = (done.get(i), failed.get(j)) {
        if d.0 <= f.1 && f.0 <= d.1 {
            return Some(d.0.max(f.0));
        }
        if d.0 <= f.0 { i += 1 } else { j += 1 }
    }
    None
}

fn transitions(job: &Value, old: &Value, new_state: &State, old_state: &State, e: &mut ErrorList) {
    let root = At::root(job);
    let status = root.get("status");
    let list = status.get("conditions");
    let terminal = [
        ("Failed", old_state.failed, new_state.failed),
        ("Complete", old_state.complete, new_state.complete),
        ("FailureTarget", old_state.failure_target, new_state.failure_target),
    ];
    for (ty, was, is) in terminal {
        if was && !is {
            list.invalid_omitted(e, format!("cannot disable the terminal {ty}=True condition"));
        }
    }
    let spec = job.get("spec");
    let elastic = spec.str_at(&["completionMode"]) == INDEXED
        && spec.get("completions").as_int() == spec.get("parallelism").as_int();
    for (counter, may_fall) in [("failed", false), ("succeeded", elastic)] {
        let at = status.get(counter);
        if at.int() < old.int_at(&["status", counter]) && !may_fall {
            at.invalid_int(e, format!("cannot decrease the {counter} counter"));
        }
    }
    let end = status.get("completionTime");
    let old_end = old.at(&["status", "completionTime"]);
    if end.is_set() && !old_end.is_null() && !same(end.value, old_end) {
        end.invalid(e, IMMUTABLE);
    }
    let start = status.get("startTime");
    let old_start = old.at(&["status", "startTime"]);
    let resuming = has(old, "Suspended", "True") && has(job, "Suspended", "False");
    let suspended = spec.get("suspend").as_bool().unwrap_or(false);
    if !resuming && !old_start.is_null() && !same(old_start, start.value) && !suspended {
        start.invalid_pointer(e, "field is immutable for unsuspended job once set");
    }
    if old_state.criteria_met && !new_state.criteria_met {
        list.invalid_omitted(e, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if old_state.complete && !old_state.criteria_met && new_state.criteria_met {
        let message = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        list.invalid_omitted(e, message);
    }
}
