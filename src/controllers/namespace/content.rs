//! Deletes what is in a namespace, whatever its kind, and counts what stays.

use copepod_client::Client;
use copepod_client::rest::{self, ResourceType};
use http::Request;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::json;

use super::plan::Found;
use crate::common::resources::PODS;
use crate::discovery::{self, Discovered};

/// Objects of one kind that are read at a time.
const PAGE: usize = 500;

#[derive(Deserialize)]
struct MetadataList {
    metadata: ListMetadata,
    /// An empty list of metadata may be `null`.
    items: Option<Vec<Item>>,
}

#[derive(Deserialize, Default)]
struct ListMetadata {
    #[serde(default, rename = "continue")]
    next: String,
}

#[derive(Deserialize)]
struct Item {
    metadata: ObjectMeta,
}

/// One pass: pods first; when none is left, everything else.
///
/// upstream: namespaced_resources_deleter.go deleteAllContent
pub(super) async fn delete_all(client: &Client, namespace: &str) -> Result<Found, kube::Error> {
    let (all, stale) = discovery::preferred(client).await?;
    let mut found = Found { discovery_failures: stale, ..Found::default() };
    let deletable: Vec<Discovered> =
        all.into_iter().filter(|d| d.resource.namespaced && d.can(&["delete"])).collect();
    let (pods, others): (Vec<_>, Vec<_>) = deletable.into_iter().partition(|d| d.resource == PODS);
    for resource in pods {
        empty(client, namespace, &resource, &mut found).await;
    }
    if found.remaining.is_empty() && found.deletion_failures.is_empty() {
        for resource in others {
            empty(client, namespace, &resource, &mut found).await;
        }
    }
    Ok(found)
}

/// Deletes one kind and notes what stays. A failure is noted and does not stop the others.
async fn empty(client: &Client, namespace: &str, discovered: &Discovered, found: &mut Found) {
    match try_empty(client, namespace, discovered).await {
        Ok(items) if items.is_empty() => {}
        Ok(items) => note(&discovered.resource, &items, found),
        // Not there any more, or cannot be listed: nothing of it to delete.
        Err(error) if matches!(rest::code(&error), Some(404 | 405)) => {}
        Err(error) => found.deletion_failures.push(rest::message(&error)),
    }
}

fn note(resource: &ResourceType, items: &[ObjectMeta], found: &mut Found) {
    found.remaining.insert(format!("{}.{}", resource.plural, resource.group), items.len());
    for finalizer in items.iter().flat_map(|item| item.finalizers.iter().flatten()) {
        *found.finalizers.entry(finalizer.clone()).or_insert(0) += 1;
    }
    let grace = items.iter().filter_map(|item| item.deletion_grace_period_seconds).max();
    let grace = grace.and_then(|seconds| u64::try_from(seconds).ok());
    found.grace_seconds = found.grace_seconds.max(grace.filter(|_| *resource == PODS));
}

async fn try_empty(
    client: &Client,
    namespace: &str,
    discovered: &Discovered,
) -> Result<Vec<ObjectMeta>, kube::Error> {
    let resource = &discovered.resource;
    if !discovered.can(&["list"]) {
        return Ok(Vec::new());
    }
    // Most kinds have nothing in most namespaces: looking is cheaper than deleting nothing.
    let before = list(client, namespace, resource).await?;
    if before.is_empty() {
        return Ok(before);
    }
    let background = json!({"propagationPolicy": "Background"});
    if discovered.can(&["deletecollection"]) {
        rest::delete_collection(client, resource, namespace, &background).await?;
    } else {
        for item in &before {
            match rest::delete(
                client,
                resource,
                namespace,
                item.name.as_deref().unwrap_or_default(),
                &background,
            )
            .await
            {
                Err(error) if rest::is_not_found(&error) => {}
                other => other?,
            }
        }
    }
    list(client, namespace, resource).await
}

/// Metadata of all objects of a kind.
async fn list(
    client: &Client,
    namespace: &str,
    resource: &ResourceType,
) -> Result<Vec<ObjectMeta>, kube::Error> {
    const ACCEPT: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
    let mut out = Vec::new();
    let mut next = String::new();
    loop {
        let mut path = format!("{}?limit={PAGE}", resource.path(namespace));
        if !next.is_empty() {
            path.push_str("&continue=");
            path.push_str(&next);
        }
        let request =
            Request::get(path).header("accept", ACCEPT).body(Vec::new()).map_err(kube::Error::HttpError)?;
        let page: MetadataList = client.request(request).await?;
        out.extend(page.items.into_iter().flatten().map(|item| item.metadata));
        next = page.metadata.next;
        if next.is_empty() {
            return Ok(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_stays_is_counted_by_kind_and_finalizer() {
        let item = |finalizers: &[&str], grace: Option<i64>| ObjectMeta {
            finalizers: Some(finalizers.iter().map(|f| (*f).to_owned()).collect()),
            deletion_grace_period_seconds: grace,
            ..ObjectMeta::default()
        };
        let mut found = Found::default();
        note(&PODS, &[item(&["a"], Some(30)), item(&["a", "b"], Some(5))], &mut found);
        assert_eq!(found.remaining, BTreeMap::from([("pods.".to_owned(), 2)]));
        assert_eq!(found.finalizers, BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]));
        assert_eq!(found.grace_seconds, Some(30));
    }
}
