//! Which taints a node should have, and when a pod has to leave. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use copepod_client::scheduling::tolerates;
use k8s_openapi::api::core::v1::{NodeCondition, Taint, Toleration};

use super::zones::Health;
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

/// Whether pods of a node that is not ready have to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eviction {
    /// They have.
    Due,
    /// Not yet: a `NoExecute` taint that is there is exchanged for the right one, none is added.
    Waits,
    /// No node is heard, so that none is given up: no `NoExecute` taint.
    Stopped,
}

/// Whether the node's condition calls for a `NoExecute` taint that it has in neither form.
pub(super) fn asks_for_eviction(node: &Node) -> bool {
    matches!(status(&node.status.conditions, "Ready"), "False" | "Unknown") && !evicts(&node.spec.taints)
}

fn evicts(taints: &[Taint]) -> bool {
    taints.iter().any(|t| t.effect == "NoExecute" && (t.key == NOT_READY || t.key == UNREACHABLE))
}

/// The taints that follow from a node's conditions, as (key, effect).
///
/// upstream: node_lifecycle_controller.go doNoScheduleTaintingPass, processTaintBaseEviction
fn wanted_taints(node: &Node, eviction: Eviction) -> Vec<(&'static str, &'static str)> {
    let conditions = &node.status.conditions;
    let mut wanted: Vec<(&str, &str)> = CONDITION_TAINTS
        .iter()
        .filter(|(kind, bad, _)| status(conditions, kind) == *bad)
        .map(|(_, _, taint)| (*taint, "NoSchedule"))
        .collect();
    if node.spec.unschedulable {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let evict = match eviction {
        Eviction::Due => true,
        Eviction::Waits => evicts(&node.spec.taints),
        Eviction::Stopped => false,
    };
    match status(conditions, "Ready") {
        "False" if evict => wanted.push((NOT_READY, "NoExecute")),
        "Unknown" if evict => wanted.push((UNREACHABLE, "NoExecute")),
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
pub(super) fn taints(
    node: &Node,
    eviction: Eviction,
    make: impl Fn(&str, &str) -> Taint,
) -> Option<Vec<Taint>> {
    let wanted = wanted_taints(node, eviction);
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

/// Labels with the old names that lack or differ from the new names' values.
///
/// upstream: node_lifecycle_controller.go reconcileNodeLabels
pub(super) fn old_labels(node: &Node) -> BTreeMap<&'static str, &str> {
    const NAMES: [(&str, &str); 2] =
        [("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch")];
    let labels = node.metadata.labels.as_ref();
    let value = |name: &str| labels.and_then(|labels| labels.get(name));
    NAMES
        .iter()
        .filter(|(new, old)| value(new).is_some() && value(new) != value(old))
        .filter_map(|(new, old)| Some((*old, value(new)?.as_str())))
        .collect()
}

/// Where a node is, and how it counts there.
///
/// upstream: component-helpers/node/topology GetZoneKey, isNodeExcludedFromDisruptionChecks
pub(super) fn place(node: &Node) -> (String, Health) {
    let label = |name: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(name));
    let either = |new: &str, old: &str| label(new).or_else(|| label(old)).map_or("", String::as_str);
    let region = either("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region");
    let zone = either("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone");
    let health = match status(&node.status.conditions, "Ready") {
        _ if label("node.kubernetes.io/exclude-disruption").is_some() => Health::Excluded,
        "True" => Health::Ready,
        _ => Health::NotReady,
    };
    // No label holds a zero byte, so that two places never share a name.
    (format!("{region}\0{zone}"), health)
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn taints_follow_conditions() {
        for (name, ready, unschedulable, before, eviction, want) in [
            ("ready", "True", false, "", Eviction::Due, "same"),
            (
                "ready again",
                "True",
                false,
                "not-ready:NoSchedule not-ready:NoExecute own:NoExecute",
                Eviction::Due,
                "own:NoExecute",
            ),
            ("not ready", "False", false, "", Eviction::Due, "not-ready:NoSchedule not-ready:NoExecute"),
            ("not ready, its turn has not come", "False", false, "", Eviction::Waits, "not-ready:NoSchedule"),
            (
                "silent, had its turn before",
                "Unknown",
                false,
                "not-ready:NoExecute",
                Eviction::Waits,
                "unreachable:NoSchedule unreachable:NoExecute",
            ),
            (
                "silent as all others are",
                "Unknown",
                false,
                "unreachable:NoExecute own:NoExecute",
                Eviction::Stopped,
                "own:NoExecute unreachable:NoSchedule",
            ),
            ("cordoned", "True", true, "", Eviction::Due, "unschedulable:NoSchedule"),
            ("uncordoned", "True", false, "unschedulable:NoSchedule", Eviction::Due, ""),
            ("new", "", false, "not-ready:NoSchedule", Eviction::Due, "same"),
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
            let made = taints(&node, eviction, |key, effect| Taint {
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
    fn labels_say_where_and_what() {
        let node = |labels: serde_json::Value| -> Node {
            serde_json::from_value(json!({"metadata": {"labels": labels},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]}}))
            .expect("a node")
        };
        for (labels, want) in [
            (json!({}), ("\0", Health::Ready)),
            (json!({"topology.kubernetes.io/zone": "a"}), ("\0a", Health::Ready)),
            (json!({"failure-domain.beta.kubernetes.io/region": "r"}), ("r\0", Health::Ready)),
            (json!({"node.kubernetes.io/exclude-disruption": ""}), ("\0", Health::Excluded)),
        ] {
            assert_eq!(place(&node(labels.clone())), (want.0.to_owned(), want.1), "{labels}");
        }
        for (labels, want) in [
            (json!({}), ""),
            (json!({"kubernetes.io/os": "linux"}), "beta.kubernetes.io/os=linux"),
            (json!({"kubernetes.io/os": "linux", "beta.kubernetes.io/os": "linux"}), ""),
            (json!({"kubernetes.io/arch": "a", "beta.kubernetes.io/arch": "b"}), "beta.kubernetes.io/arch=a"),
        ] {
            let node = node(labels.clone());
            let shown: Vec<_> = old_labels(&node).iter().map(|(k, v)| format!("{k}={v}")).collect();
            assert_eq!(shown.join(" "), want, "{labels}");
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
