//! Endpoints: the older form of EndpointSlices, one object for each service that has a selector.
//!
//! upstream: pkg/controller/endpoint/endpoints_controller.go

use std::collections::BTreeMap;
use std::sync::Arc;

use copepod_client::informer::Informer;
use copepod_client::object::{Key, MetaExt};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::{Client, rest};
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::common::resources::ENDPOINTS;
use crate::common::triggers::{LAST_CHANGE, Triggers};
use crate::common::{pods, services};
use crate::context::{Context, Work, enqueue_self};
use crate::kinds::{Endpoints, Pod, Service};

const NAME: &str = "endpoints-controller";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Value of that label. upstream: endpoints_controller.go ControllerName
const MANAGER: &str = "endpoint-controller";
/// Addresses in one object at most. upstream: maxCapacity
const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

struct Shell {
    client: Client,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    endpoints: Arc<Informer<Endpoints>>,
    triggers: Triggers,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        services: context.informer(),
        pods: context.informer(),
        endpoints: context.informer(),
        triggers: Triggers::default(),
    });
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&shell.services, &queue);
    enqueue_self(&shell.endpoints, &queue);
    services::enqueue_by_pods(&shell.services, &shell.pods, &queue);
    let workers = context.config.concurrent_endpoint_syncs;
    Box::pin(run_workers(NAME, queue, workers, context.shutdown.clone(), move |key| {
        let shell = shell.clone();
        async move { shell.sync(&key).await.map(|()| Next::Done) }
    }))
}

