//! exec, attach and port-forward: the client's upgrade goes to the kubelet as it is, then bytes flow both ways.
//!
//! The kubelet understands every protocol that clients offer (it declares `ExtendWebSocketsToKubelet`), so nothing is
//! translated here.
//!
//! upstream: pkg/registry/core/pod/rest/subresources.go, apimachinery/pkg/util/proxy/upgradeaware.go

use std::sync::Arc;

use copepod_meta::{ErrorList, FieldError, Path, Status, Value};
use copepod_registry::Target;
use copepod_streaming::{Upgrade, UpgradeRequest, splice, upgrade};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::backend::Address;
use super::location::{self, container, query};
use super::{Connect, object};
use crate::answer::Answer;
use crate::exchange::Exchange;
use crate::metrics::Guard;
use crate::request_info::query_bool;
use crate::server::Server;

/// Answers `pods/exec`, `pods/attach`, `pods/portforward`.
pub async fn answer(
    server: &Arc<Server>,
    exchange: &mut Exchange,
    target: &Target,
    connect: Connect,
    guard: Option<Guard>,
) -> Result<Answer, Status> {
    super::ensure_may_create(server, exchange).await?;
    let caller = exchange.caller();
    let pod = object(server, &caller, "pods", &target.namespace, &target.name).await?;
    let path = path(exchange, target, connect, &pod)?;
    let node = pod.str_at(&["spec", "nodeName"]);
    if node.is_empty() {
        let message = format!("pod {} does not have a host assigned", target.name);
        return Err(Status::bad_request(message));
    }
    let kubelet = location::kubelet(server, &caller, node).await?;
    tunnel(server, exchange, &kubelet, &kubelet.authority(), &path, guard).await
}

/// Where on the kubelet, with its options. upstream: pod/strategy.go streamLocation, PortForwardLocation, streamParams
fn path(exchange: &Exchange, target: &Target, connect: Connect, pod: &Value) -> Result<String, Status> {
    let asked = &exchange.query;
    if connect == Connect::PortForward {
        let ports: Vec<(String, String)> = asked.0.iter().filter(|(k, _)| k == "ports").cloned().collect();
        let ports: Vec<(String, String)> = ports.into_iter().map(|(_, v)| ("port".to_string(), v)).collect();
        let query = if ports.is_empty() { String::new() } else { format!("?{}", query(&ports)) };
        return Ok(format!("/portForward/{}/{}{query}", target.namespace, target.name));
    }
    let flag = |name: &str| asked.first(name).is_some_and(query_bool);
    let (stdin, stdout, stderr, tty) = (flag("stdin"), flag("stdout"), flag("stderr"), flag("tty"));
    let command: Vec<String> =
        asked.0.iter().filter(|(k, _)| k == "command").map(|(_, v)| v.clone()).collect();
    let container = container(&asked.text("container"), pod)?;
    validate(connect, target, (stdin, stdout, stderr, tty), &command)?;
    let mut params = Vec::new();
    for (on, name) in [(stdin, "input"), (stdout, "output"), (stderr, "error"), (tty, "tty")] {
        if on {
            params.push((name.to_string(), "1".to_string()));
        }
    }
    params.extend(command.into_iter().map(|c| ("command".to_string(), c)));
    let what = if connect == Connect::Exec { "exec" } else { "attach" };
    Ok(format!("/{what}/{}/{}/{container}?{}", target.namespace, target.name, query(&params)))
}

/// The kubelet refuses these too; here the refusal has a Status.
fn validate(
    connect: Connect,
    target: &Target,
    (stdin, stdout, stderr, _tty): (bool, bool, bool, bool),
    command: &[String],
) -> Result<(), Status> {
    let mut errors = ErrorList::new();
    if connect == Connect::Exec && command.is_empty() {
        errors.push(FieldError::required(&Path::new("command"), ""));
        return Err(Status::invalid("", "PodExecOptions", &target.name, &errors));
    }
    if !(stdin || stdout || stderr) {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(())
}

/// Sends the client's upgrade on, to `host` of that name, and, if it is granted, ties the two connections together.
pub async fn tunnel(
    server: &Arc<Server>,
    exchange: &mut Exchange,
    to: &Address,
    host: &str,
    path: &str,
    guard: Option<Guard>,
) -> Result<Answer, Status> {
    let Some(client) = exchange.parts.extensions.remove::<OnUpgrade>().filter(|_| wants_upgrade(exchange))
    else {
        return Err(Status::bad_request("Upgrade request required"));
    };
    let failed =
        |error: &dyn std::fmt::Display| super::plain_error(format!("error dialing backend: {error}"));
    let stream = server.backends.dial(to).await.map_err(|e| failed(&e))?;
    let method = exchange.parts.method.clone();
    let request = UpgradeRequest::forward(method, host, path, exchange.headers());
    let (headers, backend) = match upgrade(stream, &request).await.map_err(|e| failed(&e))? {
        Upgrade::Switched { headers, stream } => (headers, stream),
        Upgrade::Refused { status, headers, body } => {
            let mut answer = Response::new(axum::body::Body::from(body));
            *answer.status_mut() = status;
            *answer.headers_mut() = end_to_end(headers);
            return Ok(answer);
        }
    };
    let shutdown = server.shutdown.clone();
    tokio::spawn(async move {
        let _guard = guard;
        let client = match client.await {
            Ok(client) => client,
            Err(error) => return tracing::debug!(%error, "the client went before its upgrade was done"),
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            ended = splice(TokioIo::new(client), backend) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a stream ended");
                }
            }
        }
    });
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = headers;
    Ok(answer)
}

/// `Connection: upgrade`
pub fn wants_upgrade(exchange: &Exchange) -> bool {
    let all = exchange.headers().get_all(http::header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case("upgrade"))
}

/// Without the headers that speak of one connection only.
pub fn end_to_end(mut headers: http::HeaderMap) -> http::HeaderMap {
    let said: Vec<http::HeaderValue> = headers.get_all(http::header::CONNECTION).iter().cloned().collect();
    let named = said.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim);
    named.filter(|name| !name.is_empty()).for_each(|name| drop(headers.remove(name)));
    for name in
        ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"]
    {
        headers.remove(name);
    }
    headers
}
