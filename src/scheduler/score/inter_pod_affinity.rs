//! Preferred affinity and anti-affinity to other pods, in both directions.
//!
//! upstream: pkg/scheduler/framework/plugins/interpodaffinity/scoring.go

use super::SCORE_MAX;
use crate::filter::Cycle;
use crate::filter::inter_pod_affinity::{affinity_terms, term_matches};
use crate::model::domains::Domains;
use crate::model::wire::{PodTerm, WeightedPodTerm};
use crate::model::{NodeInfo, PodInfo};

/// What an existing pod's required affinity is worth. upstream: scoring.go HardPodAffinityWeight's default
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// Sums the weights of all terms that hold, by topology domain.
pub fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
    let own = !preferred(cycle.pod, true).is_empty() || !preferred(cycle.pod, false).is_empty();
    if !own && !cycle.cluster.has_pod_affinity() {
        return None;
    }
    let mut domains = Domains::default();
    for node in cycle.cluster.nodes() {
        for other in node.pods.iter().filter(|other| own || other.affinity.is_some()) {
            for (term, weight) in weights(cycle, other) {
                domains.add(node, &term.topology_key, weight);
            }
        }
    }
    if domains.is_empty() {
        return None;
    }
    let sums: Vec<i64> = nodes.iter().map(|node| domains.of(node).sum()).collect();
    let (least, most) = (sums.iter().copied().min()?, sums.iter().copied().max()?);
    let spread = |sum: i64| if most == least { 0 } else { SCORE_MAX * (sum - least) / (most - least) };
    Some(sums.into_iter().map(spread).collect())
}

fn weights<'a>(cycle: &Cycle<'a>, other: &'a PodInfo) -> Vec<(&'a PodTerm, i64)> {
    let (cluster, pod): (_, &'a PodInfo) = (cycle.cluster, cycle.pod);
    let mut out = Vec::new();
    for (attracts, sign) in [(true, 1), (false, -1)] {
        for weighted in preferred(pod, attracts) {
            if term_matches(cluster, &weighted.pod_affinity_term, pod, other) {
                out.push((&weighted.pod_affinity_term, sign * weighted.weight));
            }
        }
        for weighted in preferred(other, attracts) {
            if term_matches(cluster, &weighted.pod_affinity_term, other, pod) {
                out.push((&weighted.pod_affinity_term, sign * weighted.weight));
            }
        }
    }
    for term in affinity_terms(other).iter().filter(|term| term_matches(cluster, term, other, pod)) {
        out.push((term, HARD_AFFINITY_WEIGHT));
    }
    out
}

fn preferred(pod: &PodInfo, attracts: bool) -> &[WeightedPodTerm] {
    let terms = pod.affinity.as_ref().and_then(|affinity| {
        if attracts { affinity.pod_affinity.as_ref() } else { affinity.pod_anti_affinity.as_ref() }
    });
    terms.map_or(&[], |terms| &terms.preferred)
}