impl Shell {
    async fn sync(&self, key: &Key) -> Result<(), kube::Error> {
        let known = self.endpoints.get(key);
        let Some(service) = self.services.get(key).filter(|s| !s.metadata.deleting()) else {
            self.triggers.forget(key);
            return self.remove(key, known.as_deref()).await;
        };
        if service.spec.selector.is_empty() || service.spec.kind == "ExternalName" {
            return Ok(());
        }
        let with_terminating = service.spec.publish_not_ready_addresses;
        let pods = services::backends(&service, &self.pods, with_terminating);
        let trigger = self.triggers.of(key, &service, &pods);
        let Some(wanted) = plan(&service, &pods, known.as_deref(), trigger.as_deref()) else {
            return Ok(());
        };
        let (namespace, name) = (MetaExt::namespace(&service.metadata), service.metadata.name());
        let written: Result<IgnoredAny, _> = match &known {
            None => rest::create(&self.client, &ENDPOINTS, namespace, &wanted).await,
            Some(_) => rest::update(&self.client, &ENDPOINTS, namespace, name, "", &wanted).await,
        };
        match written {
            Err(error) if rest::is_namespace_terminating(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Endpoints go with their service; those that somebody else made stay.
    async fn remove(&self, key: &Key, known: Option<&Endpoints>) -> Result<(), kube::Error> {
        if known.is_none_or(|known| known.metadata.label(MANAGED_BY) != Some(MANAGER)) {
            return Ok(());
        }
        let (namespace, name) = copepod_client::object::split(key);
        match rest::delete(&self.client, &ENDPOINTS, namespace, name, &json!({})).await {
            Err(error) if rest::is_not_found(&error) => Ok(()),
            other => other,
        }
    }
}

/// The object that should be there, if another one is. `trigger` is when what it follows happened.
fn plan(
    service: &Service,
    backends: &[Arc<Pod>],
    known: Option<&Endpoints>,
    trigger: Option<&str>,
) -> Option<Value> {
    let (subsets, truncated) = subsets(service, backends);
    let mut labels: BTreeMap<String, String> = service.metadata.labels.clone().unwrap_or_default();
    if services::has_cluster_ip(service) {
        labels.remove(services::HEADLESS_LABEL);
    } else {
        labels.insert(services::HEADLESS_LABEL.into(), String::new());
    }
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let same_subsets = known.is_some_and(|known| {
        known.subsets.as_array().map_or(&[][..], Vec::as_slice)
            == subsets.as_array().map_or(&[][..], Vec::as_slice)
    });
    if same_subsets && known.and_then(|known| known.metadata.labels.as_ref()) == Some(&labels) {
        return None;
    }
    let mut annotations: Map<String, Value> = known
        .and_then(|known| known.metadata.annotations.as_ref())
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    annotations.remove(OVER_CAPACITY);
    annotations.remove(LAST_CHANGE);
    if let Some(trigger) = trigger {
        annotations.insert(LAST_CHANGE.into(), json!(trigger));
    }
    if truncated {
        annotations.insert(OVER_CAPACITY.into(), json!("truncated"));
    }
    let (namespace, name) = (MetaExt::namespace(&service.metadata), service.metadata.name());
    let mut wanted = json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": name, "namespace": namespace, "labels": labels}, "subsets": subsets});
    if !annotations.is_empty() {
        wanted["metadata"]["annotations"] = Value::Object(annotations);
    }
    if let Some(known) = known {
        wanted["metadata"]["resourceVersion"] = json!(known.metadata.resource_version);
    }
    Some(wanted)
}

/// Addresses that have the same ports together, and whether some were left out.
///
/// upstream: pkg/api/v1/endpoints/util.go RepackSubsets
fn subsets(service: &Service, backends: &[Arc<Pod>]) -> (Value, bool) {
    let family =
        if service.spec.ip_families.first().is_some_and(|family| family == "IPv6") { "IPv6" } else { "IPv4" };
    let mut by_ports: BTreeMap<String, (Value, Vec<Value>, Vec<Value>)> = BTreeMap::new();
    let mut count = 0;
    for pod in backends {
        let Some(ip) = services::addresses(pod, family).next() else { continue };
        let ports = ports(service, pod);
        let portless = service.spec.ports.is_empty() && !services::has_cluster_ip(service);
        if !portless && ports.as_array().is_none_or(Vec::is_empty) {
            continue;
        }
        count += 1;
        if count > ADDRESSES_MAX {
            break;
        }
        let entry = by_ports.entry(ports.to_string()).or_insert_with(|| (ports, Vec::new(), Vec::new()));
        let ready = service.spec.publish_not_ready_addresses || pods::is_ready(pod);
        let list = if ready { &mut entry.1 } else { &mut entry.2 };
        list.push(address(service, pod, ip));
    }
    let by_ip = |address: &Value| address["ip"].as_str().unwrap_or_default().to_owned();
    let subsets = by_ports.into_values().map(|(ports, mut ready, mut not_ready)| {
        ready.sort_by_key(by_ip);
        not_ready.sort_by_key(by_ip);
        let mut subset = Map::new();
        for (field, list) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            if !list.is_empty() {
                subset.insert(field.into(), Value::Array(list));
            }
        }
        if ports.as_array().is_some_and(|ports| !ports.is_empty()) {
            subset.insert("ports".into(), ports);
        }
        Value::Object(subset)
    });
    (Value::Array(subsets.collect()), count > ADDRESSES_MAX)
}

fn address(service: &Service, pod: &Pod, ip: &str) -> Value {
    let mut out = json!({"ip": ip, "targetRef": {"kind": "Pod", "namespace": MetaExt::namespace(&pod.metadata),
        "name": pod.metadata.name(), "uid": MetaExt::uid(&pod.metadata)}});
    if !pod.spec.node_name.is_empty() {
        out["nodeName"] = json!(pod.spec.node_name);
    }
    if let Some(hostname) = services::hostname(service, pod) {
        out["hostname"] = json!(hostname);
    }
    out
}

fn ports(service: &Service, pod: &Pod) -> Value {
    let port = |port: &crate::kinds::ServicePort| {
        let mut out = json!({"port": services::target_port(pod, port)?, "protocol": port.protocol});
        if !port.name.is_empty() {
            out["name"] = json!(port.name);
        }
        if let Some(protocol) = &port.app_protocol {
            out["appProtocol"] = json!(protocol);
        }
        Some(out)
    };
    Value::Array(service.spec.ports.iter().filter_map(port).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_and_other_addresses_stand_in_one_subset() {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "x"},
            "spec": {"selector": {"app": "x"}, "clusterIP": "10.0.0.1",
                "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]}}))
        .expect("a service");
        let pod = |name: &str, ip: &str, ready: &str| -> Arc<Pod> {
            let value = json!({"metadata": {"name": name, "uid": name, "namespace": "x"}, "status": {"podIP": ip,
                "conditions": [{"type": "Ready", "status": ready}]}});
            Arc::new(serde_json::from_value(value).expect("a pod"))
        };
        let pods =
            [pod("b", "10.1.0.2", "True"), pod("a", "10.1.0.1", "True"), pod("c", "10.1.0.3", "False")];
        let wanted = plan(&service, &pods, None, Some("2026-01-01T00:00:00Z")).expect("something to write");
        let address = |name: &str, ip: &str| {
            json!({"ip": ip, "targetRef": {"kind": "Pod", "namespace": "x",
            "name": name, "uid": name}})
        };
        assert_eq!(
            wanted["subsets"],
            json!([{
            "addresses": [address("a", "10.1.0.1"), address("b", "10.1.0.2")],
            "notReadyAddresses": [address("c", "10.1.0.3")],
            "ports": [{"port": 8080, "protocol": "TCP"}]}])
        );
        let known: Endpoints = serde_json::from_value(wanted).expect("an object");
        assert_eq!(plan(&service, &pods, Some(&known), None), None, "settled");
        assert_eq!(
            known.metadata.annotations.as_ref().map(|a| a[LAST_CHANGE].as_str()),
            Some("2026-01-01T00:00:00Z")
        );
        let fewer = plan(&service, &pods[..1], Some(&known), None).expect("something to write");
        assert_eq!(fewer["metadata"]["annotations"], Value::Null, "an old time is taken away");
    }
}
