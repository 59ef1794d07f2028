//! Which nodes want a pod, which pods have to go, and the status. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use copepod_client::object::MetaExt;
use copepod_client::scheduling::tolerates;
use copepod_meta::scheduling::requirement_holds;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Toleration;
use serde_json::{Value, json};

use super::update;
use crate::common::{pods, revisions};
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
    let operator = expression["operator"].as_str().unwrap_or_default();
    requirement_holds(operator, values.iter().filter_map(Value::as_str), value)
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
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    /// Pods that go, by name.
    pub delete: Vec<String>,
    /// Pods that had ended, and will be made anew, with their nodes: for an event.
    pub ended: Vec<(String, Arc<Pod>)>,
}

pub(super) type ByNode<'a> = BTreeMap<String, Vec<&'a Arc<Pod>>>;

fn by_node(pods: &[Arc<Pod>]) -> ByNode<'_> {
    let mut out = ByNode::new();
    for pod in pods {
        if let Some(node) = node_of(pod) {
            out.entry(node).or_default().push(pod);
        }
    }
    out
}

/// `held` names nodes whose failed pod is left for a while, so that a node that refuses pods is not asked without end.
///
/// The pods that are missing and those that are too many; then, of the rest, those that an update exchanges.
pub(super) fn plan(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    hash: &str,
    now: Timestamp,
    held: &dyn Fn(&str) -> bool,
) -> Turn {
    let there = by_node(pods);
    let mut turn = Turn::default();
    for node in nodes {
        let verdict = judge(set, node);
        let name = node.metadata.name();
        let here = there.get(name).map_or(&[][..], Vec::as_slice);
        manage(set, name, verdict, here, hash, now, held(name), &mut turn);
    }
    let known: BTreeSet<&str> = nodes.iter().map(|node| node.metadata.name()).collect();
    for (_, lost) in there.iter().filter(|(node, _)| !known.contains(node.as_str())) {
        // The pod collector ends those that run; one that waits for a node that is gone goes now.
        let waiting = lost.iter().filter(|pod| pod.spec.node_name.is_empty() && !pod.metadata.deleting());
        turn.delete.extend(waiting.map(|pod| pod.metadata.name().to_owned()));
    }
    let settled = turn.create.is_empty() && turn.delete.is_empty();
    if settled && set.spec.update_strategy.kind == "RollingUpdate" {
        update::plan(set, nodes, &there, hash, now, &mut turn);
    }
    turn
}

/// upstream: daemon_controller.go podsShouldBeOnNode
#[expect(clippy::too_many_arguments, reason = "one node of a plan: all that the plan knows")]
fn manage(
    set: &DaemonSet,
    node: &str,
    verdict: Verdict,
    here: &[&Arc<Pod>],
    hash: &str,
    now: Timestamp,
    held: bool,
    turn: &mut Turn,
) {
    let name = |pod: &Pod| pod.metadata.name().to_owned();
    let alive = here.iter().copied().filter(|pod| !pod.metadata.deleting());
    if !verdict.may_stay {
        turn.delete.extend(alive.map(|pod| name(pod)));
        return;
    }
    let (ended, mut running): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
        alive.partition(|pod| pods::is_finished(pod));
    for pod in ended.into_iter().filter(|pod| pod.status.phase == "Succeeded" || !held) {
        turn.delete.push(name(pod));
        turn.ended.push((node.to_owned(), pod.clone()));
    }
    let surges = update::surges(set);
    if running.is_empty() {
        // Without surge the old pod has to be gone before the next comes.
        if verdict.should_run && (here.is_empty() || surges) {
            turn.create.push(node.to_owned());
        }
        return;
    }
    // The oldest stays.
    running.sort_by_key(|pod| (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), name(pod)));
    if !surges {
        turn.delete.extend(running[1..].iter().map(|pod| name(pod)));
        return;
    }
    let is_new = |pod: &&Arc<Pod>| pod.metadata.label(revisions::HASH_LABEL) == Some(hash);
    let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = running.into_iter().partition(is_new);
    turn.delete.extend(new.iter().skip(1).chain(old.iter().skip(1)).map(|pod| name(pod)));
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (!pods::is_ready(old) || pods::is_available(new, set.spec.min_ready_seconds, now))
    {
        turn.delete.push(name(old));
    }
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
        conditions: set.status.conditions.clone(),
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

    /// `name@node[:hash][!|#]`: `!` not ready, `#` failed.
    fn pods(text: &str) -> Vec<Arc<Pod>> {
        let pod = |word: &str| {
            let ready = if word.ends_with('!') { "False" } else { "True" };
            let phase = if word.ends_with('#') { "Failed" } else { "Running" };
            let (name, place) = word.trim_end_matches(['!', '#']).split_once('@').expect("name@node");
            let (node, hash) = place.split_once(':').unwrap_or((place, "new"));
            let value = json!({"metadata": {"name": name, "labels": {revisions::HASH_LABEL: hash}},
                "spec": {"nodeName": node}, "status": {"phase": phase,
                    "conditions": [{"type": "Ready", "status": ready}]}});
            Arc::new(serde_json::from_value(value).expect("a pod"))
        };
        text.split_whitespace().map(pod).collect()
    }

    #[test]
    fn every_fitting_node_has_one_pod() {
        let two = [node("a", ""), node("b", "")];
        let surge = |n: i32| {
            set(
                json!({"/spec/updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": n}}}),
            )
        };
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
            ("a failed one is made anew", set(json!({})), two.to_vec(), "x@a# y@b", "", "x"),
            ("not at once again", set(json!({})), vec![node("held", "")], "x@held#", "", ""),
            ("surge: the new one first", surge(1), two.to_vec(), "x@a:old y@b:old", "a", ""),
            ("surge: waits for it", surge(1), two.to_vec(), "x@a:old z@a! y@b:old", "", ""),
            ("surge: then the old one goes", surge(1), two.to_vec(), "x@a:old z@a y@b:old", "", "x"),
            ("surge: a broken old one has gone", surge(1), two.to_vec(), "x@a:old! z@a! y@b:old", "", "x"),
            ("surge: as many as allowed", surge(2), two.to_vec(), "x@a:old y@b:old", "a b", ""),
            ("surge: broken ones at once", surge(1), two.to_vec(), "x@a:old! y@b:old!", "a b", ""),
            (
                "surge: a misplaced one waits for the others",
                surge(1),
                vec![node("a", "own:NoSchedule"), node("b", "")],
                "x@a:old y@b!",
                "",
                "",
            ),
            (
                "surge: and goes when they are there",
                surge(1),
                vec![node("a", "own:NoSchedule"), node("b", "")],
                "x@a:old y@b",
                "",
                "x",
            ),
            (
                "only when deleted",
                set(json!({"/spec/updateStrategy": {"type": "OnDelete"}})),
                two.to_vec(),
                "x@a:old y@b:old",
                "",
                "",
            ),
        ] {
            let turn = plan(&set, &nodes, &pods(there), "new", Timestamp::UNIX_EPOCH, &|node| node == "held");
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
