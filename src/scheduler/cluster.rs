//! The cluster as the scheduler sees it: nodes with the pods on them, assumed pods, nominations. Plain data, no I/O.
//!
//! One task owns it and changes it between two scheduling cycles only, so that every cycle sees one consistent state
//! without copying it: what upstream calls the cache and its snapshot are one thing here. Each change of a node gives it
//! the next `generation`, so that what is derived from nodes can be kept as long as it is valid.
//!
//! Invariants:
//! * a pod is counted on at most one node; its requests are in that node's sums exactly once;
//! * an assumed pod stays counted until the API shows it bound, or the binding failed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use compact_str::CompactString;
use copepod_client::object::{Key, MetaExt};

use crate::model::wire::{Budget, Namespace, Node};
use crate::model::{Labels, NodeInfo, PodInfo, Resources, normalized_image};

/// Everything a scheduling cycle reads.
#[derive(Default)]
pub struct Cluster {
    nodes: Vec<NodeInfo>,
    index: HashMap<CompactString, usize>,
    pods: HashMap<Key, Arc<PodInfo>>,
    assumed: HashSet<Key>,
    /// Pods on nodes that are not known (yet, or any more).
    homeless: HashMap<CompactString, Vec<Arc<PodInfo>>>,
    /// Pods that other pods made room for, by node.
    nominated: HashMap<CompactString, Vec<Arc<PodInfo>>>,
    /// On how many nodes each image is.
    images: HashMap<Arc<str>, usize>,
    budgets: HashMap<Key, Budget>,
    namespaces: HashMap<String, Labels>,
    /// Pods on nodes that have (anti-)affinity: if there is none, the plugin has nothing to look at.
    pods_with_affinity: usize,
    generation: u64,
}

