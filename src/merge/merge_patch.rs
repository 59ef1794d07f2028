//! JSON merge patch, RFC 7386, as upstream's library applies it.
//! upstream: gopkg.in/evanphx/json-patch.v4 merge.go MergePatch

use copepod_meta::{Map, Value};

/// A patch that is no object. Ends as 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergePatchError {
    /// Some other JSON value.
    #[error(
        "error decoding patch: json: cannot unmarshal {0} into Go value of type map[string]interface {{}}"
    )]
    NotAnObject(&'static str),
    /// `null`
    #[error("Invalid JSON Patch")]
    Null,
}

/// The document with the patch merged in: null removes, objects merge, everything else replaces.
pub fn merge_patch(document: Value, patch: Value) -> Result<Value, MergePatchError> {
    let patch = match patch {
        Value::Map(patch) => patch,
        Value::Null => return Err(MergePatchError::Null),
        Value::List(_) => return Err(MergePatchError::NotAnObject("array")),
        Value::String(_) | Value::Bytes(_) | Value::Raw(_) => {
            return Err(MergePatchError::NotAnObject("string"));
        }
        Value::Bool(_) => return Err(MergePatchError::NotAnObject("bool")),
        Value::Int(_) | Value::Float(_) => return Err(MergePatchError::NotAnObject("number")),
    };
    Ok(merge(document, Value::Map(patch)))
}

fn merge(current: Value, patch: Value) -> Value {
    match (current, patch) {
        (Value::Map(mut document), Value::Map(patch)) => {
            merge_members(&mut document, patch);
            Value::Map(document)
        }
        // What replaces an object goes in as it is.
        (Value::Map(_), patch) => patch,
        (_, mut patch) => {
            prune_nulls(&mut patch);
            patch
        }
    }
}

fn merge_members(document: &mut Map, patch: Map) {
    let mut entries: Vec<_> = Vec::new();
    for (key, mut value) in patch {
        match (value.is_null(), document.get_mut(&key)) {
            (true, Some(_)) => {
                document.remove(&key);
            }
            (true, None) => {}
            (false, Some(current)) => *current = merge(std::mem::take(current), value),
            (false, None) => {
                prune_nulls(&mut value);
                entries.push((key, value));
            }
        }
    }
    // New members are added in one go: one at a time would move the others again and again.
    if !entries.is_empty() {
        let old = std::mem::take(document);
        *document = Map::from_entries(old.into_iter().chain(entries).collect());
    }
}

/// Drops null members, also of objects in lists; null elements stay.
fn prune_nulls(value: &mut Value) {
    match value {
        Value::Map(map) => map.retain(|_, item| {
            prune_nulls(item);
            !item.is_null()
        }),
        Value::List(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}
