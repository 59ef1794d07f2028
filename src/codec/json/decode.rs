//! JSON text -> tree, guided by a type, in one pass.
//!
//! Invariants of the tree that comes out (all floors above rely on them):
//! * what Go would hold as nil or as a zero value by value is absent: typed nulls, `""`, `0`, `false`, `{}`
//!   of non-pointer fields; empty but non-nil lists and maps, and zero values behind pointers, are there;
//! * names are matched exactly; members of a repeated struct are merged, the last scalar wins, as Go's
//!   decoder does;
//! * a tree is at most [`TREE_DEPTH_MAX`] deep, so that everything that walks it may recurse.
//!
//! Errors come in Go's order: a syntax error anywhere beats an error of a hand-written form (the first one),
//! which beats a value of the wrong type (the first one).
//!
//! upstream: sigs.k8s.io/json internal/golang/encoding/json/decode.go

use std::borrow::Cow;

use copepod_meta::{Bytes, CompactString, Map, Value};
use copepod_schema::{Field, ListType, Name, Scalar, StructType, Type, TypeId, Universe};

use super::base64;
use super::names::{go_type_name, json_kind, scalar_name};
use super::scan::{Next, Scanner, SyntaxError};
use super::untyped::report_duplicates;
use crate::strict::StrictErrors;

/// How deep a tree may be. Go allows 10,000 levels, but everything here that walks a tree (encoders, merges,
/// `Drop`) recurses: 256 levels of about 4 KB in a debug build fit twice into a worker's stack of 2 MiB. The
/// deepest built-in type that is not recursive has 24 levels; a schema in a CustomResourceDefinition takes
/// two a property.
pub const TREE_DEPTH_MAX: usize = 256;

/// Where the decoder is, from the inside out; lives on the stack, costs nothing unless an error is rendered.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'p> {
    parent: Option<&'p Frame<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
pub(crate) enum Step<'p> {
    Root,
    /// A field and the Go name of the struct that has it.
    Field(&'p Field, &'p str),
    Key(&'p str),
    Index(usize),
}

impl<'p> Frame<'p> {
    pub(crate) const ROOT: Frame<'static> = Frame { parent: None, step: Step::Root };

    pub(crate) fn then(&'p self, step: Step<'p>) -> Frame<'p> {
        Frame { parent: Some(self), step }
    }

    /// `spec.containers[0].image`, as strict errors name it.
    pub(crate) fn strict_path(&self) -> String {
        let mut path = self.parent.map(Frame::strict_path).unwrap_or_default();
        match self.step {
            Step::Root => {}
            Step::Field(Field { json: name, .. }, _) => push_step(&mut path, name),
            Step::Key(name) => push_step(&mut path, name),
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
        path
    }

    /// `Container.spec.containers.image`: the innermost struct and the fields on the way, embedded structs among them,
    /// without keys and indices.
    /// upstream: decode.go addErrorContext
    fn go_context(&self) -> Option<String> {
        let (mut owner, mut fields) = (None, Vec::new());
        let mut at = Some(self);
        while let Some(frame) = at {
            if let Step::Field(field, of) = frame.step {
                owner.get_or_insert(of);
                fields.push(field.json.as_ref());
                fields.extend(field.embedded.as_deref());
            }
            at = frame.parent;
        }
        fields.reverse();
        owner.map(|owner| format!("{owner}.{}", fields.join(".")))
    }

    /// The type of what is here as Go prints it, where the type graph does not tell it.
    fn go_type(&self) -> Option<&'p str> {
        match (self.step, self.parent) {
            (Step::Field(field, _), _) => field.go_type.as_deref(),
            (Step::Index(_), Some(list)) => list.go_type()?.strip_prefix("[]"),
            _ => None,
        }
    }
}

fn push_step(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// One text being decoded.
pub(crate) struct Decoder<'a, 'u> {
    pub(super) scan: Scanner<'a>,
    pub(super) universe: &'u Universe,
    pub(crate) strict: StrictErrors,
    depth: usize,
    /// Inside forms that upstream hands to the standard library: names match whatever their case.
    pub(super) fold: bool,
    /// First error of a hand-written form.
    fatal: Option<String>,
    /// First value of the wrong type.
    mistyped: Option<String>,
    /// `apiVersion` or `kind` of the root are no text.
    meta_error: Option<String>,
}

/// A root object.
pub(crate) struct Root {
    pub(crate) value: Value,
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) strict_errors: Vec<String>,
    /// A value does not fit its type; the object is not usable, but its type meta is.
    pub(crate) failure: Option<String>,
}

