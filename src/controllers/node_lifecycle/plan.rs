//! Which taints a node should have, and when a pod has to leave. Pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::{NodeCondition, Taint, Toleration};

use crate::kinds::Node;

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition, the status that is bad, and the taint that follows.
const CONDITION_TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// Status of a condition.
pub(super) fn status<'a>(conditions: &'a [NodeCondition], kind: &str) -> &'a str {
    conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .map_or("", |condition| condition.status.as_str())
}

/// The taints that follow from a node's conditions, as (key, effect).
///
/// upstream: node_lifecycle_controller.go doNoScheduleTaintingPass, processTaintBaseEviction
pub(super) fn wanted_taints(node: &Node) -> Vec<(&'static str, &'static str)> {
    let conditions = &node.status.conditions;
    let mut wanted: Vec<(&str, &str)> = CONDITION_TAINTS
        .iter()
        .filter(|(kind, bad, _)| status(conditions, kind) == *bad)
        .map(|(_, _, taint)| (*taint, "NoSchedule"))
        .collect();
    if node.spec.unschedulable {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    match status(conditions, "Ready") {
        "False" => wanted.push((NOT_READY, "NoExecute")),
        "Unknown" => wanted.push((UNREACHABLE, "NoExecute")),
        _ => {}
    }
    wanted
}

/// Whether this controller decides about a taint.
fn is_ours(taint: &Taint) -> bool {
    let by_condition =
        CONDITION_TAINTS.iter().any(|(_, _, key)| *key == taint.key) || taint.key == UNSCHEDULABLE;
    match taint.effect.as_str() {
        "NoSchedule" => by_condition,
        "NoExecute" => taint.key == NOT_READY || taint.key == UNREACHABLE,
        _ => false,
    }
}

/// The taints that a node should have, if it has other ones. `make` gives a new taint its time.
pub(super) fn taints(node: &Node, make: impl Fn(&str, &str) -> Taint) -> Option<Vec<Taint>> {
    let wanted = wanted_taints(node);
    let has =
        |taints: &[Taint], key: &str, effect: &str| taints.iter().any(|t| t.key == key && t.effect == effect);
    // A node is born with not-ready:NoSchedule, which stays until it says for the first time how it is.
    let silent = status(&node.status.conditions, "Ready").is_empty();
    let keep = |taint: &&Taint| {
        !is_ours(taint)
            || wanted.contains(&(taint.key.as_str(), taint.effect.as_str()))
            || (silent && taint.key == NOT_READY)
    };
    let mut out: Vec<Taint> = node.spec.taints.iter().filter(keep).cloned().collect();
    for (key, effect) in wanted {
        if !has(&out, key, effect) {
            out.push(make(key, effect));
        }
    }
    (out != node.spec.taints).then_some(out)
}

/// How long a pod may stay on a node with these taints: `None` for ever, zero not at all.
///
/// upstream: taint_eviction.go getMinTolerationTime
pub(super) fn may_stay(taints: &[Taint], tolerations: &[Toleration]) -> Option<Duration> {
    let executing: Vec<&Taint> = taints.iter().filter(|taint| taint.effect == "NoExecute").collect();
    let mut least: Option<i64> = None;
    for taint in executing {
        let matching: Vec<&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if matching.is_empty() {
            return Some(Duration::ZERO);
        }
        for seconds in matching.iter().filter_map(|toleration| toleration.toleration_seconds) {
            least = Some(least.map_or(seconds, |least| least.min(seconds)));
        }
    }
    least.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match text(&toleration.operator).as_str() {
            "Exists" => true,
            "" | "Equal" => text(&toleration.value) == text(&taint.value),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn taints_follow_conditions() {
        for (name, ready, unschedulable, before, want) in [
            ("ready", "True", false, "", "same"),
            (
                "ready again",
                "True",
                false,
                "not-ready:NoSchedule not-ready:NoExecute own:NoExecute",
                "own:NoExecute",
            ),
            ("not ready", "False", false, "", "not-ready:NoSchedule not-ready:NoExecute"),
            (
                "silent",
                "Unknown",
                false,
                "not-ready:NoExecute",
                "unreachable:NoSchedule unreachable:NoExecute",
            ),
            ("cordoned", "True", true, "", "unschedulable:NoSchedule"),
            ("uncordoned", "True", false, "unschedulable:NoSchedule", ""),
            ("new", "", false, "not-ready:NoSchedule", "same"),
        ] {
            let taint = |text: &str| {
                let (key, effect) = text.split_once(':').expect("key:effect");
                let prefix = if key == "own" { "" } else { "node.kubernetes.io/" };
                json!({"key": format!("{prefix}{key}"), "effect": effect})
            };
            let taints_before: Vec<_> = before.split_whitespace().map(taint).collect();
            let conditions =
                if ready.is_empty() { json!([]) } else { json!([{"type": "Ready", "status": ready}]) };
            let node: Node = serde_json::from_value(json!({"spec": {"taints": taints_before,
                "unschedulable": unschedulable}, "status": {"conditions": conditions}}))
            .expect("a node");
            let made = taints(&node, |key, effect| Taint {
                key: key.into(),
                effect: effect.into(),
                ..Taint::default()
            });
            let shown = made.map_or("same".to_owned(), |taints| {
                let short =
                    |t: &Taint| format!("{}:{}", t.key.trim_start_matches("node.kubernetes.io/"), t.effect);
                taints.iter().map(short).collect::<Vec<_>>().join(" ")
            });
            assert_eq!(shown, want, "{name}");
        }
    }

    #[test]
    fn tolerations_say_how_long() {
        let taint = |key: &str| Taint { key: key.into(), effect: "NoExecute".into(), ..Taint::default() };
        let tolerate = |key: &str, seconds: Option<i64>| Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            toleration_seconds: seconds,
            ..Toleration::default()
        };
        let seconds = |n| Some(Duration::from_secs(n));
        for (name, taints, tolerations, want) in [
            ("no taint", vec![], vec![], None),
            ("not tolerated", vec![taint("a")], vec![], seconds(0)),
            ("for ever", vec![taint("a")], vec![tolerate("a", None)], None),
            ("for a while", vec![taint("a")], vec![tolerate("a", Some(300))], seconds(300)),
            (
                "the shorter",
                vec![taint("a"), taint("b")],
                vec![tolerate("a", Some(300)), tolerate("b", Some(20))],
                seconds(20),
            ),
            ("one of two", vec![taint("a"), taint("b")], vec![tolerate("a", None)], seconds(0)),
            ("negative is at once", vec![taint("a")], vec![tolerate("a", Some(-1))], seconds(0)),
        ] {
            assert_eq!(may_stay(&taints, &tolerations), want, "{name}");
        }
    }
}
