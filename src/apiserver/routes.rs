//! Where requests go: the fixed endpoints, and the resource road for all else.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::routing::{any, get};
use copepod_serve::{health, metrics as text};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use tower::ServiceExt as _;

use crate::answer::{self, Answer};
use crate::exchange::Exchange;
use crate::metrics::Guard;
use crate::negotiate::{self, Routable};
use crate::server::Server;
use crate::{discovery, openapi, verbs, version};

/// Hands a request that passed the filters to its handler. `guard` lives as long as the answer of a long-running request.
pub async fn handle(server: Arc<Server>, exchange: Exchange, body: Body, guard: Option<Guard>) -> Answer {
    if exchange.info.is_resource {
        return verbs::handle(server, exchange, body, guard).await;
    }
    let router = server.router.get_or_init(|| router(&server)).clone();
    let mut request = Request::new(Body::empty());
    *request.method_mut() = exchange.parts.method.clone();
    *request.uri_mut() = exchange.parts.uri.clone();
    request.extensions_mut().insert(Arc::new(exchange));
    match router.oneshot(request).await {
        Ok(mut answer) => {
            // axum's, not upstream's.
            answer.headers_mut().remove(http::header::ALLOW);
            answer
        }
        Err(never) => match never {},
    }
}

type Shared = State<std::sync::Weak<Server>>;

/// The fixed endpoints. Paths in discovery's own folders (`/apis/...`) are matched by what is served, not by routes.
fn router(server: &Arc<Server>) -> Router {
    let mut router = Router::new()
        .route("/version", get(version).head(wrong_method))
        .route("/version/", get(version).head(wrong_method))
        .route("/version/{*rest}", any(no_such_path))
        .route("/metrics", get(metrics))
        .route("/metrics/slis", get(metrics))
        .route("/openapi/v2", get(openapi::v2))
        .route("/openapi/v3", get(openapi::v3_index))
        .route("/openapi/v3/{*path}", get(openapi::v3))
        .route("/.well-known/openid-configuration", get(openid_configuration))
        .route("/openid/v1/jwks", get(openid_keys))
        .route("/api", get(discovery::root))
        .route("/api/", get(discovery::root))
        .route("/api/{version}", get(discovery::root))
        .route("/api/{version}/", get(discovery::root))
        .route("/apis", get(discovery::root))
        .route("/apis/", get(discovery::root))
        .route("/apis/{group}", get(discovery::root))
        .route("/apis/{group}/", get(discovery::root))
        .route("/apis/{group}/{version}", get(discovery::root))
        .route("/apis/{group}/{version}/", get(discovery::root));
    for (i, name) in ["healthz", "livez", "readyz"].into_iter().enumerate() {
        router = router
            .route(&format!("/{name}"), any(move |state, request| health(i, state, request)))
            .route(&format!("/{name}/{{*check}}"), any(move |state, request| health(i, state, request)));
    }
    router.fallback(index).method_not_allowed_fallback(wrong_method).with_state(Arc::downgrade(server))
}

/// The exchange that a routed request carries.
pub fn exchange(request: &Request) -> Arc<Exchange> {
    match request.extensions().get::<Arc<Exchange>>() {
        Some(exchange) => Arc::clone(exchange),
        None => Arc::new(Exchange::new(Request::new(Body::empty()).into_parts().0)),
    }
}

/// The server behind a route, as long as it runs.
pub fn server(state: Shared) -> Result<Arc<Server>, Answer> {
    let gone = || answer::text(StatusCode::SERVICE_UNAVAILABLE, "apiserver is shutting down\n");
    state.0.upgrade().ok_or_else(gone)
}

async fn version(request: Request) -> Answer {
    if let Err(refusal) = negotiate::ensure_routable(exchange(&request).headers(), Routable::Json) {
        return exchange(&request).refuse(&refusal);
    }
    answer::bytes(StatusCode::OK, "application/json", version::document())
}

async fn metrics(state: Shared) -> Result<Answer, Answer> {
    let server = server(state)?;
    let mut answer = answer::text(StatusCode::OK, server.metrics.registry.render());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(text::CONTENT_TYPE));
    Ok(answer)
}

async fn health(which: usize, state: Shared, request: Request) -> Result<Answer, Answer> {
    let server = server(state)?;
    let health = &server.health[which];
    let path = request.uri().path().trim_matches('/');
    let made = match path.split_once('/') {
        None => Some(health.answer(request.uri().query().unwrap_or(""))),
        Some((_, check)) => health.answer_one(check),
    };
    let Some(health::HealthAnswer { code, text }) = made else { return Ok(not_found()) };
    let mut answer = answer::text(code, text);
    if path.contains('/') && code == StatusCode::OK {
        answer.headers_mut().remove(http::header::X_CONTENT_TYPE_OPTIONS);
    }
    Ok(answer)
}

/// upstream: apiserver/pkg/server/routes/index.go, for `/` and for every path that nothing serves
async fn index(state: Shared, request: Request) -> Result<Answer, Answer> {
    let server = server(state)?;
    let path = request.uri().path();
    if matches!(path, "/" | "/index.html") && matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(paths(&server));
    }
    Ok(not_found())
}

/// Below a route of upstream's router that has nothing below it.
async fn no_such_path(request: Request) -> Answer {
    exchange(&request).refuse(&copepod_meta::Status::no_such_path())
}

/// A route that exists, with a method that it does not have.
async fn wrong_method(request: Request) -> Answer {
    exchange(&request).refuse(&verbs::method_not_allowed())
}

/// What nothing serves.
pub fn not_found() -> Answer {
    answer::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Every path there is, as a document.
fn paths(server: &Server) -> Answer {
    let mut paths: Vec<String> = server.discovery.paths(server);
    for path in FIXED {
        paths.push((*path).to_string());
    }
    for health in &server.health {
        let name = health.name();
        paths.push(format!("/{name}"));
        paths.extend(health.names().into_iter().map(|check| format!("/{name}/{check}")));
    }
    paths.sort();
    let quoted: Vec<String> = paths.iter().map(|p| format!("    {p:?}")).collect();
    let document = format!("{{\n  \"paths\": [\n{}\n  ]\n}}", quoted.join(",\n"));
    answer::bytes(StatusCode::OK, "application/json", document)
}

const FIXED: &[&str] = &[
    "/.well-known/openid-configuration",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    "/openid/v1/jwks",
    "/version",
];

/// upstream: pkg/serviceaccount/openidmetadata.go
async fn openid_configuration(state: Shared) -> Result<Answer, Answer> {
    let server = server(state)?;
    let config = &server.config;
    if config.jwks.is_none() {
        return Ok(not_found());
    }
    let keys = match config.jwks_uri.as_str() {
        "" => format!("https://{}/openid/v1/jwks", config.external_host),
        uri => uri.to_string(),
    };
    let document = format!(
        r#"{{"issuer":{:?},"jwks_uri":{keys:?},"response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":{}}}"#,
        config.issuer, config.signing_algorithms,
    );
    Ok(openid(answer::bytes(StatusCode::OK, "application/json", document)))
}

async fn openid_keys(state: Shared) -> Result<Answer, Answer> {
    let server = server(state)?;
    let Some(keys) = server.config.jwks.clone() else { return Ok(not_found()) };
    Ok(openid(answer::bytes(StatusCode::OK, "application/jwk-set+json", keys)))
}

/// Keys may be cached for an hour, as upstream says.
fn openid(mut answer: Answer) -> Answer {
    let hour = HeaderValue::from_static("public, max-age=3600");
    answer.headers_mut().insert(http::header::CACHE_CONTROL, hour);
    answer
}