/// Why there is no root object.
pub(crate) enum RootError {
    /// As the interpreter of type meta says it.
    TypeMeta(String),
}

/// Decodes a whole object.
pub(crate) fn decode_root(text: &[u8], universe: &Universe, ty: TypeId) -> Result<Root, RootError> {
    let mut decoder = Decoder::new(text, universe);
    let value = decoder.root(ty).map_err(|e| RootError::TypeMeta(e.0))?;
    if let Some(message) = decoder.meta_error.take() {
        return Err(RootError::TypeMeta(message));
    }
    let mut map = match value {
        Value::Map(map) => map,
        _ => Map::default(),
    };
    let mut take = |name| match map.remove(name) {
        Some(Value::String(text)) => text.to_string(),
        _ => String::new(),
    };
    let (api_version, kind) = (take("apiVersion"), take("kind"));
    let failure = decoder.failure();
    Ok(Root {
        value: Value::Map(map),
        api_version,
        kind,
        strict_errors: decoder.strict.into_messages(),
        failure,
    })
}

/// Decodes a part of an object (`metadata` of a custom resource); its strict errors, which lack the path to
/// it.
pub(crate) fn decode_value(
    text: &[u8],
    universe: &Universe,
    ty: TypeId,
) -> Result<(Value, Vec<String>), String> {
    let mut decoder = Decoder::new(text, universe);
    let value = decoder.value(ty, &Frame::ROOT).map_err(|e| e.0)?;
    decoder.scan.finish().map_err(|e| e.0)?;
    match decoder.failure() {
        Some(message) => Err(message),
        None => Ok((value, decoder.strict.into_messages())),
    }
}

impl<'a, 'u> Decoder<'a, 'u> {
    pub(super) fn new(text: &'a [u8], universe: &'u Universe) -> Decoder<'a, 'u> {
        Decoder {
            scan: Scanner::new(text),
            universe,
            strict: StrictErrors::default(),
            depth: 0,
            fold: false,
            fatal: None,
            mistyped: None,
            meta_error: None,
        }
    }

    /// The error that Go would return of those met.
    pub(crate) fn failure(&mut self) -> Option<String> {
        self.fatal.take().or_else(|| self.mistyped.take())
    }

    fn root(&mut self, ty: TypeId) -> Result<Value, SyntaxError> {
        let first = self.scan.peek_value()?;
        if first != b'{' {
            self.scan.skip(0)?;
            let what = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
                        \"json:\\\"kind,omitempty\\\"\" }";
            if first != b'n' {
                let value = json_kind(first);
                self.meta_error =
                    Some(format!("json: cannot unmarshal {value} into Go value of type {what}"));
            }
            self.scan.finish()?;
            return Ok(Value::Null);
        }
        let value = if self.universe.is_unstructured() {
            self.any(&Frame::ROOT)?
        } else {
            self.value(ty, &Frame::ROOT)?
        };
        self.scan.finish()?;
        Ok(value)
    }

    /// Steps into a container; false if the tree would become too deep, the container then being skipped.
    pub(super) fn enter(&mut self) -> Result<bool, SyntaxError> {
        if self.depth >= TREE_DEPTH_MAX {
            self.scan.skip(self.depth)?;
            self.fail("exceeded max depth".into());
            return Ok(false);
        }
        self.depth += 1;
        self.scan.bump();
        Ok(true)
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Steps over a value nobody wants.
    pub(super) fn skip(&mut self) -> Result<&'a [u8], SyntaxError> {
        self.scan.skip(self.depth)
    }

    /// Keeps the first error of a hand-written form.
    pub(super) fn fail(&mut self, message: String) {
        self.fatal.get_or_insert(message);
    }

    /// As [`Decoder::type_error`], but from a hand-written form, which ends Go's decoding at once.
    pub(super) fn fatal_type_error(&mut self, frame: &Frame, value: &str, go_type: &str) {
        let message = type_error_message(frame, value, go_type);
        self.fail(message);
    }

