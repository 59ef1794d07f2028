//! Tree -> JSON, byte for byte as Go's encoder writes the Go struct that the tree stands for.
//!
//! Members in struct order, `omitempty` and `omitzero` as Go applies them (a non-pointer struct is never
//! empty to `omitempty`), nil lists and maps that must be written as `null`, `<`, `>`, `&` and the line
//! separators escaped, no trailing newline. What stands in the tree is trusted: a value that does not fit its
//! type is written as what it is.
//!
//! upstream: Go encoding/json/encode.go

use copepod_meta::{Gvk, Map, Value};
use copepod_schema::{Field, Omit, Scalar, Special, StructType, Type, TypeId, Universe};

use super::base64_into;
use super::decode::or_zero;
use super::number::float_into;

/// Fields up to which a struct's values are spread over slots on the stack instead of being searched one by
/// one.
const SLOTS: usize = 64;

/// A JSON text being written.
pub(crate) struct Writer<'u> {
    universe: &'u Universe,
    pub(crate) out: Vec<u8>,
}

impl<'u> Writer<'u> {
    pub(crate) fn new(universe: &'u Universe, capacity: usize) -> Writer<'u> {
        Writer { universe, out: Vec::with_capacity(capacity) }
    }

    /// A root object with the type meta of `gvk` in front (struct order) or in its place (unstructured).
    pub(crate) fn root(&mut self, value: &Value, ty: TypeId, gvk: Option<&Gvk>) {
        if self.universe.is_unstructured() {
            return self.unstructured_root(value, gvk);
        }
        self.out.push(b'{');
        let mut first = true;
        if let Some(gvk) = gvk {
            self.type_meta(gvk, &mut first);
        }
        self.root_members(value, ty, first);
    }

    /// What every built-in object begins with.
    pub(crate) fn type_meta(&mut self, gvk: &Gvk, first: &mut bool) {
        for (name, text) in [("kind", gvk.kind.as_str()), ("apiVersion", gvk.api_version().as_str())] {
            if !text.is_empty() {
                self.name(name, first);
                text_into(text, &mut self.out);
            }
        }
    }

    /// The members of a root object and its closing brace, without type meta: what follows a head.
    pub(crate) fn root_members(&mut self, value: &Value, ty: TypeId, mut first: bool) {
        match self.universe.get(ty) {
            Type::Struct(ty) => {
                self.members(value.as_map(), ty, |name| name == "kind" || name == "apiVersion", &mut first);
            }
            _ => {
                for (name, item) in value.as_map().into_iter().flat_map(Map::iter) {
                    self.quoted_name(name, &mut first);
                    self.any(item);
                }
            }
        }
        self.out.push(b'}');
    }

    fn unstructured_root(&mut self, value: &Value, gvk: Option<&Gvk>) {
        let mut injected: Vec<(&str, Value)> = Vec::new();
        if let Some(gvk) = gvk {
            injected.push(("apiVersion", Value::from(gvk.api_version())));
            injected.push(("kind", Value::string(&gvk.kind)));
        }
        self.out.push(b'{');
        let mut first = true;
        let mut injected = injected.iter().peekable();
        for (name, item) in value.as_map().into_iter().flat_map(Map::iter) {
            while let Some((extra, text)) = injected.next_if(|(extra, _)| *extra <= name) {
                self.quoted_name(extra, &mut first);
                self.any(text);
            }
            if gvk.is_some() && (name == "apiVersion" || name == "kind") {
                continue;
            }
            self.quoted_name(name, &mut first);
            self.any(item);
        }
        for (extra, text) in injected {
            self.quoted_name(extra, &mut first);
            self.any(text);
        }
        self.out.push(b'}');
    }

    pub(crate) fn name(&mut self, name: &str, first: &mut bool) {
        if !std::mem::take(first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    pub(crate) fn quoted_name(&mut self, name: &str, first: &mut bool) {
        if !std::mem::take(first) {
            self.out.push(b',');
        }
        text_into(name, &mut self.out);
        self.out.push(b':');
    }

    fn members(&mut self, map: Option<&Map>, ty: &StructType, skip: impl Fn(&str) -> bool, first: &mut bool) {
        if ty.fields.len() > SLOTS {
            for field in &ty.fields {
                self.member(field, map.and_then(|m| m.get(&field.json)), &skip, first);
            }
            return;
        }
        let mut slots: [Option<&Value>; SLOTS] = [None; SLOTS];
        let mut wanted = self.universe.always_written(ty);
        for (name, value) in map.into_iter().flat_map(Map::iter) {
            if let Some(index) = ty.field_index(name) {
                slots[index] = Some(value);
                wanted |= 1 << index;
            }
        }
        while wanted != 0 {
            let index = wanted.trailing_zeros() as usize;
            wanted &= wanted - 1;
            self.member(&ty.fields[index], slots[index], &skip, first);
        }
    }

    fn member(
        &mut self,
        field: &Field,
        value: Option<&Value>,
        skip: &impl Fn(&str) -> bool,
        first: &mut bool,
    ) {
        let found = value.filter(|value| !value.is_null());
        if !leaves_out(self.universe, field, found) && !skip(&field.json) {
            self.name(&field.json, first);
            self.field(field, found);
        }
    }

    pub(crate) fn field(&mut self, field: &Field, value: Option<&Value>) {
        match value {
            Some(value) => self.value(value, field.ty),
            None if field.pointer => self.out.extend_from_slice(b"null"),
            None => self.zero(field.ty),
        }
    }

    /// Go's zero value of a type held by value.
    fn zero(&mut self, ty: TypeId) {
        match self.universe.get(ty) {
            Type::Struct(ty) => self.structure(None, ty),
            Type::Scalar(Scalar::Bytes) => self.out.extend_from_slice(b"null"),
            _ => {
                let zero = or_zero(self.universe, Value::Null, ty);
                self.any(&zero);
            }
        }
    }

    fn structure(&mut self, map: Option<&Map>, ty: &StructType) {
        self.out.push(b'{');
        self.members(map, ty, |_| false, &mut true);
        self.out.push(b'}');
    }

    /// A value under its type.
    pub(crate) fn value(&mut self, value: &Value, ty: TypeId) {
        match (self.universe.get(ty), value) {
            (Type::Struct(ty), Value::Map(map)) => self.structure(Some(map), ty),
            (Type::Map(ty), Value::Map(map)) => {
                self.out.push(b'{');
                let mut first = true;
                for (name, item) in map.iter() {
                    self.quoted_name(name, &mut first);
                    self.element(item, ty.value, false);
                }
                self.out.push(b'}');
            }
            (Type::List(ty), Value::List(items)) => {
                self.list(items, |writer, item| writer.element(item, ty.elem, ty.elem_pointer));
            }
            (Type::Special(special), value) => self.special(*special, value),
            (_, value) => self.any(value),
        }
    }

    pub(crate) fn element(&mut self, item: &Value, ty: TypeId, pointer: bool) {
        if item.is_null() && !pointer { self.zero(ty) } else { self.value(item, ty) }
    }

    fn list(&mut self, items: &[Value], mut write: impl FnMut(&mut Self, &Value)) {
        self.out.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            write(self, item);
        }
        self.out.push(b']');
    }

    fn special(&mut self, special: Special, value: &Value) {
        match (special, value) {
            (
                Special::JsonSchemaPropsOrBool(ty)
                | Special::JsonSchemaPropsOrArray(ty)
                | Special::JsonSchemaPropsOrStringArray(ty),
                Value::Map(_),
            ) => self.value(value, ty),
            (
                Special::JsonSchemaPropsOrArray(_) | Special::JsonSchemaPropsOrStringArray(_),
                Value::List(items),
            ) if items.is_empty() => {
                self.out.extend_from_slice(b"null");
            }
            (Special::JsonSchemaPropsOrArray(ty), Value::List(items)) => {
                self.list(items, |writer, item| writer.value(item, ty));
            }
            _ => self.any(value),
        }
    }

    /// A value as what it is, maps sorted.
    pub(crate) fn any(&mut self, value: &Value) {
        match value {
            Value::Null => self.out.extend_from_slice(b"null"),
            Value::Bool(true) => self.out.extend_from_slice(b"true"),
            Value::Bool(false) => self.out.extend_from_slice(b"false"),
            Value::Int(integer) => integer_into(*integer, &mut self.out),
            Value::Float(number) => float_into(*number, &mut self.out),
            Value::String(text) => text_into(text, &mut self.out),
            Value::Bytes(bytes) => {
                self.out.push(b'"');
                base64_into(bytes, &mut self.out);
                self.out.push(b'"');
            }
            Value::Raw(raw) if raw.is_empty() => self.out.extend_from_slice(b"null"),
            Value::Raw(raw) => compact_into(raw, &mut self.out),
            Value::List(items) => self.list(items, Self::any),
            Value::Map(map) => {
                self.out.push(b'{');
                let mut first = true;
                for (name, item) in map.iter() {
                    self.quoted_name(name, &mut first);
                    self.any(item);
                }
                self.out.push(b'}');
            }
        }
    }
}

/// Whether Go's encoder leaves a field out. `value` is what the tree has, null being nothing.
pub(crate) fn leaves_out(universe: &Universe, field: &Field, value: Option<&Value>) -> bool {
    match (field.omit, value) {
        (Omit::Never, _) => false,
        (_, Some(_)) if field.pointer => false,
        (_, None) if field.pointer => true,
        (Omit::Empty, value) => match universe.get(field.ty) {
            // Structs to Go, so never empty.
            Type::Struct(_) | Type::Special(_) => false,
            Type::Any => value.is_none(),
            _ => value.is_none_or(Value::is_empty),
        },
        (Omit::Zero, None) => true,
        (Omit::Zero, Some(value)) => match universe.get(field.ty) {
            Type::List(_) | Type::Map(_) | Type::Any => false,
            _ => value.is_empty(),
        },
    }
}

pub(crate) fn integer_into(integer: i64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = integer.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if integer < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Bytes that cannot stand in a string as they are; `0xe2` may begin a line separator.
const SPECIAL_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[b'&' as usize] = true;
    table[0xe2] = true;
    table
};

/// Appends a string literal.
/// upstream: Go encoding/json/encode.go appendString
pub(crate) fn text_into(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut start = 0;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if !SPECIAL_BYTES[byte as usize] {
            at += 1;
            continue;
        }
        out.extend_from_slice(&bytes[start..at]);
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0xe2 => {
                at += separator_into(&bytes[at..], out);
                start = at;
                continue;
            }
            _ => unicode_into(byte, out),
        }
        at += 1;
        start = at;
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

fn unicode_into(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u00");
    out.push(HEX[usize::from(byte >> 4)]);
    out.push(HEX[usize::from(byte & 15)]);
}

/// Writes what begins with `0xe2`: a line separator escaped, anything else as it is. How many bytes it took.
fn separator_into(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    match bytes {
        [0xe2, 0x80, 0xa8, ..] => out.extend_from_slice(b"\\u2028"),
        [0xe2, 0x80, 0xa9, ..] => out.extend_from_slice(b"\\u2029"),
        _ => {
            out.push(0xe2);
            return 1;
        }
    }
    3
}

/// Bytes that may not stand in a compact text as they are.
const COMPACTED_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let bytes = b" \t\r\n<>&\xe2";
    let mut at = 0;
    while at < bytes.len() {
        table[bytes[at] as usize] = true;
        at += 1;
    }
    table
};

/// Appends JSON text without its space, HTML characters in strings escaped.
/// upstream: Go encoding/json/indent.go appendCompact
pub(crate) fn compact_into(raw: &[u8], out: &mut Vec<u8>) {
    // What machines write is compact already.
    if !raw.iter().any(|&byte| COMPACTED_BYTES[usize::from(byte)]) {
        out.extend_from_slice(raw);
        return;
    }
    let mut in_string = false;
    let mut at = 0;
    while at < raw.len() {
        let byte = raw[at];
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' if !in_string => {}
            b'<' | b'>' | b'&' => unicode_into(byte, out),
            0xe2 => {
                at += separator_into(&raw[at..], out);
                continue;
            }
            b'\\' if in_string => {
                out.push(byte);
                at += 1;
                if let Some(&escaped) = raw.get(at) {
                    out.push(escaped);
                }
            }
            b'"' => {
                in_string = !in_string;
                out.push(byte);
            }
            _ => out.push(byte),
        }
        at += 1;
    }
}

