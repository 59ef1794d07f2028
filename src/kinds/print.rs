//! How upstream prints structured values in messages: JSON in the order of the Go struct's fields.
//!
//! Types of `k8s.io/api` and meta have JSON tags and print as on the wire. Upstream's internal types have none: they print
//! every field under its Go name, absent ones as `null` or zero.

use copepod_meta::{Value, debug_json, field::print_value};
use copepod_schema::{Omit, Scalar, Special, Type, TypeId, Universe};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

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
    write(&mut out, universe, value, id);
    out
}

/// JSON of a list of such values.
pub fn json_list(value: &Value, name: &str) -> String {
    let items: Vec<String> = value.list_at(&[]).iter().map(|v| json(v, name)).collect();
    format!("[{}]", items.join(","))
}

/// JSON of one of upstream's internal types, `core/PodSpec`: Go's names, nothing left out.
pub fn internal(value: &Value, name: &str) -> String {
    let mut out = String::new();
    write_internal(&mut out, value, name, value, None, 0);
    out
}

/// JSON of a list of such values.
pub fn internal_list(value: &Value, name: &str) -> String {
    let items: Vec<String> = value.list_at(&[]).iter().map(|v| internal(v, name)).collect();
    format!("[{}]", items.join(","))
}

/// The same over several lines, indented by one space.
pub fn pretty(value: &Value, name: &str) -> String {
    let mut out = String::new();
    write_internal(&mut out, value, name, value, Some(1), 0);
    out
}

/// A field of an internal type: its name in Go, in JSON, what it holds (`*core/Probe`, `[]string`, `wire:Time`, ...).
struct InternalField {
    go: &'static str,
    json: &'static str,
    holds: &'static str,
}

static INTERNAL: LazyLock<HashMap<&'static str, Vec<InternalField>>> = LazyLock::new(|| {
    let mut all: HashMap<&'static str, Vec<InternalField>> = HashMap::new();
    for line in include_str!("internal.tsv").lines() {
        let mut parts = line.split('\t');
        let mut next = || parts.next().unwrap_or("");
        let ty = next();
        all.entry(ty).or_default().push(InternalField { go: next(), json: next(), holds: next() });
    }
    all
});

/// Members that the wire keeps in the spec and upstream's internal type in its security context.
const MOVED_TO_SECURITY_CONTEXT: [&str; 5] =
    ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"];

/// A field of embedded metadata.
const fn meta(name: &'static str, holds: &'static str) -> InternalField {
    InternalField { go: name, json: name, holds }
}

/// The fields of embedded metadata, in Go's order: templates keep whatever is sent.
static OBJECT_META: &[InternalField] = &[
    meta("name", "meta:string"),
    meta("generateName", "meta:string"),
    meta("namespace", "meta:string"),
    meta("selfLink", "meta:string"),
    meta("uid", "meta:string"),
    meta("resourceVersion", "meta:string"),
    meta("generation", "meta:number"),
    meta("creationTimestamp", "meta:wire:Time"),
    meta("deletionTimestamp", "meta:wire:Time"),
    meta("deletionGracePeriodSeconds", "meta:number"),
    meta("labels", "meta:{}string"),
    meta("annotations", "meta:{}string"),
    meta("ownerReferences", "meta:[]wire:OwnerReference"),
    meta("finalizers", "meta:[]string"),
    meta("managedFields", "meta:[]wire:ManagedFieldsEntry"),
];

fn fields_of(name: &str, out: &mut Vec<&'static InternalField>) {
    for field in INTERNAL.get(name).map_or(&[][..], Vec::as_slice) {
        if field.holds == "wire:ObjectMeta" && field.go.is_empty() {
            out.extend(OBJECT_META);
        } else if field.go.is_empty() {
            fields_of(field.holds, out);
        } else {
            out.push(field);
        }
    }
}

fn write_internal(
    out: &mut String,
    value: &Value,
    holds: &str,
    spec: &Value,
    indent: Option<usize>,
    depth: usize,
) {
    if let Some(inner) = holds.strip_prefix('*') {
        return match value {
            Value::Null => out.push_str("null"),
            value => write_internal(out, value, inner, spec, indent, depth),
        };
    }
    if let Some(inner) = holds.strip_prefix("[]") {
        return match value {
            Value::Null => out.push_str("null"),
            value => {
                let items: Vec<_> = value.list_at(&[]).iter().map(|v| (None, v)).collect();
                write_items(out, &items, &|_| inner, ('[', ']'), spec, indent, depth);
            }
        };
    }
    if let Some(inner) = holds.strip_prefix("{}") {
        return match value {
            Value::Null => out.push_str("null"),
            value => {
                let items: Vec<_> = value.map_at(&[]).iter().map(|(k, v)| (Some(k), v)).collect();
                write_items(out, &items, &|_| inner, ('{', '}'), spec, indent, depth);
            }
        };
    }
    match holds {
        "string" | "bool" | "number" => write_scalar(out, value, holds),
        "bytes" => out.push_str(if value.is_null() { "null" } else { "\"\"" }),
        wire if wire.starts_with("wire:") => write_wire(out, value, &wire[5..], indent, depth),
        name => {
            let mut fields = Vec::new();
            fields_of(name, &mut fields);
            let moved = name == "core/PodSecurityContext";
            let spec = if name == "core/PodSpec" { value } else { spec };
            let items: Vec<_> = fields
                .iter()
                .filter_map(|f| {
                    // Embedded metadata prints its own fields, those that say something.
                    if f.holds.starts_with("meta:") {
                        let member = value.get("metadata").get(f.json);
                        return (!member.is_empty()).then_some((
                            Some(f.go),
                            member,
                            &f.holds["meta:".len()..],
                        ));
                    }
                    let owner =
                        if moved && MOVED_TO_SECURITY_CONTEXT.contains(&f.json) { spec } else { value };
                    Some((Some(f.go), owner.get(f.json), f.holds))
                })
                .collect();
            let holds: Vec<&str> = items.iter().map(|(_, _, holds)| *holds).collect();
            let items: Vec<_> = items.into_iter().map(|(name, value, _)| (name, value)).collect();
            write_items(out, &items, &|i| holds[i], ('{', '}'), spec, indent, depth);
        }
    }
}