    /// Keeps the first value of the wrong type.
    pub(super) fn type_error(&mut self, frame: &Frame, value: &str, go_type: &str) {
        if let Frame { step: Step::Field(field, _), parent: Some(parent) } = frame
            && matches!(parent.step, Step::Root)
            && matches!(field.json.as_ref(), "apiVersion" | "kind")
        {
            let name = &field.json;
            let message =
                format!("json: cannot unmarshal {value} into Go struct field .{name} of type {go_type}");
            self.meta_error.get_or_insert(message);
            return;
        }
        if self.mistyped.is_none() {
            self.mistyped = Some(type_error_message(frame, value, go_type));
        }
    }

    fn wrong_kind(&mut self, first: u8, ty: &Type, frame: &Frame) -> Result<Value, SyntaxError> {
        self.skip()?;
        match frame.go_type() {
            Some(go_type) => self.type_error(frame, json_kind(first), go_type),
            None => self.type_error(frame, json_kind(first), &go_type_name(self.universe, ty)),
        }
        Ok(Value::Null)
    }

    /// The next value as `ty`; null where Go would hold nil, and after an error.
    pub(super) fn value(&mut self, ty: TypeId, frame: &Frame) -> Result<Value, SyntaxError> {
        let universe = self.universe;
        let ty = universe.get(ty);
        if let Type::Special(special) = ty {
            return self.special(*special, frame);
        }
        let first = self.scan.peek_value()?;
        match (ty, first) {
            (Type::Any, _) => self.any(frame),
            (_, b'n') => self.scan.word("null").map(|()| Value::Null),
            (Type::Struct(ty), b'{') => self.structure(ty, frame),
            (Type::Map(map), b'{') => self.map(map.value, frame),
            (Type::List(list), b'[') => self.list(list, frame),
            (Type::Scalar(scalar), _) => self.scalar(*scalar, first, ty, frame),
            _ => self.wrong_kind(first, ty, frame),
        }
    }

    fn scalar(&mut self, scalar: Scalar, first: u8, ty: &Type, frame: &Frame) -> Result<Value, SyntaxError> {
        match (scalar, first) {
            (Scalar::String, b'"') => Ok(Value::String(CompactString::from(self.scan.string()?))),
            (Scalar::Bool, b't') => self.scan.word("true").map(|()| Value::Bool(true)),
            (Scalar::Bool, b'f') => self.scan.word("false").map(|()| Value::Bool(false)),
            (Scalar::Bytes, b'"') => {
                let text = self.scan.string()?;
                Ok(self.bytes(&text))
            }
            (Scalar::String | Scalar::Bool | Scalar::Bytes, _) => self.wrong_kind(first, ty, frame),
            (_, b'-' | b'0'..=b'9') => {
                let text = self.scan.number()?;
                Ok(self.number(scalar, text, frame))
            }
            _ => self.wrong_kind(first, ty, frame),
        }
    }

    fn bytes(&mut self, text: &str) -> Value {
        match base64::decode(text) {
            Ok(bytes) => Value::Bytes(Bytes::from(bytes)),
            Err(message) => {
                self.mistyped.get_or_insert(message);
                Value::Null
            }
        }
    }

