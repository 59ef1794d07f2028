//! The ConfigMaps and Secrets that pods of this node use, and the services of the cluster.
//!
//! Each object in use has one watch on exactly that object (a node may read no others); it ends with its last user. A
//! change knocks at the workers that use the object. Until a watch has seen its object, answers come from a direct read,
//! so that the first pod does not wait and refusals are told in the API server's words.
//!
//! upstream: kubelet/util/manager/watch_based_manager.go

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use copepod_client::{Client, rest};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::runtime::watcher;
use kube::{Api, Resource};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::{
    container::env::{ServiceFacts, service_variables},
    wake::{Cause, Wakers},
};

/// Objects in use, of both kinds.
pub struct ObjectCache {
    config_maps: Watched<ConfigMap>,
    secrets: Watched<Secret>,
}

impl ObjectCache {
    /// An empty cache that knocks at `wakers`.
    pub fn new(client: Client, wakers: Arc<Wakers>) -> Self {
        ObjectCache {
            config_maps: Watched::new(client.clone(), wakers.clone()),
            secrets: Watched::new(client, wakers),
        }
    }

    /// A ConfigMap for a pod; `None` if it does not exist.
    pub async fn config_map(
        &self,
        uid: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ConfigMap>>, String> {
        self.config_maps.get(uid, namespace, name).await
    }

    /// A Secret for a pod; `None` if it does not exist.
    pub async fn secret(
        &self,
        uid: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Secret>>, String> {
        self.secrets.get(uid, namespace, name).await
    }

    /// A pod is gone: what only it used is not watched any more.
    pub fn release(&self, uid: &str) {
        self.config_maps.release(uid);
        self.secrets.release(uid);
    }
}

/// What a watch knows: nothing yet, or the object, or its absence.
type Known<K> = Option<Option<Arc<K>>>;

struct Entry<K> {
    users: Arc<Mutex<HashSet<String>>>,
    value: watch::Receiver<Known<K>>,
    task: JoinHandle<()>,
}

impl<K> Drop for Entry<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Watched<K> {
    client: Client,
    wakers: Arc<Wakers>,
    entries: Mutex<HashMap<(String, String), Entry<K>>>,
}

impl<K> Watched<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    fn new(client: Client, wakers: Arc<Wakers>) -> Self {
        Watched { client, wakers, entries: Mutex::default() }
    }

    async fn get(&self, uid: &str, namespace: &str, name: &str) -> Result<Option<Arc<K>>, String> {
        if let Some(known) = self.known(uid, namespace, name) {
            return Ok(known);
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(name).await.map_err(|error| rest::message(&error))?;
        Ok(found.map(Arc::new))
    }

    fn known(&self, uid: &str, namespace: &str, name: &str) -> Known<K> {
        let mut entries = self.entries.lock();
        let entry = entries
            .entry((namespace.to_owned(), name.to_owned()))
            .or_insert_with(|| self.start(namespace, name));
        entry.users.lock().insert(uid.to_owned());
        entry.value.borrow().clone()
    }

    fn start(&self, namespace: &str, name: &str) -> Entry<K> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let users: Arc<Mutex<HashSet<String>>> = Arc::default();
        let (sender, value) = watch::channel(None);
        let follow = follow(api, name.to_owned(), sender, users.clone(), self.wakers.clone());
        Entry { users, value, task: tokio::spawn(follow) }
    }

    fn release(&self, uid: &str) {
        self.entries.lock().retain(|_, entry| {
            let mut users = entry.users.lock();
            users.remove(uid);
            !users.is_empty()
        });
    }
}

/// Follows one object until the task is aborted.
async fn follow<K>(
    api: Api<K>,
    name: String,
    value: watch::Sender<Known<K>>,
    users: Arc<Mutex<HashSet<String>>>,
    wakers: Arc<Wakers>,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut stream = watcher(api, config).boxed();
    let mut patience = Patience::default();
    let mut listed = None;
    while let Some(event) = stream.next().await {
        let next = match event {
            Ok(watcher::Event::Init) => {
                listed = None;
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed = Some(Arc::new(object));
                continue;
            }
            Ok(watcher::Event::InitDone) => listed.take(),
            Ok(watcher::Event::Apply(object)) => Some(Arc::new(object)),
            Ok(watcher::Event::Delete(_)) => None,
            Err(error) => {
                // Forbidden until the authorizer knows the pod, or the server is away: the stream goes on by itself.
                tracing::debug!(%error, name, "watch of a pod's object");
                patience.wait().await;
                continue;
            }
        };
        patience = Patience::default();
        let version = |object: &Option<Arc<K>>| {
            object.as_ref().and_then(|object| object.meta().resource_version.clone())
        };
        let first = value.borrow().is_none();
        let changed = first || value.borrow().as_ref().is_none_or(|before| version(before) != version(&next));
        value.send_replace(Some(next));
        if changed && !first {
            for uid in users.lock().iter() {
                wakers.wake(uid, Cause::Objects);
            }
        }
    }
}

/// The wait between tries of a watch that fails. Short at its longest: a node whose server was away is to be back at once.
pub(crate) struct Patience(Duration);

impl Default for Patience {
    fn default() -> Self {
        Patience(Duration::from_millis(200))
    }
}

impl Patience {
    /// Waits, and longer the next time.
    pub(crate) async fn wait(&mut self) {
        const LONGEST: Duration = Duration::from_secs(3);
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}

/// The services of the cluster, as far as environment variables need them.
pub struct ServiceCache {
    services: Arc<RwLock<BTreeMap<(String, String), ServiceFacts>>>,
    synced: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Drop for ServiceCache {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ServiceCache {
    /// Starts watching.
    pub fn start(client: Client) -> Self {
        let services: Arc<RwLock<BTreeMap<(String, String), ServiceFacts>>> = Arc::default();
        let (sender, synced) = watch::channel(false);
        let task = tokio::spawn(follow_services(client, services.clone(), sender));
        ServiceCache { services, synced, task }
    }

    /// The variables for a pod of this namespace; an error until the services have been read once.
    pub async fn variables(&self, namespace: &str, links: bool) -> Result<BTreeMap<String, String>, String> {
        let mut synced = self.synced.clone();
        let read = tokio::time::timeout(Duration::from_secs(5), synced.wait_for(|done| *done)).await;
        if !matches!(read, Ok(Ok(_))) {
            return Err("services have not yet been read at least once, cannot construct envvars".into());
        }
        Ok(service_variables(self.services.read().values(), namespace, links))
    }
}

async fn follow_services(
    client: Client,
    services: Arc<RwLock<BTreeMap<(String, String), ServiceFacts>>>,
    synced: watch::Sender<bool>,
) {
    let mut stream = watcher(Api::<Service>::all(client), watcher::Config::default()).boxed();
    let mut patience = Patience::default();
    let mut fresh = BTreeMap::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => fresh.clear(),
            Ok(watcher::Event::InitApply(service)) => {
                fresh.insert(key(&service), facts(&service));
            }
            Ok(watcher::Event::InitDone) => {
                patience = Patience::default();
                *services.write() = std::mem::take(&mut fresh);
                synced.send_replace(true);
            }
            Ok(watcher::Event::Apply(service)) => {
                services.write().insert(key(&service), facts(&service));
            }
            Ok(watcher::Event::Delete(service)) => {
                services.write().remove(&key(&service));
            }
            Err(error) => {
                tracing::debug!(%error, "watch of services");
                patience.wait().await;
            }
        }
    }
}

fn key(service: &Service) -> (String, String) {
    (
        service.metadata.namespace.clone().unwrap_or_default(),
        service.metadata.name.clone().unwrap_or_default(),
    )
}

fn facts(service: &Service) -> ServiceFacts {
    let (namespace, name) = key(service);
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    ServiceFacts {
        namespace,
        name,
        cluster_ip: spec.and_then(|spec| spec.cluster_ip.clone()).unwrap_or_default(),
        ports: ports
            .iter()
            .map(|port| {
                let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
                (port.name.clone().unwrap_or_default(), port.port, protocol)
            })
            .collect(),
    }
}
