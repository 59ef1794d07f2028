//! Informers: a store of one resource, kept fresh by a streaming list and watch, with secondary indexes and handlers.
//!
//! Owns: the newest state of a resource as this program saw it. Does not: write, wait for handlers, or keep more of an
//! object than its partial type has (managed fields are always dropped).
//!
//! Invariants:
//! * the store changes only by whole events, or by one whole list ([`Reflector::replace`]);
//! * handlers run after the store shows the change, in order, and must not block: they enqueue keys;
//! * what a relist no longer shows is reported as deleted, so that no handler misses a deletion.
//!
//! When it breaks: the watch is resumed, or listed anew when it is too old, with back-off; readers keep the old state.

use std::any::{Any, TypeId};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;

use crate::Shutdown;
use crate::object::{Key, MetaExt};

/// First wait of a watch that failed.
const RETRY_BASE: Duration = Duration::from_millis(200);
/// Longest wait: a server that comes back is noticed within seconds.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A watch that held so long begins with the first wait again.
const RETRY_RESET: Duration = Duration::from_secs(10);

/// Waits between the tries of a watch: doubled each time, with jitter so that watches do not come back all at once.
#[derive(Debug, Default)]
pub struct WatchBackoff {
    failures: u32,
}

/// The back-off of every watch.
pub fn watch_backoff() -> ResetTimerBackoff<WatchBackoff> {
    ResetTimerBackoff::new(WatchBackoff::default(), RETRY_RESET)
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let doubled = RETRY_BASE.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        Some(doubled.min(RETRY_MAX).mul_f64(0.5 + 0.5 * rand::random::<f64>()))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// What an informer can hold.
pub trait Cached: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static {}
impl<K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static> Cached for K {}

/// A change of the store, as handlers see it.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// Was not there before.
    Added(&'a Arc<K>),
    /// Before and after.
    Updated(&'a Arc<K>, &'a Arc<K>),
    /// The last state that was seen.
    Deleted(&'a Arc<K>),
}

impl<K> Change<'_, K> {
    /// The newest state known.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Updated(_, object) | Self::Deleted(object) => object,
        }
    }
}

