//! The machinery behind one stored resource: where its keys are, how its bytes become trees and back, its cache.
//!
//! A collection is shared by every served version of its resource, and by resources that cohabit (both Event groups keep the
//! same objects). Trees are in the hub version of the kind that owns the stored form.

use std::sync::Arc;

use bytes::Bytes;
use copepod_kinds::{Context, Kind};
use copepod_meta::{CompactString, GroupResource, Gvk, Reason, ResourceVersion, Status, Value, names, time};
use copepod_schema::{Resource, Storage};
use copepod_store::cache::{BodyBudget, Cache, CacheConfig, Hold, ReadAt};
use copepod_store::{KeyValue, Store};

use crate::errors;
use crate::forms::Forms;
use crate::lister::Trees;
use crate::special::Hooks;
use crate::types::Types;
use crate::wire;

/// One stored resource.
pub struct Collection {
    /// The resource that owns the stored form.
    pub(crate) resource: Arc<Resource>,
    /// Its name in messages.
    pub(crate) group_resource: GroupResource,
    /// How it is stored.
    pub(crate) storage: Storage,
    /// The kind whose hub the trees are in.
    pub(crate) kind: Kind,
    /// Where the types live.
    pub(crate) types: Types,
    /// `/registry/pods/`
    pub(crate) root: Bytes,
    /// What its objects look like to readers; the cache's codec.
    pub(crate) forms: Arc<Forms>,
    /// State and history.
    pub(crate) cache: Cache,
    /// The store itself, for writes.
    pub(crate) store: Arc<dyn Store>,
    /// What its writes do beyond themselves.
    pub(crate) hooks: &'static dyn Hooks,
    /// Seconds after which objects vanish.
    pub(crate) ttl_seconds: Option<u64>,
    /// A deletion answers the object, not a Status.
    pub(crate) returns_deleted: bool,
    /// Whether a feature gate is on.
    pub(crate) feature: fn(&str) -> bool,
    /// Decoded objects, for those who decide.
    pub(crate) trees: Trees,
}

/// What collections are made with.
pub(crate) struct Ground<'a> {
    pub(crate) store: &'a Arc<dyn Store>,
    pub(crate) prefix: &'a str,
    pub(crate) budget: &'a Arc<BodyBudget>,
    pub(crate) event_ttl_seconds: u64,
    pub(crate) feature: fn(&str) -> bool,
}

impl Collection {
    /// The collection of `resource`, seen by `seen_as` (itself first, then those that cohabit).
    pub(crate) fn new(
        resource: Arc<Resource>,
        storage: Storage,
        types: Types,
        seen_as: Vec<Arc<Resource>>,
        ground: &Ground,
    ) -> Collection {
        let kind = copepod_kinds::kind_of(&resource);
        let root = Bytes::from(format!("{}/{}/", ground.prefix.trim_end_matches('/'), storage.prefix));
        let forms = Arc::new(Forms::new(types.clone(), storage.clone(), kind.clone(), &seen_as));
        let mut config = CacheConfig::new(&resource.plural, root.clone());
        config.indexes = forms.indexed_fields();
        let hooks = crate::special::hooks(&resource.group, &resource.plural);
        if hooks.is_read_seldom() {
            config.hold = Hold::Changes;
        }
        let cache = Cache::new(ground.store.clone(), forms.clone(), config, ground.budget.clone());
        // `--event-ttl` stands for whatever the facts say of resources whose objects vanish.
        let ttl_seconds = (storage.ttl_seconds > 0).then_some(ground.event_ttl_seconds);
        Collection {
            group_resource: GroupResource::new(&resource.group, &resource.plural),
            returns_deleted: resource.returns_deleted || hooks.returns_deleted(),
            resource,
            storage,
            kind,
            types,
            root,
            forms,
            cache,
            store: ground.store.clone(),
            hooks,
            ttl_seconds,
            feature: ground.feature,
            trees: Trees::default(),
        }
    }

    /// Group and kind as messages about invalid objects name them.
    pub(crate) fn gvk(&self) -> Gvk {
        Gvk::new(&self.storage.group, &self.kind.hub, &self.storage.kind)
    }

    /// The key of an object. upstream: registry/generic/registry/store.go NamespaceKeyFunc, NoNamespaceKeyFunc
    pub(crate) fn key(&self, namespace: &str, name: &str) -> Result<Bytes, Status> {
        if self.resource.namespaced && namespace.is_empty() {
            return Err(Status::bad_request("Namespace parameter required."));
        }
        if name.is_empty() {
            return Err(Status::bad_request("Name parameter required."));
        }
        let wrong = names::path_segment(name);
        if !wrong.is_empty() {
            let quoted = copepod_meta::field::quote(name);
            return Err(Status::bad_request(format!(
                "Name parameter invalid: {quoted}: {}",
                wrong.join(";")
            )));
        }
        let mut key = Vec::with_capacity(self.root.len() + namespace.len() + name.len() + 1);
        key.extend_from_slice(&self.root);
        if self.resource.namespaced {
            key.extend_from_slice(namespace.as_bytes());
            key.push(b'/');
        }
        key.extend_from_slice(name.as_bytes());
        Ok(key.into())
    }

