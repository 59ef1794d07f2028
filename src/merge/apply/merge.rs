//! An applied configuration merged into the live object: what is given wins, what is not given stays, lists
//! are merged by their items' names in an order that keeps both sides'.
//! upstream: structured-merge-diff/v6 typed/merge.go

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use copepod_meta::{CompactString, Map, Value};

use super::compare::{kind, list, map, members};
use super::path::PathElement;
use super::shape::{Form, Keys, Shape, item_element, member};

type Side<'v> = Option<&'v Value>;

/// Merges `config` into `live`.
pub(super) fn merge(live: &Value, config: &Value, shape: Shape) -> Result<Value, String> {
    Ok(node(Some(live), Some(config), shape)?.unwrap_or(Value::Null))
}

fn node(left: Side, right: Side, shape: Shape) -> Result<Option<Value>, String> {
    let form = match (left, right) {
        (None, None) => return Ok(None),
        // What is given decides what the value is; null goes along with anything.
        (Some(l), Some(r)) if shape.is_deduced() && kind(l) != kind(r) && !r.is_null() => {
            return node(None, right, shape).map(|merged| merged.or(Some(l.clone())));
        }
        (Some(l), Some(r)) if r.is_null() => shape.form(l),
        (_, Some(r)) => shape.form(r),
        (Some(l), None) => shape.form(l),
    };
    match form {
        Form::Scalar(_) => Ok(leaf(left, right)),
        Form::List { keys, element } => {
            let (l, r) = (list(left), list(right));
            if matches!(keys, Keys::Atomic) || (l.is_empty() && r.is_empty()) {
                return Ok(leaf(left, right));
            }
            let merged = items(l, r, keys, element)?;
            Ok((!merged.is_empty()).then_some(Value::List(merged)))
        }
        Form::Object { fields, element, atomic } => {
            let (l, r) = (map(left), map(right));
            if atomic || (l.is_none_or(Map::is_empty) && r.is_none_or(Map::is_empty)) {
                return Ok(leaf(left, right));
            }
            let mut merged = Vec::new();
            for (name, l, r) in members(l, r) {
                let Some(shape) = member(fields, element, name) else {
                    return Err(format!(".{name}: field not declared in schema"));
                };
                let value = node(l, r, shape).map_err(|e| format!(".{name}{}", joined(&e)))?;
                merged.extend(value.map(|value| (CompactString::new(name), value)));
            }
            Ok((!merged.is_empty()).then(|| Value::Map(Map::from_entries(merged))))
        }
    }
}

/// An error's path goes on; its text follows a colon.
fn joined(error: &str) -> String {
    if error.starts_with(['.', '[']) { error.into() } else { format!(": {error}") }
}

fn leaf(left: Side, right: Side) -> Option<Value> {
    right.or(left).cloned()
}

/// Items of a list by name, in order; a name that occurs twice has no value to merge with.
struct Index<'v> {
    names: Vec<PathElement>,
    values: BTreeMap<PathElement, Option<&'v Value>>,
}

fn index<'v>(items: &'v [Value], keys: Keys, element: Shape, duplicates: bool) -> Result<Index<'v>, String> {
    let mut index = Index { names: Vec::with_capacity(items.len()), values: BTreeMap::new() };
    for (at, item) in items.iter().enumerate() {
        let name = item_element(keys, element, item).map_err(|e| format!("element {at}: {e}"))?;
        match index.values.get_mut(&name) {
            Some(_) if !duplicates => return Err(format!("duplicate entries for key {name}")),
            Some(value) => *value = None,
            None => {
                index.values.insert(name.clone(), Some(item));
            }
        }
        index.names.push(name);
    }
    Ok(index)
}

/// upstream: typed/merge.go visitListItems
fn items(left: &[Value], right: &[Value], keys: Keys, element: Shape) -> Result<Vec<Value>, String> {
    let r = index(right, keys, element, false)?;
    let l = index(left, keys, element, true)?;
    let mut shared: VecDeque<&PathElement> = r.names.iter().filter(|n| l.values.contains_key(n)).collect();
    let mut next_shared = shared.pop_front();
    let mut merged: BTreeSet<&PathElement> = BTreeSet::new();
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    let mut push = |name: &PathElement, l: Side, r: Side| {
        out.extend(node(l, r, element).map_err(|e| format!("{name}{}", joined(&e)))?);
        Ok::<(), String>(())
    };
    let (mut i, mut j) = (0, 0);
    while i < l.names.len() || j < r.names.len() {
        if let (Some(left_name), Some(right_name)) = (l.names.get(i), r.names.get(j)) {
            if left_name == right_name {
                merged.insert(left_name);
                push(left_name, both(&l, left_name), both(&r, left_name))?;
                (i, j) = (i + 1, j + 1);
                next_shared = shared.pop_front();
                continue;
            }
            if r.values.contains_key(left_name) && next_shared.is_some_and(|next| next != left_name) {
                // Shared, but its turn comes later.
                i += 1;
                continue;
            }
        }
        if let Some(left_name) = l.names.get(i) {
            if !r.values.contains_key(left_name) {
                // Duplicates are taken one by one, as they are.
                push(left_name, Some(&left[i]), None)?;
                i += 1;
                continue;
            }
            if merged.contains(left_name) {
                i += 1;
            }
        }
        if let Some(right_name) = r.names.get(j) {
            merged.insert(right_name);
            push(right_name, both(&l, right_name), both(&r, right_name))?;
            j += 1;
            if next_shared == Some(right_name) {
                next_shared = shared.pop_front();
            }
        }
    }
    Ok(out)
}

fn both<'v>(index: &Index<'v>, name: &PathElement) -> Side<'v> {
    index.values.get(name).copied().flatten()
}
