//! Steps as tables: a deployment and its sets in short form, the writes out.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Action, Observed, plan};
use crate::kinds::{Deployment, ReplicaSet};

const NOW: &str = "2026-01-01T00:10:00Z";

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn deployment(replicas: i32, image: &str, extra: Value) -> Deployment {
    let mut value = json!({"metadata": {"name": "web", "namespace": "d", "uid": "D", "generation": 1,
            "annotations": {"deployment.kubernetes.io/revision": "1"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}}, "template": template(image),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600},
        "status": {"observedGeneration": 1}});
    for (path, new) in extra.as_object().expect("paths") {
        let (parent, key) = path.rsplit_once('/').expect("a path");
        value.pointer_mut(parent).expect("a known parent")[key] = new.clone();
    }
    serde_json::from_value(value).expect("a deployment")
}

/// `name image size/available revision desired`, one set a line, oldest first.
fn sets(text: &str) -> Vec<Arc<ReplicaSet>> {
    let set = |(at, line): (usize, &str)| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (size, available) = words[2].split_once('/').expect("size/available");
        let number = |text: &str| text.parse::<i32>().expect("a number");
        let desired = number(words[4]);
        let surge = (desired * 25 + 99) / 100;
        serde_json::from_value(json!({
            "metadata": {"name": words[0], "uid": words[0], "creationTimestamp": format!("2026-01-01T00:00:0{at}Z"),
                "annotations": {"deployment.kubernetes.io/revision": words[3],
                    "deployment.kubernetes.io/desired-replicas": words[4],
                    "deployment.kubernetes.io/max-replicas": (desired + surge).to_string()}},
            "spec": {"replicas": number(size), "template": template(words[1])},
            "status": {"replicas": number(size), "readyReplicas": number(available),
                "availableReplicas": number(available)}}))
        .map(Arc::new)
        .expect("a set")
    };
    text.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate().map(set).collect()
}

fn actions(deployment: &Deployment, sets: &[Arc<ReplicaSet>], pods: &[(&str, usize)]) -> Vec<Action> {
    let pods: BTreeMap<String, usize> = pods.iter().map(|(uid, count)| ((*uid).to_owned(), *count)).collect();
    plan(&Observed { deployment, sets, pods: &pods, now: NOW.parse().expect("a time") })
}

/// The steps without status and timers, in words.
fn steps(deployment: &Deployment, text: &str, pods: &[(&str, usize)]) -> String {
    let words = actions(deployment, &sets(text), pods).into_iter().filter_map(|action| match action {
        Action::Create { replicas, .. } => Some(format!("create {replicas}")),
        Action::Refresh { name, patch } => {
            Some(format!("refresh {name} {}", patch["metadata"]["annotations"]))
        }
        Action::Scale { name, from, to, .. } => Some(format!("{name} {from}->{to}")),
        Action::Delete { name } => Some(format!("delete {name}")),
        Action::SetRevision(revision) => Some(format!("revision {revision}")),
        Action::Status(_) | Action::After(_) => None,
    });
    words.collect::<Vec<_>>().join(", ")
}

#[test]
fn a_rolling_update_goes_step_by_step() {
    let web = |image| deployment(4, image, json!({}));
    for (name, image, sets, want) in [
        ("first set", "v1", "", "create 4"),
        ("steady", "v1", "a v1 4/4 1 4", ""),
        ("new template: surge only", "v2", "a v1 4/4 1 4", "create 1"),
        (
            "nothing new is available yet: one old pod may go",
            "v2",
            "a v1 4/4 1 4\n b v2 1/0 2 4",
            "revision 2",
        ),
        ("newest grows first", "v1", "b v2 3/3 2 4\n a v1 1/1 3 4", "revision 3"),
    ] {
        assert_eq!(steps(&web(image), sets, &[]), want, "{name}");
    }
    let second = json!({"/metadata/annotations": {"deployment.kubernetes.io/revision": "2"}});
    let web = deployment(4, "v2", second);
    for (name, sets, want) in [
        ("old ones shrink to what must be available", "a v1 4/4 1 4\n b v2 1/0 2 4", "a 4->3"),
        ("the newest grows into the room", "a v1 3/3 1 4\n b v2 1/0 2 4", "b 1->2"),
        ("it waits for what is not available", "a v1 3/3 1 4\n b v2 2/0 2 4", ""),
        ("as new ones become available old ones go", "a v1 3/3 1 4\n b v2 2/2 2 4", "a 3->1"),
        ("broken old pods go first", "a v1 2/0 1 4\n b v1x 2/2 1 4\n c v2 1/1 2 4", "a 2->0"),
        ("the last step", "a v1 1/1 1 4\n b v2 4/4 2 4", "a 1->0"),
        (
            "a rollback takes the old set, with a new revision",
            "b v2 0/0 1 4\n c v3 4/4 2 4",
            "refresh b {\"deployment.kubernetes.io/revision\":\"3\",\"deployment.kubernetes.io/revision-history\":\"1\"}",
        ),
    ] {
        assert_eq!(steps(&web, sets, &[]), want, "{name}");
    }
}

#[test]
fn a_recreation_waits_until_all_old_pods_are_gone() {
    let strategy = json!({"/spec/strategy": {"type": "Recreate"}});
    let web = deployment(2, "v2", strategy);
    for (name, sets, pods, want) in [
        ("old ones go", "a v1 2/2 1 2", vec![("a", 2)], "a 2->0"),
        ("they are still there", "a v1 0/0 1 2", vec![("a", 1)], ""),
        ("now the new ones come", "a v1 0/0 1 2", vec![("a", 0)], "create 2"),
    ] {
        assert_eq!(steps(&web, sets, &pods), want, "{name}");
    }
}

