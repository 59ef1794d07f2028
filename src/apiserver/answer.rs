//! Making responses: objects, lists, tables and refusals in the form that the client negotiated.
//!
//! Bodies of stored objects are shared bytes; here they get heads and tails ([`copepod_codec::frame`]) and go out in pieces
//! (`pieces`), those of a list when it is their turn (`list`). Only pretty JSON and YAML are made as a whole, because people read
//! them.

mod list;
mod pieces;

use axum::body::Body;
use bytes::Bytes;
use copepod_codec::frame::{self, Frame, ListMeta};
use copepod_meta::{Gvk, Status, Value};
use copepod_registry::{Content, Form, Include, Object, View};
use copepod_schema::{TypeId, Universe};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use crate::negotiate::{Accepted, Media, Transform};
pub use list::listing;

/// A response of the HTTP edge.
pub type Answer = Response<Body>;

/// How an answer is written: the negotiated form, and whether gzip is welcome.
#[derive(Clone, Debug)]
pub struct Style {
    /// The negotiated form.
    pub accepted: Accepted,
    /// `Accept-Encoding: gzip`
    pub gzip: bool,
}

/// Plain text.
pub fn text(code: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Body::from(text.into()));
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

/// Bytes of a known type.
pub fn bytes(code: StatusCode, mime: &'static str, bytes: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Body::from(bytes.into()));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(mime));
    answer
}

