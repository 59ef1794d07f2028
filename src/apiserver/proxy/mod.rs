//! Requests that are answered by something behind us: exec, attach, port-forward and log of pods; proxies to pods, services
//! and nodes.
//!
//! | module | what |
//! |---|---|
//! | [`backend`] | opening connections: to a node's kubelet with our certificate, to a pod without trust |
//! | [`location`] | which address a request goes to |
//! | [`log`] | a container's log, streamed |
//! | [`stream`] | upgrades: bytes both ways after the backend's 101 |
//! | [`forward`] | plain HTTP requests |
//! | [`links`], [`html`], [`page`] | links and redirections of what is behind us lead through us |
//! | [`options`] | what is asked, as admission sees it |
//!
//! Invariants: the client's credentials stay here; a connection is tunnelled only after the backend switched protocols
//! (CVE-2018-1002105); addresses come from objects, never from the client.

mod backend;
mod forward;
mod html;
mod links;
mod location;
mod log;
mod options;
mod page;
mod stream;

use std::sync::Arc;

use axum::body::Body;
use copepod_meta::{Reason, Status, Value};
use copepod_registry::{Caller, Content, GetOptions, Target};
use http::Method;

pub use backend::{BackendError, Backends, KubeletFiles};

use crate::answer::Answer;
use crate::exchange::Exchange;
use crate::filters;
use crate::metrics::Guard;
use crate::server::Server;

/// What a subresource connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    /// A new process in a container.
    Exec,
    /// A container's own process.
    Attach,
    /// A pod's ports.
    PortForward,
    /// A container's log.
    Log,
    /// A pod's HTTP server.
    Pod,
    /// A service's HTTP server.
    Service,
    /// A node's kubelet.
    Node,
}

/// The subresources that connect, of the core group.
const CONNECTS: &[(&str, &str, Connect)] = &[
    ("pods", "exec", Connect::Exec),
    ("pods", "attach", Connect::Attach),
    ("pods", "portforward", Connect::PortForward),
    ("pods", "log", Connect::Log),
    ("pods", "proxy", Connect::Pod),
    ("services", "proxy", Connect::Service),
    ("nodes", "proxy", Connect::Node),
];

/// The methods that a proxy passes on. upstream: pkg/registry/core/pod/rest/subresources.go proxyMethods
pub const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];

/// Whether a request is answered behind us.
pub fn find(target: &Target) -> Option<Connect> {
    if target.subresource.is_empty() || !target.served.resource.group.is_empty() {
        return None;
    }
    let wanted =
        |c: &&(&str, &str, Connect)| c.0 == target.served.resource.plural && c.1 == target.subresource;
    CONNECTS.iter().find(wanted).map(|c| c.2)
}

/// Whether a path may follow the subresource.
pub fn takes_path(target: &Target) -> bool {
    matches!(find(target), Some(Connect::Pod | Connect::Service | Connect::Node))
}

/// Answers it.
pub async fn connect(
    server: Arc<Server>,
    exchange: Exchange,
    body: Body,
    target: Target,
    connect: Connect,
    guard: Option<Guard>,
) -> Answer {
    let mut exchange = exchange;
    if let Err(refusal) = admit(&server, &exchange, &target, connect).await {
        return exchange.refuse(&refusal);
    }
    let made = match connect {
        Connect::Log => log::answer(&server, &mut exchange, &target, guard).await,
        Connect::Exec | Connect::Attach | Connect::PortForward => {
            stream::answer(&server, &mut exchange, &target, connect, guard).await
        }
        Connect::Pod | Connect::Service | Connect::Node => {
            forward::answer(&server, &mut exchange, body, &target, connect, guard).await
        }
    };
    match made {
        Ok(answer) => answer,
        Err(refusal) => exchange.refuse(&refusal),
    }
}

/// Admission comes before anything is looked up. upstream: endpoints/handlers/rest.go ConnectResource
async fn admit(
    server: &Server,
    exchange: &Exchange,
    target: &Target,
    connect: Connect,
) -> Result<(), Status> {
    let Some((kind, mut asked)) = options::of(connect, exchange)? else { return Ok(()) };
    server.registry.admit_connect(&exchange.caller(), target, kind, &mut asked).await
}

/// An object of the core group, as the cache has it.
async fn object(
    server: &Server,
    caller: &Caller,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Result<Value, Status> {
    let served = server.registry.lookup("", "v1", resource).ok_or_else(Status::no_such_path)?;
    let target =
        Target { served, namespace: namespace.into(), name: name.into(), subresource: String::new() };
    match server.registry.get(caller, &target, &GetOptions::default()).await?.content {
        Content::Stored(object) => object.tree(),
        _ => Err(Status::internal("not a stored object")),
    }
}

/// A WebSocket begins with a GET, but connecting is a creation: who may only read may not.
/// upstream: feature AuthorizePodWebsocketUpgradeCreatePermission, registry/core/pod/rest/subresources.go
async fn ensure_may_create(server: &Server, exchange: &Exchange) -> Result<(), Status> {
    if exchange.info.verb != "get" {
        return Ok(());
    }
    let mut attributes = exchange.info.attributes(Arc::clone(&exchange.user));
    attributes.verb = "create".into();
    filters::denied(&*server.authorizer, &attributes).await.map_or(Ok(()), Err)
}

/// A failure that upstream reports with nothing but its text.
fn plain_error(message: String) -> Status {
    Status::new(500, Reason::Unknown, message)
}
