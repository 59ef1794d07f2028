//! Names of types and resources: group, version, kind, resource.

use std::fmt;

/// A group and a version: `apps/v1`; the core group is empty: `v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion {
    /// API group, "" for core.
    pub group: String,
    /// Version, `v1`.
    pub version: String,
}

/// A type on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    /// API group, "" for core.
    pub group: String,
    /// Version, `v1`.
    pub version: String,
    /// Kind, `Pod`.
    pub kind: String,
}

/// A collection on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvr {
    /// API group, "" for core.
    pub group: String,
    /// Version, `v1`.
    pub version: String,
    /// Plural name, `pods`.
    pub resource: String,
}

/// A collection without a version; what error messages and RBAC speak of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// API group, "" for core.
    pub group: String,
    /// Plural name, `pods`.
    pub resource: String,
}

impl GroupVersion {
    /// From its two parts.
    pub fn new(group: &str, version: &str) -> GroupVersion {
        GroupVersion { group: group.into(), version: version.into() }
    }
    /// Parses an `apiVersion`. `None` when it has more than one slash.
    /// upstream: apimachinery/pkg/runtime/schema/group_version.go ParseGroupVersion
    pub fn parse(api_version: &str) -> Option<GroupVersion> {
        match api_version.split_once('/') {
            None => Some(GroupVersion::new("", api_version)),
            Some((_, rest)) if rest.contains('/') => None,
            Some((group, version)) => Some(GroupVersion::new(group, version)),
        }
    }
    /// With a kind.
    pub fn kind(&self, kind: &str) -> Gvk {
        Gvk { group: self.group.clone(), version: self.version.clone(), kind: kind.into() }
    }
    /// With a resource.
    pub fn resource(&self, resource: &str) -> Gvr {
        Gvr { group: self.group.clone(), version: self.version.clone(), resource: resource.into() }
    }
}

impl Gvk {
    /// From its three parts.
    pub fn new(group: &str, version: &str, kind: &str) -> Gvk {
        Gvk { group: group.into(), version: version.into(), kind: kind.into() }
    }
    /// The group and version.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(&self.group, &self.version)
    }
    /// The `apiVersion` of objects of this kind.
    pub fn api_version(&self) -> String {
        self.group_version().to_string()
    }
}

impl Gvr {
    /// From its three parts.
    pub fn new(group: &str, version: &str, resource: &str) -> Gvr {
        Gvr { group: group.into(), version: version.into(), resource: resource.into() }
    }
    /// Without the version.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.clone(), resource: self.resource.clone() }
    }
}

impl GroupResource {
    /// From its two parts.
    pub fn new(group: &str, resource: &str) -> GroupResource {
        GroupResource { group: group.into(), resource: resource.into() }
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.version)
        } else {
            write!(f, "{}/{}", self.group, self.version)
        }
    }
}

/// As Go prints it: `apps/v1, Kind=Deployment`, and `/v1, Kind=Pod` for core.
impl fmt::Display for Gvk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

/// As Go prints it: `apps/v1, Resource=deployments`.
impl fmt::Display for Gvr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Resource={}", self.group, self.version, self.resource)
    }
}

/// As Go prints it: `deployments.apps`, and `pods` for core.
impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.resource)
        } else {
            write!(f, "{}.{}", self.resource, self.group)
        }
    }
}
