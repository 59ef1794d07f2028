//! A tree as compact JSON for messages and tests. The wire's encoder is schema-guided and lives in `copepod-codec`.

use crate::Value;
use std::fmt::Write as _;

/// Compact JSON, keys sorted.
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(i) => {
            let _infallible = write!(out, "{i}");
        }
        Value::Float(f) => {
            let _infallible = write!(out, "{f}");
        }
        Value::String(s) => text_into(s, out),
        // Bytes in a message are for people; base64 belongs to the wire.
        Value::Bytes(b) => text_into(&String::from_utf8_lossy(b), out),
        Value::Raw(b) => out.push_str(&String::from_utf8_lossy(b)),
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                text_into(key, out);
                out.push(':');
                write(item, out);
            }
            out.push('}');
        }
    }
}

/// Appends a string literal.
pub fn text_into(s: &str, out: &mut String) {
    out.push('"');
    // 0xe2 may begin a line separator.
    if !s.bytes().any(|b| b < 0x20 || matches!(b, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2)) {
        out.push_str(s);
        out.push('"');
        return;
    }
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') => {
                let _infallible = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
