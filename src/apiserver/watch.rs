//! Watches on the wire: frames one behind the other, as many in one write as there are.
//!
//! upstream: apiserver/pkg/endpoints/handlers/watch.go WatchServer
//!
//! A watch ends without an error frame at its timeout, at shutdown, and when the client fell behind: clients resume.

pub mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use copepod_codec::frame::{self, ListMeta};
use copepod_meta::{Gvk, Status, Value};
use copepod_registry::{EventKind, Form, Include, View, Watch, WatchEvent};
use copepod_schema::{TypeId, Universe};
use copepod_serve::metrics::Counter;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};

use crate::answer::{self, Answer};
use crate::negotiate::{Accepted, Media, Transform};

/// Frames are gathered into one write up to this size.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// The response that carries a watch until `timeout`; `sent` counts its events.
pub fn response(
    watch: Watch,
    accepted: Accepted,
    timeout: Duration,
    sent: Arc<Counter>,
    guard: impl Send + 'static,
) -> Answer {
    let mime = match accepted.media {
        Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Media::Json | Media::Yaml => "application/json",
    };
    let framer = Framer { accepted, columns_sent: false };
    let deadline = tokio::time::Instant::now() + timeout;
    let stream = futures::stream::unfold(
        (watch, framer, sent, guard),
        move |(mut watch, mut framer, sent, guard)| async move {
            let event = tokio::time::timeout_at(deadline, watch.next()).await.ok().flatten()?;
            let chunk = framer.gather(event, &mut watch, &sent);
            (!chunk.is_empty())
                .then_some((Ok::<_, std::convert::Infallible>(chunk), (watch, framer, sent, guard)))
        },
    );
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(mime));
    response
}

struct Framer {
    accepted: Accepted,
    /// A Table's columns are sent with the first event only.
    columns_sent: bool,
}

impl Framer {
    /// This event and those that are there already. Empty when the first cannot be written: the watch ends.
    fn gather(&mut self, event: WatchEvent, watch: &mut Watch, sent: &Counter) -> Bytes {
        let mut out = BytesMut::with_capacity(4096);
        let mut event = Some(event);
        while let Some(current) = event {
            if let Err(error) = self.write(&current, watch, &mut out) {
                tracing::error!(%error, resource = ?watch.served(), "a watch ends: an event cannot be encoded");
                break;
            }
            sent.inc();
            event = if out.len() < WRITE_BYTES_MAX { watch.try_next() } else { None };
        }
        out.freeze()
    }

    fn write(&mut self, event: &WatchEvent, watch: &Watch, out: &mut BytesMut) -> Result<(), Status> {
        match event {
            WatchEvent::Change { kind, object } => {
                if let Some(Transform::Table { version, .. }) = self.accepted.transform.clone() {
                    let row = object.body(answer::form(&self.accepted))?.bytes;
                    self.table(kind.as_str(), &version, object.revision(), watch, row, out);
                    return Ok(());
                }
                let body = answer::body(object, &self.accepted)?;
                append(kind, &answer::shown_gvk(object, &self.accepted), &body, out);
                Ok(())
            }
            WatchEvent::Bookmark { revision, initial_events_end } => {
                if let Some(Transform::Table { version, include }) = self.accepted.transform.clone() {
                    // The end of the first state shows by its annotation, whatever was asked for.
                    let include = match include {
                        Include::None if *initial_events_end => Include::Metadata,
                        include => include,
                    };
                    let object = watch.bookmark(bookmark_tree(*revision, *initial_events_end));
                    let form = Form { view: View::Row(include), ..answer::form(&self.accepted) };
                    self.table("BOOKMARK", &version, *revision, watch, object.body(form)?.bytes, out);
                    return Ok(());
                }
                self.bookmark(*revision, *initial_events_end, watch, out)
            }
            WatchEvent::Error(status) => self.error(status, out),
        }
    }

    /// An object of the kind with nothing but a revision.
    fn bookmark(&self, revision: u64, end: bool, watch: &Watch, out: &mut BytesMut) -> Result<(), Status> {
        let mut value = bookmark_tree(revision, end);
        let served = watch.served();
        if self.accepted.transform.is_none() {
            served.kind.strategy.of_nothing(&mut value);
        }
        let (gvk, universe, ty) = match &self.accepted.transform {
            Some(Transform::Partial { version }) => {
                let ty = answer::builtin("io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata");
                let ty =
                    ty.ok_or_else(|| Status::internal("PartialObjectMetadata is not among the facts"))?;
                (Gvk::new("meta.k8s.io", version, "PartialObjectMetadata"), Universe::builtin(), ty)
            }
            _ => (served.gvk(), &*served.types, served.ty()),
        };
        let body = self.body(&value, universe, ty, &gvk)?;
        write_frame("BOOKMARK", &gvk, &body, out);
        Ok(())
    }

    fn error(&self, status: &Status, out: &mut BytesMut) -> Result<(), Status> {
        let ty = answer::builtin("io.k8s.apimachinery.pkg.apis.meta.v1.Status");
        let ty = ty.ok_or_else(|| Status::internal("Status is not among the facts"))?;
        let gvk = Gvk::new("", "v1", "Status");
        let body = self.body(&status.to_value(), Universe::builtin(), ty, &gvk)?;
        write_frame("ERROR", &gvk, &body, out);
        Ok(())
    }

    fn body(&self, value: &Value, universe: &Universe, ty: TypeId, gvk: &Gvk) -> Result<frame::Body, Status> {
        let media = self.accepted.media.codec();
        copepod_codec::encode_body(value, universe, ty, gvk, media).map_err(Status::internal)
    }

    fn table(
        &mut self,
        kind: &str,
        version: &str,
        revision: u64,
        watch: &Watch,
        row: Bytes,
        out: &mut BytesMut,
    ) {
        let columns = (!self.columns_sent).then(|| copepod_registry::column_definitions(watch.served()));
        self.columns_sent = true;
        let meta = ListMeta { resource_version: revision.to_string(), ..ListMeta::default() };
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        out.extend_from_slice(&answer::table_head(version, &meta, columns.as_ref()));
        out.extend_from_slice(&row);
        out.extend_from_slice(b"]}}\n");
    }
}

fn bookmark_tree(revision: u64, end: bool) -> Value {
    let mut value = Value::map();
    value.set(&["metadata", "resourceVersion"], revision.to_string());
    if end {
        value.set(&["metadata", "annotations", "k8s.io/initial-events-end"], "true");
    }
    value
}

fn append(kind: &EventKind, gvk: &Gvk, body: &frame::Body, out: &mut BytesMut) {
    write_frame(kind.as_str(), gvk, body, out);
}

fn write_frame(kind: &str, gvk: &Gvk, body: &frame::Body, out: &mut BytesMut) {
    let frame = frame::event(kind, gvk, body);
    out.reserve(frame.head.len() + body.bytes.len() + frame.tail.len());
    out.extend_from_slice(&frame.head);
    out.extend_from_slice(&body.bytes);
    out.extend_from_slice(&frame.tail);
}
