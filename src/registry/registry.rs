//! The registry: all resources over one store, and the verbs on them.

use std::sync::Arc;
use std::time::Duration;

use std::collections::HashMap;
use std::sync::{OnceLock, Weak};

use arc_swap::ArcSwap;
use copepod_kinds::Kind;
use copepod_meta::{Admission, Authorizer, BoxFuture, GroupResource, Lister, Status, User, Value, Writer};
use copepod_schema::Resource;
use copepod_store::cache::BodyBudget;
use copepod_store::{Store, StoreError};
use tokio::sync::watch;

use crate::collection::{Collection, Ground};
use crate::served::{Served, Table};
use crate::special::Addresses;
use crate::types::Types;

/// What the registry needs to know of its surroundings.
pub struct Config {
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// Root of all keys: `--etcd-prefix`, "/registry".
    pub prefix: String,
    /// Whether a feature gate is on.
    pub feature: fn(&str) -> bool,
    /// `--service-cluster-ip-range`, one or two ranges.
    pub service_cidrs: Vec<ipnet::IpNet>,
    /// `--service-node-port-range`
    pub node_ports: std::ops::RangeInclusive<u16>,
    /// `--event-ttl`
    pub event_ttl: Duration,
    /// Bytes that encoded bodies beyond the stored form may take in memory, all resources together.
    pub body_cache_bytes_max: usize,
}

/// Those who decide beside the registry. They read through the registry's own [`Lister`].
pub struct Deciders {
    /// The chain of admission plugins.
    pub admission: Arc<dyn Admission>,
    /// For create on update, escalation checks and access reviews.
    pub authorizer: Arc<dyn Authorizer>,
    /// For escalation checks of roles and bindings.
    pub rules: Arc<dyn RuleResolver>,
    /// For TokenReview.
    pub tokens: Arc<dyn TokenReviewer>,
    /// For TokenRequest; `None`: the server signs no tokens.
    pub issuer: Option<Arc<dyn TokenIssuer>>,
}

/// Who says which RBAC rules a user holds.
pub trait RuleResolver: Send + Sync {
    /// The rules of `wanted` (`PolicyRule` trees) that the user does not hold in the namespace ("": cluster-wide), as messages
    /// print them (`{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`), compacted, sorted. None: the user holds them all.
    fn missing<'a>(
        &'a self,
        user: &'a User,
        namespace: &'a str,
        wanted: &'a [Value],
    ) -> BoxFuture<'a, Result<Vec<String>, Status>>;
}

/// A token's user and the audiences that it is good for; `None`: it is good for nobody.
pub type Reviewed = Option<(User, Vec<String>)>;

/// Who says whose token it is.
pub trait TokenReviewer: Send + Sync {
    /// The user and the audiences, of those asked for, that the token is good for; `None`: it is good for nobody.
    fn review<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Reviewed, Status>>;
}

/// What a service account token is to be bound to; objects are hub trees.
pub struct TokenClaims<'a> {
    /// The ServiceAccount.
    pub service_account: &'a Value,
    /// The Pod, Secret or Node that it is bound to, with its kind.
    pub bound: Option<(&'a str, &'a Value)>,
    /// For a Pod: its Node, if that exists.
    pub node: Option<&'a Value>,
    /// Audiences, empty: the server's own.
    pub audiences: &'a [String],
    /// Life time asked for, already validated.
    pub expiration_seconds: i64,
}

/// A signed token.
pub struct IssuedToken {
    /// The JWT.
    pub token: String,
    /// When it expires, seconds since the epoch.
    pub expires_unix_seconds: i64,
    /// The audiences it was made for.
    pub audiences: Vec<String>,
}

/// Who signs service account tokens.
pub trait TokenIssuer: Send + Sync {
    /// Signs.
    fn issue<'a>(&'a self, claims: TokenClaims<'a>) -> BoxFuture<'a, Result<IssuedToken, Status>>;
}

/// All resources over one store.
pub struct Registry {
    table: ArcSwap<Table>,
    /// Tells of new tables by their generation.
    generation: watch::Sender<u64>,
    collections: ArcSwap<HashMap<GroupResource, Arc<Collection>>>,
    deciders: OnceLock<Deciders>,
    /// Becomes true when watches are to end.
    ending: watch::Sender<bool>,
    pub(crate) addresses: Addresses,
    pub(crate) store: Arc<dyn Store>,
    prefix: String,
    pub(crate) me: Weak<Registry>,
}

