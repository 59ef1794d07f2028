//! `/openapi/v2` and `/openapi/v3`: the schema crate renders, here is how it is handed out.
//!
//! upstream: kube-openapi/pkg/handler, handler3
//!
//! Documents are large (2 MB for v2) and seldom asked for: each is rendered when first wanted and kept gzipped.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;

use axum::extract::{Request, State};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{HeaderValue, StatusCode};
use parking_lot::Mutex;
use sha2::{Digest, Sha512};

use crate::answer::{self, Answer};
use crate::exchange::Exchange;
use crate::negotiate::accepts_gzip;
use crate::routes::{exchange, server as running};
use crate::server::Server;

/// Rendered documents by name: `v2`, or the group-version's path.
#[derive(Default)]
pub struct OpenApi {
    made: Mutex<HashMap<String, Arc<Rendered>>>,
}

struct Rendered {
    gzipped: Bytes,
    /// The hash of the plain document, upper-case hexadecimal.
    hash: String,
}

impl Rendered {
    fn new(json: &[u8]) -> Result<Rendered, std::io::Error> {
        let digest: Vec<String> = Sha512::digest(json).iter().map(|b| format!("{b:02X}")).collect();
        Self::with_hash(json, digest.concat())
    }

    fn with_hash(document: &[u8], hash: String) -> Result<Rendered, std::io::Error> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(5));
        encoder.write_all(document)?;
        Ok(Rendered { gzipped: encoder.finish()?.into(), hash })
    }

    fn plain(&self) -> Result<Bytes, std::io::Error> {
        let mut out = Vec::with_capacity(self.gzipped.len() * 8);
        std::io::copy(&mut flate2::read::GzDecoder::new(&self.gzipped[..]), &mut out)?;
        Ok(out.into())
    }
}

/// The name of the one document of version 2.
const V2: &str = "v2";
/// And that of its form in protobuf.
const V2_PROTOBUF: &str = "v2.pb";

/// The form in protobuf under upstream's two names; it answers with the second.
/// upstream: kube-openapi/pkg/handler/handler.go
const PROTOBUF_SUBTYPES: [&str; 2] =
    ["com.github.proto-openapi.spec.v2@v1.0+protobuf", "com.github.proto-openapi.spec.v2.v1.0+protobuf"];
const PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

impl OpenApi {
    fn rendered(&self, name: &str) -> Option<Arc<Rendered>> {
        if let Some(found) = self.made.lock().get(name) {
            return Some(Arc::clone(found));
        }
        let made = match name {
            V2 => Rendered::new(copepod_schema::openapi::v2_document().as_bytes()),
            V2_PROTOBUF => self.protobuf(&*self.rendered(V2)?),
            path => Rendered::new(copepod_schema::openapi::v3_document(path)?.as_bytes()),
        };
        let made = made.inspect_err(|error| tracing::error!(%error, name, "an OpenAPI document")).ok()?;
        let made = Arc::new(made);
        Some(Arc::clone(self.made.lock().entry(name.to_string()).or_insert(made)))
    }

    /// The same document under the same hash.
    fn protobuf(&self, json: &Rendered) -> Result<Rendered, std::io::Error> {
        let plain = json.plain()?;
        let text = std::str::from_utf8(&plain).map_err(std::io::Error::other)?;
        let bytes = copepod_schema::openapi::v2_protobuf(text).map_err(std::io::Error::other)?;
        Rendered::with_hash(&bytes, json.hash.clone())
    }
}

type Shared = State<std::sync::Weak<Server>>;

/// `/openapi/v2`
pub async fn v2(state: Shared, request: Request) -> Result<Answer, Answer> {
    let server = running(state)?;
    let exchange = exchange(&request);
    let Some(name) = v2_form(exchange.header(http::header::ACCEPT)) else {
        return Ok(bare(StatusCode::NOT_ACCEPTABLE, &["Accept-Encoding", "Accept"]));
    };
    let mut answer = document(&server, &exchange, name.into()).await?;
    if name == V2_PROTOBUF && answer.status().is_success() {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF_TYPE));
    }
    Ok(answer)
}

/// The form that the first clause of the header names which names one; None: 406.
fn v2_form(accept: &str) -> Option<&'static str> {
    if accept.is_empty() {
        return Some(V2);
    }
    let mut types = crate::negotiate::types_by_quality(accept).into_iter();
    types.find_map(|media| match media {
        ("application" | "*", "json" | "*") => Some(V2),
        ("application", subtype) if PROTOBUF_SUBTYPES.contains(&subtype) => Some(V2_PROTOBUF),
        _ => None,
    })
}