/// A refusal, or a `Status` that says success.
pub fn status(status: &Status, style: &Style) -> Answer {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let gvk = Gvk::new("", "v1", "Status");
    let mut answer = match builtin(STATUS) {
        Some(ty) => tree(code, &status.to_value(), Universe::builtin(), ty, &gvk, style),
        None => text(code, status.message.clone()),
    };
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

/// A built-in type by its name.
pub fn builtin(name: &str) -> Option<TypeId> {
    Universe::builtin().by_name(name)
}

/// An object that is a tree.
pub fn tree(
    code: StatusCode,
    value: &Value,
    universe: &Universe,
    ty: TypeId,
    gvk: &Gvk,
    style: &Style,
) -> Answer {
    let media = style.accepted.media;
    // YAML and pretty JSON are made of plain JSON.
    let wanted =
        if media == Media::Protobuf { copepod_codec::Media::Protobuf } else { copepod_codec::Media::Json };
    match copepod_codec::encode(value, universe, ty, Some(gvk), wanted) {
        Ok(encoded) => whole(code, encoded, style),
        Err(error) => not_acceptable(&error),
    }
}

/// A type without a protobuf form. upstream: serializer/protobuf errNotMarshalable
fn not_acceptable(error: &copepod_codec::EncodeError) -> Answer {
    let refusal = Status::new(406, copepod_meta::Reason::NotAcceptable, error.to_string());
    let json = Style { accepted: Accepted::json(false), gzip: false };
    status(&refusal, &json)
}

/// Encoded JSON (or protobuf) as one piece, laid out as negotiated.
pub fn whole(code: StatusCode, encoded: Bytes, style: &Style) -> Answer {
    let (media, bytes) = match style.accepted.media {
        Media::Protobuf => (Media::Protobuf, encoded),
        Media::Yaml => (Media::Yaml, copepod_codec::json_to_yaml(&encoded).into()),
        Media::Json if style.accepted.pretty => (Media::Json, copepod_codec::pretty(&encoded).into()),
        Media::Json => {
            let mut out = Vec::with_capacity(encoded.len() + 1);
            out.extend_from_slice(&encoded);
            out.push(b'\n');
            (Media::Json, out.into())
        }
    };
    pieces::respond_with(code, media, vec![bytes], style.gzip)
}

/// The content of a verb's answer.
pub fn content(code: StatusCode, content: &Content, style: &Style) -> Result<Answer, Status> {
    match content {
        Content::Stored(stored) => object(code, stored, style),
        Content::Tree { value, ty, gvk, table } => match (&style.accepted.transform, table) {
            (Some(Transform::Partial { version }), _) => {
                let (partial, ty, gvk) = partial(value, version)?;
                Ok(tree(code, &partial, Universe::builtin(), ty, &gvk, style))
            }
            (Some(Transform::Table { version, include }), Some(table)) => {
                tree_table(code, value, (*ty, gvk), table(value), (version, *include), style)
            }
            _ => Ok(tree(code, value, Universe::builtin(), *ty, gvk, style)),
        },
        Content::Status(success) => {
            // What a deletion answers says no code; what a creation answers does.
            // upstream: endpoints/handlers/create.go createHandler
            let mut value = success.to_value();
            if code != StatusCode::CREATED {
                value.remove(&["code"]);
            }
            let ty = builtin(STATUS).ok_or_else(|| Status::internal("Status is not among the facts"))?;
            Ok(tree(code, &value, Universe::builtin(), ty, &Gvk::new("", "v1", "Status"), style))
        }
    }
}

/// The metadata of a tree, as an object.
fn partial(tree: &Value, version: &str) -> Result<(Value, TypeId, Gvk), Status> {
    let ty = builtin("io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata")
        .ok_or_else(|| Status::internal("PartialObjectMetadata is not among the facts"))?;
    let mut partial = Value::map();
    partial.set(&["metadata"], tree.get("metadata").clone());
    Ok((partial, ty, Gvk::new("meta.k8s.io", version, "PartialObjectMetadata")))
}

/// A tree as the only row of a Table.
fn tree_table(
    code: StatusCode,
    tree: &Value,
    (ty, gvk): (TypeId, &Gvk),
    (columns, row): (Bytes, Bytes),
    (version, include): (&str, Include),
    style: &Style,
) -> Result<Answer, Status> {
    let encode = |tree: &Value, ty, gvk: &Gvk| {
        copepod_codec::encode(tree, Universe::builtin(), ty, Some(gvk), copepod_codec::Media::Json)
            .map_err(Status::internal)
    };
    let object = match include {
        Include::None => Bytes::from_static(b"null"),
        Include::Object => encode(tree, ty, gvk)?,
        Include::Metadata => {
            let (partial, ty, gvk) = partial(tree, version)?;
            encode(&partial, ty, &gvk)?
        }
    };
    let revision = tree.str_at(&["metadata", "resourceVersion"]).to_string();
    let meta = ListMeta { resource_version: revision, ..ListMeta::default() };
    let head = table_head(version, &meta, Some(&columns));
    let parts = vec![head, row, object, Bytes::from_static(b"}"), Bytes::from_static(TABLE_TAIL)];
    Ok(json_parts(code, parts, style))
}

/// One stored object.
pub fn object(code: StatusCode, object: &Object, style: &Style) -> Result<Answer, Status> {
    let accepted = &style.accepted;
    if let Some(Transform::Table { version, .. }) = &accepted.transform {
        let form = form(accepted);
        let meta = ListMeta { resource_version: object.resource_version()?, ..ListMeta::default() };
        let head = table_head(version, &meta, Some(&copepod_registry::column_definitions(&object.served)));
        let parts = vec![head, object.body(form)?.bytes, Bytes::from_static(TABLE_TAIL)];
        return Ok(json_parts(code, parts, style));
    }
    let body = body(object, accepted)?;
    let Frame { head, tail } = frame::object(&shown_gvk(object, accepted), &body);
    let parts = vec![head, body.bytes, tail];
    if accepted.media == Media::Protobuf {
        return Ok(pieces::respond_with(code, Media::Protobuf, parts, style.gzip));
    }
    Ok(json_parts(code, parts, style))
}

/// Parts that together are JSON, with its newline or laid out for people.
fn json_parts(code: StatusCode, mut parts: Vec<Bytes>, style: &Style) -> Answer {
    if style.accepted.pretty || style.accepted.media == Media::Yaml {
        return whole(code, parts.concat().into(), style);
    }
    parts.push(Bytes::from_static(b"\n"));
    pieces::respond_with(code, Media::Json, parts, style.gzip)
}

/// The form in which the registry is asked for bodies.
pub fn form(accepted: &Accepted) -> Form {
    let view = match &accepted.transform {
        None => View::Object,
        Some(Transform::Partial { .. }) => View::Partial,
        Some(Transform::Table { include, .. }) => View::Row(*include),
    };
    Form { media: accepted.media.stored(), view }
}

/// An object's body as the codec frames it.
pub fn body(object: &Object, accepted: &Accepted) -> Result<frame::Body, Status> {
    object.body(form(accepted))
}

/// As what an object is shown.
pub fn shown_gvk(object: &Object, accepted: &Accepted) -> Gvk {
    match &accepted.transform {
        Some(Transform::Partial { version }) => Gvk::new("meta.k8s.io", version, "PartialObjectMetadata"),
        _ => object.served.gvk(),
    }
}

/// No revision (a dry run's object has none) is the empty one.
fn shown_revision(revision: u64) -> String {
    if revision == 0 { String::new() } else { revision.to_string() }
}

const TABLE_TAIL: &[u8] = b"]}";

/// `{"kind":"Table",...,"rows":[`; without columns for the later frames of a watch.
pub fn table_head(version: &str, meta: &ListMeta, columns: Option<&Bytes>) -> Bytes {
    let gvk = Gvk::new("meta.k8s.io", version, "Table");
    // A Table differs from a list in the name of its items only, so the list's own head is used as far as it goes.
    let list = frame::list(frame::Form::Members, &gvk, meta, 0).head;
    let items = br#","items":["#;
    let head = list.strip_suffix(items).unwrap_or(&list);
    let columns = columns.map_or(&b"null"[..], |c| c);
    [head, br#","columnDefinitions":"#, columns, br#","rows":["#].concat().into()
}
