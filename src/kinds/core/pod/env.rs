//! Environment variables and where they come from. upstream: validation.go ValidateEnv, ValidateEnvFrom

use copepod_meta::{ErrorList, names};

use super::volumes::no_backsteps;
use crate::check::At;
use crate::core::resources::quantity;

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields that a downward API volume can hold.
pub const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// upstream: ValidateEnv
pub fn vars(list: At, e: &mut ErrorList) {
    for var in list.items() {
        let name = var.get("name");
        if name.need(e) {
            name.invalid_each(e, names::relaxed_env_var_name(name.str()));
        }
        value_from(var, e);
    }
}

/// upstream: validateEnvVarValueFrom
fn value_from(var: At, e: &mut ErrorList) {
    let from = var.get("valueFrom");
    if !from.is_set() {
        return;
    }
    let mut sources = 0;
    let mut source = |name| {
        let at = from.get(name);
        sources += usize::from(at.is_set());
        at.is_set()
    };
    if source("fieldRef") {
        field_ref(from.get("fieldRef"), ENV_FIELDS, e);
    }
    if source("resourceFieldRef") {
        resource_field_ref(from.get("resourceFieldRef"), false, e);
    }
    if source("configMapKeyRef") {
        key_ref(from.get("configMapKeyRef"), e);
    }
    if source("secretKeyRef") {
        key_ref(from.get("secretKeyRef"), e);
    }
    if source("fileKeyRef") {
        file_key_ref(from.get("fileKeyRef"), e);
    }
    if sources == 0 {
        let all = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        from.invalid_str(e, "", all);
    } else if !var.get("value").is_empty() {
        from.invalid_str(e, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        from.invalid_str(e, "", "may not have more than one field specified at a time");
    }
}

/// upstream: ValidateEnvFrom
pub fn from(list: At, e: &mut ErrorList) {
    for source in list.items() {
        let prefix = source.get("prefix");
        if !prefix.is_empty() {
            prefix.invalid_each(e, names::relaxed_env_var_name(prefix.str()));
        }
        let mut sources = 0;
        for member in ["configMapRef", "secretRef"] {
            let at = source.get(member);
            if at.is_set() {
                sources += 1;
                let name = at.get("name");
                if name.need(e) {
                    name.invalid_each(e, names::dns1123_subdomain_prefixed(name.str(), true));
                }
            }
        }
        match sources {
            0 => list.invalid_str(e, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => list.invalid_str(e, "", "may not have more than one field specified at a time"),
        }
    }
}

/// A key of a ConfigMap or Secret. upstream: validateConfigMapKeySelector, validateSecretKeySelector
fn key_ref(at: At, e: &mut ErrorList) {
    let name = at.get("name");
    name.invalid_each(e, names::dns1123_subdomain(name.str()));
    let key = at.get("key");
    if key.need(e) {
        key.invalid_each(e, names::config_map_key(key.str()));
    }
}

/// upstream: validateFileKeySelector
fn file_key_ref(at: At, e: &mut ErrorList) {
    let key = at.get("key");
    if key.need(e) {
        key.invalid_each(e, names::relaxed_env_var_name(key.str()));
    }
    let volume = at.get("volumeName");
    if volume.need(e) {
        volume.dns_label(e);
    }
    let path = at.get("path");
    if path.need(e) {
        no_backsteps(path, e);
    }
}

/// upstream: validateObjectFieldSelector
pub fn field_ref(at: At, allowed: &[&str], e: &mut ErrorList) {
    let (api_version, field) = (at.get("apiVersion"), at.get("fieldPath"));
    if !api_version.need(e) || !field.need(e) {
        return;
    }
    let path = match convert_field_label(api_version.str(), field.str()) {
        Ok(path) => path,
        Err(why) => return field.invalid(e, format!("error converting fieldPath: {why}")),
    };
    match split_subscript(path) {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            for message in names::qualified_name(&key) {
                at.invalid_str(e, &key, message);
            }
        }
        Some(("metadata.labels", key)) => {
            for message in names::qualified_name(key) {
                at.invalid_str(e, key, message);
            }
        }
        Some((path, _)) => at.invalid_str(e, path, "does not support subscript"),
        None if !allowed.contains(&path) => {
            field.with(&path.into()).not_supported(e, allowed);
        }
        None => {}
    }
}

/// upstream: pkg/apis/core/pods/helpers.go ConvertDownwardAPIFieldLabel
fn convert_field_label<'a>(version: &str, label: &'a str) -> Result<&'a str, String> {
    if version != "v1" {
        return Err(format!("unsupported pod version: {version}"));
    }
    if let Some((path, _)) = split_subscript(label) {
        return match path {
            "metadata.annotations" | "metadata.labels" => Ok(label),
            _ => Err(format!("field label does not support subscript: {label}")),
        };
    }
    match label {
        "spec.host" => Ok("spec.nodeName"),
        "metadata.annotations"
        | "metadata.labels"
        | "metadata.name"
        | "metadata.namespace"
        | "metadata.uid"
        | "spec.nodeName"
        | "spec.restartPolicy"
        | "spec.serviceAccountName"
        | "spec.schedulerName"
        | "status.phase"
        | "status.hostIP"
        | "status.hostIPs"
        | "status.podIP"
        | "status.podIPs" => Ok(label),
        _ => Err(format!("field label not supported: {label}")),
    }
}

/// `a['b']` in two. upstream: pkg/fieldpath SplitMaybeSubscriptedPath
fn split_subscript(path: &str) -> Option<(&str, &str)> {
    let (head, key) = path.strip_suffix("']")?.split_once("['")?;
    (!head.is_empty()).then_some((head, key))
}

/// upstream: validateContainerResourceFieldSelector
pub fn resource_field_ref(at: At, volume: bool, e: &mut ErrorList) {
    let (container, resource) = (at.get("containerName"), at.get("resource"));
    let huge = |r: &str| r.starts_with("requests.hugepages-") || r.starts_with("limits.hugepages-");
    if volume && container.is_empty() {
        container.required(e, "");
    } else if resource.is_empty() {
        resource.required(e, "");
    } else if !RESOURCES.contains(&resource.str()) && !huge(resource.str()) {
        resource.not_supported(e, RESOURCES);
    }
    let divisor = quantity(at.get("divisor").value);
    if divisor.is_zero() {
        return;
    }
    let (supported, what) = match resource.str() {
        "limits.cpu" | "requests.cpu" => (&["1m", "1"] as &[&str], "cpu"),
        "limits.memory" | "requests.memory" => (SIZES, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (SIZES, "local ephemeral storage"),
        r if huge(r) => (SIZES, "hugepages"),
        _ => return,
    };
    if !supported.contains(&divisor.to_string().as_str()) {
        let values = if what == "cpu" { "1m and 1".to_string() } else { SIZES.join(", ") };
        let message = format!("only divisor's values {values} are supported with the {what} resource");
        at.get("divisor").invalid_str(e, resource.str(), message);
    }
}

const SIZES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
