//! Bytes <-> tree under a schema: JSON, YAML and protobuf, byte for byte as upstream reads and writes them.
//!
//! Owns: the wire forms, strict decoding, the bodies that the watch cache shares, list and watch framing.
//! Does not: default, convert, prune, merge or validate; it knows no kind by name.
//!
//! # What callers need
//!
//! | task | call |
//! |---|---|
//! | a request body, a stored value | [`decode`]; on `Err`, [`DecodeFailure::status`] is upstream's 400 |
//! | `fieldValidation` | [`Decoded::strict_errors`]: warnings as they are, or [`Decoded::strict_status`] |
//! | a patch document, any JSON or YAML | [`decode_untyped`], [`yaml_to_json`] |
//! | the plain JSON tree of an object, for patches, and back | [`to_untyped`], [`from_untyped`] |
//! | an answer | [`encode`], [`pretty`], [`json_to_yaml`] |
//! | what goes into the store | [`encode_stored`] |
//! | JSON out of a message that is stored | [`transcode`] |
//! | what the cache keeps and many readers share | [`encode_body`], [`stored_body`], [`frame`] |
//! | names, labels, selectable fields without a tree | [`peek`] |
//!
//! # The tree
//!
//! * The root holds no `apiVersion` and no `kind`: they are [`Decoded::gvk`], and encoders take them as an
//!   argument.
//! * Built-in types: what Go holds as nil or as a zero value by value is absent. `replicas: 0` behind a
//!   pointer is there, `""` in a plain string field is not; an empty list or map from JSON is there, from
//!   protobuf it cannot be. Times, quantities and durations are canonical text, `[]byte` is [`Value::Bytes`],
//!   verbatim JSON is [`Value::Raw`].
//! * Unstructured universes (custom resources): everything that was sent, nulls included, but `metadata` is
//!   as of a built-in type.
//! * Trees are at most [`TREE_DEPTH_MAX`] deep.
//!
//! # How it fails
//!
//! Hostile bytes give a [`DecodeFailure`], never a panic, never work or memory out of proportion. Bytes from
//! the store that are not as expected give a [`CorruptError`].

// A test fails by panicking.
#![cfg_attr(test, allow(clippy::panic))]
mod error;
pub mod frame;
mod json;
pub mod peek;
mod proto;
mod splice;
mod strict;
mod time;
mod transcode;
mod yaml;

use copepod_meta::{Bytes, GroupVersion, Gvk, Status, Value};
use copepod_schema::{Type, TypeId, Universe};

pub use error::{CorruptError, DecodeError, EncodeError};
pub use frame::{Body, Form};
pub use json::{SyntaxError, TREE_DEPTH_MAX};
pub use proto::{Malformed, ProtoError};
pub use splice::{stored_body, stored_message_len};
pub use yaml::{json_to_yaml, yaml_to_json};

/// A wire form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Media {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

impl From<copepod_schema::Media> for Media {
    fn from(media: copepod_schema::Media) -> Media {
        match media {
            copepod_schema::Media::Json => Media::Json,
            copepod_schema::Media::Protobuf => Media::Protobuf,
        }
    }
}

/// An object out of bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object, without type meta.
    pub value: Value,
    /// What the bytes say the object is, gaps filled from the default.
    pub gvk: Gvk,
    /// Unknown and duplicate fields: `unknown field "spec.foo"`.
    pub strict_errors: Vec<String>,
}

/// Bytes that are no object of the type, and what they said they were, if that could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct DecodeFailure {
    /// What the bytes say the object is.
    pub gvk: Option<Gvk>,
    /// What is wrong.
    #[source]
    pub error: DecodeError,
}

