//! The table of kinds that have something to say beyond their facts. The one place where a kind's file is named.

use crate::strategy::Strategy;
use crate::{
    admissionregistration, apiextensions, apiregistration, apps, autoscaling, batch, certificates,
    coordination, core, discovery, flowcontrol, networking, node, policy, rbac, resource, scheduling,
    storage,
};

/// A row: names, hub version, whether validation is complete, behaviour.
pub struct Entry {
    /// API group, "" for core.
    pub group: &'static str,
    /// Plural name.
    pub plural: &'static str,
    /// The version whose trees the strategy sees.
    pub hub: &'static str,
    /// Whether validation says all that upstream's says.
    pub fully_validated: bool,
    /// The behaviour.
    pub strategy: &'static dyn Strategy,
}

/// Upstream's validation is all there.
const fn full(
    group: &'static str,
    plural: &'static str,
    hub: &'static str,
    strategy: &'static dyn Strategy,
) -> Entry {
    Entry { group, plural, hub, fully_validated: true, strategy }
}

/// Prepared, defaulted and printed as upstream does; validation has gaps.
const fn part(
    group: &'static str,
    plural: &'static str,
    hub: &'static str,
    strategy: &'static dyn Strategy,
) -> Entry {
    Entry { group, plural, hub, fully_validated: false, strategy }
}

/// Every kind with a strategy of its own.
pub static ROWS: &[Entry] = &[
    full("", "pods", "v1", &core::pod::Pod),
    full("", "namespaces", "v1", &core::namespace::Namespace),
    full("", "nodes", "v1", &core::node::Node),
    full("", "configmaps", "v1", &core::config_map::ConfigMap),
    full("", "secrets", "v1", &core::secret::Secret),
    full("", "serviceaccounts", "v1", &core::service_account::ServiceAccount),
    full("", "events", "v1", &core::event::Event),
    full("events.k8s.io", "events", "v1", &core::event::NewEvent),
    full("", "services", "v1", &core::service::Service),
    full("", "endpoints", "v1", &core::endpoints::Endpoints),
    full("", "persistentvolumes", "v1", &core::persistent_volume::PersistentVolume),
    full("", "persistentvolumeclaims", "v1", &core::persistent_volume_claim::PersistentVolumeClaim),
    full("", "limitranges", "v1", &core::limit_range::LimitRange),
    full("", "resourcequotas", "v1", &core::resource_quota::ResourceQuota),
    full("", "podtemplates", "v1", &core::pod_template::PodTemplate),
    full("", "replicationcontrollers", "v1", &core::replication_controller::ReplicationController),
    part(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "v1",
        &apiextensions::custom_resource_definition::CustomResourceDefinition,
    ),
    part("apiregistration.k8s.io", "apiservices", "v1", &apiregistration::api_service::ApiService),
    full("apps", "deployments", "v1", &apps::deployment::Deployment),
    full("apps", "replicasets", "v1", &apps::replica_set::ReplicaSet),
    full("apps", "daemonsets", "v1", &apps::daemon_set::DaemonSet),
    full("apps", "statefulsets", "v1", &apps::stateful_set::StatefulSet),
    full("apps", "controllerrevisions", "v1", &apps::controller_revision::ControllerRevision),
    full(
        "autoscaling",
        "horizontalpodautoscalers",
        "v2",
        &autoscaling::horizontal_pod_autoscaler::HorizontalPodAutoscaler,
    ),
    full("batch", "jobs", "v1", &batch::job::Job),
    full("batch", "cronjobs", "v1", &batch::cron_job::CronJob),
    part(
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        "v1",
        &admissionregistration::webhook_configuration::WebhookConfiguration { mutating: true },
    ),
    part(
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        "v1",
        &admissionregistration::webhook_configuration::WebhookConfiguration { mutating: false },
    ),
    part(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        "v1",
        &admissionregistration::policy::Policy { mutating: false },
    ),
    part(
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicies",
        "v1",
        &admissionregistration::policy::Policy { mutating: true },
    ),
    full(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
        "v1",
        &admissionregistration::policy_binding::PolicyBinding { mutating: false },
    ),
    full(
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings",
        "v1",
        &admissionregistration::policy_binding::PolicyBinding { mutating: true },
    ),
    part("certificates.k8s.io", "certificatesigningrequests", "v1", &certificates::request::Request),
    full("coordination.k8s.io", "leases", "v1", &coordination::lease::Lease),
    full("discovery.k8s.io", "endpointslices", "v1", &discovery::endpoint_slice::EndpointSlice),
    full("flowcontrol.apiserver.k8s.io", "flowschemas", "v1", &flowcontrol::flow_schema::FlowSchema),
    full(
        "flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations",
        "v1",
        &flowcontrol::priority_level::PriorityLevelConfiguration,
    ),
    full("node.k8s.io", "runtimeclasses", "v1", &node::runtime_class::RuntimeClass),
    full("networking.k8s.io", "ingresses", "v1", &networking::ingress::Ingress),
    full("networking.k8s.io", "ingressclasses", "v1", &networking::ingress_class::IngressClass),
    full("networking.k8s.io", "networkpolicies", "v1", &networking::network_policy::NetworkPolicy),
    full("networking.k8s.io", "servicecidrs", "v1", &networking::service_cidr::ServiceCidr),
    full("networking.k8s.io", "ipaddresses", "v1", &networking::ip_address::IpAddress),
    full("policy", "poddisruptionbudgets", "v1", &policy::pod_disruption_budget::PodDisruptionBudget),
    full("storage.k8s.io", "storageclasses", "v1", &storage::storage_class::StorageClass),
    full("storage.k8s.io", "csidrivers", "v1", &storage::csi_driver::CsiDriver),
    full("storage.k8s.io", "csinodes", "v1", &storage::csi_node::CsiNode),
    full("storage.k8s.io", "csistoragecapacities", "v1", &storage::csi_storage_capacity::CsiStorageCapacity),
    full("storage.k8s.io", "volumeattachments", "v1", &storage::volume_attachment::VolumeAttachment),
    full(
        "storage.k8s.io",
        "volumeattributesclasses",
        "v1",
        &storage::volume_attributes_class::VolumeAttributesClass,
    ),
    full("rbac.authorization.k8s.io", "roles", "v1", &rbac::role::Role),
    full("rbac.authorization.k8s.io", "clusterroles", "v1", &rbac::role::ClusterRole),
    full("rbac.authorization.k8s.io", "rolebindings", "v1", &rbac::binding::Binding { namespaced: true }),
    full(
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        "v1",
        &rbac::binding::Binding { namespaced: false },
    ),
    part("resource.k8s.io", "resourceclaims", "v1", &resource::Claim),
    part("resource.k8s.io", "resourceclaimtemplates", "v1", &resource::ClaimTemplate),
    part("resource.k8s.io", "deviceclasses", "v1", &resource::Class),
    part("resource.k8s.io", "resourceslices", "v1", &resource::Slice),
    full("scheduling.k8s.io", "priorityclasses", "v1", &scheduling::priority_class::PriorityClass),
];
