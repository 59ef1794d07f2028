//! Watches, then acts as [`plan`](super::plan) says.

use std::sync::Arc;

use copepod_client::Client;
use copepod_client::events::{EventType, Recorder};
use copepod_client::informer::{Change, Informer};
use copepod_client::object::{Key, MetaExt, controller_reference, reference};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::rest::ResourceType;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::plan::{self, Turn};
use super::refused::Refused;
use crate::common::pod_control::{PodControl, PodOwner, victims, when_available};
use crate::common::resources::DAEMON_SETS;
use crate::common::{revisions, selector, template, writes};
use crate::context::{Context, Work, enqueue_self};
use crate::kinds::{ControllerRevision, DaemonSet, Node, Pod};

impl PodOwner for DaemonSet {
    const RESOURCE: ResourceType = DAEMON_SETS;
    const KIND: &'static str = "DaemonSet";
    fn selector(&self) -> LabelSelector {
        self.spec.selector.clone()
    }
}

const NAME: &str = "daemonset-controller";
/// Pods created in one turn. upstream: daemon_controller.go BurstReplicas
const BURST_MAX: usize = 250;

struct Shell {
    client: Client,
    recorder: Recorder,
    sets: Arc<Informer<DaemonSet>>,
    control: Arc<PodControl<DaemonSet>>,
    nodes: Arc<Informer<Node>>,
    revisions: Arc<Informer<ControllerRevision>>,
    refused: Refused,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        recorder: context.recorder.with_component(NAME),
        sets: context.informer(),
        control: PodControl::new(context, NAME),
        nodes: context.informer(),
        revisions: context.informer(),
        refused: Refused::default(),
    });
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&shell.sets, &queue);
    shell.control.watch(&queue);
    let (sets, add) = (shell.sets.clone(), queue.clone());
    shell.nodes.on_change(move |change| {
        // Heartbeats change no decision.
        if let Change::Updated(before, after) = &change
            && before.metadata.labels == after.metadata.labels
            && before.spec == after.spec
        {
            return;
        }
        sets.list().iter().for_each(|set| add.add(set.metadata.key()));
    });
    let workers = context.config.concurrent_daemonset_syncs;
    Box::pin(run_workers(NAME, queue, workers, context.shutdown.clone(), move |key| {
        let shell = shell.clone();
        async move { shell.sync(&key).await }
    }))
}

impl Shell {
    async fn sync(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(set) = self.sets.get(key) else {
            self.control.forget(key);
            self.refused.forget(key);
            return Ok(Next::Done);
        };
        let about = reference(&*set);
        if selector::is_empty(&set.spec.selector) {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&about, EventType::Warning, "SelectingAll", message);
            return Ok(Next::Done);
        }
        if set.metadata.deleting() {
            return Ok(Next::Done);
        }
        let known = revisions::of(&self.revisions, &*set);
        let current =
            revisions::current(&self.client, &*set, &set.spec.template, &known, set.status.collision_count)
                .await?;
        let hash = revisions::hash_of(&current).to_owned();
        let mine = self.control.claim(&set, |_| true).await?;
        let nodes = self.nodes.list();
        let now = Timestamp::now();
        if self.control.has_seen_all(key) {
            let at = Instant::now();
            let held = |node: &str| self.refused.left(key, node, at).is_some();
            let turn = plan::plan(&set, &nodes, &mine, &hash, now, &held);
            self.act(key, &set, &mine, turn, &hash).await?;
        }
        self.clean_up(&set, &known, &mine, &current).await?;
        let status = plan::status(&set, &nodes, &mine, &hash, now);
        if status != set.status {
            writes::status(&self.client, &DAEMON_SETS, &*set, &status).await?;
        }
        let again = when_available(&mine, set.spec.min_ready_seconds, now);
        Ok(match (again, self.refused.next(key, Instant::now())) {
            (Next::After(a), Some(b)) => Next::After(a.min(b)),
            (_, Some(held)) => Next::After(held),
            (again, None) => again,
        })
    }

    async fn act(
        &self,
        key: &Key,
        set: &DaemonSet,
        mine: &[Arc<Pod>],
        turn: Turn,
        hash: &str,
    ) -> Result<(), kube::Error> {
        let about = reference(set);
        for (node, pod) in turn.ended {
            let (namespace, name) = (MetaExt::namespace(&set.metadata), pod.metadata.name());
            let (kind, reason, word, end) = if pod.status.phase == "Failed" {
                self.refused.note(key, &node, Instant::now());
                (EventType::Warning, "FailedDaemonPod", "failed", "kill")
            } else {
                (EventType::Normal, "SucceededDaemonPod", "succeeded", "delete")
            };
            let message =
                format!("Found {word} daemon pod {namespace}/{name} on node {node}, will try to {end} it");
            self.recorder.event(&about, kind, reason, message);
        }
        // One kind is expected at a time: creations wait for the turn that the deletions bring.
        let victims = victims(mine, &turn.delete);
        if !victims.is_empty() {
            return self.control.delete(key, set, victims).await;
        }
        let nodes = &turn.create[..turn.create.len().min(BURST_MAX)];
        self.control.create(key, set, nodes.len(), |at| pod_for(set, &nodes[at], hash)).await
    }

    async fn clean_up(
        &self,
        set: &DaemonSet,
        known: &[Arc<ControllerRevision>],
        mine: &[Arc<Pod>],
        current: &ControllerRevision,
    ) -> Result<(), kube::Error> {
        let hashes: Vec<&str> =
            mine.iter().filter_map(|pod| pod.metadata.label(revisions::HASH_LABEL)).collect();
        let mut in_use = vec![current.metadata.name()];
        in_use.extend(
            known.iter().filter(|r| hashes.contains(&revisions::hash_of(r))).map(|r| r.metadata.name()),
        );
        revisions::clean_up(&self.client, known, &in_use, set.spec.revision_history_limit.unwrap_or(10)).await
    }
}

/// A pod for one node. upstream: pkg/controller/daemon/util/daemonset_util.go CreatePodTemplate
fn pod_for(set: &DaemonSet, node: &str, hash: &str) -> Value {
    let (namespace, name) = (MetaExt::namespace(&set.metadata), set.metadata.name());
    let mut pod = template::pod(&set.spec.template.0, namespace, name, &controller_reference(set));
    pod["metadata"]["labels"][revisions::HASH_LABEL] = json!(hash);
    pod["spec"]["tolerations"] = json!(plan::tolerations(&set.spec.template.0));
    // The template's own terms have been judged; the node is all that is left to require.
    let by_name = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
    pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
        json!({"nodeSelectorTerms": [by_name]});
    pod
}
