//! Defaults of pods and templates, and what `v1` says twice.
//!
//! upstream: pkg/apis/core/v1/defaults.go, pkg/apis/core/v1/conversion.go
//!
//! upstream, too: Convert_core_PodSpec_To_v1_PodSpec, Convert_core_PodStatus_To_v1_PodStatus,
//! Convert_core_PodTemplateSpec_To_v1_PodTemplateSpec, Convert_core_Pod_To_v1_Pod,
//! Convert_v1_PodTemplateSpec_To_core_PodTemplateSpec, SetDefaults_EphemeralContainer

use copepod_meta::Value;
use copepod_meta::pod_references::CONTAINER_LISTS;

use crate::core::resources::{aggregate, is_huge_page, is_overcommit_allowed, is_pod_level, quantity};

/// Writes `value` unless something other than a zero is there.
pub fn fill(at: &mut Value, member: &str, value: impl Into<Value>) {
    if at.get(member).is_empty() {
        at.set(&[member], value);
    }
}

/// Writes `value` unless something is there: Go's nil pointers.
pub fn fill_nil(at: &mut Value, member: &str, value: impl Into<Value>) {
    if at.get(member).is_null() {
        at.set(&[member], value);
    }
}

/// The items of a list, changeable.
pub fn each<'a>(at: &'a mut Value, path: &[&str]) -> impl Iterator<Item = &'a mut Value> {
    at.at_mut(path).and_then(Value::as_list_mut).into_iter().flatten()
}

/// upstream: SetDefaults_Pod, after SetDefaults_PodSpec and its members (generated order: inner defaults come first)
pub fn pod(pod: &mut Value) {
    let spec = pod.make(&["spec"]);
    pod_spec(spec);
    for list in ["containers", "initContainers"] {
        each(spec, &[list]).for_each(requests_from_limits);
    }
    if !spec.get("resources").is_null() {
        pod_level_resources(spec);
    }
    fill_nil(spec, "enableServiceLinks", true);
    if spec.bool_at(&["hostNetwork"]) {
        for list in ["containers", "initContainers"] {
            each(spec, &[list]).for_each(|c| each(c, &["ports"]).for_each(host_port));
        }
    }
}

/// upstream: defaultHostNetworkPorts
fn host_port(port: &mut Value) {
    let own = port.get("containerPort").clone();
    if !own.is_null() {
        fill(port, "hostPort", own);
    }
}

fn requests_from_limits(container: &mut Value) {
    let limits = container.at(&["resources", "limits"]).clone();
    for (name, limit) in limits.map_at(&[]).iter() {
        let request = container.make(&["resources", "requests", name]);
        if request.is_null() {
            *request = limit.clone();
        }
    }
}

/// upstream: defaultHugePagePodLimits, defaultPodRequests
fn pod_level_resources(spec: &mut Value) {
    let had = |spec: &Value, member| !spec.map_at(&["resources", member]).is_empty();
    if had(spec, "limits") || had(spec, "requests") {
        for (name, sum) in aggregate(spec, "limits") {
            let requested = !spec.at(&["resources", "requests", &name]).is_null();
            if is_huge_page(&name) && !requested {
                fill_nil(spec.make(&["resources", "limits"]), &name, sum.to_string());
            }
        }
    }
    if !had(spec, "limits") {
        return;
    }
    for (name, sum) in aggregate(spec, "requests") {
        if is_pod_level(&name) && is_overcommit_allowed(&name) {
            fill_nil(spec.make(&["resources", "requests"]), &name, sum.to_string());
        }
    }
    let limits = spec.at(&["resources", "limits"]).clone();
    for (name, limit) in limits.map_at(&[]).iter().filter(|(name, _)| is_pod_level(name)) {
        fill_nil(spec.make(&["resources", "requests"]), name, limit.clone());
    }
}

/// A pod template's spec: all but what only a Pod gets.
pub fn template(template: &mut Value) {
    pod_spec(template.make(&["spec"]));
}

/// upstream: SetDefaults_PodSpec and those of what is in it
pub fn pod_spec(spec: &mut Value) {
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "restartPolicy", "Always");
    fill_nil(spec, "securityContext", Value::map());
    fill_nil(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "schedulerName", "default-scheduler");
    each(spec, &["volumes"]).for_each(volume);
    for list in CONTAINER_LISTS {
        each(spec, &[list]).for_each(container);
    }
    round_up(spec, &["overhead"]);
    for member in ["limits", "requests"] {
        round_up(spec, &["resources", member]);
    }
}

