//! A plain tree fitted to a type as upstream's converter from unstructured objects does it, which is not how its JSON
//! decoder does it: whole floats become integers, integers too large are cut, errors name no place, and the first error
//! is the first in the order of the type's fields.
//!
//! upstream: apimachinery/pkg/runtime/converter.go fromUnstructured

use copepod_meta::Value;
use copepod_schema::{Scalar, Special, Type, TypeId, Universe};

use super::base64;
use super::decode::{Decoder, Frame};
use super::encode::Writer;
use super::names::go_type_name;

/// Fits `value` to `ty`, so that decoding it cannot fail; the error is Go's. `go_type` is the type's own name, if it has one.
pub(crate) fn convert(
    universe: &Universe,
    value: &mut Value,
    ty: TypeId,
    go_type: Option<&str>,
) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    let from = kind(value);
    match (universe.get(ty), value) {
        (Type::Any, _) => Ok(()),
        (Type::Special(special), value) => by_hand(universe, value, *special),
        (Type::Struct(ty), Value::Map(members)) => ty.fields.iter().try_for_each(|field| {
            let member = members.get_mut(&field.json);
            member.map_or(Ok(()), |m| convert(universe, m, field.ty, field.go_type.as_deref()))
        }),
        (Type::Struct(_), _) => Err(format!("cannot restore struct from: {from}")),
        (Type::Map(map), Value::Map(members)) => {
            members.iter_mut().try_for_each(|(_, m)| convert(universe, m, map.value, None))
        }
        (Type::Map(_), _) => Err(format!("cannot restore map from {from}")),
        (Type::List(list), Value::List(items)) => {
            let element = go_type.and_then(|ty| ty.strip_prefix("[]"));
            items.iter_mut().try_for_each(|item| convert(universe, item, list.elem, element))
        }
        (Type::Scalar(Scalar::Bytes), Value::String(text)) => match base64::decode(text) {
            Ok(_) => Ok(()),
            Err(why) => Err(format!("error decoding from json: {why}")),
        },
        (Type::Scalar(Scalar::Bytes), value @ Value::List(_)) => {
            let bytes =
                value.as_list().iter().copied().flatten().map(byte).collect::<Result<Vec<u8>, String>>()?;
            let mut text = Vec::new();
            base64::encode_into(&bytes, &mut text);
            *value = Value::string(String::from_utf8_lossy(&text));
            Ok(())
        }
        (Type::List(_) | Type::Scalar(Scalar::Bytes), _) => Err(format!("cannot restore slice from {from}")),
        (ty @ Type::Scalar(scalar), value) => match fitted(*scalar, value) {
            Fit::Is => Ok(()),
            Fit::Becomes(fitted) => {
                *value = fitted;
                Ok(())
            }
            Fit::CannotConvert => {
                let to = go_type.map_or_else(|| go_type_name(universe, ty), str::to_string);
                Err(format!("cannot convert {from} to {to}"))
            }
            Fit::Unrecognized => Err(format!("unrecognized type: {}", go_type_name(universe, ty))),
        },
    }
}

/// One item of bytes that were written as a list.
fn byte(value: &Value) -> Result<u8, String> {
    match value {
        Value::Null => Ok(0),
        // As Go converts: the lowest eight bits.
        Value::Int(i) => Ok(*i as u8),
        Value::Float(f) if f.fract() == 0.0 => Ok(*f as i64 as u8),
        Value::Float(_) => Err("cannot convert float64 to uint8".into()),
        _ => Err("unrecognized type: uint8".into()),
    }
}

enum Fit {
    Is,
    Becomes(Value),
    /// Go would convert, JSON's kinds forbid it.
    CannotConvert,
    /// Not even Go would.
    Unrecognized,
}

fn fitted(scalar: Scalar, value: &Value) -> Fit {
    let cut = |i: i64| match scalar {
        Scalar::Int32 => i64::from(i as i32),
        Scalar::Uint32 => i64::from(i as u32),
        _ => i,
    };
    match (scalar, value) {
        (Scalar::String, Value::String(_)) | (Scalar::Bool, Value::Bool(_)) => Fit::Is,
        // To Go an integer is a character's number.
        (Scalar::String, Value::Int(_)) => Fit::CannotConvert,
        (Scalar::Float64 | Scalar::Number, Value::Int(_) | Value::Float(_)) => Fit::Is,
        (Scalar::Int32 | Scalar::Int64 | Scalar::Uint32 | Scalar::Uint64, Value::Int(i)) => {
            if cut(*i) == *i {
                Fit::Is
            } else {
                Fit::Becomes(Value::Int(cut(*i)))
            }
        }
        (Scalar::Int32 | Scalar::Int64 | Scalar::Uint32 | Scalar::Uint64, Value::Float(f)) => {
            if f.fract() == 0.0 { Fit::Becomes(Value::Int(cut(*f as i64))) } else { Fit::CannotConvert }
        }
        _ => Fit::Unrecognized,
    }
}

/// Forms with code of their own read the value's JSON.
fn by_hand(universe: &Universe, value: &Value, special: Special) -> Result<(), String> {
    let mut writer = Writer::new(Universe::builtin(), 64);
    writer.any(value);
    let mut decoder = Decoder::new(&writer.out, universe);
    decoder.special(special, &Frame::ROOT).map_err(|e| e.0)?;
    decoder.failure().map_or(Ok(()), Err)
}

/// The kind of Go's value.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::String(_) | Value::Bytes(_) | Value::Raw(_) => "string",
        Value::List(_) => "slice",
        Value::Map(_) => "map",
    }
}
