//! Hard topology spread constraints: no domain may have `maxSkew` more matching pods than the emptiest one.
//!
//! upstream: pkg/scheduler/framework/plugins/podtopologyspread/filtering.go

use std::collections::HashMap;

use crate::cluster::Cluster;
use crate::diagnosis::Rejection;
use crate::filter::{Cycle, node_affinity, taint_toleration};
use crate::model::selector::selector_matches;
use crate::model::wire::SpreadConstraint;
use crate::model::{NodeInfo, PodInfo, Waiting};
use crate::plugin::PluginSet;

const REASON: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

/// Matching pods by domain, for each hard constraint.
#[derive(Clone, Default)]
pub struct State {
    constraints: Vec<Counts>,
}

#[derive(Clone)]
struct Counts {
    constraint: SpreadConstraint,
    by_value: HashMap<String, i64>,
}

impl State {
    /// Counts the pods of every node that the constraints take into account.
    pub fn new(cluster: &Cluster, pod: &PodInfo, waiting: &Waiting) -> Self {
        let mut state = Self {
            constraints: waiting
                .spread
                .iter()
                .filter(|constraint| constraint.when_unsatisfiable == "DoNotSchedule")
                .map(|constraint| Counts { constraint: constraint.clone(), by_value: HashMap::new() })
                .collect(),
        };
        if state.constraints.is_empty() {
            return state;
        }
        for node in cluster.nodes() {
            let all = state.constraints.iter().all(|c| node.labels.get(&c.constraint.topology_key).is_some());
            if !all {
                continue;
            }
            for counts in
                state.constraints.iter_mut().filter(|c| counts_node(&c.constraint, pod, waiting, node))
            {
                let Some(value) = node.labels.get(&counts.constraint.topology_key) else { continue };
                let matching = node
                    .pods
                    .iter()
                    .filter(|other| constraint_matches(&counts.constraint, pod, other))
                    .count();
                *counts.by_value.entry(value.to_owned()).or_insert(0) += matching as i64;
            }
        }
        state
    }

    /// Counts one pod in or out.
    pub fn count(&mut self, pod: &PodInfo, node: &NodeInfo, other: &PodInfo, sign: i64) {
        for counts in &mut self.constraints {
            if constraint_matches(&counts.constraint, pod, other)
                && let Some(value) = node.labels.get(&counts.constraint.topology_key)
                && let Some(count) = counts.by_value.get_mut(value)
            {
                *count += sign;
            }
        }
    }
}

/// Whether a node is among those over which is spread.
pub fn counts_node(constraint: &SpreadConstraint, pod: &PodInfo, waiting: &Waiting, node: &NodeInfo) -> bool {
    let honors_affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let honors_taints = constraint.node_taints_policy.as_deref() == Some("Honor");
    (!honors_affinity || node_affinity::matches(pod, waiting, node))
        && (!honors_taints || taint_toleration::tolerates(&waiting.tolerations, node))
}

/// Whether a pod is among those that are spread.
pub fn constraint_matches(constraint: &SpreadConstraint, pod: &PodInfo, other: &PodInfo) -> bool {
    !other.deleting
        && other.namespace() == pod.namespace()
        && selector_matches(constraint.label_selector.as_ref(), &other.labels)
        && constraint
            .match_label_keys
            .iter()
            .all(|key| pod.labels.get(key).is_none_or(|value| other.labels.get(key) == Some(value)))
}

/// Judges a node by the skew that the pod would make there.
pub fn filter(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    for Counts { constraint, by_value } in &cycle.spread().constraints {
        let Some(value) = node.labels.get(&constraint.topology_key) else {
            return Err(Rejection::lasting(PluginSet::POD_TOPOLOGY_SPREAD, NO_LABEL));
        };
        let domains = by_value.len() as i64;
        let least = if domains < constraint.min_domains.unwrap_or(1) {
            0
        } else {
            by_value.values().copied().min().unwrap_or(0)
        };
        let itself = i64::from(constraint_matches(constraint, cycle.pod, cycle.pod));
        let here = by_value.get(value).copied().unwrap_or(0);
        if here + itself - least > constraint.max_skew {
            return Err(Rejection::resolvable(PluginSet::POD_TOPOLOGY_SPREAD, REASON));
        }
    }
    Ok(())
}
