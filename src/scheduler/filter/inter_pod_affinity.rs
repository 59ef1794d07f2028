//! Required affinity and anti-affinity to other pods, in both directions.
//!
//! Worked out once a cycle: how many matching pods each topology domain has. Then a node is judged by its own domains.
//!
//! upstream: pkg/scheduler/framework/plugins/interpodaffinity/filtering.go

use std::collections::HashMap;

use crate::cluster::Cluster;
use crate::diagnosis::Rejection;
use crate::filter::Cycle;
use crate::model::selector::selector_matches;
use crate::model::wire::PodTerm;
use crate::model::{NodeInfo, PodInfo};
use crate::plugin::PluginSet;

const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING_ANTI_AFFINITY: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// Counts by topology key and value.
type Domains = HashMap<(String, String), i64>;

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
        let bump = |domains: &mut Domains, term: &PodTerm| {
            if let Some(value) = node.labels.get(&term.topology_key) {
                *domains.entry((term.topology_key.clone(), value.to_owned())).or_insert(0) += sign;
            }
        };
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
    if own_terms.iter().any(|term| in_domain(&state.anti_affinity, term, node) > 0) {
        return Err(Rejection::resolvable(PluginSet::INTER_POD_AFFINITY, ANTI_AFFINITY));
    }
    let forbidden = state
        .existing
        .iter()
        .any(|((key, value), count)| *count > 0 && node.labels.get(key) == Some(value.as_str()));
    if forbidden {
        return Err(Rejection::resolvable(PluginSet::INTER_POD_AFFINITY, EXISTING_ANTI_AFFINITY));
    }
    Ok(())
}

fn satisfies_affinity(cycle: &Cycle<'_>, node: &NodeInfo) -> bool {
    let terms = affinity_terms(cycle.pod);
    if !terms.iter().all(|term| node.labels.get(&term.topology_key).is_some()) {
        return false;
    }
    if terms.iter().all(|term| in_domain(&cycle.affinity().affinity, term, node) > 0) {
        return true;
    }
    // The first pod of a group that wants to be together may start anywhere.
    cycle.affinity().affinity.values().all(|count| *count <= 0)
        && terms.iter().all(|term| term_matches(cycle.cluster, term, cycle.pod, cycle.pod))
}

fn in_domain(domains: &Domains, term: &PodTerm, node: &NodeInfo) -> i64 {
    let Some(value) = node.labels.get(&term.topology_key) else { return 0 };
    domains.get(&(term.topology_key.clone(), value.to_owned())).copied().unwrap_or(0)
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
