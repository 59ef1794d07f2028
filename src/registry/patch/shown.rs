//! A patched document as upstream quotes it when it is refused: what the patch touched has been parsed and written again,
//! members in the order of their names; the rest stands as the object was encoded, in the order of its type's fields.
//!
//! upstream: gopkg.in/evanphx/json-patch.v4 patch.go lazyNode, merge.go

use std::collections::BTreeMap;

use copepod_meta::Value;
use copepod_schema::{Type, TypeId, Universe};

use crate::wire;

/// Places that a patch touched: by member name or index, from the root.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Touched(BTreeMap<String, Touched>);

impl Touched {
    /// By a merge patch: everything that it holds.
    pub(super) fn by_document(patch: &Value) -> Touched {
        let mut touched = Touched::default();
        touched.add(patch);
        touched
    }

    /// By operations of a JSON patch: the containers on the way to each place, and what is put there.
    pub(super) fn by_operations<'a>(operations: impl Iterator<Item = (&'a str, &'a Value)>) -> Touched {
        let mut touched = Touched::default();
        for (pointer, value) in operations {
            let steps = pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"));
            let mut steps: Vec<String> = steps.collect();
            let last = steps.pop();
            let holder = steps.into_iter().fold(&mut touched, |at, step| at.0.entry(step).or_default());
            // The place itself is looked into only when it is given a value.
            if let Some(last) = last.filter(|_| !value.is_null()) {
                holder.0.entry(last).or_default().add(value);
            }
        }
        touched
    }

    fn add(&mut self, value: &Value) {
        match value {
            Value::Map(members) => {
                members.iter().for_each(|(name, member)| self.0.entry(name.into()).or_default().add(member));
            }
            Value::List(items) => {
                let items = items.iter().enumerate();
                items.for_each(|(index, item)| self.0.entry(index.to_string()).or_default().add(item));
            }
            _ => {}
        }
    }
}

/// The document as text.
pub(super) fn text(document: &Value, types: &Universe, ty: TypeId, touched: &Touched) -> String {
    let mut out = Vec::new();
    write(document, Some(types.get(ty)), types, Some(touched), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn write(value: &Value, ty: Option<&Type>, types: &Universe, touched: Option<&Touched>, out: &mut Vec<u8>) {
    let inner = |step: &str| touched.and_then(|t| t.0.get(step));
    match value {
        Value::Map(members) => {
            let type_of = |name: &str| match ty? {
                Type::Struct(ty) => ty.field(name).map(|field| types.get(field.ty)),
                Type::Map(map) => Some(types.get(map.value)),
                _ => None,
            };
            let mut names: Vec<&str> = members.keys().collect();
            if let (None, Some(Type::Struct(ty))) = (touched, ty) {
                names.sort_by_key(|name| ty.field_index(name));
            }
            out.push(b'{');
            for (position, name) in names.into_iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                wire::encode_untyped(&Value::string(name), out);
                out.push(b':');
                let member = members.get(name).unwrap_or(&Value::Null);
                write(member, type_of(name), types, inner(name), out);
            }
            out.push(b'}');
        }
        Value::List(items) => {
            let element = match ty {
                Some(Type::List(list)) => Some(types.get(list.elem)),
                _ => None,
            };
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, element, types, inner(&index.to_string()), out);
            }
            out.push(b']');
        }
        scalar => wire::encode_untyped(scalar, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Upstream's answers to patches of a Pod with an unknown member, shortened.
    #[test]
    fn touched_places_are_in_the_order_of_names_others_in_that_of_fields() {
        let types = Universe::builtin();
        let ty = types.by_name("io.k8s.api.core.v1.Pod").expect("Pod is among the facts");
        let tree = |json: &str| wire::decode_untyped(json.as_bytes()).expect("JSON");
        let pod = tree(
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","labels":{"x":"1"},"uid":"u"},"spec":{"volumes":[],"containers":[{"name":"c","image":"i"}]}}"#,
        );
        let remove = Value::Null;
        for (touched, want) in [
            (
                Touched::by_document(&tree(r#"{"metadata":{"labels":{"x":"1"}}}"#)),
                r#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"x":"1"},"name":"a","uid":"u"},"spec":{"volumes":[],"containers":[{"name":"c","image":"i"}]}}"#,
            ),
            (
                Touched::by_operations([("/spec/containers/0/tty", &remove)].into_iter()),
                r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","uid":"u","labels":{"x":"1"}},"spec":{"containers":[{"image":"i","name":"c"}],"volumes":[]}}"#,
            ),
        ] {
            assert_eq!(text(&pod, types, ty, &touched), want);
        }
    }
}
