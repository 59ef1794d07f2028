//! EndpointSlices as those write them who keep them: the controller of services with a selector, and the one that
//! mirrors Endpoints.

use std::sync::Arc;

use copepod_client::informer::{BY_NAMESPACE, Informer};
use copepod_client::object::{Key, MetaExt, join, split};
use copepod_client::{Client, rest};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::expectations::Expectations;
use super::resources::ENDPOINT_SLICES;
use super::writes;
use crate::kinds::EndpointSlice;

/// The label that says who keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The label that says which service a slice is of.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A write.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Makes this slice.
    Create(Value),
    /// Puts this one into the place of the one with its name.
    Update(Value),
    /// Takes the one of this name away.
    Delete(String),
}

/// The service whose slice this is, if `manager` keeps it.
pub fn service_of(slice: &ObjectMeta, manager: &str) -> Option<Key> {
    let service = slice.label(SERVICE_NAME).filter(|_| slice.label(MANAGED_BY) == Some(manager))?;
    Some(join(MetaExt::namespace(slice), service))
}

/// The slices of a service that `manager` keeps, without those that are being deleted.
pub fn kept(slices: &Informer<EndpointSlice>, service: &Key, manager: &str) -> Vec<Arc<EndpointSlice>> {
    let mut kept = slices.by_index(BY_NAMESPACE, split(service).0);
    kept.retain(|slice| {
        service_of(&slice.metadata, manager).as_ref() == Some(service) && !slice.metadata.deleting()
    });
    kept
}

/// Writes, one after the other, until one fails. What is created is expected to be seen: before that no other turn may
/// plan, or it would create it once more. In a namespace that ends nothing is created any more, which is no failure.
pub async fn write(
    client: &Client,
    namespace: &str,
    actions: Vec<Action>,
    expected: &Expectations,
    key: &Key,
) -> Result<(), kube::Error> {
    let creations = actions.iter().filter(|action| matches!(action, Action::Create(_))).count();
    let mut unseen = i64::try_from(creations).unwrap_or(i64::MAX);
    if unseen > 0 {
        expected.expect_creations(key, unseen);
    }
    for action in actions {
        let is_creation = matches!(action, Action::Create(_));
        let written = act(client, namespace, action).await;
        unseen -= i64::from(is_creation && written.is_ok());
        if let Err(error) = written {
            (0..unseen).for_each(|_| expected.creation_observed(key));
            return if rest::is_namespace_terminating(&error) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

async fn act(client: &Client, namespace: &str, action: Action) -> Result<(), kube::Error> {
    match action {
        Action::Create(slice) => {
            rest::create::<IgnoredAny>(client, &ENDPOINT_SLICES, namespace, &slice).await.map(drop)
        }
        Action::Update(slice) => {
            let name = slice["metadata"]["name"].as_str().unwrap_or_default();
            rest::update::<IgnoredAny>(client, &ENDPOINT_SLICES, namespace, name, "", &slice).await.map(drop)
        }
        Action::Delete(name) => {
            writes::unless_gone(rest::delete(client, &ENDPOINT_SLICES, namespace, &name, &json!({})).await)
        }
    }
}
