//! What pods and services use of a quota. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use copepod_meta::quantity::Quantity;

use crate::common::pods;
use crate::kinds::{Container, Pod, QuotaSpec, Service};

/// Kinds whose plain name in a quota counts their objects.
const PLAIN_COUNTS: [&str; 6] = [
    "configmaps",
    "secrets",
    "services",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
];

/// The kind (plural, group) whose objects a name of a quota counts.
pub(super) fn counted(name: &str) -> Option<(String, String)> {
    if PLAIN_COUNTS.contains(&name) {
        return Some((name.to_owned(), String::new()));
    }
    let kind = name.strip_prefix("count/")?;
    let (plural, group) = kind.split_once('.').unwrap_or((kind, ""));
    Some((plural.to_owned(), group.to_owned()))
}

/// Whether a quota counts objects of a kind one by one. Pods and services are watched for what else of them counts.
pub(super) fn counts(quota: &QuotaSpec, plural: &str, group: &str) -> bool {
    quota.hard.keys().any(|name| {
        let claims = || name.contains("requests.storage") && plural == "persistentvolumeclaims";
        counted(name).is_some_and(|(p, g)| p == plural && g == group) || claims()
    })
}

/// The sum of amounts.
pub(super) fn sum<'a>(amounts: impl Iterator<Item = &'a str>) -> String {
    total(amounts.filter_map(|text| Quantity::parse(text).ok()))
}

fn total(amounts: impl Iterator<Item = Quantity>) -> String {
    let sum = amounts.reduce(|sum, amount| sum.add(&amount));
    sum.map_or_else(|| "0".to_owned(), |sum| sum.to_string())
}

/// Usage of the names that pods answer for.
pub(super) fn of_pods(quota: &QuotaSpec, all: &[Arc<Pod>]) -> BTreeMap<String, String> {
    let counted: Vec<&Arc<Pod>> =
        all.iter().filter(|pod| !pods::is_finished(pod) && in_scope(quota, pod)).collect();
    let mut used = BTreeMap::new();
    for name in quota.hard.keys() {
        let amount = match name.as_str() {
            "pods" => counted.len().to_string(),
            "count/pods" => all.iter().filter(|pod| in_scope(quota, pod)).count().to_string(),
            other => match resource_of(other) {
                Some((resource, limits)) => {
                    total(counted.iter().filter_map(|pod| of_pod(pod, resource, limits)))
                }
                None => continue,
            },
        };
        used.insert(name.clone(), amount);
    }
    used
}

/// The resource that a name stands for, and whether limits count.
fn resource_of(name: &str) -> Option<(&str, bool)> {
    match name {
        "cpu" | "memory" | "ephemeral-storage" => Some((name, false)),
        "requests.storage" => None,
        _ => {
            let requests = name.strip_prefix("requests.").map(|resource| (resource, false));
            requests.or_else(|| name.strip_prefix("limits.").map(|resource| (resource, true)))
        }
    }
}

/// upstream: component-helpers/resource/helpers.go PodRequests, PodLimits
fn of_pod(pod: &Pod, resource: &str, limits: bool) -> Option<Quantity> {
    let of = |container: &Container| {
        let list = if limits { &container.resources.limits } else { &container.resources.requests };
        list.get(resource).and_then(|text| Quantity::parse(text).ok())
    };
    let plus = |a: Option<Quantity>, b: Option<Quantity>| match (a, b) {
        (Some(a), Some(b)) => Some(a.add(&b)),
        (a, b) => a.or(b),
    };
    let mut sum = pod.spec.containers.iter().map(of).fold(None, plus);
    let (mut sidecars, mut peak): (Option<Quantity>, Option<Quantity>) = (None, None);
    for container in &pod.spec.init_containers {
        let mut own = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sum = plus(sum, own.clone());
            sidecars = plus(sidecars, own);
            own = sidecars.clone();
        } else {
            own = plus(own, sidecars.clone());
        }
        peak = greater(peak, own);
    }
    let overhead = pod.spec.overhead.get(resource).and_then(|text| Quantity::parse(text).ok());
    plus(greater(sum, peak), overhead)
}

fn greater(a: Option<Quantity>, b: Option<Quantity>) -> Option<Quantity> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.nano() > a.nano() { b } else { a }),
        (a, b) => a.or(b),
    }
}

/// Whether a pod is one that the quota speaks of. upstream: evaluator/core/pods.go podMatchesScopeFunc
fn in_scope(quota: &QuotaSpec, pod: &Pod) -> bool {
    let expressions = quota.scope_selector.as_ref().and_then(|s| s["matchExpressions"].as_array());
    quota.scopes.iter().all(|scope| has_scope(scope, pod))
        && expressions.into_iter().flatten().all(|expression| {
            let scope = expression["scopeName"].as_str().unwrap_or_default();
            if scope != "PriorityClass" {
                return has_scope(scope, pod);
            }
            let class = pod.spec.priority_class_name.as_str();
            let listed = expression["values"].as_array().into_iter().flatten().any(|value| value == class);
            match expression["operator"].as_str().unwrap_or_default() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => !class.is_empty(),
                _ => class.is_empty(),
            }
        })
}

