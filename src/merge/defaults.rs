//! What defaulting always gives: the facts' unconditional defaults, and the defaults of custom resources'
//! schemas. Defaults that depend on other fields are code in `copepod-kinds`.

use copepod_meta::{Map, Value};
use copepod_schema::{StructType, Type, TypeId, Universe};

/// Fills in the defaults of an object's type, at every depth.
pub fn apply_defaults(value: &mut Value, universe: &Universe, ty: TypeId) {
    if universe.is_unstructured() {
        unstructured(value, universe, ty);
    } else {
        typed(value, universe, ty);
    }
}

/// Built-in types: absent is Go's nil or zero. A struct held by value is there even when the tree has none of
/// it.
fn typed(value: &mut Value, universe: &Universe, ty: TypeId) {
    match (universe.get(ty), value) {
        (Type::Struct(ty), Value::Map(map)) => typed_members(map, universe, ty),
        (Type::List(list), Value::List(items)) => {
            items.iter_mut().for_each(|item| typed(item, universe, list.elem));
        }
        (Type::Map(map), Value::Map(entries)) => {
            entries.iter_mut().for_each(|(_, item)| typed(item, universe, map.value));
        }
        _ => {}
    }
}

fn typed_members(map: &mut Map, universe: &Universe, ty: &StructType) {
    for (name, value) in map.iter_mut() {
        if let Some(field) = ty.field(name) {
            typed(value, universe, field.ty);
        }
    }
    for field in &ty.fields {
        // Nothing comes of fields without a default but for structs held by value, which may have defaults
        // inside.
        let inner = match universe.get(field.ty) {
            Type::Struct(inner) if !field.pointer => Some(inner),
            _ => None,
        };
        let absent = || map.get(&field.json).is_none_or(Value::is_null);
        if (field.default.is_none() && inner.is_none()) || !absent() {
            continue;
        }
        let mut value = field.default.clone().unwrap_or_default();
        match inner {
            Some(inner) => typed_members(value.make_map(), universe, inner),
            None => typed(&mut value, universe, field.ty),
        }
        if !value.is_empty() || field.default.is_some() {
            map.insert(field.json.as_ref(), value);
        }
    }
}

/// Custom resources: what is there is looked into; null where null is not allowed counts as absent.
/// upstream: apiextensions-apiserver/pkg/apiserver/schema/defaulting/algorithm.go Default, prune.go
/// PruneNonNullableNulls
fn unstructured(value: &mut Value, universe: &Universe, ty: TypeId) {
    match (universe.get(ty), value) {
        (Type::Struct(ty), Value::Map(map)) => {
            for field in &ty.fields {
                let place = map.get(&field.json);
                let absent = place.is_none_or(|v| v.is_null() && !field.nullable);
                match &field.default {
                    Some(default) if absent => {
                        map.insert(field.json.as_ref(), default.clone());
                    }
                    None if absent => {
                        map.remove(&field.json);
                    }
                    _ => {}
                }
                if let Some(value) = map.get_mut(&field.json) {
                    unstructured(value, universe, field.ty);
                }
            }
        }
        (Type::List(list), Value::List(items)) => {
            items.iter_mut().for_each(|item| unstructured(item, universe, list.elem));
        }
        (Type::Map(map), Value::Map(entries)) => {
            entries.iter_mut().for_each(|(_, item)| unstructured(item, universe, map.value));
        }
        _ => {}
    }
}
