//! EndpointSlices for the Endpoints that somebody keeps by hand: readers need to look at slices only.
//!
//! Mirrored is what belongs to a service without a selector, unless a label forbids it. Slices of the controller of
//! services with a selector are never touched.
//!
//! upstream: pkg/controller/endpointslicemirroring

mod plan;
mod repack;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use copepod_client::Client;
use copepod_client::events::{EventType, Recorder};
use copepod_client::informer::{Change, Informer};
use copepod_client::object::{Key, MetaExt, reference, split};
use copepod_client::queue::{Backoff, Next, WorkQueue, run_workers};

use crate::common::expectations::Expectations;
use crate::common::slices::{self, Action};
use crate::context::{Context, Work};
use crate::kinds::{EndpointSlice, Endpoints, Service};
use plan::{is_mirrored, plan};

const NAME: &str = "endpointslice-mirroring-controller";
/// Who speaks in events.
const COMPONENT: &str = "endpoint-slice-mirroring-controller";
/// Value of the label that says who keeps a slice. upstream: ControllerName
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// A failing turn may be about a thousand addresses. upstream: defaultSyncBackOff, maxSyncBackOff
const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(100) };

struct Shell {
    client: Client,
    recorder: Recorder,
    services: Arc<Informer<Service>>,
    endpoints: Arc<Informer<Endpoints>>,
    slices: Arc<Informer<EndpointSlice>>,
    addresses_max: usize,
    expected: Expectations,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        recorder: context.recorder.with_component(COMPONENT),
        services: context.informer(),
        endpoints: context.informer(),
        slices: context.informer(),
        addresses_max: context.config.mirroring_max_endpoints_per_subset,
        expected: Expectations::default(),
    });
    let queue = WorkQueue::<Key>::new(BACKOFF);
    shell.register(&queue);
    let workers = context.config.mirroring_concurrent_service_endpoint_syncs;
    Box::pin(run_workers(NAME, queue, workers, context.shutdown.clone(), move |key| {
        let shell = shell.clone();
        async move { shell.sync(&key).await.map(|()| Next::Done) }
    }))
}

impl Shell {
    fn register(self: &Arc<Self>, queue: &WorkQueue<Key>) {
        let add = queue.clone();
        self.services.on_change(move |change| {
            let by_hand = |service: &Service| service.spec.selector.is_empty();
            let concerned = match &change {
                Change::Updated(before, after) => by_hand(before) != by_hand(after),
                other => by_hand(other.object()),
            };
            if concerned {
                add.add(change.object().metadata.key());
            }
        });
        let add = queue.clone();
        self.endpoints.on_change(move |change| {
            let concerned = match &change {
                Change::Updated(before, after) => is_mirrored(before) || is_mirrored(after),
                other => is_mirrored(other.object()),
            };
            if concerned {
                add.add(change.object().metadata.key());
            }
        });
        let (add, shell) = (queue.clone(), Arc::downgrade(self));
        self.slices.on_change(move |change| {
            if let Change::Updated(before, _) = &change {
                slices::service_of(&before.metadata, MANAGER).into_iter().for_each(|key| add.add(key));
            }
            let Some(key) = slices::service_of(&change.object().metadata, MANAGER) else { return };
            if let (Change::Added(_), Some(shell)) = (&change, shell.upgrade()) {
                shell.expected.creation_observed(&key);
            }
            add.add(key);
        });
    }

    async fn sync(&self, key: &Key) -> Result<(), kube::Error> {
        if !self.expected.satisfied(key) {
            // The slice comes, and the key with it.
            return Ok(());
        }
        let (namespace, _) = split(key);
        let known = slices::kept(&self.slices, key, MANAGER);
        let by_hand = self.services.get(key).is_some_and(|service| service.spec.selector.is_empty());
        let endpoints = self.endpoints.get(key).filter(|endpoints| by_hand && is_mirrored(endpoints));
        let actions = match endpoints {
            None => {
                self.expected.forget(key);
                known.iter().map(|slice| Action::Delete(slice.metadata.name().into())).collect()
            }
            Some(endpoints) => {
                let plan = plan(&endpoints, &known, self.addresses_max).map_err(kube::Error::SerdeError)?;
                for (reason, message) in plan.warnings {
                    self.recorder.event(&reference(&*endpoints), EventType::Warning, reason, message);
                }
                plan.actions
            }
        };
        slices::write(&self.client, namespace, actions, &self.expected, key).await
    }
}
