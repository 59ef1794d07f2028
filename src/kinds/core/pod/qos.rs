//! The quality-of-service class of a pod. upstream: pkg/apis/core/helper/qos/qos.go

use copepod_meta::Value;
use std::collections::BTreeSet;

use crate::core::resources::{Amounts, quantity};

/// The class that the stored status has, else the computed one. upstream: GetPodQOS
pub fn stored(pod: &Value) -> &str {
    match pod.str_at(&["status", "qosClass"]) {
        "" => compute(pod.get("spec")),
        class => class,
    }
}

/// upstream: ComputePodQOS
pub fn compute(spec: &Value) -> &'static str {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    let mut guaranteed = true;
    let of_pod = spec.get("resources");
    if of_pod.is_null() {
        for container in ["containers", "initContainers"].into_iter().flat_map(|l| spec.list_at(&[l])) {
            add(&mut requests, container.at(&["resources", "requests"]));
            let limited = add(&mut limits, container.at(&["resources", "limits"]));
            guaranteed &= limited.len() == 2;
        }
    } else {
        add(&mut requests, of_pod.get("requests"));
        let has_limits = !of_pod.map_at(&["limits"]).is_empty();
        let limited = add(&mut limits, of_pod.get("limits"));
        guaranteed &= !has_limits || limited.len() == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let equal =
        requests.iter().all(|(name, r)| limits.get(name) == Some(r)) && requests.len() == limits.len();
    if guaranteed && equal { "Guaranteed" } else { "Burstable" }
}

/// Adds what counts for the class, cpu and memory above zero; their names.
fn add<'a>(into: &mut Amounts, list: &'a Value) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (name, amount) in list.map_at(&[]).iter().filter(|(name, _)| matches!(*name, "cpu" | "memory")) {
        let amount = quantity(amount);
        if amount.sign() > 0 {
            let sum = into.get(name).map_or(amount.clone(), |have| have.add(&amount));
            into.insert(name.into(), sum);
            seen.insert(name);
        }
    }
    seen
}
