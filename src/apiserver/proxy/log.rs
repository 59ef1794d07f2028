//! A container's log, from the kubelet to the client as it comes.
//!
//! upstream: pkg/registry/core/pod/rest/log.go, pod/strategy.go LogLocation

use bytes::Bytes;
use copepod_meta::{ErrorList, FieldError, GroupResource, Path, Reason, Status};
use copepod_registry::Target;
use copepod_serve::body;
use futures::StreamExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};

use super::location::{self, container, query};
use super::object;
use crate::answer::Answer;
use crate::exchange::Exchange;
use crate::metrics::Guard;
use crate::request_info::query_bool;
use crate::server::Server;

/// Most of a kubelet's refusal that is shown.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// Answers `pods/log`.
pub async fn answer(
    server: &Server,
    exchange: &Exchange,
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
    Ok(stream(response, guard, server.shutdown.clone()))
}

fn stream(
    response: Response<hyper::body::Incoming>,
    guard: Option<Guard>,
    shutdown: copepod_serve::Shutdown,
) -> Answer {
    let data = response.into_body().into_data_stream().take_until(async move { shutdown.cancelled().await });
    let data = data.map(move |chunk| {
        let _alive = &guard;
        chunk
    });
    let mut answer = Response::new(axum::body::Body::from_stream(data));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
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
            let path = Path::new("");
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
