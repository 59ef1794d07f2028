//! Whether an object fits its shape: what is applied must, down to names of fields and uniqueness of items.
//! upstream: structured-merge-diff/v6 typed/validate.go

use std::collections::BTreeSet;

use copepod_meta::Value;

use super::path::PathElement;
use super::shape::{Form, Keys, Shape, check_scalar, item_element, member};

/// Everything wrong, in upstream's words; `duplicates` says whether list items may share a name.
pub(super) fn check(value: &Value, shape: Shape, duplicates: bool) -> Result<(), String> {
    let mut checker = Checker { path: Vec::new(), errors: Vec::new(), duplicates };
    checker.node(value, shape);
    match checker.errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

struct Checker<'v> {
    path: Vec<Step<'v>>,
    errors: Vec<String>,
    duplicates: bool,
}

/// A step of the path, rendered only for an error.
enum Step<'v> {
    Member(&'v str),
    Item(PathElement),
}

impl<'v> Checker<'v> {
    fn error(&mut self, message: &str) {
        let steps = self.path.iter().map(|step| match step {
            Step::Member(name) => format!(".{name}"),
            Step::Item(item) => item.to_string(),
        });
        let path: String = steps.collect();
        self.errors.push(if path.is_empty() { message.into() } else { format!("{path}: {message}") });
    }

    fn node(&mut self, value: &'v Value, shape: Shape) {
        match (shape.form(value), value) {
            (Form::Scalar(expected), value) => {
                if let Err(message) = check_scalar(expected, value) {
                    self.error(&message);
                }
            }
            (_, Value::Null) => {}
            (Form::List { keys, element }, Value::List(items)) => self.items(items, keys, element),
            (Form::List { .. }, other) => {
                self.error(&format!("expected list, got &{{{}}}", crate::go_format::go_format(other)));
            }
            (Form::Object { fields, element, .. }, Value::Map(map)) => {
                for (name, value) in map.iter() {
                    let shape = member(fields, element, name);
                    self.path.push(Step::Member(name));
                    match shape {
                        Some(shape) => self.node(value, shape),
                        None => self.error("field not declared in schema"),
                    }
                    self.path.pop();
                    // Upstream stops at the first one; the others would follow from it.
                    if shape.is_none() {
                        break;
                    }
                }
            }
            (Form::Object { .. }, other) => {
                self.error(&format!("expected map, got &{{{}}}", crate::go_format::go_format(other)));
            }
        }
    }

    fn items(&mut self, items: &'v [Value], keys: Keys, element: Shape) {
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let name = match keys {
                Keys::Atomic => PathElement::Index(index as i64),
                _ => match item_element(keys, element, item) {
                    Ok(name) => name,
                    Err(message) => {
                        self.error(&format!("element {index}: {message}"));
                        return;
                    }
                },
            };
            if !self.duplicates && !matches!(keys, Keys::Atomic) && !seen.insert(name.clone()) {
                self.error(&format!("duplicate entries for key {name}"));
            }
            self.path.push(Step::Item(name));
            self.node(item, element);
            self.path.pop();
        }
    }
}
