//! Resource lists: sums, maxima, comparisons; what a pod asks for.
//!
//! upstream: apiserver/pkg/quota/v1/resources.go, component-helpers/resource/helpers.go

use copepod_meta::quantity::Format;
use copepod_meta::{Map, Quantity, Value};
use std::collections::BTreeMap;

/// Amounts by resource name.
pub type ResourceList = BTreeMap<String, Quantity>;

/// From a tree; amounts that do not parse were refused by validation and count as nothing.
pub fn from_value(value: &Value) -> ResourceList {
    let entries = value.as_map().into_iter().flat_map(Map::iter);
    entries.filter_map(|(k, v)| Some((k.to_string(), Quantity::parse(v.as_str()?).ok()?))).collect()
}

/// To a tree.
pub fn to_value(list: &ResourceList) -> Value {
    Value::Map(list.iter().map(|(k, v)| (k.as_str(), Value::string(v.to_string()))).collect())
}

/// So many things.
pub fn count(n: i64) -> Quantity {
    Quantity::from_int(n, Format::DecimalSi)
}

/// Adds `other` to `list`.
pub fn add(list: &mut ResourceList, other: &ResourceList) {
    for (name, amount) in other {
        match list.get_mut(name) {
            Some(own) => *own = own.add(amount),
            None => {
                list.insert(name.clone(), amount.clone());
            }
        }
    }
}

fn max(list: &mut ResourceList, other: &ResourceList) {
    for (name, amount) in other {
        if list.get(name).is_none_or(|own| amount > own) {
            list.insert(name.clone(), amount.clone());
        }
    }
}

/// `a=1,b=2`
pub fn print(list: &ResourceList) -> String {
    list.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

/// What a pod asks for in all. upstream: resourcehelper.PodRequests of the spec
pub fn pod_requests(pod: &Value) -> ResourceList {
    total(pod, "requests")
}

/// What a pod may use in all.
pub fn pod_limits(pod: &Value) -> ResourceList {
    total(pod, "limits")
}

/// Containers add up; init containers run one after another beside the sidecars started before them; what the pod itself
/// says of cpu, memory and huge pages overrides the sum.
fn total(pod: &Value, which: &str) -> ResourceList {
    let spec = pod.get("spec");
    let mut sum = ResourceList::new();
    for container in spec.list_at(&["containers"]) {
        add(&mut sum, &from_value(container.at(&["resources", which])));
    }
    let (mut sidecars, mut init) = (ResourceList::new(), ResourceList::new());
    for container in spec.list_at(&["initContainers"]) {
        let mut own = from_value(container.at(&["resources", which]));
        if container.str_at(&["restartPolicy"]) == "Always" {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        max(&mut init, &own);
    }
    max(&mut sum, &init);
    for (name, amount) in from_value(spec.at(&["resources", which])) {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            sum.insert(name, amount);
        }
    }
    if which == "requests" || !sum.is_empty() {
        add(&mut sum, &from_value(spec.get("overhead")));
    }
    sum
}

/// Whether a name stands for an extended resource (`example.com/gpu`).
pub fn is_extended(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.")
}
