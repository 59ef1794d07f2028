//! The kinds that controllers watch, reduced to what they read. Pod templates stay raw JSON, so that nothing is lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use copepod_client::object::slim_metadata;
use copepod_client::resource;
use k8s_openapi::api::core::v1::{NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A pod template as the API sent it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Template(pub Arc<Value>);

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self(Arc::new(value)))
    }
}

impl Template {
    /// Its labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        serde_json::from_value(self.0["metadata"]["labels"].clone()).unwrap_or_default()
    }
}

macro_rules! partial {
    ($(#[$doc:meta])* $name:ident { $($(#[$attr:meta])* $field:ident: $type:ty),* $(,)? } $($resource:tt)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[allow(missing_docs)]
        pub struct $name {
            #[serde(deserialize_with = "slim_metadata")]
            pub metadata: ObjectMeta,
            $($(#[$attr])* pub $field: $type),*
        }
        resource!($name, $($resource)*);
    };
}

macro_rules! part {
    ($(#[$doc:meta])* $name:ident { $($(#[$attr:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[allow(missing_docs)]
        pub struct $name { $($(#[$attr])* pub $field: $type),* }
    };
}

/// A condition of any status.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

partial! {
    /// A Pod.
    Pod { spec: PodSpec, status: PodStatus } "", "v1", "Pod", "pods", Namespaced
}
part! { #[doc = "Its wishes."] PodSpec {
    node_name: String,
    host_network: bool,
    hostname: String,
    subdomain: String,
    tolerations: Vec<k8s_openapi::api::core::v1::Toleration>,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    volumes: Vec<Value>,
    active_deadline_seconds: Option<i64>,
    priority_class_name: String,
    overhead: BTreeMap<String, String>,
    affinity: Option<Value>,
} }
part! { #[doc = "One of its containers."] Container {
    name: String,
    ports: Vec<ContainerPort>,
    resources: Resources,
    restart_policy: Option<String>,
} }
part! { #[doc = "What a container asks for."] Resources {
    requests: BTreeMap<String, String>,
    limits: BTreeMap<String, String>,
} }
part! { #[doc = "A port of a container."] ContainerPort {
    name: String,
    container_port: i32,
    protocol: String,
} }
part! { #[doc = "What became of it."] PodStatus {
    phase: String,
    reason: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    conditions: Vec<Condition>,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
    start_time: Option<Time>,
    nominated_node_name: String,
} }
part! { #[doc = "An address."] PodIp { ip: String } }
part! { #[doc = "What became of a container."] ContainerStatus {
    name: String,
    restart_count: i32,
    state: Value,
} }

partial! {
    /// A ReplicaSet.
    ReplicaSet { spec: ReplicaSetSpec, status: ReplicaSetStatus } "apps", "v1", "ReplicaSet", "replicasets", Namespaced
}
part! { #[doc = "Its wishes."] ReplicaSetSpec {
    replicas: Option<i32>,
    min_ready_seconds: i32,
    selector: LabelSelector,
    template: Template,
} }
/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ReplicaSetStatus {
    pub replicas: i32,
    pub fully_labeled_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating_replicas: Option<i32>,
    pub observed_generation: i64,
    pub conditions: Vec<Condition>,
}

partial! {
    /// A ReplicationController: a ReplicaSet with a plain map as its selector.
    ReplicationController { spec: ReplicationControllerSpec, status: ReplicaSetStatus }
        "", "v1", "ReplicationController", "replicationcontrollers", Namespaced
}
part! { #[doc = "Its wishes."] ReplicationControllerSpec {
    replicas: Option<i32>,
    min_ready_seconds: i32,
    selector: BTreeMap<String, String>,
    template: Template,
} }

partial! {
    /// A Deployment.
    Deployment { spec: DeploymentSpec, status: DeploymentStatus } "apps", "v1", "Deployment", "deployments", Namespaced
}
part! { #[doc = "Its wishes."] DeploymentSpec {
    replicas: Option<i32>,
    min_ready_seconds: i32,
    selector: LabelSelector,
    template: Template,
    strategy: Strategy,
    revision_history_limit: Option<i32>,
    progress_deadline_seconds: Option<i32>,
    paused: bool,
} }
part! { #[doc = "How pods are exchanged."] Strategy {
    #[serde(rename = "type")]
    kind: String,
    rolling_update: Option<RollingUpdate>,
} }
part! { #[doc = "Bounds of an exchange."] RollingUpdate {
    max_unavailable: Option<IntOrString>,
    max_surge: Option<IntOrString>,
    partition: Option<i32>,
} }
/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct DeploymentStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub updated_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub unavailable_replicas: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating_replicas: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i32>,
    pub conditions: Vec<Condition>,
}

