//! The registry: all resources over one store, and the verbs on them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use copepod_meta::{Admission, Authorizer, BoxFuture, Lister, Status, User, Value, Writer};
use copepod_store::{Store, StoreError};

use crate::api::*;
use crate::served::{Served, Table};

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
    /// For TokenReview.
    pub tokens: Arc<dyn TokenReviewer>,
    /// For TokenRequest; `None`: the server signs no tokens.
    pub issuer: Option<Arc<dyn TokenIssuer>>,
}

/// Who says whose token it is.
pub trait TokenReviewer: Send + Sync {
    /// The user and the audiences, of those asked for, that the token is good for; `None`: it is good for nobody.
    fn review<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<(User, Vec<String>)>, Status>>;
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
}

impl Registry {
    /// Opens: makes the table of resources and begins to fill the caches. `deciders` is called once with the registry's reader
    /// and writer.
    pub async fn open(
        config: Config,
        deciders: impl FnOnce(Arc<dyn Lister>, Arc<dyn Writer>) -> Deciders,
    ) -> Result<Arc<Registry>, StoreError> {
        let _ = (config, deciders);
        Err(StoreError::Rejected("not open yet".into()))
    }

    /// Waits until every cache holds the store's state: readiness.
    pub async fn ready(&self) {}

    /// Whether every cache holds the store's state, and which do not.
    pub fn not_ready(&self) -> Vec<String> {
        Vec::new()
    }

    /// The resource at a served version.
    pub fn lookup(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Served>> {
        self.table.load().find(group, version, plural).cloned()
    }

    /// All that is served now. Replaced as a whole: see [`Table::generation`].
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Wakes when the table was replaced.
    pub async fn table_changed(&self, since: u64) {
        let _ = since;
        std::future::pending().await
    }

    /// Reads for admission and access.
    pub fn lister(self: &Arc<Self>) -> Arc<dyn Lister> {
        unreachable!("not open yet")
    }

    /// Writes for bootstrap and quota: a client with all rights.
    pub fn writer(self: &Arc<Self>) -> Arc<dyn Writer> {
        unreachable!("not open yet")
    }

    /// Ends all watches and stops following the store. Writes under way finish.
    pub async fn shutdown(&self) {}

    /// GET of an object or a subresource.
    pub async fn get(&self, caller: &Caller, target: &Target, options: &GetOptions) -> Result<Answer, Status> {
        let _ = (caller, target, options);
        Err(Status::not_implemented("get"))
    }
    /// GET of a collection. A `target.name` selects one object.
    pub async fn list(&self, caller: &Caller, target: &Target, options: ListOptions) -> Result<Listing, Status> {
        let _ = (caller, target, options);
        Err(Status::not_implemented("list"))
    }
    /// GET of a collection with `watch=1`. `timeoutSeconds` is the edge's to enforce.
    pub async fn watch(&self, caller: &Caller, target: &Target, options: ListOptions) -> Result<Watch, Status> {
        let _ = (caller, target, options);
        Err(Status::not_implemented("watch"))
    }
    /// POST to a collection or a subresource.
    pub async fn create(
        &self,
        caller: &Caller,
        target: &Target,
        body: Body,
        options: &WriteOptions,
    ) -> Result<Answer, Status> {
        let _ = (caller, target, body, options);
        Err(Status::not_implemented("create"))
    }
    /// PUT.
    pub async fn update(
        &self,
        caller: &Caller,
        target: &Target,
        body: Body,
        options: &WriteOptions,
    ) -> Result<Answer, Status> {
        let _ = (caller, target, body, options);
        Err(Status::not_implemented("update"))
    }
    /// PATCH. `body.media` says how an apply patch is written; other patches are JSON.
    pub async fn patch(
        &self,
        caller: &Caller,
        target: &Target,
        kind: PatchType,
        body: Body,
        options: &WriteOptions,
    ) -> Result<Answer, Status> {
        let _ = (caller, target, kind, body, options);
        Err(Status::not_implemented("patch"))
    }
    /// DELETE of an object.
    pub async fn delete(
        &self,
        caller: &Caller,
        target: &Target,
        options: &DeleteOptions,
    ) -> Result<Answer, Status> {
        let _ = (caller, target, options);
        Err(Status::not_implemented("delete"))
    }
    /// DELETE of a collection: the objects that were selected, as they were.
    pub async fn delete_collection(
        &self,
        caller: &Caller,
        target: &Target,
        list: ListOptions,
        options: &DeleteOptions,
    ) -> Result<Listing, Status> {
        let _ = (caller, target, list, options);
        Err(Status::not_implemented("deletecollection"))
    }
    /// `DeleteOptions` from a body.
    pub fn decode_delete_options(&self, body: &Body) -> Result<DeleteOptions, Status> {
        let _ = body;
        Err(Status::not_implemented("DeleteOptions"))
    }
}
