//! What scheduler, controllers and kubelet must read alike: requirements on labels, taints and tolerations. Each brings
//! its own partial types; here are only their words.
//!
//! upstream: component-helpers/scheduling/corev1/helpers.go, apimachinery/pkg/labels/selector.go Requirement.Matches

/// Whether a requirement holds for a value that may be absent. An unknown operator never does.
pub fn requirement_holds<'a>(
    operator: &str,
    values: impl IntoIterator<Item = &'a str>,
    value: Option<&str>,
) -> bool {
    let mut values = values.into_iter();
    match operator {
        "In" => value.is_some_and(|value| values.any(|known| known == value)),
        "NotIn" => !value.is_some_and(|value| values.any(|known| known == value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers(value, values.next()).is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers(value, values.next()).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// A taint, or what of a toleration is compared with it. What is absent is "".
#[derive(Clone, Copy, Debug, Default)]
pub struct TaintWords<'a> {
    /// Its key.
    pub key: &'a str,
    /// Its value.
    pub value: &'a str,
    /// `NoSchedule`, `PreferNoSchedule`, `NoExecute`.
    pub effect: &'a str,
}

/// Whether a toleration with this operator covers the taint.
///
/// upstream: api/core/v1/toleration.go ToleratesTaint
pub fn covers(toleration: TaintWords<'_>, operator: &str, taint: TaintWords<'_>) -> bool {
    (toleration.effect.is_empty() || toleration.effect == taint.effect)
        && (toleration.key.is_empty() || toleration.key == taint.key)
        && match operator {
            "" | "Equal" => toleration.value == taint.value,
            "Exists" => true,
            "Gt" => numbers(Some(taint.value), Some(toleration.value)).is_some_and(|(t, bound)| t > bound),
            "Lt" => numbers(Some(taint.value), Some(toleration.value)).is_some_and(|(t, bound)| t < bound),
            _ => false,
        }
}

fn numbers(value: Option<&str>, bound: Option<&str>) -> Option<(i64, i64)> {
    Some((value?.parse().ok()?, bound?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements() {
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
            ("Gt", "", Some("2"), false),
            ("Unknown", "", Some("a"), false),
        ] {
            let holds = requirement_holds(operator, values.split_whitespace(), value);
            assert_eq!(holds, want, "{operator} {values} {value:?}");
        }
    }

    #[test]
    fn tolerations() {
        let words = |key, value, effect| TaintWords { key, value, effect };
        for (key, operator, value, effect, want) in [
            ("k", "Equal", "5", "NoSchedule", true),
            ("k", "", "5", "", true),
            ("k", "Equal", "w", "NoSchedule", false),
            ("k", "Exists", "", "", true),
            ("", "Exists", "", "", true),
            ("k", "Exists", "", "NoExecute", false),
            ("other", "Exists", "", "", false),
            ("k", "Gt", "4", "", true),
            ("k", "Gt", "5", "", false),
            ("k", "Lt", "6", "", true),
            ("k", "Lt", "many", "", false),
        ] {
            let covered = covers(words(key, value, effect), operator, words("k", "5", "NoSchedule"));
            assert_eq!(covered, want, "{key} {operator} {value} {effect}");
        }
    }
}
