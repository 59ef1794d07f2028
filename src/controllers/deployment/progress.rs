//! The status of a deployment, and whether it gets on. Pure.
//!
//! upstream: pkg/controller/deployment/{progress,sync}.go

use std::time::Duration;

use copepod_client::object::MetaExt;
use jiff::{SignedDuration, Timestamp};

use super::plan::{Action, Observed, Parts, max_unavailable, progressing, replicas, total};
use crate::common::conditions;
use crate::kinds::{Condition, Deployment, DeploymentStatus};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// Sets a condition; one of the same status and reason stays, one of the same status keeps its transition time.
///
/// upstream: deployment_util.go SetDeploymentCondition
pub(super) fn set(all: &mut Vec<Condition>, mut condition: Condition) {
    if let Some(known) = conditions::find(all, &condition.kind) {
        if known.status == condition.status && known.reason == condition.reason {
            return;
        }
        if known.status == condition.status {
            condition.last_transition_time = known.last_transition_time.clone();
        }
    }
    let kind = condition.kind.clone();
    conditions::remove(all, &kind);
    all.push(condition);
}

/// The counts, with the conditions as they are.
pub(super) fn counted(observed: &Observed<'_>, parts: &Parts) -> DeploymentStatus {
    let deployment = observed.deployment;
    let sum =
        |of: fn(&crate::kinds::ReplicaSetStatus) -> i32| parts.all().map(|set| of(&set.status)).sum::<i32>();
    let available = sum(|status| status.available_replicas);
    DeploymentStatus {
        observed_generation: deployment.metadata.generation.unwrap_or(0),
        replicas: sum(|status| status.replicas),
        updated_replicas: parts.newest.as_ref().map_or(0, |set| set.status.replicas),
        ready_replicas: sum(|status| status.ready_replicas),
        available_replicas: available,
        unavailable_replicas: (total(parts.all()) - available).max(0),
        terminating_replicas: parts.all().map(|set| set.status.terminating_replicas).sum::<Option<i32>>(),
        collision_count: deployment.status.collision_count,
        conditions: deployment.status.conditions.clone(),
    }
}

fn with_availability(observed: &Observed<'_>, parts: &Parts, known: Vec<Condition>) -> DeploymentStatus {
    let mut status = counted(observed, parts);
    status.conditions = known;
    let deployment = observed.deployment;
    let enough = status.available_replicas >= replicas(deployment) - max_unavailable(deployment);
    let (value, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    let now = conditions::second(observed.now);
    let mut condition = conditions::new("Available", value, reason, message, now.0);
    condition.last_update_time = Some(now);
    set(&mut status.conditions, condition);
    status
}

/// Counts and availability; nothing about progress.
pub(super) fn status_only(observed: &Observed<'_>, parts: &Parts, known: Vec<Condition>) -> Vec<Action> {
    changed(observed.deployment, with_availability(observed, parts, known))
}

fn changed(deployment: &Deployment, status: DeploymentStatus) -> Vec<Action> {
    if status == deployment.status { Vec::new() } else { vec![Action::Status(Box::new(status))] }
}

/// The whole status, and when to look again if the deadline may pass without any event.
///
/// upstream: progress.go syncRolloutStatus
pub(super) fn status(observed: &Observed<'_>, parts: &Parts, known: Vec<Condition>) -> Vec<Action> {
    let deployment = observed.deployment;
    let mut status = with_availability(observed, parts, known);
    let deadline = deadline(deployment);
    if deadline.is_none() {
        conditions::remove(&mut status.conditions, PROGRESSING);
    }
    let current = conditions::find(&status.conditions, PROGRESSING).cloned();
    let was_complete = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|condition| condition.reason == AVAILABLE);
    if let Some(deadline) = deadline.filter(|_| !was_complete) {
        judge(observed, parts, &mut status, current, deadline);
    }
    let failure = parts
        .newest
        .iter()
        .chain(&parts.old)
        .find_map(|set| conditions::find(&set.status.conditions, "ReplicaFailure").cloned());
    match failure {
        Some(mut failure) => {
            failure.last_update_time = failure.last_transition_time.clone();
            set(&mut status.conditions, failure);
        }
        None => conditions::remove(&mut status.conditions, "ReplicaFailure"),
    }
    let again = again_after(&status, deadline, observed.now, is_complete(deployment, &status));
    let mut actions = changed(deployment, status);
    actions.extend(again.map(Action::After));
    actions
}

fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment.spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)?;
    Some(SignedDuration::from_secs(i64::from(seconds)))
}

fn judge(
    observed: &Observed<'_>,
    parts: &Parts,
    status: &mut DeploymentStatus,
    current: Option<Condition>,
    deadline: SignedDuration,
) {
    let (deployment, now) = (observed.deployment, observed.now);
    let subject = match &parts.newest {
        Some(newest) => format!("ReplicaSet {:?}", newest.metadata.name()),
        None => format!("Deployment {:?}", deployment.metadata.name()),
    };
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set(&mut status.conditions, progressing("True", AVAILABLE, &message, now));
    } else if has_progressed(deployment, status) {
        let message = format!("{subject} is progressing.");
        let mut condition = progressing("True", "ReplicaSetUpdated", &message, now);
        // The time of the update moves with every bit of progress, that of the transition does not.
        if let Some(current) = current {
            if current.status == "True" {
                condition.last_transition_time = current.last_transition_time;
            }
            conditions::remove(&mut status.conditions, PROGRESSING);
        }
        set(&mut status.conditions, condition);
    } else if has_timed_out(current.as_ref(), deadline, now) {
        let message = format!("{subject} has timed out progressing.");
        set(&mut status.conditions, progressing("False", TIMED_OUT, &message, now));
    }
}

/// upstream: deployment_util.go DeploymentComplete
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = replicas(deployment);
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation.unwrap_or(0)
}

/// upstream: deployment_util.go DeploymentProgressing
fn has_progressed(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let before = &deployment.status;
    status.updated_replicas > before.updated_replicas
        || status.replicas - status.updated_replicas < before.replicas - before.updated_replicas
        || status.ready_replicas > before.ready_replicas
        || status.available_replicas > before.available_replicas
}

/// upstream: deployment_util.go DeploymentTimedOut
fn has_timed_out(current: Option<&Condition>, deadline: SignedDuration, now: Timestamp) -> bool {
    let Some(condition) = current.filter(|condition| condition.reason != AVAILABLE) else { return false };
    let since = condition.last_update_time.as_ref().map_or(now, |time| time.0);
    condition.reason == TIMED_OUT || now.duration_since(since) > deadline
}

/// upstream: progress.go requeueStuckDeployment
fn again_after(
    status: &DeploymentStatus,
    deadline: Option<SignedDuration>,
    now: Timestamp,
    complete: bool,
) -> Option<Duration> {
    let condition = conditions::find(&status.conditions, PROGRESSING)?;
    if complete || condition.reason == TIMED_OUT || condition.reason == AVAILABLE {
        return None;
    }
    let since = condition.last_update_time.as_ref()?.0;
    // One second later, so that the deadline has passed for sure.
    let left = deadline? - now.duration_since(since) + SignedDuration::from_secs(1);
    Duration::try_from(left).ok().or(Some(Duration::from_secs(1)))
}
