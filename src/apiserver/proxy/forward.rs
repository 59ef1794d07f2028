//! HTTP proxies to pods, services and nodes.
//!
//! upstream: apimachinery/pkg/util/proxy/{upgradeaware,transport}.go

use std::sync::Arc;

use axum::body::Body;
use copepod_meta::Status;
use copepod_meta::url::unescape_path_or_keep;
use copepod_registry::Target;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;

use super::backend::Address;
use super::links::{self, Links};
use super::location::{self, Id};
use super::stream::{end_to_end, tunnel, wants_upgrade};
use super::{Connect, page};
use crate::answer::Answer;
use crate::exchange::Exchange;
use crate::metrics::Guard;
use crate::server::Server;

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_URI: &str = "x-forwarded-uri";

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
    let rest = links::clean(rest);
    let path = format!("{rest}{query}");
    let uri = format!("{prefix}{rest}");
    let asked = host(exchange, &address);
    let links = Links {
        prefix: unescape_path_or_keep(prefix).into_owned(),
        backend: address.authority(),
        asked: asked.clone(),
    };
    if upgrading {
        return tunnel(server, exchange, &address, &asked, &path, guard).await;
    }
    let request = request(exchange, body, &asked, &path, &uri)?;
    let sent = server.backends.send(&address, request).await;
    let response =
        sent.map_err(|error| Status::service_unavailable(format!("error trying to reach service: {error}")))?;
    respond(response, links, guard)
}

/// The host that the client asked; the backend is told that name, not its own.
fn host(exchange: &Exchange, address: &Address) -> String {
    match exchange.parts.uri.authority() {
        Some(authority) => authority.to_string(),
        None => match exchange.header(HOST) {
            "" => address.authority(),
            host => host.to_string(),
        },
    }
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
    uri: &str,
) -> Result<Request<http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, axum::Error>>, Status> {
    let mut request = Request::new(body.boxed_unsync());
    *request.method_mut() = exchange.parts.method.clone();
    *request.uri_mut() = path.parse().map_err(|e| Status::bad_request(format!("{e}")))?;
    let mut headers = end_to_end(exchange.parts.headers.clone());
    headers.remove(AUTHORIZATION);
    headers.insert(HOST, HeaderValue::from_str(host).map_err(Status::internal)?);
    let mut peers: Vec<String> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok().map(str::to_string)).collect();
    peers.push(exchange.connection.peer.ip().to_string());
    for (name, value) in [(FORWARDED_FOR, peers.join(", ").as_str()), (FORWARDED_URI, uri)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    *request.headers_mut() = headers;
    Ok(request)
}

fn respond(
    response: Response<hyper::body::Incoming>,
    links: Links,
    guard: Option<Guard>,
) -> Result<Answer, Status> {
    let (parts, body) = response.into_parts();
    let mut headers = end_to_end(parts.headers);
    // Who may read across origins is for this server to say. upstream: upgradeaware.go removeCORSHeaders
    for name in [
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN,
    ] {
        headers.remove(name);
    }
    if !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    }
    let redirection = headers.get(LOCATION).and_then(|v| v.to_str().ok()).filter(|l| !l.is_empty());
    let body = match redirection {
        // A redirection within the backend has to stay behind the proxy; the page with it is not for reading.
        Some(location) => {
            let rewritten = links.rewrite(location).map_err(|error| {
                Status::internal(format!("error trying to parse Location header: {error}"))
            })?;
            if let Some(location) = rewritten {
                headers.insert(LOCATION, HeaderValue::from_str(&location).map_err(Status::internal)?);
            }
            page::unread(body, guard)
        }
        None => page::body(&mut headers, body, links, guard),
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = headers;
    Ok(answer)
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

    #[test]
    fn backends_are_asked_for_tidy_paths() {
        for (rest, want) in [
            ("", "/"),
            ("/", "/"),
            ("/a%20b", "/a%20b"),
            ("//a//", "/a/"),
            ("/a/../../b", "/b"),
            ("/..", "/"),
        ] {
            assert_eq!(super::links::clean(rest), want, "{rest}");
        }
    }
}
