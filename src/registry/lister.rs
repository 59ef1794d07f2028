//! The registry's reader and writer for the floors that decide (access, admission) and for bootstrap.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use copepod_meta::{BoxFuture, GroupResource, Listed, Lister, ResourceVersion, Status, User, Value, Writer};
use copepod_store::cache::{Entry, ListQuery, ReadAt, Scope};
use parking_lot::Mutex;

use crate::api::{Caller, Object, Target};
use crate::call::Call;
use crate::collection::Collection;
use crate::errors;
use crate::options::{DeleteOptions, Preconditions};
use crate::registry::Registry;
use crate::write::Update;

/// Stored bytes of the objects of one resource whose trees are kept: all roles and bindings of most clusters. A tree takes
/// some ten times as much.
const TREES_BYTES_MAX: usize = 256 << 10;

/// Trees of entries, decoded when first asked for. Over the bound all are let go: those of objects that are gone, too.
#[derive(Default)]
pub(crate) struct Trees(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    trees: HashMap<Bytes, Tree>,
    /// Stored bytes of all of them.
    bytes: usize,
}

struct Tree {
    revision: u64,
    bytes: usize,
    tree: Arc<Value>,
}

impl Trees {
    fn of(&self, collection: &Collection, entry: &Entry) -> Result<Arc<Value>, Status> {
        if let Some(kept) = self.0.lock().trees.get(&entry.key)
            && kept.revision == entry.revision
        {
            return Ok(kept.tree.clone());
        }
        let tree = Arc::new(collection.decode(&entry.stored, entry.revision)?);
        self.0.lock().keep(entry, &tree);
        Ok(tree)
    }
}

impl Kept {
    fn keep(&mut self, entry: &Entry, tree: &Arc<Value>) {
        let bytes = entry.stored.len();
        if self.bytes + bytes > TREES_BYTES_MAX {
            *self = Kept::default();
        }
        let tree = Tree { revision: entry.revision, bytes, tree: tree.clone() };
        self.bytes += bytes;
        if let Some(old) = self.trees.insert(entry.key.clone(), tree) {
            self.bytes -= old.bytes;
        }
    }
}

impl Registry {
    /// Reads for admission and access.
    pub fn lister(&self) -> Arc<dyn Lister> {
        Arc::new(Reader(self.me.clone()))
    }

    /// Writes for bootstrap and quota: a client with all rights.
    pub fn writer(&self) -> Arc<dyn Writer> {
        Arc::new(Reader(self.me.clone()))
    }

    /// One object as a hub tree, as fresh as the store has it.
    pub(crate) async fn read_hub(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Listed>, Status> {
        self.listed(resource, namespace, name, ReadAt::Latest).await
    }

    async fn listed(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
        at: ReadAt,
    ) -> Result<Option<Listed>, Status> {
        let collection = self.collection(resource)?;
        let key = collection.key(namespace, name)?;
        let got = collection.cache.get(&key, at).await.map_err(|e| errors::cache(e, resource, "get"))?;
        let Some(entry) = got.entry else { return Ok(None) };
        let object = collection.trees.of(&collection, &entry)?;
        Ok(Some(Listed { object, revision: ResourceVersion(entry.revision) }))
    }

    /// All objects of a resource or a namespace as hub trees.
    pub(crate) async fn list_hub(
        &self,
        resource: &GroupResource,
        namespace: &str,
        at: ReadAt,
    ) -> Result<Vec<Listed>, Status> {
        let collection = self.collection(resource)?;
        let folder = collection.folder(namespace);
        let scope = if folder == collection.root { Scope::Resource } else { Scope::Folder(folder) };
        let listing = collection.cache.list(ListQuery::new(scope, at)).await;
        let listing = listing.map_err(|e| errors::cache(e, resource, "list"))?;
        let listed = listing.entries.iter().map(|entry| {
            let object = collection.trees.of(&collection, entry)?;
            Ok(Listed { object, revision: ResourceVersion(entry.revision) })
        });
        listed.collect()
    }

    /// The target of an object of a stored resource, as the server itself names it.
    pub(crate) fn own_target(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
        subresource: &str,
    ) -> Result<Target, Status> {
        let table = self.table();
        let mut rows = table.rows().iter();
        let served =
            rows.find(|r| r.resource.group == resource.group && r.resource.plural == resource.resource);
        let served = served.ok_or_else(|| Status::internal(format!("{resource} is not served")))?.clone();
        let (namespace, name) = (namespace.to_string(), name.to_string());
        Ok(Target { served, namespace, name, subresource: subresource.to_string() })
    }
}

/// The registry, as long as it is there.
struct Reader(Weak<Registry>);

impl Reader {
    fn registry(&self) -> Result<Arc<Registry>, Status> {
        self.0.upgrade().ok_or_else(|| Status::service_unavailable("the server is shutting down"))
    }
}

impl Lister for Reader {
    fn get<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Listed>, Status>> {
        Box::pin(async move { self.registry()?.listed(resource, namespace, name, ReadAt::Any).await })
    }

