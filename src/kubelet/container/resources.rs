//! Limits of containers in the kernel's terms. Pure.
//!
//! upstream: kubelet/kuberuntime/kuberuntime_container_linux.go calculateLinuxResources, kubelet/cm/helpers_linux.go

use std::collections::HashMap;

use copepod_cri::api;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pod::{
    model::spec,
    qos::{self, oom_score_adjust},
};

/// Least cpu shares the kernel takes.
pub const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
/// Period of the cpu quota, in microseconds.
pub const QUOTA_PERIOD_MICROS: i64 = 100_000;
const QUOTA_MIN_MICROS: i64 = 1000;

/// cpu shares of a request.
pub fn shares(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 {
        SHARES_MIN
    } else {
        (milli_cpu * SHARES_PER_CPU / 1000).clamp(SHARES_MIN, SHARES_MAX)
    }
}

/// cpu quota of a limit, in microseconds a period; 0 for none.
pub fn quota(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 { 0 } else { (milli_cpu * QUOTA_PERIOD_MICROS / 1000).max(QUOTA_MIN_MICROS) }
}

/// Shares as cgroup v2's cpu.weight.
// upstream: kubelet/cm/cgroup_manager_linux.go getCPUWeight
pub fn weight(shares: i64) -> i64 {
    let shares = shares.clamp(SHARES_MIN, SHARES_MAX);
    1 + ((shares - SHARES_MIN) * 9999) / (SHARES_MAX - SHARES_MIN)
}

/// What of the machine decides about limits.
#[derive(Debug, Clone, Copy)]
pub struct LimitFacts {
    /// Memory of the node in bytes.
    pub memory_capacity: i64,
    /// The unified hierarchy is in use.
    pub cgroup_v2: bool,
    /// Swap can be limited.
    pub swap_controller: bool,
}

/// The limits of one container.
pub fn container_resources(
    pod: &Pod,
    container: &Container,
    facts: LimitFacts,
) -> api::LinuxContainerResources {
    let pod_limit = |name: &str| {
        let limits = spec(pod).resources.as_ref()?.limits.as_ref()?;
        limits.get(name).map(|raw| qos::quantity(Some(raw)))
    };
    let limit = |name: &str| qos::limit(container, name).or_else(|| pod_limit(name));
    let cpu_limit = limit("cpu").map_or(0, |quantity| quantity.milli_value());
    let cpu_request = qos::request(container, "cpu").map(|quantity| quantity.milli_value());
    let memory_limit = limit("memory").map_or(0, |quantity| quantity.value());
    let mut out = api::LinuxContainerResources {
        cpu_shares: shares(cpu_request.unwrap_or(cpu_limit)),
        cpu_quota: quota(cpu_limit),
        cpu_period: QUOTA_PERIOD_MICROS,
        memory_limit_in_bytes: memory_limit,
        oom_score_adj: oom_score_adjust(pod, container, facts.memory_capacity),
        hugepage_limits: hugepages(container),
        ..api::LinuxContainerResources::default()
    };
    if facts.cgroup_v2 {
        out.unified = HashMap::from([("memory.oom.group".to_owned(), "1".to_owned())]);
    }
    if facts.swap_controller && memory_limit > 0 {
        // No swap: the limit of memory and swap together is that of memory.
        out.memory_swap_limit_in_bytes = memory_limit;
    }
    out
}

/// Limits of huge pages, for containers that ask for them.
fn hugepages(container: &Container) -> Vec<api::HugepageLimit> {
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    limits
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| {
            let size = qos::quantity(Some(&k8s_openapi::apimachinery::pkg::api::resource::Quantity(
                name.strip_prefix("hugepages-")?.to_owned(),
            )));
            let page_size = crate::cgroup::huge_page_name(size.value());
            let limit = u64::try_from(qos::quantity(Some(value)).value()).unwrap_or(0);
            Some(api::HugepageLimit { page_size, limit })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of upstream's helpers_linux_test.go.
    #[test]
    fn shares_and_quotas_are_upstreams() {
        for (milli, want_shares, want_quota) in [
            (0, 2, 0),
            (1, 2, 1000),
            (2, 2, 1000),
            (100, 102, 10_000),
            (1000, 1024, 100_000),
            (1500, 1536, 150_000),
        ] {
            assert_eq!((shares(milli), quota(milli)), (want_shares, want_quota), "{milli}");
        }
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }
}
