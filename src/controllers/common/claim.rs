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

/// Claims objects of one kind for one owner.
pub struct Claims<'a, O> {
    client: &'a Client,
    owner: &'a O,
    owner_type: &'a ResourceType,
    resource: &'a ResourceType,
    finalizer: Option<&'static str>,
}

impl<'a, O: Resource<DynamicType = ()>> Claims<'a, O> {
    /// Claims for `owner`, objects of `resource`.
    pub fn new(
        client: &'a Client,
        owner: &'a O,
        owner_type: &'a ResourceType,
        resource: &'a ResourceType,
    ) -> Self {
        Self { client, owner, owner_type, resource, finalizer: None }
    }

    /// Adopted objects carry this finalizer until they are let go.
    pub fn marking(self, finalizer: Option<&'static str>) -> Self {
        Self { finalizer, ..self }
    }

    /// Those that are the owner's, after adopting and releasing what has to be.
    pub async fn of<K: Resource + Clone>(
        &self,
        selector: &LabelSelector,
        objects: Vec<Arc<K>>,
    ) -> Result<Vec<Arc<K>>, kube::Error> {
        let mut mine = Vec::with_capacity(objects.len());
        let mut checked = false;
        for object in objects {
            match decide(self.owner, selector, &*object) {
                Claim::Ignore => {}
                Claim::Keep => mine.push(object),
                Claim::Release => {
                    let mut metadata =
                        json!({"ownerReferences": [{"$patch": "delete", "uid": self.owner.meta().uid()}]});
                    if let Some(finalizer) = self.finalizer {
                        metadata["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
                    }
                    self.write(&*object, metadata).await?;
                }
                Claim::Adopt => {
                    if !checked && !self.owner_is_there().await? {
                        return Ok(mine);
                    }
                    checked = true;
                    let mut metadata = json!({"ownerReferences": [controller_reference(self.owner)]});
                    if let Some(finalizer) = self.finalizer {
                        metadata["finalizers"] = json!([finalizer]);
                    }
                    if self.write(&*object, metadata).await? {
                        mine.push(self.with_finalizer(object));
                    }
                }
            }
        }
        Ok(mine)
    }

    /// An adopted object as the watch will show it.
    fn with_finalizer<K: Resource + Clone>(&self, object: Arc<K>) -> Arc<K> {
        let Some(finalizer) = self.finalizer else { return object };
        let mut adopted = (*object).clone();
        let all = adopted.meta_mut().finalizers.get_or_insert_default();
        if !all.iter().any(|known| known == finalizer) {
            all.push(finalizer.to_owned());
        }
        Arc::new(adopted)
    }

    /// Asks the server itself: adopting for an owner that is being deleted would make objects outlive it.
    async fn owner_is_there(&self) -> Result<bool, kube::Error> {
        let meta = self.owner.meta();
        let (namespace, name) = (MetaExt::namespace(meta), MetaExt::name(meta));
        match rest::get::<Value>(self.client, self.owner_type, namespace, name).await {
            Ok(live) => Ok(live["metadata"]["uid"] == MetaExt::uid(meta)
                && live["metadata"].get("deletionTimestamp").is_none()),
            Err(error) if rest::is_not_found(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Patches metadata; `false` if the object is gone or another of the same name.
    async fn write<K: Resource>(&self, object: &K, mut metadata: Value) -> Result<bool, kube::Error> {
        let meta = object.meta();
        metadata["uid"] = json!(meta.uid);
        let patch = json!({ "metadata": metadata });
        let (namespace, name) = (MetaExt::namespace(meta), MetaExt::name(meta));
        let strategic = PatchType::Strategic;
        let written =
            rest::patch::<IgnoredAny>(self.client, self.resource, namespace, name, "", strategic, &patch)
                .await;
        match written {
            Ok(_) => Ok(true),
            Err(error) if rest::is_not_found(&error) || rest::is_invalid(&error) => Ok(false),
            Err(error) => Err(error),
        }
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
