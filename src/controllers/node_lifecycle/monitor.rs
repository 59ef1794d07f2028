//! Notices silent nodes, says so in their conditions, keeps their taints and labels, and tells their pods.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_client::events::{EventType, Recorder};
use copepod_client::informer::{Change, Informer};
use copepod_client::object::{Key, MetaExt};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::rest::PatchType;
use copepod_client::{Client, rest};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeCondition, ObjectReference, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::Instant;

use super::plan::{self, Eviction};
use super::zones::{Rates, Turn, Zones};
use crate::common::conditions::{self, second};
use crate::common::resources::NODES;
use crate::common::{pods, writes};
use crate::context::{Context, Work, enqueue_self};
use crate::kinds::{Lease, Node, Pod};

const NAME: &str = "node-lifecycle-controller";
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Conditions that become Unknown with a silent kubelet.
const KUBELET_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Index of pods by the node they are on.
pub(super) const BY_NODE: &str = "node";

struct Shell {
    client: Client,
    recorder: Recorder,
    nodes: Arc<Informer<Node>>,
    leases: Arc<Informer<Lease>>,
    pods: Arc<Informer<Pod>>,
    grace: Duration,
    startup_grace: Duration,
    /// How long a node is seen not ready before it counts: several that fall silent together are then seen together.
    period: Duration,
    zones: Mutex<Zones>,
    queue: WorkQueue<Key>,
    /// What each node last said, and when it was heard.
    heard: Mutex<HashMap<Key, Heard>>,
}

struct Heard {
    word: String,
    at: Instant,
    /// Whether it was ready when last looked at: only the change to not ready touches pods, so that this controller
    /// and a kubelet that is alive never contradict each other for long.
    was_ready: bool,
    /// Since when it is not ready.
    not_ready: Option<Instant>,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let config = &context.config;
    let rates = Rates {
        normal: config.node_eviction_rate,
        secondary: config.secondary_node_eviction_rate,
        large_zone: config.large_cluster_size_threshold,
        unhealthy_share: config.unhealthy_zone_threshold,
    };
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        recorder: context.recorder.with_component("node-controller"),
        nodes: context.informer(),
        leases: context.informer(),
        pods: context.informer(),
        grace: config.node_monitor_grace_period,
        startup_grace: config.node_startup_grace_period,
        period: config.node_monitor_period,
        zones: Mutex::new(Zones::new(rates)),
        queue: WorkQueue::default(),
        heard: Mutex::default(),
    });
    shell.pods.add_index(BY_NODE, |pod| vec![pod.spec.node_name.clone()]);
    shell.count();
    enqueue_self(&shell.nodes, &shell.queue);
    shell.announce();
    let add = shell.queue.clone();
    shell.leases.on_change(move |change| {
        let metadata = &change.object().metadata;
        if MetaExt::namespace(metadata) == LEASE_NAMESPACE {
            add.add(metadata.name().into());
        }
    });
    let (assigned, shutdown) = (shell.assigned(), context.shutdown.clone());
    let (nodes, pods) = (shell.clone(), shell);
    let queue = nodes.queue.clone();
    let work = run_workers(NAME, queue, 8, shutdown.clone(), move |key| {
        let shell = nodes.clone();
        async move { shell.sync(&key).await }
    });
    let pod_work = run_workers(NAME, assigned, 4, shutdown, move |key| {
        let shell = pods.clone();
        async move { shell.sync_pod(&key).await }
    });
    Box::pin(async move {
        tokio::join!(work, pod_work);
    })
}

impl Shell {
    /// Keeps the counts of zones. Comes before the queue's handler, so that a turn sees its own change counted.
    fn count(self: &Arc<Self>) {
        let shell = self.clone();
        self.nodes.on_change(move |change| {
            let node = change.object();
            let place = (!matches!(change, Change::Deleted(_))).then(|| plan::place(node));
            shell.zones.lock().set(&node.metadata.key(), place, Instant::now());
        });
    }

    fn announce(self: &Arc<Self>) {
        let shell = self.clone();
        self.nodes.on_change(move |change| {
            let (node, reason, what) = match &change {
                Change::Added(node) => (*node, "RegisteredNode", "Registered Node {} in Controller"),
                Change::Deleted(node) => (*node, "RemovingNode", "Removing Node {} from Controller"),
                Change::Updated(..) => return,
            };
            let name = node.metadata.name();
            let message = format!("Node {name} event: {}", what.replace("{}", name));
            shell.recorder.event(&about(node), EventType::Normal, reason, message);
        });
    }

    /// The queue of pods that have just got their node.
    fn assigned(self: &Arc<Self>) -> WorkQueue<Key> {
        let queue = WorkQueue::<Key>::default();
        let add = queue.clone();
        self.pods.on_change(move |change| {
            let (before, pod) = match &change {
                Change::Added(pod) => ("", *pod),
                Change::Updated(before, pod) => (before.spec.node_name.as_str(), *pod),
                Change::Deleted(_) => return,
            };
            if !pod.spec.node_name.is_empty() && pod.spec.node_name != before {
                add.add(pod.metadata.key());
            }
        });
        queue
    }

