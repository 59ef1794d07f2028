//! A container's log, from the kubelet to the client as it comes, over WebSocket if the client asks so.
//!
//! upstream: pkg/registry/core/pod/rest/log.go, pod/strategy.go LogLocation;
//! apiserver/pkg/endpoints/handlers/responsewriters/writers.go StreamObject, streaming/pkg/httpstream/wsstream/stream.go

use base64::Engine as _;
use bytes::Bytes;
use copepod_meta::{ErrorList, FieldError, GroupResource, Path, Reason, Status};
use copepod_registry::Target;
use copepod_serve::body;
use futures::{Stream, StreamExt as _, stream};
use http::header::{CONTENT_TYPE, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::Message;

use super::location::{self, container, query};
use super::object;
use crate::answer::Answer;
use crate::exchange::Exchange;
use crate::metrics::Guard;
use crate::request_info::query_bool;
use crate::server::Server;
use crate::websocket;

/// A message of a log over WebSocket; upstream's reads are as long, and clients may rely on it.
const MESSAGE_BYTES_MAX: usize = 2048;
/// The sub-protocol whose messages are base64.
const BASE64: &str = "base64.binary.k8s.io";
/// Sub-protocols of a log. upstream: wsstream NewDefaultReaderProtocols
const PROTOCOLS: [&str; 3] = ["", "binary.k8s.io", BASE64];

/// Most of a kubelet's refusal that is shown.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// Answers `pods/log`.
pub async fn answer(
    server: &Server,
    exchange: &mut Exchange,
    target: &Target,
    guard: Option<Guard>,
) -> Result<Answer, Status> {
    let options = options(exchange, &target.name)?;
    let caller = exchange.caller();
    let pod = object(server, &caller, "pods", &target.namespace, &target.name).await?;
    let container = container(&exchange.query.text("container"), &pod)?;
    let node = pod.str_at(&["spec", "nodeName"]);
    if node.is_empty() {
        // Nothing has run yet, so there is nothing to show.
        let mut empty = Answer::default();
        *empty.status_mut() = StatusCode::NO_CONTENT;
        return Ok(empty);
    }
    let address = location::kubelet(server, &caller, node).await?;
    let mut path = format!("/containerLogs/{}/{}/{container}", target.namespace, target.name);
    if !options.is_empty() {
        path.push('?');
        path.push_str(&query(&options));
    }
    let request = Request::get(&path)
        .header(http::header::HOST, address.authority())
        .body(Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync())
        .map_err(Status::internal)?;
    let url = format!("{}://{}{path}", address.scheme(), address.authority());
    let response = server.backends.send(&address, request).await;
    let response = response.map_err(|error| super::plain_error(format!("Get {url:?}: {error}")))?;
    if response.status() != StatusCode::OK {
        return Err(refusal(response, &target.name).await);
    }
    let shutdown = server.shutdown.clone();
    let log = response.into_body().into_data_stream().take_until(async move { shutdown.cancelled().await });
    if websocket::is_asked(exchange.headers()) {
        let client = exchange.parts.extensions.remove::<OnUpgrade>();
        return Ok(messages(log, guard, exchange.headers(), client));
    }
    Ok(plain(log, guard))
}

fn plain(log: impl Log, guard: Option<Guard>) -> Answer {
    let data = log.map(move |chunk| {
        let _alive = &guard;
        chunk
    });
    let mut answer = Response::new(axum::body::Body::from_stream(data));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}

/// The log as it comes from the kubelet.
trait Log: Stream<Item = Result<Bytes, hyper::Error>> + Send + 'static {}
impl<S: Stream<Item = Result<Bytes, hyper::Error>> + Send + 'static> Log for S {}

/// Switches protocols and sends the log as messages, the first of them empty, or refuses.
fn messages(log: impl Log, guard: Option<Guard>, headers: &HeaderMap, client: Option<OnUpgrade>) -> Answer {
    let (switched, is_text) = match handshake(headers) {
        Ok(chosen) => chosen,
        Err(refusal) => return refusal,
    };
    let Some(client) = client else { return websocket::not_websocket() };
    // A log that breaks off ends: the client sees its socket closed, as upstream's.
    let chunks = log
        .take_while(|chunk| std::future::ready(chunk.is_ok()))
        .filter_map(|chunk| std::future::ready(chunk.ok()));
    let pieces = stream::once(std::future::ready(vec![message(&[], is_text)]))
        .chain(chunks.map(move |chunk| {
            chunk.chunks(MESSAGE_BYTES_MAX).map(|piece| message(piece, is_text)).collect::<Vec<_>>()
        }))
        .flat_map(stream::iter);
    tokio::spawn(async move {
        let _guard = guard;
        match client.await {
            Ok(client) => websocket::send(pieces, None, TokioIo::new(client)).await,
            Err(error) => tracing::debug!(%error, "the client went before its upgrade was done"),
        }
    });
    switched
}

fn message(data: &[u8], is_text: bool) -> Message {
    if is_text {
        return Message::text(base64::engine::general_purpose::STANDARD.encode(data));
    }
    Message::Binary(Bytes::copy_from_slice(data))
}

/// The 101 and whether data go as base64, or why not. The client's first protocol that we know counts; none is binary.
fn handshake(headers: &HeaderMap) -> Result<(Answer, bool), Answer> {
    let key = websocket::key(headers)?;
    let offered = websocket::text(headers, SEC_WEBSOCKET_PROTOCOL);
    let chosen = offered.split(',').map(str::trim).find(|offer| PROTOCOLS.contains(offer));
    let Some(chosen) = chosen else { return Err(websocket::refusal(StatusCode::FORBIDDEN, "")) };
    Ok((websocket::switching(key, chosen), chosen == BASE64))
}

/// upstream: registry/generic/rest/response_checker.go
async fn refusal(response: Response<hyper::body::Incoming>, name: &str) -> Status {
    let code = response.status().as_u16();
    let text = match body::read(response.into_body(), REFUSAL_BYTES_MAX).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => error.to_string(),
    };
    match code {
        400 => Status::bad_request(text),
        500 => Status::internal(text),
        404 => {
            let resource = GroupResource::new("", "pods/log");
            let mut status = Status::not_found(&resource, name);
            status.message = format!("the server could not find the requested resource ( {resource} {name})");
            status
        }
        code if code > 500 => {
            let message =
                format!("an error on the server ({text:?}) has prevented the request from succeeding");
            Status::new(code, Reason::InternalError, format!("{message} ( pods/log {name})"))
        }
        code => {
            let message = format!(
                "the server responded with the status code {code} but did not return more information"
            );
            Status::new(code, Reason::Unknown, format!("{message} ( pods/log {name})"))
        }
    }
}