    fn number(&mut self, scalar: Scalar, text: &str, frame: &Frame) -> Value {
        let integer: Option<i64> = text.parse().ok();
        let fits = match scalar {
            Scalar::Int32 => integer.filter(|i| i32::try_from(*i).is_ok()),
            Scalar::Int64 => integer,
            Scalar::Uint32 => integer.filter(|i| u32::try_from(*i).is_ok()),
            Scalar::Uint64 => integer.filter(|i| *i >= 0),
            Scalar::Number if !text.contains('.') && integer.is_some() => integer,
            _ => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => return Value::Float(number),
                _ => None,
            },
        };
        match fits {
            Some(integer) => Value::Int(integer),
            None => {
                self.type_error(
                    frame,
                    &format!("number {text}"),
                    frame.go_type().unwrap_or(scalar_name(scalar)),
                );
                Value::Null
            }
        }
    }

    fn list(&mut self, list: &ListType, frame: &Frame) -> Result<Value, SyntaxError> {
        if !self.enter()? {
            return Ok(Value::Null);
        }
        let mut items = Vec::new();
        let mut next = self.scan.first_element();
        while next == Next::More {
            let item = self.value(list.elem, &frame.then(Step::Index(items.len())))?;
            items.push(if list.elem_pointer { item } else { or_zero(self.universe, item, list.elem) });
            next = self.scan.next_element()?;
        }
        self.leave();
        Ok(Value::List(items))
    }

    fn map(&mut self, value_ty: TypeId, frame: &Frame) -> Result<Value, SyntaxError> {
        if !self.enter()? {
            return Ok(Value::Null);
        }
        let mut entries: Vec<(CompactString, Value)> = Vec::new();
        let mut sorted = true;
        let mut key = self.scan.first_key()?;
        while let Some(name) = key {
            let value = self.value(value_ty, &frame.then(Step::Key(&name)))?;
            sorted = sorted && entries.last().is_none_or(|(last, _)| last.as_str() < name.as_ref());
            entries.push((CompactString::from(name), or_zero(self.universe, value, value_ty)));
            key = self.scan.next_key()?;
        }
        self.leave();
        if !sorted {
            report_duplicates(&entries, frame, &mut self.strict);
        }
        Ok(Value::Map(Map::from_entries(entries)))
    }

    /// An object of known fields, the cursor on its brace.
    pub(super) fn structure(&mut self, ty: &StructType, frame: &Frame) -> Result<Value, SyntaxError> {
        if !self.enter()? {
            return Ok(Value::Null);
        }
        let owner = simple_name(&ty.name);
        let mut seen = Seen::new(ty.fields.len());
        let mut expected = 0;
        let mut entries: Vec<(u16, Value)> = Vec::new();
        let mut key = self.scan.first_key()?;
        while let Some(name) = key {
            match self.find(ty, &name, expected) {
                None => {
                    self.strict.unknown(frame, &name);
                    self.skip()?;
                }
                Some(index) => {
                    expected = index + 1;
                    let field = &ty.fields[index];
                    let again = !seen.first(index);
                    if again {
                        self.strict.duplicate(frame, &field.json);
                    }
                    let value = self.value(field.ty, &frame.then(Step::Field(field, owner)))?;
                    if again {
                        overlay(self.universe, field, index as u16, value, &mut entries);
                    } else if !is_zero_field(self.universe, field, &value) {
                        entries.push((index as u16, value));
                    }
                }
            }
            key = self.scan.next_key()?;
        }
        self.leave();
        Ok(Value::Map(by_name(ty, entries)))
    }

    /// The field of this name, looked for first where members in struct order would have it.
    fn find(&self, ty: &StructType, name: &str, expected: usize) -> Option<usize> {
        const AHEAD: usize = 6;
        let ahead = ty.fields.iter().enumerate().skip(expected).take(AHEAD);
        for (index, field) in ahead {
            if field.json.as_ref() == name {
                return Some(index);
            }
        }
        ty.field_index(name).or_else(|| {
            let folded = self.fold.then(|| ty.fields.iter().position(|f| f.json.eq_ignore_ascii_case(name)));
            folded.flatten()
        })
    }
}

/// Which fields of a struct have been met.
struct Seen {
    small: u64,
    large: Vec<bool>,
}

impl Seen {
    fn new(fields: usize) -> Seen {
        Seen { small: 0, large: vec![false; if fields > 64 { fields } else { 0 }] }
    }

    /// Marks a field; true the first time.
    fn first(&mut self, index: usize) -> bool {
        if self.large.is_empty() {
            let bit = 1u64 << index;
            let first = self.small & bit == 0;
            self.small |= bit;
            return first;
        }
        !std::mem::replace(&mut self.large[index], true)
    }
}

/// Fields by index as a map by name. The type knows the order of names, so that nothing has to be compared.
pub(crate) fn by_name(ty: &StructType, mut entries: Vec<(u16, Value)>) -> Map {
    const SLOTS: usize = 64;
    let named = |(index, value): (u16, Value)| (field_key(&ty.fields[usize::from(index)].json), value);
    if ty.fields.len() > SLOTS || entries.len() < 2 {
        return Map::from_entries(entries.into_iter().map(named).collect());
    }
    // Where each field's entry is, counted from one.
    let mut places = [0u8; SLOTS];
    for (place, (index, _)) in entries.iter().enumerate() {
        places[usize::from(*index)] = place as u8 + 1;
    }
    let mut sorted = Vec::with_capacity(entries.len());
    for &index in &*ty.by_json {
        if let Some(place) = usize::from(places[usize::from(index)]).checked_sub(1) {
            sorted.push(named((index, std::mem::take(&mut entries[place].1))));
        }
    }
    Map::from_entries(sorted)
}

