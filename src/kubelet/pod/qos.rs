//! Quality of service and the sums of a pod's resources. Pure.
//!
//! upstream: pkg/apis/core/v1/helper/qos/qos.go, component-helpers/resource/helpers.go, kubelet/qos/policy.go

use std::collections::BTreeMap;

use copepod_meta::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use super::model::{ephemeral_containers, init_containers, is_sidecar, spec};

/// A quantity of the API; zero if it is missing or broken (the API server lets no broken one through).
pub fn quantity(raw: Option<&RawQuantity>) -> Quantity {
    raw.and_then(|raw| Quantity::parse(&raw.0).ok())
        .unwrap_or_else(|| Quantity::from_int(0, copepod_meta::quantity::Format::DecimalSi))
}

/// A request or limit of a container.
fn amount(list: Option<&BTreeMap<String, RawQuantity>>, name: &str) -> Option<Quantity> {
    list?.get(name).map(|raw| quantity(Some(raw)))
}

/// What a container requests of a resource.
pub fn request(container: &Container, name: &str) -> Option<Quantity> {
    amount(container.resources.as_ref()?.requests.as_ref(), name)
}

/// What a container is limited to.
pub fn limit(container: &Container, name: &str) -> Option<Quantity> {
    amount(container.resources.as_ref()?.limits.as_ref(), name)
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(pod: &Pod) -> &'static str {
    if let Some(known) = pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        match known {
            "Guaranteed" => return "Guaranteed",
            "Burstable" => return "Burstable",
            "BestEffort" => return "BestEffort",
            _ => {}
        }
    }
    let pod_level = spec(pod).resources.as_ref().filter(|resources| {
        resources.requests.as_ref().is_some_and(|list| !list.is_empty())
            || resources.limits.as_ref().is_some_and(|list| !list.is_empty())
    });
    let all: Vec<Option<&ResourceRequirements>> = match pod_level {
        Some(resources) => vec![Some(resources)],
        None => spec(pod)
            .containers
            .iter()
            .chain(init_containers(pod))
            .map(|container| container.resources.as_ref())
            .collect(),
    };
    let mut any = false;
    let mut guaranteed = true;
    for resources in all {
        for name in ["cpu", "memory"] {
            let positive = |list: Option<&BTreeMap<String, RawQuantity>>| {
                amount(list, name).filter(|quantity| quantity.sign() > 0)
            };
            let request = positive(resources.and_then(|resources| resources.requests.as_ref()));
            let limit = positive(resources.and_then(|resources| resources.limits.as_ref()));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Which of requests and limits is summed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Requests.
    Requests,
    /// Limits.
    Limits,
}

/// What the pod as a whole requests of, or is limited to in, a resource, in units (`milli` for cpu).
///
/// Sidecars count beside the regular containers; a plain init container counts alone, with the sidecars started before it.
// upstream: component-helpers/resource/helpers.go AggregateContainerRequests
pub fn pod_total(pod: &Pod, name: &str, side: Side) -> Option<i64> {
    let in_units = |quantity: Quantity| if name == "cpu" { quantity.milli_value() } else { quantity.value() };
    let of = |container: &Container| {
        match side {
            Side::Requests => request(container, name).or_else(|| limit(container, name)),
            Side::Limits => limit(container, name),
        }
        .map(in_units)
    };
    let pod_level = spec(pod).resources.as_ref().and_then(|resources| {
        let list =
            if side == Side::Requests { resources.requests.as_ref() } else { resources.limits.as_ref() };
        amount(list, name).map(in_units)
    });
    let overhead = spec(pod).overhead.as_ref().and_then(|list| list.get(name));
    let overhead = in_units(quantity(overhead));
    if let Some(total) = pod_level {
        return Some(total + overhead);
    }
    let mut found = false;
    let mut regular = 0;
    for container in &spec(pod).containers {
        if let Some(value) = of(container) {
            found = true;
            regular += value;
        }
    }
    let (mut sidecars, mut peak) = (0, 0);
    for container in init_containers(pod) {
        let value = of(container);
        found |= value.is_some();
        if is_sidecar(container) {
            sidecars += value.unwrap_or(0);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + value.unwrap_or(0));
        }
    }
    found.then(|| (regular + sidecars).max(peak) + overhead)
}

/// Bytes of huge pages that the pod requests, by the size of a page.
// upstream: kubelet/cm/helpers_linux.go HugePageLimits
pub fn huge_page_requests(pod: &Pod) -> BTreeMap<i64, i64> {
    let containers = spec(pod).containers.iter().chain(init_containers(pod));
    let resources =
        containers.map(|container| container.resources.as_ref()).chain([spec(pod).resources.as_ref()]);
    let lists = resources.flatten().flat_map(|resources| [&resources.requests, &resources.limits]);
    let names: std::collections::BTreeSet<&String> =
        lists.flatten().flat_map(BTreeMap::keys).filter(|name| name.starts_with("hugepages-")).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let size = quantity(Some(&RawQuantity(name.strip_prefix("hugepages-")?.to_owned()))).value();
            Some((size, pod_total(pod, name, Side::Requests)?))
        })
        .collect()
}

