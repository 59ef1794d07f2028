//! Preferred node affinity: the sum of the weights of the terms that a node matches.

use crate::filter::Cycle;
use crate::model::NodeInfo;
use crate::model::selector::node_term_matches;

/// upstream: pkg/scheduler/framework/plugins/nodeaffinity/node_affinity.go Score
pub fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
    let preferred = &cycle.pod.affinity.as_ref()?.node_affinity.as_ref()?.preferred;
    if preferred.is_empty() {
        return None;
    }
    let mut scores: Vec<i64> = nodes
        .iter()
        .map(|node| {
            let matching =
                preferred.iter().filter(|p| node_term_matches(&p.preference, &node.name, &node.labels));
            matching.map(|p| p.weight).sum()
        })
        .collect();
    super::normalize(&mut scores, false);
    Some(scores)
}
