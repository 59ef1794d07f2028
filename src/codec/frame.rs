//! Round the bodies: what makes a body an answer, a list item, a watch event. Nothing here copies a body.
//!
//! An answer is the concatenation `head + body + tail`; a list is `head`, then for every body its item head
//! and the body, then `tail`. JSON answers end in a newline on the wire, which is the edge's to add (pretty
//! ones do not have it).
//!
//! upstream: apimachinery/pkg/runtime/serializer/{json,protobuf}/collections.go,
//! apiserver/pkg/endpoints/handlers/watch.go

use copepod_meta::{Bytes, Gvk};

use crate::json::text_into;
use crate::proto::envelope::{TAIL, head_into};
use crate::proto::write::{bytes_into, varint_into, varint_len};

/// What a body's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// JSON of a built-in type: the members without type meta and the closing brace,
    /// `"metadata":{...},"spec":{...}}`.
    Members,
    /// JSON of a custom resource: the whole object, type meta and all, keys sorted.
    Whole,
    /// A protobuf message without its envelope.
    Protobuf,
}

/// The shared part of all answers that show one object at one revision in one version and form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The bytes.
    pub bytes: Bytes,
    /// What they are.
    pub form: Form,
}

/// What stands before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Before the body or the items.
    pub head: Bytes,
    /// After them.
    pub tail: Bytes,
}

/// The metadata of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListMeta {
    /// The revision of the list.
    pub resource_version: String,
    /// The token for the next page, "" on the last one.
    pub continue_token: String,
    /// How many items come after this page, where that is known.
    pub remaining_item_count: Option<i64>,
}

/// The frame of a single object.
pub fn object(gvk: &Gvk, body: &Body) -> Frame {
    match body.form {
        Form::Members => {
            let mut head = Vec::with_capacity(64);
            members_head(gvk, &body.bytes, &mut head);
            Frame { head: head.into(), tail: Bytes::new() }
        }
        Form::Whole => Frame::default(),
        Form::Protobuf => {
            let mut head = Vec::with_capacity(64);
            head_into(gvk, body.bytes.len(), &mut head);
            Frame { head: head.into(), tail: Bytes::from_static(TAIL) }
        }
    }
}

/// `{"kind":"Pod","apiVersion":"v1",`
fn members_head(gvk: &Gvk, body: &[u8], head: &mut Vec<u8>) {
    head.extend_from_slice(b"{\"kind\":");
    text_into(&gvk.kind, head);
    head.extend_from_slice(b",\"apiVersion\":");
    text_into(&gvk.api_version(), head);
    if body != b"}" {
        head.push(b',');
    }
}

/// The frame of a list of kind `gvk`. `items_len` is the sum of [`item_len`] over its items (protobuf needs
/// it, JSON does not).
pub fn list(form: Form, gvk: &Gvk, meta: &ListMeta, items_len: usize) -> Frame {
    let mut head = Vec::with_capacity(160);
    let mut tail = Vec::new();
    match form {
        Form::Members => {
            head.extend_from_slice(b"{\"kind\":");
            text_into(&gvk.kind, &mut head);
            head.extend_from_slice(b",\"apiVersion\":");
            text_into(&gvk.api_version(), &mut head);
            head.extend_from_slice(b",\"metadata\":");
            list_meta_json(meta, &mut head);
            head.extend_from_slice(b",\"items\":[");
            tail.extend_from_slice(b"]}");
        }
        Form::Whole => {
            head.extend_from_slice(b"{\"apiVersion\":");
            text_into(&gvk.api_version(), &mut head);
            head.extend_from_slice(b",\"items\":[");
            tail.extend_from_slice(b"],\"kind\":");
            text_into(&gvk.kind, &mut tail);
            tail.extend_from_slice(b",\"metadata\":");
            list_meta_unstructured(meta, &mut tail);
            tail.push(b'}');
        }
        Form::Protobuf => {
            let mut list_meta = Vec::with_capacity(64);
            list_meta_protobuf(meta, &mut list_meta);
            let mut own = Vec::with_capacity(list_meta.len() + 2);
            bytes_into(1, &list_meta, &mut own);
            head_into(gvk, own.len() + items_len, &mut head);
            head.extend_from_slice(&own);
            tail.extend_from_slice(TAIL);
        }
    }
    Frame { head: head.into(), tail: tail.into() }
}

