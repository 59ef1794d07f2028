//! Limits of a cgroup and the files that hold them, in both kinds of hierarchy. Pure.
//!
//! upstream: kubelet/cm/helpers_linux.go ResourceConfigForPod, cgroup_manager_linux.go toResources; the files are the
//! kernel's (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1).

use k8s_openapi::api::core::v1::Pod;

use crate::{
    container::resources::{QUOTA_PERIOD_MICROS, SHARES_MIN, quota, shares, weight},
    pod::qos::{Side, all_limited, huge_page_requests, pod_total, qos_class},
};

/// What stands for no limit of huge pages.
pub const HUGE_PAGES_UNBOUNDED: i64 = 1 << 62;

/// Limits of one cgroup. What is `None` is left as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Weight among its siblings, in v1's terms.
    pub cpu_shares: Option<i64>,
    /// Microseconds of cpu in each period.
    pub cpu_quota: Option<i64>,
    /// Most memory.
    pub memory_bytes: Option<i64>,
    /// Most processes and threads.
    pub pids: Option<i64>,
    /// Most bytes in huge pages, by the name of their size.
    pub huge_pages: Vec<(String, i64)>,
}

impl Limits {
    /// Only a weight.
    pub fn of_shares(cpu_shares: i64) -> Self {
        Limits { cpu_shares: Some(cpu_shares), ..Limits::default() }
    }

    /// A pod's. Sizes of huge pages that it does not ask for are forbidden to it.
    // upstream: kubelet/cm/helpers_linux.go ResourceConfigForPod, cgroup_manager_linux.go maybeSetHugetlb
    pub fn of_pod(pod: &Pod, huge_page_sizes: &[String]) -> Self {
        let requests = pod_total(pod, "cpu", Side::Requests).unwrap_or(0);
        let limited =
            |name: &str| all_limited(pod, name).then(|| pod_total(pod, name, Side::Limits)).flatten();
        let asked = huge_page_requests(pod);
        let huge_pages = huge_page_sizes.iter().map(|size| {
            let bytes =
                asked.iter().find(|(page, _)| huge_page_name(**page) == *size).map_or(0, |(_, bytes)| *bytes);
            (size.clone(), bytes)
        });
        Limits {
            cpu_shares: Some(if qos_class(pod) == "BestEffort" { SHARES_MIN } else { shares(requests) }),
            cpu_quota: limited("cpu").map(quota),
            memory_bytes: limited("memory"),
            pids: None,
            huge_pages: huge_pages.collect(),
        }
    }

    /// Controller, file and content, in the order in which they are written.
    pub fn files(&self, v2: bool) -> Vec<(&'static str, String, String)> {
        let mut out: Vec<(&'static str, String, String)> = Vec::new();
        let mut add = |controller, file: &str, value: String| out.push((controller, file.to_owned(), value));
        if let Some(shares) = self.cpu_shares {
            match v2 {
                true => add("cpu", "cpu.weight", weight(shares).to_string()),
                false => add("cpu", "cpu.shares", shares.to_string()),
            }
        }
        if let Some(quota) = self.cpu_quota.filter(|quota| *quota > 0) {
            if v2 {
                add("cpu", "cpu.max", format!("{quota} {QUOTA_PERIOD_MICROS}"));
            } else {
                add("cpu", "cpu.cfs_period_us", QUOTA_PERIOD_MICROS.to_string());
                add("cpu", "cpu.cfs_quota_us", quota.to_string());
            }
        }
        if let Some(bytes) = self.memory_bytes.filter(|bytes| *bytes > 0) {
            add("memory", if v2 { "memory.max" } else { "memory.limit_in_bytes" }, bytes.to_string());
        }
        if let Some(pids) = self.pids.filter(|pids| *pids > 0) {
            add("pids", "pids.max", pids.to_string());
        }
        for (size, bytes) in &self.huge_pages {
            // `rsvd` counts pages when they are reserved, so that a program fails at once and is not killed later.
            let ends = if v2 { ["max", "rsvd.max"] } else { ["limit_in_bytes", "rsvd.limit_in_bytes"] };
            for end in ends {
                add("hugetlb", &format!("hugetlb.{size}.{end}"), bytes.to_string());
            }
        }
        out
    }
}

/// The name of a size of huge pages in the kernel's file names: `2MB`, `1GB`.
// upstream: pkg/apis/core/v1/helper/helpers.go HugePageUnitSizeFromByteSize
pub fn huge_page_name(bytes: i64) -> String {
    const UNITS: &[&str] = &["B", "KB", "MB", "GB", "TB", "PB"];
    let (mut size, mut unit) = (bytes, 0);
    while size > 0 && size % 1024 == 0 && unit + 1 < UNITS.len() {
        size /= 1024;
        unit += 1;
    }
    format!("{size}{}", UNITS[unit])
}
