//! The resource road: which verb on which resource, options, body, and the registry.
//!
//! upstream: apiserver/pkg/endpoints/{installer.go,handlers}
//!
//! It compares no resource's name: what a resource can do is what the facts say. Subresources that connect to something
//! behind us (exec, log, proxy ...) go to [`crate::proxy`].

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as HttpBody;
use bytes::Bytes;
use copepod_meta::{Reason, Status};
use copepod_registry::{Body, DeleteOptions, Target};
use copepod_serve::body::{self, BodyError};
use http::{Method, StatusCode};

use crate::answer::{self, Answer, Style};
use crate::exchange::Exchange;
use crate::metrics::Guard;
use crate::negotiate::{self, Offers, Routable};
use crate::server::Server;
use crate::{proxy, watch, websocket};

/// A request whose place among what is served is known.
struct Routed {
    target: Target,
    verb: Verb,
}

/// What the registry is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    fn of(verb: &str) -> Option<Verb> {
        Some(match verb {
            "get" => Verb::Get,
            "list" => Verb::List,
            "watch" => Verb::Watch,
            "create" => Verb::Create,
            "update" => Verb::Update,
            "patch" => Verb::Patch,
            "delete" => Verb::Delete,
            "deletecollection" => Verb::DeleteCollection,
            _ => return None,
        })
    }

    /// Discovery's word.
    fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
}

/// Answers a resource request. `guard` lives as long as the answer of a long-running one.
pub async fn handle(
    server: Arc<Server>,
    mut exchange: Exchange,
    body: HttpBody,
    guard: Option<Guard>,
) -> Answer {
    let Some(served) =
        server.registry.lookup(&exchange.info.group, &exchange.info.version, &exchange.info.resource)
    else {
        return unknown(&server, &exchange);
    };
    let namespace = if served.resource.namespaced { exchange.info.namespace.clone() } else { String::new() };
    let target = Target {
        served,
        namespace,
        name: exchange.info.name.clone(),
        subresource: exchange.info.subresource.clone(),
    };
    let routed = match route(&exchange, target) {
        Ok(routed) => routed,
        Err(refusal) => return exchange.refuse(&refusal),
    };
    if let Some(connect) = proxy::find(&routed.target) {
        return proxy::connect(server, exchange, body, routed.target, connect, guard).await;
    }
    match perform(&server, &mut exchange, routed, body, guard).await {
        Ok(answer) => answer,
        Err(refusal) => exchange.refuse(&refusal),
    }
}

/// A resource that is not served: in a group that is, or in none.
fn unknown(server: &Server, exchange: &Exchange) -> Answer {
    let info = &exchange.info;
    let table = server.registry.table();
    let known = table.rows().iter().any(|row| row.resource.group == info.group);
    if known {
        return exchange.refuse(&no_such_path());
    }
    crate::routes::not_found()
}

/// upstream: errors.NewGenericServerResponse(404), as the router's error handler makes it
fn no_such_path() -> Status {
    Status::no_such_path()
}

/// upstream: errors.NewGenericServerResponse(405), as the router's error handler makes it
pub fn method_not_allowed() -> Status {
    let mut status = Status::new(
        405,
        Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    );
    status.details = Some(Box::default());
    status
}

