//! A few fields out of stored bytes or bodies, without a tree: what keys, selectors and indices of the cache
//! need.

use copepod_meta::{CompactString, Map, Value};
use copepod_schema::{ProtoEntry, ProtoMember, Type, TypeId, Universe};

use crate::error::CorruptError;
use crate::frame::{Body, Form};
use crate::json::SyntaxError;
use crate::json::scan::{Scanner, lossy};
use crate::proto::envelope::{self, PREFIX};
use crate::proto::read::{BYTES, Cursor, ProtoError, Tag};

/// Bytes to look into.
#[derive(Clone, Copy, Debug)]
pub enum Encoded<'a> {
    /// The text of an object, or the members of a body of form [`Form::Members`].
    Json(&'a [u8]),
    /// A message without envelope.
    Message(&'a [u8]),
}

impl<'a> Encoded<'a> {
    /// A value as it stands in the store.
    pub fn stored(bytes: &'a [u8]) -> Result<Encoded<'a>, CorruptError> {
        match bytes.strip_prefix(PREFIX) {
            Some(unknown) => Ok(Encoded::Message(envelope::open_unknown(unknown)?.message)),
            None if bytes.first() == Some(&b'{') => Ok(Encoded::Json(bytes)),
            None => Err(CorruptError::Unrecognised),
        }
    }

    /// A body of the cache.
    pub fn body(body: &'a Body) -> Encoded<'a> {
        match body.form {
            Form::Members | Form::Whole => Encoded::Json(&body.bytes),
            Form::Protobuf => Encoded::Message(&body.bytes),
        }
    }
}

/// What identifies an object and decides its fate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    /// `metadata.name`
    pub name: CompactString,
    /// `metadata.namespace`, "" for cluster-scoped objects
    pub namespace: CompactString,
    /// `metadata.uid`
    pub uid: CompactString,
    /// `metadata.resourceVersion`, "" in stored bytes
    pub resource_version: CompactString,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `metadata.labels`, texts
    pub labels: Map,
    /// `metadata.finalizers`
    pub finalizers: Vec<CompactString>,
}

/// Reads [`Meta`].
pub fn meta(encoded: Encoded) -> Result<Meta, CorruptError> {
    match encoded {
        Encoded::Json(text) => Ok(json_meta(text)?),
        Encoded::Message(message) => Ok(message_meta(message)?),
    }
}

/// Field numbers are ObjectMeta's wire contract.
fn message_meta(message: &[u8]) -> Result<Meta, ProtoError> {
    let mut meta = Meta::default();
    let mut labels = Vec::new();
    let text = |bytes| CompactString::from(lossy(bytes));
    let mut cursor = Cursor::new(Cursor::new(message).find(1)?.unwrap_or_default());
    while let Some(tag) = cursor.tag()? {
        match (tag.number, tag.wire) {
            (1, BYTES) => meta.name = text(cursor.bytes()?),
            (3, BYTES) => meta.namespace = text(cursor.bytes()?),
            (5, BYTES) => meta.uid = text(cursor.bytes()?),
            (6, BYTES) => meta.resource_version = text(cursor.bytes()?),
            (9, BYTES) => meta.deleting = !cursor.bytes()?.is_empty(),
            (11, BYTES) => {
                let entry = cursor.bytes()?;
                let part = |number| Cursor::new(entry).find(number);
                let (key, value) = (part(1)?.unwrap_or_default(), part(2)?.unwrap_or_default());
                labels.push((text(key), Value::String(text(value))));
            }
            (14, BYTES) => meta.finalizers.push(text(cursor.bytes()?)),
            (_, wire) => cursor.skip(wire)?,
        }
    }
    meta.labels = Map::from_entries(labels);
    Ok(meta)
}

fn json_meta(text: &[u8]) -> Result<Meta, SyntaxError> {
    let mut meta = Meta::default();
    let Some(metadata) = json_member(text, "metadata")? else { return Ok(meta) };
    let text = |value: &[u8]| match tree(value) {
        Value::String(text) => text,
        _ => CompactString::default(),
    };
    each_member(metadata, |name, value| {
        match name {
            "name" => meta.name = text(value),
            "namespace" => meta.namespace = text(value),
            "uid" => meta.uid = text(value),
            "resourceVersion" => meta.resource_version = text(value),
            "deletionTimestamp" => meta.deleting = value != b"null",
            "labels" => {
                if let Value::Map(labels) = tree(value) {
                    meta.labels = labels;
                }
            }
            "finalizers" => {
                let list = tree(value);
                let texts = list.as_list().unwrap_or_default().iter().filter_map(Value::as_str);
                meta.finalizers = texts.map(CompactString::new).collect();
            }
            _ => {}
        }
        true
    })?;
    Ok(meta)
}

/// A checked part of a text as a tree.
fn tree(text: &[u8]) -> Value {
    crate::json::decode_any(text).map(|(value, _)| value).unwrap_or_default()
}

/// Calls `visit` with each member's name and value until it says to stop. The text may lack its opening
/// brace.
fn each_member<'a>(text: &'a [u8], mut visit: impl FnMut(&str, &'a [u8]) -> bool) -> Result<(), SyntaxError> {
    let mut scan = Scanner::new(text);
    if scan.peek_value()? == b'{' {
        scan.bump();
    }
    let mut key = scan.first_key()?;
    while let Some(name) = key {
        let value = scan.skip(1)?;
        if !visit(&name, value) {
            return Ok(());
        }
        key = scan.next_key()?;
    }
    Ok(())
}

fn json_member<'a>(text: &'a [u8], wanted: &str) -> Result<Option<&'a [u8]>, SyntaxError> {
    let mut found = None;
    each_member(text, |name, value| {
        if name == wanted {
            found = Some(value);
        }
        found.is_none()
    })?;
    Ok(found)
}

