//! The manager: one worker for each pod, fed by the API's watch, the manifest directory and the runtime's events.
//!
//! Owns: which pods exist. Does not: anything with a pod; that is its worker's.
//!
//! Invariants:
//! * a pod uid has at most one worker; a pod made anew under the same name waits for nobody, it has another uid;
//! * a mirror pod never runs: it only shows its static pod to the API, and is made again when it is deleted;
//! * after a gap in the runtime's events, and every five minutes, every worker looks again (counted by a metric).
//!
//! upstream: kubelet/kubelet.go syncLoopIteration, HandlePodCleanups; kubelet/config

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use copepod_client::{events::EventType, rest};
use copepod_cri::EventKind;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::runtime::watcher;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{
    act::clean,
    admit::{Rejection, Room, admit},
    kill::kill_pod,
    manifest,
    model::{is_mirror, is_static, names, uid},
    observe::{Cache, observe},
    worker::{Update, Worker},
};
use crate::{
    container::{labels, sandbox::log_dir},
    context::{Context, pod_reference},
    objects::Patience,
    volume::{self, teardown},
    wake::Cause,
};

/// Everything is looked at anew so often, as a safety net.
const RELIST_INTERVAL: Duration = Duration::from_secs(300);
/// Wait before the runtime's events are asked for again.
const RECONNECT: Duration = Duration::from_secs(1);
/// A subscription to events is surely in force after so long.
const SUBSCRIBED_AFTER: Duration = Duration::from_secs(1);
/// Changes that may wait for the manager.
const CHANGES_MAX: usize = 256;

/// A change of what is wanted.
pub enum Change {
    /// A pod of the API is new or different.
    Api(Arc<Pod>),
    /// A pod of the API is gone.
    ApiGone(Arc<Pod>),
    /// The API has been read whole: all other pods are gone.
    ApiListed(Vec<Arc<Pod>>),
    /// The manifest directory says: these and no others.
    Manifests(Vec<Arc<Pod>>),
    /// A worker is done.
    Done(String),
}

struct Handle {
    updates: watch::Sender<Update>,
    task: JoinHandle<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Only at the agent's own end: a worker that is done has no task any more. Containers go on without it.
        self.task.abort();
    }
}

/// The manager's state.
pub struct Manager {
    context: Arc<Context>,
    workers: HashMap<String, Handle>,
    /// Mirror pods of the API, by the full name that they share with their static pod.
    mirrors: HashMap<(String, String), Arc<Pod>>,
    changes: mpsc::Sender<Change>,
    inbox: mpsc::Receiver<Change>,
    listed: bool,
}

impl Manager {
    /// A manager without pods.
    pub fn new(context: Arc<Context>) -> Self {
        let (changes, inbox) = mpsc::channel(CHANGES_MAX);
        Manager { context, workers: HashMap::new(), mirrors: HashMap::new(), changes, inbox, listed: false }
    }

    /// Runs until the shutdown. Pods go on running.
    pub async fn run(mut self) {
        let context = self.context.clone();
        let mut sources = tokio::task::JoinSet::new();
        sources.spawn(follow_api(context.clone(), self.changes.clone()));
        sources.spawn(follow_runtime(context.clone()));
        if let Some(directory) = context.config.pod_manifest_path.clone() {
            sources.spawn(manifest::follow(context.clone(), directory, self.changes.clone()));
        }
        let mut relist = tokio::time::interval(RELIST_INTERVAL);
        relist.tick().await;
        loop {
            tokio::select! {
                () = context.shutdown.cancelled() => return,
                change = self.inbox.recv() => match change {
                    Some(change) => self.handle(change).await,
                    None => return,
                },
                _ = relist.tick() => {
                    context.metrics.relists.inc();
                    context.wakers.wake_all(Cause::Runtime);
                    self.clean_orphans().await;
                }
            }
        }
    }

    async fn handle(&mut self, change: Change) {
        match change {
            Change::Api(pod) => self.put(pod).await,
            Change::ApiGone(pod) => self.gone(&pod),
            Change::ApiListed(pods) => {
                self.list(pods).await;
                if !self.listed {
                    self.listed = true;
                    self.clean_orphans().await;
                }
            }
            Change::Manifests(pods) => self.manifests(pods).await,
            Change::Done(uid) => self.done(&uid),
        }
        self.share_out();
    }

