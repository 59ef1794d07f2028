//! What every request passes before a handler sees it. The order stands in ONE place: [`run`].
//!
//! upstream: apiserver/pkg/server/config.go DefaultBuildHandlerChain
//!
//! Invariants: no handler runs for a request that was not authenticated and authorized; a panic never reaches the client but
//! as a 500; a write that has begun is finished even if its client is gone.

mod impersonation;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use copepod_access::{Authenticated, Credentials, Peer};
use copepod_meta::field::quote;
use copepod_meta::{Attributes, Authorizer, Decision, GroupResource, Status};
use futures::FutureExt as _;
use http::header::{CACHE_CONTROL, RETRY_AFTER};
use http::{HeaderValue, Request, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::impersonation::Impersonated;
use crate::answer::{self, Answer};
use crate::exchange::Exchange;
use crate::metrics::{Guard, Labels};
use crate::request_info::RequestInfo;
use crate::server::Server;

/// A request without a place among those in flight waits so long, then gets 429.
const QUEUE_WAIT: Duration = Duration::from_secs(15);
/// Requests that wait for a place, at most: each holds a connection's stream and its head.
const QUEUE_MAX: usize = 2_000;

/// Takes a request through the chain to its handler.
pub async fn run(server: Arc<Server>, request: Request<Body>) -> Answer {
    let (parts, body) = request.into_parts();
    if copepod_meta::url::unescape_path(parts.uri.path()).is_err() {
        return malformed_path();
    }
    let mut exchange = Exchange::new(parts);
    let info = {
        let (method, uri) = (&exchange.parts.method, &exchange.parts.uri);
        RequestInfo::new(method, uri.path(), uri.query().unwrap_or(""))
    };
    match info {
        Ok(info) => exchange.info = info,
        // upstream: endpoints/filters/requestinfo.go: an error here is answered before anything else
        Err(error) => {
            let uri = exchange.parts.uri.path_and_query().map_or("", |p| p.as_str());
            let text = format!("Internal Server Error: {uri:?}: failed to create RequestInfo: {error}\n");
            return answer::text(StatusCode::INTERNAL_SERVER_ERROR, text);
        }
    }
    let labels = Labels::new(&exchange, server.serves(&exchange.info));
    let (received, audit_id) = (exchange.received, audit_id(&exchange));
    let cors = cors_headers(&server, &exchange);
    let warnings = exchange.warnings.clone();
    let goaway = server.config.goaway_chance > 0.0 && rand::random::<f64>() < server.config.goaway_chance;
    if goaway {
        exchange.connection.close_gracefully();
    }
    let head = exchange.parts.method == http::Method::HEAD;
    let metrics = Arc::clone(&server);
    let mut answer = guarded(Box::pin(chain(server, exchange, body, labels.clone()))).await;
    if answer.status() == StatusCode::GATEWAY_TIMEOUT {
        metrics.metrics.terminated(&labels, "504");
    }
    metrics.metrics.finished(&labels, answer.status().as_u16(), received.elapsed().as_secs_f64());
    if head {
        // The connection would send the body behind the head.
        *answer.body_mut() = Body::empty();
    }
    let headers = answer.headers_mut();
    headers.insert("audit-id", audit_id);
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    headers.extend(cors);
    for warning in warnings.take() {
        if let Some(value) = warning_header(&warning) {
            headers.append(http::header::WARNING, value);
        }
    }
    answer
}

/// Go's server refuses these before any handler.
fn malformed_path() -> Answer {
    let mut answer = answer::text(StatusCode::BAD_REQUEST, "400 Bad Request");
    answer.headers_mut().remove(http::header::X_CONTENT_TYPE_OPTIONS);
    answer
}

/// The chain. Whoever refuses answers; the request's information was read before.
async fn chain(server: Arc<Server>, mut exchange: Exchange, body: Body, labels: Labels) -> Answer {
    let passed = async {
        set_deadline(&server, &mut exchange)?;
        preflight(&server, &exchange)?;
        authenticate(&server, &mut exchange).await?;
        impersonate(&server, &mut exchange).await?;
        let place = in_flight(&server, &exchange).await?;
        authorize(&server, &exchange).await?;
        Ok::<Place, Box<Answer>>(place)
    };
    let place = match passed.await {
        Ok(place) => place,
        Err(refusal) => return *refusal,
    };
    if exchange.info.is_long_running() {
        let guard = server.metrics.long_running(&labels);
        return crate::routes::handle(server, exchange, body, Some(guard)).await;
    }
    let deadline = exchange.deadline;
    let writes = !exchange.info.is_read_only();
    let handler = async move {
        let _place = place;
        crate::routes::handle(server, exchange, body, None).await
    };
    let Some(deadline) = deadline else { return handler.await };
    let limited = async move {
        tokio::time::timeout_at(deadline.into(), handler).await.unwrap_or_else(|_| request_timeout())
    };
    if !writes {
        return limited.await;
    }
    // A client that hangs up drops this future; a write must not stop half-way for that.
    match tokio::spawn(limited).await {
        Ok(answer) => answer,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => answer::text(StatusCode::SERVICE_UNAVAILABLE, "apiserver is shutting down\n"),
    }
}

/// upstream: server/filters/wrap.go WithPanicRecovery
async fn guarded(future: impl Future<Output = Answer>) -> Answer {
    AssertUnwindSafe(future).catch_unwind().await.unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().map(String::as_str);
        let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
        tracing::error!(panic = what, "a request made the server panic");
        let text = "This request caused apiserver to panic. Look in the logs for details.\n";
        answer::text(StatusCode::INTERNAL_SERVER_ERROR, text)
    })
}

