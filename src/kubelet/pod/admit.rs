//! Whether a new pod may run on the node. The scheduler saw to it, but a pod may have come past it (a node name in its
//! spec, a manifest), or two schedulers may have been at work, or the node has changed meanwhile. Pure.
//!
//! Judged are: operating system; number of pods, cpu, memory; the node's labels; host ports; `NoExecute` taints, which do
//! not concern static pods. The first thing that is wrong is told.
//!
//! upstream: kubelet/lifecycle/predicate.go, pkg/scheduler/eventhandlers.go AdmissionCheck

use std::collections::BTreeMap;

use copepod_client::scheduling::tolerates;
use copepod_meta::scheduling::requirement_holds;
use k8s_openapi::api::core::v1::{
    ContainerPort, Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint,
};

use super::model::{init_containers, is_sidecar, is_static, spec};
use super::qos::{Side, pod_total};

/// What the node has for pods: cpu in thousandths, memory in bytes, pods.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// cpu.
    pub cpu_milli: i64,
    /// Memory.
    pub memory: i64,
    /// Pods.
    pub pods: i64,
}

/// Why a pod is turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Reason of the pod's status.
    pub reason: String,
    /// Its message.
    pub message: String,
}

impl Rejection {
    fn new(reason: &str, message: &str) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }

    fn predicate(name: &str, why: &str) -> Self {
        Self { reason: name.into(), message: format!("Predicate {name} failed: {why}") }
    }

    /// Whether it is the node's labels that are not right: they may be newer than what is known here.
    pub fn is_of_labels(&self) -> bool {
        self.reason == NODE_AFFINITY
    }
}

const OS_LABEL: &str = "kubernetes.io/os";
const NODE_AFFINITY: &str = "NodeAffinity";

/// Judges a pod beside the `others` that are on the node already. Without a node object, as long as the API server does
/// not answer, only what this machine knows itself is judged.
pub fn admit<'a>(
    pod: &Pod,
    others: impl Iterator<Item = &'a Pod> + Clone,
    room: Room,
    node: Option<&Node>,
) -> Result<(), Rejection> {
    operating_system(pod)?;
    resources(pod, others.clone(), room)?;
    if let Some(node) = node
        && !wants(pod, node)
    {
        return Err(Rejection::predicate(NODE_AFFINITY, "node(s) didn't match Pod's node affinity/selector"));
    }
    if others.flat_map(host_ports).any(|taken| host_ports(pod).any(|wanted| conflict(wanted, taken))) {
        let why = "node(s) didn't have free ports for the requested pod ports";
        return Err(Rejection::predicate("NodePorts", why));
    }
    let taints = node.and_then(|node| node.spec.as_ref()?.taints.as_deref()).unwrap_or_default();
    let drives_out = |taint: &Taint| taint.effect == "NoExecute" && !tolerated(pod, taint);
    if !is_static(pod) && taints.iter().any(drives_out) {
        let why = "node(s) had taints that the pod didn't tolerate";
        return Err(Rejection::predicate("TaintToleration", why));
    }
    Ok(())
}

fn operating_system(pod: &Pod) -> Result<(), Rejection> {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(OS_LABEL));
    if label.is_some_and(|os| os != "linux") {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Err(Rejection::new("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    if spec(pod).os.as_ref().is_some_and(|os| os.name != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(Rejection::new("PodOSNotSupported", message));
    }
    Ok(())
}

fn resources<'a>(
    pod: &Pod,
    others: impl Iterator<Item = &'a Pod> + Clone,
    room: Room,
) -> Result<(), Rejection> {
    let count = i64::try_from(others.clone().count()).unwrap_or(i64::MAX);
    let sum =
        |name: &str| others.clone().filter_map(|other| pod_total(other, name, Side::Requests)).sum::<i64>();
    let checks = [
        ("pods", 1, count, room.pods),
        ("cpu", pod_total(pod, "cpu", Side::Requests).unwrap_or(0), sum("cpu"), room.cpu_milli),
        ("memory", pod_total(pod, "memory", Side::Requests).unwrap_or(0), sum("memory"), room.memory),
    ];
    for (name, requested, used, capacity) in checks {
        if requested > 0 && requested > capacity - used {
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return Err(Rejection { reason: format!("OutOf{name}"), message });
        }
    }
    Ok(())
}

/// Node selector and required node affinity.
///
/// upstream: component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go RequiredNodeAffinity.Match
fn wants(pod: &Pod, node: &Node) -> bool {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let mut selected = spec(pod).node_selector.iter().flatten();
    if !selected.all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let affinity = spec(pod).affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let name = node.metadata.name.as_deref();
    required
        .is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(term, labels, name)))
}

/// An empty term matches no node.
fn matches(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: Option<&str>) -> bool {
    let holds = |requirement: &NodeSelectorRequirement, value: Option<&str>| {
        let values = requirement.values.iter().flatten().map(String::as_str);
        requirement_holds(&requirement.operator, values, value)
    };
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|e| holds(e, labels.get(&e.key).map(String::as_str)))
        && fields.iter().all(|f| f.key == "metadata.name" && holds(f, name))
}

