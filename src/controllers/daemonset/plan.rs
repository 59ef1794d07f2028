//! Which nodes want a pod, which pods have to go, and the status. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use copepod_client::object::MetaExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Toleration;
use serde_json::{Value, json};

use crate::common::{pods, revisions};
use crate::deployment::scaled_value;
use crate::kinds::{DaemonSet, DaemonSetStatus, Node, Pod};

/// Tolerations that every pod of a daemon set gets: (key, effect, only with the host's network).
///
/// upstream: pkg/controller/daemon/util/daemonset_util.go AddOrUpdateDaemonPodTolerations
const TOLERATIONS: [(&str, &str, bool); 7] = [
    ("node.kubernetes.io/not-ready", "NoExecute", false),
    ("node.kubernetes.io/unreachable", "NoExecute", false),
    ("node.kubernetes.io/disk-pressure", "NoSchedule", false),
    ("node.kubernetes.io/memory-pressure", "NoSchedule", false),
    ("node.kubernetes.io/pid-pressure", "NoSchedule", false),
    ("node.kubernetes.io/unschedulable", "NoSchedule", false),
    ("node.kubernetes.io/network-unavailable", "NoSchedule", true),
];

/// What to do with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// A pod belongs there.
    pub should_run: bool,
    /// A pod that is there may stay.
    pub may_stay: bool,
}