impl Cluster {
    /// All nodes, in an order that changes only when one goes.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.index.get(name).map(|at| &self.nodes[*at])
    }

    /// The place of a node in [`Cluster::nodes`].
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// On how many nodes an image is.
    pub fn image_spread(&self, name: &str) -> usize {
        self.images.get(name).copied().unwrap_or(0)
    }

    /// Pods nominated to a node.
    pub fn nominated(&self, node: &str) -> &[Arc<PodInfo>] {
        self.nominated.get(node).map_or(&[], Vec::as_slice)
    }

    /// All disruption budgets.
    pub fn budgets(&self) -> impl Iterator<Item = &Budget> {
        self.budgets.values()
    }

    /// Labels of a namespace.
    pub fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// Whether any pod on a node has affinity to others.
    pub fn has_pod_affinity(&self) -> bool {
        self.pods_with_affinity > 0
    }

    /// A pod that has a node, or is assumed to.
    pub fn pod(&self, key: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(key)
    }

    /// Adds or changes a node; returns its state before.
    pub fn set_node(&mut self, node: &Node) -> Option<NodeInfo> {
        self.generation += 1;
        let generation = self.generation;
        let name: CompactString = MetaExt::name(&node.metadata).into();
        let images = self.intern_images(node);
        let at = self.index.get(&name).copied();
        let before = at.map(|at| self.nodes[at].clone());
        let mut after =
            before.clone().unwrap_or_else(|| NodeInfo { name: name.clone(), ..NodeInfo::default() });
        after.exists = true;
        after.generation = generation;
        after.labels = Labels::new(node.metadata.labels.iter().flatten());
        after.taints = node.spec.taints.clone();
        after.unschedulable = node.spec.unschedulable;
        after.allocatable = Resources::parse(&node.status.allocatable);
        after.pods_max = node.status.allocatable.get("pods").and_then(|n| n.parse().ok()).unwrap_or(0);
        for (image, _) in &images {
            *self.images.entry(image.clone()).or_insert(0) += 1;
        }
        self.forget_images(before.as_ref());
        after.images = images;
        match at {
            Some(at) => self.nodes[at] = after,
            None => {
                for pod in self.homeless.remove(&name).unwrap_or_default() {
                    after.add_pod(pod);
                }
                self.index.insert(name, self.nodes.len());
                self.nodes.push(after);
            }
        }
        before
    }

    /// Removes a node; its pods are remembered until they go too.
    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.index.remove(name) else { return };
        let gone = self.nodes.swap_remove(at);
        if let Some(moved) = self.nodes.get(at) {
            self.index.insert(moved.name.clone(), at);
        }
        self.forget_images(Some(&gone));
        if !gone.pods.is_empty() {
            self.homeless.insert(gone.name, gone.pods);
        }
    }

    fn intern_images(&self, node: &Node) -> Box<[(Arc<str>, i64)]> {
        let mut images: Vec<(Arc<str>, i64)> = Vec::new();
        for image in &node.status.images {
            for name in &image.names {
                let name = normalized_image(name);
                let shared = self.images.get_key_value(name.as_str()).map(|(known, _)| known.clone());
                images.push((shared.unwrap_or_else(|| name.into()), image.size_bytes));
            }
        }
        images.sort_by(|a, b| a.0.cmp(&b.0));
        images.dedup_by(|a, b| a.0 == b.0);
        images.into()
    }

    fn forget_images(&mut self, node: Option<&NodeInfo>) {
        for (image, _) in node.iter().flat_map(|node| &node.images) {
            if let Some(count) = self.images.get_mut(image) {
                *count -= 1;
                if *count == 0 {
                    self.images.remove(image);
                }
            }
        }
    }

    /// Adds or changes a pod that the API shows on a node; an assumption about it is settled by that.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>) {
        self.assumed.remove(&pod.key);
        self.place(pod);
    }

    /// Counts a pod on the node that was chosen for it, before the API knows.
    pub fn assume(&mut self, pod: Arc<PodInfo>) {
        self.assumed.insert(pod.key.clone());
        self.place(pod);
    }

    /// Takes an assumption back. Does nothing if the API has shown the pod bound meanwhile.
    pub fn forget(&mut self, key: &str) {
        if self.assumed.remove(key) {
            self.remove_pod(key);
        }
    }

    /// Whether a pod is assumed on a node.
    pub fn is_assumed(&self, key: &str) -> bool {
        self.assumed.contains(key)
    }

    fn place(&mut self, pod: Arc<PodInfo>) {
        self.remove_counted(&pod.key);
        self.pods_with_affinity += usize::from(pod.affinity.is_some());
        self.pods.insert(pod.key.clone(), pod.clone());
        match self.index.get(&pod.node) {
            Some(at) => {
                self.generation += 1;
                self.nodes[*at].generation = self.generation;
                self.nodes[*at].add_pod(pod);
            }
            None => self.homeless.entry(pod.node.clone()).or_default().push(pod),
        }
    }

    /// Removes a pod; returns it if it was on a node.
    pub fn remove_pod(&mut self, key: &str) -> Option<Arc<PodInfo>> {
        self.assumed.remove(key);
        self.remove_counted(key)
    }

    fn remove_counted(&mut self, key: &str) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(key)?;
        self.pods_with_affinity -= usize::from(pod.affinity.is_some());
        match self.index.get(&pod.node) {
            Some(at) => {
                self.generation += 1;
                self.nodes[*at].generation = self.generation;
                self.nodes[*at].remove_pod(key);
            }
            None => {
                if let Some(pods) = self.homeless.get_mut(&pod.node) {
                    pods.retain(|known| &*known.key != key);
                    if pods.is_empty() {
                        self.homeless.remove(&pod.node);
                    }
                }
            }
        }
        Some(pod)
    }

    /// Notes that room is being made for `pod` on `node`; an empty name takes the nomination back.
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.forget_nomination(&pod.key);
        if !node.is_empty() {
            self.nominated.entry(node.into()).or_default().push(pod.clone());
        }
    }

    /// Takes the nomination of a pod back: it has a node, or is gone.
    pub fn forget_nomination(&mut self, key: &str) {
        self.nominated.retain(|_, pods| {
            pods.retain(|known| &*known.key != key);
            !pods.is_empty()
        });
    }

    /// Keys of all pods that are counted on nodes by the API's word.
    pub fn bound_keys(&self) -> Vec<Key> {
        self.pods.keys().filter(|key| !self.assumed.contains(*key)).cloned().collect()
    }

    /// Adds or changes a disruption budget.
    pub fn set_budget(&mut self, budget: Budget) {
        self.budgets.insert(budget.metadata.key(), budget);
    }

    /// Removes a disruption budget.
    pub fn remove_budget(&mut self, key: &str) {
        self.budgets.remove(key);
    }

    /// Adds or changes a namespace.
    pub fn set_namespace(&mut self, namespace: &Namespace) {
        let labels = Labels::new(namespace.metadata.labels.iter().flatten());
        self.namespaces.insert(MetaExt::name(&namespace.metadata).to_owned(), labels);
    }

    /// Removes a namespace.
    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }
}