    /// The burstable class gets the shares its pods ask for.
    fn share_out(&self) {
        let milli: i64 = self
            .workers
            .values()
            .map(|handle| handle.updates.borrow().pod.clone())
            .filter(|pod| super::qos::qos_class(pod) == "Burstable")
            .filter_map(|pod| super::qos::pod_total(&pod, "cpu", super::qos::Side::Requests))
            .sum();
        if let Err(error) = self.context.cgroups.set_burstable_shares(milli) {
            tracing::debug!(%error, "shares of the burstable class");
        }
    }

    async fn put(&mut self, pod: Arc<Pod>) {
        if is_mirror(&pod) {
            self.put_mirror(pod);
            return;
        }
        if let Some(handle) = self.workers.get(uid(&pod)) {
            handle.updates.send_modify(|update| {
                update.pod = pod;
                update.gone = false;
            });
            return;
        }
        self.spawn(Update { pod, mirror: None, gone: false }).await;
    }

    fn put_mirror(&mut self, mirror: Arc<Pod>) {
        let (namespace, name) = names(&mirror);
        let key = (namespace.to_owned(), name.to_owned());
        self.mirrors.insert(key, mirror.clone());
        match self.static_worker(&mirror) {
            Some(handle) => {
                let stale = manifest::is_stale(&mirror, &handle.updates.borrow().pod);
                handle.updates.send_modify(|update| update.mirror = Some(mirror.clone()));
                if stale || super::model::is_deleted(&mirror) {
                    self.remove_mirror(mirror);
                }
            }
            // A mirror without its static pod, once the directory has been read.
            None if self.context.config.pod_manifest_path.is_none() || self.listed => {
                self.remove_mirror(mirror)
            }
            None => {}
        }
    }

    fn remove_mirror(&self, mirror: Arc<Pod>) {
        let context = self.context.clone();
        tokio::spawn(async move {
            if let Err(error) = super::patch::delete(&context.client, &mirror).await {
                tracing::warn!(%error, "deleting a mirror pod");
            }
        });
    }

    fn static_worker(&self, mirror: &Pod) -> Option<&Handle> {
        self.workers.values().find(|handle| {
            let update = handle.updates.borrow();
            is_static(&update.pod) && names(&update.pod) == names(mirror) && !update.gone
        })
    }

    fn gone(&mut self, pod: &Arc<Pod>) {
        if is_mirror(pod) {
            let (namespace, name) = names(pod);
            self.mirrors.remove(&(namespace.to_owned(), name.to_owned()));
            if let Some(handle) = self.static_worker(pod) {
                handle.updates.send_modify(|update| update.mirror = None);
                manifest::create_mirror(self.context.clone(), handle.updates.borrow().pod.clone());
            }
            return;
        }
        if let Some(handle) = self.workers.get(uid(pod)) {
            handle.updates.send_modify(|update| update.gone = true);
        }
    }

    async fn list(&mut self, pods: Vec<Arc<Pod>>) {
        let present: HashSet<String> = pods.iter().map(|pod| uid(pod).to_owned()).collect();
        for handle in self.workers.values() {
            let lost = {
                let update = handle.updates.borrow();
                !is_static(&update.pod) && !present.contains(uid(&update.pod)) && !update.gone
            };
            if lost {
                handle.updates.send_modify(|update| update.gone = true);
            }
        }
        let lost: Vec<Arc<Pod>> =
            self.mirrors.values().filter(|mirror| !present.contains(uid(mirror))).cloned().collect();
        for mirror in lost {
            self.gone(&mirror);
        }
        for pod in pods {
            self.put(pod).await;
        }
        // Static pods that the API does not show yet.
        for handle in self.workers.values() {
            let update = handle.updates.borrow().clone();
            if is_static(&update.pod) && update.mirror.is_none() && !update.gone {
                manifest::create_mirror(self.context.clone(), update.pod);
            }
        }
    }