/// The type meta of bytes, nothing else being looked at.
pub fn type_meta(bytes: &[u8], media: Media) -> Result<Gvk, DecodeError> {
    match media {
        Media::Protobuf => {
            let envelope = proto::envelope::open(bytes)?;
            parse_gvk(&envelope.api_version, &envelope.kind)
        }
        Media::Json => {
            let (api_version, kind) =
                peek::json_type_meta(bytes).map_err(|e| DecodeError::TypeMeta(e.to_string()))?;
            parse_gvk(&api_version, &kind)
        }
        Media::Yaml => {
            let (json, _) = yaml_to_json(bytes)?;
            type_meta(&json, Media::Json)
        }
    }
}

fn parse_gvk(api_version: &str, kind: &str) -> Result<Gvk, DecodeError> {
    let group_version =
        GroupVersion::parse(api_version).ok_or_else(|| DecodeError::GroupVersion(api_version.into()))?;
    Ok(group_version.kind(kind))
}

/// Decodes an object of type `ty`. Where the bytes leave out kind or version they are taken from `default`.
///
/// The type is the caller's choice: whether [`Decoded::gvk`] fits it is the caller's to check (and, on
/// failure, whether [`DecodeFailure::gvk`] does, because another kind's bytes fail for that reason).
///
/// upstream: apimachinery/pkg/runtime/serializer/{json/json.go,protobuf/protobuf.go} Decode
pub fn decode(
    bytes: &[u8],
    media: Media,
    universe: &Universe,
    ty: TypeId,
    default: Option<&Gvk>,
) -> Result<Decoded, DecodeFailure> {
    match media {
        Media::Json => decode_json(bytes, bytes, universe, ty, default),
        Media::Yaml => {
            let (json, duplicates) =
                yaml_to_json(bytes).map_err(|error| DecodeFailure { gvk: None, error })?;
            let mut decoded = decode_json(&json, bytes, universe, ty, default)?;
            decoded.strict_errors.splice(0..0, duplicates);
            Ok(decoded)
        }
        Media::Protobuf => decode_protobuf(bytes, universe, ty, default),
    }
}

fn decode_json(
    bytes: &[u8],
    original: &[u8],
    universe: &Universe,
    ty: TypeId,
    default: Option<&Gvk>,
) -> Result<Decoded, DecodeFailure> {
    let without_gvk = |error| DecodeFailure { gvk: None, error };
    let root = json::decode_root(bytes, universe, ty)
        .map_err(|json::RootError::TypeMeta(message)| without_gvk(DecodeError::TypeMeta(message)))?;
    let actual = parse_gvk(&root.api_version, &root.kind).map_err(without_gvk)?;
    let gvk = with_defaults(actual, default);
    let fail = |error| DecodeFailure { gvk: Some(gvk.clone()), error };
    if gvk.kind.is_empty() {
        return Err(fail(DecodeError::MissingKind(String::from_utf8_lossy(original).into_owned())));
    }
    if gvk.version.is_empty() {
        return Err(fail(DecodeError::MissingVersion(String::from_utf8_lossy(original).into_owned())));
    }
    if let Some(message) = root.failure {
        return Err(fail(DecodeError::Json(message)));
    }
    let (mut value, mut strict_errors) = (root.value, root.strict_errors);
    if universe.is_unstructured() {
        let unknown = coerce_metadata(&mut value).map_err(|m| fail(DecodeError::Json(m)))?;
        strict_errors.extend(unknown);
    }
    Ok(Decoded { value, gvk, strict_errors })
}

/// upstream: runtime/serializer/json/json.go gvkWithDefaults
fn with_defaults(mut actual: Gvk, default: Option<&Gvk>) -> Gvk {
    let Some(default) = default else { return actual };
    if actual.kind.is_empty() {
        actual.kind.clone_from(&default.kind);
    }
    if actual.version.is_empty() && actual.group.is_empty() {
        actual.group.clone_from(&default.group);
        actual.version.clone_from(&default.version);
    }
    if actual.version.is_empty() && actual.group == default.group {
        actual.version.clone_from(&default.version);
    }
    actual
}