impl Registry {
    /// Opens: makes the table of resources. `deciders` is called once with the registry's reader and writer.
    pub async fn open(
        config: Config,
        deciders: impl FnOnce(Arc<dyn Lister>, Arc<dyn Writer>) -> Deciders,
    ) -> Result<Arc<Registry>, StoreError> {
        // The store has to answer before anything is promised.
        config.store.current_revision().await?;
        let budget = BodyBudget::new(config.body_cache_bytes_max);
        let ground = Ground {
            store: &config.store,
            prefix: &config.prefix,
            budget: &budget,
            event_ttl_seconds: config.event_ttl.as_secs(),
            feature: config.feature,
        };
        let resources: Vec<Arc<Resource>> =
            copepod_schema::resources().iter().cloned().map(Arc::new).collect();
        let collections = make_collections(&resources, &ground);
        let rows = make_rows(&resources, &collections);
        let registry = Arc::new_cyclic(|me| Registry {
            table: ArcSwap::from_pointee(Table::new(rows, 1)),
            generation: watch::Sender::new(1),
            collections: ArcSwap::from_pointee(collections),
            deciders: OnceLock::new(),
            ending: watch::Sender::new(false),
            addresses: Addresses::new(config.service_cidrs, config.node_ports),
            store: config.store.clone(),
            prefix: config.prefix.trim_end_matches('/').to_string(),
            me: me.clone(),
        });
        let deciders = deciders(registry.lister(), registry.writer());
        let first = registry.deciders.set(deciders).is_ok();
        debug_assert!(first, "a registry is opened once");
        Ok(registry)
    }

    pub(crate) fn deciders(&self) -> &Deciders {
        self.deciders
            .get()
            .expect("set before `open` hands the registry out; nothing writes from within `open`")
    }

    /// The stored resource of a name; resources that cohabit share one.
    pub(crate) fn collection(&self, resource: &GroupResource) -> Result<Arc<Collection>, Status> {
        let found = self.collections.load().get(resource).cloned();
        found.ok_or_else(|| Status::internal(format!("{resource} is not stored here")))
    }

    /// Where the node ports in use are kept. upstream: pkg/registry/core/rest RangeAllocation's base key
    pub(crate) fn ranges_key(&self) -> Vec<u8> {
        format!("{}/ranges/servicenodeports", self.prefix).into_bytes()
    }

    /// Starts to fill all caches, for servers that expect all of them to be used.
    pub fn warm(&self) {
        self.collections.load().values().for_each(|c| c.cache.start());
    }

    /// The caches that were started and are not filled yet: readiness.
    pub fn not_ready(&self) -> Vec<String> {
        let collections = self.collections.load();
        let waiting = collections.iter().filter(|(_, c)| !c.cache.is_ready());
        waiting.map(|(resource, _)| resource.to_string()).collect()
    }

    /// The resource at a served version.
    pub fn lookup(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Served>> {
        self.table.load().find(group, version, plural).cloned()
    }

    /// All that is served now. Replaced as a whole: see [`Table::generation`].
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Tells the generation of each new table.
    pub fn table_changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Ends all watches. Writes under way finish.
    pub fn shutdown(&self) {
        self.ending.send_replace(true);
    }

    pub(crate) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }
}

/// One collection for each stored form; resources that keep the same objects share it.
fn make_collections(resources: &[Arc<Resource>], ground: &Ground) -> HashMap<GroupResource, Arc<Collection>> {
    let mut made = HashMap::new();
    for owner in resources {
        let Some(storage) = owner.storage.as_ref().filter(|s| s.group == owner.group) else { continue };
        let shows = |r: &&Arc<Resource>| {
            r.group != owner.group && r.storage.as_ref().is_some_and(|s| s.prefix == storage.prefix)
        };
        let mut seen_as = vec![owner.clone()];
        seen_as.extend(resources.iter().filter(shows).cloned());
        let collection = Arc::new(Collection::new(
            owner.clone(),
            storage.clone(),
            Types::Builtin,
            seen_as.clone(),
            ground,
        ));
        for resource in seen_as {
            made.insert(GroupResource::new(&resource.group, &resource.plural), collection.clone());
        }
    }
    made
}

/// A row for each version of each resource.
fn make_rows(
    resources: &[Arc<Resource>],
    collections: &HashMap<GroupResource, Arc<Collection>>,
) -> Vec<Arc<Served>> {
    let row = |resource: &Arc<Resource>, kind: &Kind, index| {
        let name = GroupResource::new(&resource.group, &resource.plural);
        Arc::new(Served {
            resource: resource.clone(),
            index,
            types: Types::Builtin,
            kind: kind.clone(),
            empty: OnceLock::new(),
            collection: collections.get(&name).cloned(),
        })
    };
    let rows = resources.iter().flat_map(|resource| {
        let kind = copepod_kinds::kind_of(resource);
        (0..resource.versions.len()).map(move |index| row(resource, &kind, index))
    });
    rows.collect()
}