    async fn manifests(&mut self, pods: Vec<Arc<Pod>>) {
        let present: HashSet<&str> = pods.iter().map(|pod| uid(pod)).collect();
        for handle in self.workers.values() {
            let lost = {
                let update = handle.updates.borrow();
                is_static(&update.pod) && !present.contains(uid(&update.pod)) && !update.gone
            };
            if lost {
                handle.updates.send_modify(|update| update.gone = true);
            }
        }
        for pod in pods {
            if self.workers.contains_key(uid(&pod)) {
                continue;
            }
            let (namespace, name) = names(&pod);
            let mirror = self.mirrors.get(&(namespace.to_owned(), name.to_owned())).cloned();
            match &mirror {
                Some(mirror) if manifest::is_stale(mirror, &pod) => self.remove_mirror(mirror.clone()),
                None if self.listed => manifest::create_mirror(self.context.clone(), pod.clone()),
                _ => {}
            }
            self.spawn(Update { pod, mirror, gone: false }).await;
        }
    }

    async fn spawn(&mut self, update: Update) {
        let pod_uid = uid(&update.pod).to_owned();
        let rejection = self.judge(&update).await;
        let (updates, receiver) = watch::channel(update);
        let worker = Worker::new(self.context.clone(), receiver, rejection);
        let (changes, done) = (self.changes.clone(), pod_uid.clone());
        let task = tokio::spawn(async move {
            worker.run().await;
            if changes.send(Change::Done(done)).await.is_err() {
                tracing::debug!("a worker ended after its manager: the agent is ending");
            }
        });
        self.workers.insert(pod_uid, Handle { updates, task });
    }

    /// Whether a pod that no agent has seen before may run here.
    async fn judge(&self, update: &Update) -> Option<Rejection> {
        let seen = update.pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        if seen || update.gone || super::model::is_deleted(&update.pod) {
            return None;
        }
        let active = |pod: &Arc<Pod>| {
            let status = self.context.pods.status(uid(pod)).or_else(|| pod.status.clone());
            let phase = status.and_then(|status| status.phase);
            !matches!(phase.as_deref(), Some("Succeeded" | "Failed"))
        };
        let others: Vec<Arc<Pod>> =
            self.workers.values().map(|handle| handle.updates.borrow().pod.clone()).filter(active).collect();
        let (cpu_milli, memory) = self.context.machine.allocatable(&self.context.config);
        let room = Room { cpu_milli, memory, pods: i64::from(self.context.config.max_pods) };
        let verdict =
            |node: Option<&Node>| admit(&update.pod, others.iter().map(Arc::as_ref), room, node).err();
        let mut rejection = verdict(self.context.node.get().as_deref());
        if rejection.as_ref().is_some_and(Rejection::is_of_labels) {
            // A label that was given just before the pod came may not have arrived here.
            match self.context.node.read().await {
                Ok(node) => rejection = verdict(Some(&node)),
                Err(error) => tracing::warn!(error = rest::message(&error), "reading the node"),
            }
        }
        let Rejection { reason, message } = rejection?;
        let reference = pod_reference(&update.pod);
        self.context.recorder.event(&reference, EventType::Warning, &reason, message.clone());
        Some(Rejection { reason, message })
    }

    fn done(&mut self, pod_uid: &str) {
        self.workers.remove(pod_uid);
        self.context.pods.remove(pod_uid);
        self.context.wakers.forget(pod_uid);
    }

    /// Ends what runs, and removes what lies about, of pods that nobody wants any more: they were deleted while the agent
    /// was not there.
    async fn clean_orphans(&mut self) {
        if !self.listed {
            return;
        }
        let known = |pod_uid: &str| self.workers.contains_key(pod_uid);
        let sandboxes = match self.context.runtime.list_pod_sandboxes(None).await {
            Ok(sandboxes) => sandboxes,
            Err(error) => {
                tracing::warn!(%error, "looking for orphans");
                return;
            }
        };
        let mut orphans: HashMap<String, Pod> = HashMap::new();
        for sandbox in sandboxes {
            let label = |name: &str| sandbox.labels.get(name).cloned();
            let Some(pod_uid) = label(labels::POD_UID).filter(|pod_uid| !known(pod_uid)) else { continue };
            let pod = orphans.entry(pod_uid.clone()).or_default();
            pod.metadata.uid = Some(pod_uid);
            pod.metadata.name = label(labels::POD_NAME);
            pod.metadata.namespace = label(labels::POD_NAMESPACE);
        }
        for (pod_uid, pod) in orphans {
            tokio::spawn(end_orphan(self.context.clone(), pod_uid, pod));
        }
        self.clean_directories();
        for pod_uid in self.context.cgroups.pods() {
            if !known(&pod_uid)
                && let Err(error) = self.context.cgroups.remove_pod(&pod_uid)
            {
                tracing::debug!(%error, pod_uid, "removing an orphan's cgroup");
            }
        }
    }