/// Whether every container has a limit of this resource: only then the pod as a whole has one.
pub fn all_limited(pod: &Pod, name: &str) -> bool {
    let pod_level = spec(pod).resources.as_ref().and_then(|resources| resources.limits.as_ref());
    amount(pod_level, name).is_some_and(|limit| limit.sign() > 0)
        || spec(pod)
            .containers
            .iter()
            .chain(init_containers(pod))
            .all(|container| limit(container, name).is_some_and(|limit| limit.sign() > 0))
            && ephemeral_containers(pod).is_empty()
}

/// How readily the kernel kills the container when memory is short.
// upstream: kubelet/qos/policy.go GetContainerOOMScoreAdjust
pub fn oom_score_adjust(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;
    let critical = spec(pod).priority.is_some_and(|priority| priority >= SYSTEM_CRITICAL_PRIORITY);
    if critical || super::model::is_static(pod) || super::model::is_mirror(pod) {
        return -997;
    }
    match qos_class(pod) {
        "Guaranteed" => return -997,
        "BestEffort" => return 1000,
        _ => {}
    }
    let memory = request(container, "memory").or_else(|| limit(container, "memory")).map_or(0, |q| q.value());
    let adjust = 1000 - 1000_i64.saturating_mul(memory) / memory_capacity.max(1);
    // Below it would compete with guaranteed pods; at 1000 it would be best effort.
    if adjust < 1000 - 997 {
        return 1000 - 997;
    }
    if adjust == 1000 { 999 } else { adjust }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;

    /// `100m/1Gi:200m/1Gi` is requests:limits of cpu/memory; `-` for none; `i!` marks init, `s!` sidecar.
    fn pod(text: &str) -> Pod {
        let mut spec = PodSpec::default();
        for word in text.split_whitespace() {
            let (kind, word) = word.split_once('!').unwrap_or(("", word));
            let (requests, limits) = word.split_once(':').unwrap_or((word, "-"));
            let list = |text: &str| {
                let mut list = BTreeMap::new();
                if let Some((cpu, memory)) = text.split_once('/') {
                    for (name, value) in [("cpu", cpu), ("memory", memory)] {
                        if !value.is_empty() {
                            list.insert(name.to_owned(), RawQuantity(value.into()));
                        }
                    }
                }
                (!list.is_empty()).then_some(list)
            };
            let container = Container {
                resources: Some(ResourceRequirements {
                    requests: list(requests),
                    limits: list(limits),
                    ..ResourceRequirements::default()
                }),
                restart_policy: (kind == "s").then(|| "Always".into()),
                ..Container::default()
            };
            if kind.is_empty() {
                spec.containers.push(container);
            } else {
                spec.init_containers.get_or_insert_default().push(container);
            }
        }
        Pod { spec: Some(spec), ..Pod::default() }
    }

    #[test]
    fn classes_and_sums() {
        for (text, class, cpu, memory_limit) in [
            ("-", "BestEffort", None, None),
            ("100m/1Ki:-", "Burstable", Some(100), None),
            ("100m/1Ki:100m/1Ki", "Guaranteed", Some(100), Some(1024)),
            ("-:100m/1Ki", "Guaranteed", Some(100), Some(1024)),
            ("100m/1Ki:100m/1Ki -", "Burstable", Some(100), Some(1024)),
            ("100m/1Ki:200m/1Ki", "Burstable", Some(100), Some(1024)),
            ("100m/:- 200m/:- i!500m/:-", "Burstable", Some(500), None),
            ("100m/:- s!50m/:- i!60m/:-", "Burstable", Some(150), None),
        ] {
            let pod = pod(text);
            assert_eq!(qos_class(&pod), class, "{text}");
            assert_eq!(pod_total(&pod, "cpu", Side::Requests), cpu, "{text}");
            assert_eq!(pod_total(&pod, "memory", Side::Limits), memory_limit, "{text}");
        }
    }

    #[test]
    fn oom_scores() {
        let score = |text| {
            let pod = pod(text);
            oom_score_adjust(&pod, &spec(&pod).containers[0], 1 << 30)
        };
        assert_eq!(score("-"), 1000);
        assert_eq!(score("1/1Ki:1/1Ki"), -997);
        assert_eq!(score("1/512Mi"), 500);
        assert_eq!(score("1/"), 999);
        assert_eq!(score("1/2Gi"), 3);
    }
}
