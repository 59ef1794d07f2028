//! Lists of strategic merge patch: merging by key, sets of scalars, deletion, and the order of the result.
//!
//! Where upstream searches lists, items are found here by a hash of their identity (the merge key's value, or
//! the scalar itself), so that long lists cost what they are long.

use std::collections::{HashMap, HashSet};

use copepod_meta::{Map, Value};

use super::{
    DIRECTIVE, Result, SET_ELEMENT_ORDER, Schema, StrategicPatchError, Strategy, bad_argument,
    bad_patch_type, directive_target, merge_map, no_merge_key, other, without_directives,
};
use crate::go_format::{go_format, go_format_lists, go_type};

/// What tells an item from others: the merge key's value or the scalar. Absent merge keys are equal to each
/// other.
fn identity(item: &Value, key: &str) -> String {
    let value = if key.is_empty() { item } else { item.get(key) };
    format!("{} {}", go_type(value), go_format(value))
}

/// Positions of items; the first one counts.
fn positions(items: &[Value], key: &str) -> HashMap<String, usize> {
    let mut positions = HashMap::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        positions.entry(identity(item, key)).or_insert(index);
    }
    positions
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Elements {
    Objects,
    Scalars,
}

/// What the lists hold, if they all hold the same.
/// upstream: patch.go sliceElementType
fn elements(lists: &[&[Value]]) -> Result<Elements> {
    let mut all = lists.iter().copied().flatten();
    let Some(first) = all.next() else { return other("no elements in any of the given slices".into()) };
    if let Value::List(_) = first {
        return Err(StrategicPatchError::ListOfLists);
    }
    // Upstream falls over a null as the first element; it is no identical type here.
    if first.is_null() || all.any(|item| go_type(item) != go_type(first)) {
        return other(format!("list element types are not identical: {}", go_format_lists(lists)));
    }
    Ok(if matches!(first, Value::Map(_)) { Elements::Objects } else { Elements::Scalars })
}

/// upstream: patch.go mergeSliceHandler, mergeSlice
pub(super) fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    schema: Schema,
    strategy: Strategy,
    deletes: bool,
) -> Result<Vec<Value>> {
    // A list of things to delete says so itself, whatever the strategy.
    if !strategy.merge && !deletes {
        return Ok(patch);
    }
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    match elements(&[&original, &patch])? {
        Elements::Scalars if deletes => {
            let gone: HashSet<String> = patch.iter().map(|item| identity(item, "")).collect();
            Ok(original.into_iter().filter(|item| !gone.contains(&identity(item, ""))).collect())
        }
        Elements::Scalars => {
            let both = original.iter().chain(&patch).cloned().collect();
            let merged = deduplicated(both);
            in_order(merged, &patch, &original, strategy.key)
        }
        Elements::Objects => merge_keyed(original, patch, schema, strategy.key).map(|(merged, _)| merged),
    }
}

/// Merges lists of objects; also the order that upstream then takes for the live list's.
///
/// Deleting an item, upstream shifts the live list's array in place, and the first new items land where the
/// deleted ones were: from then on they count as live, which shows when `$setElementOrder` interleaves what
/// the server alone knows.
fn merge_keyed(
    original: Vec<Value>,
    patch: Vec<Value>,
    schema: Schema,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>)> {
    if key.is_empty() {
        return other(format!("cannot merge lists without merge key for {}", schema.kind()));
    }
    let live_len = original.len();
    let (original, patch) = special_elements(original, patch, key)?;
    let (order, server_order) = (keys_only(&patch, key), keys_only(&original, key));
    let merged = merge_objects(original, patch, schema, key)?;
    let live = keys_only(&merged[..live_len.min(merged.len())], key);
    Ok((in_order(merged, &order, &server_order, key)?, live))
}

/// The items reduced to their merge keys: all that ordering looks at.
fn keys_only(items: &[Value], key: &str) -> Vec<Value> {
    items
        .iter()
        .map(|item| match item.as_map().and_then(|m| m.get(key)) {
            Some(value) => Value::Map([(key, value.clone())].into_iter().collect()),
            None => Value::map(),
        })
        .collect()
}

