//! How upstream prints structured values in messages: JSON in the order of the Go struct's fields.
//!
//! Types of `k8s.io/api` and meta have JSON tags and print as on the wire. Upstream's internal types have none: they print
//! every field under its Go name, absent ones as `null` or zero.

use copepod_meta::{Value, field::print_value};
use copepod_schema::{Omit, Scalar, Special, Type, TypeId, Universe};
use std::fmt::Write as _;

/// Type name of an owner reference.
pub const OWNER_REFERENCE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference";
/// Type name of a label selector.
pub const LABEL_SELECTOR: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector";

/// Go's `%#v` of strings: `[]string{"a", "b"}`.
pub fn go_strings(items: &[&str]) -> String {
    let quoted: Vec<String> = items.iter().map(|s| copepod_meta::field::quote(s)).collect();
    format!("[]string{{{}}}", quoted.join(", "))
}

/// Go's `%v` of strings: `[a b]`.
pub fn go_list<S: AsRef<str>>(items: &[S]) -> String {
    format!("[{}]", items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" "))
}

/// JSON as on the wire, fields in the order of type `name`.
pub fn json(value: &Value, name: &str) -> String {
    let universe = Universe::builtin();
    let Some(id) = universe.by_name(name) else { return print_value(value) };
    let mut out = String::new();
    write(&mut out, universe, value, id, false);
    out
}

/// JSON of a list of such values.
pub fn json_list(value: &Value, name: &str) -> String {
    let items: Vec<String> = value.list_at(&[]).iter().map(|v| json(v, name)).collect();
    format!("[{}]", items.join(","))
}

/// JSON of an internal type: Go's names, nothing left out.
pub fn internal_json(value: &Value, name: &str) -> String {
    let universe = Universe::builtin();
    let Some(id) = universe.by_name(name) else { return print_value(value) };
    let mut out = String::new();
    write(&mut out, universe, value, id, true);
    out
}

fn write(out: &mut String, universe: &Universe, value: &Value, id: TypeId, internal: bool) {
    match universe.get(id) {
        Type::Struct(ty) => {
            // meta types keep their JSON tags inside internal ones.
            let internal = internal && !ty.name.contains("apimachinery");
            out.push('{');
            let mut first = true;
            for field in &ty.fields {
                let member = value.get(&field.json);
                if !internal
                    && member.is_empty()
                    && field.omit != Omit::Never
                    && (field.pointer || !is_struct(universe, field.ty))
                    && (member.is_null() || !field.pointer)
                {
                    continue;
                }
                if !std::mem::take(&mut first) {
                    out.push(',');
                }
                let name = if internal && !field.go_name.is_empty() { &field.go_name } else { &field.json };
                let _infallible = write!(out, "\"{name}\":");
                if member.is_null() && (field.pointer || nilable(universe, field.ty)) {
                    out.push_str("null");
                } else {
                    write(out, universe, member, field.ty, internal);
                }
            }
            out.push('}');
        }
        Type::List(list) => {
            out.push('[');
            for (i, item) in value.list_at(&[]).iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(out, universe, item, list.elem, internal);
            }
            out.push(']');
        }
        Type::Map(map) => {
            out.push('{');
            for (i, (key, item)) in value.map_at(&[]).iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&copepod_meta::debug_json::to_string(&Value::string(key)));
                out.push(':');
                write(out, universe, item, map.value, internal);
            }
            out.push('}');
        }
        Type::Scalar(scalar) if value.is_null() => out.push_str(match scalar {
            Scalar::Bool => "false",
            Scalar::String => "\"\"",
            Scalar::Bytes => "null",
            _ => "0",
        }),
        Type::Special(Special::Quantity) if value.is_null() => out.push_str("\"0\""),
        Type::Special(Special::IntOrString) if value.is_null() => out.push('0'),
        _ => out.push_str(&copepod_meta::debug_json::to_string(value)),
    }
}

fn is_struct(universe: &Universe, id: TypeId) -> bool {
    matches!(universe.get(id), Type::Struct(_))
}

fn nilable(universe: &Universe, id: TypeId) -> bool {
    matches!(universe.get(id), Type::List(_) | Type::Map(_) | Type::Scalar(Scalar::Bytes))
}