/// Gives the `metadata` of a custom resource its built-in type; the unknown fields in it.
/// upstream: apiextensions-apiserver/pkg/apiserver/schema/objectmeta GetObjectMetaWithOptions
fn coerce_metadata(value: &mut Value) -> Result<Vec<String>, String> {
    let builtin = Universe::builtin();
    let Some(ty) = builtin.by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") else {
        return Ok(Vec::new());
    };
    let Some(metadata) = value.as_map_mut().and_then(|m| m.get_mut("metadata")) else {
        return Ok(Vec::new());
    };
    let mut writer = json::Writer::new(builtin, 1024);
    writer.any(metadata);
    let (typed, unknown) = json::decode_value(&writer.out, builtin, ty)?;
    *metadata = if typed.is_null() { Value::map() } else { typed };
    Ok(unknown.into_iter().map(|message| message.replacen('"', "\"metadata.", 1)).collect())
}

fn decode_protobuf(
    bytes: &[u8],
    universe: &Universe,
    ty: TypeId,
    default: Option<&Gvk>,
) -> Result<Decoded, DecodeFailure> {
    let without_gvk = |error| DecodeFailure { gvk: None, error };
    let envelope = proto::envelope::open(bytes).map_err(without_gvk)?;
    let mut gvk = parse_gvk(&envelope.api_version, &envelope.kind).map_err(without_gvk)?;
    if let Some(default) = default {
        if gvk.kind.is_empty() {
            gvk.kind.clone_from(&default.kind);
        }
        if gvk.version.is_empty() {
            gvk.group.clone_from(&default.group);
            gvk.version.clone_from(&default.version);
        }
    }
    let fail = |error| DecodeFailure { gvk: Some(gvk.clone()), error };
    let meta = || format!("{{APIVersion:{:?}, Kind:{:?}}}", envelope.api_version, envelope.kind);
    if gvk.kind.is_empty() {
        return Err(fail(DecodeError::MissingKind(meta())));
    }
    if gvk.version.is_empty() {
        return Err(fail(DecodeError::MissingVersion(meta())));
    }
    let value = decode_message(envelope.message, universe, ty).map_err(|e| fail(e.into()))?;
    Ok(Decoded { value, gvk, strict_errors: Vec::new() })
}

/// Decodes a protobuf message without its envelope (a [`Body`] of the cache).
pub fn decode_message(message: &[u8], universe: &Universe, ty: TypeId) -> Result<Value, ProtoError> {
    match universe.get(ty) {
        Type::Struct(ty) => proto::Decoder::new(universe).structure(message, ty),
        _ => Err(Malformed::Value("type has no protobuf form".into()).into()),
    }
}

impl DecodeFailure {
    /// The answer to a request whose body (`bytes`) was expected to be an `expected_kind`.
    /// upstream: apiserver/pkg/endpoints/handlers/rest.go transformDecodeError
    pub fn status(&self, expected_kind: &str, bytes: &[u8]) -> Status {
        match &self.gvk {
            Some(gvk) if !gvk.kind.is_empty() => {
                Status::bad_request(cannot_be_handled(gvk, expected_kind, &self.error.to_string()))
            }
            _ => Status::bad_request(format!(
                "the object provided is unrecognized (must be of type {expected_kind}): {} ({})",
                self.error,
                summary(bytes)
            )),
        }
    }
}

impl Decoded {
    /// The answer to a request that asked for strict field validation, if something is to be complained
    /// about.
    pub fn strict_status(&self, expected_kind: &str) -> Option<Status> {
        if self.strict_errors.is_empty() {
            return None;
        }
        let message = format!("strict decoding error: {}", self.strict_errors.join(", "));
        Some(Status::bad_request(cannot_be_handled(&self.gvk, expected_kind, &message)))
    }
}

fn cannot_be_handled(gvk: &Gvk, expected_kind: &str, why: &str) -> String {
    format!("{} in version {:?} cannot be handled as a {expected_kind}: {why}", gvk.kind, gvk.version)
}

