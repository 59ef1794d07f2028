//! A pod that names its node goes there only.

use crate::diagnosis::Rejection;
use crate::filter::Cycle;
use crate::model::NodeInfo;
use crate::plugin::PluginSet;

const REASON: &str = "node(s) didn't match the requested node name";

/// upstream: pkg/scheduler/framework/plugins/nodename/node_name.go Filter
pub fn filter(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    if cycle.pod.node.is_empty() || cycle.pod.node == node.name {
        return Ok(());
    }
    Err(Rejection::lasting(PluginSet::NODE_NAME, REASON))
}
