//! A cordoned node takes only pods that tolerate it.

use crate::diagnosis::Rejection;
use crate::filter::Cycle;
use crate::model::NodeInfo;
use crate::model::selector::tolerated;
use crate::model::wire::{Taint, Toleration};
use crate::plugin::PluginSet;

const REASON: &str = "node(s) were unschedulable";

/// upstream: pkg/scheduler/framework/plugins/nodeunschedulable/node_unschedulable.go Filter
pub fn filter(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    if !node.unschedulable || tolerates(&cycle.waiting.tolerations) {
        return Ok(());
    }
    Err(Rejection::lasting(PluginSet::NODE_UNSCHEDULABLE, REASON))
}

/// Whether the tolerations cover the taint that a cordoned node has.
pub fn tolerates(tolerations: &[Toleration]) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        value: String::new(),
        effect: "NoSchedule".into(),
    };
    tolerated(tolerations, &taint)
}