    fn get_consistent<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Listed>, Status>> {
        Box::pin(async move { self.registry()?.listed(resource, namespace, name, ReadAt::Latest).await })
    }

    fn list<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Listed>, Status>> {
        Box::pin(async move { self.registry()?.list_hub(resource, namespace, ReadAt::Any).await })
    }

    fn changed(&self, resource: &GroupResource) -> u64 {
        let collection = self.registry().and_then(|r| r.collection(resource));
        collection.map_or(0, |c| c.cache.newest_change())
    }
}

/// The server's own user. upstream: user.APIServerUser
fn server() -> Caller {
    let user = User {
        name: "system:apiserver".into(),
        groups: vec!["system:authenticated".into(), "system:masters".into()],
        ..User::default()
    };
    Caller { user: Arc::new(user), user_agent: "kube-apiserver".into(), ..Caller::default() }
}

impl Registry {
    /// Creates an object that the server makes itself.
    pub(crate) async fn create_own(
        &self,
        resource: &GroupResource,
        namespace: &str,
        object: Value,
    ) -> Result<Object, Status> {
        let name = object.str_at(&["metadata", "name"]);
        let target = self.own_target(resource, namespace, name, "")?;
        let (caller, collection) = (server(), self.collection(resource)?);
        Call::new(self, &caller, &target, &collection, Value::map(), false)?.create(object).await
    }

    /// Changes an object for the server itself.
    pub(crate) async fn update_own(&self, target: &Target, update: &Update<'_>) -> Result<Object, Status> {
        let (caller, collection) = (server(), self.collection(&target.served.group_resource())?);
        let call = Call::new(self, &caller, target, &collection, Value::map(), false)?;
        Ok(call.update(update).await?.object)
    }

    /// Deletes an object that the server made itself; gone already is fine.
    pub(crate) async fn delete_own(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
    ) -> Result<(), Status> {
        self.delete_made(resource, namespace, name, DeleteOptions::default()).await
    }

    /// Deletes the very object that was seen, for the server itself; gone already is fine, and so is another one in its place.
    pub async fn delete_seen(&self, resource: &GroupResource, seen: &Value) -> Result<(), Status> {
        let text = |member| seen.str_at(&["metadata", member]);
        let preconditions = Preconditions { uid: Some(text("uid").into()), resource_version: None };
        let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
        match self.delete_made(resource, text("namespace"), text("name"), options).await {
            Err(status) if status.reason == copepod_meta::Reason::Conflict => Ok(()),
            done => done,
        }
    }

    async fn delete_made(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
        options: DeleteOptions,
    ) -> Result<(), Status> {
        let target = self.own_target(resource, namespace, name, "")?;
        let (caller, collection) = (server(), self.collection(resource)?);
        let mut call = Call::new(self, &caller, &target, &collection, Value::map(), false)?;
        call.internal = true;
        match call.delete(&options, name).await {
            Err(status) if status.reason != copepod_meta::Reason::NotFound => Err(status),
            _ => Ok(()),
        }
    }
}

impl Writer for Reader {
    fn create<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(async move { self.registry()?.create_own(resource, namespace, object).await?.hub() })
    }

    fn update<'a>(
        &'a self,
        resource: &'a GroupResource,
        subresource: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(async move {
            let registry = self.registry()?;
            let text = |member| object.str_at(&["metadata", member]);
            let target = registry.own_target(resource, text("namespace"), text("name"), subresource)?;
            let change = |_: Option<&Value>| Ok(object.clone());
            let update = Update { change: &change, uid: None, revision: None, force_create: false };
            registry.update_own(&target, &update).await?.hub()
        })
    }
}
