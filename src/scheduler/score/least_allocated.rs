//! The emptier a node will be, the better.

use super::SCORE_MAX;
use crate::filter::Cycle;
use crate::model::NodeInfo;

/// upstream: pkg/scheduler/framework/plugins/noderesources/least_allocated.go leastResourceScorer
pub fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
    let wanted = &cycle.pod.scoring_requests;
    let of_node = |node: &&NodeInfo| {
        let (offered, used) = (&node.allocatable, &node.scoring_requested);
        let cpu = free_share(used.milli_cpu + wanted.milli_cpu, offered.milli_cpu);
        let memory = free_share(used.memory + wanted.memory, offered.memory);
        let shares: Vec<i64> = cpu.into_iter().chain(memory).collect();
        if shares.is_empty() { 0 } else { shares.iter().sum::<i64>() / shares.len() as i64 }
    };
    Some(nodes.iter().map(of_node).collect())
}

/// Hundredths that stay free; `None` for a resource that the node does not have.
fn free_share(requested: i64, capacity: i64) -> Option<i64> {
    match capacity {
        0 => None,
        _ if requested > capacity => Some(0),
        _ => Some((capacity - requested) * SCORE_MAX / capacity),
    }
}
