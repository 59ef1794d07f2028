//! EndpointSlices: the addresses behind each service that has a selector.
//!
//! upstream: pkg/controller/endpointslice, k8s.io/endpointslice/reconciler.go

mod plan;
mod topology;

use std::sync::Arc;

use copepod_client::events::{EventType, Recorder};
use copepod_client::informer::{Change, Informer};
use copepod_client::object::{Key, MetaExt, reference};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::{Client, rest};
use parking_lot::Mutex;

use crate::common::expectations::Expectations;
use crate::common::triggers::Triggers;
use crate::common::{services, slices};
use crate::context::{Context, Work, enqueue_self};
use crate::kinds::{EndpointSlice, Node, Pod, Service};
use plan::{Plan, World};
use topology::Topology;

const NAME: &str = "endpointslice-controller";
/// Who speaks in events.
const COMPONENT: &str = "endpoint-slice-controller";
/// Value of the label that says who keeps a slice.
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// What the queue calls the nodes; no service has such a key.
const NODES: &str = "";

struct Shell {
    client: Client,
    recorder: Recorder,
    queue: WorkQueue<Key>,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    slices: Arc<Informer<EndpointSlice>>,
    endpoints_max: usize,
    triggers: Triggers,
    topology: Mutex<Topology>,
    expected: Expectations,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let queue = WorkQueue::<Key>::default();
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        recorder: context.recorder.with_component(COMPONENT),
        queue: queue.clone(),
        services: context.informer(),
        pods: context.informer(),
        nodes: context.informer(),
        slices: context.informer(),
        endpoints_max: context.config.max_endpoints_per_slice,
        triggers: Triggers::default(),
        topology: Mutex::default(),
        expected: Expectations::default(),
    });
    shell.register();
    let workers = context.config.concurrent_service_endpoint_syncs;
    let shutdown = context.shutdown.clone();
    Box::pin(async move {
        // Before any service: what is thought of the nodes decides about its hints.
        shell.look_at_nodes();
        let work = move |key: Key| {
            let shell = shell.clone();
            async move { shell.sync(&key).await.map(|()| Next::Done) }
        };
        run_workers(NAME, queue, workers, shutdown, work).await;
    })
}

impl Shell {
    fn register(self: &Arc<Self>) {
        enqueue_self(&self.services, &self.queue);
        services::enqueue_by_pods(&self.services, &self.pods, &self.queue);
        let (add, shell) = (self.queue.clone(), Arc::downgrade(self));
        self.slices.on_change(move |change| {
            let Some(key) = slices::service_of(&change.object().metadata, MANAGER) else { return };
            if let (Change::Added(_), Some(shell)) = (&change, shell.upgrade()) {
                shell.expected.creation_observed(&key);
            }
            add.add(key);
        });
        let add = self.queue.clone();
        self.nodes.on_change(move |change| {
            if !matches!(&change, Change::Updated(before, after) if topology::looks_alike(before, after)) {
                add.add(NODES.into());
            }
        });
    }

    /// Nodes have come or gone: services whose hints would send too much to some zone get new ones.
    fn look_at_nodes(&self) {
        let ratios = topology::ratios(&self.nodes.list());
        let overloaded = self.topology.lock().set_ratios(ratios);
        overloaded.into_iter().for_each(|key| self.queue.add(key));
    }

    async fn sync(&self, key: &Key) -> Result<(), kube::Error> {
        if &**key == NODES {
            self.look_at_nodes();
            return Ok(());
        }
        let Some(service) = self.services.get(key).filter(|s| !s.metadata.deleting()) else {
            self.triggers.forget(key);
            self.expected.forget(key);
            self.topology.lock().forget(key);
            return Ok(());
        };
        if service.spec.kind == "ExternalName" || service.spec.selector.is_empty() {
            return Ok(());
        }
        if !self.expected.satisfied(key) {
            // The slice comes, and the key with it.
            return Ok(());
        }
        let namespace = MetaExt::namespace(&service.metadata);
        let plan = self.plan(key, &service);
        let about = reference(&*service);
        let notes = self.topology.lock().update(key, plan.hints);
        for note in notes {
            self.recorder.event(&about, note.kind, note.reason, note.message);
        }
        let written = slices::write(&self.client, namespace, plan.actions, &self.expected, key).await;
        if let Err(error) = &written {
            let message =
                format!("Error updating Endpoint Slices for Service {key}: {}", rest::message(error));
            self.recorder.event(&about, EventType::Warning, "FailedToUpdateEndpointSlices", message);
        }
        written
    }

    fn plan(&self, key: &Key, service: &Service) -> Plan {
        let slices = slices::kept(&self.slices, key, MANAGER);
        let pods = services::backends(service, &self.pods, true);
        let zone_of = |node: &str| {
            let node = self.nodes.get(node)?;
            node.metadata.label(topology::ZONE).map(str::to_owned)
        };
        let trigger = self.triggers.of(key, service, &pods);
        let ratios = self.topology.lock().ratios();
        let world = World {
            endpoints_max: self.endpoints_max,
            zone_of: &zone_of,
            trigger: trigger.as_deref(),
            ratios: ratios.as_deref(),
        };
        plan::plan(service, &pods, &slices, &world)
    }
}
