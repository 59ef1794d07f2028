//! What no API server on this TLS and HTTP stack can cost less than: the same accept loop as ours, answering from memory
//! with what a real server answered before (`bench api -record`). It decides nothing, stores nothing, checks nobody.
//!
//! Owns: the recorded answers and a channel to all open watches. Does not: decode or encode anything.
//!
//! When it breaks: a file that is missing ends the start; a request that was not recorded is answered with 404, on which
//! the client that measures gives up.

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use copepod_serve::tls::{TlsFiles, TlsSettings};
use copepod_serve::{Limits, Shutdown, Transport};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Frame, Incoming};
use memchr::memmem;
use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// As in our server.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Events that a watch has not sent yet; a slower one is not part of any measurement.
const EVENTS_MAX: usize = 1024;
/// Writes of the client end with this annotation; events carry it on.
const MARK: &[u8] = b"\"bench/sent\":\"";

#[derive(Debug, Parser)]
struct Options {
    /// The folder of the recorded answers.
    #[arg(long)]
    answers: PathBuf,
    #[arg(long)]
    secure_port: u16,
    #[arg(long)]
    tls_cert_file: PathBuf,
    #[arg(long)]
    tls_private_key_file: PathBuf,
}

fn main() -> std::process::ExitCode {
    copepod_serve::component::run_main(None, run)
}

async fn run(arguments: Vec<String>, shutdown: Shutdown) -> anyhow::Result<()> {
    let options = Options::parse_from(arguments);
    let floor = Arc::new(Floor::read(&options.answers)?);
    let files = TlsFiles {
        default: (options.tls_cert_file, options.tls_private_key_file),
        http2: true,
        ..TlsFiles::default()
    };
    let transport = Transport::Tls(Arc::new(TlsSettings::load(files)?));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", options.secure_port)).await?;
    let service = tower::service_fn(move |request| {
        let floor = Arc::clone(&floor);
        async move { Ok::<_, Infallible>(floor.answer(request).await) }
    });
    copepod_serve::serve(listener, transport, service, Limits::default(), shutdown).await?;
    Ok(())
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

struct Answer {
    media_type: String,
    encoding: Option<&'static str>,
    body: Bytes,
}

struct Floor {
    answers: HashMap<String, Answer>,
    watches: tokio::sync::Mutex<Vec<mpsc::Sender<Bytes>>>,
    /// An event as far as its time, and from there on.
    event: (Vec<u8>, Vec<u8>),
}

impl Floor {
    fn read(folder: &Path) -> anyhow::Result<Floor> {
        let mut answers = HashMap::new();
        for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".type") {
                continue;
            }
            let media_type = std::fs::read_to_string(folder.join(format!("{name}.type")))?;
            let body = Bytes::from(std::fs::read(&path)?);
            let encoding = body.starts_with(&[0x1f, 0x8b]).then_some("gzip");
            answers.insert(name, Answer { media_type, encoding, body });
        }
        let pod = &answers.get("pod.json").context("no pod.json was recorded")?.body;
        let at = memmem::find(pod, MARK).context("the recorded pod was never written by a watch's writer")?;
        let (head, rest) = pod.split_at(at + MARK.len());
        let end = memchr::memchr(b'"', rest).context("the recorded pod's annotation has no end")?;
        let event = (
            [br#"{"type":"MODIFIED","object":"#, head].concat(),
            [rest[end..].trim_ascii_end(), b"}\n"].concat(),
        );
        Ok(Floor { answers, watches: tokio::sync::Mutex::default(), event })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or("");
        if query.contains("watch=true") {
            return self.watch().await;
        }
        let path = head.uri.path();
        if path == "/readyz" {
            return whole(StatusCode::OK, "text/plain", None, Bytes::from_static(b"ok"));
        }
        let accept = head.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
        let gzip =
            head.headers.get(header::ACCEPT_ENCODING).is_some_and(|v| v.as_bytes().starts_with(b"gzip"));
        let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
            return whole(StatusCode::BAD_REQUEST, "text/plain", None, Bytes::new());
        };
        let merge_patch = head
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|v| v.as_bytes() == b"application/merge-patch+json");
        if merge_patch && head.method == Method::PATCH {
            self.tell(&body).await;
        }
        let create = head.method == Method::POST;
        let name = name(path, query, accept, gzip, create);
        let code = if create { StatusCode::CREATED } else { StatusCode::OK };
        match self.answers.get(name) {
            Some(answer) => whole(code, &answer.media_type, answer.encoding, answer.body.clone()),
            None => whole(StatusCode::NOT_FOUND, "text/plain", None, Bytes::new()),
        }
    }

    async fn watch(&self) -> Response<Body> {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        self.watches.lock().await.push(sender);
        let mut response = Response::new(Events(receiver).boxed_unsync());
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }

    /// Sends one event, whose bytes all watches share.
    async fn tell(&self, patch: &[u8]) {
        let Some(at) = memmem::find(patch, MARK) else { return };
        let time = &patch[at + MARK.len()..];
        let time = &time[..memchr::memchr(b'"', time).unwrap_or(time.len())];
        let event = Bytes::from([&self.event.0, time, &self.event.1].concat());
        self.watches.lock().await.retain(|watch| watch.try_send(event.clone()).is_ok());
    }
}

/// The recorded answer to a request: the client asks for nothing else.
fn name(path: &str, query: &str, accept: &str, gzip: bool, create: bool) -> &'static str {
    let protobuf = accept.starts_with("application/vnd.kubernetes.protobuf");
    if query.contains("limit=1") {
        return "one.json";
    }
    if query.contains("labelSelector=") {
        return "list_by_label";
    }
    if query.contains("fieldSelector=") {
        return "list_by_node";
    }
    if path.contains("/pods/") || create && path.ends_with("/pods") {
        return if protobuf { "pod.protobuf" } else { "pod.json" };
    }
    if path.ends_with("/pods") {
        return match (accept.contains("as=Table"), protobuf, gzip) {
            (true, ..) => "list_table_identity",
            (_, true, _) => "list_protobuf_identity",
            (_, _, true) => "list_json_gzip",
            _ => "list_json_identity",
        };
    }
    if path.contains("/configmaps/") {
        return "configmap.json";
    }
    if path.contains("/leases") {
        return "lease.protobuf";
    }
    if path.ends_with("/serviceaccounts") { "account.json" } else { "namespace.json" }
}

fn whole(code: StatusCode, media_type: &str, encoding: Option<&'static str>, body: Bytes) -> Response<Body> {
    let mut response = Response::new(http_body_util::Full::new(body).boxed_unsync());
    *response.status_mut() = code;
    let media_type = header::HeaderValue::from_str(media_type);
    let media_type = media_type.unwrap_or(header::HeaderValue::from_static("text/plain"));
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    if let Some(encoding) = encoding {
        let value = header::HeaderValue::from_static(encoding);
        response.headers_mut().insert(header::CONTENT_ENCODING, value);
    }
    response
}

/// The body of a watch: ends when its sender is dropped.
struct Events(mpsc::Receiver<Bytes>);

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|event| event.map(|bytes| Ok(Frame::data(bytes))))
    }
}
