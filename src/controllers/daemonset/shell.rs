//! Watches, then acts as [`plan`](super::plan) says.

use std::sync::Arc;
use std::time::Duration;

use copepod_client::events::{EventType, Recorder};
use copepod_client::informer::{BY_CONTROLLER, BY_NAMESPACE, Change, Informer};
use copepod_client::object::{Key, MetaExt, controller_reference, reference};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::rest::PatchType;
use copepod_client::{Client, rest};
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::plan::{self, Turn};
use crate::common::expectations::Expectations;
use crate::common::resources::{DAEMON_SETS, PODS};
use crate::common::{claim, pods, revisions, selector, slow_start, template};
use crate::context::{Context, Work, controller_key, enqueue_self};
use crate::kinds::{ControllerRevision, DaemonSet, Node, Pod};

const NAME: &str = "daemonset-controller";
/// Pods created in one turn. upstream: daemon_controller.go BurstReplicas
const BURST_MAX: usize = 250;

struct Shell {
    client: Client,
    recorder: Recorder,
    sets: Arc<Informer<DaemonSet>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    revisions: Arc<Informer<ControllerRevision>>,
    expectations: Expectations,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        recorder: context.recorder.with_component(NAME),
        sets: context.informer(),
        pods: context.informer(),
        nodes: context.informer(),
        revisions: context.informer(),
        expectations: Expectations::default(),
    });
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&shell.sets, &queue);
    let (watching, add) = (shell.clone(), queue.clone());
    shell.pods.on_change(move |change| watching.pod_changed(&change, &add));
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
    fn pod_changed(&self, change: &Change<'_, Pod>, queue: &WorkQueue<Key>) {
        let pod = change.object();
        let Some(owner) = controller_key(&**pod, "DaemonSet") else { return };
        match change {
            Change::Added(_) if !pod.metadata.deleting() => self.expectations.creation_observed(&owner),
            Change::Updated(..) if !pod.metadata.deleting() => {}
            _ => self.expectations.deletion_observed(&owner, pod.metadata.uid()),
        }
        queue.add(owner);
    }

    async fn sync(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
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
        let mine = self.claim(&set).await?;
        let nodes = self.nodes.list();
        let now = Timestamp::now();
        if self.expectations.satisfied(key) {
            let turn = plan::plan(&set, &nodes, &mine, &hash, now);
            self.act(key, &set, &mine, turn, &hash).await?;
        }
        self.clean_up(&set, &known, &mine, &current).await?;
        let status = plan::status(&set, &nodes, &mine, &hash, now);
        if status != set.status {
            self.write_status(&set, &json!(status)).await?;
        }
        let min_ready = set.spec.min_ready_seconds;
        let next =
            mine.iter().filter_map(|pod| pods::available_at(pod, min_ready)).filter(|at| *at > now).min();
        Ok(next.map_or(Next::Done, |at| {
            Next::After(Duration::try_from(at.duration_since(now)).unwrap_or_default())
        }))
    }

    async fn claim(&self, set: &DaemonSet) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let mut candidates = self.pods.by_index(BY_CONTROLLER, set.metadata.uid());
        let all = self.pods.by_index(BY_NAMESPACE, MetaExt::namespace(&set.metadata));
        candidates.extend(
            all.into_iter().filter(|pod| pod.metadata.controller().is_none() && pods::is_active(pod)),
        );
        claim::claim(&self.client, set, &DAEMON_SETS, &set.spec.selector, &PODS, candidates).await
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
        for (node, pod) in turn.failed {
            let namespace = MetaExt::namespace(&set.metadata);
            let message =
                format!("Found failed daemon pod {namespace}/{pod} on node {node}, will try to kill it");
            self.recorder.event(&about, EventType::Warning, "FailedDaemonPod", message);
        }
        let victims: Vec<&Arc<Pod>> =
            mine.iter().filter(|pod| turn.delete.iter().any(|name| name == pod.metadata.name())).collect();
        // Creations and deletions are never planned for the same turn of one node, so that one kind is expected at a time.
        if !victims.is_empty() {
            self.expectations.expect_deletions(key, victims.iter().map(|pod| pod.metadata.uid().to_owned()));
            for pod in victims {
                self.delete(key, set, pod).await?;
            }
            return Ok(());
        }
        let nodes = &turn.create[..turn.create.len().min(BURST_MAX)];
        if nodes.is_empty() {
            return Ok(());
        }
        self.expectations.expect_creations(key, nodes.len() as i64);
        let (created, error) = slow_start::run(nodes.len(), |at| self.create(set, &nodes[at], hash)).await;
        for _ in created..nodes.len() {
            self.expectations.creation_observed(key);
        }
        match error {
            Some(error) if !rest::is_namespace_terminating(&error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn create(&self, set: &DaemonSet, node: &str, hash: &str) -> Result<(), kube::Error> {
        let pod = pod_for(set, node, hash);
        let about = reference(set);
        match rest::create::<Value>(&self.client, &PODS, MetaExt::namespace(&set.metadata), &pod).await {
            Ok(made) => {
                let message =
                    format!("Created pod: {}", made["metadata"]["name"].as_str().unwrap_or_default());
                self.recorder.event(&about, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                if !rest::is_namespace_terminating(&error) {
                    let message = format!("Error creating: {}", rest::message(&error));
                    self.recorder.event(&about, EventType::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    async fn delete(&self, key: &Key, set: &DaemonSet, pod: &Pod) -> Result<(), kube::Error> {
        let (namespace, name) = (MetaExt::namespace(&pod.metadata), pod.metadata.name());
        let options = json!({"preconditions": {"uid": pod.metadata.uid}});
        match rest::delete(&self.client, &PODS, namespace, name, &options).await {
            Ok(()) => {
                let about = reference(set);
                self.recorder.event(
                    &about,
                    EventType::Normal,
                    "SuccessfulDelete",
                    format!("Deleted pod: {name}"),
                );
                Ok(())
            }
            Err(error) => {
                self.expectations.deletion_observed(key, pod.metadata.uid());
                if rest::is_not_found(&error) { Ok(()) } else { Err(error) }
            }
        }
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

    async fn write_status(&self, set: &DaemonSet, status: &Value) -> Result<(), kube::Error> {
        let body = json!({"metadata": {"resourceVersion": set.metadata.resource_version}, "status": status});
        let (namespace, name) = (MetaExt::namespace(&set.metadata), set.metadata.name());
        let merge = PatchType::Merge;
        match rest::patch::<IgnoredAny>(&self.client, &DAEMON_SETS, namespace, name, "status", merge, &body)
            .await
        {
            Err(error) if rest::is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
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
