//! Field sets as `fieldsV1` says them: `{"f:spec":{"f:replicas":{}}}`.
//! upstream: structured-merge-diff/v6 fieldpath/{serialize,serialize-pe}.go

use copepod_meta::{Bytes, Map, Value, debug_json};

use super::path::PathElement;
use super::set::Set;

/// Parses JSON; handed in because reading text is another crate's work.
pub type ParseJson<'p> = &'p dyn Fn(&[u8]) -> Option<Value>;

/// Reads a set from `fieldsV1`, verbatim or as a tree.
pub(super) fn read(fields: &Value, parse: ParseJson) -> Result<Set, String> {
    match fields {
        Value::Null => Ok(Set::default()),
        Value::Raw(raw) => match parse(raw) {
            Some(Value::Map(map)) => Ok(read_level(&map, parse)?.0.unwrap_or_default()),
            Some(Value::Null) => Ok(Set::default()),
            _ => Err("fieldsV1 is no JSON object".into()),
        },
        Value::Map(map) => Ok(read_level(map, parse)?.0.unwrap_or_default()),
        _ => Err("fieldsV1 is no JSON object".into()),
    }
}

/// The set below an element, and whether the element itself is a member.
fn read_level(map: &Map, parse: ParseJson) -> Result<(Option<Set>, bool), String> {
    let mut set: Option<Set> = None;
    let mut is_member = false;
    for (key, below) in map.iter() {
        if key == "." {
            is_member = true;
            continue;
        }
        let Some(element) = element(key, parse)? else { continue };
        let (grandchildren, child_is_member) = match below {
            Value::Map(below) => read_level(below, parse)?,
            _ => (None, true),
        };
        let set = set.get_or_insert_default();
        if child_is_member {
            set.insert(std::slice::from_ref(&element));
        }
        if let Some(grandchildren) = grandchildren {
            *set.descend(&element) = grandchildren;
        }
    }
    is_member = is_member || set.is_none();
    Ok((set, is_member))
}

/// One key of `fieldsV1`; none for kinds of elements that a later version may know.
fn element(key: &str, parse: ParseJson) -> Result<Option<PathElement>, String> {
    if key.len() < 2 {
        return Err("key must be 2 characters long:".into());
    }
    let Some((kind, text)) = key.split_once(':').filter(|(kind, _)| kind.len() == 1) else {
        return Err(format!("missing colon: {key}"));
    };
    let json = || parse(text.as_bytes()).ok_or_else(|| format!("no JSON after the colon: {key}"));
    Ok(Some(match kind {
        "f" => PathElement::field(text),
        "v" => PathElement::Value(json()?),
        "k" => match json()? {
            Value::Map(map) => PathElement::Key(map.into_iter().collect()),
            _ => return Err(format!("no JSON object after the colon: {key}")),
        },
        "i" => PathElement::Index(text.parse().map_err(|_| format!("no index after the colon: {key}"))?),
        _ => return Ok(None),
    }))
}

/// Writes a set, elements in the order of sets.
pub(super) fn write(set: &Set) -> Value {
    let mut out = String::new();
    write_level(set, false, &mut out);
    Value::Raw(Bytes::from(out))
}

fn write_level(set: &Set, is_member: bool, out: &mut String) {
    let mut separator = '{';
    if is_member && !(set.members.is_empty() && set.children.is_empty()) {
        out.push_str("{\".\":{}");
        separator = ',';
    }
    let mut key = |element: &PathElement, out: &mut String| {
        out.push(separator);
        separator = ',';
        match element {
            // Nearly all are such names.
            PathElement::Field(name) if name.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                out.push_str("\"f:");
                out.push_str(name);
                out.push('"');
            }
            element => debug_json::text_into(&element_text(element), out),
        }
        out.push(':');
    };
    let (mut members, mut children) = (set.members.iter().peekable(), set.children.iter().peekable());
    loop {
        let order = match (members.peek(), children.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(member), Some((element, _))) => (*member).cmp(element),
        };
        let member = if order.is_le() { members.next() } else { None };
        let child = if order.is_ge() { children.next() } else { None };
        match (member, child) {
            (_, Some((element, below))) => {
                key(element, out);
                write_level(below, member.is_some(), out);
            }
            (Some(element), None) => {
                key(element, out);
                out.push_str("{}");
            }
            (None, None) => break,
        }
    }
    if separator == '{' {
        out.push('{');
    }
    out.push('}');
}

fn element_text(element: &PathElement) -> String {
    match element {
        PathElement::Field(name) => format!("f:{name}"),
        PathElement::Key(keys) => {
            let map: Map = keys.iter().cloned().collect();
            format!("k:{}", debug_json::to_string(&Value::Map(map)))
        }
        PathElement::Value(value) => format!("v:{}", debug_json::to_string(value)),
        PathElement::Index(index) => format!("i:{index}"),
    }
}
