//! Amounts of resources: cpu in thousandths, everything else in units.

use compact_str::CompactString;
use copepod_meta::quantity::Quantity;

use super::wire::{Container, PodSpec, ResourceList};

/// Requests of a container that names none, for scoring. upstream: pkg/scheduler/util/pod_resources.go
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts of each resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Extended resources and huge pages, in no order.
    pub scalars: Vec<(CompactString, i64)>,
}

impl Resources {
    /// Reads a resource list; an amount that is no quantity counts as zero (the API admits none).
    pub fn parse(list: &ResourceList) -> Self {
        let mut out = Self::default();
        for (name, text) in list {
            let Ok(quantity) = Quantity::parse(text) else { continue };
            match name.as_str() {
                "cpu" => out.milli_cpu = quantity.milli_value(),
                "memory" => out.memory = quantity.value(),
                "ephemeral-storage" => out.ephemeral_storage = quantity.value(),
                "pods" => {}
                _ => out.scalars.push((name.as_str().into(), quantity.value())),
            }
        }
        out
    }

    /// The amount of an extended resource.
    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars.iter().find(|(known, _)| known == name).map_or(0, |(_, amount)| *amount)
    }

    /// Adds `sign` times `other`.
    pub fn add(&mut self, other: &Self, sign: i64) {
        self.milli_cpu += sign * other.milli_cpu;
        self.memory += sign * other.memory;
        self.ephemeral_storage += sign * other.ephemeral_storage;
        for (name, amount) in &other.scalars {
            *self.scalar_mut(name) += sign * amount;
        }
    }

    fn max(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.scalars {
            let own = self.scalar_mut(name);
            *own = (*own).max(*amount);
        }
    }

    fn scalar_mut(&mut self, name: &str) -> &mut i64 {
        let at = self.scalars.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.scalars.push((name.into(), 0));
            self.scalars.len() - 1
        });
        &mut self.scalars[at].1
    }
}

/// What a pod asks for: `(as written, with defaults for containers that ask for no cpu or memory)`.
///
/// upstream: component-helpers/resource/helpers.go PodRequests
pub fn pod_requests(spec: &PodSpec) -> (Resources, Resources) {
    let written = total(spec, Resources::default());
    let defaults = Resources { milli_cpu: DEFAULT_MILLI_CPU, memory: DEFAULT_MEMORY, ..Resources::default() };
    (written, total(spec, defaults))
}

fn total(spec: &PodSpec, missing: Resources) -> Resources {
    let request = |container: &Container| {
        let list = &container.resources.requests;
        let mut amounts = Resources::parse(list);
        if !list.contains_key("cpu") {
            amounts.milli_cpu = missing.milli_cpu;
        }
        if !list.contains_key("memory") {
            amounts.memory = missing.memory;
        }
        amounts
    };
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&request(container), 1);
    }
    // Sidecars run beside everything that starts after them; other init containers run one at a time.
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in &spec.init_containers {
        let mut amounts = request(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sum.add(&amounts, 1);
            sidecars.add(&amounts, 1);
            amounts = sidecars.clone();
        } else {
            amounts.add(&sidecars, 1);
        }
        peak.max(&amounts);
    }
    sum.max(&peak);
    if let Some(pod) = &spec.resources {
        let amounts = Resources::parse(&pod.requests);
        if pod.requests.contains_key("cpu") {
            sum.milli_cpu = amounts.milli_cpu;
        }
        if pod.requests.contains_key("memory") {
            sum.memory = amounts.memory;
        }
        for (name, amount) in &amounts.scalars {
            *sum.scalar_mut(name) = *amount;
        }
    }
    sum.add(&Resources::parse(&spec.overhead), 1);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_of_a_pod() {
        let c = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}});
        let sidecar = |cpu: &str| {
            let mut sidecar = c(cpu);
            sidecar["restartPolicy"] = json!("Always");
            sidecar
        };
        for (name, spec, cpu, cpu_with_defaults) in [
            ("sum", json!({"containers": [c("100m"), c("1")]}), 1100, 1100),
            ("none asked", json!({"containers": [{}, {}]}), 0, 200),
            ("init peak", json!({"containers": [c("100m")], "initContainers": [c("2"), c("1")]}), 2000, 2000),
            (
                "sidecar adds",
                json!({"containers": [c("100m")], "initContainers": [sidecar("50m")]}),
                150,
                150,
            ),
            (
                "init beside a sidecar",
                json!({"containers": [c("100m")], "initContainers": [sidecar("50m"), c("1")]}),
                1050,
                1050,
            ),
            ("overhead", json!({"containers": [c("100m")], "overhead": {"cpu": "5m"}}), 105, 105),
            (
                "of the whole pod",
                json!({"containers": [c("100m")], "resources": {"requests": {"cpu": "3"}}}),
                3000,
                3000,
            ),
        ] {
            let spec: PodSpec = serde_json::from_value(spec).expect("a pod spec");
            let (written, with_defaults) = pod_requests(&spec);
            assert_eq!((written.milli_cpu, with_defaults.milli_cpu), (cpu, cpu_with_defaults), "{name}");
        }
    }
}
