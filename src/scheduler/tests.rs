//! Decisions as tables: nodes and pods in short form, the decision or the text for users out.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cycle::{Cursor, Outcome, schedule};
use crate::model::{PodInfo, wire};

/// A cluster from JSON: nodes with a name, pods with `spec.nodeName`; lists of partial objects.
fn cluster(nodes: &Value, pods: &Value) -> Cluster {
    let mut cluster = Cluster::default();
    for node in nodes.as_array().expect("a list of nodes") {
        let mut node = node.clone();
        let offered = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
        let status = &mut node["status"]["allocatable"];
        if status.is_null() {
            *status = offered;
        }
        cluster.set_node(&serde_json::from_value(node).expect("a node"));
    }
    for (at, value) in pods.as_array().expect("a list of pods").iter().enumerate() {
        cluster.set_pod(pod(value, &format!("p{at}")));
    }
    cluster
}

fn pod(value: &Value, default_name: &str) -> Arc<PodInfo> {
    let mut value = value.clone();
    if value["metadata"]["name"].is_null() {
        value["metadata"]["name"] = json!(default_name);
    }
    value["metadata"]["namespace"] = json!("default");
    value["metadata"]["uid"] = value["metadata"]["name"].clone();
    Arc::new(PodInfo::new(&serde_json::from_value::<wire::Pod>(value).expect("a pod")))
}

/// The node, or the text for users followed by who is preempted.
fn decide(cluster: &Cluster, new: &Value) -> String {
    match schedule(cluster, &pod(new, "new"), &mut Cursor::default(), &mut rand::rng()) {
        Outcome::Node(node) => node,
        Outcome::NoNodes => "no nodes".into(),
        Outcome::Unfit(unfit) => match unfit.preemption {
            None => unfit.message,
            Some(preemption) => {
                let victims: Vec<&str> = preemption.victims.iter().map(|victim| victim.name()).collect();
                format!("{} -> {} leaves {}", unfit.message, victims.join(" "), preemption.node)
            }
        },
    }
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})
}

fn with(mut base: Value, extra: Value) -> Value {
    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }
    merge(&mut base, extra);
    base
}

fn asking(cpu: &str) -> Value {
    json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]}})
}

/// Upstream's scheduler said each of the texts about the same nodes and pods.
///
/// Renewed by `go run ./cmd/scheduler-texts` in `hack/upstream`, as its header says.
#[test]
fn a_pod_that_fits_nowhere_is_told_why_in_upstreams_words() {
    let cases: Value = serde_json::from_str(include_str!("testdata/cases.json")).expect("cases");
    let texts: Value = serde_json::from_str(include_str!("testdata/texts.json")).expect("texts");
    let cases = cases.as_array().expect("a list of cases");
    assert_eq!(cases.len(), texts.as_object().expect("a text for each case").len());
    for case in cases {
        let name = case["name"].as_str().expect("a name");
        let cluster = cluster(&case["nodes"], &case["pods"]);
        let said = match schedule(&cluster, &pod(&case["pod"], ""), &mut Cursor::default(), &mut rand::rng())
        {
            Outcome::Node(node) => format!("node {node}"),
            Outcome::NoNodes => "no nodes available to schedule pods".into(),
            Outcome::Unfit(unfit) => unfit.message,
        };
        assert_eq!(said, texts[name].as_str().unwrap_or_default(), "{name}");
    }
}

#[test]
fn without_nodes_there_is_nothing_to_say() {
    assert_eq!(decide(&cluster(&json!([]), &json!([])), &json!({})), "no nodes");
}

