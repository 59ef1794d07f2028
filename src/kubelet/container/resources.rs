//! Limits of containers in the kernel's terms. Pure.
//!
//! upstream: kubelet/kuberuntime/kuberuntime_container_linux.go calculateLinuxResources, kubelet/cm/helpers_linux.go

use copepod_cri::api;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::{
    cgroup::huge_page_name,
    pod::{
        model::spec,
        qos::{self, oom_score_adjust},
    },
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
pub struct LimitFacts<'a> {
    /// Memory of the node in bytes.
    pub memory_capacity: i64,
    /// The unified hierarchy is in use.
    pub cgroup_v2: bool,
    /// Swap can be limited.
    pub swap_controller: bool,
    /// Sizes of huge pages that the machine has, as limit files are named.
    pub huge_page_sizes: &'a [String],
}

/// The limits of one container.
pub fn container_resources(
    pod: &Pod,
    container: &Container,
    facts: LimitFacts<'_>,
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
        hugepage_limits: hugepages(pod, container, facts.huge_page_sizes),
        ..api::LinuxContainerResources::default()
    };
    if facts.cgroup_v2 {
        // When the limit of memory is reached, all processes of the container end, not any one of them.
        out.unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    match (facts.swap_controller, facts.cgroup_v2) {
        // Containers do not swap. The new hierarchy counts swap alone, the old one memory and swap together.
        (true, true) => _ = out.unified.insert("memory.swap.max".to_owned(), "0".to_owned()),
        (true, false) => out.memory_swap_limit_in_bytes = memory_limit,
        (false, _) => {}
    }
    out
}

/// Limits of huge pages of each size that the machine has: the container's own, or else the pod's. What neither asks for is
/// forbidden.
// upstream: kubelet/kuberuntime/kuberuntime_container_linux.go GetHugepageLimitsFromResources
fn hugepages(pod: &Pod, container: &Container, sizes: &[String]) -> Vec<api::HugepageLimit> {
    let lists = [container.resources.as_ref(), spec(pod).resources.as_ref()];
    let limits = lists.into_iter().flatten().flat_map(|resources| resources.limits.iter().flatten());
    let asked: Vec<(String, u64)> = limits
        .filter_map(|(name, value)| {
            let size = qos::quantity(Some(&Quantity(name.strip_prefix("hugepages-")?.to_owned())));
            let limit = u64::try_from(qos::quantity(Some(value)).value()).unwrap_or(0);
            Some((huge_page_name(size.value()), limit))
        })
        .collect();
    let limit = |size: &String| asked.iter().find(|(page, _)| page == size).map_or(0, |(_, limit)| *limit);
    sizes.iter().map(|size| api::HugepageLimit { page_size: size.clone(), limit: limit(size) }).collect()
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

    /// What is asked of the runtime, on either kind of hierarchy, with and without a controller of swap.
    #[test]
    fn containers_do_not_swap_and_have_only_the_huge_pages_they_ask_for() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "resources": {"limits": {"hugepages-1Gi": "1Gi", "hugepages-2Mi": "8Mi"}},
            "containers": [{"name": "c", "resources": {"limits": {"memory": "16Mi", "hugepages-2Mi": "4Mi"}}}],
        }}))
        .expect("a pod");
        let sizes = ["1GB".to_owned(), "2MB".to_owned(), "64KB".to_owned()];
        for (cgroup_v2, swap_controller, want_unified, want_swap) in [
            (true, true, "memory.oom.group=1 memory.swap.max=0", 0),
            (true, false, "memory.oom.group=1", 0),
            (false, true, "", 16 << 20),
            (false, false, "", 0),
        ] {
            let facts =
                LimitFacts { memory_capacity: 1 << 30, cgroup_v2, swap_controller, huge_page_sizes: &sizes };
            let got = container_resources(&pod, &spec(&pod).containers[0], facts);
            let mut unified: Vec<_> =
                got.unified.iter().map(|(file, value)| format!("{file}={value}")).collect();
            unified.sort();
            assert_eq!(unified.join(" "), want_unified);
            assert_eq!(got.memory_swap_limit_in_bytes, want_swap);
            let pages: Vec<_> =
                got.hugepage_limits.iter().map(|page| format!("{}={}", page.page_size, page.limit)).collect();
            assert_eq!(pages.join(" "), "1GB=1073741824 2MB=4194304 64KB=0");
        }
    }
}