/// Go swaps the last item into the place of a duplicate; ordering undoes most of what shows of that.
/// upstream: patch.go deduplicateScalars
fn deduplicated(mut items: Vec<Value>) -> Vec<Value> {
    let mut seen = HashSet::with_capacity(items.len());
    let mut at = 0;
    while at < items.len() {
        if seen.insert(identity(&items[at], "")) {
            at += 1;
        } else {
            items.swap_remove(at);
        }
    }
    items
}

/// Carries out the patch's `$patch: delete` and `$patch: replace` elements; what is left to merge into what.
/// upstream: patch.go mergeSliceWithSpecialElements
fn special_elements(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut gone = HashSet::new();
    let mut replace = false;
    for item in patch {
        let Value::Map(map) = &item else { return bad_argument("map[string]interface {}", &item) };
        let Some(directive) = map.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") if map.contains_key(key) => {
                gone.insert(identity(&item, key));
            }
            Some("delete") => return Err(no_merge_key(map, key)),
            Some("replace") => replace = true,
            Some("merge") => return other("merging lists cannot yet be specified in the patch".into()),
            _ => return Err(bad_patch_type(directive, map.clone())),
        }
    }
    if replace {
        return Ok((plain, Vec::new()));
    }
    original.retain(|item| {
        item.as_map().is_none_or(|m| !m.contains_key(key)) || !gone.contains(&identity(item, key))
    });
    Ok((original, plain))
}

/// upstream: patch.go mergeSliceWithoutSpecialElements
fn merge_objects(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    schema: Schema,
    key: &str,
) -> Result<Vec<Value>> {
    let mut positions = HashMap::with_capacity(original.len());
    for (index, item) in original.iter().enumerate() {
        if item.as_map().is_some_and(|m| m.contains_key(key)) {
            positions.entry(identity(item, key)).or_insert(index);
        }
    }
    for item in patch {
        let identity = identity(&item, key);
        let Value::Map(item) = item else { return bad_argument("map[string]interface {}", &item) };
        if !item.contains_key(key) {
            return Err(no_merge_key(&item, key));
        }
        match positions.get(&identity) {
            Some(&index) => {
                let current = std::mem::take(original[index].make_map());
                original[index] = Value::Map(merge_map(current, item, schema)?);
            }
            None => {
                positions.insert(identity, original.len());
                original.push(Value::Map(item));
            }
        }
    }
    Ok(original)
}

/// Splits into items that `order` names and the server's own, and puts both in order.
/// upstream: patch.go partition*ByPresentInList, normalizeElementOrder
fn in_order(merged: Vec<Value>, order: &[Value], server_order: &[Value], key: &str) -> Result<Vec<Value>> {
    if !key.is_empty() {
        for item in &merged {
            match item {
                Value::Map(map) if !map.contains_key(key) => return Err(no_merge_key(map, key)),
                Value::Map(_) => {}
                other => return bad_argument("map[string]interface {}", other),
            }
        }
    }
    let (by_patch, by_server) = (positions(order, key), positions(server_order, key));
    let (patch_items, server_items): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| by_patch.contains_key(&identity(item, key)));
    let patch_items = sorted(patch_items, &by_patch, key);
    let server_items = sorted(server_items, &by_server, key);
    Ok(interleaved(server_items, patch_items, &by_server, key))
}

/// Stable; items without a position go before those they follow, as Go's comparison has it.
/// upstream: patch.go normalizeSliceOrder
fn sorted(mut items: Vec<Value>, positions: &HashMap<String, usize>, key: &str) -> Vec<Value> {
    let known = |item: &Value| positions.get(&identity(item, key)).copied();
    if items.iter().all(|item| known(item).is_some()) {
        items.sort_by_cached_key(known);
        return items;
    }
    let mut out: Vec<(Option<usize>, Value)> = Vec::with_capacity(items.len());
    for item in items {
        let position = known(&item);
        let before = |other: &Option<usize>| match (position, other) {
            (Some(this), Some(other)) => this < *other,
            _ => true,
        };
        let at = out.iter().rposition(|(other, _)| !before(other)).map_or(0, |at| at + 1);
        out.insert(at, (position, item));
    }
    out.into_iter().map(|(_, item)| item).collect()
}

