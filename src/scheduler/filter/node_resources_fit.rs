//! What a pod requests must be left of what the node offers. Actual use does not count.

use std::borrow::Cow;

use crate::diagnosis::Rejection;
use crate::filter::Cycle;
use crate::model::{NodeInfo, Resources};
use crate::plugin::PluginSet;

/// upstream: pkg/scheduler/framework/plugins/noderesources/fit.go fitsRequest
pub fn filter(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    let lacking = lacking(&cycle.pod.requests, node);
    if lacking.is_empty() {
        return Ok(());
    }
    let resolvable = lacking.iter().all(|lack| lack.resolvable);
    let reasons = lacking.into_iter().map(|lack| lack.reason).collect();
    Err(Rejection { plugin: PluginSet::NODE_RESOURCES_FIT, resolvable, reasons })
}

struct Lack {
    reason: Cow<'static, str>,
    /// Whether an empty node would have enough.
    resolvable: bool,
}

fn lacking(wanted: &Resources, node: &NodeInfo) -> Vec<Lack> {
    let mut out = Vec::new();
    if node.pods.len() as i64 + 1 > node.pods_max {
        out.push(Lack { reason: Cow::Borrowed("Too many pods"), resolvable: true });
    }
    let mut check = |wanted: i64, offered: i64, used: i64, reason: &dyn Fn() -> Cow<'static, str>| {
        if wanted > 0 && wanted > offered - used {
            out.push(Lack { reason: reason(), resolvable: wanted <= offered });
        }
    };
    let (all, used) = (&node.allocatable, &node.requested);
    check(wanted.milli_cpu, all.milli_cpu, used.milli_cpu, &|| Cow::Borrowed("Insufficient cpu"));
    check(wanted.memory, all.memory, used.memory, &|| Cow::Borrowed("Insufficient memory"));
    check(wanted.ephemeral_storage, all.ephemeral_storage, used.ephemeral_storage, &|| {
        Cow::Borrowed("Insufficient ephemeral-storage")
    });
    for (name, amount) in &wanted.scalars {
        check(*amount, all.scalar(name), used.scalar(name), &|| Cow::Owned(format!("Insufficient {name}")));
    }
    out
}

/// Whether a node offers enough when nothing runs on it.
pub fn could_fit(wanted: &Resources, node: &NodeInfo) -> bool {
    let all = &node.allocatable;
    wanted.milli_cpu <= all.milli_cpu
        && wanted.memory <= all.memory
        && wanted.ephemeral_storage <= all.ephemeral_storage
        && wanted.scalars.iter().all(|(name, amount)| *amount <= all.scalar(name))
}
