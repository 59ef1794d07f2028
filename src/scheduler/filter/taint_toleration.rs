//! A pod must tolerate every taint that keeps pods away.

use crate::diagnosis::Rejection;
use crate::filter::Cycle;
use crate::model::NodeInfo;
use crate::model::selector::tolerated;
use crate::model::wire::Toleration;
use crate::plugin::PluginSet;

const REASON: &str = "node(s) had untolerated taint(s)";

/// upstream: pkg/scheduler/framework/plugins/tainttoleration/taint_toleration.go Filter
pub fn filter(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    if tolerates(&cycle.waiting.tolerations, node) {
        return Ok(());
    }
    Err(Rejection::lasting(PluginSet::TAINT_TOLERATION, REASON))
}

/// Whether the tolerations cover all taints of `node` that keep pods away.
pub fn tolerates(tolerations: &[Toleration], node: &NodeInfo) -> bool {
    let keeps_away = |effect: &str| effect == "NoSchedule" || effect == "NoExecute";
    node.taints.iter().filter(|taint| keeps_away(&taint.effect)).all(|taint| tolerated(tolerations, taint))
}