    fn clean_directories(&self) {
        let directory = self.context.config.root_dir.join("pods");
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(%error, directory = %directory.display(), "looking for orphans' files");
                return;
            }
        };
        for entry in entries.flatten() {
            let pod_uid = entry.file_name().to_string_lossy().into_owned();
            if !self.workers.contains_key(&pod_uid)
                && let Err(error) = teardown::remove_pod_dir(&entry.path())
            {
                tracing::warn!(%error, pod_uid, "removing an orphan's files");
            }
        }
    }
}

async fn end_orphan(context: Arc<Context>, pod_uid: String, pod: Pod) {
    tracing::info!(pod_uid, "ending a pod that is not wanted any more");
    let observed = match observe(context.runtime.as_ref(), &pod_uid, &mut Cache::default()).await {
        Ok(observed) => observed,
        Err(error) => {
            tracing::warn!(%error, pod_uid, "looking at an orphan");
            return;
        }
    };
    if let Err(error) = kill_pod(&context, &pod, &observed, None).await {
        tracing::warn!(error, pod_uid, "ending an orphan");
        return;
    }
    clean(&context, &pod, &observed, true).await;
    for path in [volume::pod_dir(&context, &pod_uid), log_dir(&context, &pod)] {
        if let Err(error) = teardown::remove_pod_dir(&path) {
            tracing::warn!(%error, pod_uid, "removing an orphan's files");
        }
    }
}

/// Follows the pods that are bound to this node.
async fn follow_api(context: Arc<Context>, changes: mpsc::Sender<Change>) {
    let api: Api<Pod> = Api::all(context.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", context.config.node_name));
    let mut stream = watcher(api, config).boxed();
    let mut patience = Patience::default();
    let mut listed = Vec::new();
    // What nobody here reads is not kept.
    let slim = |mut pod: Pod| {
        pod.metadata.managed_fields = None;
        Arc::new(pod)
    };
    while let Some(event) = stream.next().await {
        let change = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(pod)) => {
                listed.push(slim(pod));
                continue;
            }
            Ok(watcher::Event::InitDone) => Change::ApiListed(std::mem::take(&mut listed)),
            Ok(watcher::Event::Apply(pod)) => Change::Api(slim(pod)),
            Ok(watcher::Event::Delete(pod)) => Change::ApiGone(slim(pod)),
            Err(error) => {
                tracing::warn!(%error, "watch of pods");
                patience.wait().await;
                continue;
            }
        };
        patience = Patience::default();
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

/// Follows the runtime's events; after each gap everybody looks again.
async fn follow_runtime(context: Arc<Context>) {
    loop {
        match context.runtime.events().await {
            Ok(mut events) => {
                // Now, and once more when the subscription is surely there: the runtime does not say when it is.
                context.metrics.relists.inc();
                context.wakers.wake_all(Cause::Runtime);
                let again = tokio::time::sleep(SUBSCRIBED_AFTER);
                tokio::pin!(again);
                loop {
                    let event = tokio::select! {
                        event = events.next() => event,
                        () = &mut again, if !again.is_elapsed() => {
                            context.wakers.wake_all(Cause::Runtime);
                            continue;
                        }
                    };
                    let Some(event) = event else { break };
                    let event = match event {
                        Ok(event) => event,
                        Err(error) => {
                            tracing::warn!(%error, "runtime events");
                            break;
                        }
                    };
                    // Made and started by the worker itself: it knows.
                    if matches!(event.kind, EventKind::Created | EventKind::Started) {
                        continue;
                    }
                    if let Some(pod_uid) = context.pods.owner(&event.id) {
                        match event.kind {
                            EventKind::Stopped => context.wakers.wake_ended(&pod_uid, &event.id),
                            _ => context.wakers.wake(&pod_uid, Cause::Runtime),
                        }
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "runtime events"),
        }
        tokio::time::sleep(RECONNECT).await;
    }
}
