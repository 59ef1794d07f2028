//! What the scheduler writes: bindings, conditions, evictions.

use copepod_client::Client;
use copepod_client::rest::{self, PatchType, ResourceType};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::config::SCHEDULER_NAME;
use crate::model::PodInfo;

const PODS: ResourceType = ResourceType::namespaced("", "v1", "pods");

/// upstream: pkg/scheduler/framework/plugins/defaultbinder/default_binder.go Bind
pub(super) async fn bind(client: &Client, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
    let (namespace, name) = (pod.namespace(), pod.name());
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": { "namespace": namespace, "name": name, "uid": pod.uid.as_str() },
        "target": { "kind": "Node", "name": node },
    });
    rest::create_subresource::<IgnoredAny>(client, &PODS, namespace, name, "binding", &binding)
        .await
        .map(drop)
}

/// Sets the condition PodScheduled to False, and the nomination; nothing is written that is there already.
///
/// upstream: pkg/scheduler/schedule_one.go updatePod
pub(super) async fn not_scheduled(
    client: &Client,
    pod: &PodInfo,
    reason: &str,
    message: &str,
    nominated: Option<&str>,
) -> Result<(), kube::Error> {
    let Some(waiting) = &pod.waiting else { return Ok(()) };
    let known = waiting.condition.as_ref();
    let same = known.is_some_and(|c| c.status == "False" && c.reason == reason && c.message == message);
    let nominated = nominated.filter(|node| *node != waiting.nominated);
    if same && nominated.is_none() {
        return Ok(());
    }
    let mut condition = json!({
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message, "lastProbeTime": null,
        "observedGeneration": waiting.generation,
    });
    if known.is_none_or(|c| c.status != "False") {
        condition["lastTransitionTime"] = json!(Time(Timestamp::now()));
    }
    let mut status = json!({ "conditions": [condition] });
    if let Some(node) = nominated {
        status["nominatedNodeName"] = json!(node);
    }
    let body = json!({ "metadata": { "uid": pod.uid.as_str() }, "status": status });
    ignoring_not_found(patch_status(client, pod, &body).await)
}

/// Marks a victim and deletes it with its grace period.
///
/// upstream: pkg/scheduler/framework/preemption/executor.go PreemptPod
pub(super) async fn evict(client: &Client, victim: &PodInfo) -> Result<(), kube::Error> {
    let message = format!("{SCHEDULER_NAME}: preempting to accommodate a higher priority pod");
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": message,
        "lastProbeTime": null, "lastTransitionTime": Time(Timestamp::now()),
    });
    let body = json!({ "metadata": { "uid": victim.uid.as_str() }, "status": { "conditions": [condition] } });
    ignoring_not_found(patch_status(client, victim, &body).await)?;
    let options = json!({ "preconditions": { "uid": victim.uid.as_str() } });
    ignoring_not_found(rest::delete(client, &PODS, victim.namespace(), victim.name(), &options).await)
}

async fn patch_status(client: &Client, pod: &PodInfo, body: &serde_json::Value) -> Result<(), kube::Error> {
    let (namespace, name) = (pod.namespace(), pod.name());
    rest::patch::<IgnoredAny>(client, &PODS, namespace, name, "status", PatchType::Strategic, body)
        .await
        .map(drop)
}

fn ignoring_not_found(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(error) if rest::is_not_found(&error) => Ok(()),
        other => other,
    }
}
