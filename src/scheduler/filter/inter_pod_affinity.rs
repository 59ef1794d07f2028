//! Required affinity and anti-affinity to other pods, in both directions.
//!
//! Worked out once a cycle: how many matching pods each topology domain has. Then a node is judged by its own domains.
//!
//! upstream: pkg/scheduler/framework/plugins/interpodaffinity/filtering.go

use crate::cluster::Cluster;
use crate::diagnosis::Rejection;
use crate::filter::Cycle;
use crate::model::domains::Domains;
use crate::model::selector::selector_matches;
use crate::model::wire::PodTerm;
use crate::model::{NodeInfo, PodInfo};
use crate::plugin::PluginSet;

const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING_ANTI_AFFINITY: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// Matching pods by domain.
#[derive(Clone, Default)]
pub struct State {
    /// Pods that match all terms of the new pod's affinity.
    affinity: Domains,
    /// Pods that match a term of the new pod's anti-affinity.
    anti_affinity: Domains,
    /// Pods whose own anti-affinity forbids the new pod.
    existing: Domains,
    /// Whether the new pod has terms at all, or others have that may forbid it.
    idle: bool,
}

impl State {
    /// Counts every pod of the cluster, if any term is at stake.
    pub fn new(cluster: &Cluster, pod: &PodInfo) -> Self {
        let own = !affinity_terms(pod).is_empty() || !anti_affinity_terms(pod).is_empty();
        let mut state = Self { idle: !own && !cluster.has_pod_affinity(), ..Self::default() };
        if state.idle {
            return state;
        }
        for node in cluster.nodes() {
            for other in &node.pods {
                if own || other.affinity.is_some() {
                    state.count(cluster, pod, node, other, 1);
                }
            }
        }
        state
    }

    /// Counts one pod in or out.
    pub fn count(&mut self, cluster: &Cluster, pod: &PodInfo, node: &NodeInfo, other: &PodInfo, sign: i64) {
        if self.idle && other.affinity.is_none() {
            return;
        }
        let bump = |domains: &mut Domains, term: &PodTerm| domains.add(node, &term.topology_key, sign);
        let wanted = affinity_terms(pod);
        if !wanted.is_empty() && wanted.iter().all(|term| term_matches(cluster, term, pod, other)) {
            wanted.iter().for_each(|term| bump(&mut self.affinity, term));
        }
        for term in anti_affinity_terms(pod).iter().filter(|term| term_matches(cluster, term, pod, other)) {
            bump(&mut self.anti_affinity, term);
        }
        for term in anti_affinity_terms(other).iter().filter(|term| term_matches(cluster, term, other, pod)) {
            bump(&mut self.existing, term);
        }
    }
}

/// Judges a node by the counts of its domains.
pub fn filter(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    let state = cycle.affinity();
    if state.idle && state.existing.is_empty() {
        return Ok(());
    }
    if !satisfies_affinity(cycle, node) {
        return Err(Rejection::lasting(PluginSet::INTER_POD_AFFINITY, AFFINITY));
    }
    let own_terms = anti_affinity_terms(cycle.pod);
    if own_terms.iter().any(|term| state.anti_affinity.get(node, &term.topology_key) > 0) {
        return Err(Rejection::resolvable(PluginSet::INTER_POD_AFFINITY, ANTI_AFFINITY));
    }
    if state.existing.of(node).any(|count| count > 0) {
        return Err(Rejection::resolvable(PluginSet::INTER_POD_AFFINITY, EXISTING_ANTI_AFFINITY));
    }
    Ok(())
}

fn satisfies_affinity(cycle: &Cycle<'_>, node: &NodeInfo) -> bool {
    let terms = affinity_terms(cycle.pod);
    if !terms.iter().all(|term| node.labels.get(&term.topology_key).is_some()) {
        return false;
    }
    let matching = &cycle.affinity().affinity;
    if terms.iter().all(|term| matching.get(node, &term.topology_key) > 0) {
        return true;
    }
    // The first pod of a group that wants to be together may start anywhere.
    matching.numbers().all(|count| count <= 0)
        && terms.iter().all(|term| term_matches(cycle.cluster, term, cycle.pod, cycle.pod))
}

/// Required terms of a pod's affinity.
pub fn affinity_terms(pod: &PodInfo) -> &[PodTerm] {
    let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.pod_affinity.as_ref());
    affinity.map_or(&[], |affinity| &affinity.required)
}

/// Required terms of a pod's anti-affinity.
pub fn anti_affinity_terms(pod: &PodInfo) -> &[PodTerm] {
    let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    affinity.map_or(&[], |affinity| &affinity.required)
}

/// Whether `other` is one of the pods that a term of `pod` speaks of.
pub fn term_matches(cluster: &Cluster, term: &PodTerm, pod: &PodInfo, other: &PodInfo) -> bool {
    let namespace = other.namespace();
    let selected = term.namespace_selector.as_ref().is_some_and(|selector| {
        cluster.namespace_labels(namespace).is_some_and(|labels| selector_matches(Some(selector), labels))
    });
    let own = term.namespaces.is_empty() && term.namespace_selector.is_none() && namespace == pod.namespace();
    if !(own || selected || term.namespaces.iter().any(|listed| listed == namespace)) {
        return false;
    }
    let same = |key: &String| pod.labels.get(key).is_none_or(|value| other.labels.get(key) == Some(value));
    let differs = |key: &String| pod.labels.get(key).is_none_or(|value| other.labels.get(key) != Some(value));
    selector_matches(term.label_selector.as_ref(), &other.labels)
        && term.match_label_keys.iter().all(same)
        && term.mismatch_label_keys.iter().all(differs)
}
