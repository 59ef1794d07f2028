//! The agent's counters, with upstream's names where upstream has them.

use std::sync::Arc;

use copepod_serve::metrics::{Counter, Family, Histogram, Registry};

/// Seconds: from a fast sandbox to a pod that waits for its image.
const SECONDS: &[f64] = &[0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The counters.
pub struct Metrics {
    /// All of them, for the page.
    pub registry: Registry,
    /// Full looks at the runtime: after a gap in events and every five minutes.
    pub relists: Arc<Counter>,
    /// Probes by type and result.
    pub probes: Family<Counter>,
    /// Containers started, by kind.
    pub started_containers: Family<Counter>,
    /// Sandboxes made.
    pub started_pods: Arc<Counter>,
    /// Status patches sent.
    pub status_patches: Arc<Counter>,
    /// From a pod's creation to all its containers running.
    pub pod_start: Arc<Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        registry.process();
        Metrics {
            relists: registry
                .counters("kubelet_pleg_relist_total", "Full lists of the runtime's containers.", &[])
                .with(&[]),
            probes: registry.counters(
                "prober_probe_total",
                "Cumulative number of a liveness, readiness or startup probe for a container by result.",
                &["probe_type", "result", "container", "pod", "namespace"],
            ),
            started_containers: registry.counters(
                "kubelet_started_containers_total",
                "Cumulative number of containers started",
                &["container_type"],
            ),
            started_pods: registry
                .counters("kubelet_started_pods_total", "Cumulative number of pods started", &[])
                .with(&[]),
            status_patches: registry
                .counters("kubelet_pod_status_patches_total", "Status patches sent to the API server.", &[])
                .with(&[]),
            pod_start: registry
                .histograms(
                    "kubelet_pod_start_duration_seconds",
                    "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
                    &[],
                    SECONDS,
                )
                .with(&[]),
            registry,
        }
    }
}
