//! The registry's use of the codec: stored bytes, bodies, request bodies.

use bytes::Bytes;
use copepod_codec::{self as codec, Body, CorruptError, EncodeError, Media};
use copepod_meta::{CompactString, Gvk, ResourceVersion, Status, Value};
use copepod_schema::{Storage, TypeId, Universe};

use crate::api::{FieldValidation, Warnings};
use crate::types::Types;

/// Stored bytes that could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredError {
    #[error(transparent)]
    Corrupt(#[from] CorruptError),
    #[error("stored object cannot be decoded")]
    Decode(#[from] codec::DecodeFailure),
}

/// A stored value as a tree of the storage version, without type meta and resourceVersion.
///
/// The bytes say how they are encoded: an upstream server with other settings may have written them.
pub(crate) fn decode_stored(types: &Types, storage: &Storage, stored: &Bytes) -> Result<Value, StoredError> {
    let media = match stored.first() {
        Some(b'{') => Media::Json,
        _ => Media::Protobuf,
    };
    Ok(codec::decode(stored, media, types, storage.ty, None)?.value)
}

/// A tree of the storage version as it is stored.
pub(crate) fn encode_stored(
    types: &Types,
    storage: &Storage,
    tree: &mut Value,
) -> Result<Bytes, EncodeError> {
    let gvk = Gvk::new(&storage.group, &storage.version, &storage.kind);
    codec::encode_stored(tree, types, storage.ty, &gvk, storage.media)
}

/// The stored message with its revision put in.
pub(crate) fn splice(types: &Types, stored: &Bytes, revision: u64) -> Result<Body, CorruptError> {
    codec::stored_body(stored, ResourceVersion(revision), types.is_unstructured())
}

/// The length of that, where the stored value is a message.
pub(crate) fn spliced_len(stored: &Bytes, revision: u64) -> Result<Option<usize>, CorruptError> {
    codec::stored_message_len(stored, ResourceVersion(revision))
}

/// The labels of a stored value.
pub(crate) fn peek_labels(stored: &Bytes) -> Result<Box<[(CompactString, CompactString)]>, CorruptError> {
    let meta = codec::peek::meta(codec::peek::Encoded::stored(stored)?)?;
    Ok(texts(meta.labels.iter()))
}

/// The labels of a tree.
pub(crate) fn labels_of(tree: &Value) -> Box<[(CompactString, CompactString)]> {
    texts(tree.map_at(&["metadata", "labels"]).iter())
}

fn texts<'a>(entries: impl Iterator<Item = (&'a str, &'a Value)>) -> Box<[(CompactString, CompactString)]> {
    entries.map(|(k, v)| (k.into(), v.as_str().unwrap_or("").into())).collect()
}

/// Type of PartialObjectMetadata.
pub(crate) fn partial_type() -> TypeId {
    Universe::builtin()
        .by_gvk(&Gvk::new("meta.k8s.io", "v1", "PartialObjectMetadata"))
        .expect("the facts hold PartialObjectMetadata")
}

/// What a body has to be.
pub(crate) struct Expected<'a> {
    pub(crate) types: &'a Types,
    pub(crate) ty: TypeId,
    pub(crate) gvk: &'a Gvk,
    /// Group-versions that are taken beside that of `gvk`, with the type of the same kind there.
    pub(crate) also: &'a [(Gvk, TypeId)],
}

/// A request body as a tree of the version it says it is in. Complaints about fields are refused or become warnings.
///
/// upstream: apiserver/pkg/endpoints/handlers/create.go createHandler, rest.go transformDecodeError
pub(crate) fn decode_request(
    body: &crate::api::Body,
    expected: &Expected,
    directive: FieldValidation,
    warnings: &Warnings,
) -> Result<(Value, Gvk), Status> {
    let kind = expected.gvk.kind.as_str();
    let decode = |ty| codec::decode(&body.bytes, body.media, expected.types, ty, Some(expected.gvk));
    let mut decoded = decode(expected.ty);
    let said = match &decoded {
        Ok(decoded) => Some(decoded.gvk.clone()),
        Err(failure) => failure.gvk.clone(),
    };
    if let Some(said) = said.filter(|said| said != expected.gvk && !said.kind.is_empty()) {
        match expected.also.iter().find(|(gvk, _)| *gvk == said) {
            Some((_, ty)) => decoded = decode(*ty),
            None => return Err(not_expected(body, expected, &said)),
        }
    }
    let decoded = decoded.map_err(|failure| failure.status(kind, &body.bytes))?;
    match directive {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => decoded.strict_errors.iter().for_each(|e| warn(e, warnings)),
        FieldValidation::Strict => {
            if let Some(status) = decoded.strict_status(kind) {
                return Err(status);
            }
        }
    }
    Ok((decoded.value, decoded.gvk))
}

/// A complaint as warnings: YAML's come several in one text. upstream: endpoints/handlers/rest.go addStrictDecodingWarnings
pub(crate) fn warn(complaint: &str, warnings: &Warnings) {
    match complaint.strip_prefix("yaml: unmarshal errors:\n") {
        Some(lines) => lines.lines().for_each(|line| warnings.add(line.trim())),
        None => warnings.add(complaint),
    }
}

/// The body is of another kind or version. upstream: runtime.Scheme.New, convertor.Convert, AcceptsGroupVersion
fn not_expected(body: &crate::api::Body, expected: &Expected, said: &Gvk) -> Status {
    let (kind, want) = (&expected.gvk.kind, expected.gvk);
    let cannot = |why: String| {
        let version = copepod_meta::field::quote(&said.version);
        Status::bad_request(format!(
            "{} in version {version} cannot be handled as a {kind}: {why}",
            said.kind
        ))
    };
    // Tables and the like are answers: no scheme that reads requests knows them.
    let known = |types: &Universe| types.by_gvk(said).filter(|_| said.group != "meta.k8s.io");
    let builtin = Universe::builtin();
    let status = || builtin.by_name(STATUS).filter(|_| *said == Gvk::new("", "v1", "Status"));
    let Some(ty) = known(builtin).or_else(status).or_else(|| known(expected.types)) else {
        return cannot(not_registered(said));
    };
    if !expected.types.is_unstructured()
        && let Err(failure) = codec::decode(&body.bytes, body.media, builtin, ty, None)
    {
        return failure.status(kind, &body.bytes);
    }
    if said.kind == *kind && said.group == want.group {
        return Status::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            said.api_version(),
            want.api_version()
        ));
    }
    // The Go package of the internal type; both Events are one there.
    let package = |gvk: &Gvk| match gvk.group.split('.').next() {
        None | Some("" | "events") => "core".to_string(),
        Some(package) => package.to_string(),
    };
    cannot(format!(
        "converting ({}.{}) to ({}.{kind}): unknown conversion",
        said.version,
        said.kind,
        package(want)
    ))
}

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

/// upstream: apimachinery/pkg/runtime/error.go notRegisteredErr; the scheme is named after the line that made it
pub(crate) fn not_registered(gvk: &Gvk) -> String {
    let quote = copepod_meta::field::quote;
    format!(
        "no kind {} is registered for version {} in scheme \"pkg/runtime/scheme.go:111\"",
        quote(&gvk.kind),
        quote(&gvk.api_version())
    )
}

/// Plain JSON of a tree without a type.
pub(crate) fn encode_untyped(value: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(&codec::encode_untyped(value));
}

/// A tree of plain JSON.
pub(crate) fn decode_untyped(json: &[u8]) -> Result<Value, codec::DecodeError> {
    codec::decode_untyped(json).map(|(value, _)| value)
}