type Passed<T> = Result<T, Box<Answer>>;

fn refuse<T>(exchange: &Exchange, status: &Status) -> Passed<T> {
    Err(Box::new(exchange.refuse(status)))
}

/// Written by upstream's filter as it is, without type and without negotiation. upstream: server/filters/timeout.go
fn request_timeout() -> Answer {
    let text = concat!(
        r#"{"metadata":{},"status":"Failure","message":"Timeout: request did not complete within the allotted timeout","#,
        r#""reason":"Timeout","details":{},"code":504}"#,
        "\n"
    );
    let mut answer = answer::text(StatusCode::GATEWAY_TIMEOUT, text);
    answer.headers_mut().remove(http::header::X_CONTENT_TYPE_OPTIONS);
    answer
}

/// upstream: endpoints/filters/request_deadline.go
fn set_deadline(server: &Server, exchange: &mut Exchange) -> Passed<()> {
    if exchange.info.is_long_running() {
        return Ok(());
    }
    let mut timeout = server.config.request_timeout;
    if let Some(asked) = exchange.query.first("timeout").filter(|t| !t.is_empty()) {
        // A negative duration is one too; it limits nothing here.
        match asked.trim_start_matches('-').parse::<copepod_serve::flags::GoDuration>() {
            Ok(_) if asked.starts_with('-') => {}
            Ok(asked) if !asked.0.is_zero() => timeout = timeout.min(asked.0),
            Ok(_) => {}
            Err(why) => {
                return refuse(
                    exchange,
                    &Status::bad_request(format!("invalid timeout specified in the request URL - {why}")),
                );
            }
        }
    }
    exchange.deadline = Some(exchange.received + timeout);
    Ok(())
}

/// Headers for origins that `--cors-allowed-origins` allows. upstream: server/filters/cors.go
fn cors_headers(server: &Server, exchange: &Exchange) -> http::HeaderMap {
    let mut out = http::HeaderMap::new();
    let origin = exchange.header(http::header::ORIGIN);
    if origin.is_empty() || !server.config.cors_allowed_origins.iter().any(|o| o.is_match(origin)) {
        return out;
    }
    let Ok(value) = HeaderValue::from_str(origin) else { return out };
    out.insert("access-control-allow-origin", value);
    for (name, value) in [
        ("access-control-allow-methods", "POST, GET, OPTIONS, PUT, DELETE, PATCH"),
        (
            "access-control-allow-headers",
            "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since",
        ),
        ("access-control-expose-headers", "Date"),
        ("access-control-allow-credentials", "true"),
    ] {
        out.insert(name, HeaderValue::from_static(value));
    }
    out
}