fn host_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let sidecars = init_containers(pod).iter().filter(|container| is_sidecar(container));
    let all = spec(pod).containers.iter().chain(sidecars);
    all.flat_map(|container| container.ports.iter().flatten())
        .filter(|port| port.host_port.is_some_and(|number| number > 0))
}

/// upstream: kube-scheduler/framework/types.go HostPortInfo.CheckConflict
fn conflict(wanted: &ContainerPort, taken: &ContainerPort) -> bool {
    let ip = |port: &ContainerPort| match port.host_ip.as_deref() {
        None | Some("" | "0.0.0.0") => None,
        Some(ip) => Some(ip.to_owned()),
    };
    let protocol = |port: &ContainerPort| port.protocol.clone().unwrap_or_else(|| "TCP".into());
    let same_address = match (ip(wanted), ip(taken)) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    wanted.host_port == taken.host_port && protocol(wanted) == protocol(taken) && same_address
}

fn tolerated(pod: &Pod, taint: &Taint) -> bool {
    spec(pod).tolerations.iter().flatten().any(|toleration| tolerates(toleration, taint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ROOM: Room = Room { cpu_milli: 1000, memory: 1 << 20, pods: 2 };

    fn pod(spec: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"labels": spec["labels"]}, "spec": spec})).expect("a pod")
    }

    fn asks(cpu: &str, memory: &str) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]})
    }

    fn verdict(new: &Value, others: &[Value], node: Option<&Node>) -> String {
        let others: Vec<Pod> = others.iter().map(pod).collect();
        match admit(&pod(new), others.iter(), ROOM, node) {
            Ok(()) => "yes".into(),
            Err(no) => format!("{}: {}", no.reason, no.message),
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (new, others, want) in [
            (asks("1", "1Mi"), vec![], "yes"),
            (
                asks("600m", "0"),
                vec![asks("500m", "0")],
                "OutOfcpu: Node didn't have enough resource: cpu, requested: 600, used: 500, capacity: 1000",
            ),
            (
                asks("0", "2Mi"),
                vec![],
                "OutOfmemory: Node didn't have enough resource: memory, requested: 2097152, used: 0, capacity: 1048576",
            ),
            (
                asks("0", "0"),
                vec![asks("0", "0"), asks("0", "0")],
                "OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2",
            ),
        ] {
            assert_eq!(verdict(&new, &others, None), want);
        }
    }

    #[test]
    fn a_pod_that_came_past_the_scheduler_is_judged_as_the_scheduler_would() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"disk": "ssd"}},
            "spec": {"taints": [{"key": "broken", "effect": "NoExecute"}, {"key": "full", "effect": "NoSchedule"}]}
        }))
        .expect("a node");
        let tolerant = |more: Value| {
            let mut spec = json!({"containers": [{"name": "c"}],
                "tolerations": [{"key": "broken", "operator": "Exists"}]});
            for (key, value) in more.as_object().expect("fields") {
                spec[key] = value.clone();
            }
            spec
        };
        let ports = |ip: &str, protocol: &str| {
            tolerant(json!({"containers": [{"name": "c", "ports":
                [{"containerPort": 80, "hostPort": 80, "hostIP": ip, "protocol": protocol}]}]}))
        };
        let required = |expressions: Value, fields: Value| {
            let terms = json!([{"matchExpressions": expressions, "matchFields": fields}]);
            tolerant(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": terms}}}}))
        };
        let affinity =
            "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        let taken = "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        let taint = "TaintToleration: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        let named = |name: &str| json!([{"key": "metadata.name", "operator": "In", "values": [name]}]);
        for (new, others, want) in [
            (tolerant(json!({})), vec![], "yes"),
            (tolerant(json!({"nodeSelector": {"disk": "ssd"}})), vec![], "yes"),
            (tolerant(json!({"nodeSelector": {"disk": "hdd"}})), vec![], affinity),
            (required(json!([{"key": "disk", "operator": "Exists"}]), json!([])), vec![], "yes"),
            (required(json!([{"key": "gpu", "operator": "Exists"}]), json!([])), vec![], affinity),
            (required(json!([]), named("n")), vec![], "yes"),
            (required(json!([]), named("m")), vec![], affinity),
            (required(json!([]), json!([])), vec![], affinity),
            (ports("", "TCP"), vec![ports("10.0.0.1", "TCP")], taken),
            (ports("10.0.0.2", "TCP"), vec![ports("10.0.0.1", "TCP")], "yes"),
            (ports("", "UDP"), vec![ports("", "TCP")], "yes"),
            (tolerant(json!({"tolerations": []})), vec![], taint),
            (tolerant(json!({"tolerations": [], "nodeSelector": {"disk": "hdd"}})), vec![], affinity),
            (
                tolerant(json!({"os": {"name": "windows"}})),
                vec![],
                "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS",
            ),
            (
                tolerant(json!({"labels": {"kubernetes.io/os": "windows"}})),
                vec![],
                "PodOSSelectorNodeLabelDoesNotMatch: Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
            ),
        ] {
            assert_eq!(verdict(&new, &others, Some(&node)), want, "{new}");
        }
        let bare = json!({"containers": [{"name": "c"}], "nodeSelector": {"disk": "hdd"}});
        assert_eq!(verdict(&bare, &[], None), "yes", "nothing is known of the node");
    }
}
