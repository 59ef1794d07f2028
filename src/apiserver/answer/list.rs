//! Lists and Tables: what stands around their items, and the items in turn.

use bytes::Bytes;
use copepod_codec::frame::{self, Frame, ListMeta};
use copepod_meta::{Gvk, Status};
use copepod_registry::{Listing, Object, View};
use http::StatusCode;

use super::pieces::{self, Part};
use super::{Answer, Style, TABLE_TAIL, body, form, json_parts, shown_revision, table_head};
use crate::negotiate::{Media, Transform};

/// A collection.
pub fn listing(listing: Listing, style: &Style) -> Result<Answer, Status> {
    let accepted = style.accepted.clone();
    let meta = ListMeta {
        resource_version: shown_revision(listing.revision),
        continue_token: listing.continue_token,
        remaining_item_count: listing.remaining,
    };
    if let Some(Transform::Table { version, .. }) = &accepted.transform {
        let columns = copepod_registry::column_definitions(&listing.served);
        let has_columns = !listing.served.kind.strategy.columns().is_empty();
        return table(listing.objects, table_head(version, &meta, Some(&columns)), has_columns, style);
    }
    let gvk = match &accepted.transform {
        Some(Transform::Partial { version }) => Gvk::new("meta.k8s.io", version, "PartialObjectMetadataList"),
        _ => listing.served.list_gvk(),
    };
    let frame_form = match accepted.media.stored() {
        copepod_schema::Media::Protobuf => frame::Form::Protobuf,
        copepod_schema::Media::Json => frame::Form::Members,
    };
    let is_protobuf = frame_form == frame::Form::Protobuf;
    // A message begins with its length. Bodies of which only making them tells that are made now.
    let (mut made, mut len) = (Vec::new(), 0);
    for (index, object) in listing.objects.iter().enumerate().filter(|_| is_protobuf) {
        let (body_len, body) = match object.body_len(form(&accepted))? {
            Some(len) => (len, None),
            None => {
                let body = body(object, &accepted)?;
                (body.bytes.len(), Some(body))
            }
        };
        len += frame::item_len(frame_form, body_len, index);
        made.push(body);
    }
    let Frame { mut head, mut tail } = frame::list(frame_form, &gvk, &meta, len);
    if listing.objects.is_empty() && !is_protobuf && gvk.kind == "PartialObjectMetadataList" {
        // upstream makes the list of metadata item by item: without any it stays nil.
        head = [head.strip_suffix(b"[").unwrap_or(&head), b"null}"].concat().into();
        tail = Bytes::new();
    }
    let item = move |index: usize, object: &Object, out: &mut Vec<Bytes>| {
        let body = match made.get_mut(index).and_then(Option::take) {
            Some(body) => body,
            None => body(object, &accepted)?,
        };
        out.extend([frame::item_head(&body, index), body.bytes]);
        Ok(())
    };
    respond(Items::new(head, listing.objects, item, tail), style)
}

fn table(objects: Vec<Object>, head: Bytes, has_columns: bool, style: &Style) -> Result<Answer, Status> {
    let View::Row(include) = form(&style.accepted).view else {
        return Err(Status::internal("a Table of something that has no rows"));
    };
    if objects.is_empty() && !has_columns {
        // What has no columns of its own has no rows, rather than none. upstream: registry/rest/table.go ConvertToTable
        let none = [head.strip_suffix(b"[").unwrap_or(&head), b"null}"].concat().into();
        return Ok(json_parts(StatusCode::OK, vec![none], style));
    }
    let now = copepod_meta::time::now();
    let row = move |index: usize, object: &Object, out: &mut Vec<Bytes>| {
        if index > 0 {
            out.push(Bytes::from_static(b","));
        }
        object.row_into(include, now, out)
    };
    respond(Items::new(head, objects, row, Bytes::from_static(TABLE_TAIL)), style)
}

fn respond(parts: impl Iterator<Item = Part> + Send + 'static, style: &Style) -> Result<Answer, Status> {
    let media = style.accepted.media;
    if media == Media::Protobuf {
        return pieces::respond(StatusCode::OK, media, parts, style.gzip);
    }
    if style.accepted.pretty || media == Media::Yaml {
        return Ok(json_parts(StatusCode::OK, parts.collect::<Result<_, _>>()?, style));
    }
    let parts = parts.chain(std::iter::once(Ok(Bytes::from_static(b"\n"))));
    pieces::respond(StatusCode::OK, Media::Json, parts, style.gzip)
}

/// A head, what is made of each object in turn, a tail.
struct Items<F> {
    ready: std::vec::IntoIter<Bytes>,
    objects: std::iter::Enumerate<std::vec::IntoIter<Object>>,
    each: F,
    tail: Option<Bytes>,
}

impl<F> Items<F>
where
    F: FnMut(usize, &Object, &mut Vec<Bytes>) -> Result<(), Status>,
{
    fn new(head: Bytes, objects: Vec<Object>, each: F, tail: Bytes) -> Items<F> {
        let objects = objects.into_iter().enumerate();
        Items { ready: vec![head].into_iter(), objects, each, tail: Some(tail) }
    }
}

impl<F> Iterator for Items<F>
where
    F: FnMut(usize, &Object, &mut Vec<Bytes>) -> Result<(), Status>,
{
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        loop {
            if let Some(part) = self.ready.next() {
                return Some(Ok(part));
            }
            let Some((index, object)) = self.objects.next() else { return self.tail.take().map(Ok) };
            let mut parts = Vec::with_capacity(PARTS);
            if let Err(status) = (self.each)(index, &object, &mut parts) {
                return Some(Err(status));
            }
            self.ready = parts.into_iter();
        }
    }
}

/// Parts of an item: of a row with a comma at most so many.
const PARTS: usize = 6;
