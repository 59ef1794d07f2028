//! When two trees mean the same. upstream: apimachinery/pkg/api/equality Semantic.DeepEqual

use copepod_meta::Value;

/// Whether two trees mean the same: a zero value and an absent one are equal, order of lists counts.
///
/// Go tells a nil pointer from a pointer to a zero; a tree without schema cannot. Fields where that matters are defaulted
/// before they are compared, or compared by the validator itself.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Map(x), Value::Map(y)) => {
            let left = x.iter().all(|(k, v)| same(v, y.get(k).unwrap_or(&Value::Null)));
            left && y.iter().all(|(k, v)| x.contains_key(k) || is_zero(v))
        }
        (Value::List(x), Value::List(y)) => x.len() == y.len() && x.iter().zip(y).all(|(v, w)| same(v, w)),
        _ => a == b || (is_zero(a) && is_zero(b)),
    }
}

/// A zero value: empty, or a map of nothing but zero values.
fn is_zero(v: &Value) -> bool {
    match v {
        Value::Map(m) => m.iter().all(|(_, v)| is_zero(v)),
        other => other.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::same;
    use crate::testing::json;

    #[test]
    fn absent_and_zero_are_the_same_but_order_counts() {
        for (a, b, want) in [
            (r#"{"a":1}"#, r#"{"a":1,"b":[],"c":{"d":""}}"#, true),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#, false),
            (r#"{"a":{"b":"x"}}"#, r#"{"a":{}}"#, false),
            (r#"{}"#, r#"{"a":{"b":"x"}}"#, false),
        ] {
            assert_eq!(same(&json(a), &json(b)), want, "{a} {b}");
        }
    }
}
