//! The resources that controllers write.

use copepod_client::rest::ResourceType;

macro_rules! resources {
    ($($name:ident = $scope:ident($group:literal, $version:literal, $plural:literal);)*) => {
        $(
            #[doc = concat!("`", $plural, "`")]
            pub const $name: ResourceType = ResourceType::$scope($group, $version, $plural);
        )*
    };
}

resources! {
    PODS = namespaced("", "v1", "pods");
    NODES = cluster("", "v1", "nodes");
    NAMESPACES = cluster("", "v1", "namespaces");
    SERVICE_ACCOUNTS = namespaced("", "v1", "serviceaccounts");
    CONFIG_MAPS = namespaced("", "v1", "configmaps");
    ENDPOINTS = namespaced("", "v1", "endpoints");
    RESOURCE_QUOTAS = namespaced("", "v1", "resourcequotas");
    PERSISTENT_VOLUME_CLAIMS = namespaced("", "v1", "persistentvolumeclaims");
    REPLICATION_CONTROLLERS = namespaced("", "v1", "replicationcontrollers");
    REPLICA_SETS = namespaced("apps", "v1", "replicasets");
    DEPLOYMENTS = namespaced("apps", "v1", "deployments");
    DAEMON_SETS = namespaced("apps", "v1", "daemonsets");
    STATEFUL_SETS = namespaced("apps", "v1", "statefulsets");
    CONTROLLER_REVISIONS = namespaced("apps", "v1", "controllerrevisions");
    JOBS = namespaced("batch", "v1", "jobs");
    CRON_JOBS = namespaced("batch", "v1", "cronjobs");
    CLUSTER_ROLES = cluster("rbac.authorization.k8s.io", "v1", "clusterroles");
    ENDPOINT_SLICES = namespaced("discovery.k8s.io", "v1", "endpointslices");
    DISRUPTION_BUDGETS = namespaced("policy", "v1", "poddisruptionbudgets");
}