#[test]
fn filters_let_through_what_fits() {
    let on_a = |extra: Value| with(json!({"spec": {"nodeName": "a"}}), extra);
    let port = |port: i32, ip: &str| json!({"spec": {"containers": [{"ports": [{"hostPort": port, "hostIP": ip}]}]}});
    let anti = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}]}}}});
    let near = json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}]}}}});
    let labelled = json!({"metadata": {"labels": {"app": "x"}}});
    let spread = with(
        labelled.clone(),
        json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "x"}}}]}}),
    );
    for (name, pods, new, want) in [
        ("port taken", json!([on_a(port(80, ""))]), port(80, ""), "b"),
        (
            "same port, other address",
            json!([on_a(port(80, "10.0.0.1")), on_a(asking("4"))]),
            port(80, "10.0.0.2"),
            "b",
        ),
        ("away from its kind", json!([on_a(labelled.clone())]), with(labelled.clone(), anti.clone()), "b"),
        ("kept away by one that is there", json!([on_a(anti.clone())]), labelled.clone(), "b"),
        ("near its kind", json!([on_a(with(labelled.clone(), asking("3")))]), near.clone(), "a"),
        ("spread", json!([on_a(labelled.clone())]), spread, "b"),
        ("the emptier node", json!([on_a(asking("2"))]), asking("1"), "b"),
    ] {
        assert_eq!(decide(&cluster(&json!([named("a"), named("b")]), &pods), &new), want, "{name}");
    }
}

#[test]
fn the_first_of_a_group_may_start_anywhere() {
    let together = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}]}}}});
    assert_eq!(decide(&cluster(&json!([named("a")]), &json!([])), &together), "a");
}

#[test]
fn preemption_takes_the_fewest_and_least_important() {
    let on = |node: &str, name: &str, cpu: &str, priority: i32| {
        with(
            asking(cpu),
            json!({"metadata": {"name": name}, "spec": {"nodeName": node, "priority": priority}}),
        )
    };
    let important = with(asking("2"), json!({"spec": {"priority": 100}}));
    let full = |n: usize| format!("0/{n} nodes are available: {n} Insufficient cpu.");
    for (name, nodes, pods, want) in [
        (
            "only as many as needed",
            json!([named("a")]),
            json!([on("a", "x", "2", 1), on("a", "y", "2", 2)]),
            format!("{} -> x leaves a", full(1)),
        ),
        (
            "the node with the less important victim",
            json!([named("a"), named("b")]),
            json!([on("a", "x", "4", 5), on("b", "y", "4", 1)]),
            format!("{} -> y leaves b", full(2)),
        ),
        (
            "one victim rather than two",
            json!([named("a"), named("b")]),
            json!([
                on("a", "x", "4", 1),
                on("b", "y", "1500m", 1),
                on("b", "z", "1500m", 1),
                on("b", "w", "1", 1)
            ]),
            format!("{} -> x leaves a", full(2)),
        ),
    ] {
        assert_eq!(decide(&cluster(&nodes, &pods), &important), want, "{name}");
    }
}

#[test]
fn scores_prefer_what_upstream_prefers() {
    let image = json!({"status": {"images": [{"names": ["web:1"], "sizeBytes": 900_000_000}],
        "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}});
    let unwanted = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
    let prefers = json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 5, "preference": {"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}]}}]}}}});
    let runs = json!({"spec": {"containers": [{"image": "web:1"}]}});
    for (name, a, b, new, want) in [
        ("has the image", with(named("a"), image), named("b"), runs, "a"),
        ("no unwanted taint", with(named("a"), unwanted), named("b"), json!({}), "b"),
        ("preferred by the pod", named("a"), named("b"), prefers, "b"),
    ] {
        assert_eq!(decide(&cluster(&json!([a, b]), &json!([])), &new), want, "{name}");
    }
}

/// Prints what one decision costs at 5,000 nodes: `cargo test --release -p copepod-scheduler -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, for an optimised build"]
fn cost_of_a_decision_at_5000_nodes() {
    let mut cluster = Cluster::default();
    for at in 0..5000 {
        let name = format!("node-{at}");
        let mut node = named(&name);
        node["status"]["allocatable"] = json!({"cpu": "32", "memory": "256Gi", "pods": "110"});
        cluster.set_node(&serde_json::from_value(node).expect("a node"));
    }
    let (mut cursor, mut random, pods) = (Cursor::default(), rand::rng(), 1000);
    let waiting: Vec<_> = (0..pods).map(|at| pod(&asking("100m"), &format!("p{at}"))).collect();
    let start = std::time::Instant::now();
    for pod in &waiting {
        if let Outcome::Node(node) = schedule(&cluster, pod, &mut cursor, &mut random) {
            cluster.assume(Arc::new(pod.on_node(&node)));
        }
    }
    println!("{} us a pod", start.elapsed().as_micros() / pods);
}
