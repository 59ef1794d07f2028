//! What every controller gets, and how it is started.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use copepod_client::connect::ConnectError;
use copepod_client::connect::accounts::Accounts;
use copepod_client::events::Recorder;
use copepod_client::informer::{Cached, Change, Factory, Informer};
use copepod_client::object::{Key, MetaExt};
use copepod_client::queue::WorkQueue;
use copepod_client::rest::ResourceType;
use copepod_client::{Client, Shutdown};
use kube::Resource;
use tokio::sync::broadcast;

use crate::Config;

/// A controller's work: ends when its shutdown token does.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A controller: its name, and how it starts. `start` asks for informers and registers handlers, and returns the work to
/// be run once all informers are filled.
pub struct Controller {
    /// Upstream's name for it, as `--controllers` takes it.
    pub name: &'static str,
    /// Upstream's name for its service account.
    pub account: &'static str,
    /// Sets it up.
    pub start: fn(&Context) -> Work,
}

impl Controller {
    pub(crate) const fn new(name: &'static str, account: &'static str, start: fn(&Context) -> Work) -> Self {
        Self { name, account, start }
    }
}

/// As whom controllers act.
pub enum Identities {
    /// All as the program itself.
    Shared(Client),
    /// Each as a service account of its own, with the role that upstream gives it.
    Accounts(Box<Accounts>),
}

impl Identities {
    /// The client of an account.
    pub async fn client(&self, account: &str) -> Result<Client, ConnectError> {
        match self {
            Self::Shared(client) => Ok(client.clone()),
            Self::Accounts(accounts) => accounts.client(account).await,
        }
    }
}

/// What every controller shares.
#[derive(Clone)]
pub struct Context {
    /// The API, as the controller's own user.
    pub client: Client,
    /// Informers: one for each kind, whoever asks.
    pub factory: Factory,
    /// Events, written as the controller's own user; `with_component` for another name in them.
    pub recorder: Recorder,
    /// Objects of any kind that are gone. Told by the garbage collector, which watches all kinds; without it by nobody.
    pub gone: broadcast::Sender<Gone>,
    /// Settings.
    pub config: Arc<Config>,
    /// Ends everything.
    pub shutdown: Shutdown,
}

/// An object that is gone.
#[derive(Clone, Debug)]
pub struct Gone {
    /// Its kind.
    pub resource: Arc<ResourceType>,
    /// Where it was.
    pub namespace: String,
}

/// Deletions that a listener may be behind; one that is further behind looks at everything.
pub const GONE_MAX: usize = 1024;

impl Context {
    /// The informer of a kind, indexed by namespace and controlling owner.
    pub fn informer<K: Cached + Resource<DynamicType = ()>>(&self) -> Arc<Informer<K>> {
        let informer = self.factory.informer::<K>();
        informer.index_by_namespace();
        informer.index_by_controller();
        informer
    }
}

/// Enqueues the key of each object that changes.
pub fn enqueue_self<K: Cached>(informer: &Informer<K>, queue: &WorkQueue<Key>) {
    let queue = queue.clone();
    informer.on_change(move |change| queue.add(change.object().meta().key()));
}

/// Enqueues the controlling owner of each object that changes, if it is of `kind`; of a change of owner both.
pub fn enqueue_controller<K: Cached>(informer: &Informer<K>, kind: &'static str, queue: &WorkQueue<Key>) {
    let queue = queue.clone();
    informer.on_change(move |change| {
        if let Change::Updated(before, after) = &change {
            let (old, new) = (before.meta().controller(), after.meta().controller());
            if old.map(|o| &o.uid) != new.map(|o| &o.uid) {
                controller_key(&***before, kind).into_iter().for_each(|key| queue.add(key));
            }
        }
        controller_key(&**change.object(), kind).into_iter().for_each(|key| queue.add(key));
    });
}

/// The key of the controlling owner of an object, if it is of `kind`.
pub fn controller_key<K: Resource>(object: &K, kind: &str) -> Option<Key> {
    let owner = object.meta().controller().filter(|owner| owner.kind == kind)?;
    Some(copepod_client::object::join(MetaExt::namespace(object.meta()), &owner.name))
}
