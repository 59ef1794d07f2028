//! Matching labels, node selector terms and tolerations.

use compact_str::CompactString;
use copepod_meta::scheduling::{TaintWords, covers, requirement_holds};

use super::wire::{Expression, LabelSelector, NodeTerm, Taint, Toleration};

/// Labels of an object; few, so searched from front to back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Box<[(CompactString, CompactString)]>);

impl Labels {
    /// From the API's map.
    pub fn new<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        Self(labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether one requirement holds for a value that may be absent.
pub fn expression_matches(expression: &Expression, value: Option<&str>) -> bool {
    requirement_holds(&expression.operator, expression.values.iter().map(String::as_str), value)
}

/// Whether labels match a selector; no selector matches nothing, an empty one everything.
pub fn selector_matches(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    selector.is_some_and(|selector| {
        selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value.as_str()))
            && selector.match_expressions.iter().all(|e| expression_matches(e, labels.get(&e.key)))
    })
}

/// Whether a node matches one term; an empty term matches no node.
///
/// upstream: component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go nodeSelectorTerm.match
pub fn node_term_matches(term: &NodeTerm, name: &str, labels: &Labels) -> bool {
    if term.match_expressions.is_empty() && term.match_fields.is_empty() {
        return false;
    }
    term.match_expressions.iter().all(|e| expression_matches(e, labels.get(&e.key)))
        && term.match_fields.iter().all(|e| e.key == "metadata.name" && expression_matches(e, Some(name)))
}

/// Whether one of the tolerations covers the taint.
///
/// upstream: component-helpers/scheduling/corev1/helpers.go TolerationsTolerateTaint
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    let taint = TaintWords { key: &taint.key, value: &taint.value, effect: &taint.effect };
    tolerations.iter().any(|toleration| {
        let words = TaintWords { key: &toleration.key, value: &toleration.value, effect: &toleration.effect };
        covers(words, &toleration.operator, taint)
    })
}
