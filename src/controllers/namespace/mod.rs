//! Namespaces that are being deleted: everything in them goes, pods first, then they go.
//!
//! upstream: pkg/controller/namespace

mod content;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use copepod_client::informer::{Change, Informer};
use copepod_client::object::{Key, MetaExt};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::{Client, rest};
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::common::resources::NAMESPACES;
use crate::common::writes;
use crate::context::{Context, Work};
use crate::kinds::{Namespace, Pod};

const NAME: &str = "namespace-controller";
const FINALIZER: &str = "kubernetes";
/// A namespace is emptied a moment after its deletion, so that all API servers refuse creations in it by then.
///
/// upstream: namespace_controller.go namespaceDeletionGracePeriod
const DELETION_GRACE: Duration = Duration::from_secs(5);
/// Wait for things that end without telling, if nothing is known of how long they take.
const AGAIN: Duration = Duration::from_secs(1);
/// Ends of pods are gathered for so long.
const GATHER: Duration = Duration::from_millis(200);

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let namespaces: Arc<Informer<Namespace>> = context.informer();
    let queue = WorkQueue::<Key>::default();
    let add = queue.clone();
    namespaces.on_change(move |change| {
        let namespace = change.object();
        if namespace.metadata.deleting() && namespace.spec.finalizers.iter().any(|f| f == FINALIZER) {
            let age = namespace
                .metadata
                .deletion_timestamp
                .as_ref()
                .map(|at| Timestamp::now().duration_since(at.0));
            let old = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
            add.add_after(namespace.metadata.key(), DELETION_GRACE.saturating_sub(old));
        }
    });
    // Pods are what takes long to go: the end of one is worth a look.
    let (known, add) = (namespaces.clone(), queue.clone());
    let pods: Arc<Informer<Pod>> = context.informer();
    pods.on_change(move |change| {
        if let Change::Deleted(pod) = change {
            let namespace = MetaExt::namespace(&pod.metadata);
            if known.get(namespace).is_some_and(|namespace| namespace.metadata.deleting()) {
                add.add_after(namespace.into(), GATHER);
            }
        }
    });
    let (client, workers) = (context.client.clone(), context.config.concurrent_namespace_syncs);
    Box::pin(run_workers(NAME, queue, workers, context.shutdown.clone(), move |key: Key| {
        let (client, namespace) = (client.clone(), namespaces.get(&key));
        async move {
            match namespace.filter(|namespace| namespace.metadata.deleting()) {
                Some(namespace) => sync(&client, &namespace).await,
                None => Ok(Next::Done),
            }
        }
    }))
}

async fn sync(client: &Client, namespace: &Namespace) -> Result<Next, kube::Error> {
    let name = namespace.metadata.name();
    if !namespace.spec.finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Next::Done);
    }
    let found = content::delete_all(client, name).await?;
    let conditions = plan::conditions(&namespace.status.conditions, &found, Timestamp::now());
    if conditions != namespace.status.conditions || namespace.status.phase != "Terminating" {
        let status = json!({"phase": "Terminating", "conditions": conditions});
        writes::status(client, &NAMESPACES, namespace, &status).await?;
    }
    if found.is_empty() {
        return finalize(client, name).await.map(|()| Next::Done);
    }
    // What remains ends without an event that this controller sees.
    let wait = found.grace_seconds.map_or(AGAIN, |seconds| Duration::from_secs(seconds / 2 + 1));
    Ok(Next::After(wait))
}

/// Takes our finalizer off; the server then removes the namespace.
async fn finalize(client: &Client, name: &str) -> Result<(), kube::Error> {
    let result = copepod_client::retry::on_conflict(|| async {
        let mut live: Value = rest::get(client, &NAMESPACES, "", name).await?;
        if let Some(finalizers) = live["spec"]["finalizers"].as_array_mut() {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        rest::update::<IgnoredAny>(client, &NAMESPACES, "", name, "finalize", &live).await.map(drop)
    })
    .await;
    writes::unless_gone(result)
}
