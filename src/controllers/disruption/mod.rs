//! PodDisruptionBudgets: how many pods may be evicted now. The API server's eviction counts the number down; this
//! controller says what it is.
//!
//! upstream: pkg/controller/disruption/disruption.go

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_client::events::{EventType, Recorder};
use copepod_client::informer::{BY_NAMESPACE, Informer};
use copepod_client::object::{Key, MetaExt, reference};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::rest::ResourceType;
use copepod_client::{Client, rest};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::common::resources::{
    DEPLOYMENTS, DISRUPTION_BUDGETS, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS,
};
use crate::common::{selector, writes};
use crate::context::{Context, Work, enqueue_self};
use crate::kinds::{Budget, Pod};

const NAME: &str = "disruption-controller";

struct Shell {
    client: Client,
    recorder: Recorder,
    budgets: Arc<Informer<Budget>>,
    pods: Arc<Informer<Pod>>,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        recorder: context.recorder.with_component("controllermanager"),
        budgets: context.informer(),
        pods: context.informer(),
    });
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&shell.budgets, &queue);
    let (budgets, add) = (shell.budgets.clone(), queue.clone());
    shell.pods.on_change(move |change| {
        let pod = change.object();
        for budget in budgets.by_index(BY_NAMESPACE, MetaExt::namespace(&pod.metadata)) {
            if budget.spec.selector.as_ref().is_some_and(|wish| selector::matches(wish, &pod.metadata)) {
                add.add(budget.metadata.key());
            }
        }
    });
    Box::pin(run_workers(NAME, queue, 2, context.shutdown.clone(), move |key| {
        let shell = shell.clone();
        async move { shell.sync(&key).await }
    }))
}

impl Shell {
    async fn sync(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(budget) = self.budgets.get(key).filter(|b| !b.metadata.deleting()) else {
            return Ok(Next::Done);
        };
        let mut pods = self.pods.by_index(BY_NAMESPACE, MetaExt::namespace(&budget.metadata));
        pods.retain(|pod| {
            budget.spec.selector.as_ref().is_some_and(|wish| selector::matches(wish, &pod.metadata))
        });
        if pods.is_empty() {
            self.recorder.event(&reference(&*budget), EventType::Normal, "NoPods", "No matching pods found");
        }
        let scales = self.scales(&budget, &pods).await?;
        let now = Timestamp::now();
        let (status, again) = match plan::expected(&budget, &pods, &scales) {
            Ok(expected) => plan::status(&budget, &pods, &expected, now),
            Err(unmanaged) => {
                let message = format!("Failed to calculate the number of expected pods: {unmanaged}");
                self.recorder.event(
                    &reference(&*budget),
                    EventType::Warning,
                    "CalculateExpectedPodCountFailed",
                    message.clone(),
                );
                (plan::failed(&budget, &message, now), None)
            }
        };
        if status != json!(budget.status) {
            writes::status(&self.client, &DISRUPTION_BUDGETS, &*budget, &status).await?;
        }
        Ok(again.map_or(Next::Done, Next::After))
    }

    /// How many pods each controller of a pod wants; only asked where the budget's numbers depend on it.
    async fn scales(&self, budget: &Budget, pods: &[Arc<Pod>]) -> Result<BTreeMap<String, i32>, kube::Error> {
        let mut scales = BTreeMap::new();
        if !plan::needs_scales(budget) {
            return Ok(scales);
        }
        let namespace = MetaExt::namespace(&budget.metadata);
        for pod in pods {
            let Some(owner) = pod.metadata.controller() else { continue };
            if scales.contains_key(&owner.uid) {
                continue;
            }
            let kind: ResourceType = match owner.kind.as_str() {
                "ReplicaSet" => REPLICA_SETS,
                "StatefulSet" => STATEFUL_SETS,
                "ReplicationController" => REPLICATION_CONTROLLERS,
                _ => continue,
            };
            let Some(found) = self.read(&kind, namespace, &owner.name).await? else { continue };
            // A ReplicaSet of a Deployment is not the one who decides.
            let above = found["metadata"]["ownerReferences"].as_array().and_then(|owners| {
                owners
                    .iter()
                    .find(|owner| owner["kind"] == "Deployment")
                    .and_then(|owner| owner["name"].as_str())
            });
            let decides = match above {
                Some(name) => self.read(&DEPLOYMENTS, namespace, name).await?.unwrap_or(found),
                None => found,
            };
            let uid = decides["metadata"]["uid"].as_str().unwrap_or_default();
            let replicas = decides["spec"]["replicas"].as_i64().unwrap_or(1);
            scales.insert(owner.uid.clone(), replicas as i32);
            tracing::trace!(uid, replicas, "scale of a budget's controller");
        }
        Ok(scales)
    }

    async fn read(
        &self,
        kind: &ResourceType,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, kube::Error> {
        match rest::get(&self.client, kind, namespace, name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if rest::is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Longest time that an eviction that was agreed to may take to be seen. upstream: DeletionTimeout
const DELETION_TIMEOUT: Duration = Duration::from_secs(2 * 60);
