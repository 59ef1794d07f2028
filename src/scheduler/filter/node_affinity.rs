//! `nodeSelector` and required node affinity.

use std::collections::BTreeSet;

use crate::diagnosis::Rejection;
use crate::filter::Cycle;
use crate::model::selector::node_term_matches;
use crate::model::wire::{NodeSelector, NodeTerm};
use crate::model::{NodeInfo, PodInfo, Waiting};
use crate::plugin::PluginSet;

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";

/// upstream: pkg/scheduler/framework/plugins/nodeaffinity/node_affinity.go Filter
pub fn filter(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    if matches(cycle.pod, cycle.waiting, node) {
        return Ok(());
    }
    Err(Rejection::lasting(PluginSet::NODE_AFFINITY, REASON))
}

/// Whether a node is one that the pod wants.
pub fn matches(pod: &PodInfo, waiting: &Waiting, node: &NodeInfo) -> bool {
    waiting.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value.as_str()))
        && required(pod).is_none_or(|selector| {
            selector.node_selector_terms.iter().any(|term| node_term_matches(term, &node.name, &node.labels))
        })
}

fn required(pod: &PodInfo) -> Option<&NodeSelector> {
    pod.affinity.as_ref()?.node_affinity.as_ref()?.required.as_ref()
}

/// The nodes that a pod names by `metadata.name` in every term of its affinity: no other node need be asked. This is how
/// a DaemonSet's pod finds its node.
///
/// upstream: pkg/scheduler/framework/plugins/nodeaffinity/node_affinity.go PreFilter
pub fn named_nodes(pod: &PodInfo) -> Option<BTreeSet<&str>> {
    let terms = &required(pod)?.node_selector_terms;
    let mut names = BTreeSet::new();
    for term in terms {
        names.extend(names_of(term)?);
    }
    (!terms.is_empty()).then_some(names)
}

fn names_of(term: &NodeTerm) -> Option<BTreeSet<&str>> {
    let mut names: Option<BTreeSet<&str>> = None;
    for field in term.match_fields.iter().filter(|f| f.key == "metadata.name" && f.operator == "In") {
        let these: BTreeSet<&str> = field.values.iter().map(String::as_str).collect();
        names =
            Some(names.map_or_else(|| these.clone(), |names| names.intersection(&these).copied().collect()));
    }
    names
}
