//! What a pod may know of itself: fieldRef and resourceFieldRef, for environment variables and files. Pure.
//!
//! upstream: pkg/fieldpath/fieldpath.go, pkg/api/v1/resource/helpers.go ExtractContainerResourceValue

use std::collections::BTreeMap;

use copepod_meta::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};

use crate::pod::{
    model::{find_container, spec, uid},
    qos,
};

/// Addresses and capacities that are not in the pod object.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// Addresses of the pod.
    pub pod_ips: Vec<String>,
    /// Addresses of the node.
    pub host_ips: Vec<String>,
    /// Name of the node.
    pub node_name: String,
    /// What stands for a missing cpu limit, in thousandths.
    pub allocatable_cpu_milli: i64,
    /// What stands for a missing memory limit, in bytes.
    pub allocatable_memory: i64,
}

/// A field or resource that cannot be given. The text is upstream's and goes to the user.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DownwardError {
    /// No such field, or not one that is given.
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    /// No such resource, or not one that is given.
    #[error("unsupported container resource : {0}")]
    Resource(String),
    /// The named container does not exist.
    #[error("container {0} not found")]
    Container(String),
    /// The divisor is zero or broken.
    #[error("invalid divisor {0:?}")]
    Divisor(String),
}

/// The value of a field. Annotations and labels as a whole come as `key="value"` lines in key order.
pub fn field(selector: &ObjectFieldSelector, pod: &Pod, facts: &NodeFacts) -> Result<String, DownwardError> {
    let meta = &pod.metadata;
    let path = selector.field_path.as_str();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let one = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        return match map {
            "metadata.annotations" => Ok(one(&meta.annotations, key)),
            "metadata.labels" => Ok(one(&meta.labels, key)),
            _ => Err(DownwardError::Field(path.into())),
        };
    }
    Ok(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => uid(pod).to_owned(),
        "metadata.annotations" => map_lines(&meta.annotations),
        "metadata.labels" => map_lines(&meta.labels),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => text(&spec(pod).service_account_name),
        "status.hostIP" => facts.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        other => return Err(DownwardError::Field(other.into())),
    })
}

// upstream: pkg/fieldpath/fieldpath.go FormatMap
fn map_lines(map: &Option<BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The value of a request or limit, divided and rounded up. A missing limit is what the node can give.
pub fn resource(
    selector: &ResourceFieldSelector,
    pod: &Pod,
    container: Option<&Container>,
    facts: &NodeFacts,
) -> Result<String, DownwardError> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let found = match named {
        Some(name) => Some(find_container(pod, name).ok_or_else(|| DownwardError::Container(name.into()))?.1),
        None => container.map(std::borrow::Cow::Borrowed),
    };
    let container = found.ok_or_else(|| DownwardError::Container(String::new()))?;
    let unsupported = || DownwardError::Resource(selector.resource.clone());
    let (side, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let value = match side {
        "limits" => qos::limit(&container, name),
        "requests" => qos::request(&container, name),
        _ => return Err(unsupported()),
    };
    let divisor = match &selector.divisor {
        Some(divisor) if !divisor.0.is_empty() && divisor.0 != "0" => {
            Quantity::parse(&divisor.0).map_err(|_| DownwardError::Divisor(divisor.0.clone()))?
        }
        _ => Quantity::from_int(1, copepod_meta::quantity::Format::DecimalSi),
    };
    let is_zero = value.as_ref().is_none_or(Quantity::is_zero);
    let (amount, unit) = match name {
        "cpu" => {
            let default = if side == "limits" { facts.allocatable_cpu_milli } else { 0 };
            let milli = if is_zero { default } else { value.map_or(0, |value| value.milli_value()) };
            (milli, divisor.milli_value())
        }
        "memory" | "ephemeral-storage" => {
            let default = if side == "limits" && name == "memory" { facts.allocatable_memory } else { 0 };
            let bytes = if is_zero { default } else { value.map_or(0, |value| value.value()) };
            (bytes, divisor.value())
        }
        other if other.starts_with("hugepages-") => (value.map_or(0, |value| value.value()), divisor.value()),
        _ => return Err(unsupported()),
    };
    if unit <= 0 {
        return Err(DownwardError::Divisor(selector.divisor.clone().unwrap_or_default().0));
    }
    Ok((amount / unit + i64::from(amount % unit > 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "x\"y"}},
            "spec": {"serviceAccountName": "sa", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "10Mi"}}}
            ]}
        }))
        .expect("a pod")
    }

    fn facts() -> NodeFacts {
        NodeFacts {
            pod_ips: vec!["10.0.0.1".into(), "fd00::1".into()],
            host_ips: vec!["192.0.2.1".into()],
            node_name: "node".into(),
            allocatable_cpu_milli: 4000,
            allocatable_memory: 8 << 30,
        }
    }

    #[test]
    fn fields() {
        for (path, want) in [
            ("metadata.name", "p"),
            ("metadata.labels", "a=\"x\\\"y\"\nb=\"2\""),
            ("metadata.labels['b']", "2"),
            ("metadata.annotations['none']", ""),
            ("spec.nodeName", "node"),
            ("status.podIPs", "10.0.0.1,fd00::1"),
            ("status.hostIP", "192.0.2.1"),
        ] {
            let selector = ObjectFieldSelector { field_path: path.into(), api_version: None };
            assert_eq!(field(&selector, &pod(), &facts()).as_deref(), Ok(want), "{path}");
        }
        let selector = ObjectFieldSelector { field_path: "spec.hostname".into(), api_version: None };
        assert!(field(&selector, &pod(), &facts()).is_err());
    }

    #[test]
    fn resources() {
        for (name, divisor, want) in [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("requests.memory", Some("1Mi"), "10"),
            ("limits.memory", Some("1Gi"), "8"),
            ("requests.cpu", None, "0"),
        ] {
            let selector = ResourceFieldSelector {
                container_name: Some("c".into()),
                resource: name.into(),
                divisor: divisor
                    .map(|text| k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.into())),
            };
            assert_eq!(
                resource(&selector, &pod(), None, &facts()).as_deref(),
                Ok(want),
                "{name} {divisor:?}"
            );
        }
    }
}