/// PodLogOptions as the kubelet wants them. upstream: core/validation ValidatePodLogOptions
fn options(exchange: &Exchange, name: &str) -> Result<Vec<(String, String)>, Status> {
    let asked = &exchange.query;
    let mut errors = ErrorList::new();
    let mut out = Vec::new();
    for flag in ["follow", "previous", "timestamps"] {
        if asked.first(flag).is_some_and(query_bool) {
            out.push((flag.to_string(), "true".to_string()));
        }
    }
    let since_time = asked.text("sinceTime");
    let since_seconds = asked.number("sinceSeconds")?;
    if let Some(seconds) = since_seconds {
        if !since_time.is_empty() {
            let path = Path::nameless();
            errors.push(FieldError::forbidden(
                &path,
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        } else if seconds < 1 {
            errors.push(FieldError::invalid_int(
                &Path::new("sinceSeconds"),
                seconds,
                "must be greater than 0",
            ));
        }
        out.push(("sinceSeconds".into(), seconds.to_string()));
    }
    if !since_time.is_empty() {
        if let Some(why) = bad_time(&since_time) {
            return Err(Status::bad_request(why));
        }
        out.push(("sinceTime".into(), since_time));
    }
    if let Some(lines) = asked.number("tailLines")? {
        if lines < 0 {
            let why = "must be greater than or equal to 0";
            errors.push(FieldError::invalid_int(&Path::new("tailLines"), lines, why));
        }
        out.push(("tailLines".into(), lines.to_string()));
    }
    if let Some(bytes) = asked.number("limitBytes")? {
        if bytes < 1 {
            errors.push(FieldError::invalid_int(&Path::new("limitBytes"), bytes, "must be greater than 0"));
        }
        out.push(("limitBytes".into(), bytes.to_string()));
    }
    if errors.is_empty() { Ok(out) } else { Err(Status::invalid("", "PodLogOptions", name, &errors)) }
}

/// In Go's words, as far as they tell which part of the time cannot be read. upstream: time.Parse
fn bad_time(text: &str) -> Option<String> {
    const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
    let parts = [
        ("2006", 4),
        ("-", 0),
        ("01", 2),
        ("-", 0),
        ("02", 2),
        ("T", 0),
        ("15", 2),
        (":", 0),
        ("04", 2),
        (":", 0),
        ("05", 2),
    ];
    let quote = copepod_meta::field::quote;
    let cannot = |rest: &str, part: &str| {
        Some(format!("parsing time {} as {LAYOUT:?}: cannot parse {} as {part:?}", quote(text), quote(rest)))
    };
    let mut rest = text;
    for (part, digits) in parts {
        let fits = match digits {
            0 => rest.starts_with(part),
            n => rest.len() >= n && rest.as_bytes()[..n].iter().all(u8::is_ascii_digit),
        };
        if !fits {
            return cannot(rest, part);
        }
        rest = &rest[if digits == 0 { part.len() } else { digits }..];
    }
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = zone.strip_prefix(['+', '-']).filter(|o| o.len() == 5 && o.as_bytes()[2] == b':');
    if zone == "Z" || offset.is_some() { None } else { cannot(zone, "Z07:00") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_protocol_that_is_known_is_spoken() {
        for (offered, want) in [
            (None, "101 - binary"),
            (Some("binary.k8s.io"), "101 binary.k8s.io binary"),
            (Some("foo, base64.binary.k8s.io, binary.k8s.io"), "101 base64.binary.k8s.io base64"),
            (Some("channel.k8s.io"), "403"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("sec-websocket-key", HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
            headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
            if let Some(offered) = offered {
                headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offered));
            }
            let got = match handshake(&headers) {
                Err(refusal) => refusal.status().as_u16().to_string(),
                Ok((answer, is_text)) => {
                    let protocol = answer.headers().get(SEC_WEBSOCKET_PROTOCOL);
                    let protocol = protocol.map_or("-", |p| p.to_str().expect("text"));
                    let code = answer.status().as_u16();
                    format!("{code} {protocol} {}", if is_text { "base64" } else { "binary" })
                }
            };
            assert_eq!(got, want, "{offered:?}");
        }
        assert_eq!(message(b"hi", true), Message::text("aGk="));
        assert_eq!(message(b"hi", false), Message::Binary(Bytes::from_static(b"hi")));
    }
}
