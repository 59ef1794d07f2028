//! Filters: can this node run this pod? One file a plugin, run in this order; the first "no" counts.

pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources_fit;
pub mod node_unschedulable;
pub mod pod_topology_spread;
pub mod taint_toleration;

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::diagnosis::Rejection;
use crate::model::{NodeInfo, PodInfo, Waiting};

/// The question of one cycle, with what the plugins worked out once for all nodes.
pub struct Cycle<'a> {
    /// All nodes and pods.
    pub cluster: &'a Cluster,
    /// The pod that looks for a node.
    pub pod: &'a Arc<PodInfo>,
    /// Its wishes.
    pub waiting: &'a Waiting,
    affinity: inter_pod_affinity::State,
    spread: pod_topology_spread::State,
}

impl<'a> Cycle<'a> {
    /// Prepares a cycle; `None` for a pod that has its node already.
    pub fn new(cluster: &'a Cluster, pod: &'a Arc<PodInfo>) -> Option<Self> {
        let waiting = pod.waiting.as_deref()?;
        Some(Self {
            cluster,
            pod,
            waiting,
            affinity: inter_pod_affinity::State::new(cluster, pod),
            spread: pod_topology_spread::State::new(cluster, pod, waiting),
        })
    }

    /// A copy of the cycle's state in which `without` are gone from `node`: what preemption looks at.
    pub(crate) fn without_pods(&self, node: &NodeInfo, without: &[Arc<PodInfo>]) -> Self {
        let mut cycle = Self {
            cluster: self.cluster,
            pod: self.pod,
            waiting: self.waiting,
            affinity: self.affinity.clone(),
            spread: self.spread.clone(),
        };
        for pod in without {
            cycle.count(node, pod, -1);
        }
        cycle
    }

    /// Counts a pod on `node` in or out of what was worked out.
    pub(crate) fn count(&mut self, node: &NodeInfo, pod: &PodInfo, sign: i64) {
        self.affinity.count(self.cluster, self.pod, node, pod, sign);
        self.spread.count(self.pod, node, pod, sign);
    }

    pub(crate) fn affinity(&self) -> &inter_pod_affinity::State {
        &self.affinity
    }

    pub(crate) fn spread(&self) -> &pod_topology_spread::State {
        &self.spread
    }
}

type Filter = fn(&Cycle<'_>, &NodeInfo) -> Result<(), Rejection>;

/// upstream: pkg/scheduler/apis/config/v1/default_plugins.go getDefaultPlugins
const FILTERS: &[Filter] = &[
    node_unschedulable::filter,
    node_name::filter,
    taint_toleration::filter,
    node_affinity::filter,
    node_ports::filter,
    node_resources_fit::filter,
    pod_topology_spread::filter,
    inter_pod_affinity::filter,
];

/// Asks all plugins about one node as it is.
pub fn run(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    FILTERS.iter().try_for_each(|filter| filter(cycle, node))
}

/// Asks all plugins about one node, with and without the pods that are nominated to it and not less important.
///
/// upstream: pkg/scheduler/framework/runtime/framework.go RunFilterPluginsWithNominatedPods
pub fn run_with_nominated(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    let nominated = cycle.cluster.nominated(&node.name);
    let mut before = nominated
        .iter()
        .filter(|other| other.priority >= cycle.pod.priority && other.uid != cycle.pod.uid)
        .peekable();
    if before.peek().is_some() {
        let mut crowded = node.clone();
        let mut with = cycle.without_pods(node, &[]);
        for other in before {
            with.count(node, other, 1);
            crowded.add_pod(other.clone());
        }
        run(&with, &crowded)?;
    }
    run(cycle, node)
}
