//! Watches, then acts as [`plan`](super::plan) says.

use std::collections::BTreeMap;
use std::sync::Arc;

use copepod_client::events::{EventType, Recorder};
use copepod_client::informer::{BY_CONTROLLER, BY_NAMESPACE, Informer};
use copepod_client::object::{Key, MetaExt, reference};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::rest::PatchType;
use copepod_client::{Client, rest};
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::annotations;
use super::plan::{self, Action, Observed};
use super::progress;
use crate::common::resources::{DEPLOYMENTS, REPLICA_SETS};
use crate::common::{claim, pods, selector, writes};
use crate::context::{Context, Work, controller_key, enqueue_controller, enqueue_self};
use crate::kinds::{Deployment, DeploymentStatus, Pod, ReplicaSet};

const NAME: &str = "deployment-controller";

struct Shell {
    client: Client,
    recorder: Recorder,
    deployments: Arc<Informer<Deployment>>,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        recorder: context.recorder.with_component(NAME),
        deployments: context.informer(),
        sets: context.informer(),
        pods: context.informer(),
    });
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&shell.deployments, &queue);
    enqueue_controller(&shell.sets, "Deployment", &queue);
    shell.watch_orphans(&queue);
    shell.watch_pods(&queue);
    let workers = context.config.concurrent_deployment_syncs;
    Box::pin(run_workers(NAME, queue, workers, context.shutdown.clone(), move |key| {
        let shell = shell.clone();
        async move { shell.sync(&key).await }
    }))
}

impl Shell {
    fn watch_orphans(&self, queue: &WorkQueue<Key>) {
        let (deployments, queue) = (self.deployments.clone(), queue.clone());
        self.sets.on_change(move |change| {
            let set = change.object();
            if set.metadata.controller().is_some() {
                return;
            }
            for deployment in deployments.by_index(BY_NAMESPACE, MetaExt::namespace(&set.metadata)) {
                let wish = &deployment.spec.selector;
                if !selector::is_empty(wish) && selector::matches(wish, &set.metadata) {
                    queue.add(deployment.metadata.key());
                }
            }
        });
    }

    /// A recreation waits for the last old pod, whose end changes no set.
    fn watch_pods(&self, queue: &WorkQueue<Key>) {
        let (sets, deployments, queue) = (self.sets.clone(), self.deployments.clone(), queue.clone());
        self.pods.on_change(move |change| {
            let pod = change.object();
            let ended =
                matches!(change, copepod_client::informer::Change::Deleted(_)) || pods::is_finished(pod);
            let set = controller_key(&**pod, "ReplicaSet").filter(|_| ended).and_then(|key| sets.get(&key));
            let owner =
                set.and_then(|set| controller_key(&*set, "Deployment")).and_then(|key| deployments.get(&key));
            if let Some(deployment) = owner.filter(|deployment| deployment.spec.strategy.kind == "Recreate") {
                queue.add(deployment.metadata.key());
            }
        });
    }

