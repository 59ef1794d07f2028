//! The part that waits: watches in, bindings, conditions, preemptions and events out.
//!
//! One task owns the state ([`Scheduler`]). It takes in what happened, decides about one pod, and starts a task for the
//! write that follows; results come back as happenings. Nothing is polled: the loop sleeps until something happens or a
//! back-off ends.

mod feed;
mod write;

use std::collections::HashSet;
use std::sync::Arc;

use copepod_client::events::{EventType, SchedulingRecorder};
use copepod_client::object::{Key, MetaExt};
use copepod_client::{Client, Shutdown};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::config::{Config, SCHEDULER_NAME};
use crate::cycle::{self, Cursor, Outcome, Unfit};
use crate::metrics::{self, Metrics};
use crate::model::wire;
use crate::model::{NodeInfo, PodInfo};
use crate::plugin::PluginSet;
use crate::queue::{ClusterEvent, Queued, SchedulingQueue};

/// Happenings that may wait for the loop; watches stop reading beyond it.
const HAPPENINGS_MAX: usize = 1024;
/// Writes under way at once: enough to keep the API busy, few enough not to flood it.
const WRITES_MAX: usize = 64;
/// Longest message of an event. upstream: pkg/scheduler/schedule_one.go truncateMessage (API limit of notes)
const NOTE_BYTES_MAX: usize = 1024;

/// What the loop is told.
enum Happening {
    Pod(feed::Change<wire::Pod>),
    Node(feed::Change<wire::Node>),
    Budget(feed::Change<wire::Budget>),
    Namespace(feed::Change<wire::Namespace>),
    /// A binding was written, or not and why.
    Bound(Box<Queued>, String, Result<(), kube::Error>),
}