/// Which verb, and whether the facts allow it there.
/// upstream: endpoints/installer.go registerResourceHandlers, which makes a route for each
fn route(exchange: &Exchange, target: Target) -> Result<Routed, Status> {
    let (info, served) = (&exchange.info, &target.served);
    let collection = info.parts.len() < 2;
    let in_namespace = !info.namespace.is_empty() && info.parts.first().is_none_or(|p| p != "namespaces");
    if in_namespace && !served.resource.namespaced {
        return Err(no_such_path());
    }
    // One object of a namespaced resource lives in a namespace.
    if served.resource.namespaced && !in_namespace && !collection {
        return Err(no_such_path());
    }
    // `/watch/` knows collections and objects, and `/proxy/` is gone.
    if info.verb_in_path && (info.parts.len() > 2 || info.verb == "proxy") {
        return Err(no_such_path());
    }
    if target.subresource.is_empty() && !has_route(&target, collection, in_namespace) {
        return Err(no_such_path());
    }
    // What a method means behind a proxy is the backend's matter; the registry is not asked, whatever the verb.
    let passed_on = proxy::takes_path(&target) && proxy::METHODS.contains(&exchange.parts.method);
    let verb = if passed_on { Some(Verb::Get) } else { Verb::of(&info.verb) };
    let Some(verb) = verb.filter(|_| passed_on || exchange.parts.method != Method::HEAD) else {
        return Err(method_not_allowed());
    };
    if info.verb_in_path && exchange.parts.method != Method::GET {
        return Err(method_not_allowed());
    }
    let version = served.version();
    if !target.subresource.is_empty() {
        let Some(subresource) = version.subresource(&target.subresource) else { return Err(no_such_path()) };
        if info.parts.len() > 3 && !proxy::takes_path(&target) {
            return Err(no_such_path());
        }
        if !subresource.has_verb(verb.as_str()) {
            return Err(method_not_allowed());
        }
        return Ok(Routed { target, verb });
    }
    if !version.has_verb(verb.as_str()) {
        return Err(method_not_allowed());
    }
    // Over all namespaces one can only look, not touch; objects are made in collections only.
    let over_all = served.resource.namespaced && !in_namespace;
    let allowed = match verb {
        Verb::List | Verb::Watch => true,
        Verb::Create => collection && !over_all,
        Verb::DeleteCollection => !over_all,
        Verb::Get | Verb::Update | Verb::Patch | Verb::Delete => !collection,
    };
    if allowed { Ok(Routed { target, verb }) } else { Err(method_not_allowed()) }
}

/// Whether any verb is served at the path: then a wrong one is 405, else there is no such path.
fn has_route(target: &Target, collection: bool, in_namespace: bool) -> bool {
    let verbs: &[&str] = match (collection, target.served.resource.namespaced && !in_namespace) {
        (true, true) => &["list", "watch"],
        (true, false) => &["list", "watch", "create", "deletecollection"],
        (false, _) => &["get", "update", "patch", "delete"],
    };
    verbs.iter().any(|verb| target.served.version().has_verb(verb))
}

async fn perform(
    server: &Server,
    exchange: &mut Exchange,
    routed: Routed,
    body: HttpBody,
    guard: Option<Guard>,
) -> Result<Answer, Status> {
    let Routed { target, verb } = routed;
    // The types of patches belong to the route.
    let patch = (verb == Verb::Patch).then(|| negotiate::patch_type(exchange.headers())).transpose()?;
    if verb != Verb::Watch {
        let routable = if verb == Verb::List { Routable::Streams } else { Routable::Objects };
        negotiate::ensure_routable(exchange.headers(), routable)?;
    }
    // A request that finds no route is warned of nothing.
    if let Some(text) = deprecation(&target) {
        exchange.warnings.add(text);
    }
    if verb == Verb::Watch {
        return self::watch(server, exchange, &target, guard).await;
    }
    let exchange = &*exchange;
    let (registry, caller, query) = (&server.registry, exchange.caller(), &exchange.query);
    let offers = if target.shows_table() { Offers::Transforms } else { Offers::Metadata };
    let accepted = negotiate::accept(exchange.headers(), &query.0, offers)?;
    let style = exchange.style(accepted);
    let answer = match verb {
        Verb::Watch => unreachable!("answered above"),
        Verb::Get => registry.get(&caller, &target, &query.get_options()).await?,
        Verb::List => {
            let listing = registry.list(&caller, &target, query.list_options()?).await?;
            return answer::listing(listing, &style);
        }
        Verb::Create => {
            let body = object(server, exchange, body).await?;
            registry.create(&caller, &target, body, &query.write_options()).await?
        }
        Verb::Update => {
            let body = object(server, exchange, body).await?;
            registry.update(&caller, &target, body, &query.write_options()).await?
        }
        Verb::Patch => {
            let Some((kind, media)) = patch else { unreachable!("read above") };
            let bytes = read(server, body).await?;
            registry.patch(&caller, &target, kind, Body { media, bytes }, &query.write_options()).await?
        }
        Verb::Delete => {
            let options = delete_options(server, exchange, body).await?;
            registry.delete(&caller, &target, &options).await?
        }
        Verb::DeleteCollection => return delete_collection(server, exchange, &target, body, &style).await,
    };
    let code = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::OK);
    answer::content(code, &answer.content, &style)
}

