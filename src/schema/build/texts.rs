//! Collects the descriptions of types and fields: those that the `k8s-openapi` crate carries, and for what it
//! lacks (list kinds, query options, enum values) those of `api/texts.json`.

use k8s_openapi::schemars::SchemaGenerator;
use k8s_openapi::schemars::generate::SchemaSettings;
use serde_json::Value;
use std::collections::BTreeMap;

use crate::facts::TextFacts;

/// Descriptions of one type by field; the type's own stands under "".
pub type Fields = BTreeMap<String, String>;

macro_rules! roots {
    ($generator:ident: $($root:path,)*) => { $( $generator.subschema_for::<$root>(); )* };
}

/// Kinds and other types from which everything described is reached.
fn generate(generator: &mut SchemaGenerator) {
    use k8s_openapi::{api, apiextensions_apiserver, apimachinery, kube_aggregator};
    roots! { generator:
        api::admissionregistration::v1::MutatingAdmissionPolicy,
        api::admissionregistration::v1::MutatingAdmissionPolicyBinding,
        api::admissionregistration::v1::MutatingWebhookConfiguration,
        api::admissionregistration::v1::ValidatingAdmissionPolicy,
        api::admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        api::admissionregistration::v1::ValidatingWebhookConfiguration,
        api::admissionregistration::v1beta1::MutatingAdmissionPolicy,
        api::admissionregistration::v1beta1::MutatingAdmissionPolicyBinding,
        api::apps::v1::ControllerRevision,
        api::apps::v1::DaemonSet,
        api::apps::v1::Deployment,
        api::apps::v1::ReplicaSet,
        api::apps::v1::StatefulSet,
        api::authentication::v1::SelfSubjectReview,
        api::authentication::v1::TokenRequest,
        api::authentication::v1::TokenReview,
        api::authorization::v1::LocalSubjectAccessReview,
        api::authorization::v1::SelfSubjectAccessReview,
        api::authorization::v1::SelfSubjectRulesReview,
        api::authorization::v1::SubjectAccessReview,
        api::autoscaling::v1::HorizontalPodAutoscaler,
        api::autoscaling::v1::Scale,
        api::autoscaling::v2::HorizontalPodAutoscaler,
        api::batch::v1::CronJob,
        api::batch::v1::Job,
        api::certificates::v1::CertificateSigningRequest,
        api::coordination::v1::Lease,
        api::core::v1::Binding,
        api::core::v1::ComponentStatus,
        api::core::v1::ConfigMap,
        api::core::v1::Endpoints,
        api::core::v1::Event,
        api::core::v1::LimitRange,
        api::core::v1::Namespace,
        api::core::v1::Node,
        api::core::v1::PersistentVolume,
        api::core::v1::Pod,
        api::core::v1::PodTemplate,
        api::core::v1::ReplicationController,
        api::core::v1::ResourceQuota,
        api::core::v1::Secret,
        api::core::v1::Service,
        api::core::v1::ServiceAccount,
        api::discovery::v1::EndpointSlice,
        api::events::v1::Event,
        api::flowcontrol::v1::FlowSchema,
        api::flowcontrol::v1::PriorityLevelConfiguration,
        api::networking::v1::IPAddress,
        api::networking::v1::Ingress,
        api::networking::v1::IngressClass,
        api::networking::v1::NetworkPolicy,
        api::networking::v1::ServiceCIDR,
        api::node::v1::RuntimeClass,
        api::policy::v1::Eviction,
        api::policy::v1::PodDisruptionBudget,
        api::rbac::v1::ClusterRole,
        api::rbac::v1::ClusterRoleBinding,
        api::rbac::v1::Role,
        api::rbac::v1::RoleBinding,
        api::resource::v1::DeviceClass,
        api::resource::v1::ResourceClaim,
        api::resource::v1::ResourceClaimTemplate,
        api::resource::v1::ResourceSlice,
        api::scheduling::v1::PriorityClass,
        api::storage::v1::CSIDriver,
        api::storage::v1::CSINode,
        api::storage::v1::CSIStorageCapacity,
        api::storage::v1::StorageClass,
        api::storage::v1::VolumeAttachment,
        api::storage::v1::VolumeAttributesClass,
        apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
        apimachinery::pkg::apis::meta::v1::APIGroupList,
        apimachinery::pkg::apis::meta::v1::APIResourceList,
        apimachinery::pkg::apis::meta::v1::APIVersions,
        apimachinery::pkg::apis::meta::v1::Status,
        kube_aggregator::pkg::apis::apiregistration::v1::APIService,
        apimachinery::pkg::api::resource::Quantity,
        apimachinery::pkg::util::intstr::IntOrString,
        apimachinery::pkg::apis::meta::v1::Patch,
    }
}

/// All descriptions.
pub fn collect(supplement: &[TextFacts]) -> BTreeMap<String, Fields> {
    let mut generator = SchemaSettings::draft07().into_generator();
    generate(&mut generator);
    let mut all: BTreeMap<String, Fields> = BTreeMap::new();
    for (name, schema) in generator.take_definitions(true) {
        all.insert(name, fields_of(&schema));
    }
    for extra in supplement {
        let fields = all.entry(extra.ty.clone()).or_default();
        if let Some(text) = &extra.text {
            fields.insert(String::new(), text.clone());
        }
        for (field, text) in &extra.fields {
            fields.insert(field.clone(), text.clone());
        }
        for (field, text) in &extra.enums {
            fields.entry(field.clone()).or_default().push_str(text);
        }
    }
    all
}

fn fields_of(schema: &Value) -> Fields {
    let mut fields = Fields::new();
    let mut add = |name: &str, node: &Value| {
        if let Some(text) = node.get("description").and_then(Value::as_str) {
            fields.insert(name.to_owned(), text.to_owned());
        }
    };
    add("", schema);
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        add(name, property);
    }
    fields
}