/// A field's name as a key, without a copy for the built-in types.
pub(crate) fn field_key(name: &Name) -> CompactString {
    match name {
        Cow::Borrowed(name) => CompactString::const_new(name),
        Cow::Owned(name) => CompactString::new(name),
    }
}

/// True for what Go could not tell from a field that is not there.
pub(crate) fn is_zero_field(universe: &Universe, field: &Field, value: &Value) -> bool {
    match value {
        Value::Null => !universe.is_unstructured(),
        _ => !field.pointer && !universe.is_unstructured() && is_zero(universe, field.ty, value),
    }
}

/// True for Go's zero value of a built-in type.
pub(crate) fn is_zero(universe: &Universe, ty: TypeId, value: &Value) -> bool {
    match value {
        Value::Bool(b) => !b,
        Value::Int(i) => *i == 0,
        Value::Float(f) => *f == 0.0,
        Value::String(s) if s == "0" || s == "0s" => {
            matches!(
                universe.get(ty),
                Type::Special(copepod_schema::Special::Quantity | copepod_schema::Special::Duration)
            )
        }
        Value::String(s) => s.is_empty() && matches!(universe.get(ty), Type::Scalar(_)),
        Value::Map(map) => map.is_empty() && matches!(universe.get(ty), Type::Struct(_)),
        Value::Null | Value::List(_) | Value::Bytes(_) | Value::Raw(_) => false,
    }
}

/// What stands for null among elements and map values that Go holds by value.
pub(crate) fn or_zero(universe: &Universe, value: Value, ty: TypeId) -> Value {
    if !value.is_null() || universe.is_unstructured() {
        return value;
    }
    use copepod_schema::Special;
    match universe.get(ty) {
        Type::Struct(_) => Value::map(),
        Type::Scalar(Scalar::Bool) => Value::Bool(false),
        Type::Scalar(Scalar::String) => Value::string(""),
        Type::Scalar(Scalar::Float64) => Value::Float(0.0),
        Type::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Uint32 | Scalar::Uint64) => Value::Int(0),
        Type::Special(Special::Quantity) => Value::string("0"),
        Type::Special(Special::Duration) => Value::string("0s"),
        Type::Special(Special::IntOrString) => Value::Int(0),
        _ => Value::Null,
    }
}

/// A field met again: Go decodes into what is there already.
fn overlay(universe: &Universe, field: &Field, index: u16, value: Value, entries: &mut Vec<(u16, Value)>) {
    let at = entries.iter().position(|(seen, _)| *seen == index);
    match (at, value) {
        (Some(at), Value::Null) => {
            // Null leaves what Go holds by value alone.
            if field.pointer || matches!(universe.get(field.ty), Type::List(_) | Type::Map(_)) {
                entries.remove(at);
            }
        }
        (Some(at), value) => merge_into(universe, field.ty, &mut entries[at].1, value),
        (None, value) if !is_zero_field(universe, field, &value) => entries.push((index, value)),
        (None, _) => {}
    }
}

fn merge_into(universe: &Universe, ty: TypeId, old: &mut Value, new: Value) {
    match (universe.get(ty), old, new) {
        (Type::Struct(ty), Value::Map(old), Value::Map(new)) => {
            for (name, value) in new {
                match (ty.field(&name), old.get_mut(&name)) {
                    (Some(field), Some(place)) => merge_into(universe, field.ty, place, value),
                    _ => {
                        old.insert(name, value);
                    }
                }
            }
        }
        (Type::Map(_), Value::Map(old), Value::Map(new)) => {
            for (name, value) in new {
                old.insert(name, value);
            }
        }
        (_, old, new) => *old = new,
    }
}

fn type_error_message(frame: &Frame, value: &str, go_type: &str) -> String {
    match frame.go_context() {
        Some(context) => {
            format!("json: cannot unmarshal {value} into Go struct field {context} of type {go_type}")
        }
        None => format!("json: cannot unmarshal {value} into Go value of type {go_type}"),
    }
}

fn simple_name(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