fn write_items<'a>(
    out: &mut String,
    items: &[(Option<&str>, &Value)],
    holds: &dyn Fn(usize) -> &'a str,
    (open, close): (char, char),
    spec: &Value,
    indent: Option<usize>,
    depth: usize,
) {
    let line = |out: &mut String, depth: usize| {
        if let Some(width) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * depth));
        }
    };
    out.push(open);
    for (i, (key, value)) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        line(out, depth + 1);
        if let Some(key) = key {
            out.push_str(&debug_json::to_string(&Value::string(key)));
            out.push_str(if indent.is_some() { ": " } else { ":" });
        }
        write_internal(out, value, holds(i), spec, indent, depth + 1);
    }
    if !items.is_empty() {
        line(out, depth);
    }
    out.push(close);
}

fn write_scalar(out: &mut String, value: &Value, holds: &str) {
    match (value, holds) {
        (Value::Null, "string") => out.push_str("\"\""),
        (Value::Null, "bool") => out.push_str("false"),
        (Value::Null, _) => out.push('0'),
        (value, _) => out.push_str(&debug_json::to_string(value)),
    }
}

/// A type with JSON of its own inside an internal one.
fn write_wire(out: &mut String, value: &Value, name: &str, indent: Option<usize>, depth: usize) {
    let text = match (value, name) {
        (Value::Null, "Time" | "MicroTime") => "null".into(),
        (Value::Null, "Quantity") => "\"0\"".into(),
        (Value::Null, "IntOrString") => "0".into(),
        (Value::Null, "ObjectMeta" | "LabelSelector") => "{}".into(),
        (value, "ObjectMeta" | "LabelSelector" | "OwnerReference" | "ManagedFieldsEntry") => {
            json(value, &format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"))
        }
        (value, _) => debug_json::to_string(value),
    };
    match indent {
        Some(width) if text.len() > 2 && text.starts_with(['{', '[']) => {
            out.push_str(&reindent(&text, width, depth))
        }
        _ => out.push_str(&text),
    }
}

/// Compact JSON over several lines, as Go's MarshalIndent.
fn reindent(text: &str, width: usize, mut depth: usize) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut quoted, mut escaped) = (false, false);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', width * depth));
    };
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if quoted {
            out.push(c);
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                if !matches!(chars.peek(), Some('}' | ']')) {
                    depth += 1;
                    line(&mut out, depth);
                } else if let Some(close) = chars.next() {
                    out.push(close);
                }
            }
            '}' | ']' => {
                depth -= 1;
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => {
                quoted = c == '"';
                out.push(c);
            }
        }
    }
    out
}

fn write(out: &mut String, universe: &Universe, value: &Value, id: TypeId) {
    match universe.get(id) {
        Type::Struct(ty) => {
            out.push('{');
            let mut first = true;
            for field in &ty.fields {
                let member = value.get(&field.json);
                if member.is_empty()
                    && field.omit != Omit::Never
                    && (field.pointer || !is_struct(universe, field.ty))
                    && (member.is_null() || !field.pointer)
                {
                    continue;
                }
                if !std::mem::take(&mut first) {
                    out.push(',');
                }
                let name = &field.json;
                let _infallible = write!(out, "\"{name}\":");
                if member.is_null() && (field.pointer || nilable(universe, field.ty)) {
                    out.push_str("null");
                } else {
                    write(out, universe, member, field.ty);
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
                write(out, universe, item, list.elem);
            }
            out.push(']');
        }
        Type::Map(map) => {
            out.push('{');
            for (i, (key, item)) in value.map_at(&[]).iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&debug_json::to_string(&Value::string(key)));
                out.push(':');
                write(out, universe, item, map.value);
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
        _ => out.push_str(&debug_json::to_string(value)),
    }
}

fn is_struct(universe: &Universe, id: TypeId) -> bool {
    matches!(universe.get(id), Type::Struct(_))
}

fn nilable(universe: &Universe, id: TypeId) -> bool {
    matches!(universe.get(id), Type::List(_) | Type::Map(_) | Type::Scalar(Scalar::Bytes))
}