    /// A pod that comes to a node which is not ready, or that was seen after its node had fallen silent.
    ///
    /// upstream: node_lifecycle_controller.go processPod
    async fn sync_pod(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(pod) = self.pods.get(key) else { return Ok(Next::Done) };
        let node = self.nodes.get(&pod.spec.node_name);
        let ready = node.as_ref().map_or("", |node| plan::status(&node.status.conditions, "Ready"));
        if matches!(ready, "False" | "Unknown") {
            self.mark_pod_not_ready(&pod).await?;
        }
        Ok(Next::Done)
    }

    /// Acts on what has changed for all nodes.
    fn settle(&self) {
        let turn = self.zones.lock().settle(Instant::now());
        match turn {
            Turn::None => return,
            Turn::Stop => {
                tracing::warn!("all nodes are not ready: no pod is evicted until one is ready again");
            }
            Turn::Resume => {
                tracing::info!("some nodes are ready again: pods of the others are evicted in time");
                let now = Instant::now();
                self.heard.lock().values_mut().for_each(|heard| heard.at = now);
            }
            Turn::Rates => tracing::info!("a zone's rate of evictions has changed"),
        }
        for node in self.nodes.list() {
            self.queue.add(node.metadata.key());
        }
    }

    async fn sync(&self, key: &Key) -> Result<Next, kube::Error> {
        self.settle();
        let Some(node) = self.nodes.get(key) else {
            self.heard.lock().remove(key);
            return Ok(Next::Done);
        };
        let silent_for = self.silence(key, &node);
        let ready = plan::status(&node.status.conditions, "Ready");
        let grace = if ready.is_empty() { self.startup_grace } else { self.grace };
        let mut next = grace.checked_sub(silent_for).filter(|left| !left.is_zero());
        if next.is_none() && ready != "Unknown" {
            // The change comes back as an event, and the taints with it.
            self.mark_unknown(&node).await?;
        } else {
            let (eviction, ask_again) = self.eviction(key, &node);
            self.keep_taints(&node, eviction).await?;
            self.keep_labels(&node).await?;
            next = next.into_iter().chain(ask_again).min();
        }
        if self.became_not_ready(key, &node) {
            for pod in self.pods.by_index(BY_NODE, node.metadata.name()) {
                self.mark_pod_not_ready(&pod).await?;
            }
            self.note_readiness(key, &node);
        }
        Ok(next.map_or(Next::Done, Next::After))
    }

    /// Whether the node's pods have to go, and when to ask again.
    fn eviction(&self, key: &Key, node: &Node) -> (Eviction, Option<Duration>) {
        let now = Instant::now();
        let since = self.not_ready_since(key, node, now);
        let mut zones = self.zones.lock();
        if zones.stopped() {
            return (Eviction::Stopped, None);
        }
        let Some(since) = since.filter(|_| plan::asks_for_eviction(node)) else {
            return (Eviction::Waits, None);
        };
        let left = self.period.saturating_sub(now.duration_since(since));
        if !left.is_zero() {
            return (Eviction::Waits, Some(left));
        }
        match zones.take(key, now) {
            Ok(()) => (Eviction::Due, None),
            Err(ask_again) => (Eviction::Waits, ask_again),
        }
    }

    fn not_ready_since(&self, key: &Key, node: &Node, now: Instant) -> Option<Instant> {
        let bad = matches!(plan::status(&node.status.conditions, "Ready"), "False" | "Unknown");
        let mut heard = self.heard.lock();
        let known = heard.get_mut(key)?;
        known.not_ready = bad.then(|| known.not_ready.unwrap_or(now));
        known.not_ready
    }

    /// How long a node has said nothing new, by our clock.
    fn silence(&self, key: &Key, node: &Node) -> Duration {
        let lease = self.leases.get(&copepod_client::object::join(LEASE_NAMESPACE, key));
        let renewed = lease.map(|lease| lease.spec.renew_time.clone()).unwrap_or_default();
        let ready = node.status.conditions.iter().find(|condition| condition.type_ == "Ready");
        // What this controller wrote itself is no sign of life.
        let beat = ready
            .filter(|ready| ready.status != "Unknown")
            .and_then(|ready| ready.last_heartbeat_time.clone());
        let word = format!("{renewed} {:?}", beat.map(|time| time.0));
        let mut heard = self.heard.lock();
        let now = Instant::now();
        let known = heard.entry(key.clone()).or_insert_with(|| Heard {
            word: word.clone(),
            at: now,
            was_ready: plan::status(&node.status.conditions, "Ready") == "True",
            not_ready: None,
        });
        if known.word != word {
            known.word = word;
            known.at = now;
        }
        now.duration_since(known.at)
    }