fn has_scope(scope: &str, pod: &Pod) -> bool {
    let limited = pod.spec.active_deadline_seconds.is_some();
    let effort = pod.spec.containers.iter().chain(&pod.spec.init_containers).any(|container| {
        let asked = container.resources.requests.keys().chain(container.resources.limits.keys());
        asked.into_iter().any(|name| name == "cpu" || name == "memory")
    });
    match scope {
        "Terminating" => limited,
        "NotTerminating" => !limited,
        "BestEffort" => !effort,
        "NotBestEffort" => effort,
        "PriorityClass" => !pod.spec.priority_class_name.is_empty(),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let Some(affinity) = &pod.spec.affinity else { return false };
    let names = |term: &serde_json::Value| {
        term["namespaces"].as_array().is_some_and(|list| !list.is_empty())
            || !term["namespaceSelector"].is_null()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|side| {
        let side = &affinity[*side];
        let required = side["requiredDuringSchedulingIgnoredDuringExecution"].as_array();
        let preferred = side["preferredDuringSchedulingIgnoredDuringExecution"].as_array();
        required.into_iter().flatten().any(names)
            || preferred.into_iter().flatten().any(|weighted| names(&weighted["podAffinityTerm"]))
    })
}

/// Usage of the names that services answer for.
pub(super) fn of_services(quota: &QuotaSpec, services: &[Arc<Service>]) -> BTreeMap<String, String> {
    let of_type = |kind: &str| services.iter().filter(|service| service.spec.kind == kind).count();
    let ports = |kind: &str| -> usize {
        services
            .iter()
            .filter(|service| service.spec.kind == kind)
            .map(|service| service.spec.ports.len())
            .sum()
    };
    let mut used = BTreeMap::new();
    for name in quota.hard.keys() {
        let count = match name.as_str() {
            "services" | "count/services" => services.len(),
            "services.loadbalancers" => of_type("LoadBalancer"),
            "services.nodeports" => ports("NodePort") + ports("LoadBalancer"),
            _ => continue,
        };
        used.insert(name.clone(), count.to_string());
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value, phase: &str) -> Arc<Pod> {
        Arc::new(serde_json::from_value(json!({"spec": spec, "status": {"phase": phase}})).expect("a pod"))
    }

    fn asking(cpu: &str, memory: &str) -> Value {
        json!({"containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": "2"}}}]})
    }

    #[test]
    fn pods_are_counted_and_their_requests_summed() {
        let mut limited = asking("1", "1Gi");
        limited["activeDeadlineSeconds"] = json!(5);
        let pods = [
            pod(asking("250m", "64Mi"), "Running"),
            pod(limited, "Pending"),
            pod(asking("4", "4Gi"), "Succeeded"),
            pod(json!({"containers": [{}]}), "Running"),
        ];
        for (name, quota, want) in [
            (
                "everything",
                json!({"hard": {"pods": "9", "count/pods": "9", "requests.cpu": "9", "memory": "9Gi",
                "limits.cpu": "9", "services": "9"}}),
                json!({"pods": "3", "count/pods": "4", "requests.cpu": "1250m", "memory": "1088Mi", "limits.cpu": "4"}),
            ),
            (
                "best effort only",
                json!({"hard": {"pods": "9"}, "scopes": ["BestEffort"]}),
                json!({"pods": "1"}),
            ),
            (
                "with a deadline",
                json!({"hard": {"pods": "9"}, "scopes": ["Terminating"]}),
                json!({"pods": "1"}),
            ),
            (
                "of no class",
                json!({"hard": {"pods": "9"}, "scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}),
                json!({"pods": "0"}),
            ),
        ] {
            let quota: QuotaSpec = serde_json::from_value(quota).expect("a quota");
            assert_eq!(json!(of_pods(&quota, &pods)), want, "{name}");
        }
    }

    #[test]
    fn names_of_quotas_stand_for_kinds() {
        for (name, want) in [
            ("secrets", Some(("secrets", ""))),
            ("count/deployments.apps", Some(("deployments", "apps"))),
            ("count/widgets.example.com", Some(("widgets", "example.com"))),
            ("count/secrets", Some(("secrets", ""))),
            ("requests.cpu", None),
        ] {
            let found = counted(name);
            assert_eq!(found.as_ref().map(|(a, b)| (a.as_str(), b.as_str())), want, "{name}");
        }
    }

    #[test]
    fn what_goes_is_given_back_to_who_counts_it() {
        for (hard, plural, group, want) in [
            ("configmaps", "configmaps", "", true),
            ("configmaps", "secrets", "", false),
            ("count/configmaps", "configmaps", "", true),
            ("count/deployments.apps", "deployments", "apps", true),
            ("count/deployments.apps", "deployments", "extensions", false),
            ("gold.storageclass.storage.k8s.io/requests.storage", "persistentvolumeclaims", "", true),
            ("requests.storage", "pods", "", false),
        ] {
            let quota: QuotaSpec =
                serde_json::from_value(serde_json::json!({"hard": {hard: "1"}})).expect("a quota");
            assert_eq!(counts(&quota, plural, group), want, "{hard} {plural}.{group}");
        }
    }
}