    /// The folder of a namespace; all of the resource for "" and for what lives in none.
    pub(crate) fn folder(&self, namespace: &str) -> Bytes {
        if !self.resource.namespaced || namespace.is_empty() {
            return self.root.clone();
        }
        [&self.root[..], namespace.as_bytes(), b"/"].concat().into()
    }

    /// A key of this collection as it is before the prefix of the whole store stands in front: `/pods/default/web`.
    pub(crate) fn without_prefix<'k>(&self, key: &'k str) -> &'k str {
        let prefix_len = self.root.len().saturating_sub(self.storage.prefix.len() + 2);
        key.get(prefix_len..).unwrap_or(key)
    }

    /// Stored bytes as a hub tree that shows its revision.
    pub(crate) fn decode(&self, stored: &Bytes, revision: u64) -> Result<Value, Status> {
        let mut tree = wire::decode_stored(&self.types, &self.storage, stored).map_err(errors::corrupt)?;
        if let Some(restore) = self.kind.strategy.restore() {
            restore(&mut tree);
        }
        self.kind.strategy.to_hub(&self.storage.version, &mut tree);
        set_revision(&mut tree, revision);
        Ok(tree)
    }

    /// A hub tree as it is stored: without resourceVersion and selfLink.
    ///
    /// Upstream defaults what it reads from its store; here readers get the stored bytes, so what defaulting would make of them
    /// is made now (a Job's labels, for one, come from its template in that way only).
    pub(crate) fn encode(&self, tree: &mut Value) -> Result<Bytes, Status> {
        let (strategy, version) = (self.kind.strategy, &self.storage.version);
        strategy.from_hub(version, tree);
        self.kind.default(version, &self.types, self.storage.ty, tree);
        let encoded = wire::encode_stored(&self.types, &self.storage, tree).map_err(errors::unencodable);
        strategy.to_hub(version, tree);
        encoded
    }

    /// The newest state of an object: its pair and tree.
    pub(crate) async fn read(&self, key: &[u8]) -> Result<Option<(KeyValue, Value)>, Status> {
        let got = self.store.get(key).await.map_err(|e| errors::store(e, &self.group_resource, "get"))?;
        let Some(kv) = got.kv else { return Ok(None) };
        let tree = self.decode(&kv.value, kv.mod_revision)?;
        Ok(Some((kv, tree)))
    }

    /// The state of an object as the cache has it at hand: maybe old, maybe not there though the object is.
    pub(crate) async fn read_cached(&self, key: &[u8]) -> Option<(KeyValue, Value)> {
        if !self.cache.is_ready() {
            return None;
        }
        // Whatever is wrong is found, and said, by the read of the store that follows.
        let entry = self.cache.get(key, ReadAt::Any).await.ok()?.entry?;
        let tree = self.decode(&entry.stored, entry.revision).ok()?;
        let kv = KeyValue {
            key: entry.key.clone(),
            value: entry.stored.clone(),
            create_revision: entry.create_revision,
            mod_revision: entry.revision,
            version: 0,
        };
        Some((kv, tree))
    }

    /// What strategies may know of a request.
    pub(crate) fn context<'a>(
        &'a self,
        user: &'a copepod_meta::User,
        namespace: &'a str,
        now: &'a str,
    ) -> Context<'a> {
        Context { user, namespace, resource: &self.group_resource, now, feature: self.feature }
    }
}

/// Now, as metadata shows it.
pub(crate) fn now() -> CompactString {
    time::rfc3339(time::now()).into()
}

/// Writes `metadata.resourceVersion`; none for 0.
pub(crate) fn set_revision(tree: &mut Value, revision: u64) {
    let meta = tree.make(&["metadata"]).make_map();
    if revision == 0 {
        meta.remove("resourceVersion");
    } else {
        meta.insert("resourceVersion", ResourceVersion(revision).to_string());
    }
}

/// The revision that a tree names; 0 when it names none. What is no number is a plain error, that is a 500.
pub(crate) fn revision_of(tree: &Value) -> Result<u64, Status> {
    let text = tree.str_at(&["metadata", "resourceVersion"]);
    let parsed = ResourceVersion::parse(text);
    parsed.map(|v| v.0).map_err(|e| Status::new(500, Reason::Unknown, e.to_string()))
}
