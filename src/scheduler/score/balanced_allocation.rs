//! A node whose resources are used evenly is better; so is a pod that makes its use more even.

use super::SCORE_MAX;
use crate::filter::Cycle;
use crate::model::{NodeInfo, Resources};

/// upstream: pkg/scheduler/framework/plugins/noderesources/balanced_allocation.go balancedResourceScorer
pub fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
    let wanted = &cycle.pod.requests;
    if wanted.milli_cpu == 0 && wanted.memory == 0 {
        return None;
    }
    let of_node = |node: &&NodeInfo| {
        let used = &node.requested;
        let without = evenness(used.milli_cpu, used.memory, &node.allocatable);
        let with =
            evenness(used.milli_cpu + wanted.milli_cpu, used.memory + wanted.memory, &node.allocatable);
        SCORE_MAX / 2 + (SCORE_MAX / 2 + with - without) / 2
    };
    Some(nodes.iter().map(of_node).collect())
}

/// 100 when the shares are equal. Of two values the standard deviation is half their distance.
fn evenness(milli_cpu: i64, memory: i64, offered: &Resources) -> i64 {
    let share = |used: i64, offered: i64| (used as f64 / offered as f64).min(1.0);
    let deviation = if offered.milli_cpu == 0 || offered.memory == 0 {
        0.0
    } else {
        ((share(milli_cpu, offered.milli_cpu) - share(memory, offered.memory)) / 2.0).abs()
    };
    ((1.0 - deviation) * SCORE_MAX as f64) as i64
}
