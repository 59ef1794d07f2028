//! What of each quota is used: `status.used`. Admission refuses what would go beyond it; this controller counts what is
//! there, so that what has gone is given back.
//!
//! It counts anew when a quota comes or asks for something else, when pods or services of its namespace end, change or go,
//! when an object goes that it counts, and after `--resource-quota-sync-period`. It does not when objects come or admission has
//! charged: what is charged a moment before it is stored would be given back, and the next one let in.
//!
//! upstream: pkg/controller/resourcequota, pkg/quota/v1/evaluator/core

mod usage;

use std::sync::Arc;
use std::time::Duration;

use copepod_client::informer::{BY_NAMESPACE, Change, Informer};
use copepod_client::object::{Key, MetaExt};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::rest::ResourceType;
use copepod_client::{Client, rest};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::common::resources::{PERSISTENT_VOLUME_CLAIMS, RESOURCE_QUOTAS};
use crate::common::{pods, writes};
use crate::context::{Context, Gone, Work};
use crate::kinds::{Pod, ResourceQuota, Service};

const NAME: &str = "resourcequota-controller";
/// Changes of pods are gathered for so long: counting reads all pods of a namespace.
const GATHER: Duration = Duration::from_millis(200);

struct Shell {
    client: Client,
    quotas: Arc<Informer<ResourceQuota>>,
    pods: Arc<Informer<Pod>>,
    services: Arc<Informer<Service>>,
    period: Duration,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        quotas: context.informer(),
        pods: context.informer(),
        services: context.informer(),
        period: context.config.resource_quota_sync_period,
    });
    let queue = WorkQueue::<Key>::default();
    let quotas = queue.clone();
    shell.quotas.on_change(move |change| {
        // Admission changes what is used; whoever changes what may be used has it set right at once, where upstream's
        // controller waits for its next round.
        let is_usage_only = matches!(&change, Change::Updated(before, after)
            if before.spec == after.spec && after.status.hard == after.spec.hard);
        if !is_usage_only {
            quotas.add(change.object().metadata.key());
        }
    });
    shell.watch(&shell.pods, &queue, |before, after| {
        let (was, is) = (&before.spec, &after.spec);
        pods::is_finished(before) == pods::is_finished(after)
            && was.active_deadline_seconds == is.active_deadline_seconds
            && (&was.containers, &was.init_containers) == (&is.containers, &is.init_containers)
    });
    shell.watch(&shell.services, &queue, |before, after| before.spec == after.spec);
    let (workers, shutdown) = (context.config.concurrent_resource_quota_syncs, context.shutdown.clone());
    let given_back = give_back(shell.quotas.clone(), context.gone.subscribe(), queue.clone());
    Box::pin(async move {
        let work = run_workers(NAME, queue, workers, shutdown, move |key| {
            let shell = shell.clone();
            async move { shell.sync(&key).await }
        });
        tokio::select! {
            () = work => {}
            () = given_back => {}
        }
    })
}

/// Enqueues the quotas that count what has gone. Never ends: this program itself may always tell of more.
///
/// upstream: resource_quota_monitor.go, resource_quota_controller.go replenishQuota
async fn give_back(
    quotas: Arc<Informer<ResourceQuota>>,
    mut gone: broadcast::Receiver<Gone>,
    queue: WorkQueue<Key>,
) {
    loop {
        match gone.recv().await {
            Ok(gone) => {
                for quota in quotas.by_index(BY_NAMESPACE, &gone.namespace) {
                    if usage::counts(&quota.spec, &gone.resource.plural, &gone.resource.group) {
                        queue.add_after(quota.metadata.key(), GATHER);
                    }
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {
                quotas.list().iter().for_each(|quota| queue.add_after(quota.metadata.key(), GATHER));
            }
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Shell {
    /// Enqueues the quotas of a namespace in which something changed or went that may count.
    /// upstream: pkg/quota/v1/install/update_filter.go DefaultUpdateFilter
    fn watch<K: copepod_client::informer::Cached>(
        &self,
        informer: &Informer<K>,
        queue: &WorkQueue<Key>,
        same: fn(&K, &K) -> bool,
    ) {
        let (quotas, queue) = (self.quotas.clone(), queue.clone());
        informer.on_change(move |change| {
            match &change {
                Change::Added(_) => return,
                Change::Updated(before, after) if same(before, after) => return,
                Change::Updated(..) | Change::Deleted(_) => {}
            }
            for quota in quotas.by_index(BY_NAMESPACE, MetaExt::namespace(change.object().meta())) {
                queue.add_after(quota.metadata.key(), GATHER);
            }
        });
    }

    async fn sync(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(quota) = self.quotas.get(key).filter(|quota| !quota.metadata.deleting()) else {
            return Ok(Next::Done);
        };
        let namespace = MetaExt::namespace(&quota.metadata);
        let pods = self.pods.by_index(BY_NAMESPACE, namespace);
        let services = self.services.by_index(BY_NAMESPACE, namespace);
        let mut used = usage::of_pods(&quota.spec, &pods);
        used.extend(usage::of_services(&quota.spec, &services));
        for name in
            quota.spec.hard.keys().filter(|name| !used.contains_key(*name)).cloned().collect::<Vec<_>>()
        {
            if let Some(amount) = self.count(namespace, &name).await? {
                used.insert(name, amount);
            }
        }
        if quota.status.hard != quota.spec.hard || quota.status.used != used {
            let status = json!({"hard": quota.spec.hard, "used": used});
            writes::status(&self.client, &RESOURCE_QUOTAS, &*quota, &status).await?;
        }
        Ok(Next::After(self.period))
    }

    /// The number of objects, or of bytes, that a name of a quota stands for; `None` if it stands for nothing known.
    async fn count(&self, namespace: &str, name: &str) -> Result<Option<String>, kube::Error> {
        if name == "requests.storage" {
            let claims: Value = rest::list(&self.client, &PERSISTENT_VOLUME_CLAIMS, namespace, "").await?;
            let sizes = claims["items"].as_array().into_iter().flatten();
            let sizes = sizes.filter_map(|claim| claim["spec"]["resources"]["requests"]["storage"].as_str());
            return Ok(Some(usage::sum(sizes)));
        }
        let Some((plural, group)) = usage::counted(name) else { return Ok(None) };
        let version = match self.version_of(&group).await? {
            Some(version) => version,
            None => return Ok(Some("0".into())),
        };
        let resource = ResourceType {
            group: group.into(),
            version: version.into(),
            plural: plural.into(),
            namespaced: true,
        };
        // One item is enough: the list says how many there are besides.
        match rest::list::<Value>(&self.client, &resource, namespace, "limit=1").await {
            Ok(list) => {
                let first = list["items"].as_array().map_or(0, Vec::len) as u64;
                let others = list["metadata"]["remainingItemCount"].as_u64().unwrap_or(0);
                Ok(Some((first + others).to_string()))
            }
            Err(error) if rest::is_not_found(&error) => Ok(Some("0".into())),
            Err(error) => Err(error),
        }
    }

    async fn version_of(&self, group: &str) -> Result<Option<String>, kube::Error> {
        if group.is_empty() {
            return Ok(Some("v1".into()));
        }
        match rest::send::<Value>(&self.client, "GET", &format!("/apis/{group}"), "", &()).await {
            Ok(group) => Ok(group["preferredVersion"]["version"].as_str().map(str::to_owned)),
            Err(error) if rest::is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
