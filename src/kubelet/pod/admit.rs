//! Whether a new pod fits the node. The scheduler saw to it, but a pod may have come past it (a node name in its spec, a
//! manifest), or two schedulers may have been at work. Pure.
//!
//! Only what a node alone can judge: number of pods, cpu, memory. Labels and taints are the scheduler's.
//!
//! upstream: kubelet/lifecycle/predicate.go, component-helpers noderesources fit

use k8s_openapi::api::core::v1::Pod;

use super::qos::{Side, pod_total};

/// What the node has for pods: cpu in thousandths, memory in bytes, pods.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// cpu.
    pub cpu_milli: i64,
    /// Memory.
    pub memory: i64,
    /// Pods.
    pub pods: i64,
}

/// Why a pod is turned away: reason and message of its status.
pub type Rejection = (String, String);

/// Judges a pod beside the `others` that are on the node already.
pub fn admit<'a>(
    pod: &Pod,
    others: impl Iterator<Item = &'a Pod> + Clone,
    room: Room,
) -> Result<(), Rejection> {
    let count = i64::try_from(others.clone().count()).unwrap_or(i64::MAX);
    let sum =
        |name: &str| others.clone().filter_map(|other| pod_total(other, name, Side::Requests)).sum::<i64>();
    let checks = [
        ("pods", 1, count, room.pods),
        ("cpu", pod_total(pod, "cpu", Side::Requests).unwrap_or(0), sum("cpu"), room.cpu_milli),
        ("memory", pod_total(pod, "memory", Side::Requests).unwrap_or(0), sum("memory"), room.memory),
    ];
    for (name, requested, used, capacity) in checks {
        if requested > 0 && requested > capacity - used {
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return Err((format!("OutOf{name}"), message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(cpu: &str, memory: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}
        }))
        .expect("a pod")
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let room = Room { cpu_milli: 1000, memory: 1 << 20, pods: 2 };
        let verdict = |new: &Pod, others: &[Pod]| {
            admit(new, others.iter(), room).map_err(|(reason, text)| format!("{reason}: {text}"))
        };
        assert_eq!(verdict(&pod("1", "1Mi"), &[]), Ok(()));
        assert_eq!(
            verdict(&pod("600m", "0"), &[pod("500m", "0")]),
            Err("OutOfcpu: Node didn't have enough resource: cpu, requested: 600, used: 500, capacity: 1000"
                .into())
        );
        assert_eq!(
            verdict(&pod("0", "2Mi"), &[]),
            Err("OutOfmemory: Node didn't have enough resource: memory, requested: 2097152, used: 0, capacity: 1048576".into())
        );
        assert_eq!(
            verdict(&pod("0", "0"), &[pod("0", "0"), pod("0", "0")]),
            Err("OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2"
                .into())
        );
    }
}
