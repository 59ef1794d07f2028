//! The resources that upstream serves by default: names, versions, verbs, subresources, and how each is
//! stored.
//!
//! One table feeds routes, discovery, OpenAPI and storage keys. Custom resources and aggregated APIs are not
//! here; their owners make the same [`Resource`] rows at run time.

use crate::types::{Name, TypeId};

/// An API group in discovery's order.
#[derive(Debug, Clone)]
pub struct Group {
    /// "" for the legacy core group under `/api`.
    pub name: Name,
    /// Served versions in discovery's order, the preferred one first.
    pub versions: Box<[Name]>,
}

/// One resource, all its versions.
#[derive(Debug, Clone)]
pub struct Resource {
    /// API group, "" for core.
    pub group: Name,
    /// `pods`
    pub plural: Name,
    /// `pod`
    pub singular: Name,
    /// `Pod`
    pub kind: Name,
    /// `PodList`; empty for resources that cannot be listed.
    pub list_kind: Name,
    /// Lives in a namespace.
    pub namespaced: bool,
    /// `po`
    pub short_names: Box<[Name]>,
    /// `all`, `api-extensions`
    pub categories: Box<[Name]>,
    /// Served versions in discovery's order, the preferred one first.
    pub versions: Box<[ServedVersion]>,
    /// A completed DELETE answers with the object; others answer with a Status.
    pub returns_deleted: bool,
    /// How it is stored; `None` for reviews and other resources that exist only while they are asked.
    pub storage: Option<Storage>,
}

/// One served version of a resource.
#[derive(Debug, Clone)]
pub struct ServedVersion {
    /// `v1`
    pub version: Name,
    /// The object's type.
    pub ty: TypeId,
    /// The list's type.
    pub list_ty: Option<TypeId>,
    /// Sorted, as in discovery.
    pub verbs: Box<[Name]>,
    /// Sorted by name.
    pub subresources: Box<[Subresource]>,
    /// As in discovery; empty where upstream gives none.
    pub storage_version_hash: Name,
}

/// A subresource of one version of a resource.
#[derive(Debug, Clone)]
pub struct Subresource {
    /// `status`, `scale`, `exec`, `proxy` ...
    pub name: Name,
    /// Group of the kind, explicit (the parent's own where discovery leaves it out).
    pub group: Name,
    /// Version of the kind, explicit.
    pub version: Name,
    /// `Scale`, `Eviction`, `PodExecOptions` ...
    pub kind: Name,
    /// Discovery states group and version only where they differ from the parent's or are special.
    pub states_group_version: bool,
    /// The kind's type.
    pub ty: Option<TypeId>,
    /// Sorted, as in discovery.
    pub verbs: Box<[Name]>,
}

/// How a resource is stored.
#[derive(Debug, Clone)]
pub struct Storage {
    /// Group of the stored form (events.k8s.io stores in the core group).
    pub group: Name,
    /// Version of the stored form.
    pub version: Name,
    /// Kind of the stored form.
    pub kind: Name,
    /// Type of the stored form.
    pub ty: TypeId,
    /// Key prefix below the registry's root, without slashes at the ends: `pods`, `services/specs`.
    pub prefix: Name,
    /// Encoding of the stored form.
    pub media: Media,
    /// Seconds after which objects vanish, by default; 0 for never.
    pub ttl_seconds: u32,
}

/// Encoding of a stored object.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Media {
    /// `application/vnd.kubernetes.protobuf`, in the `k8s\0` envelope
    Protobuf,
    /// `application/json`
    Json,
}

/// A feature gate with upstream's default.
#[derive(Debug, Clone)]
pub struct FeatureGate {
    /// `SidecarContainers`
    pub name: Name,
    /// On unless a flag says otherwise.
    pub default: bool,
    /// A flag may not change it.
    pub locked: bool,
    /// How mature it is.
    pub stage: Stage,
}

/// Maturity of a feature gate.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Stage {
    /// ALPHA
    Alpha,
    /// BETA
    Beta,
    /// "": generally available
    Stable,
    /// DEPRECATED
    Deprecated,
}

impl Resource {
    /// The served version with this name.
    pub fn version(&self, version: &str) -> Option<&ServedVersion> {
        self.versions.iter().find(|v| v.version == version)
    }
}

impl ServedVersion {
    /// True if the resource itself takes this verb.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
    /// The subresource with this name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
}

impl Subresource {
    /// True if the subresource takes this verb.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}
