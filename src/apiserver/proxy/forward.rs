//! HTTP proxies to pods, services and nodes.
//!
//! upstream: apimachinery/pkg/util/proxy/{upgradeaware,transport}.go

use std::sync::Arc;

use axum::body::Body;
use copepod_meta::Status;
use copepod_registry::Target;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;

use super::Connect;
use super::location::{self, Id};
use super::stream::{end_to_end, tunnel, wants_upgrade};
use crate::answer::Answer;
use crate::exchange::Exchange;
use crate::metrics::Guard;
use crate::server::Server;

/// Answers `pods/proxy`, `services/proxy`, `nodes/proxy`.
pub async fn answer(
    server: &Arc<Server>,
    exchange: &mut Exchange,
    body: Body,
    target: &Target,
    connect: Connect,
    guard: Option<Guard>,
) -> Result<Answer, Status> {
    let caller = exchange.caller();
    let address = match connect {
        Connect::Pod => {
            let id = Id::parse(&target.name, "pod")?;
            location::pod(server, &caller, &target.namespace, &id).await?
        }
        Connect::Service => {
            let id = Id::parse(&target.name, "service")?;
            location::service(server, &caller, &target.namespace, &id, &target.name).await?
        }
        _ => location::node(server, &caller, &Id::parse(&target.name, "node")?).await?,
    };
    let raw = exchange.parts.uri.path();
    let (prefix, rest) = split(raw, exchange.info.parts.len());
    let query = exchange.parts.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let upgrading = wants_upgrade(exchange);
    if rest.is_empty() && !upgrading && matches!(exchange.parts.method, Method::GET | Method::HEAD) {
        return Ok(redirect(&format!("{raw}/{query}")));
    }
    let rest = if rest.is_empty() { "/" } else { rest };
    let path = format!("{rest}{query}");
    let prefix = prefix.to_string();
    if upgrading {
        return tunnel(server, exchange, &address, &path, guard).await;
    }
    let request = request(exchange, body, &address.authority(), &path, &prefix)?;
    let sent = server.backends.send(&address, request).await;
    let response =
        sent.map_err(|error| Status::service_unavailable(format!("error trying to reach service: {error}")))?;
    Ok(respond(response, &prefix, &address, guard))
}

/// `/api/v1/namespaces/x/pods/p/proxy` and what follows. `segments`: how many there are from the resource on.
fn split(path: &str, segments: usize) -> (&str, &str) {
    let beyond = segments.saturating_sub(3);
    let trailing = usize::from(path.ends_with('/'));
    let trimmed = path.trim_end_matches('/');
    if beyond == 0 {
        return (trimmed, if trailing == 1 { "/" } else { "" });
    }
    let mut at = trimmed.len();
    for _ in 0..beyond {
        at = trimmed[..at].rfind('/').unwrap_or(0);
    }
    (&path[..at], &path[at..])
}

fn redirect(to: &str) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(to) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

fn request(
    exchange: &Exchange,
    body: Body,
    host: &str,
    path: &str,
    prefix: &str,
) -> Result<Request<http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, axum::Error>>, Status> {
    let mut request = Request::new(body.boxed_unsync());
    *request.method_mut() = exchange.parts.method.clone();
    *request.uri_mut() = path.parse().map_err(|e| Status::bad_request(format!("{e}")))?;
    let mut headers = end_to_end(exchange.parts.headers.clone());
    headers.remove(AUTHORIZATION);
    headers.insert(HOST, HeaderValue::from_str(host).map_err(Status::internal)?);
    let peer = exchange.connection.peer.ip().to_string();
    for (name, value) in
        [("x-forwarded-for", peer.as_str()), ("x-forwarded-uri", prefix), ("x-forwarded-proto", "https")]
    {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    *request.headers_mut() = headers;
    Ok(request)
}

fn respond(
    response: Response<hyper::body::Incoming>,
    prefix: &str,
    address: &super::backend::Address,
    guard: Option<Guard>,
) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.map_frame(move |frame| {
        let _alive = &guard;
        frame
    });
    let mut answer = Response::new(Body::new(body));
    *answer.status_mut() = parts.status;
    let mut headers = end_to_end(parts.headers);
    // A redirection within the backend has to stay behind the proxy.
    if let Some(location) = headers.get(LOCATION).and_then(|v| v.to_str().ok()) {
        let own = format!("{}://{}", address.scheme(), address.authority());
        let path = location.strip_prefix(&own).unwrap_or(location);
        if path.starts_with('/')
            && let Ok(value) = HeaderValue::from_str(&format!("{prefix}{path}"))
        {
            headers.insert(LOCATION, value);
        }
    }
    if !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    }
    *answer.headers_mut() = headers;
    answer
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_split_behind_the_subresource() {
        for (path, segments, prefix, rest) in [
            ("/api/v1/nodes/n/proxy", 3, "/api/v1/nodes/n/proxy", ""),
            ("/api/v1/nodes/n/proxy/", 3, "/api/v1/nodes/n/proxy", "/"),
            ("/api/v1/nodes/n/proxy/a", 4, "/api/v1/nodes/n/proxy", "/a"),
            ("/api/v1/nodes/n/proxy/a/b/", 5, "/api/v1/nodes/n/proxy", "/a/b/"),
        ] {
            assert_eq!(super::split(path, segments), (prefix, rest), "{path}");
        }
    }
}