/// upstream: apiserver/pkg/endpoints/handlers/rest.go summarizeData
fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    if bytes.is_empty() {
        return "<empty>".into();
    }
    let shown = &bytes[..bytes.len().min(SHOWN)];
    let mut text = if bytes[0] == b'{' {
        String::from_utf8_lossy(shown).into_owned()
    } else {
        shown.iter().map(|b| format!("{b:02x}")).collect()
    };
    if bytes.len() > SHOWN {
        text.push_str(" ...");
    }
    text
}

/// JSON as a tree without a type: nulls stay, an integer is an integer, of equal names the last one stays.
/// Also the duplicates met, as strict errors. The error is Go's.
pub fn decode_untyped(json: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    json::decode_any(json).map_err(DecodeError::Json)
}

/// The tree that the object's JSON is, with type meta: what JSON patches, merge patches and strategic merge
/// patches work on.
pub fn to_untyped(value: &Value, universe: &Universe, ty: TypeId, gvk: Option<&Gvk>) -> Value {
    json::plain_root(universe, value, ty, gvk)
}

/// Two objects of a built-in type as [`to_untyped`] makes them, without type meta and without members of structs that are the
/// same in both, if `same` lets those be left out (asked with the value and its type).
pub fn to_untyped_changes(
    objects: (&Value, &Value),
    universe: &Universe,
    ty: TypeId,
    same: &dyn Fn(&Value, TypeId) -> bool,
) -> (Value, Value) {
    match universe.get(ty) {
        Type::Struct(ty) if !universe.is_unstructured() => json::plain_changes(universe, objects, ty, same),
        _ => (to_untyped(objects.0, universe, ty, None), to_untyped(objects.1, universe, ty, None)),
    }
}

/// The object that a plain JSON tree (with type meta) is.
pub fn from_untyped(
    value: &Value,
    universe: &Universe,
    ty: TypeId,
    default: Option<&Gvk>,
) -> Result<Decoded, DecodeFailure> {
    let text = encode_untyped(value);
    decode(&text, Media::Json, universe, ty, default)
}

/// [`from_untyped`] as upstream puts a plain tree into a Go object without going through JSON: what a strategic merge
/// patch ends with. Strict errors are sorted.
pub fn from_unstructured(
    mut value: Value,
    universe: &Universe,
    ty: TypeId,
    default: Option<&Gvk>,
) -> Result<Decoded, DecodeFailure> {
    json::convert(universe, &mut value, ty, None)
        .map_err(|why| DecodeFailure { gvk: default.cloned(), error: DecodeError::Json(why) })?;
    let mut decoded = from_untyped(&value, universe, ty, default)?;
    decoded.strict_errors.sort();
    Ok(decoded)
}

/// A plain tree as compact JSON, keys sorted.
pub fn encode_untyped(value: &Value) -> Vec<u8> {
    let mut writer = json::Writer::new(Universe::builtin(), 1024);
    writer.any(value);
    writer.out
}

/// An object as upstream writes it, without a trailing newline. `gvk` becomes its type meta (none for items
/// of typed lists).
pub fn encode(
    value: &Value,
    universe: &Universe,
    ty: TypeId,
    gvk: Option<&Gvk>,
    media: Media,
) -> Result<Bytes, EncodeError> {
    match media {
        Media::Json => Ok(encode_json(value, universe, ty, gvk).into()),
        Media::Yaml => Ok(json_to_yaml(&encode_json(value, universe, ty, gvk)).into()),
        Media::Protobuf => {
            let message = encode_message(value, universe, ty)?;
            let mut out = Vec::with_capacity(message.as_slice().len() + 64);
            proto::envelope::head_into(gvk.unwrap_or(&Gvk::default()), message.as_slice().len(), &mut out);
            out.extend_from_slice(message.as_slice());
            out.extend_from_slice(proto::envelope::TAIL);
            Ok(out.into())
        }
    }
}

