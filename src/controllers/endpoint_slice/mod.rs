//! EndpointSlices: the addresses behind each service that has a selector.
//!
//! upstream: pkg/controller/endpointslice, k8s.io/endpointslice/reconciler.go

mod plan;

use std::sync::Arc;

use copepod_client::events::{EventType, Recorder};
use copepod_client::informer::{BY_NAMESPACE, Informer};
use copepod_client::object::{Key, MetaExt, controller_reference, join, reference};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::{Client, rest};
use serde::de::IgnoredAny;
use serde_json::json;

use crate::common::resources::ENDPOINT_SLICES;
use crate::common::triggers::Triggers;
use crate::common::{services, writes};
use crate::context::{Context, Work, enqueue_self};
use crate::kinds::{EndpointSlice, Node, Pod, Service};
use plan::Action;

const NAME: &str = "endpointslice-controller";
/// Who speaks in events.
const COMPONENT: &str = "endpoint-slice-controller";
/// Value of the label that says who keeps a slice.
const MANAGER: &str = "endpointslice-controller.k8s.io";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

struct Shell {
    client: Client,
    recorder: Recorder,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    slices: Arc<Informer<EndpointSlice>>,
    endpoints_max: usize,
    triggers: Triggers,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        recorder: context.recorder.with_component(COMPONENT),
        services: context.informer(),
        pods: context.informer(),
        nodes: context.informer(),
        slices: context.informer(),
        endpoints_max: context.config.max_endpoints_per_slice,
        triggers: Triggers::default(),
    });
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&shell.services, &queue);
    services::enqueue_by_pods(&shell.services, &shell.pods, &queue);
    let add = queue.clone();
    shell.slices.on_change(move |change| {
        let metadata = &change.object().metadata;
        if let Some(service) =
            metadata.label(SERVICE_NAME).filter(|_| metadata.label(MANAGED_BY) == Some(MANAGER))
        {
            add.add(join(MetaExt::namespace(metadata), service));
        }
    });
    let workers = context.config.concurrent_service_endpoint_syncs;
    Box::pin(run_workers(NAME, queue, workers, context.shutdown.clone(), move |key| {
        let shell = shell.clone();
        async move { shell.sync(&key).await }
    }))
}

impl Shell {
    async fn sync(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(service) = self.services.get(key).filter(|s| !s.metadata.deleting()) else {
            self.triggers.forget(key);
            return Ok(Next::Done);
        };
        if service.spec.kind == "ExternalName" || service.spec.selector.is_empty() {
            return Ok(Next::Done);
        }
        let mine = |slice: &Arc<EndpointSlice>| {
            slice.metadata.label(SERVICE_NAME) == Some(service.metadata.name())
                && slice.metadata.label(MANAGED_BY) == Some(MANAGER)
                && !slice.metadata.deleting()
        };
        let mut slices = self.slices.by_index(BY_NAMESPACE, MetaExt::namespace(&service.metadata));
        slices.retain(mine);
        let pods = services::backends(&service, &self.pods, true);
        let zone = |node: &str| {
            let node = self.nodes.get(node)?;
            node.metadata.label("topology.kubernetes.io/zone").map(str::to_owned)
        };
        let trigger = self.triggers.of(key, &service, &pods);
        let stamp = trigger.as_deref();
        for action in plan::plan(&service, &pods, &slices, self.endpoints_max, &zone, stamp) {
            if let Err(error) = self.act(&service, action).await {
                if rest::is_namespace_terminating(&error) {
                    return Ok(Next::Done);
                }
                let message =
                    format!("Error updating Endpoint Slices for Service {key}: {}", rest::message(&error));
                let about = reference(&*service);
                self.recorder.event(&about, EventType::Warning, "FailedToUpdateEndpointSlices", message);
                return Err(error);
            }
        }
        Ok(Next::Done)
    }

    async fn act(&self, service: &Service, action: Action) -> Result<(), kube::Error> {
        let namespace = MetaExt::namespace(&service.metadata);
        match action {
            Action::Create(mut slice) => {
                slice["metadata"]["ownerReferences"] = json!([controller_reference(service)]);
                slice["metadata"]["namespace"] = json!(namespace);
                rest::create::<IgnoredAny>(&self.client, &ENDPOINT_SLICES, namespace, &slice).await.map(drop)
            }
            Action::Update(slice) => {
                let name = slice["metadata"]["name"].as_str().unwrap_or_default();
                rest::update::<IgnoredAny>(&self.client, &ENDPOINT_SLICES, namespace, name, "", &slice)
                    .await
                    .map(drop)
            }
            Action::Delete(name) => {
                let gone = rest::delete(&self.client, &ENDPOINT_SLICES, namespace, &name, &json!({})).await;
                writes::unless_gone(gone)
            }
        }
    }
}
