//! An API server for tests: pods in a map, lists, watches, status patches, deletes. Everything else is created and
//! forgotten, or empty. Merging is shallow but for `status`, conditions by type: enough for what the agent sends.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Body of an answer.
type Answer = BoxBody<Bytes, Infallible>;

/// The server's state.
#[derive(Default)]
pub struct FakeApi {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    version: u64,
    pods: BTreeMap<String, Value>,
    watchers: Vec<mpsc::Sender<Bytes>>,
    patches: Vec<Value>,
}

impl FakeApi {
    /// A client of this server.
    pub fn client(self: &Arc<Self>) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Creates or replaces a pod.
    pub fn put(&self, mut pod: Value) {
        let mut state = self.state.lock();
        let key = key_of(&pod);
        let kind = if state.pods.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        state.stamp(&mut pod);
        state.pods.insert(key, pod.clone());
        state.tell(kind, &pod);
    }

    /// Asks for a pod's graceful deletion.
    pub fn delete(&self, key: &str, grace: i64) {
        let Some(mut pod) = self.pod(key) else { return };
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.put(pod);
    }

    /// A pod by `namespace/name`.
    pub fn pod(&self, key: &str) -> Option<Value> {
        self.state.lock().pods.get(key).cloned()
    }

    /// Waits until a pod is as `wanted` says; panics with the pod after ten seconds.
    pub async fn until(&self, key: &str, what: &str, wanted: impl Fn(Option<&Value>) -> bool) {
        for _ in 0..1000 {
            if wanted(self.pod(key).as_ref()) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{what}: {:#?}", self.pod(key));
    }

    /// Status patches seen so far.
    pub fn patches(&self) -> Vec<Value> {
        self.state.lock().patches.clone()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let path = parts.uri.path().trim_start_matches('/').to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let words: Vec<&str> = path.split('/').collect();
        let watch = query.contains("watch=true");
        match (&parts.method, words.as_slice()) {
            (&Method::GET, ["api", "v1", "pods"]) if watch => self.watch(),
            (&Method::GET, ["api", "v1", "pods"]) => {
                let state = self.state.lock();
                let items: Vec<&Value> = state.pods.values().collect();
                ok(&json!({"kind": "PodList", "apiVersion": "v1", "items": items,
                    "metadata": {"resourceVersion": state.version.to_string()}}))
            }
            (&Method::GET, _) if watch => {
                // Nothing ever changes here.
                let silent = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>();
                Response::new(BodyExt::boxed(StreamBody::new(silent)))
            }
            (&Method::GET, ["api", "v1", "services"]) => ok(
                &json!({"kind": "ServiceList", "apiVersion": "v1", "items": [], "metadata": {"resourceVersion": "1"}}),
            ),
            (&Method::PATCH, ["api", "v1", "namespaces", namespace, "pods", name, "status"]) => {
                self.patch(&format!("{namespace}/{name}"), &body)
            }
            (&Method::DELETE, ["api", "v1", "namespaces", namespace, "pods", name]) => {
                self.remove(&format!("{namespace}/{name}"))
            }
            (&Method::POST, _) => ok(&serde_json::from_slice::<Value>(&body).unwrap_or_default()),
            _ => not_found(&path),
        }
    }

    fn watch(&self) -> Response<Answer> {
        let (sender, mut receiver) = mpsc::channel(256);
        self.state.lock().watchers.push(sender);
        let stream = futures::stream::poll_fn(move |context| receiver.poll_recv(context))
            .map(|bytes: Bytes| Ok::<_, Infallible>(Frame::data(bytes)));
        Response::new(BodyExt::boxed(StreamBody::new(stream)))
    }

    fn patch(&self, key: &str, body: &[u8]) -> Response<Answer> {
        let patch: Value = serde_json::from_slice(body).unwrap_or_default();
        let mut state = self.state.lock();
        state.patches.push(patch.clone());
        let Some(mut pod) = state.pods.get(key).cloned() else { return not_found(key) };
        if patch["metadata"]["uid"] != pod["metadata"]["uid"] {
            return error(StatusCode::CONFLICT, "Conflict", key);
        }
        for (name, value) in patch["status"].as_object().into_iter().flatten() {
            merge(&mut pod["status"], name, value);
        }
        state.stamp(&mut pod);
        state.pods.insert(key.to_owned(), pod.clone());
        state.tell("MODIFIED", &pod);
        ok(&pod)
    }

    fn remove(&self, key: &str) -> Response<Answer> {
        let mut state = self.state.lock();
        let Some(mut pod) = state.pods.remove(key) else { return not_found(key) };
        state.stamp(&mut pod);
        state.tell("DELETED", &pod);
        ok(&pod)
    }
}

impl State {
    fn stamp(&mut self, pod: &mut Value) {
        self.version += 1;
        pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
    }

    fn tell(&mut self, kind: &str, pod: &Value) {
        let line = Bytes::from(format!("{}\n", json!({"type": kind, "object": pod})));
        self.watchers.retain(|watcher| watcher.try_send(line.clone()).is_ok());
    }
}

fn merge(status: &mut Value, name: &str, value: &Value) {
    let Some(list) = value.as_array() else {
        if value.is_null() {
            if let Some(fields) = status.as_object_mut() {
                fields.remove(name);
            }
        } else {
            status[name] = value.clone();
        }
        return;
    };
    if name != "conditions" {
        let kept: Vec<&Value> = list.iter().filter(|item| item.get("$patch").is_none()).collect();
        status[name] = json!(kept);
        return;
    }
    let mut all = status[name].as_array().cloned().unwrap_or_default();
    for condition in list {
        all.retain(|other| other["type"] != condition["type"]);
        let fields = condition.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        all.push(fields.map(|(key, value)| (key.clone(), value.clone())).collect());
    }
    status[name] = json!(all);
}

fn key_of(pod: &Value) -> String {
    let text = |name: &str| pod["metadata"][name].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

fn ok(value: &Value) -> Response<Answer> {
    Response::new(Full::new(Bytes::from(value.to_string())).boxed())
}

fn not_found(what: &str) -> Response<Answer> {
    error(StatusCode::NOT_FOUND, "NotFound", what)
}

fn error(code: StatusCode, reason: &str, what: &str) -> Response<Answer> {
    let mut response = ok(&json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code.as_u16(),
        "message": format!("{what}: {reason}"), "metadata": {}
    }));
    *response.status_mut() = code;
    response
}
