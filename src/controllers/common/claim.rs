//! Adoption: an owner takes orphans that match its selector, and lets go of objects that do not match any more.
//!
//! upstream: pkg/controller/controller_ref_manager.go

use std::sync::Arc;

use copepod_client::Client;
use copepod_client::object::{MetaExt, controller_reference};
use copepod_client::rest::{self, PatchType, ResourceType};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Resource;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::selector;

/// What to do with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is ours.
    Keep,
    /// It becomes ours.
    Adopt,
    /// It is not ours any more.
    Release,
    /// It is not our business.
    Ignore,
}

/// Decides about one object.
pub fn decide<O: Resource, K: Resource>(owner: &O, selector: &LabelSelector, object: &K) -> Claim {
    // An owner that selects everything by mistake must not take what is not its own.
    let matches = !selector::is_empty(selector) && selector::matches(selector, object.meta());
    let ending = owner.meta().deleting();
    match object.meta().controller() {
        Some(current) if current.uid != owner.meta().uid() => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        Some(_) if ending => Claim::Ignore,
        Some(_) => Claim::Release,
        None if ending || !matches || object.meta().deleting() => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// Claims objects: returns those that are the owner's, after adopting and releasing what has to be.
pub async fn claim<O, K>(
    client: &Client,
    owner: &O,
    owner_type: &ResourceType,
    selector: &LabelSelector,
    resource: &ResourceType,
    objects: Vec<Arc<K>>,
) -> Result<Vec<Arc<K>>, kube::Error>
where
    O: Resource<DynamicType = ()>,
    K: Resource,
{
    let mut mine = Vec::with_capacity(objects.len());
    let mut checked = false;
    for object in objects {
        match decide(owner, selector, &*object) {
            Claim::Ignore => {}
            Claim::Keep => mine.push(object),
            Claim::Release => {
                let owners = json!([{ "$patch": "delete", "uid": owner.meta().uid() }]);
                write(client, resource, &*object, owners).await?;
            }
            Claim::Adopt => {
                if !checked && !still_there(client, owner, owner_type).await? {
                    return Ok(mine);
                }
                checked = true;
                let owners = json!([controller_reference(owner)]);
                if write(client, resource, &*object, owners).await? {
                    mine.push(object);
                }
            }
        }
    }
    Ok(mine)
}

/// Asks the server itself: adopting for an owner that is being deleted would make objects outlive it.
async fn still_there<O: Resource>(
    client: &Client,
    owner: &O,
    kind: &ResourceType,
) -> Result<bool, kube::Error> {
    let meta = owner.meta();
    match rest::get::<Value>(client, kind, MetaExt::namespace(meta), MetaExt::name(meta)).await {
        Ok(live) => Ok(live["metadata"]["uid"] == MetaExt::uid(meta)
            && live["metadata"].get("deletionTimestamp").is_none()),
        Err(error) if rest::is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Patches the owners; `false` if the object is gone or another of the same name.
async fn write<K: Resource>(
    client: &Client,
    resource: &ResourceType,
    object: &K,
    owners: Value,
) -> Result<bool, kube::Error> {
    let meta = object.meta();
    let patch = json!({ "metadata": { "uid": meta.uid, "ownerReferences": owners } });
    let (namespace, name) = (MetaExt::namespace(meta), MetaExt::name(meta));
    match rest::patch::<IgnoredAny>(client, resource, namespace, name, "", PatchType::Strategic, &patch).await
    {
        Ok(_) => Ok(true),
        Err(error) if rest::is_not_found(&error) || rest::is_invalid(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{Pod, ReplicaSet};

    #[test]
    fn objects_are_claimed_by_owner_and_labels() {
        let owner = |deleting: bool| -> ReplicaSet {
            let time = deleting.then_some("2026-01-01T00:00:00Z");
            serde_json::from_value(
                json!({"metadata": {"name": "rs", "uid": "me", "deletionTimestamp": time}}),
            )
            .expect("an owner")
        };
        let selector: LabelSelector =
            serde_json::from_value(json!({"matchLabels": {"a": "b"}})).expect("a selector");
        let pod = |label: &str, controller: &str| -> Pod {
            let owners = if controller.is_empty() {
                json!([])
            } else {
                json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": controller, "controller": true}])
            };
            serde_json::from_value(json!({"metadata": {"labels": {"a": label}, "ownerReferences": owners}}))
                .expect("a pod")
        };
        for (name, deleting, label, controller, want) in [
            ("ours", false, "b", "me", Claim::Keep),
            ("an orphan", false, "b", "", Claim::Adopt),
            ("a stranger", false, "c", "", Claim::Ignore),
            ("label gone", false, "c", "me", Claim::Release),
            ("another's", false, "b", "you", Claim::Ignore),
            ("an orphan while we end", true, "b", "", Claim::Ignore),
            ("label gone while we end", true, "c", "me", Claim::Ignore),
        ] {
            assert_eq!(decide(&owner(deleting), &selector, &pod(label, controller)), want, "{name}");
        }
        let everything = LabelSelector::default();
        assert_eq!(
            decide(&owner(false), &everything, &pod("b", "")),
            Claim::Ignore,
            "an empty selector takes nothing"
        );
    }
}
