//! flowcontrol: which requests go first.

pub(crate) mod flow_schema;
pub(crate) mod priority_level;

use copepod_meta::{ErrorList, Value};
use std::collections::BTreeSet;

use crate::check::At;

/// Conditions are known by their types.
fn conditions(list: At, e: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for condition in list.items() {
        let ty = condition.get("type");
        if !seen.insert(ty.str()) {
            ty.duplicate(e);
        }
        ty.need(e);
    }
}

/// A write to `status` changes nothing of metadata but who manages what.
fn keep_metadata(object: &mut Value, old: &Value) {
    let managed = object.remove(&["metadata", "managedFields"]);
    crate::generic::keep(object, old, "metadata");
    match managed {
        Some(managed) => object.set(&["metadata", "managedFields"], managed),
        None => drop(object.remove(&["metadata", "managedFields"])),
    }
}

/// A list of texts.
fn texts(items: &[&str]) -> Value {
    items.iter().map(|s| Value::from(*s)).collect::<Vec<_>>().into()
}
