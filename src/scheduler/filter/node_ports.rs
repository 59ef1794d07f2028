//! A host port is given to one pod of a node.

use crate::diagnosis::Rejection;
use crate::filter::Cycle;
use crate::model::{HostPort, NodeInfo};
use crate::plugin::PluginSet;

const REASON: &str = "node(s) didn't have free ports for the requested pod ports";

/// upstream: pkg/scheduler/framework/plugins/nodeports/node_ports.go Filter
pub fn filter(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    let wanted = &cycle.pod.ports;
    if wanted.is_empty() || !node.pods.iter().any(|pod| conflict(wanted, &pod.ports)) {
        return Ok(());
    }
    Err(Rejection::resolvable(PluginSet::NODE_PORTS, REASON))
}

/// Whether two pods cannot share a node because of their ports.
pub fn conflict(wanted: &[HostPort], taken: &[HostPort]) -> bool {
    let any = |ip: &str| ip == "0.0.0.0";
    wanted.iter().any(|a| {
        taken.iter().any(|b| {
            a.port == b.port && a.protocol == b.protocol && (a.ip == b.ip || any(&a.ip) || any(&b.ip))
        })
    })
}
