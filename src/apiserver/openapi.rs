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
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(5));
        encoder.write_all(json)?;
        Ok(Rendered { gzipped: encoder.finish()?.into(), hash: digest.concat() })
    }

    fn plain(&self) -> Result<Bytes, std::io::Error> {
        let mut out = Vec::with_capacity(self.gzipped.len() * 8);
        std::io::copy(&mut flate2::read::GzDecoder::new(&self.gzipped[..]), &mut out)?;
        Ok(out.into())
    }
}

/// The name of the one document of version 2.
const V2: &str = "v2";

impl OpenApi {
    fn rendered(&self, name: &str) -> Option<Arc<Rendered>> {
        if let Some(found) = self.made.lock().get(name) {
            return Some(Arc::clone(found));
        }
        let json = match name {
            V2 => copepod_schema::openapi::v2_document(),
            path => copepod_schema::openapi::v3_document(path)?,
        };
        let made = Arc::new(Rendered::new(json.as_bytes()).ok()?);
        Some(Arc::clone(self.made.lock().entry(name.to_string()).or_insert(made)))
    }
}

type Shared = State<std::sync::Weak<Server>>;

/// `/openapi/v2`
pub async fn v2(state: Shared, request: Request) -> Result<Answer, Answer> {
    let server = running(state)?;
    let exchange = exchange(&request);
    // kubectl asks for gnostic's protobuf first; JSON is what every client falls back to.
    let accept = exchange.header(http::header::ACCEPT);
    if !accept.is_empty()
        && !(accept.contains("json") || accept.contains("*/*") || accept.contains("application/*"))
    {
        return Ok(bare(StatusCode::NOT_ACCEPTABLE, &["Accept-Encoding", "Accept"]));
    }
    document(&server, &exchange, V2.into()).await
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
