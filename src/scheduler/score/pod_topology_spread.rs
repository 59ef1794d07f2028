//! Soft topology spread constraints of a pod. (The default ones of upstream, which need Services and owners, are not applied.)
//!
//! upstream: pkg/scheduler/framework/plugins/podtopologyspread/scoring.go

use std::collections::HashMap;

use super::SCORE_MAX;
use crate::filter::Cycle;
use crate::filter::pod_topology_spread::{constraint_matches, counts_node};
use crate::model::NodeInfo;
use crate::model::wire::SpreadConstraint;

/// Scores by how few matching pods a node's domains have.
pub fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
    let soft: Vec<&SpreadConstraint> =
        cycle.waiting.spread.iter().filter(|c| c.when_unsatisfiable == "ScheduleAnyway").collect();
    if soft.is_empty() {
        return None;
    }
    let labelled = |node: &NodeInfo| soft.iter().all(|c| node.labels.get(&c.topology_key).is_some());
    let mut costs = vec![0.0; nodes.len()];
    for constraint in &soft {
        let mut counts: HashMap<&str, i64> = nodes
            .iter()
            .filter(|node| labelled(node))
            .filter_map(|node| Some((node.labels.get(&constraint.topology_key)?, 0)))
            .collect();
        for node in cycle.cluster.nodes() {
            if labelled(node)
                && counts_node(constraint, cycle.pod, cycle.waiting, node)
                && let Some(value) = node.labels.get(&constraint.topology_key)
                && let Some(count) = counts.get_mut(value)
            {
                let matching =
                    node.pods.iter().filter(|other| constraint_matches(constraint, cycle.pod, other));
                *count += matching.count() as i64;
            }
        }
        // A key with many domains says less about each: its weight grows with the logarithm of their number.
        let weight = ((counts.len() + 2) as f64).ln();
        for (cost, node) in costs.iter_mut().zip(nodes) {
            let here = node.labels.get(&constraint.topology_key).and_then(|value| counts.get(value));
            *cost += here.copied().unwrap_or(0) as f64 * weight + (constraint.max_skew - 1) as f64;
        }
    }
    let costs: Vec<Option<i64>> =
        costs.iter().zip(nodes).map(|(cost, node)| labelled(node).then(|| cost.round() as i64)).collect();
    let least = costs.iter().flatten().copied().min()?;
    let most = costs.iter().flatten().copied().max()?;
    let spread = |cost: Option<i64>| match cost {
        None => 0,
        Some(_) if most == 0 => SCORE_MAX,
        Some(cost) => SCORE_MAX * (most + least - cost) / most,
    };
    Some(costs.into_iter().map(spread).collect())
}