async fn delete_collection(
    server: &Server,
    exchange: &Exchange,
    target: &Target,
    body: HttpBody,
    style: &Style,
) -> Result<Answer, Status> {
    let list = exchange.query.list_options()?;
    let options = delete_options(server, exchange, body).await?;
    let deleted = server.registry.delete_collection(&exchange.caller(), target, list, &options).await?;
    answer::listing(deleted, style)
}

/// upstream: handlers/get.go ListResource, the part of a watch
async fn watch(
    server: &Server,
    exchange: &mut Exchange,
    target: &Target,
    guard: Option<Guard>,
) -> Result<Answer, Status> {
    negotiate::ensure_routable(exchange.headers(), Routable::Streams)?;
    let accepted = negotiate::accept_stream(exchange.headers(), &exchange.query.0)?;
    let mut options = exchange.query.list_options()?;
    options.watch = true;
    let timeout = match options.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
        // Spread, so that a thousand watches that began together do not end together.
        _ => server.config.watch_timeout_min.mul_f64(1.0 + rand::random::<f64>()),
    };
    let watch = server.registry.watch(&exchange.caller(), target, options).await?;
    if websocket::is_asked(exchange.headers()) {
        let client = exchange.parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        return Ok(watch::websocket::response(watch, accepted, timeout, guard, exchange.headers(), client));
    }
    let gvr = target.served.gvr();
    let sent = server.metrics.watch_events.with(&[&gvr.group, &gvr.resource, &gvr.version]);
    Ok(watch::response(watch, accepted, timeout, sent, guard))
}

/// The object of a body.
async fn object(server: &Server, exchange: &Exchange, body: HttpBody) -> Result<Body, Status> {
    let bytes = read(server, body).await?;
    Ok(Body { media: negotiate::body_media(exchange.headers())?, bytes })
}

/// Options from the body if there is one, else from the query. upstream: handlers/delete.go
async fn delete_options(
    server: &Server,
    exchange: &Exchange,
    body: HttpBody,
) -> Result<DeleteOptions, Status> {
    let bytes = read(server, body).await?;
    if bytes.is_empty() {
        return exchange.query.delete_options();
    }
    let body = Body { media: negotiate::body_media(exchange.headers())?, bytes };
    server.registry.decode_delete_options(&body)
}

/// Reads a body within the limit. upstream: handlers/rest.go limitedReadBody
async fn read(server: &Server, body: HttpBody) -> Result<Bytes, Status> {
    body::read(body, server.config.body_bytes_max).await.map_err(|error| match error {
        BodyError::TooLarge(limit) => Status::request_entity_too_large(limit),
        BodyError::Broken(why) => Status::bad_request(why),
    })
}

/// Versions that upstream warns of. upstream: zz_generated.prerelease-lifecycle.go and APILifecycleDeprecated of core/v1
fn deprecation(target: &Target) -> Option<&'static str> {
    const DEPRECATED: &[(&str, &str, &str, &str)] = &[
        (
            "",
            "v1",
            "Endpoints",
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        ),
        ("", "v1", "ComponentStatus", "v1 ComponentStatus is deprecated in v1.19+"),
    ];
    let served = &target.served;
    let (group, version, kind) = (&served.resource.group, &served.version().version, &served.resource.kind);
    DEPRECATED.iter().find(|d| d.0 == group && d.1 == version && d.2 == kind).map(|d| d.3)
}
