//! Scores: which of the nodes that can run a pod should? One file a plugin; each gives 0 to 100, times its weight.

pub mod balanced_allocation;
pub mod image_locality;
pub mod inter_pod_affinity;
pub mod least_allocated;
pub mod node_affinity;
pub mod pod_topology_spread;
pub mod taint_toleration;

use crate::filter::Cycle;
use crate::model::NodeInfo;

/// The best score of a plugin.
pub const SCORE_MAX: i64 = 100;

/// Scores all nodes at once, so that a plugin can compare them; `None` if it has nothing to say about this pod.
type Scorer = fn(&Cycle<'_>, &[&NodeInfo]) -> Option<Vec<i64>>;

/// upstream: pkg/scheduler/apis/config/v1/default_plugins.go getDefaultPlugins
const SCORERS: &[(Scorer, i64)] = &[
    (taint_toleration::score, 3),
    (node_affinity::score, 2),
    (least_allocated::score, 1),
    (pod_topology_spread::score, 2),
    (inter_pod_affinity::score, 2),
    (balanced_allocation::score, 1),
    (image_locality::score, 1),
];

/// The weighted sum of all plugins for each node.
pub fn run(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let mut totals = vec![0; nodes.len()];
    for (scorer, weight) in SCORERS {
        let Some(scores) = scorer(cycle, nodes) else { continue };
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    }
    totals
}

/// Stretches scores so that the greatest becomes 100, or turns them round so that it becomes 0.
///
/// upstream: pkg/scheduler/framework/plugins/helper/normalize_score.go DefaultNormalizeScore
pub fn normalize(scores: &mut [i64], reverse: bool) {
    let greatest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let stretched = if greatest == 0 { 0 } else { SCORE_MAX * *score / greatest };
        *score = if reverse { SCORE_MAX - stretched } else { stretched };
    }
}
