//! Why a pod fits on no node, in upstream's words.
//!
//! upstream: pkg/scheduler/framework/types.go FitError.Error

use std::borrow::Cow;
use std::collections::HashMap;

use crate::plugin::PluginSet;

/// Why one node does not take a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Who says so.
    pub plugin: PluginSet,
    /// Whether it would help if other pods left the node.
    pub resolvable: bool,
    /// What is said.
    pub reasons: Vec<Cow<'static, str>>,
}

impl Rejection {
    /// One reason that stays whatever pods leave.
    pub fn lasting(plugin: PluginSet, reason: &'static str) -> Self {
        Self { plugin, resolvable: false, reasons: vec![Cow::Borrowed(reason)] }
    }

    /// One reason that pods on the node are to blame for.
    pub fn resolvable(plugin: PluginSet, reason: &'static str) -> Self {
        Self { plugin, resolvable: true, reasons: vec![Cow::Borrowed(reason)] }
    }
}

/// What all nodes said.
#[derive(Debug, Clone, Default)]
pub struct Diagnosis {
    reasons: HashMap<Cow<'static, str>, usize>,
    /// Who rejected the pod somewhere.
    pub plugins: PluginSet,
    /// Nodes, by position, that pods could leave to make room.
    pub resolvable: Vec<usize>,
    /// What the post-filter stage had to say.
    pub post_filter: String,
}

impl Diagnosis {
    /// Notes what a node said.
    pub fn reject(&mut self, node: usize, rejection: Rejection) {
        self.plugins |= rejection.plugin;
        if rejection.resolvable {
            self.resolvable.push(node);
        }
        for reason in rejection.reasons {
            *self.reasons.entry(reason).or_insert(0) += 1;
        }
    }

    /// Notes one reason for `count` nodes that were not asked.
    pub fn reject_unasked(&mut self, reason: Cow<'static, str>, plugin: PluginSet, count: usize) {
        if count > 0 {
            self.plugins |= plugin;
            *self.reasons.entry(reason).or_insert(0) += count;
        }
    }

    /// `0/3 nodes are available: 1 .., 2 ... <post filter>`
    pub fn message(&self, nodes: usize) -> String {
        let mut message = format!("0/{nodes} nodes are available:");
        let mut reasons: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        if !reasons.is_empty() {
            message.push(' ');
            message.push_str(&reasons.join(", "));
            message.push('.');
        }
        if !self.post_filter.is_empty() {
            message.push(' ');
            message.push_str(&self.post_filter);
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_histograms_sorted_as_text() {
        let reject = |diagnosis: &mut Diagnosis, times: usize, reason: &'static str| {
            for node in 0..times {
                diagnosis.reject(node, Rejection::lasting(PluginSet::NODE_AFFINITY, reason));
            }
        };
        let mut diagnosis = Diagnosis::default();
        reject(&mut diagnosis, 2, "b");
        reject(&mut diagnosis, 10, "a");
        assert_eq!(diagnosis.message(12), "0/12 nodes are available: 10 a, 2 b.");
        diagnosis.post_filter = "preemption: none".into();
        assert_eq!(diagnosis.message(12), "0/12 nodes are available: 10 a, 2 b. preemption: none");
        assert_eq!(Diagnosis::default().message(0), "0/0 nodes are available:");
    }
}