partial! {
    /// A Namespace.
    Namespace { spec: NamespaceSpec, status: NamespaceStatus } "", "v1", "Namespace", "namespaces", Cluster
}
part! { #[doc = "Who has to agree to its end."] NamespaceSpec { finalizers: Vec<String> } }
part! { #[doc = "What became of it."] NamespaceStatus { phase: String, conditions: Vec<Condition> } }

partial! {
    /// A ServiceAccount: only that it is there.
    ServiceAccount {} "", "v1", "ServiceAccount", "serviceaccounts", Namespaced
}
partial! {
    /// A ConfigMap.
    ConfigMap { data: BTreeMap<String, String> } "", "v1", "ConfigMap", "configmaps", Namespaced
}
partial! {
    /// A ClusterRole.
    ClusterRole { rules: Value, aggregation_rule: Option<AggregationRule> }
        "rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", Cluster
}
part! { #[doc = "Which roles are joined."] AggregationRule { cluster_role_selectors: Vec<LabelSelector> } }

partial! {
    /// A Node.
    Node { spec: NodeSpec, status: NodeStatus } "", "v1", "Node", "nodes", Cluster
}
part! { #[doc = "Taints and the like."] NodeSpec { taints: Vec<Taint>, unschedulable: bool } }
part! { #[doc = "How it is."] NodeStatus {
    conditions: Vec<NodeCondition>,
    allocatable: BTreeMap<String, String>,
} }

partial! {
    /// A Lease.
    Lease { spec: LeaseSpec } "coordination.k8s.io", "v1", "Lease", "leases", Namespaced
}
part! { #[doc = "Who holds it since when."] LeaseSpec { holder_identity: String, renew_time: String } }

partial! {
    /// A Service.
    Service { spec: ServiceSpec } "", "v1", "Service", "services", Namespaced
}
part! { #[doc = "Which pods are behind which ports."] ServiceSpec {
    #[serde(rename = "type")]
    kind: String,
    selector: BTreeMap<String, String>,
    ports: Vec<ServicePort>,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    ip_families: Vec<String>,
    publish_not_ready_addresses: bool,
    traffic_distribution: Option<String>,
} }
part! { #[doc = "A port of a service."] ServicePort {
    name: String,
    protocol: String,
    port: i32,
    target_port: Option<IntOrString>,
    app_protocol: Option<String>,
} }
partial! {
    /// An EndpointSlice.
    EndpointSlice { address_type: String, endpoints: Value, ports: Value }
        "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", Namespaced
}
partial! {
    /// An Endpoints object.
    Endpoints { subsets: Value } "", "v1", "Endpoints", "endpoints", Namespaced
}

partial! {
    /// A ResourceQuota.
    ResourceQuota { spec: QuotaSpec, status: QuotaStatus } "", "v1", "ResourceQuota", "resourcequotas", Namespaced
}
part! { #[doc = "What may be used."] QuotaSpec {
    hard: BTreeMap<String, String>,
    scopes: Vec<String>,
    scope_selector: Option<Value>,
} }
part! { #[doc = "What is used."] QuotaStatus { hard: BTreeMap<String, String>, used: BTreeMap<String, String> } }

partial! {
    /// A DaemonSet.
    DaemonSet { spec: DaemonSetSpec, status: DaemonSetStatus } "apps", "v1", "DaemonSet", "daemonsets", Namespaced
}
part! { #[doc = "Its wishes."] DaemonSetSpec {
    min_ready_seconds: i32,
    selector: LabelSelector,
    template: Template,
    update_strategy: Strategy,
    revision_history_limit: Option<i32>,
} }
/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct DaemonSetStatus {
    pub current_number_scheduled: i32,
    pub number_misscheduled: i32,
    pub desired_number_scheduled: i32,
    pub number_ready: i32,
    pub observed_generation: i64,
    pub updated_number_scheduled: i32,
    pub number_available: i32,
    pub number_unavailable: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

partial! {
    /// A StatefulSet.
    StatefulSet { spec: StatefulSetSpec, status: StatefulSetStatus }
        "apps", "v1", "StatefulSet", "statefulsets", Namespaced
}
part! { #[doc = "Its wishes."] StatefulSetSpec {
    replicas: Option<i32>,
    min_ready_seconds: i32,
    selector: LabelSelector,
    template: Template,
    service_name: String,
    volume_claim_templates: Vec<Value>,
    pod_management_policy: String,
    update_strategy: Strategy,
    revision_history_limit: Option<i32>,
    ordinals: Ordinals,
    persistent_volume_claim_retention_policy: Option<ClaimRetention>,
} }
part! { #[doc = "What becomes of claims: `Retain` or `Delete`."] ClaimRetention {
    when_deleted: String,
    when_scaled: String,
} }
partial! {
    /// A PersistentVolumeClaim: only that it is there, and whose it is.
    Claim {} "", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", Namespaced
}
part! { #[doc = "Where numbering starts."] Ordinals { start: i32 } }
/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct StatefulSetStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub ready_replicas: i32,
    pub current_replicas: i32,
    pub updated_replicas: i32,
    pub current_revision: String,
    pub update_revision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i32>,
    pub available_replicas: i32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

partial! {
    /// A ControllerRevision: one state of a template.
    ControllerRevision { data: Value, revision: i64 }
        "apps", "v1", "ControllerRevision", "controllerrevisions", Namespaced
}

partial! {
    /// A Job.
    Job { spec: JobSpec, status: JobStatus } "batch", "v1", "Job", "jobs", Namespaced
}
part! { #[doc = "Its wishes."] JobSpec {
    parallelism: Option<i32>,
    completions: Option<i32>,
    completion_mode: Option<String>,
    backoff_limit: Option<i32>,
    active_deadline_seconds: Option<i64>,
    ttl_seconds_after_finished: Option<i64>,
    suspend: bool,
    selector: LabelSelector,
    template: Template,
    managed_by: Option<String>,
    pod_failure_policy: Option<PodFailurePolicy>,
    pod_replacement_policy: Option<String>,
    backoff_limit_per_index: Option<i32>,
    max_failed_indexes: Option<i32>,
    success_policy: Option<SuccessPolicy>,
} }
part! { #[doc = "Which failures of pods count."] PodFailurePolicy { rules: Vec<PodFailureRule> } }
part! { #[doc = "What to do about some failures."] PodFailureRule {
    action: String,
    on_exit_codes: Option<ExitCodes>,
    on_pod_conditions: Vec<ConditionPattern>,
} }
part! { #[doc = "Exit codes of a container."] ExitCodes {
    container_name: Option<String>,
    operator: String,
    values: Vec<i64>,
} }
part! { #[doc = "A condition of a pod."] ConditionPattern {
    #[serde(rename = "type")]
    kind: String,
    status: String,
} }
part! { #[doc = "Which successes are enough."] SuccessPolicy { rules: Vec<SuccessRule> } }
part! { #[doc = "Indexes, or a number of them."] SuccessRule {
    succeeded_indexes: Option<String>,
    succeeded_count: Option<i32>,
} }
/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct JobStatus {
    pub conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    pub active: i32,
    pub succeeded: i32,
    pub failed: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_indexes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_indexes: Option<String>,
    pub uncounted_terminated_pods: Uncounted,
}
/// Pods that have ended and still carry the finalizer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Uncounted {
    pub succeeded: Vec<String>,
    pub failed: Vec<String>,
}

partial! {
    /// A CronJob.
    CronJob { spec: CronJobSpec, status: CronJobStatus } "batch", "v1", "CronJob", "cronjobs", Namespaced
}
part! { #[doc = "Its wishes."] CronJobSpec {
    schedule: String,
    time_zone: Option<String>,
    starting_deadline_seconds: Option<i64>,
    concurrency_policy: String,
    suspend: bool,
    job_template: Value,
    successful_jobs_history_limit: Option<i32>,
    failed_jobs_history_limit: Option<i32>,
} }
/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct CronJobStatus {
    pub active: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
}

partial! {
    /// A PodDisruptionBudget.
    Budget { spec: BudgetSpec, status: BudgetStatus }
        "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", Namespaced
}
part! { #[doc = "How many must stay."] BudgetSpec {
    selector: Option<LabelSelector>,
    min_available: Option<IntOrString>,
    max_unavailable: Option<IntOrString>,
} }
/// How many may go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct BudgetStatus {
    pub observed_generation: i64,
    pub disrupted_pods: BTreeMap<String, Time>,
    pub disruptions_allowed: i32,
    pub current_healthy: i32,
    pub desired_healthy: i32,
    pub expected_pods: i32,
    pub conditions: Vec<Condition>,
}