/// upstream: SetDefaults_Container, SetDefaults_Probe, SetDefaults_HTTPGetAction, SetDefaults_ObjectFieldSelector
fn container(container: &mut Value) {
    let policy = pull_policy(container.str_at(&["image"]));
    fill(container, "imagePullPolicy", policy);
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    each(container, &["ports"]).for_each(|port| fill(port, "protocol", "TCP"));
    for var in each(container, &["env"]) {
        if let Some(field) = var.at_mut(&["valueFrom", "fieldRef"]) {
            fill(field, "apiVersion", "v1");
        }
        if let Some(file) = var.at_mut(&["valueFrom", "fileKeyRef"]) {
            fill_nil(file, "optional", false);
        }
    }
    for member in ["limits", "requests"] {
        round_up(container, &["resources", member]);
    }
    for member in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.at_mut(&[member]) {
            handler(probe);
            if let Some(grpc) = probe.at_mut(&["grpc"]) {
                fill_nil(grpc, "service", "");
            }
            fill(probe, "timeoutSeconds", 1);
            fill(probe, "periodSeconds", 10);
            fill(probe, "successThreshold", 1);
            fill(probe, "failureThreshold", 3);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.at_mut(&["lifecycle", hook]) {
            handler(hook);
        }
    }
}

fn handler(at: &mut Value) {
    if let Some(http) = at.at_mut(&["httpGet"]) {
        fill(http, "path", "/");
        fill(http, "scheme", "HTTP");
    }
}

/// Amounts finer than a thousandth are rounded up. upstream: SetDefaults_ResourceList
pub fn round_up(at: &mut Value, path: &[&str]) {
    const MILLI: i128 = 1_000_000;
    let Some(list) = at.at_mut(path).and_then(Value::as_map_mut) else { return };
    for (_, amount) in list.iter_mut() {
        let exact = quantity(amount);
        if exact.nano() % MILLI != 0 {
            let milli = exact.nano().div_euclid(MILLI) + 1;
            // A fraction of a thousandth of more than i64::MAX thousandths does not occur in 64-bit quantities.
            let rounded =
                copepod_meta::Quantity::from_milli(i64::try_from(milli).unwrap_or(i64::MAX), exact.format());
            *amount = rounded.to_string().into();
        }
    }
}

/// `Always` for images without a tag or tagged latest. upstream: pkg/util/parsers ParseImageName
pub fn pull_policy(image: &str) -> &'static str {
    // A digest pins the image; a name that does not parse counts as one that is pinned.
    if image.contains('@') || image.is_empty() || image.contains(char::is_whitespace) {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.rsplit_once(':') {
        None | Some((_, "latest")) if is_reference(image) => "Always",
        _ => "IfNotPresent",
    }
}

/// Repository names are lower case (the host in front may not be).
fn is_reference(image: &str) -> bool {
    let (host, rest) = match image.split_once('/') {
        Some((host, rest))
            if host.contains(['.', ':']) || host == "localhost" || host.chars().any(char::is_uppercase) =>
        {
            (host, rest)
        }
        _ => ("", image),
    };
    let path = rest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(rest, |(path, _)| path);
    let component = |c: &str| {
        let b = c.as_bytes();
        let end = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        b.first().is_some_and(|c| end(*c))
            && b.last().is_some_and(|c| end(*c))
            && b.iter().all(|c| end(*c) || matches!(c, b'.' | b'_' | b'-'))
    };
    !host.contains("..") && path.split('/').all(component)
}

const VOLUME_SOURCES_WITH_MODE: [(&str, i64); 4] =
    [("secret", 0o644), ("configMap", 0o644), ("downwardAPI", 0o644), ("projected", 0o644)];

