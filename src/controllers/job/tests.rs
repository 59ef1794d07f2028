//! Jobs: what is planned for what is observed.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::backoff::Backoff;
use super::plan::{Turn, plan};
use super::{FAILURES, INDEX, TRACKING};
use crate::kinds::{Job, Pod};

const NOW: &str = "2026-01-01T01:00:00Z";

fn job(spec: Value, status: Value) -> Job {
    let mut spec = spec;
    spec["template"] = json!({"spec": {"restartPolicy": "Never"}});
    serde_json::from_value(json!({"metadata": {"name": "j", "namespace": "x", "uid": "J"}, "spec": spec,
        "status": status}))
    .expect("a job")
}

/// `name:phase[+][x][@index][#failures][=code]`: `+` carries the finalizer, `x` is being deleted, `#` failures of its
/// index before it, `=` exit code.
fn pods(text: &str) -> Vec<Arc<Pod>> {
    let pod = |word: &str| {
        let (word, code) =
            word.split_once('=').map_or((word, 1), |(word, code)| (word, code.parse().expect("a code")));
        let (word, failures) = word.split_once('#').map_or((word, None), |(word, n)| (word, Some(n)));
        let (word, index) = word.split_once('@').map_or((word, None), |(word, index)| (word, Some(index)));
        let (name, marks) = word.split_once(':').expect("name:phase");
        let phase = marks.trim_end_matches(['+', 'x']);
        let marks = &marks[phase.len()..];
        let mut value = json!({"metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": if marks.contains('+') { json!([TRACKING]) } else { json!([]) }},
            "status": {"phase": phase, "containerStatuses": [{"name": "c", "state": {}}]}});
        if marks.contains('x') {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:30:00Z");
        }
        if phase == "Failed" {
            value["status"]["containerStatuses"][0]["state"] =
                json!({"terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:10:00Z"}});
        }
        for (annotation, text) in [(INDEX, index), (FAILURES, failures)] {
            if let Some(text) = text {
                value["metadata"]["annotations"][annotation] = json!(text);
            }
        }
        Arc::new(serde_json::from_value(value).expect("a pod"))
    };
    text.split_whitespace().map(pod).collect()
}

fn turn(job: &Job, text: &str) -> Turn {
    plan(job, &pods(text), true, &Backoff::default(), NOW.parse::<Timestamp>().expect("a time"))
}

/// What is done to pods: `+2`, `+0 +3` by index, `-name` counted, `~name` discarded, `.name` let go.
fn steps(turn: &Turn) -> String {
    let mut out: Vec<String> = Vec::new();
    if turn.create.iter().any(|new| new.index.is_none()) {
        out.push(format!("+{}", turn.create.len()));
    }
    for new in &turn.create {
        let failures =
            new.failures.map(|(counted, ignored)| format!("#{counted}/{ignored}")).unwrap_or_default();
        out.extend(new.index.map(|index| format!("+{index}{failures}")));
    }
    for (sign, names) in [('-', &turn.delete), ('~', &turn.discard), ('.', &turn.untrack)] {
        out.extend(names.iter().map(|name| format!("{sign}{name}")));
    }
    out.join(" ")
}

fn conditions(job: &Job) -> String {
    let shown = |c: &crate::kinds::Condition| format!("{}:{}", c.kind, c.reason);
    let true_ones = job.status.conditions.iter().filter(|c| c.status == "True");
    true_ones.map(shown).collect::<Vec<_>>().join(" ")
}

