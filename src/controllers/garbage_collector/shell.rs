//! Reads live, then acts as [`plan`](super::plan) says.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use copepod_client::Client;
use copepod_client::object::MetaExt;
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::rest::{self, PatchType, ResourceType};
use http::Request;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::sync::{Notify, broadcast};

use super::graph::{Graph, Node, Work};
use super::monitors::Monitors;
use super::plan::{self, Decision, OwnerState, Subject};
use super::{FOREGROUND, ORPHAN};
use crate::context::{Context, Gone, Work as Run};
use crate::discovery::Discovered;

const NAME: &str = "garbage-collector-controller";
/// How long the first lists may take before work begins without those that fail.
const SYNC_MAX: Duration = Duration::from_secs(30);
/// A definition is served a moment after it was written.
const SERVING_DELAY: Duration = Duration::from_secs(1);
/// Owners known to be gone; upstream keeps 500.
const ABSENT_MAX: usize = 500;

pub(super) struct Shell {
    pub(super) client: Client,
    queue: WorkQueue<Work>,
    graph: Mutex<Graph>,
    /// Resource of each (group, kind).
    kinds: Mutex<HashMap<(String, String), ResourceType>>,
    absent: Mutex<VecDeque<String>>,
    serving: Notify,
    pub(super) gone: broadcast::Sender<Gone>,
}

/// Starts the controller.
pub fn start(context: &Context) -> Run {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        queue: WorkQueue::default(),
        graph: Mutex::default(),
        kinds: Mutex::default(),
        absent: Mutex::default(),
        serving: Notify::new(),
        gone: context.gone.clone(),
    });
    let (shutdown, workers) = (context.shutdown.clone(), context.config.concurrent_gc_syncs);
    Box::pin(async move {
        let mut monitors = Monitors::default();
        shell.discover(&mut monitors, &shutdown).await;
        if tokio::time::timeout(SYNC_MAX, monitors.wait_synced()).await.is_err() {
            tracing::warn!("some kinds could not be listed; garbage collection begins without them");
        }
        let worker = shell.clone();
        let working = run_workers(NAME, shell.queue.clone(), workers, shutdown.clone(), move |work| {
            let shell = worker.clone();
            async move { shell.turn(work).await }
        });
        let following = async {
            loop {
                shell.serving.notified().await;
                tokio::time::sleep(SERVING_DELAY).await;
                shell.discover(&mut monitors, &shutdown).await;
            }
        };
        tokio::select! {
            () = working => {}
            () = following => {}
        }
    })
}

/// Metadata of an object, whatever its kind.
#[derive(Deserialize)]
struct Live {
    metadata: ObjectMeta,
}

