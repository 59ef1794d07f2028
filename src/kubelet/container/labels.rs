//! Labels and annotations by which containers and sandboxes are found again: upstream's own names, so that crictl and
//! upstream's kubelet see the same, and so that a restarted agent takes over what runs. Pure.
//!
//! upstream: kubelet/kuberuntime/labels.go, kubelet/types/labels.go

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::hash::container_hash;
use crate::pod::model::{names, spec, uid};

/// Name of the pod.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Namespace of the pod.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Uid of the pod.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Name of the container.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Hash of the container's definition.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// Number of restarts before this instance.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Where in the container the termination message is written.
pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Where the termination message comes from.
pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// The pod's termination grace period.
pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
/// The deletion's grace period.
pub const DELETION_GRACE_PERIOD: &str = "io.kubernetes.pod.deletionGracePeriod";
/// The preStop hook as JSON.
pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
/// The ports as JSON.
pub const PORTS: &str = "io.kubernetes.container.ports";

/// Labels of a sandbox: the pod's, and who it is.
pub fn sandbox_labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> =
        pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend(identity(pod));
    labels
}

/// Labels of a container.
pub fn container_labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let mut labels = identity(pod);
    labels.insert(CONTAINER_NAME.into(), container.name.clone());
    labels
}

fn identity(pod: &Pod) -> HashMap<String, String> {
    let (namespace, name) = names(pod);
    HashMap::from([
        (POD_NAME.to_owned(), name.to_owned()),
        (POD_NAMESPACE.to_owned(), namespace.to_owned()),
        (POD_UID.to_owned(), uid(pod).to_owned()),
    ])
}

/// Annotations of a container.
pub fn container_annotations(
    pod: &Pod,
    container: &Container,
    restart_count: i32,
) -> HashMap<String, String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut all = HashMap::from([
        (CONTAINER_HASH.to_owned(), format!("{:x}", container_hash(container))),
        (RESTART_COUNT.to_owned(), restart_count.to_string()),
        (TERMINATION_PATH.to_owned(), text(&container.termination_message_path)),
        (TERMINATION_POLICY.to_owned(), text(&container.termination_message_policy)),
    ]);
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        all.insert(DELETION_GRACE_PERIOD.into(), seconds.to_string());
    }
    if let Some(seconds) = spec(pod).termination_grace_period_seconds {
        all.insert(GRACE_PERIOD.into(), seconds.to_string());
    }
    let mut json = |name: &str, value: serde_json::Result<String>| match value {
        Ok(value) => {
            all.insert(name.into(), value);
        }
        // upstream: kubelet/kuberuntime/labels.go newContainerAnnotations goes on without it too.
        Err(error) => tracing::error!(%error, name, container = container.name, "annotation of a container"),
    };
    if let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) {
        json(PRE_STOP, serde_json::to_string(hook));
    }
    if let Some(ports) = container.ports.as_ref().filter(|ports| !ports.is_empty()) {
        json(PORTS, serde_json::to_string(ports));
    }
    all
}