fn encode_json(value: &Value, universe: &Universe, ty: TypeId, gvk: Option<&Gvk>) -> Vec<u8> {
    let mut writer = json::Writer::new(universe, 4096);
    writer.root(value, ty, gvk);
    writer.out
}

fn encode_message(
    value: &Value,
    universe: &Universe,
    ty: TypeId,
) -> Result<proto::write::BackWriter, EncodeError> {
    let mut out = proto::write::BackWriter::new(4096);
    match universe.get(ty) {
        Type::Struct(ty) if !ty.proto.is_empty() => {
            proto::encode_message(universe, value, ty, &mut out);
            Ok(out)
        }
        Type::Struct(ty) => Err(EncodeError::NotMarshalable(ty.name.to_string())),
        _ => Err(EncodeError::NotMarshalable("custom resource".into())),
    }
}

/// Compact JSON laid out for people, two spaces a level.
pub fn pretty(json: &[u8]) -> Vec<u8> {
    json::indent(json)
}

/// An object as it goes into the store: with type meta, without resourceVersion and selfLink; JSON ends in a
/// newline, as upstream's.
///
/// The two fields are taken out of `value` while it is written and put back.
pub fn encode_stored(
    value: &mut Value,
    universe: &Universe,
    ty: TypeId,
    gvk: &Gvk,
    media: copepod_schema::Media,
) -> Result<Bytes, EncodeError> {
    let version = value.remove(&["metadata", "resourceVersion"]);
    let link = value.remove(&["metadata", "selfLink"]);
    let encoded = match media {
        copepod_schema::Media::Protobuf => encode(value, universe, ty, Some(gvk), Media::Protobuf),
        copepod_schema::Media::Json => {
            let mut text = encode_json(value, universe, ty, Some(gvk));
            text.push(b'\n');
            Ok(text.into())
        }
    };
    for (name, taken) in [("resourceVersion", version), ("selfLink", link)] {
        if let Some(taken) = taken {
            value.set(&["metadata", name], taken);
        }
    }
    encoded
}

/// The shared part of all answers that show this object in this version and form; see [`frame`] for what goes
/// round it. `gvk` is needed by unstructured universes only, whose bodies hold their type meta.
pub fn encode_body(
    value: &Value,
    universe: &Universe,
    ty: TypeId,
    gvk: &Gvk,
    media: Media,
) -> Result<Body, EncodeError> {
    match media {
        Media::Protobuf => {
            let message = encode_message(value, universe, ty)?;
            Ok(Body { bytes: Bytes::copy_from_slice(message.as_slice()), form: Form::Protobuf })
        }
        // YAML is made from JSON at the edge.
        Media::Json | Media::Yaml if universe.is_unstructured() => {
            Ok(Body { bytes: fitting(encode_json(value, universe, ty, Some(gvk))), form: Form::Whole })
        }
        Media::Json | Media::Yaml => {
            let mut writer = json::Writer::new(universe, 4096);
            writer.root_members(value, ty, true);
            Ok(Body { bytes: fitting(writer.out), form: Form::Members })
        }
    }
}

/// The JSON of a message body of a built-in type, without a tree: a body of form [`Form::Members`], or with `gvk` in front a
/// whole object. `None`: the message is not as upstream writes them, or is broken, and has to be decoded.
pub fn transcode(message: &Body, universe: &Universe, ty: TypeId, gvk: Option<&Gvk>) -> Option<Bytes> {
    let ty =
        universe.get_struct(ty).filter(|_| message.form == Form::Protobuf && !universe.is_unstructured())?;
    transcode::object(universe, &message.bytes, ty, gvk).ok().map(fitting)
}

/// Bytes that are kept: what a buffer has beyond its content is given back.
fn fitting(text: Vec<u8>) -> Bytes {
    text.into_boxed_slice().into()
}

#[cfg(test)]
mod bench_tests;
#[cfg(test)]
mod corpus_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
