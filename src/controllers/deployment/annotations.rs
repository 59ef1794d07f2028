//! Revisions and sizes, kept as annotations.
//!
//! upstream: pkg/controller/deployment/util/deployment_util.go

use std::collections::BTreeMap;

use copepod_client::object::MetaExt;

use crate::kinds::{Deployment, ReplicaSet};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// What kubectl applied last.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
/// Longest history of revisions. upstream: maxRevHistoryLengthInChars
const HISTORY_CHARS_MAX: usize = 2000;

/// Annotations that a ReplicaSet does not take over.
const OWN: [&str; 6] = [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED, MAX, ROLLBACK_TO];

/// The revision of a ReplicaSet, 0 if it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    set.metadata.annotation(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

/// The size that the deployment had, with surge, when the set was last scaled.
pub(super) fn max_replicas(set: &ReplicaSet) -> Option<i32> {
    set.metadata.annotation(MAX).and_then(|max| max.parse().ok())
}

/// The sizes that a scaled set notes.
pub(super) fn sizes(desired: i32, max: i32) -> BTreeMap<String, String> {
    BTreeMap::from([(DESIRED.into(), desired.to_string()), (MAX.into(), max.to_string())])
}

/// Whether the noted sizes are other ones.
pub(super) fn sizes_differ(set: &ReplicaSet, desired: i32, max: i32) -> bool {
    sizes(desired, max).iter().any(|(key, value)| set.metadata.annotation(key) != Some(value))
}

/// The size that was wished for when the set was last scaled.
pub(super) fn desired_replicas(set: &ReplicaSet) -> Option<i32> {
    set.metadata.annotation(DESIRED).and_then(|desired| desired.parse().ok())
}

/// The annotations of the newest ReplicaSet: the deployment's own, the next revision, and the history of a set that had
/// an earlier one. upstream: SetNewReplicaSetAnnotations
pub(super) fn of_newest(
    deployment: &Deployment,
    known: &BTreeMap<String, String>,
    next: i64,
) -> BTreeMap<String, String> {
    let mut out = known.clone();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !OWN.contains(&key.as_str()) {
            out.insert(key.clone(), value.clone());
        }
    }
    let had = known.get(REVISION);
    let old: i64 = match had.map(|revision| revision.parse()) {
        None => 0,
        Some(Ok(old)) => old,
        // Somebody else's value: left alone.
        Some(Err(_)) => return out,
    };
    if old < next {
        out.insert(REVISION.into(), next.to_string());
        if let Some(old) = had {
            let history = appended(known.get(REVISION_HISTORY).map_or("", String::as_str), old);
            out.insert(REVISION_HISTORY.into(), history);
        }
    }
    out
}

fn appended(history: &str, revision: &str) -> String {
    let mut revisions: Vec<&str> = history.split(',').filter(|revision| !revision.is_empty()).collect();
    revisions.push(revision);
    while revisions.len() > 1 && revisions.iter().map(|r| r.len() + 1).sum::<usize>() > HISTORY_CHARS_MAX {
        revisions.remove(0);
    }
    revisions.join(",")
}
