//! What can be set, with upstream's defaults.

use std::time::Duration;

/// Settings of all controllers.
#[derive(Debug, Clone)]
pub struct Config {
    /// Names as `--controllers` takes them: `*`, `name`, `-name`.
    pub controllers: Vec<String>,
    /// PEM certificates that pods get to know the API server by.
    pub root_ca: Option<String>,
    /// Workers of the deployment controller.
    pub concurrent_deployment_syncs: usize,
    /// Workers of the ReplicaSet controller.
    pub concurrent_replicaset_syncs: usize,
    /// Workers of the ReplicationController controller.
    pub concurrent_rc_syncs: usize,
    /// Workers of the namespace controller.
    pub concurrent_namespace_syncs: usize,
    /// Workers of the service account controller.
    pub concurrent_serviceaccount_syncs: usize,
    /// Workers of the garbage collector.
    pub concurrent_gc_syncs: usize,
    /// Workers of the endpoints controller.
    pub concurrent_endpoint_syncs: usize,
    /// Workers of the EndpointSlice controller.
    pub concurrent_service_endpoint_syncs: usize,
    /// Workers of the quota controller.
    pub concurrent_resource_quota_syncs: usize,
    /// Workers of the StatefulSet controller.
    pub concurrent_statefulset_syncs: usize,
    /// Workers of the DaemonSet controller.
    pub concurrent_daemonset_syncs: usize,
    /// Workers of the job controller.
    pub concurrent_job_syncs: usize,
    /// Workers of the cron job controller.
    pub concurrent_cron_job_syncs: usize,
    /// Workers of the controller that deletes finished jobs.
    pub concurrent_ttl_after_finished_syncs: usize,
    /// Ended pods that may stay.
    pub terminated_pod_gc_threshold: usize,
    /// Endpoints in one slice at most.
    pub max_endpoints_per_slice: usize,
    /// Workers of the controller that mirrors Endpoints.
    pub mirroring_concurrent_service_endpoint_syncs: usize,
    /// Addresses of one subset that are mirrored at most.
    pub mirroring_max_endpoints_per_subset: usize,
    /// How long a node is seen not ready before its pods have to go.
    pub node_monitor_period: Duration,
    /// Nodes a second whose pods have to go, in a zone that is well.
    pub node_eviction_rate: f64,
    /// The same in a large zone that is not.
    pub secondary_node_eviction_rate: f64,
    /// A zone of more nodes is large.
    pub large_cluster_size_threshold: usize,
    /// Share of a zone's nodes that are not ready from which on it is not well.
    pub unhealthy_zone_threshold: f64,
    /// How long a node may be silent.
    pub node_monitor_grace_period: Duration,
    /// How long a new node may be silent.
    pub node_startup_grace_period: Duration,
    /// How often quotas are counted anew without any event.
    pub resource_quota_sync_period: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            controllers: vec!["*".into()],
            root_ca: None,
            concurrent_deployment_syncs: 5,
            concurrent_replicaset_syncs: 5,
            concurrent_rc_syncs: 5,
            concurrent_namespace_syncs: 10,
            concurrent_serviceaccount_syncs: 5,
            concurrent_gc_syncs: 20,
            concurrent_endpoint_syncs: 5,
            concurrent_service_endpoint_syncs: 5,
            concurrent_resource_quota_syncs: 5,
            concurrent_statefulset_syncs: 5,
            concurrent_daemonset_syncs: 2,
            concurrent_job_syncs: 5,
            concurrent_cron_job_syncs: 5,
            concurrent_ttl_after_finished_syncs: 5,
            terminated_pod_gc_threshold: 12_500,
            max_endpoints_per_slice: 100,
            mirroring_concurrent_service_endpoint_syncs: 5,
            mirroring_max_endpoints_per_subset: 1000,
            node_monitor_period: Duration::from_secs(5),
            node_eviction_rate: 0.1,
            secondary_node_eviction_rate: 0.01,
            large_cluster_size_threshold: 50,
            unhealthy_zone_threshold: 0.55,
            node_monitor_grace_period: Duration::from_secs(50),
            node_startup_grace_period: Duration::from_secs(60),
            resource_quota_sync_period: Duration::from_secs(5 * 60),
        }
    }
}

impl Config {
    /// Whether a controller runs. A name counts more than `*`.
    pub fn is_enabled(&self, name: &str) -> bool {
        let all = self.controllers.iter().any(|item| item == "*");
        let named = self.controllers.iter().any(|item| item == name);
        let refused = self.controllers.iter().any(|item| item.strip_prefix('-') == Some(name));
        named || (all && !refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_chosen_as_by_upstreams_flag() {
        for (list, name, want) in
            [("*", "a", true), ("*,-a", "a", false), ("*,-a", "b", true), ("a", "a", true), ("a", "b", false)]
        {
            let config =
                Config { controllers: list.split(',').map(str::to_owned).collect(), ..Config::default() };
            assert_eq!(config.is_enabled(name), want, "{list} {name}");
        }
    }
}