/// A code and nothing else.
fn bare(code: StatusCode, vary: &'static [&'static str]) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = code;
    for name in vary {
        answer.headers_mut().append(VARY, HeaderValue::from_static(name));
    }
    answer
}

/// `/openapi/v3`: where the documents are, by group-version.
pub async fn v3_index(state: Shared) -> Result<Answer, Answer> {
    let server = running(state)?;
    let paths = blocking(move || {
        let mut lines = Vec::new();
        for path in copepod_schema::openapi::v3_paths() {
            if let Some(rendered) = server.openapi.rendered(&path) {
                let url = format!("/openapi/v3/{path}?hash={}", rendered.hash);
                lines.push(format!("{path:?}:{{\"serverRelativeURL\":{url:?}}}"));
            }
        }
        format!("{{\"paths\":{{{}}}}}", lines.join(","))
    });
    let index = paths.await?;
    Ok(answer::bytes(StatusCode::OK, "application/json", index))
}

/// `/openapi/v3/apis/apps/v1?hash=...`
pub async fn v3(state: Shared, request: Request) -> Result<Answer, Answer> {
    let server = running(state)?;
    let exchange = exchange(&request);
    let path = exchange.info.path.trim_start_matches("/openapi/v3/").trim_end_matches('/').to_string();
    let asked = exchange.query.text("hash");
    let mut answer = document(&server, &exchange, path.clone()).await?;
    if asked.is_empty() || !answer.status().is_success() {
        return Ok(answer);
    }
    let current = server.openapi.rendered(&path).map(|r| r.hash.clone()).unwrap_or_default();
    if asked != current {
        // The client's link is of another state of the server: it is sent to the right one.
        let mut moved = answer::text(StatusCode::MOVED_PERMANENTLY, Bytes::new());
        if let Ok(location) = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={current}")) {
            moved.headers_mut().insert(LOCATION, location);
        }
        return Ok(moved);
    }
    // What has its hash in its address never changes.
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    headers.insert(EXPIRES, HeaderValue::from_static("Fri, 31 Dec 2100 00:00:00 GMT"));
    Ok(answer)
}

async fn document(server: &Arc<Server>, exchange: &Exchange, name: String) -> Result<Answer, Answer> {
    let rendering = Arc::clone(server);
    let gzip = accepts_gzip(exchange.headers());
    let made = blocking(move || {
        let rendered = rendering.openapi.rendered(&name)?;
        let bytes = if gzip { Ok(rendered.gzipped.clone()) } else { rendered.plain() };
        Some((bytes, rendered.hash.clone()))
    });
    let Some((bytes, hash)) = made.await? else {
        return Ok(bare(StatusCode::NOT_FOUND, &[]));
    };
    let bytes = bytes.map_err(|e| answer::text(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let etag = format!("\"{hash}\"");
    let mut answer = if exchange.header(IF_NONE_MATCH) == etag {
        let mut answer = Answer::default();
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        answer
    } else {
        answer::bytes(StatusCode::OK, "application/json", bytes)
    };
    let headers = answer.headers_mut();
    if answer_has_body(headers) && gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.append(VARY, HeaderValue::from_static("Accept"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    Ok(answer)
}

fn answer_has_body(headers: &http::HeaderMap) -> bool {
    headers.contains_key(CONTENT_TYPE)
}

/// Rendering takes tens of milliseconds: not on a thread that serves others.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Answer> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "rendering OpenAPI failed");
        answer::text(StatusCode::INTERNAL_SERVER_ERROR, "rendering failed\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_v2_is_negotiated_as_upstream_does() {
        for (accept, want) in [
            ("", Some(V2)),
            ("*/*", Some(V2)),
            ("application/json", Some(V2)),
            ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", Some(V2_PROTOBUF)),
            (
                "application/com.github.proto-openapi.spec.v2.v1.0+protobuf, application/json;q=0.5",
                Some(V2_PROTOBUF),
            ),
            (
                "application/json;q=0.9, application/com.github.proto-openapi.spec.v2@v1.0+protobuf;q=0.5",
                Some(V2),
            ),
            ("text/html", None),
            ("application/yaml", None),
        ] {
            assert_eq!(v2_form(accept), want, "{accept}");
        }
    }
}