/// upstream: SetDefaults_Volume and those of the sources
fn volume(volume: &mut Value) {
    let has_source = volume.map_at(&[]).iter().any(|(name, v)| name != "name" && !v.is_null());
    if !has_source {
        volume.set(&["emptyDir"], Value::map());
    }
    let policy = pull_policy(volume.str_at(&["image", "reference"]));
    if let Some(image) = volume.at_mut(&["image"]) {
        fill(image, "pullPolicy", policy);
    }
    for (source, mode) in VOLUME_SOURCES_WITH_MODE {
        if let Some(source) = volume.at_mut(&[source]) {
            fill_nil(source, "defaultMode", mode);
        }
    }
    each(volume, &["downwardAPI", "items"]).for_each(downward_file);
    for source in each(volume, &["projected", "sources"]) {
        each(source, &["downwardAPI", "items"]).for_each(downward_file);
        if let Some(token) = source.at_mut(&["serviceAccountToken"]) {
            fill_nil(token, "expirationSeconds", 3600);
        }
        if let Some(certificate) = source.at_mut(&["podCertificate"]) {
            fill_nil(certificate, "maxExpirationSeconds", 86400);
        }
    }
    if let Some(host) = volume.at_mut(&["hostPath"]) {
        fill_nil(host, "type", "");
    }
    if let Some(claim) = volume.at_mut(&["ephemeral", "volumeClaimTemplate", "spec"]) {
        fill_nil(claim, "volumeMode", "Filesystem");
    }
    network_volume(volume);
}

/// Defaults of volume types of storage systems.
fn network_volume(volume: &mut Value) {
    if let Some(iscsi) = volume.at_mut(&["iscsi"]) {
        fill(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = volume.at_mut(&["rbd"]) {
        fill(rbd, "pool", "rbd");
        fill(rbd, "user", "admin");
        fill(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(azure) = volume.at_mut(&["azureDisk"]) {
        fill_nil(azure, "cachingMode", "ReadWrite");
        fill_nil(azure, "fsType", "ext4");
        fill_nil(azure, "readOnly", false);
        fill_nil(azure, "kind", "Shared");
    }
    if let Some(scale) = volume.at_mut(&["scaleIO"]) {
        fill(scale, "storageMode", "ThinProvisioned");
        fill(scale, "fsType", "xfs");
    }
}

fn downward_file(file: &mut Value) {
    if let Some(field) = file.at_mut(&["fieldRef"]) {
        fill(field, "apiVersion", "v1");
    }
}

const INIT_CONTAINER_ANNOTATIONS: [&str; 4] = [
    "pod.beta.kubernetes.io/init-containers",
    "pod.alpha.kubernetes.io/init-containers",
    "pod.beta.kubernetes.io/init-container-statuses",
    "pod.alpha.kubernetes.io/init-container-statuses",
];

/// A template between `v1` and upstream's internal type: serviceAccount says what serviceAccountName says, annotations of
/// old init containers are dropped. upstream: Convert_v1_PodSpec_To_core_PodSpec, dropInitContainerAnnotations
pub fn convert_template(template: &mut Value) {
    if let Some(annotations) = template.at_mut(&["metadata", "annotations"]).and_then(Value::as_map_mut) {
        annotations.retain(|key, _| !INIT_CONTAINER_ANNOTATIONS.contains(&key));
    }
    let Some(spec) = template.at_mut(&["spec"]) else { return };
    let name = match (spec.str_at(&["serviceAccountName"]), spec.str_at(&["serviceAccount"])) {
        ("", alias) => alias.to_string(),
        (name, _) => name.to_string(),
    };
    for member in ["serviceAccountName", "serviceAccount"] {
        if name.is_empty() {
            spec.remove(&[member]);
        } else {
            spec.set(&[member], name.as_str());
        }
    }
    fill_nil(spec, "securityContext", Value::map());
}

/// A Pod: also grace periods below zero, and podIP that says what podIPs says first.
/// upstream: Convert_v1_Pod_To_core_Pod, Convert_v1_PodStatus_To_core_PodStatus
pub fn convert_pod(pod: &mut Value) {
    convert_template(pod);
    if pod.int_at(&["spec", "terminationGracePeriodSeconds"]) < 0 {
        pod.set(&["spec", "terminationGracePeriodSeconds"], 1);
    }
    let ip = pod.str_at(&["status", "podIP"]).to_string();
    let first = pod.list_at(&["status", "podIPs"]).first().map(|i| i.str_at(&["ip"]).to_string());
    match (ip.as_str(), first) {
        ("", Some(first)) => pod.set(&["status", "podIP"], first),
        ("", None) => {}
        (ip, first) if first.as_deref() != Some(ip) => {
            let mut item = Value::map();
            item.set(&["ip"], ip);
            pod.set(&["status", "podIPs"], vec![item]);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::pull_policy;

    #[test]
    fn images_without_tag_are_pulled_always() {
        for (image, want) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.2", "IfNotPresent"),
            ("registry:5000/a/b", "Always"),
            ("registry:5000/a/b:1", "IfNotPresent"),
            ("a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "IfNotPresent"),
            ("UPPER", "IfNotPresent"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), want, "{image}");
        }
    }
}