#[test]
fn sizes_follow_in_proportion_while_two_sets_have_pods() {
    for (name, replicas, paused, sets, want) in [
        ("one set", 6, false, "a v1 4/4 1 4", "a 4->6"),
        ("paused: only sizes", 4, true, "a v0 4/4 1 4", ""),
        ("up, both", 20, false, "a v0 8/8 1 10\n b v1 5/5 2 10", "a 8->15, b 5->10"),
        ("down, both", 5, false, "a v0 8/8 1 10\n b v1 5/5 2 10", "a 8->4, b 5->3"),
        ("to zero", 0, false, "a v0 8/8 1 10\n b v1 5/5 2 10", "a 8->0, b 5->0"),
    ] {
        let web = deployment(replicas, "v1", json!({"/spec/paused": paused}));
        assert_eq!(steps(&web, sets, &[]), want, "{name}");
    }
}

#[test]
fn old_sets_beyond_the_history_go_once_the_rollout_is_complete() {
    let web = deployment(
        1,
        "v4",
        json!({"/spec/revisionHistoryLimit": 1,
        "/metadata/annotations": {"deployment.kubernetes.io/revision": "4"}}),
    );
    let sets = "a v1 0/0 1 1\n b v2 0/0 2 1\n c v3 0/0 3 1\n d v4 1/1 4 1";
    assert_eq!(steps(&web, sets, &[]), "delete a, delete b");
}

#[test]
fn the_status_tells_how_it_gets_on() {
    let progressing = |reason: &str, status: &str, updated: &str| json!({"type": "Progressing", "status": status, "reason": reason, "lastUpdateTime": updated});
    for (name, replicas, sets, before, want) in [
        (
            "complete",
            2,
            "a v1 2/2 1 2",
            json!([]),
            "Available True MinimumReplicasAvailable, \
            Progressing True NewReplicaSetAvailable ReplicaSet \"a\" has successfully progressed.",
        ),
        (
            "getting on",
            2,
            "a v1 2/1 1 2",
            json!([]),
            "Available False MinimumReplicasUnavailable, \
            Progressing True ReplicaSetUpdated ReplicaSet \"a\" is progressing.",
        ),
        (
            "too slow",
            2,
            "a v1 2/0 1 2",
            json!([progressing("ReplicaSetUpdated", "True", "2026-01-01T00:00:00Z")]),
            "Available False MinimumReplicasUnavailable, \
            Progressing True ReplicaSetUpdated ",
        ),
    ] {
        let web = deployment(
            replicas,
            "v1",
            json!({"/status/conditions": before,
            "/status/replicas": 0, "/status/updatedReplicas": if name == "too slow" { 2 } else { 0 }}),
        );
        let status = actions(&web, &self::sets(sets), &[]).into_iter().find_map(|action| match action {
            Action::Status(status) => Some(status),
            _ => None,
        });
        let mut shown: Vec<String> = status
            .expect("a status")
            .conditions
            .iter()
            .map(|c| {
                let message = if c.kind == "Progressing" { format!(" {}", c.message) } else { String::new() };
                format!("{} {} {}{message}", c.kind, c.status, c.reason)
            })
            .collect();
        shown.sort();
        assert_eq!(shown.join(", "), want, "{name}");
    }
}

#[test]
fn the_deadline_passes() {
    let old = "2026-01-01T00:00:00Z";
    let web = deployment(
        2,
        "v1",
        json!({"/status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2,
        "conditions": [{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "lastUpdateTime": old}]},
        "/spec/progressDeadlineSeconds": 60}),
    );
    let found = actions(&web, &sets("a v1 2/0 1 2"), &[]);
    let timed_out = found.iter().any(|action| match action {
        Action::Status(status) => status.conditions.iter().any(|c| {
            c.reason == "ProgressDeadlineExceeded"
                && c.message == "ReplicaSet \"a\" has timed out progressing."
        }),
        _ => false,
    });
    assert!(timed_out, "{found:?}");
    let now: Timestamp = NOW.parse().expect("a time");
    assert!(now.as_second() > 0);
}

#[test]
fn a_new_set_carries_hash_revision_and_sizes() {
    let web = deployment(
        4,
        "v1",
        json!({"/metadata/annotations": {"note": "kept",
        "kubectl.kubernetes.io/last-applied-configuration": "{}"}}),
    );
    let found = actions(&web, &[], &[]);
    let set = match found.first() {
        Some(Action::Create { set, replicas: 4 }) => Some(set),
        _ => None,
    };
    let set = set.expect("a set of four");
    let hash = set["metadata"]["labels"]["pod-template-hash"].as_str().expect("a hash");
    assert_eq!(set["metadata"]["name"], format!("web-{hash}"));
    assert_eq!(set["spec"]["selector"]["matchLabels"]["pod-template-hash"], hash);
    assert_eq!(set["spec"]["template"]["metadata"]["labels"]["pod-template-hash"], hash);
    assert_eq!(
        set["metadata"]["annotations"],
        json!({"note": "kept", "deployment.kubernetes.io/revision": "1",
            "deployment.kubernetes.io/desired-replicas": "4", "deployment.kubernetes.io/max-replicas": "5"})
    );
}
