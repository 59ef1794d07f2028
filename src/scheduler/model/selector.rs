//! Matching labels, node selector terms and tolerations.

use compact_str::CompactString;

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
    let listed = |value: &str| expression.values.iter().any(|known| known == value);
    match expression.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" | "Lt" => {
            let bound = expression.values.first().and_then(|bound| bound.parse::<i64>().ok());
            let value = value.and_then(|value| value.parse::<i64>().ok());
            match (value, bound) {
                (Some(value), Some(bound)) if expression.operator == "Gt" => value > bound,
                (Some(value), Some(bound)) => value < bound,
                _ => false,
            }
        }
        _ => false,
    }
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
    tolerations.iter().any(|toleration| {
        (toleration.effect.is_empty() || toleration.effect == taint.effect)
            && (toleration.key.is_empty() || toleration.key == taint.key)
            && match toleration.operator.as_str() {
                "" | "Equal" => toleration.value == taint.value,
                "Exists" => true,
                "Gt" | "Lt" => compares(toleration, taint),
                _ => false,
            }
    })
}

fn compares(toleration: &Toleration, taint: &Taint) -> bool {
    match (taint.value.parse::<i64>(), toleration.value.parse::<i64>()) {
        (Ok(taint), Ok(bound)) if toleration.operator == "Gt" => taint > bound,
        (Ok(taint), Ok(bound)) => taint < bound,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let expression = |operator: &str, values: &str| Expression {
            key: "k".into(),
            operator: operator.into(),
            values: values.split_whitespace().map(str::to_owned).collect(),
        };
        for (operator, values, value, want) in [
            ("In", "a b", Some("a"), true),
            ("In", "a b", Some("c"), false),
            ("In", "a b", None, false),
            ("NotIn", "a b", Some("c"), true),
            ("NotIn", "a b", None, true),
            ("NotIn", "a", Some("a"), false),
            ("Exists", "", Some(""), true),
            ("Exists", "", None, false),
            ("DoesNotExist", "", None, true),
            ("Gt", "3", Some("4"), true),
            ("Gt", "3", Some("3"), false),
            ("Lt", "3", Some("2"), true),
            ("Lt", "3", Some("many"), false),
            ("Unknown", "", Some("a"), false),
        ] {
            assert_eq!(
                expression_matches(&expression(operator, values), value),
                want,
                "{operator} {values} {value:?}"
            );
        }
    }

    #[test]
    fn tolerations() {
        let taint = Taint { key: "k".into(), value: "v".into(), effect: "NoSchedule".into() };
        for (key, operator, value, effect, want) in [
            ("k", "Equal", "v", "NoSchedule", true),
            ("k", "", "v", "", true),
            ("k", "Equal", "w", "NoSchedule", false),
            ("k", "Exists", "", "", true),
            ("", "Exists", "", "", true),
            ("k", "Exists", "", "NoExecute", false),
            ("other", "Exists", "", "", false),
        ] {
            let toleration = Toleration {
                key: key.into(),
                operator: operator.into(),
                value: value.into(),
                effect: effect.into(),
            };
            assert_eq!(tolerated(&[toleration], &taint), want, "{key} {operator} {value} {effect}");
        }
    }
}
