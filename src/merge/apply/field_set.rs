//! The set of an object's fields, and objects with a set's items taken out.
//! upstream: structured-merge-diff/v6 typed/{tofieldset,remove}.go, fieldpath/set.go
//! EnsureNamedFieldsAreMembers

use std::collections::BTreeMap;

use copepod_meta::{CompactString, Map, Value};

use super::path::{Path, PathElement};
use super::set::Set;
use super::shape::{Form, Keys, Shape, item_element, member};

/// Every leaf, every list item, every empty object of a checked object.
pub(super) fn field_set(value: &Value, shape: Shape) -> Set {
    let mut walker = Walker { path: Vec::new(), set: Set::default() };
    walker.node(value, shape);
    walker.set
}

struct Walker {
    path: Path,
    set: Set,
}

impl Walker {
    fn own(&mut self) {
        self.set.insert(&self.path);
    }

    fn node(&mut self, value: &Value, shape: Shape) {
        match (shape.form(value), value) {
            (Form::Scalar(_), _) => self.own(),
            (Form::List { keys: Keys::Atomic, .. }, _) | (Form::Object { atomic: true, .. }, _) => self.own(),
            (Form::List { keys, element }, Value::List(items)) => self.items(items, keys, element),
            (Form::Object { fields, element, .. }, Value::Map(map)) => {
                for (name, value) in map.iter() {
                    let declared = fields.and_then(|f| f.find(name));
                    self.path.push(PathElement::field(name));
                    if let Some(shape) = declared.or(element) {
                        self.node(value, shape);
                    }
                    let empty = value.is_null() || value.as_map().is_some_and(Map::is_empty);
                    if empty || declared.is_none() {
                        self.own();
                    }
                    self.path.pop();
                }
            }
            _ => {}
        }
    }

    fn items(&mut self, items: &[Value], keys: Keys, element: Shape) {
        let mut named: BTreeMap<PathElement, Vec<&Value>> = BTreeMap::new();
        for item in items {
            // The object has been checked, so that every item has a name.
            if let Ok(name) = item_element(keys, element, item) {
                named.entry(name).or_default().push(item);
            }
        }
        for (name, items) in named {
            self.path.push(name);
            if let [item] = items.as_slice() {
                self.node(item, element);
            }
            self.own();
            self.path.pop();
        }
    }
}

/// The object without the set's items.
pub(super) fn without_items(value: &Value, set: &Set, shape: Shape) -> Value {
    match (shape.form(value), value) {
        (Form::Scalar(_), value) => value.clone(),
        (Form::List { keys: Keys::Atomic, .. }, _) | (Form::Object { atomic: true, .. }, _) => Value::Null,
        (Form::List { keys, element }, Value::List(items)) => {
            let kept: Vec<Value> = items
                .iter()
                .filter_map(|item| match item_element(keys, element, item) {
                    Ok(name) => without_item(item, &name, set, element),
                    Err(_) => Some(item.clone()),
                })
                .collect();
            if kept.is_empty() { Value::Null } else { Value::List(kept) }
        }
        (Form::Object { fields, element, .. }, Value::Map(map)) => {
            let kept: Vec<(CompactString, Value)> = map
                .iter()
                .filter_map(|(name, value)| {
                    let shape = member(fields, element, name).unwrap_or(Shape::Deduced);
                    let kept = without_item(value, &PathElement::field(name), set, shape)?;
                    Some((CompactString::new(name), kept))
                })
                .collect();
            if kept.is_empty() { Value::Null } else { Value::Map(Map::from_entries(kept)) }
        }
        _ => Value::Null,
    }
}

fn without_item(value: &Value, name: &PathElement, set: &Set, shape: Shape) -> Option<Value> {
    if set.has_member(name) {
        return None;
    }
    match set.child(name) {
        Some(below) if !below.is_empty() => Some(without_items(value, below, shape)),
        _ => Some(value.clone()),
    }
}

/// The set with the declared members on the way to its paths: with `a.b.c` also `a`, if it is declared and
/// not a map's key.
pub(super) fn with_named_fields(set: &Set, shape: Option<Shape>) -> Set {
    // A type's form does not depend on a value but for deduced ones, which declare nothing.
    let form = shape.map(|shape| shape.form(&Value::Null));
    let mut out = Set { members: set.members.clone(), children: Vec::with_capacity(set.children.len()) };
    for (name, below) in &set.children {
        let shape = match (name, form) {
            (PathElement::Field(field), Some(Form::Object { fields, element, .. })) => {
                let declared = fields.and_then(|f| f.find(field));
                if declared.is_some()
                    && let Err(at) = out.members.binary_search(name)
                {
                    out.members.insert(at, name.clone());
                }
                declared.or(element)
            }
            (PathElement::Key(_), Some(Form::List { element, .. })) => Some(element),
            _ => None,
        };
        out.children.push((name.clone(), with_named_fields(below, shape)));
    }
    out
}
