//! How pods move from old sets to the newest one. Pure.
//!
//! upstream: pkg/controller/deployment/{rolling,recreate,sync}.go

use std::collections::BTreeMap;
use std::sync::Arc;

use copepod_client::object::MetaExt;

use super::annotations;
use super::plan::{Action, Observed, Parts, max_surge, max_unavailable, replicas, size, total};
use crate::kinds::{Deployment, ReplicaSet};

fn scale(deployment: &Deployment, set: &ReplicaSet, to: i32) -> Action {
    let wanted = replicas(deployment);
    Action::Scale {
        name: set.metadata.name().into(),
        from: size(set),
        to,
        annotations: annotations::sizes(wanted, wanted + max_surge(deployment)),
    }
}

fn scale_if_other(deployment: &Deployment, set: &ReplicaSet, to: i32) -> Option<Action> {
    (size(set) != to).then(|| scale(deployment, set, to))
}

/// A step of a rolling update: the newest set grows as far as the surge allows; else old ones shrink as far as enough
/// pods stay available.
pub(super) fn rolling(deployment: &Deployment, parts: &Parts, newest: &ReplicaSet) -> Vec<Action> {
    let grown = size_of_newest(deployment, total(parts.all()), size(newest));
    if let Some(step) = scale_if_other(deployment, newest, grown) {
        return vec![step];
    }
    shrink_old(deployment, parts, newest)
}

/// The size that the newest set may have now. `all` counts the pods of all sets.
///
/// upstream: deployment_util.go NewRSNewReplicas, rolling.go reconcileNewReplicaSet
pub(super) fn size_of_newest(deployment: &Deployment, all: i32, current: i32) -> i32 {
    let wanted = replicas(deployment);
    if current > wanted || deployment.spec.strategy.kind == "Recreate" {
        return wanted;
    }
    let room = wanted + max_surge(deployment) - all;
    current + room.clamp(0, wanted - current)
}

/// upstream: rolling.go reconcileOldReplicaSets
fn shrink_old(deployment: &Deployment, parts: &Parts, newest: &ReplicaSet) -> Vec<Action> {
    if total(parts.old.iter()) == 0 {
        return Vec::new();
    }
    let available_min = replicas(deployment) - max_unavailable(deployment);
    let not_available_yet = size(newest) - newest.status.available_replicas;
    let removable = total(parts.all()) - available_min - not_available_yet;
    if removable <= 0 {
        return Vec::new();
    }
    let mut sizes: BTreeMap<&str, i32> =
        parts.old.iter().map(|set| (set.metadata.name(), size(set))).collect();
    // Pods that do not work go first: nobody misses them.
    let mut removed = 0;
    for set in &parts.old {
        let broken = size(set) - set.status.available_replicas;
        let step = broken.clamp(0, removable - removed);
        removed += step;
        sizes.entry(set.metadata.name()).and_modify(|size| *size -= step);
    }
    let available: i32 = parts.all().map(|set| set.status.available_replicas).sum();
    let mut spare = (available - available_min).max(0);
    for set in &parts.old {
        sizes.entry(set.metadata.name()).and_modify(|size| {
            let step = spare.min(*size);
            spare -= step;
            *size -= step;
        });
    }
    parts.old.iter().filter_map(|set| scale_if_other(deployment, set, sizes[set.metadata.name()])).collect()
}

/// All old sets go to zero.
pub(super) fn empty_old(deployment: &Deployment, parts: &Parts) -> Vec<Action> {
    parts.old.iter().filter_map(|set| scale_if_other(deployment, set, 0)).collect()
}

/// Whether pods of old sets are still there.
pub(super) fn old_pods_remain(observed: &Observed<'_>, parts: &Parts) -> bool {
    parts.old.iter().any(|set| observed.pods.get(MetaExt::uid(&set.metadata)).copied().unwrap_or(0) > 0)
}

/// A step of a recreation: first all old pods go, then the new ones come.
pub(super) fn recreate(observed: &Observed<'_>, parts: &Parts, newest: &ReplicaSet) -> Vec<Action> {
    let deployment = observed.deployment;
    let shrinking = empty_old(deployment, parts);
    if !shrinking.is_empty() {
        return shrinking;
    }
    if old_pods_remain(observed, parts) {
        return Vec::new();
    }
    scale_if_other(deployment, newest, replicas(deployment)).into_iter().collect()
}

/// A new size of the deployment, shared out among the sets that have pods.
///
/// upstream: sync.go scale
pub(super) fn scale_in_proportion(deployment: &Deployment, parts: &Parts) -> Vec<Action> {
    let wanted = replicas(deployment);
    if let Some(only) = active_or_latest(parts) {
        return scale_if_other(deployment, &only, wanted).into_iter().collect();
    }
    let saturated = parts.newest.as_ref().is_some_and(|newest| {
        size(newest) == wanted
            && annotations::desired_replicas(newest) == Some(wanted)
            && newest.status.available_replicas == wanted
    });
    if saturated {
        return empty_old(deployment, parts);
    }
    if deployment.spec.strategy.kind == "Recreate" {
        return Vec::new();
    }
    let mut active: Vec<&Arc<ReplicaSet>> = parts.all().filter(|set| size(set) > 0).collect();
    let allowed = if wanted > 0 { wanted + max_surge(deployment) } else { 0 };
    let to_add = allowed - active.iter().map(|set| size(set)).sum::<i32>();
    let created = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    active.sort_by(|a, b| {
        let by_age = if to_add > 0 { created(b).cmp(&created(a)) } else { created(a).cmp(&created(b)) };
        size(b).cmp(&size(a)).then(by_age)
    });
    let mut added = 0;
    let mut sizes: Vec<i32> = Vec::with_capacity(active.len());
    for set in &active {
        let share = proportion(deployment, set, to_add, added);
        added += share;
        sizes.push(size(set) + share);
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + to_add - added).max(0);
    }
    let noted = |set: &ReplicaSet| annotations::sizes_differ(set, wanted, wanted + max_surge(deployment));
    let changed = active.iter().zip(sizes).filter(|(set, to)| size(set) != *to || noted(set));
    changed.map(|(set, to)| scale(deployment, set, to)).collect()
}

/// The only set with pods, or the newest if none has any. upstream: deployment_util.go FindActiveOrLatest
fn active_or_latest(parts: &Parts) -> Option<Arc<ReplicaSet>> {
    let active: Vec<&Arc<ReplicaSet>> = parts.all().filter(|set| size(set) > 0).collect();
    match active.as_slice() {
        [] => parts.newest.clone().or_else(|| parts.old.last().cloned()),
        [only] => Some((*only).clone()),
        _ => None,
    }
}

/// upstream: deployment_util.go GetReplicaSetProportion
fn proportion(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if size(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let share = fraction(deployment, set);
    let left = to_add - added;
    if to_add > 0 { share.min(left) } else { share.max(left) }
}

fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    let wanted = replicas(deployment);
    if wanted == 0 {
        return -size(set);
    }
    let before = annotations::max_replicas(set).filter(|max| *max != 0).unwrap_or(deployment.status.replicas);
    if before == 0 {
        return 0;
    }
    let scaled = f64::from(size(set)) * f64::from(wanted + max_surge(deployment)) / f64::from(before);
    scaled.round() as i32 - size(set)
}
