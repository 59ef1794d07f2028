//! exec, attach, port-forward: from the client's upgrade to the runtime's streaming server.
//!
//! SPDY is handed on byte for byte; the WebSocket forms end here and become SPDY (see `copepod_streaming`).
//!
//! upstream: kubelet/server/server.go getExec, getAttach, getPortForward

use std::future::Future;

use copepod_cri::api;
use copepod_streaming::{
    ClientProtocol, Negotiated, PORT_FORWARD_PROTOCOL, Prefixed, REMOTE_COMMAND_PROTOCOLS,
    RemoteCommandOptions, StreamError, TUNNEL_PROTOCOL, Upgrade, UpgradeRequest, remote_command, splice,
    tunnel, upgrade,
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Body, Query, running_container, text};
use crate::{
    container::labels,
    context::Context,
    pod::model::{find_container, uid},
};

/// What the SPDY side of the runtime is asked for.
const SPDY_COMMAND_PROTOCOLS: &[&str] =
    &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

type Client = TokioIo<hyper::upgrade::Upgraded>;
type Backend = Prefixed<TcpStream>;

/// exec and attach.
pub async fn command(
    context: &Context,
    kind: &str,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Response<Body> {
    let mut options = RemoteCommandOptions {
        stdin: query.is_set("input") || query.is_set("stdin"),
        stdout: query.is_set("output") || query.is_set("stdout"),
        stderr: query.is_set("error") || query.is_set("stderr"),
        tty: query.is_set("tty"),
    };
    if options.tty {
        // A terminal has one output.
        options.stderr = false;
    }
    if !options.stdin && !options.stdout && !options.stderr {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let id = match running_container(context, namespace, pod, container).await {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    let RemoteCommandOptions { stdin, stdout, stderr, .. } = options;
    let url = if kind == "exec" {
        let cmd = query.all("command");
        let request = api::ExecRequest { container_id: id, cmd, tty: options.tty, stdin, stdout, stderr };
        context.runtime.exec(request).await
    } else {
        // Whether there is a terminal is the container's own affair.
        let found = context.pods.by_name(namespace, pod);
        options.tty = found
            .and_then(|pod| find_container(&pod, container).map(|(_, container)| container.tty == Some(true)))
            .unwrap_or(false);
        let stderr = stderr && !options.tty;
        options.stderr = stderr;
        let request = api::AttachRequest { container_id: id, stdin, tty: options.tty, stdout, stderr };
        context.runtime.attach(request).await
    };
    let url = match url {
        Ok(url) => url,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.grpc_text()),
    };
    match ClientProtocol::of(request.headers()) {
        ClientProtocol::None => text(StatusCode::BAD_REQUEST, "Upgrade request required"),
        ClientProtocol::Spdy => hand_on(&url, request).await,
        websocket => {
            let Some(negotiated) = websocket.negotiate(REMOTE_COMMAND_PROTOCOLS) else {
                return text(StatusCode::BAD_REQUEST, "unable to negotiate a websocket protocol");
            };
            let channels = negotiated.channels();
            let translated =
                move |client: Client, backend: Backend| remote_command(client, channels, backend, options);
            translate(&url, request, &negotiated, SPDY_COMMAND_PROTOCOLS, translated).await
        }
    }
}

/// port-forward.
pub async fn port_forward(
    context: &Context,
    namespace: &str,
    pod: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Response<Body> {
    let Some(found) = context.pods.by_name(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    let filter = api::PodSandboxFilter {
        label_selector: [(labels::POD_UID.to_owned(), uid(&found).to_owned())].into(),
        state: Some(api::PodSandboxStateValue { state: api::PodSandboxState::SandboxReady.into() }),
        ..api::PodSandboxFilter::default()
    };
    let sandbox = match context.runtime.list_pod_sandboxes(Some(filter)).await {
        Ok(list) => list.into_iter().max_by_key(|sandbox| sandbox.created_at),
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.grpc_text()),
    };
    let Some(sandbox) = sandbox else {
        let what = crate::text::pod_desc(pod, namespace, uid(&found));
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to find sandboxID for pod {what}"));
    };
    let port = query
        .all("port")
        .iter()
        .chain(&query.all("ports"))
        .flat_map(|list| list.split(','))
        .filter_map(|port| port.parse().ok())
        .collect();
    let url = match context
        .runtime
        .port_forward(api::PortForwardRequest { pod_sandbox_id: sandbox.id, port })
        .await
    {
        Ok(url) => url,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.grpc_text()),
    };
    let protocol = ClientProtocol::of(request.headers());
    match protocol.negotiate(&[TUNNEL_PROTOCOL]) {
        Some(negotiated) => translate(&url, request, &negotiated, &[PORT_FORWARD_PROTOCOL], tunnel).await,
        None if protocol == ClientProtocol::None => text(StatusCode::BAD_REQUEST, "Upgrade request required"),
        // SPDY, and the channel form of WebSocket, which the runtime knows itself.
        None => hand_on(&url, request).await,
    }
}

/// Connects to the runtime's streaming server; also its host and the path to ask for.
async fn connect(url: &str) -> Result<(TcpStream, String, String), String> {
    let url: http::Uri = url.parse().map_err(|error| format!("streaming URL {url:?}: {error}"))?;
    let authority = url.authority().ok_or("streaming URL without host")?.as_str().to_owned();
    let target = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let stream = TcpStream::connect(&authority)
        .await
        .map_err(|error| format!("streaming server {authority}: {error}"))?;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    Ok((stream, authority, target))
}

fn switching(headers: HeaderMap) -> Response<Body> {
    let mut response = Response::new(Empty::new().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response
}

fn bad_gateway(error: &str) -> Response<Body> {
    tracing::warn!(error, "streaming");
    text(StatusCode::INTERNAL_SERVER_ERROR, error.to_owned())
}

/// Runs the copy once the client's side is upgraded.
fn run<F>(request: Request<Incoming>, copy: impl FnOnce(Client) -> F + Send + 'static)
where
    F: Future<Output = Result<(), StreamError>> + Send,
{
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(client) => {
                if let Err(error) = copy(TokioIo::new(client)).await {
                    tracing::debug!(%error, "streaming ended");
                }
            }
            Err(error) => tracing::debug!(%error, "upgrade"),
        }
    });
}

/// The client's upgrade, sent on as it is.
async fn hand_on(url: &str, request: Request<Incoming>) -> Response<Body> {
    let (stream, host, target) = match connect(url).await {
        Ok(connected) => connected,
        Err(error) => return bad_gateway(&error),
    };
    let forwarded = UpgradeRequest::forward(request.method().clone(), &host, &target, request.headers());
    match upgrade(stream, &forwarded).await {
        Ok(Upgrade::Switched { headers, stream }) => {
            run(request, move |client| splice(client, stream));
            switching(headers)
        }
        Ok(Upgrade::Refused { status, body, .. }) => text(status, body),
        Err(error) => bad_gateway(&error.to_string()),
    }
}

/// A WebSocket that ends here, SPDY behind it.
async fn translate<F>(
    url: &str,
    request: Request<Incoming>,
    negotiated: &Negotiated,
    protocols: &[&str],
    copy: impl FnOnce(Client, Backend) -> F + Send + 'static,
) -> Response<Body>
where
    F: Future<Output = Result<(), StreamError>> + Send,
{
    let (stream, host, target) = match connect(url).await {
        Ok(connected) => connected,
        Err(error) => return bad_gateway(&error),
    };
    match upgrade(stream, &UpgradeRequest::spdy(&host, &target, protocols)).await {
        Ok(Upgrade::Switched { stream, .. }) => {
            run(request, move |client| copy(client, stream));
            switching(negotiated.response_headers())
        }
        Ok(Upgrade::Refused { status, body, .. }) => text(status, body),
        Err(error) => bad_gateway(&error.to_string()),
    }
}
