//! An object's tree -> the plain tree that its JSON is, without going through text.

use copepod_meta::{CompactString, Gvk, Map, Value};
use copepod_schema::{Field, Scalar, Special, StructType, Type, TypeId, Universe};

use super::decode::{field_key, or_zero};
use super::encode::leaves_out;
use super::{base64_into, decode_any};

/// What [`decode_any`] makes of an object's JSON.
pub(crate) fn plain_root(universe: &Universe, value: &Value, ty: TypeId, gvk: Option<&Gvk>) -> Value {
    let mut map = match universe.get(ty) {
        Type::Struct(ty) if !universe.is_unstructured() => structure(universe, value.as_map(), ty),
        _ => value.as_map().map(untyped_map).unwrap_or_default(),
    };
    if !universe.is_unstructured() || gvk.is_some() {
        map.remove("apiVersion");
        map.remove("kind");
    }
    if let Some(gvk) = gvk {
        for (name, text) in [("apiVersion", gvk.api_version()), ("kind", gvk.kind.clone())] {
            if !text.is_empty() {
                map.insert(name, text);
            }
        }
    }
    Value::Map(map)
}

fn structure(universe: &Universe, map: Option<&Map>, ty: &StructType) -> Map {
    let mut entries = Vec::with_capacity(map.map_or(0, Map::len) + 4);
    // In name order, which is the map's.
    for &index in &*ty.by_json {
        let field = &ty.fields[usize::from(index)];
        entries.extend(member(universe, field, map.and_then(|map| found(map, field))));
    }
    Map::from_entries(entries)
}

/// What a tree holds of a field.
fn found<'v>(map: &'v Map, field: &Field) -> Option<&'v Value> {
    map.get(&field.json).filter(|value| !value.is_null())
}

/// A field as JSON has it, if it is written.
fn member(universe: &Universe, field: &Field, found: Option<&Value>) -> Option<(CompactString, Value)> {
    if leaves_out(universe, field, found) {
        return None;
    }
    let value = match found {
        Some(value) => plain(universe, value, field.ty),
        None if field.pointer => Value::Null,
        None => zero(universe, field.ty),
    };
    Some((field_key(&field.json), value))
}

/// The plain trees of two objects, without type meta and without what is the same in both, where `same` lets it be left out.
pub(crate) fn plain_changes(
    universe: &Universe,
    (left, right): (&Value, &Value),
    ty: &StructType,
    same: &dyn Fn(&Value, TypeId) -> bool,
) -> (Value, Value) {
    let (left, right) = structures(universe, (left.map_at(&[]), right.map_at(&[])), ty, same);
    (Value::Map(left), Value::Map(right))
}

fn structures(
    universe: &Universe,
    (left, right): (&Map, &Map),
    ty: &StructType,
    same: &dyn Fn(&Value, TypeId) -> bool,
) -> (Map, Map) {
    let (mut lefts, mut rights) = (Vec::new(), Vec::new());
    for &index in &*ty.by_json {
        let field = &ty.fields[usize::from(index)];
        let (l, r) = (found(left, field), found(right, field));
        match (l, r) {
            (None, None) => continue,
            (Some(l), Some(r)) if l == r && same(l, field.ty) => continue,
            (Some(Value::Map(l)), Some(Value::Map(r))) => {
                if let Type::Struct(ty) = universe.get(field.ty) {
                    let (l, r) = structures(universe, (l, r), ty, same);
                    lefts.push((field_key(&field.json), Value::Map(l)));
                    rights.push((field_key(&field.json), Value::Map(r)));
                    continue;
                }
            }
            _ => {}
        }
        lefts.extend(member(universe, field, l));
        rights.extend(member(universe, field, r));
    }
    (Map::from_entries(lefts), Map::from_entries(rights))
}

/// Go's zero value of a type held by value.
fn zero(universe: &Universe, ty: TypeId) -> Value {
    match universe.get(ty) {
        Type::Struct(ty) => Value::Map(structure(universe, None, ty)),
        Type::Scalar(Scalar::Bytes) => Value::Null,
        _ => or_zero(universe, Value::Null, ty),
    }
}

fn plain(universe: &Universe, value: &Value, ty: TypeId) -> Value {
    match (universe.get(ty), value) {
        (Type::Struct(ty), Value::Map(map)) => Value::Map(structure(universe, Some(map), ty)),
        (Type::Map(ty), Value::Map(map)) => {
            let named = |(name, item)| (CompactString::new(name), element(universe, item, ty.value, false));
            Value::Map(Map::from_entries(map.iter().map(named).collect()))
        }
        (Type::List(ty), Value::List(items)) => {
            Value::List(items.iter().map(|item| element(universe, item, ty.elem, ty.elem_pointer)).collect())
        }
        (Type::Special(special), value) => special_value(universe, value, *special),
        (_, value) => untyped(value),
    }
}

fn element(universe: &Universe, item: &Value, ty: TypeId, pointer: bool) -> Value {
    if item.is_null() && !pointer { zero(universe, ty) } else { plain(universe, item, ty) }
}

fn special_value(universe: &Universe, value: &Value, special: Special) -> Value {
    match (special, value) {
        (
            Special::JsonSchemaPropsOrBool(ty)
            | Special::JsonSchemaPropsOrArray(ty)
            | Special::JsonSchemaPropsOrStringArray(ty),
            Value::Map(_),
        ) => plain(universe, value, ty),
        (
            Special::JsonSchemaPropsOrArray(_) | Special::JsonSchemaPropsOrStringArray(_),
            Value::List(items),
        ) if items.is_empty() => Value::Null,
        (Special::JsonSchemaPropsOrArray(ty), Value::List(items)) => {
            Value::List(items.iter().map(|item| plain(universe, item, ty)).collect())
        }
        _ => untyped(value),
    }
}

fn untyped_map(map: &Map) -> Map {
    Map::from_entries(map.iter().map(|(name, item)| (CompactString::new(name), untyped(item))).collect())
}

fn untyped(value: &Value) -> Value {
    match value {
        Value::Bytes(bytes) => {
            let mut text = Vec::new();
            base64_into(bytes, &mut text);
            Value::string(String::from_utf8_lossy(&text))
        }
        // Verbatim JSON was checked when it was read; deeper than a tree may be, it counts as null.
        Value::Raw(raw) => decode_any(raw).map(|(value, _)| value).unwrap_or_default(),
        Value::List(items) => Value::List(items.iter().map(untyped).collect()),
        Value::Map(map) => Value::Map(untyped_map(map)),
        scalar => scalar.clone(),
    }
}
