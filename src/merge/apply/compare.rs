//! What one object has that another has not: added, modified and removed paths.
//! upstream: structured-merge-diff/v6 typed/compare.go

use std::collections::BTreeMap;

use copepod_meta::{Map, Value};

use super::path::{Path, PathElement};
use super::set::Set;
use super::shape::{Form, Keys, Shape, item_element, member};

/// The result. No path is in two of the sets.
#[derive(Debug, Clone, Default)]
pub(super) struct Comparison {
    pub(super) removed: Set,
    pub(super) modified: Set,
    pub(super) added: Set,
}

/// Compares two objects of one shape.
pub(super) fn compare(left: &Value, right: &Value, shape: Shape) -> Result<Comparison, String> {
    let mut walker = Walker { path: Vec::new(), out: Comparison::default() };
    walker.node(Some(left), Some(right), shape)?;
    Ok(walker.out)
}

impl Comparison {
    /// Takes the fields away that the writer's strategy resets.
    pub(super) fn without(self, reset: Option<&Set>) -> Comparison {
        match reset {
            None => self,
            Some(reset) => Comparison {
                removed: self.removed.recursive_difference(reset),
                modified: self.modified.recursive_difference(reset),
                added: self.added.recursive_difference(reset),
            },
        }
    }
}

struct Walker {
    path: Path,
    out: Comparison,
}

static NULL: Value = Value::Null;

type Side<'v> = Option<&'v Value>;

impl Walker {
    fn node(&mut self, left: Side, right: Side, shape: Shape) -> Result<(), String> {
        let leaf = match (left, right) {
            (None, None) => return Ok(()),
            (Some(l), Some(r)) if l.is_null() && shape.is_deduced() => {
                self.form(left, right, shape.form(r))?
            }
            (Some(l), Some(r)) if r.is_null() && shape.is_deduced() => {
                self.form(left, right, shape.form(l))?
            }
            (Some(l), Some(r)) if shape.is_deduced() && kind(l) != kind(r) => {
                // Of two kinds: each is walked, and what it is itself differs.
                self.form(left, right, shape.form(l))?;
                self.form(left, right, shape.form(r))?
            }
            _ => self.form(left, right, shape.form(right.or(left).unwrap_or(&NULL)))?,
        };
        if !leaf {
            if left.is_none() {
                self.out.added.insert(&self.path);
            } else if right.is_none() {
                self.out.removed.insert(&self.path);
            }
        }
        Ok(())
    }

    /// Walks as one form; true if the place is a leaf.
    fn form(&mut self, left: Side, right: Side, form: Form) -> Result<bool, String> {
        match form {
            Form::Scalar(_) => self.leaf(left, right),
            Form::List { element, keys } => {
                let (l, r) = (list(left), list(right));
                if matches!(keys, Keys::Atomic) || (l.is_empty() && r.is_empty()) {
                    self.leaf(left, right);
                    return Ok(true);
                }
                self.items(l, r, keys, element)?;
                return Ok(false);
            }
            Form::Object { fields, element, atomic } => {
                let (l, r) = (map(left), map(right));
                if atomic || (l.is_none_or(Map::is_empty) && r.is_none_or(Map::is_empty)) {
                    self.leaf(left, right);
                    return Ok(true);
                }
                for (name, l, r) in members(l, r) {
                    let Some(shape) = member(fields, element, name) else {
                        return Err(format!("{}.{name}: field not declared in schema", self.at()));
                    };
                    self.path.push(PathElement::field(name));
                    self.node(l, r, shape)?;
                    self.path.pop();
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn at(&self) -> String {
        super::path::path_text(&self.path)
    }

    fn leaf(&mut self, left: Side, right: Side) {
        match (left, right) {
            (None, _) => self.out.added.insert(&self.path),
            (_, None) => self.out.removed.insert(&self.path),
            (Some(l), Some(r)) if l != r => self.out.modified.insert(&self.path),
            _ => {}
        }
    }

    fn items(&mut self, left: &[Value], right: &[Value], keys: Keys, element: Shape) -> Result<(), String> {
        // Items by name; duplicates share one.
        let mut items: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for (index, item) in left.iter().enumerate() {
            items.entry(self.element(keys, element, item, index)?).or_default().0.push(item);
        }
        for (index, item) in right.iter().enumerate() {
            items.entry(self.element(keys, element, item, index)?).or_default().1.push(item);
        }
        for (name, (l, r)) in items {
            self.path.push(name);
            match (l.as_slice(), r.as_slice()) {
                ([] | [_], [] | [_]) => self.node(l.first().copied(), r.first().copied(), element)?,
                ([_, _, ..], [_, _, ..]) => {
                    if l != r {
                        self.out.modified.insert(&self.path);
                    }
                }
                ([_, _, ..], rest) => {
                    self.node(None, rest.first().copied(), element)?;
                    self.out.removed.insert(&self.path);
                }
                (rest, _) => {
                    self.node(rest.first().copied(), None, element)?;
                    self.out.added.insert(&self.path);
                }
            }
            self.path.pop();
        }
        Ok(())
    }

    fn element(&self, keys: Keys, shape: Shape, item: &Value, index: usize) -> Result<PathElement, String> {
        item_element(keys, shape, item).map_err(|e| format!("{}: element {index}: {e}", self.at()))
    }
}

pub(super) fn kind(value: &Value) -> u8 {
    match value {
        Value::Map(_) => 0,
        Value::List(_) => 1,
        _ => 2,
    }
}

pub(super) fn list(side: Side<'_>) -> &[Value] {
    side.and_then(Value::as_list).unwrap_or_default()
}

pub(super) fn map(side: Side<'_>) -> Option<&Map> {
    side.and_then(Value::as_map)
}

/// The members of two objects side by side, by name.
pub(super) fn members<'v>(
    left: Option<&'v Map>,
    right: Option<&'v Map>,
) -> impl Iterator<Item = (&'v str, Side<'v>, Side<'v>)> {
    let mut left = left.into_iter().flat_map(Map::iter).peekable();
    let mut right = right.into_iter().flat_map(Map::iter).peekable();
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((l, _)), Some((r, _))) => l.cmp(r),
        };
        let l = if order.is_le() { left.next() } else { None };
        let r = if order.is_ge() { right.next() } else { None };
        let name = l.or(r).map(|(name, _)| name)?;
        Some((name, l.map(|(_, v)| v), r.map(|(_, v)| v)))
    })
}
