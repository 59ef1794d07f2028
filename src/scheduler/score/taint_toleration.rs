//! Fewer taints that say "prefer not" are better.

use crate::filter::Cycle;
use crate::model::NodeInfo;
use crate::model::selector::tolerated;
use crate::model::wire::Toleration;

const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";

/// upstream: pkg/scheduler/framework/plugins/tainttoleration/taint_toleration.go Score
pub fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
    if nodes.iter().all(|node| node.taints.is_empty()) {
        return Some(vec![super::SCORE_MAX; nodes.len()]);
    }
    let fitting =
        |toleration: &&Toleration| toleration.effect.is_empty() || toleration.effect == PREFER_NO_SCHEDULE;
    let tolerations: Vec<Toleration> = cycle.waiting.tolerations.iter().filter(fitting).cloned().collect();
    let mut scores: Vec<i64> = nodes
        .iter()
        .map(|node| {
            let unwanted = node.taints.iter().filter(|taint| taint.effect == PREFER_NO_SCHEDULE);
            unwanted.filter(|taint| !tolerated(&tolerations, taint)).count() as i64
        })
        .collect();
    super::normalize(&mut scores, true);
    Some(scores)
}
