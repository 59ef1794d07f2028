//! Services and the pods behind them, for EndpointSlices and Endpoints.

use std::sync::Arc;

use copepod_client::informer::{BY_NAMESPACE, Change, Informer};
use copepod_client::object::{Key, MetaExt};
use copepod_client::queue::WorkQueue;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pods;
use crate::kinds::{Pod, Service, ServicePort};

/// The key of the label that marks endpoints of a service without an address of its own.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Whether a service has an address of its own. upstream: apis/core/v1/helper IsServiceIPSet
pub fn has_cluster_ip(service: &Service) -> bool {
    !service.spec.cluster_ip.is_empty() && service.spec.cluster_ip != "None"
}

/// Whether a pod's labels are those that a service looks for. No selector selects nothing.
pub fn selects(service: &Service, pod: &Pod) -> bool {
    !service.spec.selector.is_empty()
        && service.spec.selector.iter().all(|(key, value)| pod.metadata.label(key) == Some(value))
}

/// Pods behind a service that have an address, ordered by name.
pub fn backends(service: &Service, pods: &Informer<Pod>, with_terminating: bool) -> Vec<Arc<Pod>> {
    let mut found = pods.by_index(BY_NAMESPACE, MetaExt::namespace(&service.metadata));
    found.retain(|pod| {
        selects(service, pod)
            && !pods::is_finished(pod)
            && !pod.status.pod_ip.is_empty()
            && (with_terminating || !pod.metadata.deleting())
    });
    found
}

/// The number that a port of a service has on a pod. upstream: endpointslice/utils.go FindPort
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let sidecars =
                pod.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let protocol = |text: &str| if text.is_empty() { "TCP".to_owned() } else { text.to_owned() };
            let mut ports = pod.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
            let found = ports.find(|p| p.name == *name && protocol(&p.protocol) == protocol(&port.protocol));
            found.map(|p| p.container_port)
        }
    }
}

/// The host name that a pod is found by under the service's name.
pub fn hostname<'a>(service: &Service, pod: &'a Pod) -> Option<&'a str> {
    let named = !pod.spec.hostname.is_empty() && pod.spec.subdomain == service.metadata.name();
    named.then_some(pod.spec.hostname.as_str())
}

/// The addresses of a pod of one family: `IPv4` or `IPv6`.
pub fn addresses<'a>(pod: &'a Pod, family: &'a str) -> impl Iterator<Item = &'a str> {
    let all = pod.status.pod_ips.iter().map(|address| address.ip.as_str());
    let only = pod.status.pod_ips.is_empty().then_some(pod.status.pod_ip.as_str());
    all.chain(only).filter(move |ip| ip.contains(':') == (family == "IPv6"))
}

/// Enqueues the services that a pod is, or was, behind.
pub fn enqueue_by_pods(services: &Arc<Informer<Service>>, pods: &Informer<Pod>, queue: &WorkQueue<Key>) {
    let (services, queue) = (services.clone(), queue.clone());
    pods.on_change(move |change| {
        if let Change::Updated(before, after) = &change
            && before.status == after.status
            && before.metadata.labels == after.metadata.labels
            && before.metadata.deletion_timestamp == after.metadata.deletion_timestamp
            && before.spec.node_name == after.spec.node_name
        {
            return;
        }
        let namespace = MetaExt::namespace(&change.object().metadata).to_owned();
        for service in services.by_index(BY_NAMESPACE, &namespace) {
            let concerned = match &change {
                Change::Updated(before, after) => selects(&service, before) || selects(&service, after),
                other => selects(&service, other.object()),
            };
            if concerned {
                queue.add(service.metadata.key());
            }
        }
    });
}
