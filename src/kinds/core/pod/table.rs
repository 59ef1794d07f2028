//! `kubectl get pods`. upstream: pkg/printers/internalversion/printers.go printPod

use copepod_meta::Value;

use crate::cells::{self, NONE};
use crate::strategy::{Cell, Row};

/// What the columns READY, STATUS and RESTARTS are made of.
#[derive(Default)]
struct Summary<'a> {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    /// When the container that restarted last had ended; "" for never.
    last_restart: &'a str,
}

/// The row.
pub fn row(pod: &Value) -> Row {
    let summary = summarize(pod);
    let restarts = match summary.last_restart {
        last if summary.restarts != 0 && !last.is_empty() => {
            cells::since(last).between(format!("{} (", summary.restarts), " ago)")
        }
        _ => summary.restarts.to_string().into(),
    };
    let or_none = |text: &str| Cell::from(if text.is_empty() { NONE } else { text });
    let ip = pod.list_at(&["status", "podIPs"]).first().map_or("", |i| i.str_at(&["ip"]));
    let cells = vec![
        cells::name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts,
        cells::age(pod),
        or_none(ip),
        or_none(pod.str_at(&["spec", "nodeName"])),
        or_none(pod.str_at(&["status", "nominatedNodeName"])),
        readiness_gates(pod).into(),
    ];
    let conditions = match pod.str_at(&["status", "phase"]) {
        "Succeeded" => vec![completed("Succeeded", "The pod has completed successfully.")],
        "Failed" => vec![completed("Failed", "The pod failed.")],
        _ => Vec::new(),
    };
    Row { cells, conditions }
}

fn completed(reason: &str, message: &str) -> Value {
    let mut out = Value::map();
    for (name, text) in [("type", "Completed"), ("status", "True"), ("reason", reason), ("message", message)]
    {
        out.set(&[name], text);
    }
    out
}

fn readiness_gates(pod: &Value) -> String {
    let gates = pod.list_at(&["spec", "readinessGates"]);
    if gates.is_empty() {
        return NONE.into();
    }
    let met = gates.iter().filter(|g| condition(pod, g.str_at(&["conditionType"])) == Some("True")).count();
    format!("{met}/{}", gates.len())
}

/// The status of the first condition of a type.
fn condition<'a>(pod: &'a Value, ty: &str) -> Option<&'a str> {
    let conditions = pod.list_at(&["status", "conditions"]);
    conditions.iter().find(|c| c.str_at(&["type"]) == ty).map(|c| c.str_at(&["status"]))
}

fn summarize(pod: &Value) -> Summary<'_> {
    let phase = pod.str_at(&["status", "phase"]);
    let mut out = Summary { total: pod.list_at(&["spec", "containers"]).len(), ..Summary::default() };
    out.reason = match pod.str_at(&["status", "reason"]) {
        "" => phase.into(),
        reason => reason.into(),
    };
    let gated =
        |c: &Value| c.str_at(&["type"]) == "PodScheduled" && c.str_at(&["reason"]) == "SchedulingGated";
    if pod.list_at(&["status", "conditions"]).iter().any(gated) {
        out.reason = "SchedulingGated".into();
    }
    out.total += pod.list_at(&["spec", "initContainers"]).iter().filter(|c| is_sidecar(c)).count();
    let (initializing, sidecar_restarts, sidecar_last) = init_containers(pod, &mut out);
    if !initializing || condition(pod, "Initialized") == Some("True") {
        (out.restarts, out.last_restart) = (sidecar_restarts, sidecar_last);
        regular_containers(pod, &mut out);
    }
    if !pod.at(&["metadata", "deletionTimestamp"]).is_null() {
        if pod.str_at(&["status", "reason"]) == "NodeLost" {
            out.reason = "Unknown".into();
        } else if !matches!(phase, "Failed" | "Succeeded") {
            out.reason = "Terminating".into();
        }
    }
    out
}

fn is_sidecar(container: &Value) -> bool {
    container.str_at(&["restartPolicy"]) == "Always"
}

/// The later of two times in their wire form (UTC, so that text order is time order).
fn later<'a>(a: &'a str, status: &'a Value) -> &'a str {
    a.max(status.str_at(&["lastState", "terminated", "finishedAt"]))
}

/// Walks init containers up to the one that runs or failed: (initializing, restarts and last restart of sidecars).
fn init_containers<'a>(pod: &'a Value, out: &mut Summary<'a>) -> (bool, i64, &'a str) {
    let specs = pod.list_at(&["spec", "initContainers"]);
    let (mut restarts, mut last) = (0, "");
    for (i, status) in pod.list_at(&["status", "initContainerStatuses"]).iter().enumerate() {
        let name = status.str_at(&["name"]);
        let sidecar = specs.iter().rfind(|c| c.str_at(&["name"]) == name).is_some_and(is_sidecar);
        out.restarts += status.int_at(&["restartCount"]);
        out.last_restart = later(out.last_restart, status);
        if sidecar {
            restarts += status.int_at(&["restartCount"]);
            last = later(last, status);
        }
        let terminated = status.at(&["state", "terminated"]);
        let waiting = status.str_at(&["state", "waiting", "reason"]);
        if !terminated.is_null() && terminated.int_at(&["exitCode"]) == 0 {
            continue;
        }
        if sidecar && status.bool_at(&["started"]) {
            out.ready += usize::from(status.bool_at(&["ready"]));
            continue;
        }
        out.reason = if !terminated.is_null() {
            format!("Init:{}", terminated_reason(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", specs.len())
        };
        return (true, restarts, last);
    }
    (false, restarts, last)
}

fn terminated_reason(terminated: &Value) -> String {
    match (terminated.str_at(&["reason"]), terminated.int_at(&["signal"])) {
        ("", 0) => format!("ExitCode:{}", terminated.int_at(&["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}

fn regular_containers<'a>(pod: &'a Value, out: &mut Summary<'a>) {
    let (mut running, mut error) = (false, String::new());
    for status in pod.list_at(&["status", "containerStatuses"]).iter().rev() {
        out.restarts += status.int_at(&["restartCount"]);
        out.last_restart = later(out.last_restart, status);
        let waiting = status.str_at(&["state", "waiting", "reason"]);
        let terminated = status.at(&["state", "terminated"]);
        if !waiting.is_empty() {
            out.reason = waiting.into();
        } else if !terminated.is_null() {
            out.reason = terminated_reason(terminated);
            if terminated.int_at(&["exitCode"]) != 0 {
                error = out.reason.clone();
            }
        } else if status.bool_at(&["ready"]) && !status.at(&["state", "running"]).is_null() {
            running = true;
            out.ready += 1;
        }
    }
    if out.reason == "Completed" {
        let ready = |c: &Value| c.str_at(&["type"]) == "Ready" && c.str_at(&["status"]) == "True";
        if running && pod.list_at(&["status", "conditions"]).iter().any(ready) {
            out.reason = "Running".into();
        } else if !error.is_empty() {
            out.reason = error;
        } else if running {
            out.reason = "NotReady".into();
        }
    }
}