/// `apiVersion` and `kind` of a JSON text, which is read to its end.
pub(crate) fn json_type_meta(text: &[u8]) -> Result<(String, String), SyntaxError> {
    let mut scan = Scanner::new(text);
    scan.skip(0)?;
    scan.finish()?;
    if !text.trim_ascii_start().starts_with(b"{") {
        return Ok(Default::default());
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    each_member(text, |name, value| {
        match name {
            "apiVersion" => api_version = tree(value).as_str().unwrap_or_default().into(),
            "kind" => kind = tree(value).as_str().unwrap_or_default().into(),
            _ => {}
        }
        true
    })?;
    Ok((api_version, kind))
}

/// Field paths of one type, resolved once, to be read out of many objects.
#[derive(Clone, Debug)]
pub struct Plan {
    paths: Box<[Path]>,
}

#[derive(Clone, Debug)]
struct Path {
    json: Box<[String]>,
    /// Field numbers down to the leaf, JSON-inlined messages included; empty if the path has no protobuf
    /// form.
    proto: Box<[u32]>,
    /// The leaf: a struct and the index of its field.
    leaf: Option<(TypeId, usize)>,
}

impl Plan {
    /// Resolves dotted paths (`spec.nodeName`) of a type. Paths lead through objects, not through lists. A
    /// path that the type does not have reads as null.
    pub fn new<'p>(universe: &Universe, ty: TypeId, paths: impl IntoIterator<Item = &'p str>) -> Plan {
        Plan { paths: paths.into_iter().map(|path| resolve(universe, ty, path)).collect() }
    }

    /// The values of the plan's paths, in its order; null where the object has none.
    pub fn read(&self, encoded: Encoded, universe: &Universe) -> Result<Vec<Value>, CorruptError> {
        self.paths
            .iter()
            .map(|path| match encoded {
                Encoded::Json(text) => Ok(read_json(text, path)?),
                Encoded::Message(message) => Ok(read_message(message, path, universe)?),
            })
            .collect()
    }
}

fn resolve(universe: &Universe, ty: TypeId, path: &str) -> Path {
    let json: Box<[String]> = path.split('.').map(String::from).collect();
    let (mut at, mut proto, mut leaf) = (ty, Vec::new(), None);
    for (depth, name) in json.iter().enumerate() {
        let resolved = match universe.get(at) {
            Type::Struct(ty) => ty.field_index(name).map(|index| (ty, index)),
            _ => None,
        };
        let Some((owner, index)) = resolved else {
            (proto, leaf) = (Vec::new(), None);
            break;
        };
        if depth + 1 == json.len() {
            leaf = Some((at, index));
        }
        if !numbers_to(&owner.proto, index, &mut proto) {
            (proto, leaf) = (Vec::new(), None);
            break;
        }
        at = owner.fields[index].ty;
    }
    Path { json, proto: proto.into(), leaf }
}

/// Appends the field numbers that lead to a struct's field.
fn numbers_to(entries: &[ProtoEntry], index: usize, numbers: &mut Vec<u32>) -> bool {
    for entry in entries {
        numbers.push(entry.number);
        let found = match &entry.member {
            ProtoMember::Field(at) => usize::from(*at) == index,
            ProtoMember::Inline { entries, .. } => numbers_to(entries, index, numbers),
        };
        if found {
            return true;
        }
        numbers.pop();
    }
    false
}

fn read_json(text: &[u8], path: &Path) -> Result<Value, SyntaxError> {
    let mut at = text;
    for (depth, name) in path.json.iter().enumerate() {
        if depth > 0 && at.first() != Some(&b'{') {
            return Ok(Value::Null);
        }
        match json_member(at, name)? {
            Some(value) => at = value,
            None => return Ok(Value::Null),
        }
    }
    Ok(tree(at))
}

fn read_message(message: &[u8], path: &Path, universe: &Universe) -> Result<Value, ProtoError> {
    let (Some((owner, index)), Some((last, parents))) = (path.leaf, path.proto.split_last()) else {
        return Ok(Value::Null);
    };
    let mut at = message;
    for number in parents {
        match Cursor::new(at).find(*number)? {
            Some(inner) => at = inner,
            None => return Ok(Value::Null),
        }
    }
    let mut occurrences: Vec<(Tag, Cursor)> = Vec::new();
    let mut cursor = Cursor::new(at);
    while let Some(tag) = cursor.tag()? {
        if tag.number == *last {
            occurrences.push((tag, cursor.clone()));
        }
        cursor.skip(tag.wire)?;
    }
    match universe.get_struct(owner) {
        Some(owner) => crate::proto::field_value(universe, &owner.fields[index], &occurrences),
        None => Ok(Value::Null),
    }
}