    async fn sync(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(deployment) = self.deployments.get(key) else { return Ok(Next::Done) };
        let about = reference(&*deployment);
        if selector::is_empty(&deployment.spec.selector) {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&about, EventType::Warning, "SelectingAll", message);
            return Ok(Next::Done);
        }
        let sets = self.claim(&deployment).await?;
        let pods: BTreeMap<String, usize> = sets
            .iter()
            .map(|set| {
                let uid = MetaExt::uid(&set.metadata);
                let pods = self.pods.by_index(BY_CONTROLLER, uid);
                (uid.to_owned(), pods.iter().filter(|pod| !pods::is_finished(pod)).count())
            })
            .collect();
        let observed = Observed { deployment: &deployment, sets: &sets, pods: &pods, now: Timestamp::now() };
        let mut next = Next::Done;
        let actions = plan::plan(&observed);
        let mut deployment = (*deployment).clone();
        for action in actions {
            match action {
                Action::After(delay) => next = Next::After(delay),
                other => self.act(&mut deployment, other).await?,
            }
        }
        Ok(next)
    }

    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, kube::Error> {
        let mut candidates = self.sets.by_index(BY_CONTROLLER, MetaExt::uid(&deployment.metadata));
        let all = self.sets.by_index(BY_NAMESPACE, MetaExt::namespace(&deployment.metadata));
        candidates.extend(all.into_iter().filter(|set| set.metadata.controller().is_none()));
        let wish = &deployment.spec.selector;
        claim::Claims::new(&self.client, deployment, &DEPLOYMENTS, &REPLICA_SETS).of(wish, candidates).await
    }

    /// `deployment` follows what is written, so that a later action of the turn is no conflict with an earlier one.
    async fn act(&self, deployment: &mut Deployment, action: Action) -> Result<(), kube::Error> {
        let namespace = MetaExt::namespace(&deployment.metadata).to_owned();
        let client = &self.client;
        match action {
            Action::Create { set, replicas } => self.create(deployment, set, replicas).await,
            Action::Refresh { name, patch } => self.patch_set(&namespace, &name, &patch).await,
            Action::Scale { name, from, to, annotations } => {
                let patch = json!({ "metadata": { "annotations": annotations }, "spec": { "replicas": to } });
                self.patch_set(&namespace, &name, &patch).await?;
                if from != to {
                    let direction = if from < to { "up" } else { "down" };
                    let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
                    let about = reference(deployment);
                    self.recorder.event(&about, EventType::Normal, "ScalingReplicaSet", message);
                }
                Ok(())
            }
            Action::Delete { name } => {
                writes::unless_gone(rest::delete(client, &REPLICA_SETS, &namespace, &name, &json!({})).await)
            }
            Action::SetRevision(revision) => self.set_revision(deployment, &revision).await,
            Action::Status(status) => self.write_status(deployment, *status).await,
            Action::After(_) => Ok(()),
        }
    }

    async fn patch_set(&self, namespace: &str, name: &str, patch: &Value) -> Result<(), kube::Error> {
        rest::patch::<IgnoredAny>(&self.client, &REPLICA_SETS, namespace, name, "", PatchType::Merge, patch)
            .await
            .map(drop)
    }

    async fn set_revision(&self, deployment: &mut Deployment, revision: &str) -> Result<(), kube::Error> {
        let (namespace, name) = (MetaExt::namespace(&deployment.metadata), deployment.metadata.name());
        // The whole object is sent, as raw JSON: upstream's role lets this controller `update` deployments, not `patch` them.
        let note = |live: &mut Value| {
            live["metadata"]["annotations"][annotations::REVISION] = json!(revision);
            true
        };
        let written = rest::edit(&self.client, &DEPLOYMENTS, namespace, name, note).await?;
        deployment.metadata.resource_version = written.or(deployment.metadata.resource_version.take());
        Ok(())
    }

    async fn create(
        &self,
        deployment: &mut Deployment,
        set: Value,
        replicas: i32,
    ) -> Result<(), kube::Error> {
        let namespace = MetaExt::namespace(&deployment.metadata).to_owned();
        let name = set["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let about = reference(deployment);
        let outcome = match rest::create::<Value>(&self.client, &REPLICA_SETS, &namespace, &set).await {
            Ok(_) => {
                if replicas > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.recorder.event(&about, EventType::Normal, "ScalingReplicaSet", message);
                }
                plan::progressing(
                    "True",
                    "NewReplicaSetCreated",
                    &format!("Created new replica set {name:?}"),
                    Timestamp::now(),
                )
            }
            Err(error) if rest::is_already_exists(&error) => {
                return self.name_taken(deployment, &set, &name, error).await;
            }
            Err(error) if rest::is_namespace_terminating(&error) => return Ok(()),
            Err(error) => {
                let message = format!("Failed to create new replica set {name:?}: {}", rest::message(&error));
                self.recorder.event(&about, EventType::Warning, "ReplicaSetCreateError", message.clone());
                let condition =
                    plan::progressing("False", "ReplicaSetCreateError", &message, Timestamp::now());
                self.note_progress(deployment, condition).await?;
                return Err(error);
            }
        };
        self.note_progress(deployment, outcome).await
    }

    async fn note_progress(
        &self,
        deployment: &mut Deployment,
        condition: crate::kinds::Condition,
    ) -> Result<(), kube::Error> {
        if deployment.spec.progress_deadline_seconds.is_none_or(|seconds| seconds == i32::MAX) {
            return Ok(());
        }
        let mut status = deployment.status.clone();
        progress::set(&mut status.conditions, condition);
        // Lost to another writer: the next turn says the same by what it sees.
        match self.write_status(deployment, status).await {
            Err(error) if rest::is_conflict(&error) => Ok(()),
            other => other,
        }
    }

    /// A set of that name exists. If it is this deployment's with this template, an earlier turn made it; else two
    /// templates have one hash, and the next turn tries another.
    async fn name_taken(
        &self,
        deployment: &mut Deployment,
        wanted: &Value,
        name: &str,
        error: kube::Error,
    ) -> Result<(), kube::Error> {
        let namespace = MetaExt::namespace(&deployment.metadata);
        let live: Value = rest::get(&self.client, &REPLICA_SETS, namespace, name).await?;
        let owners = live["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        let ours = owners.iter().any(|owner| owner["uid"] == MetaExt::uid(&deployment.metadata));
        if ours
            && plan::without_hash(&live["spec"]["template"])
                == plan::without_hash(&wanted["spec"]["template"])
        {
            return Ok(());
        }
        let count = deployment.status.collision_count.unwrap_or(0) + 1;
        tracing::info!(deployment = %deployment.metadata.key(), count, "hash collision, trying another name");
        let status = DeploymentStatus { collision_count: Some(count), ..deployment.status.clone() };
        self.write_status(deployment, status).await?;
        Err(error)
    }

    async fn write_status(
        &self,
        deployment: &mut Deployment,
        status: DeploymentStatus,
    ) -> Result<(), kube::Error> {
        match rest::update_status(&self.client, &DEPLOYMENTS, deployment, &status).await {
            Ok(metadata) => {
                deployment.metadata = metadata;
                deployment.status = status;
                Ok(())
            }
            Err(error) => writes::unless_gone(Err(error)),
        }
    }
}