fn list_meta_json(meta: &ListMeta, out: &mut Vec<u8>) {
    let mut separator = b'{';
    let texts = [("resourceVersion", &meta.resource_version), ("continue", &meta.continue_token)];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        out.push(separator);
        out.extend_from_slice(format!("\"{name}\":").as_bytes());
        text_into(text, out);
        separator = b',';
    }
    if let Some(count) = meta.remaining_item_count {
        out.push(separator);
        out.extend_from_slice(format!("\"remainingItemCount\":{count}").as_bytes());
        separator = b',';
    }
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
}

/// Unstructured lists always carry `continue`: upstream sets it, empty or not.
fn list_meta_unstructured(meta: &ListMeta, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"continue\":");
    text_into(&meta.continue_token, out);
    if let Some(count) = meta.remaining_item_count {
        out.extend_from_slice(format!(",\"remainingItemCount\":{count}").as_bytes());
    }
    out.extend_from_slice(b",\"resourceVersion\":");
    text_into(&meta.resource_version, out);
    out.push(b'}');
}

fn list_meta_protobuf(meta: &ListMeta, out: &mut Vec<u8>) {
    bytes_into(1, b"", out);
    bytes_into(2, meta.resource_version.as_bytes(), out);
    bytes_into(3, meta.continue_token.as_bytes(), out);
    if let Some(count) = meta.remaining_item_count {
        out.push(0x20);
        varint_into(count as u64, out);
    }
}

/// What stands before item number `index` of a list.
pub fn item_head(body: &Body, index: usize) -> Bytes {
    match (body.form, index) {
        (Form::Members, 0) => Bytes::from_static(b"{"),
        (Form::Members, _) => Bytes::from_static(b",{"),
        (Form::Whole, 0) => Bytes::new(),
        (Form::Whole, _) => Bytes::from_static(b","),
        (Form::Protobuf, _) => {
            let mut head = Vec::with_capacity(6);
            head.push(0x12);
            varint_into(body.bytes.len() as u64, &mut head);
            head.into()
        }
    }
}

/// How many bytes item number `index` takes in a list, its head included, with a body of `len` bytes.
pub fn item_len(form: Form, len: usize, index: usize) -> usize {
    match (form, index) {
        (Form::Members, 0) | (Form::Whole, 1..) => len + 1,
        (Form::Members, _) => len + 2,
        (Form::Whole, 0) => len,
        (Form::Protobuf, _) => 1 + varint_len(len as u64) + len,
    }
}

/// The frame of a watch event (`ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`, `ERROR`) with its object: JSON
/// lines, or protobuf messages behind their length in four bytes.
pub fn event(kind: &str, gvk: &Gvk, body: &Body) -> Frame {
    let mut head = Vec::with_capacity(96);
    match body.form {
        Form::Members | Form::Whole => {
            head.extend_from_slice(b"{\"type\":\"");
            head.extend_from_slice(kind.as_bytes());
            head.extend_from_slice(b"\",\"object\":");
            if body.form == Form::Members {
                members_head(gvk, &body.bytes, &mut head);
            }
            Frame { head: head.into(), tail: Bytes::from_static(b"}\n") }
        }
        Form::Protobuf => {
            let mut envelope = Vec::with_capacity(64);
            head_into(gvk, body.bytes.len(), &mut envelope);
            let raw_len = envelope.len() + body.bytes.len() + TAIL.len();
            let extension_len = 1 + varint_len(raw_len as u64) + raw_len;
            let mut event = Vec::with_capacity(24);
            bytes_into(1, kind.as_bytes(), &mut event);
            event.push(0x12);
            varint_into(extension_len as u64, &mut event);
            event.push(0x0a);
            varint_into(raw_len as u64, &mut event);
            // A frame's length is what gives it four bytes; bodies are a thousand times smaller.
            let total = (event.len() + raw_len) as u32;
            head.extend_from_slice(&total.to_be_bytes());
            head.extend_from_slice(&event);
            head.extend_from_slice(&envelope);
            Frame { head: head.into(), tail: Bytes::from_static(TAIL) }
        }
    }
}

impl Frame {
    /// Everything in one piece, for callers who cannot send pieces.
    pub fn join(&self, body: &Body) -> Bytes {
        [&self.head[..], &body.bytes, &self.tail].concat().into()
    }
}