/// Turns until nothing changes: pods lose their finalizer when told, and are gone when they were being deleted too;
/// pods that are told to go are being deleted from then on. Returns the job and all that was done.
fn settle(spec: &Value, text: &str) -> (Job, Vec<String>) {
    let (mut status, mut words) = (json!({}), text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let mut log = Vec::new();
    for _ in 0..8 {
        let current = job(spec.clone(), status.clone());
        let done = turn(&current, &words.join(" "));
        log.push(steps(&done));
        log.extend(done.events.iter().map(|(_, reason, _)| reason.clone()));
        let named =
            |word: &str, names: &[String]| names.iter().any(|name| word.starts_with(&format!("{name}:")));
        let ending = |marks: &str, word: &str| word.replacen(marks, &format!("{marks}x"), 1);
        for word in &mut words {
            if named(word, &done.delete) || named(word, &done.discard) {
                *word = ending("Running", word).replace("x+", "+x");
            }
            if named(word, &done.untrack) || named(word, &done.discard) {
                *word = word.replace('+', "");
            }
        }
        words.retain(|word| !word.contains('x') || word.contains('+'));
        match done.status {
            Some(new) => status = json!(new),
            None => break,
        }
    }
    (job(spec.clone(), status), log.into_iter().filter(|line| !line.is_empty()).collect())
}

#[test]
fn ends_are_counted_once_and_the_job_ends_with_the_last() {
    let never = |text: &str| json!({"onExitCodes": {"operator": "In", "values": [42]}, "action": text});
    let policy = |text: &str, limit: i32| json!({"completions": 1, "backoffLimit": limit, "podFailurePolicy": {"rules": [never(text)]}});
    for (name, spec, pods, counts, ended) in [
        (
            "enough",
            json!({"completions": 2, "parallelism": 2}),
            "a:Succeeded+ b:Succeeded+",
            (2, 0),
            "SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached",
        ),
        ("one of two", json!({"completions": 2, "parallelism": 1}), "a:Succeeded+", (1, 0), ""),
        (
            "any one",
            json!({"parallelism": 1}),
            "a:Succeeded+",
            (1, 0),
            "SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached",
        ),
        ("any one, another runs", json!({"parallelism": 2}), "a:Succeeded+ b:Running+", (1, 0), ""),
        (
            "too many failures",
            json!({"completions": 1, "backoffLimit": 0}),
            "a:Failed+",
            (0, 1),
            "FailureTarget:BackoffLimitExceeded Failed:BackoffLimitExceeded",
        ),
        (
            "those that still run are failures too",
            json!({"completions": 3, "parallelism": 3, "backoffLimit": 0}),
            "a:Failed+ b:Running+ c:Succeeded+",
            (1, 2),
            "FailureTarget:BackoffLimitExceeded Failed:BackoffLimitExceeded",
        ),
        (
            "counted before",
            json!({"completions": 3, "parallelism": 3}),
            "a:Succeeded b:Running+ c:Running+ d:Running+",
            (0, 0),
            "",
        ),
        (
            "a suspended job's pods are no failures",
            json!({"suspend": true}),
            "a:Running+",
            (0, 0),
            "Suspended:JobSuspended",
        ),
        (
            "a code that ends the job",
            policy("FailJob", 6),
            "a:Failed+=42",
            (0, 1),
            "FailureTarget:PodFailurePolicy Failed:PodFailurePolicy",
        ),
        ("a code that is ignored", policy("Ignore", 0), "a:Failed+=42", (0, 0), ""),
        ("another code", policy("Ignore", 6), "a:Failed+=41", (0, 1), ""),
    ] {
        let (job, log) = settle(&spec, pods);
        assert_eq!((job.status.succeeded, job.status.failed), counts, "{name}: {log:?}");
        assert_eq!(conditions(&job), ended, "{name}: {log:?}");
        let uncounted = &job.status.uncounted_terminated_pods;
        assert!(uncounted.succeeded.is_empty() && uncounted.failed.is_empty(), "{name}");
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
    let replacing =
        |policy: &str| json!({"completions": 2, "parallelism": 2, "podReplacementPolicy": policy});
    let mut suspended = indexed.clone();
    suspended["suspend"] = json!(true);
    for (name, spec, pods, want) in [
        ("all at first", json!({"completions": 5, "parallelism": 3}), "", "+3"),
        ("the rest", json!({"completions": 2, "parallelism": 3}), "a:Running+", "+1"),
        ("less parallel", json!({"completions": 5, "parallelism": 1}), "a:Running+ b:Running+", "~a"),
        ("none parallel", json!({"completions": 5, "parallelism": 0}), "a:Running+", "~a"),
        ("a queue drains", json!({"parallelism": 3}), "a:Succeeded+ b:Running+", ".a"),
        ("indexes", indexed.clone(), "", "+0 +1 +2"),
        ("free indexes", indexed.clone(), "a:Succeeded+@0 b:Running+@2", "+1 +3 .a"),
        ("one of each index", indexed.clone(), "a:Running+@1 b:Running+@1 c:Running+@2", "~a"),
        ("no or no such index", indexed, "a:Running+ b:Running+@9 c:Running+@2", "~a ~b"),
        ("suspended", json!({"completions": 1, "suspend": true}), "a:Running+", "~a"),
        ("suspended, indexed", suspended, "a:Running+@0 b:Running+@1", "~a ~b"),
        ("a failure long ago", json!({"completions": 1}), "a:Failed+", "+1 .a"),
        ("replaced while it ends", replacing("TerminatingOrFailed"), "a:Running+x b:Running+", "+1 .a"),
        ("replaced when it has ended", replacing("Failed"), "a:Running+x b:Running+", ""),
        ("it has ended", replacing("Failed"), "a:Failed+x b:Running+", "+1 .a"),
    ] {
        assert_eq!(steps(&turn(&job(spec, json!({})), pods)), want, "{name}");
    }
    let late = json!({"startTime": "2026-01-01T00:00:00Z"});
    let done = turn(&job(json!({"completions": 1, "activeDeadlineSeconds": 60}), late), "a:Running+");
    assert_eq!(steps(&done), "-a .a", "past the deadline");
    let unseen = plan(
        &job(json!({"completions": 2}), json!({})),
        &[],
        false,
        &Backoff::default(),
        NOW.parse().expect("a time"),
    );
    assert_eq!(steps(&unseen), "", "earlier creations have yet to be seen");
}

#[test]
fn each_index_may_fail_so_often() {
    let spec = |extra: Value| {
        let mut spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed",
            "backoffLimit": i32::MAX, "backoffLimitPerIndex": 1});
        for (key, value) in extra.as_object().expect("fields") {
            spec[key] = value.clone();
        }
        spec
    };
    for (name, extra, pods, want) in [
        ("the first pods know of no failure", json!({}), "", "+0#0/0 +1#0/0 +2#0/0"),
        (
            "the next knows of one, and the failed one stays until then",
            json!({}),
            "a:Failed+@0 b:Running+@1 c:Running+@2",
            "+0#1/0",
        ),
        ("then it may go", json!({}), "a:Failed+@0 d:Running+@0#1 b:Running+@1 c:Running+@2", ".a"),
        ("given up", json!({}), "a:Failed+@0#1 b:Running+@1 c:Running+@2", ".a"),
        (
            "a rule that ignores",
            json!({"podFailurePolicy": {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}}]}}),
            "a:Failed+@0#1=42 b:Running+@1 c:Running+@2",
            "+0#1/1",
        ),
        (
            "a rule that gives up",
            json!({"podFailurePolicy": {"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}]}}),
            "a:Failed+@0#0=42 b:Running+@1 c:Running+@2",
            ".a",
        ),
        (
            "too many given up",
            json!({"maxFailedIndexes": 0}),
            "a:Failed+@0#1 b:Running+@1 c:Running+@2",
            "-b -c .a .b .c",
        ),
    ] {
        assert_eq!(steps(&turn(&job(spec(extra), json!({})), pods)), want, "{name}");
    }
    for (name, extra, pods, indexes, ended) in [
        (
            "all over, one failed",
            json!({}),
            "a:Failed+@0#1 b:Succeeded+@1 c:Succeeded+@2",
            ("1,2", "0"),
            "FailureTarget:FailedIndexes Failed:FailedIndexes",
        ),
        (
            "too many",
            json!({"maxFailedIndexes": 0}),
            "a:Failed+@0#1 b:Succeeded+@1 c:Running+@2",
            ("1", "0"),
            "FailureTarget:MaxFailedIndexesExceeded Failed:MaxFailedIndexesExceeded",
        ),
    ] {
        let (job, log) = settle(&spec(extra), pods);
        let completed = job.status.completed_indexes.clone().unwrap_or_default();
        let failed = job.status.failed_indexes.clone().unwrap_or_default();
        assert_eq!((completed.as_str(), failed.as_str()), indexes, "{name}: {log:?}");
        assert_eq!(conditions(&job), ended, "{name}: {log:?}");
    }
}

#[test]
fn some_successes_may_be_enough() {
    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]}});
    let (job, log) = settle(&spec, "a:Succeeded+@0 b:Running+@1 c:Failed+@2");
    assert_eq!(conditions(&job), "SuccessCriteriaMet:SuccessPolicy Complete:SuccessPolicy", "{log:?}");
    assert_eq!((job.status.succeeded, job.status.completed_indexes.as_deref()), (1, Some("0")));
    assert_eq!(
        log,
        ["-b .a .b .c", "Completed"],
        "the others go, and count for nothing unless they had failed"
    );
    assert_eq!(job.status.failed, 1, "the one that had failed by itself");
}

#[test]
fn a_suspended_job_stands_still_and_begins_anew() {
    let started = json!({"startTime": "2026-01-01T00:00:00Z"});
    let suspended = turn(&job(json!({"completions": 1, "suspend": true}), started), "");
    let status = suspended.status.expect("a status");
    assert!(status.start_time.is_none(), "the deadline counts from the next start");
    assert_eq!(suspended.events.len(), 1);
    let resumed = turn(&job(json!({"completions": 1}), json!(status)), "");
    let status = resumed.status.as_ref().expect("a status");
    assert_eq!(status.start_time.as_ref().map(|t| t.0.to_string()).as_deref(), Some(NOW));
    assert_eq!(status.conditions.iter().map(|c| c.status.as_str()).collect::<Vec<_>>(), ["False"]);
    assert_eq!(steps(&resumed), "+1");
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
    let done = plan(&job(json!({"completions": 1}), json!({})), &failed, true, &Backoff::default(), now);
    assert!(done.create.is_empty());
    assert_eq!(done.after.map(|after| after.as_secs()), Some(5), "ten seconds after the failure");
    let again = plan(&job(json!({"completions": 1}), json!({})), &[], true, &done.backoff, now);
    assert!(again.create.is_empty(), "remembered when the pod is gone");
}
