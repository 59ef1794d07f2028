//! The agent's HTTPS server (port 10250): what the API server asks a node for.
//!
//! Every request is authenticated (client certificate of the client CA, or a token that the API server reviews) and
//! authorized (SubjectAccessReview on `nodes/...`); there is no anonymous access and no read-only port.
//!
//! upstream: kubelet/server/server.go

pub mod auth;
mod logs;
mod stats;
mod stream;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use copepod_cri::api;
use copepod_meta::url::query_pairs;
use copepod_serve::ConnectionInfo;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::{
    container::labels,
    context::Context,
    pod::model::{find_container, uid},
};
use auth::Authenticator;

/// Body of an answer.
pub type Body = BoxBody<Bytes, Infallible>;

/// A query, taken apart.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    fn is_set(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "true"))
    }
}

/// The service.
pub struct Server {
    context: Arc<Context>,
    auth: Authenticator,
}

/// A plain-text answer.
pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed());
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn json_answer(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(Full::new(Bytes::from(bytes)).boxed());
            let kind = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

impl Server {
    /// The service of a node.
    pub fn new(context: Arc<Context>, auth: Authenticator) -> Self {
        Server { context, auth }
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let connection = request.extensions().get::<ConnectionInfo>().cloned();
        if let Err(refusal) = self.auth.admit(&self.context, connection.as_ref(), &request).await {
            return *refusal;
        }
        let path = request.uri().path().to_owned();
        let query = Query(query_pairs(request.uri().query().unwrap_or_default()));
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let get = request.method() == Method::GET;
        match parts.as_slice() {
            ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] if get => self.health().await,
            ["pods"] if get => self.pods(),
            ["runningpods"] if get => self.running_pods().await,
            ["metrics"] if get => text(StatusCode::OK, self.context.metrics.registry.render()),
            ["configz"] if get => json_answer(&json!({"kubeletconfig": self.context.config.shown()})),
            ["stats", "summary"] if get => match stats::summary(&self.context).await {
                Ok(summary) => json_answer(&summary),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error),
            },
            ["containerLogs", namespace, pod, container] if get => {
                logs::serve(&self.context, namespace, pod, container, &query).await
            }
            [kind @ ("exec" | "attach"), namespace, pod, container]
            | [kind @ ("exec" | "attach"), namespace, pod, _, container] => {
                let (namespace, pod, container) = (*namespace, *pod, *container);
                stream::command(&self.context, kind, namespace, pod, container, &query, request).await
            }
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
                stream::port_forward(&self.context, namespace, pod, &query, request).await
            }
            ["run", namespace, pod, container] | ["run", namespace, pod, _, container]
                if request.method() == Method::POST =>
            {
                self.run(namespace, pod, container, &query).await
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    async fn health(&self) -> Response<Body> {
        match self.context.runtime.version().await {
            Ok(_) => text(StatusCode::OK, "ok"),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("runtime: {error}\n")),
        }
    }

    fn pods(&self) -> Response<Body> {
        let items: Vec<Pod> = self
            .context
            .pods
            .all()
            .iter()
            .map(|pod| {
                let status = self.context.pods.status(uid(pod)).or_else(|| pod.status.clone());
                Pod { status, ..Pod::clone(pod) }
            })
            .collect();
        json_answer(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
    }

    async fn running_pods(&self) -> Response<Body> {
        let sandboxes = match self.context.runtime.list_pod_sandboxes(None).await {
            Ok(sandboxes) => sandboxes,
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        let items: Vec<serde_json::Value> = sandboxes
            .iter()
            .filter(|sandbox| sandbox.state() == api::PodSandboxState::SandboxReady)
            .map(|sandbox| {
                let label = |name: &str| sandbox.labels.get(name);
                json!({"metadata": {
                    "name": label(labels::POD_NAME), "namespace": label(labels::POD_NAMESPACE), "uid": label(labels::POD_UID)
                }, "spec": {"containers": null}, "status": {}})
            })
            .collect();
        json_answer(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
    }

    async fn run(&self, namespace: &str, pod: &str, container: &str, query: &Query) -> Response<Body> {
        let id = match running_container(&self.context, namespace, pod, container).await {
            Ok(id) => id,
            Err(refusal) => return *refusal,
        };
        let command = query.get("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
        match self.context.runtime.exec_sync(&id, command, None).await {
            Ok(output) => json_answer(&String::from_utf8_lossy(&[output.stdout, output.stderr].concat())),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.grpc_text()),
        }
    }
}

/// Id of a running container of a pod, by names.
pub(crate) async fn running_container(
    context: &Context,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Result<String, Box<Response<Body>>> {
    let Some(found) = context.pods.by_name(namespace, pod) else {
        return Err(Box::new(text(StatusCode::NOT_FOUND, "pod does not exist")));
    };
    let missing = || {
        let message = format!("container not found ({container:?})");
        Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, message))
    };
    if find_container(&found, container).is_none() {
        return Err(missing());
    }
    let filter = api::ContainerFilter {
        label_selector: [
            (labels::POD_UID.to_owned(), uid(&found).to_owned()),
            (labels::CONTAINER_NAME.to_owned(), container.to_owned()),
        ]
        .into(),
        state: Some(api::ContainerStateValue { state: api::ContainerState::ContainerRunning.into() }),
        ..api::ContainerFilter::default()
    };
    match context.runtime.list_containers(Some(filter)).await {
        Ok(mut list) => {
            list.sort_by_key(|container| container.created_at);
            list.pop().map(|container| container.id).ok_or_else(missing)
        }
        Err(error) => Err(Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, error.grpc_text()))),
    }
}
