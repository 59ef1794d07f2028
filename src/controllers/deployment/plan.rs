//! One step of a deployment. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_client::object::MetaExt;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{annotations, progress, rollout};
use crate::common::{conditions, template};
use crate::kinds::{Condition, Deployment, DeploymentStatus, ReplicaSet};

pub(super) const HASH_LABEL: &str = "pod-template-hash";

/// What is known of a deployment.
pub(super) struct Observed<'a> {
    pub deployment: &'a Deployment,
    /// Its ReplicaSets.
    pub sets: &'a [Arc<ReplicaSet>],
    /// Pods that are there, by uid of their set; ended ones do not count.
    pub pods: &'a BTreeMap<String, usize>,
    pub now: Timestamp,
}

/// A write that follows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// A new set: its object, and its size.
    Create { set: Value, replicas: i32 },
    /// Annotations and minReadySeconds of the newest set.
    Refresh { name: String, patch: Value },
    /// A new size, and the sizes noted with it.
    Scale { name: String, from: i32, to: i32, annotations: BTreeMap<String, String> },
    /// An old set that is not needed for rollbacks any more.
    Delete { name: String },
    /// The revision annotation of the deployment itself.
    SetRevision(String),
    /// The status.
    Status(Box<DeploymentStatus>),
    /// Another look after this time.
    After(Duration),
}

/// The sets in their parts.
pub(super) struct Parts {
    pub newest: Option<Arc<ReplicaSet>>,
    pub old: Vec<Arc<ReplicaSet>>,
}

impl Parts {
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.newest)
    }
}

/// The next step.
///
/// upstream: pkg/controller/deployment/deployment_controller.go syncDeployment
pub(super) fn plan(observed: &Observed<'_>) -> Vec<Action> {
    let deployment = observed.deployment;
    let parts = split(deployment, observed.sets);
    if deployment.metadata.deleting() {
        return progress::status_only(observed, &parts, deployment.status.conditions.clone());
    }
    let conditions = paused_condition(deployment, observed.now);
    if deployment.spec.paused || is_scaling(deployment, observed.sets) {
        return scaled(observed, &parts, conditions);
    }
    let Some(newest) = &parts.newest else {
        if deployment.spec.strategy.kind == "Recreate" {
            let steps = rollout::empty_old(deployment, &parts);
            if !steps.is_empty() {
                return finished(steps, observed, &parts, conditions);
            }
            if rollout::old_pods_remain(observed, &parts) {
                return progress::status(observed, &parts, conditions);
            }
        }
        return vec![create(deployment, &parts)];
    };
    let mut steps = refresh(deployment, newest, &parts);
    if !steps.is_empty() {
        return steps;
    }
    let moved = match deployment.spec.strategy.kind.as_str() {
        "Recreate" => rollout::recreate(observed, &parts, newest),
        _ => rollout::rolling(deployment, &parts, newest),
    };
    if moved.is_empty() && progress::is_complete(deployment, &progress::counted(observed, &parts)) {
        steps.extend(clean_up(deployment, &parts));
    }
    steps.extend(moved);
    finished(steps, observed, &parts, conditions)
}

fn finished(
    mut steps: Vec<Action>,
    observed: &Observed<'_>,
    parts: &Parts,
    conditions: Vec<Condition>,
) -> Vec<Action> {
    steps.extend(progress::status(observed, parts, conditions));
    steps
}

/// Paused, or its size changed: sizes follow in proportion, the template waits.
fn scaled(observed: &Observed<'_>, parts: &Parts, conditions: Vec<Condition>) -> Vec<Action> {
    let deployment = observed.deployment;
    let mut steps = rollout::scale_in_proportion(deployment, parts);
    if deployment.spec.paused {
        steps.extend(clean_up(deployment, parts));
    }
    steps.extend(progress::status_only(observed, parts, conditions));
    steps
}

/// The newest set is the one with the deployment's template; of several the oldest.
///
/// upstream: deployment_util.go FindNewReplicaSet
pub(super) fn split(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Parts {
    let mut ordered: Vec<Arc<ReplicaSet>> = sets.to_vec();
    ordered.sort_by_key(|set| {
        (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name().to_owned())
    });
    let wanted = without_hash(&deployment.spec.template.0);
    let at = ordered.iter().position(|set| without_hash(&set.spec.template.0) == wanted);
    let newest = at.map(|at| ordered.remove(at));
    Parts { newest, old: ordered }
}

/// A template without the label that tells sets apart. upstream: deployment_util.go EqualIgnoreHash
pub(super) fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(HASH_LABEL);
        }
    }
    template
}

