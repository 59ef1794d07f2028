//! Values as Go prints them with `%v`, for messages that quote a patch.

use copepod_meta::Value;
use std::fmt::Write as _;

/// `map[a:1 b:[x y] c:<nil>]`
pub fn go_format(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(i) => {
            let _infallible = write!(out, "{i}");
        }
        Value::Float(f) => out.push_str(&float(*f)),
        Value::String(s) => out.push_str(s),
        Value::Bytes(b) | Value::Raw(b) => out.push_str(&String::from_utf8_lossy(b)),
        Value::List(items) => list(items, out),
        Value::Map(map) => {
            out.push_str("map[");
            for (index, (key, item)) in map.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                write(item, out);
            }
            out.push(']');
        }
    }
}

/// `[]interface {}{"x", 1}`: as Go prints with `%#v`, that is as Go's source would have it.
pub(crate) fn go_syntax(value: &Value) -> String {
    let joined = |items: Vec<String>| items.join(", ");
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::String(text) => copepod_meta::field::quote(text),
        Value::List(items) => {
            format!("[]interface {{}}{{{}}}", joined(items.iter().map(go_syntax).collect()))
        }
        Value::Map(map) => {
            let members = map
                .iter()
                .map(|(key, item)| format!("{}:{}", copepod_meta::field::quote(key), go_syntax(item)));
            format!("map[string]interface {{}}{{{}}}", joined(members.collect()))
        }
        other => go_format(other),
    }
}

fn list(items: &[Value], out: &mut String) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        write(item, out);
    }
    out.push(']');
}

/// `%v` of a slice of slices.
pub(crate) fn go_format_lists(lists: &[&[Value]]) -> String {
    let mut out = "[".to_string();
    for (index, items) in lists.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        list(items, &mut out);
    }
    out.push(']');
    out
}

/// Go's `%v` of a float64: shortest digits, exponents from 1e21 on and below 1e-4.
fn float(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{value}")
}

/// The type of an untyped JSON value as Go names it.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::String(_) | Value::Bytes(_) | Value::Raw(_) => "string",
        Value::List(_) => "[]interface {}",
        Value::Map(_) => "map[string]interface {}",
    }
}