/// Merges two sorted lists, the server's items before those of the patch that come later in the live list.
/// upstream: patch.go mergeSortedSlice
fn interleaved(
    server: Vec<Value>,
    patch: Vec<Value>,
    live: &HashMap<String, usize>,
    key: &str,
) -> Vec<Value> {
    let mut out = Vec::with_capacity(server.len() + patch.len());
    let mut server = server.into_iter().peekable();
    for item in patch {
        let position = live.get(&identity(&item, key));
        while let (Some(next), Some(position)) = (server.peek(), position)
            && live.get(&identity(next, key)).is_some_and(|p| p < position)
        {
            out.extend(server.next());
        }
        out.push(item);
    }
    out.extend(server);
    out
}

/// Carries out `$setElementOrder/<list>` and merges the list it belongs to.
/// upstream: patch.go mergePatchIntoOriginal
pub(super) fn order_elements(original: &mut Map, patch: &mut Map, schema: Schema) -> Result<()> {
    let directives: Vec<String> =
        patch.keys().filter(|key| key.starts_with(SET_ELEMENT_ORDER)).map(String::from).collect();
    for directive in directives {
        let order = match patch.remove(&directive) {
            Some(Value::List(order)) => order,
            Some(value) => return bad_argument("[]interface {}", &value),
            None => continue,
        };
        let name =
            directive_target(&directive, SET_ELEMENT_ORDER).ok_or(StrategicPatchError::BadElementOrder)?;
        let current = taken_list(original.get(name).cloned())?;
        let changes = taken_list(patch.get(name).cloned())?;
        let (elem, strategy) = schema.list(name)?;
        check_order(changes.as_deref().unwrap_or_default(), &order, strategy.key)?;
        let mut live = current.clone().unwrap_or_default();
        let given = changes.clone().unwrap_or_default();
        let kinds = elements(&[&live, &given]);
        let merged = match (current, changes) {
            (None, None) => continue,
            (Some(current), None) => current,
            (None, Some(changes)) => changes.into_iter().filter_map(without_directives).collect(),
            (Some(current), Some(changes)) if strategy.merge && kinds == Ok(Elements::Objects) => {
                let (merged, order) = merge_keyed(current, changes, elem, strategy.key)?;
                live = order;
                merged
            }
            (Some(current), Some(changes)) => merge_list(current, changes, elem, strategy, false)?,
        };
        kinds?;
        let ordered = in_order(merged, &order, &live, strategy.key)?;
        original.insert(name, Value::List(ordered));
        patch.remove(name);
    }
    Ok(())
}

fn taken_list(value: Option<Value>) -> Result<Option<Vec<Value>>> {
    match value {
        None => Ok(None),
        Some(Value::List(items)) => Ok(Some(items)),
        Some(value) => bad_argument("[]interface {}", &value),
    }
}

/// The patch's items must come in the order that the directive gives, and be among those it names.
/// upstream: patch.go validatePatchWithSetOrderList
fn check_order(patch: &[Value], order: &[Value], key: &str) -> Result<()> {
    if order.is_empty() || patch.is_empty() {
        return Ok(());
    }
    let keyed = |item: &Value| match item {
        _ if key.is_empty() => Ok(()),
        Value::Map(map) if map.contains_key(key) => Ok(()),
        Value::Map(map) => Err(no_merge_key(map, key)),
        other => bad_argument("map[string]interface {}", other),
    };
    let mut places = order.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_null()) {
        loop {
            let Some(place) = places.next() else {
                return other(format!(
                    "The order in patch list:\n{}\n doesn't match {SET_ELEMENT_ORDER} list:\n{}\n",
                    go_format(&Value::List(patch.to_vec())),
                    go_format(&Value::List(order.to_vec())),
                ));
            };
            keyed(item)?;
            keyed(place)?;
            if identity(place, key) == identity(item, key) {
                break;
            }
        }
    }
    Ok(())
}