/// Answers a browser's OPTIONS before it is asked who it is: it never says.
fn preflight(server: &Server, exchange: &Exchange) -> Passed<()> {
    if exchange.parts.method == http::Method::OPTIONS && !cors_headers(server, exchange).is_empty() {
        let mut answer = Answer::new(Body::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        return Err(Box::new(answer));
    }
    Ok(())
}

/// upstream: endpoints/filters/authentication.go
async fn authenticate(server: &Server, exchange: &mut Exchange) -> Passed<()> {
    let peer = peer(exchange);
    let credentials =
        Credentials { peer: peer.as_deref(), headers: &exchange.parts.headers, path: &exchange.info.path };
    let (result, user) = match server.authenticator.authenticate(credentials).await {
        Ok(Some(Authenticated { user, .. })) => ("success", Some(user)),
        Ok(None) => ("failure", None),
        Err(error) => {
            tracing::info!(%error, path = exchange.info.path, "Unable to authenticate the request");
            ("error", None)
        }
    };
    server.metrics.authentications.with(&[result]).inc();
    let Some(user) = user else { return refuse(exchange, &Status::unauthorized()) };
    server.metrics.authenticated.with(&[user_label(&user.name)]).inc();
    copepod_access::authn::remove_credentials(&mut exchange.parts.headers);
    exchange.user = user;
    Ok(())
}

/// upstream: endpoints/filters/metrics.go compressUsername
fn user_label(name: &str) -> &str {
    match name {
        "admin" | "client" | "kube_proxy" | "kubelet" | "system:serviceaccount:kube-system:default" => name,
        _ if name.contains('@') => "email_id",
        _ => "other",
    }
}

/// The connection's peer, kept with the connection so that its chain is verified once.
fn peer(exchange: &Exchange) -> Option<Arc<Peer>> {
    let connection = &exchange.connection;
    if connection.peer_certificates.is_empty() {
        return None;
    }
    let memo = connection.memo.get_or_init(|| Arc::new(Peer::new(connection.peer_certificates.to_vec())));
    Arc::clone(memo).downcast::<Peer>().ok()
}

/// upstream: endpoints/filters/impersonation
async fn impersonate(server: &Server, exchange: &mut Exchange) -> Passed<()> {
    let Some(asked) = Impersonated::of(exchange.headers()) else { return Ok(()) };
    if asked.name.is_empty() {
        let why = format!("requested {} without impersonating a user name", asked.print());
        return Err(Box::new(nosniff(exchange.refuse(&Status::bad_request(why)))));
    }
    let attributes = exchange.info.attributes(Arc::clone(&exchange.user));
    let user = match asked.allowed(&*server.authorizer, &attributes).await {
        Ok(user) => user,
        Err(refusal) => return Err(Box::new(nosniff(exchange.refuse(&refusal)))),
    };
    tracing::info!(by = exchange.user.name, user = asked.name, "impersonation");
    exchange.user = Arc::new(user);
    let headers = &mut exchange.parts.headers;
    let names: Vec<_> = headers.keys().filter(|n| n.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    Ok(())
}

/// Places for requests in flight.
pub struct InFlight {
    reading: Arc<Semaphore>,
    writing: Arc<Semaphore>,
    queue: Semaphore,
}

impl InFlight {
    /// upstream: --max-requests-inflight, --max-mutating-requests-inflight
    pub fn new(reading: usize, writing: usize) -> InFlight {
        let places = |n: usize| Arc::new(Semaphore::new(if n == 0 { Semaphore::MAX_PERMITS } else { n }));
        InFlight { reading: places(reading), writing: places(writing), queue: Semaphore::new(QUEUE_MAX) }
    }
}

/// A place, given back when dropped.
pub struct Place {
    _permit: Option<OwnedSemaphorePermit>,
    _gauge: Option<Guard>,
}

/// upstream: server/filters/maxinflight.go, but full is not refused at once: a short wait costs a client less than a retry.
async fn in_flight(server: &Server, exchange: &Exchange) -> Passed<Place> {
    let exempt = exchange.info.is_long_running()
        || exchange.user.in_group("system:masters")
        || matches!(exchange.info.path.as_str(), "/healthz" | "/livez" | "/readyz");
    let (places, kind) = match exchange.info.is_read_only() {
        true => (&server.in_flight.reading, "readOnly"),
        false => (&server.in_flight.writing, "mutating"),
    };
    let gauge = || Guard::new(server.metrics.inflight.with(&[kind]));
    if exempt {
        return Ok(Place { _permit: None, _gauge: None });
    }
    if let Ok(permit) = Arc::clone(places).try_acquire_owned() {
        return Ok(Place { _permit: Some(permit), _gauge: Some(gauge()) });
    }
    let wait = exchange.time_left().map_or(QUEUE_WAIT, |left| left.min(QUEUE_WAIT));
    if let Ok(_waiting) = server.in_flight.queue.try_acquire()
        && let Ok(Ok(permit)) = tokio::time::timeout(wait, Arc::clone(places).acquire_owned()).await
    {
        return Ok(Place { _permit: Some(permit), _gauge: Some(gauge()) });
    }
    let mut answer =
        answer::text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    Err(Box::new(answer))
}

/// upstream: endpoints/filters/authorization.go
async fn authorize(server: &Server, exchange: &Exchange) -> Passed<()> {
    let path = exchange.info.path.as_str();
    if server.config.always_allow_paths.iter().any(|p| allows(p, path)) {
        return Ok(());
    }
    let attributes = exchange.info.attributes(Arc::clone(&exchange.user));
    match denied(&*server.authorizer, &attributes).await {
        None => Ok(()),
        Some(refusal) => Err(Box::new(nosniff(exchange.refuse(&refusal)))),
    }
}

fn nosniff(mut answer: Answer) -> Answer {
    answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

fn allows(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

/// The 403 (or 500) if the user may not; `None` if it may.
pub async fn denied(authorizer: &dyn Authorizer, attributes: &Attributes) -> Option<Status> {
    match authorizer.authorize(attributes).await {
        Ok(Decision::Allow { .. }) => None,
        Ok(Decision::Deny { reason } | Decision::NoOpinion { reason }) => {
            Some(forbidden(attributes, &reason))
        }
        Err(error) => Some(error),
    }
}

/// upstream: handlers/responsewriters/errors.go ForbiddenStatusError
pub fn forbidden(a: &Attributes, reason: &str) -> Status {
    let user = quote(&a.user.name);
    let what = if !a.is_resource {
        format!("User {user} cannot {} path {}", a.verb, quote(&a.path))
    } else {
        let resource = match a.subresource.as_str() {
            "" => a.resource.clone(),
            subresource => format!("{}/{subresource}", a.resource),
        };
        let place = match a.namespace.as_str() {
            "" => "at the cluster scope".to_string(),
            namespace => format!("in the namespace {}", quote(namespace)),
        };
        let (resource, group) = (quote(&resource), quote(&a.group));
        format!("User {user} cannot {} resource {resource} in API group {group} {place}", a.verb)
    };
    // Nothing that a browser could take for HTML.
    let what = what.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let why = if reason.is_empty() { what } else { format!("{what}: {reason}") };
    Status::forbidden(&GroupResource::new(&a.group, &a.resource), &a.name, &why)
}

/// The client's identifier of the request, or a fresh one. upstream: endpoints/filters/audit_init.go
fn audit_id(exchange: &Exchange) -> HeaderValue {
    const LEN_MAX: usize = 64;
    if let Some(given) = exchange.headers().get("audit-id").filter(|v| !v.is_empty()) {
        let cut = &given.as_bytes()[..given.len().min(LEN_MAX)];
        if let Ok(value) = HeaderValue::from_bytes(cut) {
            return value;
        }
    }
    let id = uuid::Uuid::new_v4().to_string();
    HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// `299 - "text"`. upstream: apimachinery/pkg/util/net/http.go NewWarningHeader
fn warning_header(text: &str) -> Option<HeaderValue> {
    let mut value = String::with_capacity(text.len() + 10);
    value.push_str("299 - \"");
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            value.push('\\');
        }
        value.push(c);
    }
    value.push('"');
    HeaderValue::from_bytes(value.as_bytes()).ok()
}