type IndexFn<K> = fn(&K) -> Vec<String>;
type Handler<K> = Box<dyn Fn(Change<'_, K>) + Send + Sync>;

/// The store of one resource.
pub struct Informer<K> {
    state: RwLock<State<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: tokio::sync::watch::Sender<bool>,
    started: AtomicBool,
}

struct State<K> {
    objects: HashMap<Key, Arc<K>>,
    indexes: Vec<Index<K>>,
}

struct Index<K> {
    name: &'static str,
    values_of: IndexFn<K>,
    keys: HashMap<String, BTreeSet<Key>>,
}

impl<K> Default for Informer<K> {
    fn default() -> Self {
        Self {
            state: RwLock::new(State { objects: HashMap::new(), indexes: Vec::new() }),
            handlers: RwLock::new(Vec::new()),
            synced: tokio::sync::watch::Sender::new(false),
            started: AtomicBool::new(false),
        }
    }
}

/// The index that every namespaced informer may ask for: objects by namespace.
pub const BY_NAMESPACE: &str = "namespace";
/// Objects by the uid of their controlling owner.
pub const BY_CONTROLLER: &str = "controller";

impl<K: Cached> Informer<K> {
    /// Adds an index; a second one of the same name is the first.
    pub fn add_index(&self, name: &'static str, values_of: IndexFn<K>) {
        let mut state = self.state.write();
        if state.indexes.iter().any(|index| index.name == name) {
            return;
        }
        let mut index = Index { name, values_of, keys: HashMap::new() };
        for (key, object) in &state.objects {
            index.insert(key, object);
        }
        state.indexes.push(index);
    }

    /// Adds the index [`BY_NAMESPACE`].
    pub fn index_by_namespace(&self) {
        self.add_index(BY_NAMESPACE, |object| vec![MetaExt::namespace(object.meta()).to_owned()]);
    }

    /// Adds the index [`BY_CONTROLLER`].
    pub fn index_by_controller(&self) {
        self.add_index(BY_CONTROLLER, |object| {
            object.meta().controller().map(|owner| owner.uid.clone()).into_iter().collect()
        });
    }

    /// Calls `handler` for every later change, and now for every object already there.
    pub fn on_change(&self, handler: impl Fn(Change<'_, K>) + Send + Sync + 'static) {
        let mut handlers = self.handlers.write();
        for object in self.list() {
            handler(Change::Added(&object));
        }
        handlers.push(Box::new(handler));
    }

    /// The object of a key.
    pub fn get(&self, key: &str) -> Option<Arc<K>> {
        self.state.read().objects.get(key).cloned()
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.state.read().objects.values().cloned().collect()
    }

    /// The objects that an index names for `value`, ordered by key. An index that was not added is empty.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let Some(keys) = state.index(name).and_then(|index| index.keys.get(value)) else {
            return Vec::new();
        };
        keys.iter().filter_map(|key| state.objects.get(key).cloned()).collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first complete list has arrived.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits for the first complete list.
    pub async fn wait_synced(&self) {
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Puts one object in, as an event of the watch would. For the watch itself and for tests.
    pub fn apply(&self, object: Arc<K>) {
        let before = self.state.write().insert(object.meta().key(), object.clone());
        match &before {
            None => self.report(Change::Added(&object)),
            Some(before) => self.report(Change::Updated(before, &object)),
        }
    }

    /// Takes one object out, as an event of the watch would.
    pub fn remove(&self, object: Arc<K>) {
        self.state.write().remove(&object.meta().key());
        self.report(Change::Deleted(&object));
    }

    /// Replaces the whole content by a complete list; reports only what differs.
    fn replace(&self, list: HashMap<Key, Arc<K>>) {
        let gone: Vec<_> = {
            let state = self.state.read();
            state.objects.iter().filter(|(key, _)| !list.contains_key(*key)).map(|(_, o)| o.clone()).collect()
        };
        for object in gone {
            self.remove(object);
        }
        for (key, object) in list {
            let same = self.get(&key).is_some_and(|old| {
                old.meta().resource_version == object.meta().resource_version
                    && old.meta().uid == object.meta().uid
            });
            if !same {
                self.apply(object);
            }
        }
        self.synced.send_replace(true);
    }

    fn report(&self, change: Change<'_, K>) {
        for handler in self.handlers.read().iter() {
            match &change {
                Change::Added(object) => handler(Change::Added(object)),
                Change::Updated(before, after) => handler(Change::Updated(before, after)),
                Change::Deleted(object) => handler(Change::Deleted(object)),
            }
        }
    }

    /// Lists and watches until `shutdown`. `slim` may drop more of each object before it is stored.
    pub async fn run(
        self: Arc<Self>,
        api: Api<K>,
        config: watcher::Config,
        shutdown: Shutdown,
        slim: fn(&mut K),
    ) where
        K::DynamicType: Send,
    {
        self.started.store(true, Ordering::Relaxed);
        // Boxed, as is the task below: what is around a type's watch need not be compiled for each type.
        let events = watch(api, config.streaming_lists()).boxed();
        let mut events = std::pin::pin!(events.backoff(watch_backoff()));
        let mut listed = HashMap::new();
        let keep = |mut object: K| {
            object.meta_mut().managed_fields = None;
            slim(&mut object);
            Arc::new(object)
        };
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(Event::Init)) => listed.clear(),
                Some(Ok(Event::InitApply(object))) => {
                    listed.insert(object.meta().key(), keep(object));
                }
                Some(Ok(Event::InitDone)) => self.replace(std::mem::take(&mut listed)),
                Some(Ok(Event::Apply(object))) => self.apply(keep(object)),
                Some(Ok(Event::Delete(object))) => self.remove(keep(object)),
                Some(Err(error)) => {
                    tracing::warn!(resource = std::any::type_name::<K>(), %error, "watch failed, will try again");
                }
                None => return,
            }
        }
    }
}

impl<K> State<K> {
    fn index(&self, name: &str) -> Option<&Index<K>> {
        self.indexes.iter().find(|index| index.name == name)
    }

    fn insert(&mut self, key: Key, object: Arc<K>) -> Option<Arc<K>> {
        let before = self.objects.insert(key.clone(), object.clone());
        for index in &mut self.indexes {
            if let Some(before) = &before {
                index.remove(&key, before);
            }
            index.insert(&key, &object);
        }
        before
    }

    fn remove(&mut self, key: &str) -> Option<Arc<K>> {
        let (key, before) = self.objects.remove_entry(key)?;
        for index in &mut self.indexes {
            index.remove(&key, &before);
        }
        Some(before)
    }
}

