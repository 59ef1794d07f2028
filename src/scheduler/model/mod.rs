//! Pods and nodes as the scheduler keeps them: small, with everything computed once that every cycle needs.

pub mod domains;
pub mod resources;
pub mod selector;
pub mod wire;

use std::sync::Arc;

use compact_str::CompactString;
use copepod_client::object::{Key, MetaExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

pub use resources::Resources;
pub use selector::Labels;
use wire::{Affinity, Condition, SpreadConstraint, Taint, Toleration};

/// A pod.
#[derive(Debug, Clone)]
pub struct PodInfo {
    /// `namespace/name`.
    pub key: Key,
    /// Tells it from an earlier pod of the same name.
    pub uid: CompactString,
    /// Its labels.
    pub labels: Labels,
    /// Its priority; 0 if it has none.
    pub priority: i32,
    /// The node it is bound to or assumed on; empty while it waits.
    pub node: CompactString,
    /// What it asks for.
    pub requests: Resources,
    /// The same with defaults, for scoring.
    pub scoring_requests: Resources,
    /// Ports it takes on the node.
    pub ports: Box<[HostPort]>,
    /// Affinity to other pods, which also binds pods that come later.
    pub affinity: Option<Box<Affinity>>,
    /// When it started; for choosing victims.
    pub started: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it is deleted because the scheduler preempted it.
    pub preempted: bool,
    /// What only a waiting pod needs.
    pub waiting: Option<Box<Waiting>>,
}

/// The part of a pod that matters until it has a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Who shall schedule it.
    pub scheduler: CompactString,
    /// Must all be gone before it is scheduled.
    pub gates: Vec<String>,
    /// Labels its node must have.
    pub node_selector: Vec<(String, String)>,
    /// Taints it tolerates.
    pub tolerations: Vec<Toleration>,
    /// Images of its containers, with tags.
    pub images: Vec<String>,
    /// How many containers the image score is divided by.
    pub containers: usize,
    /// How it wants to be spread.
    pub spread: Vec<SpreadConstraint>,
    /// Whether it must not preempt others.
    pub never_preempts: bool,
    /// The node where room is being made for it.
    pub nominated: CompactString,
    /// Its PodScheduled condition as the API has it.
    pub condition: Option<Condition>,
    /// `metadata.generation`, for conditions.
    pub generation: Option<i64>,
}

/// A port on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Empty and `0.0.0.0` mean every address.
    pub ip: CompactString,
    /// TCP, UDP or SCTP.
    pub protocol: CompactString,
    /// Its number.
    pub port: i32,
}

impl PodInfo {
    /// From the API.
    pub fn new(pod: &wire::Pod) -> Self {
        let (meta, spec, status) = (&pod.metadata, &pod.spec, &pod.status);
        let (requests, scoring_requests) = resources::pod_requests(spec);
        let condition = |kind: &str| status.conditions.iter().find(|condition| condition.kind == kind);
        let preempted = condition("DisruptionTarget")
            .is_some_and(|c| c.status == "True" && c.reason == "PreemptionByScheduler");
        let affinity = spec.affinity.clone().filter(|affinity| {
            spec.node_name.is_empty()
                || affinity.pod_affinity.is_some()
                || affinity.pod_anti_affinity.is_some()
        });
        Self {
            key: meta.key(),
            uid: MetaExt::uid(meta).into(),
            labels: Labels::new(meta.labels.iter().flatten()),
            priority: spec.priority.unwrap_or(0),
            node: spec.node_name.as_str().into(),
            requests,
            scoring_requests,
            ports: host_ports(spec),
            affinity: affinity.map(Box::new),
            started: status.start_time.as_ref().map(|time| time.0),
            deleting: meta.deleting(),
            preempted,
            waiting: spec.node_name.is_empty().then(|| Box::new(waiting(pod, condition("PodScheduled")))),
        }
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        copepod_client::object::split(&self.key).0
    }

    /// Its name.
    pub fn name(&self) -> &str {
        copepod_client::object::split(&self.key).1
    }

    /// The reference that Events carry.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(self.namespace().into()),
            name: Some(self.name().into()),
            uid: Some(self.uid.to_string()),
            ..Default::default()
        }
    }

    /// The same pod as it will be on `node`.
    pub fn on_node(&self, node: &str) -> Self {
        Self { node: node.into(), waiting: None, ..self.clone() }
    }
}

fn waiting(pod: &wire::Pod, condition: Option<&Condition>) -> Waiting {
    let spec = &pod.spec;
    let containers = || spec.init_containers.iter().chain(&spec.containers);
    Waiting {
        scheduler: spec.scheduler_name.as_str().into(),
        gates: spec.scheduling_gates.iter().map(|gate| gate.name.clone()).collect(),
        node_selector: spec.node_selector.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        tolerations: spec.tolerations.clone(),
        images: containers().map(|container| normalized_image(&container.image)).collect(),
        containers: containers().count(),
        spread: spec.topology_spread_constraints.clone(),
        never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
        nominated: pod.status.nominated_node_name.as_str().into(),
        condition: condition.cloned(),
        generation: pod.metadata.generation,
    }
}

/// upstream: pkg/scheduler/util/utils.go GetHostPorts (sidecars count too)
fn host_ports(spec: &wire::PodSpec) -> Box<[HostPort]> {
    let sidecars = spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = sidecars.chain(&spec.containers).flat_map(|container| &container.ports);
    ports
        .filter(|port| port.host_port > 0)
        .map(|port| HostPort {
            ip: if port.host_ip.is_empty() { "0.0.0.0".into() } else { port.host_ip.as_str().into() },
            protocol: if port.protocol.is_empty() { "TCP".into() } else { port.protocol.as_str().into() },
            port: port.host_port,
        })
        .collect()
}

/// An image name with a tag. upstream: pkg/scheduler/framework/plugins/imagelocality/image_locality.go
pub fn normalized_image(name: &str) -> String {
    if name.rfind(':') <= name.rfind('/') { format!("{name}:latest") } else { name.to_owned() }
}

/// A node and what runs on it.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    /// Its name.
    pub name: CompactString,
    /// Whether the node itself is known, not only pods on it.
    pub exists: bool,
    /// Its labels.
    pub labels: Labels,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// What pods may use.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub pods_max: i64,
    /// Images it has, ordered by name, with their sizes.
    pub images: Box<[(Arc<str>, i64)]>,
    /// Pods on it, also assumed ones.
    pub pods: Vec<Arc<PodInfo>>,
    /// Sum of their requests.
    pub requested: Resources,
    /// The same with defaults, for scoring.
    pub scoring_requested: Resources,
    /// Changes whenever anything of it changes.
    pub generation: u64,
}

impl NodeInfo {
    /// Counts a pod in.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests, 1);
        self.scoring_requested.add(&pod.scoring_requests, 1);
        self.pods.push(pod);
    }

    /// Counts a pod out; `false` if it was not there.
    pub fn remove_pod(&mut self, key: &str) -> bool {
        let Some(at) = self.pods.iter().position(|pod| &*pod.key == key) else { return false };
        let pod = self.pods.swap_remove(at);
        self.requested.add(&pod.requests, -1);
        self.scoring_requested.add(&pod.scoring_requests, -1);
        true
    }

    /// Whether an image is there, and its size.
    pub fn image_size(&self, name: &str) -> Option<i64> {
        let at = self.images.binary_search_by(|(known, _)| known.as_ref().cmp(name)).ok()?;
        Some(self.images[at].1)
    }
}
