//! Jobs: what is planned for what is observed.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Turn, plan};
use super::{INDEX, TRACKING};
use crate::kinds::{Job, Pod};

const NOW: &str = "2026-01-01T01:00:00Z";

fn job(spec: Value, status: Value) -> Job {
    let mut spec = spec;
    spec["template"] = json!({"spec": {"restartPolicy": "Never"}});
    serde_json::from_value(json!({"metadata": {"name": "j", "namespace": "x", "uid": "J"}, "spec": spec,
        "status": status}))
    .expect("a job")
}

/// `name:phase[+][@index]`: `+` still carries the finalizer.
fn pods(text: &str) -> Vec<Arc<Pod>> {
    let pod = |word: &str| {
        let (word, index) = word.split_once('@').map_or((word, None), |(word, index)| (word, Some(index)));
        let (name, phase) = word.split_once(':').expect("name:phase");
        let tracked = phase.ends_with('+');
        let mut value = json!({"metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": if tracked { json!([TRACKING]) } else { json!([]) }},
            "status": {"phase": phase.trim_end_matches('+')}});
        if let Some(index) = index {
            value["metadata"]["annotations"] = json!({ INDEX: index });
        }
        Arc::new(serde_json::from_value(value).expect("a pod"))
    };
    text.split_whitespace().map(pod).collect()
}

fn turn(job: &Job, text: &str) -> Turn {
    plan(job, &pods(text), true, NOW.parse::<Timestamp>().expect("a time"))
}

/// Turns until nothing changes; pods lose their finalizer when told, created ones start to run.
fn settle(spec: Value, text: &str) -> (Job, Vec<String>) {
    let (mut status, mut names) = (json!({}), text.to_owned());
    let mut log = Vec::new();
    for _ in 0..6 {
        let current = job(spec.clone(), status.clone());
        let done = turn(&current, &names);
        log.extend(done.events.iter().map(|(_, reason, _)| (*reason).to_owned()));
        if !done.create.is_empty() && log.is_empty() {
            log.push(format!("create {}", done.create.len()));
        }
        for name in &done.untrack {
            names = names
                .split(' ')
                .map(|w| if w.starts_with(&format!("{name}:")) { w.replace('+', "") } else { w.to_owned() })
                .collect::<Vec<_>>()
                .join(" ");
        }
        match done.status {
            Some(new) => status = json!(new),
            None => break,
        }
    }
    (job(spec, status), log)
}

#[test]
fn ends_are_counted_once_and_the_job_ends_with_the_last() {
    for (name, spec, pods, counts, log) in [
        (
            "enough",
            json!({"completions": 2, "parallelism": 2}),
            "a:Succeeded+ b:Succeeded+",
            (2, 0),
            "Completed",
        ),
        ("one of two", json!({"completions": 2, "parallelism": 1}), "a:Succeeded+", (1, 0), "create 1"),
        ("any one", json!({"parallelism": 1}), "a:Succeeded+", (1, 0), "Completed"),
        ("any one, another runs", json!({"parallelism": 2}), "a:Succeeded+ b:Running+", (1, 0), ""),
        (
            "too many failures",
            json!({"completions": 1, "backoffLimit": 0}),
            "a:Failed+",
            (0, 1),
            "BackoffLimitExceeded",
        ),
        (
            "counted before",
            json!({"completions": 3, "parallelism": 3}),
            "a:Succeeded b:Running+ c:Running+ d:Running+",
            (0, 0),
            "",
        ),
    ] {
        let (ended, events) = settle(spec, pods);
        assert_eq!((ended.status.succeeded, ended.status.failed), counts, "{name}");
        assert_eq!(events.join(" "), log, "{name}");
        assert!(ended.status.uncounted_terminated_pods.succeeded.is_empty(), "{name}");
    }
}

#[test]
fn a_pod_is_let_go_only_after_it_is_listed() {
    let first = turn(&job(json!({"completions": 1}), json!({})), "a:Succeeded+");
    let status = first.status.expect("a status");
    assert_eq!(status.uncounted_terminated_pods.succeeded, ["a"]);
    assert_eq!((status.succeeded, first.untrack.as_slice()), (0, &["a".to_owned()][..]));
    let complete = status.conditions.iter().any(|condition| condition.kind == "Complete");
    assert!(!complete, "not before it is counted");
}

#[test]
fn what_is_missing_is_created_and_what_is_too_much_deleted() {
    let indexed = json!({"completions": 4, "parallelism": 3, "completionMode": "Indexed"});
    for (name, spec, pods, create, delete) in [
        ("all at first", json!({"completions": 5, "parallelism": 3}), "", vec![None, None, None], 0),
        ("the rest", json!({"completions": 2, "parallelism": 3}), "a:Running+", vec![None], 0),
        ("less parallel", json!({"completions": 5, "parallelism": 1}), "a:Running+ b:Running+", vec![], 1),
        ("indexes", indexed.clone(), "", vec![Some(0), Some(1), Some(2)], 0),
        ("free indexes", indexed, "a:Succeeded+@0 b:Running+@2", vec![Some(1), Some(3)], 0),
        ("suspended", json!({"completions": 1, "suspend": true}), "a:Running+", vec![], 1),
        ("after a failure a while passes", json!({"completions": 1}), "a:Failed+", vec![None], 0),
    ] {
        let done = turn(&job(spec, json!({})), pods);
        assert_eq!((done.create, done.delete.len()), (create, delete), "{name}");
    }
    let late = json!({"startTime": "2026-01-01T00:00:00Z"});
    let done = turn(&job(json!({"completions": 1, "activeDeadlineSeconds": 60}), late), "a:Running+");
    assert_eq!(done.delete, ["a"], "past the deadline");
}

#[test]
fn a_fresh_failure_is_waited_for() {
    let mut failed = pods("a:Failed+");
    let state = json!({"terminated": {"finishedAt": "2026-01-01T00:59:55Z"}});
    let mut pod = (*failed[0]).clone();
    pod.status.container_statuses =
        vec![crate::kinds::ContainerStatus { state, ..crate::kinds::ContainerStatus::default() }];
    failed[0] = Arc::new(pod);
    let now = NOW.parse::<Timestamp>().expect("a time");
    let done = plan(&job(json!({"completions": 1}), json!({})), &failed, true, now);
    assert!(done.create.is_empty());
    assert_eq!(done.after.map(|after| after.as_secs()), Some(5), "ten seconds after the failure");
}