impl<K> Index<K> {
    fn insert(&mut self, key: &Key, object: &K) {
        for value in (self.values_of)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &Key, object: &K) {
        for value in (self.values_of)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

/// One informer for each type, shared by all that ask for it.
#[derive(Clone)]
pub struct Factory {
    client: Client,
    shared: Arc<Mutex<Informers>>,
}

#[derive(Default)]
struct Informers {
    of_type: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    starters: Vec<Starter>,
    waiters: Vec<tokio::sync::watch::Receiver<bool>>,
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;
type Starter = Box<dyn FnOnce(&Client, Shutdown) + Send>;

impl Factory {
    /// A factory without informers.
    pub fn new(client: Client) -> Self {
        Self { client, shared: Arc::default() }
    }

    /// The client that informers and controllers share.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The informer of a type over all namespaces. Indexes and handlers are added to what is returned; it begins to
    /// fill with [`Factory::start`].
    pub fn informer<K: Cached + Resource<DynamicType = ()>>(&self) -> Arc<Informer<K>> {
        self.informer_with(watcher::Config::default(), |_| {})
    }

    /// The same, of the objects that `config` selects, each reduced by `slim`. The first caller's wishes count.
    pub fn informer_with<K: Cached + Resource<DynamicType = ()>>(
        &self,
        config: watcher::Config,
        slim: fn(&mut K),
    ) -> Arc<Informer<K>> {
        let mut shared = self.shared.lock();
        if let Some(known) = shared.of_type.get(&TypeId::of::<K>()).cloned()
            && let Ok(informer) = known.downcast::<Informer<K>>()
        {
            return informer;
        }
        let informer = Arc::new(Informer::<K>::default());
        shared.of_type.insert(TypeId::of::<K>(), informer.clone());
        shared.waiters.push(informer.synced.subscribe());
        let starting = informer.clone();
        shared.starters.push(Box::new(move |client, shutdown| {
            let api = Api::<K>::all_with(client.clone(), &());
            let running: Running = Box::pin(starting.run(api, config, shutdown, slim));
            tokio::spawn(running);
        }));
        informer
    }

    /// Starts every informer that was asked for since the last call.
    pub fn start(&self, shutdown: &Shutdown) {
        let starters = std::mem::take(&mut self.shared.lock().starters);
        for start in starters {
            start(&self.client, shutdown.clone());
        }
    }

    /// Waits until every informer has its first complete list.
    pub async fn wait_synced(&self) {
        let waiters = self.shared.lock().waiters.clone();
        for mut waiter in waiters {
            // An informer lives as long as the factory holds it.
            let _ = waiter.wait_for(|synced| *synced).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn object(spec: &str) -> Arc<ConfigMap> {
        let (key, version) = spec.split_once('@').unwrap_or((spec, "1"));
        let (namespace, name) = crate::object::split(key);
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some(namespace.into());
        map.metadata.name = Some(name.into());
        map.metadata.resource_version = Some(version.into());
        Arc::new(map)
    }

    fn list(specs: &str) -> HashMap<Key, Arc<ConfigMap>> {
        specs.split_whitespace().map(object).map(|o| (o.metadata.key(), o)).collect()
    }

    /// Two lists one after the other: only what differs is reported, deletions first.
    #[test]
    fn a_relist_reports_differences_only() {
        for (name, first, second, want) in [
            ("same", "a/x@1 a/y@1", "a/x@1 a/y@1", ""),
            ("changed", "a/x@1", "a/x@2", "~a/x@2"),
            ("gone and new", "a/x@1", "b/y@1", "-a/x@1 +b/y@1"),
            ("emptied", "a/x@1", "", "-a/x@1"),
        ] {
            let informer = Informer::<ConfigMap>::default();
            informer.replace(list(first));
            let log = Arc::new(Mutex::new(Vec::new()));
            let sink = log.clone();
            informer.handlers.write().push(Box::new(move |change| {
                let sign = match change {
                    Change::Added(_) => '+',
                    Change::Updated(..) => '~',
                    Change::Deleted(_) => '-',
                };
                let meta = &change.object().metadata;
                let version = meta.resource_version.as_deref().unwrap_or_default();
                sink.lock().push(format!("{sign}{}@{version}", meta.key()));
            }));
            informer.replace(list(second));
            assert_eq!(log.lock().join(" "), want, "{name}");
        }
    }

    #[test]
    fn indexes_follow_every_change() {
        let informer = Informer::<ConfigMap>::default();
        informer.apply(object("a/x"));
        informer.index_by_namespace();
        informer.apply(object("a/y"));
        informer.apply(object("b/z"));
        informer.apply(object("a/y@2"));
        informer.remove(object("a/x"));
        let keys =
            |ns| informer.by_index(BY_NAMESPACE, ns).iter().map(|o| o.metadata.key()).collect::<Vec<_>>();
        assert_eq!(keys("a"), ["a/y".into()]);
        assert_eq!(keys("b"), ["b/z".into()]);
        assert!(keys("c").is_empty());
        assert_eq!(informer.state.read().indexes[0].keys.len(), 2, "empty buckets are dropped");
    }

    #[test]
    fn a_failed_watch_waits_longer_each_time_but_never_long() {
        let waits: Vec<u128> = watch_backoff().take(8).map(|wait| wait.as_millis()).collect();
        for (at, wait) in waits.iter().enumerate() {
            let most = (200 << at).min(5000);
            assert!((most / 2..=most).contains(wait), "{waits:?}");
        }
    }

    #[test]
    fn a_late_handler_sees_what_is_already_there() {
        let informer = Informer::<ConfigMap>::default();
        informer.apply(object("a/x"));
        let seen = Arc::new(Mutex::new(0));
        let count = seen.clone();
        informer.on_change(move |_| *count.lock() += 1);
        assert_eq!(*seen.lock(), 1);
    }
}