    /// Whether a node that was ready is not any more. Notes that one is ready; the other change is noted when its work
    /// is done ([`Self::note_readiness`]), so that a failed turn is repeated.
    fn became_not_ready(&self, key: &Key, node: &Node) -> bool {
        let ready = plan::status(&node.status.conditions, "Ready");
        let mut heard = self.heard.lock();
        let Some(known) = heard.get_mut(key) else { return false };
        known.was_ready |= ready == "True";
        known.was_ready && matches!(ready, "False" | "Unknown")
    }

    fn note_readiness(&self, key: &Key, node: &Node) {
        if let Some(known) = self.heard.lock().get_mut(key) {
            known.was_ready = plan::status(&node.status.conditions, "Ready") == "True";
        }
    }

    /// upstream: node_lifecycle_controller.go tryUpdateNodeHealth
    async fn mark_unknown(&self, node: &Node) -> Result<(), kube::Error> {
        let now = second(Timestamp::now());
        let conditions: Vec<NodeCondition> =
            KUBELET_CONDITIONS.iter().map(|kind| unknown(&node.status.conditions, kind, &now)).collect();
        let body = json!({"status": {"conditions": conditions}});
        let name = node.metadata.name();
        self.patch(name, "status", PatchType::Strategic, &body).await?;
        let message = format!("Node {name} status is now: NodeNotReady");
        self.recorder.event(&about(node), EventType::Normal, "NodeNotReady", message);
        Ok(())
    }

    async fn keep_taints(&self, node: &Node, eviction: Eviction) -> Result<(), kube::Error> {
        let now = second(Timestamp::now());
        let make = |key: &str, effect: &str| Taint {
            key: key.into(),
            effect: effect.into(),
            value: None,
            time_added: (effect == "NoExecute").then(|| now.clone()),
        };
        let Some(taints) = plan::taints(node, eviction, make) else { return Ok(()) };
        let body = json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}});
        self.patch(node.metadata.name(), "", PatchType::Merge, &body).await
    }

    async fn keep_labels(&self, node: &Node) -> Result<(), kube::Error> {
        let labels = plan::old_labels(node);
        if labels.is_empty() {
            return Ok(());
        }
        let body = json!({"metadata": {"labels": labels}});
        self.patch(node.metadata.name(), "", PatchType::Strategic, &body).await
    }

    /// Changes a node, or its status; one that is gone needs no change.
    async fn patch(
        &self,
        name: &str,
        subresource: &str,
        kind: PatchType,
        body: &serde_json::Value,
    ) -> Result<(), kube::Error> {
        let written =
            rest::patch::<IgnoredAny>(&self.client, &NODES, "", name, subresource, kind, body).await;
        writes::unless_gone(written.map(drop))
    }

    /// A pod whose kubelet is silent, or that says that it is not ready, gets no traffic.
    ///
    /// upstream: pkg/controller/util/node/controller_utils.go MarkPodsNotReady
    async fn mark_pod_not_ready(&self, pod: &Pod) -> Result<(), kube::Error> {
        if !pods::is_ready(pod) {
            return Ok(());
        }
        let now = second(Timestamp::now());
        let mut condition = conditions::find(&pod.status.conditions, "Ready").cloned().unwrap_or_default();
        condition.status = "False".into();
        condition.last_transition_time = Some(now);
        writes::pod_status(&self.client, pod, None, Some(&condition)).await?;
        let about = copepod_client::object::reference(pod);
        self.recorder.event(&about, EventType::Warning, "NodeNotReady", "Node is not ready");
        Ok(())
    }
}

fn unknown(known: &[NodeCondition], kind: &str, now: &Time) -> NodeCondition {
    match known.iter().find(|condition| condition.type_ == kind) {
        None => NodeCondition {
            type_: kind.into(),
            status: "Unknown".into(),
            reason: Some("NodeStatusNeverUpdated".into()),
            message: Some("Kubelet never posted node status.".into()),
            last_heartbeat_time: None,
            last_transition_time: Some(now.clone()),
        },
        Some(condition) => NodeCondition {
            type_: kind.into(),
            status: "Unknown".into(),
            reason: Some("NodeStatusUnknown".into()),
            message: Some("Kubelet stopped posting node status.".into()),
            last_heartbeat_time: condition.last_heartbeat_time.clone(),
            last_transition_time: Some(now.clone()),
        },
    }
}

/// Events of nodes name the node as their uid as well. upstream: RecordNodeEvent
fn about(node: &Node) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: node.metadata.name.clone(),
        uid: node.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_kubelet_is_told_from_one_that_never_spoke() {
        let now = second(Timestamp::UNIX_EPOCH);
        let spoke =
            [NodeCondition { type_: "Ready".into(), status: "True".into(), ..NodeCondition::default() }];
        let message = |known: &[NodeCondition]| unknown(known, "Ready", &now).message;
        assert_eq!(message(&spoke).as_deref(), Some("Kubelet stopped posting node status."));
        assert_eq!(message(&[]).as_deref(), Some("Kubelet never posted node status."));
    }
}
