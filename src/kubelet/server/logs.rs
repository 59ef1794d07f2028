//! `/containerLogs`.
//!
//! upstream: kubelet/server/server.go getContainerLogs, kubelet/kubelet_pods.go validateContainerLogStatus

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use copepod_cri::api;
use futures::StreamExt;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use tokio::sync::mpsc;

use super::{Body, Query, text};
use crate::{
    container::log::{LogError, LogOptions, read_log},
    context::Context,
    pod::model::{find_container, uid},
};

/// Pieces of a log on their way to a slow reader.
const CHUNKS_MAX: usize = 8;

/// Answers with a container's log.
pub async fn serve(
    context: &Arc<Context>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
) -> Response<Body> {
    let Some(found) = context.pods.by_name(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, format!("pod {pod:?} not found\n"));
    };
    if find_container(&found, container).is_none() {
        return text(StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {pod:?}\n"));
    }
    let options = match options(query) {
        Ok(options) => options,
        Err(error) => return text(StatusCode::BAD_REQUEST, error),
    };
    let status = context.pods.status(uid(&found)).or_else(|| found.status.clone()).unwrap_or_default();
    let previous = query.get("previous") == Some("true");
    let id = match container_of(&found, &status, container, previous) {
        Ok(id) => id,
        Err(error) => return text(StatusCode::BAD_REQUEST, error),
    };
    let path = match context.runtime.container_status(&id).await {
        Ok(status) => PathBuf::from(status.log_path),
        Err(error) => {
            tracing::debug!(%error, container = id, "log of a container that is not there");
            let message = format!("unable to retrieve container logs for {}://{id}", context.runtime_name);
            return text(StatusCode::OK, message);
        }
    };
    let (out, mut chunks) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    tokio::spawn(copy(context.clone(), id, path, options, out));
    let stream = futures::stream::poll_fn(move |context| chunks.poll_recv(context))
        .map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream)));
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

async fn copy(
    context: Arc<Context>,
    id: String,
    path: PathBuf,
    options: LogOptions,
    out: mpsc::Sender<Bytes>,
) {
    let running = || {
        let (context, id) = (context.clone(), id.clone());
        async move {
            let status = context.runtime.container_status(&id).await;
            status.is_ok_and(|status| status.state() == api::ContainerState::ContainerRunning)
        }
    };
    match read_log(&path, &options, &out, running).await {
        Ok(()) | Err(LogError::Gone) => {}
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "reading a log");
            // The head is out: what is wrong can only be said in the body.
            let message = format!("failed to try resolving symlinks in path {path:?}: {error}\n");
            if out.send(Bytes::from(message)).await.is_err() {
                tracing::debug!("the reader of a log went away");
            }
        }
    }
}

fn options(query: &Query) -> Result<LogOptions, String> {
    let number = |name: &str| -> Result<Option<u64>, String> {
        match query.get(name).filter(|text| !text.is_empty()) {
            Some(text) => {
                text.parse().map(Some).map_err(|_| format!("Unable to decode query: {name}={text:?}"))
            }
            None => Ok(None),
        }
    };
    let since = match (number("sinceSeconds")?, query.get("sinceTime").filter(|text| !text.is_empty())) {
        (Some(seconds), _) => {
            let back = Duration::from_secs(seconds);
            Some(Timestamp::now().checked_sub(back).unwrap_or(Timestamp::MIN))
        }
        (None, Some(text)) => {
            Some(text.parse().map_err(|_| format!("Unable to decode query: sinceTime={text:?}"))?)
        }
        (None, None) => None,
    };
    Ok(LogOptions {
        follow: query.is_set("follow"),
        tail: number("tailLines")?,
        since,
        timestamps: query.is_set("timestamps"),
        limit_bytes: number("limitBytes")?,
    })
}

/// Which instance's log is meant, by its id.
// upstream: kubelet/kubelet_pods.go validateContainerLogStatus
fn container_of(pod: &Pod, status: &PodStatus, container: &str, previous: bool) -> Result<String, String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let lists =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let Some(found) = lists.into_iter().flatten().flatten().find(|status| status.name == container) else {
        return Err(format!("container {container:?} in pod {name:?} is not available"));
    };
    let bare = |id: &str| id.split_once("://").map_or(id, |(_, id)| id).to_owned();
    let last = last_id(found);
    if previous {
        return last
            .map(bare)
            .ok_or_else(|| format!("previous terminated container {container:?} in pod {name:?} not found"));
    }
    let state = found.state.clone().unwrap_or_default();
    let current = found.container_id.as_deref().filter(|id| !id.is_empty());
    if state.running.is_some() {
        return current
            .map(bare)
            .ok_or_else(|| format!("container {container:?} in pod {name:?} is not available"));
    }
    if let Some(end) = &state.terminated {
        let id = end.container_id.as_deref().filter(|id| !id.is_empty()).or(last);
        return id.map(bare).ok_or_else(|| format!("container {container:?} in pod {name:?} is terminated"));
    }
    if let Some(id) = last {
        return Ok(bare(id));
    }
    let waiting = format!("container {container:?} in pod {name:?} is waiting to start");
    Err(match state.waiting.and_then(|waiting| waiting.reason).as_deref() {
        Some("ErrImagePull") => format!("{waiting}: image can't be pulled"),
        Some("ImagePullBackOff") => format!("{waiting}: trying and failing to pull image"),
        Some(reason) => format!("{waiting}: {reason}"),
        None => format!("{waiting} - no logs yet"),
    })
}

fn last_id(status: &ContainerStatus) -> Option<&str> {
    let end = status.last_state.as_ref()?.terminated.as_ref()?;
    end.container_id.as_deref().filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_instance_or_upstreams_words() {
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".into());
        let case = |state: serde_json::Value, last: serde_json::Value, previous: bool| {
            let status: PodStatus = serde_json::from_value(serde_json::json!({"containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "containerID": "containerd://now", "state": state, "lastState": last
            }]}))
            .expect("a status");
            container_of(&pod, &status, "c", previous).unwrap_or_else(|error| error)
        };
        let none = || serde_json::json!({});
        let ended = |id: &str| serde_json::json!({"terminated": {"exitCode": 1, "containerID": format!("containerd://{id}")}});
        let waiting = |reason: &str| serde_json::json!({"waiting": {"reason": reason}});
        assert_eq!(case(serde_json::json!({"running": {}}), none(), false), "now");
        assert_eq!(case(ended("dead"), none(), false), "dead");
        assert_eq!(case(serde_json::json!({"running": {}}), ended("old"), true), "old");
        assert_eq!(case(waiting("CrashLoopBackOff"), ended("old"), false), "old");
        assert_eq!(
            case(waiting("ContainerCreating"), none(), false),
            "container \"c\" in pod \"p\" is waiting to start: ContainerCreating"
        );
        assert_eq!(
            case(waiting("ImagePullBackOff"), none(), false),
            "container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image"
        );
        assert_eq!(
            case(serde_json::json!({"running": {}}), none(), true),
            "previous terminated container \"c\" in pod \"p\" not found"
        );
    }
}