/// Schedules until `shutdown`.
pub async fn run(client: Client, config: Config, recorder: SchedulingRecorder, shutdown: Shutdown) {
    let (tell, mut happenings) = mpsc::channel(HAPPENINGS_MAX);
    feed::start(&client, &tell, &shutdown);
    let mut scheduler = Scheduler {
        cluster: Cluster::default(),
        queue: SchedulingQueue::default(),
        cursor: Cursor::default(),
        client,
        recorder,
        tell,
        writes: Arc::new(Semaphore::new(WRITES_MAX)),
        unsynced: 4,
        metrics: Metrics::new(&config.registry),
    };
    let writes = scheduler.writes.clone();
    loop {
        while let Ok(happening) = happenings.try_recv() {
            scheduler.take_in(happening);
        }
        // Without room for another write nothing is decided; `starved` waits for room.
        let permit = scheduler.writes.clone().try_acquire_owned();
        let starved = permit.is_err();
        if scheduler.unsynced == 0
            && let Ok(permit) = permit
            && let Some(queued) = scheduler.queue.pop(Instant::now())
        {
            scheduler.schedule(queued, permit);
            // Others on this thread get their turn between two decisions.
            tokio::task::yield_now().await;
            continue;
        }
        scheduler.metrics.pending(scheduler.queue.lengths());
        let due = scheduler.queue.next_due();
        tokio::select! {
            () = shutdown.cancelled() => return,
            happening = happenings.recv() => match happening {
                Some(happening) => scheduler.take_in(happening),
                None => return,
            },
            () = sleep_until(due) => scheduler.queue.flush(Instant::now()),
            _ = writes.acquire(), if starved => {}
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct Scheduler {
    cluster: Cluster,
    queue: SchedulingQueue,
    cursor: Cursor,
    client: Client,
    recorder: SchedulingRecorder,
    tell: mpsc::Sender<Happening>,
    writes: Arc<Semaphore>,
    /// Resources whose first list is not complete: nothing is decided before.
    unsynced: usize,
    metrics: Metrics,
}

impl Scheduler {
    fn take_in(&mut self, happening: Happening) {
        use feed::Change::{Applied, Deleted, Listed};
        let now = Instant::now();
        match happening {
            Happening::Pod(Applied(pod)) => self.pod_applied(&pod, now),
            Happening::Pod(Deleted(pod)) => self.pod_gone(&pod.metadata.key(), now),
            Happening::Pod(Listed(keys, first)) => {
                self.unsynced -= usize::from(first);
                let known = self.cluster.bound_keys().into_iter().chain(self.queue.keys());
                for key in missing(known, &keys) {
                    self.pod_gone(&key, now);
                }
            }
            Happening::Node(Applied(node)) => self.node_applied(&node, now),
            Happening::Node(Deleted(node)) => self.cluster.remove_node(MetaExt::name(&node.metadata)),
            Happening::Node(Listed(keys, first)) => {
                self.unsynced -= usize::from(first);
                let known =
                    self.cluster.nodes().iter().map(|node| Key::from(node.name.as_str())).collect::<Vec<_>>();
                for key in missing(known, &keys) {
                    self.cluster.remove_node(&key);
                }
            }
            Happening::Budget(Applied(budget)) => self.cluster.set_budget(*budget),
            Happening::Budget(Deleted(budget)) => self.cluster.remove_budget(&budget.metadata.key()),
            Happening::Budget(Listed(keys, first)) => {
                self.unsynced -= usize::from(first);
                let known = self.cluster.budgets().map(|budget| budget.metadata.key()).collect::<Vec<_>>();
                for key in missing(known, &keys) {
                    self.cluster.remove_budget(&key);
                }
            }
            Happening::Namespace(Applied(namespace)) => {
                self.cluster.set_namespace(&namespace);
                self.queue.on_event(ClusterEvent::Namespace, now);
            }
            Happening::Namespace(Deleted(namespace)) => {
                self.cluster.remove_namespace(MetaExt::name(&namespace.metadata));
            }
            Happening::Namespace(Listed(_, first)) => self.unsynced -= usize::from(first),
            Happening::Bound(queued, node, result) => self.bound(*queued, &node, result, now),
        }
    }

    fn pod_applied(&mut self, pod: &wire::Pod, now: Instant) {
        let info = Arc::new(PodInfo::new(pod));
        match &info.waiting {
            None => {
                self.queue.remove(&info.key);
                self.cluster.nominate(&info, "");
                self.cluster.set_pod(info);
                self.queue.on_event(ClusterEvent::PodPlaced, now);
            }
            Some(waiting) if waiting.scheduler != SCHEDULER_NAME => {}
            // The API does not know of the decision yet.
            Some(_) if self.cluster.is_assumed(&info.key) => {}
            Some(_) if info.deleting => {
                self.cluster.nominate(&info, "");
                self.queue.remove(&info.key);
            }
            Some(waiting) => {
                self.cluster.nominate(&info, &waiting.nominated);
                self.queue.update(info, now);
            }
        }
    }

    fn pod_gone(&mut self, key: &str, now: Instant) {
        self.queue.remove(key);
        self.cluster.forget_nomination(key);
        if let Some(gone) = self.cluster.remove_pod(key) {
            self.queue.on_event(ClusterEvent::PodGone(&gone), now);
        }
    }

    fn node_applied(&mut self, node: &wire::Node, now: Instant) {
        let before = self.cluster.set_node(node);
        let Some(after) = self.cluster.node(MetaExt::name(&node.metadata)) else { return };
        if before.as_ref().is_none_or(|before| matters(before, after)) {
            self.queue.on_event(ClusterEvent::Node(before.as_ref(), after), now);
        }
    }

    /// Decides about one pod and starts the write that follows.
    fn schedule(&mut self, queued: Queued, permit: tokio::sync::OwnedSemaphorePermit) {
        let pod = queued.pod.clone();
        let start = std::time::Instant::now();
        let outcome = cycle::schedule(&self.cluster, &pod, &mut self.cursor, &mut rand::rng());
        let result = match &outcome {
            Outcome::Node(_) => metrics::Attempt::Scheduled,
            Outcome::Unfit(_) | Outcome::NoNodes => metrics::Attempt::Unschedulable,
        };
        self.metrics.attempt(result, start.elapsed());
        match outcome {
            Outcome::Node(node) => {
                self.cluster.nominate(&pod, "");
                self.cluster.assume(Arc::new(pod.on_node(&node)));
                self.queue.done(&pod.key);
                let (client, tell) = (self.client.clone(), self.tell.clone());
                tokio::spawn(async move {
                    let result = write::bind(&client, &pod, &node).await;
                    drop(permit);
                    // The loop is gone only when the program ends.
                    let _ = tell.send(Happening::Bound(Box::new(queued), node, result)).await;
                });
            }
            Outcome::Unfit(unfit) => self.unfit(queued, *unfit, permit),
            Outcome::NoNodes => {
                let message = "no nodes available to schedule pods".to_owned();
                let unfit = Unfit { message, plugins: PluginSet::empty(), preemption: None };
                self.unfit(queued, unfit, permit);
            }
        }
    }

    fn unfit(&mut self, queued: Queued, unfit: Unfit, permit: tokio::sync::OwnedSemaphorePermit) {
        let pod = queued.pod.clone();
        tracing::debug!(pod = %pod.key, message = unfit.message, "unable to schedule pod");
        let nominated = unfit.preemption.as_ref().map(|preemption| preemption.node.clone());
        if let Some(node) = &nominated {
            self.cluster.nominate(&pod, node);
        }
        self.queue.give_back(queued, unfit.plugins, Instant::now());
        self.failed(
            &pod,
            "Unschedulable",
            unfit.message,
            nominated,
            unfit.preemption.map(|p| p.victims),
            permit,
        );
    }

    /// Tells users why a pod has no node, and makes victims leave.
    fn failed(
        &self,
        pod: &Arc<PodInfo>,
        reason: &'static str,
        message: String,
        nominated: Option<String>,
        victims: Option<Vec<Arc<PodInfo>>>,
        permit: tokio::sync::OwnedSemaphorePermit,
    ) {
        let note = truncated(&message);
        self.recorder.event(
            &pod.reference(),
            None,
            EventType::Warning,
            "FailedScheduling",
            "Scheduling",
            &note,
        );
        let (client, recorder, pod) = (self.client.clone(), self.recorder.clone(), pod.clone());
        tokio::spawn(async move {
            for victim in victims.into_iter().flatten().filter(|victim| !victim.deleting) {
                match write::evict(&client, &victim).await {
                    Ok(()) => {
                        let node = nominated.as_deref().unwrap_or_default();
                        let note = format!("Preempted by pod {} on node {node}", pod.uid);
                        let (victim, by) = (victim.reference(), pod.reference());
                        recorder.event(
                            &victim,
                            Some(&by),
                            EventType::Normal,
                            "Preempted",
                            "Preempting",
                            &note,
                        );
                    }
                    Err(error) => tracing::warn!(pod = %victim.key, %error, "could not preempt"),
                }
            }
            if let Err(error) =
                write::not_scheduled(&client, &pod, reason, &message, nominated.as_deref()).await
            {
                tracing::warn!(pod = %pod.key, %error, "could not update the pod's condition");
            }
            drop(permit);
        });
    }

    fn bound(&mut self, queued: Queued, node: &str, result: Result<(), kube::Error>, now: Instant) {
        let pod = queued.pod.clone();
        let Err(error) = result else {
            let note = format!("Successfully assigned {} to {node}", pod.key);
            return self.recorder.event(
                &pod.reference(),
                None,
                EventType::Normal,
                "Scheduled",
                "Binding",
                &note,
            );
        };
        self.cluster.forget(&pod.key);
        if copepod_client::rest::is_not_found(&error) || self.cluster.pod(&pod.key).is_some() {
            return;
        }
        tracing::warn!(pod = %pod.key, %error, "binding failed, will try again");
        self.metrics.attempt(metrics::Attempt::Error, std::time::Duration::ZERO);
        self.queue.restore(queued, now);
        if let Ok(permit) = self.writes.clone().try_acquire_owned() {
            let message = format!("binding rejected: {}", copepod_client::rest::message(&error));
            self.failed(&pod, "SchedulerError", message, None, None, permit);
        }
    }
}

/// Whether a change of a node may matter to any plugin: heartbeats do not.
fn matters(before: &NodeInfo, after: &NodeInfo) -> bool {
    before.labels != after.labels
        || before.taints != after.taints
        || before.unschedulable != after.unschedulable
        || before.allocatable != after.allocatable
        || before.pods_max != after.pods_max
}

fn missing(known: impl IntoIterator<Item = Key>, listed: &HashSet<Key>) -> Vec<Key> {
    known.into_iter().filter(|key| !listed.contains(key)).collect()
}

fn truncated(message: &str) -> String {
    if message.len() <= NOTE_BYTES_MAX {
        return message.to_owned();
    }
    let suffix = " ...";
    let mut end = NOTE_BYTES_MAX - suffix.len();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &message[..end])
}
