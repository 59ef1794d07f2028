//! What is told about a namespace's deletion. Pure.
//!
//! upstream: pkg/controller/namespace/deletion/status_condition_utils.go

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::common::conditions;
use crate::kinds::Condition;

/// What one pass over the content found.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// Why discovery is not complete.
    pub discovery_failures: Vec<String>,
    /// What could not be deleted, and why.
    pub deletion_failures: Vec<String>,
    /// Objects that remain: `pods.`, `deployments.apps`.
    pub remaining: BTreeMap<String, usize>,
    /// Finalizers on them.
    pub finalizers: BTreeMap<String, usize>,
    /// Longest time that a remaining pod may take.
    pub grace_seconds: Option<u64>,
}

impl Found {
    /// Whether the namespace can go.
    pub(super) fn is_empty(&self) -> bool {
        self.discovery_failures.is_empty() && self.deletion_failures.is_empty() && self.remaining.is_empty()
    }
}

/// The five conditions, with what has not changed left as it is.
pub(super) fn conditions(before: &[Condition], found: &Found, now: Timestamp) -> Vec<Condition> {
    let now = conditions::second(now).0;
    let mut out = before.to_vec();
    let mut set = |kind: &str, failure: Option<(&str, String)>, fine: (&str, &str)| {
        let (status, reason, message) = match &failure {
            Some((reason, message)) => ("True", *reason, message.as_str()),
            None => ("False", fine.0, fine.1),
        };
        let known = conditions::find(&out, kind);
        if known.is_some_and(|k| k.status == status && k.reason == reason && k.message == message) {
            return;
        }
        conditions::remove(&mut out, kind);
        out.push(conditions::new(kind, status, reason, message, now));
    };
    let failing = &found.discovery_failures;
    let discovery = (!failing.is_empty()).then(|| {
        let count = failing.len();
        (
            "DiscoveryFailed",
            format!("Discovery failed for some groups, {count} failing: {}", failing.join(", ")),
        )
    });
    set(
        "NamespaceDeletionDiscoveryFailure",
        discovery,
        ("ResourcesDiscovered", "All resources successfully discovered"),
    );
    set(
        "NamespaceDeletionGroupVersionParsingFailure",
        None,
        ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    );
    let failures = &found.deletion_failures;
    let content = (!failures.is_empty()).then(|| {
        let (count, list) = (failures.len(), failures.join(", "));
        ("ContentDeletionFailed", format!("Failed to delete all resource types, {count} remaining: {list}"))
    });
    set(
        "NamespaceDeletionContentFailure",
        content,
        ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
    );
    let remaining = listed(&found.remaining, |what, count| format!("{what} has {count} resource instances"));
    set(
        "NamespaceContentRemaining",
        remaining.map(|list| ("SomeResourcesRemain", format!("Some resources are remaining: {list}"))),
        ("ContentRemoved", "All content successfully removed"),
    );
    let finalizers = listed(&found.finalizers, |what, count| format!("{what} in {count} resource instances"));
    set(
        "NamespaceFinalizersRemaining",
        finalizers.map(|list| {
            (
                "SomeFinalizersRemain",
                format!("Some content in the namespace has finalizers remaining: {list}"),
            )
        }),
        ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
    );
    out
}

fn listed(counts: &BTreeMap<String, usize>, show: impl Fn(&str, usize) -> String) -> Option<String> {
    let list: Vec<String> = counts.iter().map(|(what, count)| show(what, *count)).collect();
    (!list.is_empty()).then(|| list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_remains_in_upstreams_words() {
        let found = Found {
            remaining: BTreeMap::from([("pods.".into(), 2), ("widgets.example.com".into(), 1)]),
            finalizers: BTreeMap::from([("example.com/wait".into(), 1)]),
            deletion_failures: vec!["no".into()],
            ..Found::default()
        };
        let made = conditions(&[], &found, Timestamp::UNIX_EPOCH);
        let shown: Vec<String> =
            made.iter().map(|c| format!("{} {} {}", c.status, c.reason, c.message)).collect();
        assert_eq!(
            shown,
            [
                "False ResourcesDiscovered All resources successfully discovered",
                "False ParsedGroupVersions All legacy kube types successfully parsed",
                "True ContentDeletionFailed Failed to delete all resource types, 1 remaining: no",
                "True SomeResourcesRemain Some resources are remaining: pods. has 2 resource instances, \
                 widgets.example.com has 1 resource instances",
                "True SomeFinalizersRemain Some content in the namespace has finalizers remaining: example.com/wait in \
                 1 resource instances",
            ]
        );
        let later = Timestamp::from_second(60).expect("a time");
        assert_eq!(conditions(&made, &found, later), made, "what is known is not written again");
    }
}
