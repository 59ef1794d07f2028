//! Writes that many controllers make.

use copepod_client::Client;
use copepod_client::object::MetaExt;
use copepod_client::rest::{self, ResourceType};
use kube::Resource;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::resources::PODS;
use crate::kinds::{Condition, Pod};

/// Writes a status; an object that is gone needs none.
pub async fn status<K: Resource<DynamicType = ()>>(
    client: &Client,
    resource: &ResourceType,
    object: &K,
    status: &impl Serialize,
) -> Result<(), kube::Error> {
    unless_gone(rest::update_status(client, resource, object, status).await.map(drop))
}

/// What was to be changed or deleted may be gone already.
pub fn unless_gone(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(error) if rest::is_not_found(&error) => Ok(()),
        other => other,
    }
}

/// Sets a condition of a pod, its phase, or both; a pod that is gone needs neither.
pub async fn pod_status(
    client: &Client,
    pod: &Pod,
    phase: Option<&str>,
    condition: Option<&Condition>,
) -> Result<(), kube::Error> {
    let mut status = json!({});
    if let Some(phase) = phase {
        status["phase"] = json!(phase);
    }
    if let Some(condition) = condition {
        status["conditions"] = json!([condition]);
        status["conditions"][0]["observedGeneration"] = json!(pod.metadata.generation);
    }
    let body = json!({ "metadata": { "uid": pod.metadata.uid }, "status": status });
    let (namespace, name) = (MetaExt::namespace(&pod.metadata), MetaExt::name(&pod.metadata));
    let strategic = rest::PatchType::Strategic;
    let written = rest::patch::<IgnoredAny>(client, &PODS, namespace, name, "status", strategic, &body).await;
    unless_gone(written.map(drop))
}
