//! What Go calls the values and types of a document, for messages about values of the wrong type.

use copepod_schema::{Scalar, Type, Universe};

/// What Go calls a JSON value that begins so.
pub(super) fn json_kind(first: u8) -> &'static str {
    match first {
        b'{' => "object",
        b'[' => "array",
        b'"' => "string",
        b't' | b'f' => "bool",
        b'n' => "null",
        _ => "number",
    }
}

pub(super) fn scalar_name(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::Bool => "bool",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Uint32 => "uint32",
        Scalar::Uint64 => "uint64",
        Scalar::Float64 | Scalar::Number => "float64",
        Scalar::String => "string",
        Scalar::Bytes => "[]uint8",
    }
}

/// The type as Go prints it; [`Field::go_type`] has those that have names of their own (`v1.RestartPolicy`).
pub(super) fn go_type_name(universe: &Universe, ty: &Type) -> String {
    match ty {
        Type::Struct(ty) => {
            let mut parts = ty.name.rsplit('.');
            let (name, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{package}.{name}")
        }
        Type::Map(map) => format!("map[string]{}", go_type_name(universe, universe.get(map.value))),
        Type::List(list) => {
            let pointer = if list.elem_pointer { "*" } else { "" };
            format!("[]{pointer}{}", go_type_name(universe, universe.get(list.elem)))
        }
        Type::Scalar(scalar) => scalar_name(*scalar).into(),
        Type::Special(special) => super::special::go_name(*special).into(),
        Type::Any => "interface {}".into(),
    }
}
