//! What is served: one row a resource and version, replaced as a whole when the set changes.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use copepod_kinds::Kind;
use copepod_meta::{GroupResource, Gvk, Gvr, Value};
use copepod_schema::{Resource, ServedVersion, TypeId};

use crate::collection::Collection;
use crate::types::Types;

/// One resource at one served version.
pub struct Served {
    /// The resource's facts, all versions.
    pub resource: Arc<Resource>,
    /// Which of `resource.versions` this is.
    pub index: usize,
    /// Where the resource's types live.
    pub types: Types,
    /// How the kind behaves.
    pub kind: Kind,
    /// The plain tree of an object with nothing in it, made when first needed.
    pub(crate) empty: OnceLock<Value>,
    /// The stored objects behind it, shared by all its versions; none for reviews and the like.
    pub(crate) collection: Option<Arc<Collection>>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.gvr())
    }
}

impl Served {
    /// The facts of this version.
    pub fn version(&self) -> &ServedVersion {
        &self.resource.versions[self.index]
    }
    /// Type of the objects.
    pub fn ty(&self) -> TypeId {
        self.version().ty
    }
    /// Group, version, kind of the objects.
    pub fn gvk(&self) -> Gvk {
        Gvk::new(&self.resource.group, &self.version().version, &self.resource.kind)
    }
    /// Group, version, kind of the list.
    pub fn list_gvk(&self) -> Gvk {
        Gvk::new(&self.resource.group, &self.version().version, &self.resource.list_kind)
    }
    /// Group, version, resource.
    pub fn gvr(&self) -> Gvr {
        Gvr::new(&self.resource.group, &self.version().version, &self.resource.plural)
    }
    /// Group and resource, what messages speak of.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.resource.group, &self.resource.plural)
    }
}

/// All that is served at one time: routes, discovery and OpenAPI are made of it.
#[derive(Debug, Default)]
pub struct Table {
    /// In discovery's order.
    rows: Vec<Arc<Served>>,
    by_path: HashMap<(String, String, String), usize>,
    /// Grows with each change of the set.
    pub generation: u64,
}

impl Table {
    /// A table of rows in discovery's order.
    pub(crate) fn new(rows: Vec<Arc<Served>>, generation: u64) -> Table {
        let by_path = rows.iter().enumerate().map(|(i, row)| {
            let gvr = row.gvr();
            ((gvr.group, gvr.version, gvr.resource), i)
        });
        Table { by_path: by_path.collect(), rows, generation }
    }
    /// Every resource at every version.
    pub fn rows(&self) -> &[Arc<Served>] {
        &self.rows
    }
    /// The resource at a version.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        // One lookup a request: the three small strings are not worth a borrowed-tuple trick.
        let key = (group.to_string(), version.to_string(), plural.to_string());
        self.by_path.get(&key).map(|&i| &self.rows[i])
    }
}