/// upstream: deployment_controller.go isScalingEvent
fn is_scaling(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> bool {
    let wanted = replicas(deployment);
    let active = sets.iter().filter(|set| size(set) > 0);
    active.filter_map(|set| annotations::desired_replicas(set)).any(|desired| desired != wanted)
}

/// A pause stops the clock of the progress deadline, and says so. upstream: sync.go checkPausedConditions
fn paused_condition(deployment: &Deployment, now: Timestamp) -> Vec<Condition> {
    let mut conditions = deployment.status.conditions.clone();
    if deployment.spec.progress_deadline_seconds.is_none_or(|seconds| seconds == i32::MAX) {
        return conditions;
    }
    let reason = conditions::find(&conditions, "Progressing").map(|c| c.reason.clone()).unwrap_or_default();
    if reason == "ProgressDeadlineExceeded" {
        return conditions;
    }
    let was_paused = reason == "DeploymentPaused";
    if deployment.spec.paused && !was_paused {
        progress::set(
            &mut conditions,
            progressing("Unknown", "DeploymentPaused", "Deployment is paused", now),
        );
    } else if !deployment.spec.paused && was_paused {
        progress::set(
            &mut conditions,
            progressing("Unknown", "DeploymentResumed", "Deployment is resumed", now),
        );
    }
    conditions
}

pub(super) fn progressing(status: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    let now = conditions::second(now);
    let mut condition = conditions::new("Progressing", status, reason, message, now.0);
    condition.last_update_time = Some(now);
    condition
}

/// A new set for the template. upstream: sync.go getNewReplicaSet
fn create(deployment: &Deployment, parts: &Parts) -> Action {
    let spec = &deployment.spec;
    let hash = template::hash(&spec.template.0, deployment.status.collision_count);
    let mut pod_template = (*spec.template.0).clone();
    pod_template["metadata"]["labels"][HASH_LABEL] = json!(hash);
    let mut selector = json!(spec.selector);
    selector["matchLabels"][HASH_LABEL] = json!(hash);
    let next = parts.old.iter().map(|set| annotations::revision(set)).max().unwrap_or(0) + 1;
    let mut notes = annotations::of_newest(deployment, &BTreeMap::new(), next);
    notes.extend(annotations::sizes(replicas(deployment), replicas(deployment) + max_surge(deployment)));
    let size = rollout::size_of_newest(deployment, total(parts.old.iter()), 0);
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": set_name(deployment.metadata.name(), &hash), "namespace": MetaExt::namespace(&deployment.metadata),
            "labels": pod_template["metadata"]["labels"], "annotations": notes,
            "ownerReferences": [copepod_client::object::controller_reference(deployment)],
        },
        "spec": {
            "replicas": size, "minReadySeconds": spec.min_ready_seconds,
            "selector": selector, "template": pod_template,
        },
    });
    Action::Create { set, replicas: size }
}

/// upstream: sync.go generateReplicaSetName
fn set_name(deployment: &str, hash: &str) -> String {
    let room = 253 - 10 - 1;
    let base = if deployment.len() > room { &deployment[..room] } else { deployment };
    format!("{base}-{hash}")
}

/// What the newest set takes over from the deployment, and the revision that the deployment takes from it.
fn refresh(deployment: &Deployment, newest: &ReplicaSet, parts: &Parts) -> Vec<Action> {
    let empty = BTreeMap::new();
    let known = newest.metadata.annotations.as_ref().unwrap_or(&empty);
    let next = parts.old.iter().map(|set| annotations::revision(set)).max().unwrap_or(0) + 1;
    let wanted = annotations::of_newest(deployment, known, next);
    let seconds = deployment.spec.min_ready_seconds;
    if wanted != *known || seconds != newest.spec.min_ready_seconds {
        let changed: BTreeMap<_, _> =
            wanted.iter().filter(|(key, value)| known.get(*key) != Some(value)).collect();
        let patch = json!({ "metadata": { "annotations": changed }, "spec": { "minReadySeconds": seconds } });
        return vec![Action::Refresh { name: newest.metadata.name().into(), patch }];
    }
    let revision = newest.metadata.annotation(annotations::REVISION).unwrap_or_default();
    if deployment.metadata.annotation(annotations::REVISION) != Some(revision) {
        return vec![Action::SetRevision(revision.into())];
    }
    Vec::new()
}

/// Old sets beyond the history limit, the oldest revisions first. upstream: sync.go cleanupDeployment
fn clean_up(deployment: &Deployment, parts: &Parts) -> Vec<Action> {
    let Some(limit) = deployment.spec.revision_history_limit.filter(|limit| *limit != i32::MAX) else {
        return Vec::new();
    };
    let mut alive: Vec<_> = parts.old.iter().filter(|set| !set.metadata.deleting()).collect();
    let excess = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    alive.sort_by_key(|set| annotations::revision(set));
    let unused = |set: &&&Arc<ReplicaSet>| {
        set.status.replicas == 0
            && size(set) == 0
            && set.metadata.generation.unwrap_or(0) <= set.status.observed_generation
    };
    let gone = alive.iter().take(excess).filter(unused);
    gone.map(|set| Action::Delete { name: set.metadata.name().into() }).collect()
}

pub(super) fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

pub(super) fn total<'a>(sets: impl Iterator<Item = &'a Arc<ReplicaSet>>) -> i32 {
    sets.map(|set| size(set)).sum()
}

/// upstream: deployment_util.go MaxSurge
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    if deployment.spec.strategy.kind == "Recreate" { 0 } else { fence_posts(deployment).0 }
}

/// upstream: deployment_util.go MaxUnavailable
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    if deployment.spec.strategy.kind == "Recreate" || replicas(deployment) == 0 {
        return 0;
    }
    fence_posts(deployment).1.min(replicas(deployment))
}

/// Surge and unavailability; not both may be zero. upstream: deployment_util.go ResolveFenceposts
fn fence_posts(deployment: &Deployment) -> (i32, i32) {
    let bounds = deployment.spec.strategy.rolling_update.clone().unwrap_or_default();
    let of = |bound: Option<IntOrString>, up: bool| scaled_value(bound.as_ref(), replicas(deployment), up);
    let (surge, unavailable) = (of(bounds.max_surge, true), of(bounds.max_unavailable, false));
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// A number, or a share of `total`. An unreadable value counts as zero: the API admits none.
pub(crate) fn scaled_value(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let hundredfold = percent * i64::from(total);
            let rounded = if round_up { (hundredfold + 99).div_euclid(100) } else { hundredfold / 100 };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}
