//! Notices silent nodes, says so in their conditions, keeps their taints.

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

use super::plan;
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
    /// What each node last said, and when it was heard.
    heard: Mutex<HashMap<Key, Heard>>,
}

struct Heard {
    word: String,
    at: Instant,
    /// Whether it was ready when last looked at: only the change to not ready touches pods, so that this controller
    /// and a kubelet that is alive never contradict each other for long.
    was_ready: bool,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        recorder: context.recorder.with_component("node-controller"),
        nodes: context.informer(),
        leases: context.informer(),
        pods: context.informer(),
        grace: context.config.node_monitor_grace_period,
        startup_grace: context.config.node_startup_grace_period,
        heard: Mutex::default(),
    });
    shell.pods.add_index(BY_NODE, |pod| vec![pod.spec.node_name.clone()]);
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&shell.nodes, &queue);
    shell.announce();
    let add = queue.clone();
    shell.leases.on_change(move |change| {
        let metadata = &change.object().metadata;
        if MetaExt::namespace(metadata) == LEASE_NAMESPACE {
            add.add(metadata.name().into());
        }
    });
    Box::pin(run_workers(NAME, queue, 8, context.shutdown.clone(), move |key| {
        let shell = shell.clone();
        async move { shell.sync(&key).await }
    }))
}

impl Shell {
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

    async fn sync(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(node) = self.nodes.get(key) else {
            self.heard.lock().remove(key);
            return Ok(Next::Done);
        };
        let silent_for = self.silence(key, &node);
        let never = plan::status(&node.status.conditions, "Ready").is_empty();
        let grace = if never { self.startup_grace } else { self.grace };
        if silent_for >= grace {
            if plan::status(&node.status.conditions, "Ready") != "Unknown" {
                self.mark_unknown(&node).await?;
            }
        } else {
            self.keep_taints(&node).await?;
        }
        if plan::status(&node.status.conditions, "Ready") == "Unknown" {
            self.keep_taints(&node).await?;
        }
        if self.became_not_ready(key, &node) {
            self.mark_pods_not_ready(&node).await?;
            self.note_readiness(key, &node);
        }
        Ok(match grace.checked_sub(silent_for) {
            Some(left) if !left.is_zero() => Next::After(left),
            _ => Next::Done,
        })
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
        writes::unless_gone(
            rest::patch::<IgnoredAny>(&self.client, &NODES, "", name, "status", PatchType::Strategic, &body)
                .await
                .map(drop),
        )?;
        let message = format!("Node {name} status is now: NodeNotReady");
        self.recorder.event(&about(node), EventType::Normal, "NodeNotReady", message);
        Ok(())
    }

    async fn keep_taints(&self, node: &Node) -> Result<(), kube::Error> {
        let now = second(Timestamp::now());
        let make = |key: &str, effect: &str| Taint {
            key: key.into(),
            effect: effect.into(),
            value: None,
            time_added: (effect == "NoExecute").then(|| now.clone()),
        };
        let Some(taints) = plan::taints(node, make) else { return Ok(()) };
        let body = json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}});
        let name = node.metadata.name();
        writes::unless_gone(
            rest::patch::<IgnoredAny>(&self.client, &NODES, "", name, "", PatchType::Merge, &body)
                .await
                .map(drop),
        )
    }

    /// A pod whose kubelet is silent, or that says that it is not ready, gets no traffic.
    ///
    /// upstream: pkg/controller/util/node/controller_utils.go MarkPodsNotReady
    async fn mark_pods_not_ready(&self, node: &Node) -> Result<(), kube::Error> {
        for pod in self.pods.by_index(BY_NODE, node.metadata.name()) {
            if !pods::is_ready(&pod) {
                continue;
            }
            let now = second(Timestamp::now());
            let mut condition =
                conditions::find(&pod.status.conditions, "Ready").cloned().unwrap_or_default();
            condition.status = "False".into();
            condition.last_transition_time = Some(now);
            writes::pod_status(&self.client, &pod, None, Some(&condition)).await?;
            let about = copepod_client::object::reference(&*pod);
            self.recorder.event(&about, EventType::Warning, "NodeNotReady", "Node is not ready");
        }
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