impl Shell {
    async fn discover(self: &Arc<Self>, monitors: &mut Monitors, shutdown: &copepod_client::Shutdown) {
        let mut wait = Duration::from_millis(100);
        while let Err(error) = monitors.follow_discovery(self, shutdown).await {
            tracing::warn!(%error, "discovery failed, will try again");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(30));
        }
    }

    pub(super) fn learn_kinds(&self, all: &[Discovered]) {
        let mut kinds = self.kinds.lock();
        kinds.clear();
        for discovered in all {
            let key = (discovered.resource.group.to_string(), discovered.kind.clone());
            kinds.entry(key).or_insert_with(|| discovered.resource.clone());
        }
    }

    pub(super) fn applied(&self, node: Node) {
        let work = self.graph.lock().apply(node);
        work.into_iter().for_each(|work| self.queue.add(work));
    }

    pub(super) fn deleted(&self, uid: &str) {
        let work = self.graph.lock().remove(uid);
        work.into_iter().for_each(|work| self.queue.add(work));
    }

    /// After a relist: what it does not show is gone.
    pub(super) fn keep_only(&self, resource: &ResourceType, listed: &HashSet<String>) {
        let known = self.graph.lock().of_resource(resource);
        for uid in known.iter().filter(|uid| !listed.contains(*uid)) {
            self.deleted(uid);
        }
    }

    pub(super) fn forget_resource(&self, resource: &ResourceType) {
        self.keep_only(resource, &HashSet::new());
    }

    pub(super) fn serving_changed(&self) {
        self.serving.notify_one();
    }

    async fn turn(&self, work: Work) -> Result<Next, kube::Error> {
        match work {
            Work::Judge(uid) => self.judge(&uid).await?,
            Work::Orphan(uid) => self.orphan(&uid).await?,
        }
        Ok(Next::Done)
    }

    async fn judge(&self, uid: &str) -> Result<(), kube::Error> {
        let Some(node) = self.graph.lock().get(uid).cloned() else { return Ok(()) };
        if node.deleting && !node.foreground {
            return Ok(());
        }
        let live = match self.metadata(&node.resource, &node.namespace, &node.name).await? {
            Some(live) if live.uid() == uid => live,
            // The watch has yet to tell.
            _ => return Ok(()),
        };
        if Node::new(&node.resource, &live).foreground {
            return self.wait_for_dependents(&node).await;
        }
        let mut owners = Vec::new();
        for owner in live.owner_references.iter().flatten() {
            owners.push((owner.clone(), self.owner_state(owner, &node.namespace).await?));
        }
        let has = |finalizer: &str| live.finalizers.iter().flatten().any(|known| known == finalizer);
        let subject = {
            let graph = self.graph.lock();
            Subject {
                has_dependents: graph.dependents(uid).next().is_some(),
                dependent_waits: graph.dependents(uid).any(|dependent| dependent.foreground),
                orphan: has(ORPHAN),
                foreground: has(FOREGROUND),
            }
        };
        match plan::decide(&owners, &subject) {
            Decision::Keep => Ok(()),
            Decision::Disown(gone) => self.disown(&node, &live, &gone).await,
            Decision::Delete(policy) => self.delete(&node, &live, policy.as_str()).await,
            Decision::UnblockAndDelete => {
                self.unblock(&node, &live).await?;
                self.delete(&node, &live, "Foreground").await
            }
        }
    }

    /// A foreground deletion: ends when no dependent blocks it, else its dependents are looked at.
    async fn wait_for_dependents(&self, node: &Node) -> Result<(), kube::Error> {
        let blocking: Vec<(String, bool)> = {
            let graph = self.graph.lock();
            graph.blocking(&node.uid).map(|dependent| (dependent.uid.clone(), dependent.foreground)).collect()
        };
        if blocking.is_empty() {
            return self.remove_finalizer(node, FOREGROUND).await;
        }
        for (uid, waits) in blocking {
            if !waits {
                self.queue.add(Work::Judge(uid));
            }
        }
        Ok(())
    }

    /// upstream: garbagecollector.go attemptToOrphanWorker
    async fn orphan(&self, uid: &str) -> Result<(), kube::Error> {
        let Some(node) = self.graph.lock().get(uid).cloned() else { return Ok(()) };
        let dependents: Vec<Node> = self.graph.lock().dependents(uid).cloned().collect();
        for dependent in dependents {
            let live = self.metadata(&dependent.resource, &dependent.namespace, &dependent.name).await?;
            if let Some(live) = live.filter(|live| live.uid() == dependent.uid) {
                self.disown(&dependent, &live, &[uid.to_owned()]).await?;
            }
        }
        self.remove_finalizer(&node, ORPHAN).await
    }

    async fn owner_state(&self, owner: &OwnerReference, namespace: &str) -> Result<OwnerState, kube::Error> {
        if self.absent.lock().contains(&owner.uid) {
            return Ok(OwnerState::Absent);
        }
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let known = self.kinds.lock().get(&(group.to_owned(), owner.kind.clone())).cloned();
        let Some(resource) = known else {
            // Perhaps a kind whose server is away: nothing is deleted because of that.
            tracing::debug!(kind = owner.kind, group, "the kind of an owner is not served");
            return Ok(OwnerState::Solid);
        };
        if resource.namespaced && namespace.is_empty() {
            tracing::warn!(owner = owner.name, "a cluster-scoped object cannot have an owner in a namespace");
            return Ok(OwnerState::Solid);
        }
        let place = if resource.namespaced { namespace } else { "" };
        match self.metadata(&resource, place, &owner.name).await? {
            Some(live) if live.uid() == owner.uid => {
                let foreground = Node::new(&Arc::new(resource), &live).foreground;
                Ok(if foreground { OwnerState::Waiting } else { OwnerState::Solid })
            }
            _ => {
                let mut absent = self.absent.lock();
                absent.push_back(owner.uid.clone());
                if absent.len() > ABSENT_MAX {
                    absent.pop_front();
                }
                Ok(OwnerState::Absent)
            }
        }
    }

    /// The live metadata of an object; `None` if it is not there.
    async fn metadata(
        &self,
        resource: &ResourceType,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ObjectMeta>, kube::Error> {
        const ACCEPT: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
        let path = resource.object_path(namespace, name, "");
        let request =
            Request::get(path).header("accept", ACCEPT).body(Vec::new()).map_err(kube::Error::HttpError)?;
        match self.client.request::<Live>(request).await {
            Ok(live) => Ok(Some(live.metadata)),
            Err(error) if rest::is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, node: &Node, live: &ObjectMeta, policy: &str) -> Result<(), kube::Error> {
        tracing::debug!(resource = %node.resource.plural, namespace = node.namespace, name = node.name, policy, "deleting");
        let options = json!({
            "propagationPolicy": policy,
            "preconditions": { "uid": node.uid, "resourceVersion": live.resource_version },
        });
        match rest::delete(&self.client, &node.resource, &node.namespace, &node.name, &options).await {
            Err(error) if rest::is_not_found(&error) => Ok(()),
            // It changed meanwhile, perhaps its owners: looked at again.
            other => other,
        }
    }

    async fn disown(&self, node: &Node, live: &ObjectMeta, gone: &[String]) -> Result<(), kube::Error> {
        let owners: Vec<&OwnerReference> =
            live.owner_references.iter().flatten().filter(|owner| !gone.contains(&owner.uid)).collect();
        self.patch_metadata(node, live, json!({ "ownerReferences": owners })).await
    }

    async fn unblock(&self, node: &Node, live: &ObjectMeta) -> Result<(), kube::Error> {
        let mut owners = live.owner_references.clone().unwrap_or_default();
        owners.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
        self.patch_metadata(node, live, json!({ "ownerReferences": owners })).await
    }

    async fn remove_finalizer(&self, node: &Node, finalizer: &str) -> Result<(), kube::Error> {
        let Some(live) = self.metadata(&node.resource, &node.namespace, &node.name).await? else {
            return Ok(());
        };
        let left: Vec<&String> =
            live.finalizers.iter().flatten().filter(|known| *known != finalizer).collect();
        if live.uid() != node.uid || left.len() == live.finalizers.iter().flatten().count() {
            return Ok(());
        }
        self.patch_metadata(node, &live, json!({ "finalizers": left })).await
    }

    /// A merge patch, which every kind understands, that holds for the version read only.
    async fn patch_metadata(
        &self,
        node: &Node,
        live: &ObjectMeta,
        mut metadata: Value,
    ) -> Result<(), kube::Error> {
        metadata["uid"] = json!(node.uid);
        metadata["resourceVersion"] = json!(live.resource_version);
        let body = json!({ "metadata": metadata });
        let (resource, namespace, name) = (&node.resource, &node.namespace, &node.name);
        match rest::patch::<IgnoredAny>(&self.client, resource, namespace, name, "", PatchType::Merge, &body)
            .await
        {
            Err(error) if rest::is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}