/// Compact JSON with two spaces a level, as `MarshalIndent(obj, "", "  ")` lays it out.
/// upstream: Go encoding/json/indent.go appendIndent
pub(crate) fn indent(compact: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(compact.len() * 3 / 2);
    let mut depth = 0;
    let mut in_string = false;
    let mut at = 0;
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    while at < compact.len() {
        let byte = compact[at];
        at += 1;
        match byte {
            b'\\' if in_string => {
                out.push(byte);
                out.extend(compact.get(at));
                at += 1;
            }
            b'"' => {
                in_string = !in_string;
                out.push(byte);
            }
            _ if in_string => out.push(byte),
            b'{' | b'[' => {
                out.push(byte);
                if let Some(close @ (b'}' | b']')) = compact.get(at) {
                    out.push(*close);
                    at += 1;
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(byte);
            }
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the type graph says of absent fields is what the encoder does with them.
    #[test]
    fn fields_that_are_always_written_are_those_that_are_not_left_out() {
        let universe = Universe::builtin();
        let mut fields = 0;
        for index in 0..universe.len() as u32 {
            let Some(ty) = universe.get_struct(TypeId(index)) else { continue };
            assert!(ty.fields.len() <= SLOTS, "{}", ty.name);
            for (at, field) in ty.fields.iter().enumerate() {
                let written = universe.always_written(ty) >> at & 1 == 1;
                assert_eq!(written, !leaves_out(universe, field, None), "{}.{}", ty.name, field.json);
                assert_eq!(ty.field_index(&field.json), Some(at), "{}.{}", ty.name, field.json);
                fields += 1;
            }
        }
        assert!(fields > 2500, "{fields} fields");
    }
}
