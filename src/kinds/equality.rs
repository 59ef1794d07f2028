//! When two trees mean the same. upstream: apimachinery/pkg/api/equality Semantic.DeepEqual

use copepod_meta::Value;
use copepod_schema::{Field, Special, Type, TypeId, Universe};

use crate::core::resources::quantity;

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

/// As [`same`], by the facts of a built-in type (`io.k8s.api.core.v1.PodSpec`): a pointer to a zero is something, a
/// quantity is its amount. Upstream's words for it: nil and empty lists and maps are equal, nil and empty structs are not.
pub fn same_as(a: &Value, b: &Value, name: &str) -> bool {
    let universe = Universe::builtin();
    match universe.by_name(name) {
        Some(id) => same_typed(universe, a, b, id),
        None => same(a, b),
    }
}

/// As [`same_as`], of lists of such values; nil and empty are equal.
pub fn same_list(a: &Value, b: &Value, name: &str) -> bool {
    let (x, y) = (a.list_at(&[]), b.list_at(&[]));
    x.len() == y.len() && x.iter().zip(y).all(|(v, w)| same_as(v, w, name))
}

fn same_typed(universe: &Universe, a: &Value, b: &Value, id: TypeId) -> bool {
    match universe.get(id) {
        Type::Struct(ty) => ty.fields.iter().all(|field| same_member(universe, a, b, field)),
        Type::List(list) => {
            let (x, y) = (a.list_at(&[]), b.list_at(&[]));
            x.len() == y.len() && x.iter().zip(y).all(|(v, w)| same_typed(universe, v, w, list.elem))
        }
        Type::Map(map) => {
            let (x, y) = (a.map_at(&[]), b.map_at(&[]));
            let mut pairs = x.iter().zip(y.iter());
            x.len() == y.len()
                && pairs.all(|((k, v), (l, w))| k == l && same_typed(universe, v, w, map.value))
        }
        Type::Special(Special::Quantity) => a == b || quantity(a) == quantity(b),
        _ => same(a, b),
    }
}

fn same_member(universe: &Universe, a: &Value, b: &Value, field: &Field) -> bool {
    let (x, y) = (a.get(&field.json), b.get(&field.json));
    if field.pointer && x.is_null() != y.is_null() {
        return false;
    }
    same_typed(universe, x, y, field.ty)
}

#[cfg(test)]
mod tests {
    use super::{same, same_list};
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

    /// A pointer to false is a change, nothing at all and an empty list are none.
    #[test]
    fn lists_are_compared_by_their_types() {
        let endpoint = "io.k8s.api.discovery.v1.Endpoint";
        for (a, b, want) in [
            (r#"[{"conditions":{"terminating":false}}]"#, r#"[{"conditions":{}}]"#, false),
            (r#"[{"conditions":{}}]"#, "[{}]", true),
            ("[]", "null", true),
            ("[{}]", "[{},{}]", false),
        ] {
            assert_eq!(same_list(&json(a), &json(b), endpoint), want, "{a} {b}");
        }
    }
}
