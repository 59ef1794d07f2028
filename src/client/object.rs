//! Partial types for informers: a struct with the fields that a program reads, and nothing else.
//!
//! [`resource!`](crate::resource) makes a struct with a `metadata: ObjectMeta` field a [`kube::Resource`].

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// `namespace/name`, or `name` for an object of the whole cluster; what work queues carry.
pub type Key = Arc<str>;

/// Implements [`kube::Resource`] for a partial struct: `resource!(Pod, "", "v1", "Pod", "pods", Namespaced)`.
#[macro_export]
macro_rules! resource {
    (@scope Namespaced) => {
        ::kube::core::NamespaceResourceScope
    };
    (@scope Cluster) => {
        ::kube::core::ClusterResourceScope
    };
    ($type:ty, $group:literal, $version:literal, $kind:literal, $plural:literal, $scope:ident) => {
        impl ::kube::Resource for $type {
            type DynamicType = ();
            type Scope = $crate::resource!(@scope $scope);
            fn kind(_: &()) -> ::std::borrow::Cow<'_, str> {
                $kind.into()
            }
            fn group(_: &()) -> ::std::borrow::Cow<'_, str> {
                $group.into()
            }
            fn version(_: &()) -> ::std::borrow::Cow<'_, str> {
                $version.into()
            }
            fn plural(_: &()) -> ::std::borrow::Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

/// Short accessors to metadata that the server always fills.
pub trait MetaExt {
    /// `metadata.name`, or "".
    fn name(&self) -> &str;
    /// `metadata.namespace`, or "" for an object of the whole cluster.
    fn namespace(&self) -> &str;
    /// `metadata.uid`, or "".
    fn uid(&self) -> &str;
    /// The key in stores and queues.
    fn key(&self) -> Key;
    /// A label's value.
    fn label(&self, name: &str) -> Option<&str>;
    /// An annotation's value.
    fn annotation(&self, name: &str) -> Option<&str>;
    /// Whether deletion was asked for.
    fn deleting(&self) -> bool;
    /// The owner that controls it.
    fn controller(&self) -> Option<&OwnerReference>;
}

impl MetaExt for ObjectMeta {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }
    fn uid(&self) -> &str {
        self.uid.as_deref().unwrap_or_default()
    }
    fn key(&self) -> Key {
        join(MetaExt::namespace(self), MetaExt::name(self))
    }
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref()?.get(name).map(String::as_str)
    }
    fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }
    fn deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
    fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
    }
}

/// Reads metadata without what no controller looks at (managed fields), whose decoding costs more than all the rest:
/// `#[serde(default, deserialize_with = "copepod_client::object::slim_metadata")]`.
pub fn slim_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let slim = SlimMetadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: slim.name,
        generate_name: slim.generate_name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        generation: slim.generation,
        creation_timestamp: slim.creation_timestamp,
        deletion_timestamp: slim.deletion_timestamp,
        deletion_grace_period_seconds: slim.deletion_grace_period_seconds,
        labels: slim.labels,
        annotations: slim.annotations,
        owner_references: slim.owner_references,
        finalizers: slim.finalizers,
        ..ObjectMeta::default()
    })
}

/// [`ObjectMeta`] without managed fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimMetadata {
    name: Option<String>,
    generate_name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
}

/// The key of an object.
pub fn join(namespace: &str, name: &str) -> Key {
    if namespace.is_empty() { name.into() } else { format!("{namespace}/{name}").into() }
}

/// Namespace (or "") and name of a key.
pub fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

/// The reference to `object` that an Event carries.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// The owner reference by which `owner` controls an object that it makes.
///
/// upstream: apimachinery/pkg/apis/meta/v1/controller_ref.go NewControllerRef
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: MetaExt::name(owner.meta()).to_owned(),
        uid: MetaExt::uid(owner.meta()).to_owned(),
        block_owner_deletion: Some(true),
        controller: Some(true),
    }
}