/// The tolerations of the set's pods.
pub(super) fn tolerations(template: &Value) -> Vec<Value> {
    let mut all = template["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    let host_network = template["spec"]["hostNetwork"] == true;
    for (key, effect, network_only) in TOLERATIONS {
        let wanted = json!({"key": key, "operator": "Exists", "effect": effect});
        if (!network_only || host_network) && !all.contains(&wanted) {
            all.push(wanted);
        }
    }
    all
}

/// upstream: daemon_controller.go NodeShouldRunDaemonPod
pub(super) fn judge(set: &DaemonSet, node: &Node) -> Verdict {
    let template = &set.spec.template.0;
    let no = Verdict { should_run: false, may_stay: false };
    if !wants_node(template, node) {
        return no;
    }
    let tolerations: Vec<Toleration> =
        tolerations(template).into_iter().filter_map(|t| serde_json::from_value(t).ok()).collect();
    let bad = |effect: &str| {
        node.spec.taints.iter().any(|taint| {
            taint.effect == effect && !tolerations.iter().any(|toleration| tolerates(toleration, taint))
        })
    };
    if bad("NoExecute") {
        return no;
    }
    Verdict { should_run: !bad("NoSchedule"), may_stay: true }
}

fn tolerates(toleration: &Toleration, taint: &k8s_openapi::api::core::v1::Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    (toleration.effect.is_none()
        || text(&toleration.effect).is_empty()
        || text(&toleration.effect) == taint.effect)
        && (text(&toleration.key).is_empty() || text(&toleration.key) == taint.key)
        && (text(&toleration.operator) == "Exists"
            || toleration.value.clone().unwrap_or_default() == taint.value.clone().unwrap_or_default())
}

/// Node name, node selector and required node affinity of the template.
fn wants_node(template: &Value, node: &Node) -> bool {
    let name = node.metadata.name();
    let spec = &template["spec"];
    if let Some(wanted) = spec["nodeName"].as_str().filter(|wanted| !wanted.is_empty())
        && wanted != name
    {
        return false;
    }
    let label = |key: &str| node.metadata.label(key);
    let selected = spec["nodeSelector"].as_object().into_iter().flatten();
    let mut selected = selected.map(|(key, value)| label(key) == value.as_str());
    if !selected.all(|matches| matches) {
        return false;
    }
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let Some(terms) = required["nodeSelectorTerms"].as_array() else { return true };
    terms.iter().any(|term| {
        let expressions = term["matchExpressions"].as_array().map_or(&[][..], Vec::as_slice);
        let fields = term["matchFields"].as_array().map_or(&[][..], Vec::as_slice);
        (!expressions.is_empty() || !fields.is_empty())
            && expressions.iter().all(|e| holds(e, label(e["key"].as_str().unwrap_or_default())))
            && fields.iter().all(|field| holds(field, Some(name)))
    })
}

fn holds(expression: &Value, value: Option<&str>) -> bool {
    let values = expression["values"].as_array().map_or(&[][..], Vec::as_slice);
    let listed = value.is_some_and(|value| values.iter().any(|known| known == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let bound = || number(values.first().and_then(Value::as_str));
    match expression["operator"].as_str().unwrap_or_default() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(bound()).is_some_and(|(value, bound)| value > bound),
        "Lt" => number(value).zip(bound()).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// The node that a pod is on or is meant for.
pub(super) fn node_of(pod: &Pod) -> Option<String> {
    if !pod.spec.node_name.is_empty() {
        return Some(pod.spec.node_name.clone());
    }
    let required =
        &pod.spec.affinity.as_ref()?["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let term = required["nodeSelectorTerms"].as_array()?.first()?;
    let field = term["matchFields"].as_array()?.iter().find(|field| field["key"] == "metadata.name")?;
    field["values"].as_array()?.first()?.as_str().map(str::to_owned)
}

/// What one turn does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    /// Pods that go, by name.
    pub delete: Vec<String>,
    /// Pods that had failed, and will be made anew: for an event.
    pub failed: Vec<(String, String)>,
}

type ByNode<'a> = BTreeMap<String, Vec<&'a Arc<Pod>>>;

fn by_node(pods: &[Arc<Pod>]) -> ByNode<'_> {
    let mut out = ByNode::new();
    for pod in pods {
        if let Some(node) = node_of(pod) {
            out.entry(node).or_default().push(pod);
        }
    }
    out
}

/// The pods that are missing and those that are too many; then, of the rest, those that an update exchanges.
pub(super) fn plan(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    hash: &str,
    now: Timestamp,
) -> Turn {
    let there = by_node(pods);
    let mut turn = Turn::default();
    for node in nodes {
        let verdict = judge(set, node);
        let name = node.metadata.name();
        let here = there.get(name).map_or(&[][..], Vec::as_slice);
        manage(name, verdict, here, &mut turn);
    }
    let known: BTreeSet<&str> = nodes.iter().map(|node| node.metadata.name()).collect();
    for (_, lost) in there.iter().filter(|(node, _)| !known.contains(node.as_str())) {
        // The pod collector ends those that run; one that waits for a node that is gone goes now.
        let waiting = lost.iter().filter(|pod| pod.spec.node_name.is_empty() && !pod.metadata.deleting());
        turn.delete.extend(waiting.map(|pod| pod.metadata.name().to_owned()));
    }
    if turn == Turn::default() && set.spec.update_strategy.kind == "RollingUpdate" {
        turn.delete = update(set, nodes, &there, hash, now);
    }
    turn
}

/// upstream: daemon_controller.go podsShouldBeOnNode
fn manage(node: &str, verdict: Verdict, here: &[&Arc<Pod>], turn: &mut Turn) {
    let mut running: Vec<&Arc<Pod>> = Vec::new();
    let mut leaving = false;
    for pod in here {
        if pod.metadata.deleting() {
            leaving = true;
        } else if pod.status.phase == "Failed" || pod.status.phase == "Succeeded" {
            turn.delete.push(pod.metadata.name().to_owned());
            turn.failed.push((node.to_owned(), pod.metadata.name().to_owned()));
            leaving = true;
        } else {
            running.push(pod);
        }
    }
    if !verdict.may_stay {
        turn.delete.extend(running.iter().map(|pod| pod.metadata.name().to_owned()));
    } else if running.is_empty() {
        if verdict.should_run && !leaving {
            turn.create.push(node.to_owned());
        }
    } else {
        // The oldest stays.
        let age = |pod: &&Arc<Pod>| {
            (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.metadata.name().to_owned())
        };
        running.sort_by_key(age);
        turn.delete.extend(running[1..].iter().map(|pod| pod.metadata.name().to_owned()));
    }
}

/// Pods of older templates that may go now. upstream: pkg/controller/daemon/update.go rollingUpdate
fn update(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    there: &ByNode<'_>,
    hash: &str,
    now: Timestamp,
) -> Vec<String> {
    let wanted: Vec<&Arc<Node>> = nodes.iter().filter(|node| judge(set, node).should_run).collect();
    let bounds = set.spec.update_strategy.rolling_update.clone().unwrap_or_default();
    let most = scaled_value(bounds.max_unavailable.as_ref(), wanted.len() as i32, true).max(1);
    let mut unavailable = 0;
    let (mut broken, mut working) = (Vec::new(), Vec::new());
    for node in wanted {
        let pod = there.get(node.metadata.name()).and_then(|pods| pods.first());
        let available = pod.is_some_and(|pod| {
            !pod.metadata.deleting() && pods::is_available(pod, set.spec.min_ready_seconds, now)
        });
        unavailable += i32::from(!available);
        let Some(pod) = pod.filter(|pod| pod.metadata.label(revisions::HASH_LABEL) != Some(hash)) else {
            continue;
        };
        if pod.metadata.deleting() {
            continue;
        }
        let list = if available { &mut working } else { &mut broken };
        list.push(pod.metadata.name().to_owned());
    }
    let room = usize::try_from(most - unavailable).unwrap_or(0);
    // What does not work anyway is exchanged at once.
    broken.into_iter().chain(working.into_iter().take(room)).collect()
}

/// upstream: daemon_controller.go updateDaemonSetStatus
pub(super) fn status(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    hash: &str,
    now: Timestamp,
) -> DaemonSetStatus {
    let there = by_node(pods);
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation.unwrap_or(0),
        collision_count: set.status.collision_count,
        ..DaemonSetStatus::default()
    };
    for node in nodes {
        let alive = |pod: &&&Arc<Pod>| !pods::is_finished(pod);
        let mut here = there.get(node.metadata.name()).into_iter().flatten().filter(alive).peekable();
        if !judge(set, node).should_run {
            status.number_misscheduled += i32::from(here.peek().is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = here.min_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
        else {
            continue;
        };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pods::is_ready(pod));
        status.number_available += i32::from(pods::is_available(pod, set.spec.min_ready_seconds, now));
        status.updated_number_scheduled += i32::from(pod.metadata.label(revisions::HASH_LABEL) == Some(hash));
    }
    status.number_unavailable = status.desired_number_scheduled - status.number_available;
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(extra: Value) -> DaemonSet {
        let mut value = json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}}});
        for (path, new) in extra.as_object().expect("paths") {
            let (parent, key) = path.rsplit_once('/').expect("a path");
            value.pointer_mut(parent).expect("a parent")[key] = new.clone();
        }
        serde_json::from_value(value).expect("a set")
    }

    fn node(name: &str, taint: &str) -> Arc<Node> {
        let taints = match taint.split_once(':') {
            Some((key, effect)) => json!([{"key": key, "effect": effect}]),
            None => json!([]),
        };
        let value = json!({"metadata": {"name": name, "labels": {"host": name}}, "spec": {"taints": taints}});
        Arc::new(serde_json::from_value(value).expect("a node"))
    }

    /// `name@node[:hash][!]`: `!` not ready.
    fn pods(text: &str) -> Vec<Arc<Pod>> {
        let pod = |word: &str| {
            let ready = if word.ends_with('!') { "False" } else { "True" };
            let (name, place) = word.trim_end_matches('!').split_once('@').expect("name@node");
            let (node, hash) = place.split_once(':').unwrap_or((place, "new"));
            let value = json!({"metadata": {"name": name, "labels": {revisions::HASH_LABEL: hash}},
                "spec": {"nodeName": node}, "status": {"phase": "Running",
                    "conditions": [{"type": "Ready", "status": ready}]}});
            Arc::new(serde_json::from_value(value).expect("a pod"))
        };
        text.split_whitespace().map(pod).collect()
    }

    #[test]
    fn every_fitting_node_has_one_pod() {
        let two = [node("a", ""), node("b", "")];
        let selector = json!({"/spec/template/spec": {"nodeSelector": {"host": "b"}}});
        for (name, set, nodes, there, create, delete) in [
            ("missing", set(json!({})), two.to_vec(), "x@a", "b", ""),
            ("two on one", set(json!({})), two.to_vec(), "x@a y@a z@b", "", "y"),
            ("selected", set(selector.clone()), two.to_vec(), "", "b", ""),
            ("not selected any more", set(selector), two.to_vec(), "x@a y@b", "", "x"),
            (
                "cordoned is tolerated",
                set(json!({})),
                vec![node("a", "node.kubernetes.io/unschedulable:NoSchedule")],
                "",
                "a",
                "",
            ),
            ("kept away", set(json!({})), vec![node("a", "own:NoSchedule")], "", "", ""),
            ("may stay", set(json!({})), vec![node("a", "own:NoSchedule")], "x@a", "", ""),
            ("must leave", set(json!({})), vec![node("a", "own:NoExecute")], "x@a", "", "x"),
            ("an update, one at a time", set(json!({})), two.to_vec(), "x@a:old y@b:old", "", "x"),
            ("an update waits", set(json!({})), two.to_vec(), "x@a! y@b:old", "", ""),
            ("broken ones go at once", set(json!({})), two.to_vec(), "x@a:old! y@b:old!", "", "x y"),
            (
                "only when deleted",
                set(json!({"/spec/updateStrategy": {"type": "OnDelete"}})),
                two.to_vec(),
                "x@a:old y@b:old",
                "",
                "",
            ),
        ] {
            let turn = plan(&set, &nodes, &pods(there), "new", Timestamp::UNIX_EPOCH);
            assert_eq!(
                (turn.create.join(" ").as_str(), turn.delete.join(" ").as_str()),
                (create, delete),
                "{name}"
            );
        }
    }

    #[test]
    fn the_status_counts_nodes() {
        let nodes = [node("a", ""), node("b", ""), node("c", "own:NoSchedule")];
        let made = status(&set(json!({})), &nodes, &pods("x@a y@b:old! z@c"), "new", Timestamp::UNIX_EPOCH);
        assert_eq!(
            json!(made),
            json!({"currentNumberScheduled": 2, "numberMisscheduled": 1,
            "desiredNumberScheduled": 2, "numberReady": 1, "observedGeneration": 0, "updatedNumberScheduled": 1,
            "numberAvailable": 1, "numberUnavailable": 1})
        );
    }
}
