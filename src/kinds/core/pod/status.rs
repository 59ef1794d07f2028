//! What the status of a pod may say. upstream: validation.go ValidatePodStatusUpdate

use copepod_meta::{ErrorList, Value};
use std::collections::BTreeSet;

use super::annotations;
use super::options::Options;
use crate::check::At;
use crate::core::{ip, resources};
use crate::strategy::Context;

/// upstream: ValidatePodStatusUpdate
pub fn validate(cx: &Context, pod: &Value, old: &Value, opts: &Options, e: &mut ErrorList) {
    crate::metadata::validate_update_core(pod, old, e);
    let root = At::root(pod);
    let was = old.at(&["metadata", "annotations"]);
    annotations::validate_update(root.get("metadata.annotations"), was, pod.get("spec"), opts, e);
    let status = root.get("status");
    conditions(status.get("conditions"), e);
    let node = old.str_at(&["spec", "nodeName"]);
    if pod.str_at(&["spec", "nodeName"]) != node {
        status.get("nodeName").forbidden(e, "may not be changed directly");
    }
    let nominated = status.get("nominatedNodeName");
    if !nominated.is_empty() && nominated.str() != old.str_at(&["status", "nominatedNodeName"]) {
        nominated.dns_subdomain(e);
        if !node.is_empty() && (cx.feature)("ClearingNominatedNodeNameAfterBinding") {
            nominated.forbidden(e, "may not be set on pods that are already bound to a node");
        }
    }
    let observed = status.get("observedGeneration");
    if observed.int() < 0 {
        observed.invalid_int(e, "must be a non-negative integer");
    }
    status.get("qosClass").immutable(e, old.at(&["status", "qosClass"]));
    for (list, sort) in [
        ("containerStatuses", Sort::Regular),
        ("initContainerStatuses", Sort::Init),
        ("ephemeralContainerStatuses", Sort::Ephemeral),
    ] {
        let was = old.list_at(&["status", list]);
        transitions(status.get(list), was, sort, old.get("spec"), opts, e);
    }
    claims(pod, status, e);
    ips(status, old, e);
    container_statuses(pod, status, opts, e);
}

/// upstream: validatePodConditions
fn conditions(list: At, e: &mut ErrorList) {
    for condition in list.items() {
        let observed = condition.get("observedGeneration");
        if observed.int() < 0 {
            observed.invalid_int(e, "must be a non-negative integer");
        }
        let ty = condition.value.get("type");
        if !matches!(ty.as_str(), Some("PodScheduled" | "Ready" | "Initialized")) {
            condition.get("Type").with(ty).qualified_name(e);
        }
    }
}

/// Sorts of containers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Regular,
    Init,
    Ephemeral,
}

/// Terminated containers that do not restart stay terminated.
/// upstream: ValidateContainerStateTransition and its two siblings
fn transitions(list: At, old: &[Value], sort: Sort, spec: &Value, opts: &Options, e: &mut ErrorList) {
    let all_restart = opts.restart_all && restarts_all(spec);
    if sort != Sort::Ephemeral && all_restart {
        return;
    }
    for (i, was) in old.iter().enumerate() {
        let terminated = was.at(&["state", "terminated"]);
        if terminated.is_null() {
            continue;
        }
        let name = was.str_at(&["name"]);
        let now = list.value.list_at(&[]).iter();
        let mut revived =
            now.filter(|c| c.str_at(&["name"]) == name && c.at(&["state", "terminated"]).is_null());
        if revived.next().is_none() {
            continue;
        }
        let code = terminated.int_at(&["exitCode"]);
        let allowed = match sort {
            Sort::Ephemeral => false,
            Sort::Regular => may_restart(spec, "containers", name, code),
            Sort::Init => may_restart(spec, "initContainers", name, code),
        };
        if !allowed {
            list.index(i).get("state").forbidden(e, "may not be transitioned to non-terminated state");
        }
    }
}

/// Some container's rule restarts all of them. upstream: pkg/api/v1/pod AllContainersCouldRestart
fn restarts_all(spec: &Value) -> bool {
    let containers = ["containers", "initContainers"].into_iter().flat_map(|list| spec.list_at(&[list]));
    containers
        .flat_map(|c| c.list_at(&["restartPolicyRules"]))
        .any(|r| r.str_at(&["action"]) == "RestartAllContainers")
}

/// upstream: pkg/api/v1/pod ContainerShouldRestart
fn may_restart(spec: &Value, list: &str, name: &str, code: i64) -> bool {
    let Some(container) = spec.list_at(&[list]).iter().find(|c| c.str_at(&["name"]) == name) else {
        return false;
    };
    let own = container.str_at(&["restartPolicy"]);
    if !own.is_empty() {
        for rule in container.list_at(&["restartPolicyRules"]) {
            let listed = rule.list_at(&["exitCodes", "values"]).iter().any(|v| v.as_int() == Some(code));
            let matches = match rule.str_at(&["exitCodes", "operator"]) {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            };
            if matches {
                return rule.str_at(&["action"]) == "Restart";
            }
        }
    }
    match if own.is_empty() { spec.str_at(&["restartPolicy"]) } else { own } {
        "Always" => true,
        "OnFailure" => code != 0,
        _ => false,
    }
}

/// Statuses of resource claims. upstream: validatePodResourceClaimStatuses and its siblings
fn claims(pod: &Value, status: At, e: &mut ErrorList) {
    let of_pod = pod.list_at(&["spec", "resourceClaims"]);
    let mut seen = BTreeSet::new();
    for claim in status.get("resourceClaimStatuses").items() {
        let name = claim.get("name");
        if !of_pod.iter().any(|c| c.str_at(&["name"]) == name.str()) {
            name.invalid(e, "must match the name of an entry in `spec.resourceClaims`");
        }
        if !seen.insert(name.str()) {
            name.duplicate(e);
        }
        let made = claim.get("resourceClaimName");
        if made.is_set() {
            made.dns_subdomain(e);
        }
    }
    let extended = status.get("extendedResourceClaimStatus");
    if extended.is_set() {
        extended_claim(pod, extended, e);
    }
    for allocated in status.get("nodeAllocatableResourceClaimStatuses").items() {
        node_allocatable_claim(allocated, of_pod, status, e);
    }
}

fn node_allocatable_claim(at: At, of_pod: &[Value], status: At, e: &mut ErrorList) {
    let name = at.get("resourceClaimName");
    if name.is_empty() {
        name.required(e, "must not be empty");
    }
    let made = status.value.list_at(&["resourceClaimStatuses"]);
    let mut known = of_pod.iter().chain(made).map(|c| c.get("resourceClaimName"));
    if !known.any(|n| !n.is_null() && n.as_str() == Some(name.str())) {
        name.invalid(e, "no mapping found in pod reference");
    }
    for member in ["containers", "resources"] {
        if at.get(member).is_empty() {
            at.get(member).required(e, "must not be empty");
        }
    }
    for (resource, amount) in at.get("resources").entries() {
        if !resources::is_native(resource) {
            amount.invalid_str(e, resource, "must be a node allocatable resource name");
        }
        let quantity = resources::quantity(amount.value);
        if quantity.sign() < 0 {
            amount.invalid_str(e, &quantity.to_string(), "must be non-negative");
        }
    }
}

fn extended_claim(pod: &Value, at: At, e: &mut ErrorList) {
    let mappings = at.get("requestMappings");
    if mappings.is_empty() {
        mappings.required(e, "at least one request mapping is required");
    }
    let containers: Vec<&Value> =
        ["containers", "initContainers"].into_iter().flat_map(|l| pod.list_at(&["spec", l])).collect();
    let mut seen = BTreeSet::new();
    for mapping in mappings.items() {
        let (container, resource) = (mapping.get("containerName"), mapping.get("resourceName"));
        match containers.iter().find(|c| c.str_at(&["name"]) == container.str()) {
            None => container
                .invalid(e, "must match the name of an entry in spec.initContainers.name or spec.containers.name"),
            Some(c) if !c.map_at(&["resources", "requests"]).contains_key(resource.str()) => resource.invalid(
                e,
                "must match the extended resource name of an entry in spec.initContainers.resources.requests or \
                 spec.containers.resources.requests",
            ),
            Some(_) => {}
        }
        let request = mapping.get("requestName");
        at.get("requestName").with(request.value).dns_label(e);
        if !seen.insert((container.str(), resource.str(), request.str())) {
            container.duplicate(e);
            resource.duplicate(e);
            request.duplicate(e);
        }
    }
    let name = at.get("resourceClaimName");
    if name.need(e) {
        name.dns_subdomain(e);
    }
}

/// upstream: validatePodIPs, validateHostIPs
fn ips(status: At, old: &Value, e: &mut ErrorList) {
    for (list, single) in [("podIPs", ""), ("hostIPs", "hostIP")] {
        let at = status.get(list);
        if list == "hostIPs" && !at.is_empty() {
            let first = at.index(0);
            let ip = first.get("ip");
            if ip.str() != status.get(single).str() {
                ip.invalid(e, "must be equal to `hostIP`");
            }
        }
        let known: Vec<&str> = old.list_at(&["status", list]).iter().map(|i| i.str_at(&["ip"])).collect();
        for item in at.items() {
            let ip = item.with(item.value.get("ip"));
            ip::legacy(ip, &known, e);
        }
        let all: Vec<&str> = at.value.list_at(&[]).iter().map(|i| i.str_at(&["ip"])).collect();
        if all.len() < 2 {
            continue;
        }
        if let Some(bad) = all.iter().find(|text| ip::parse(text).is_none()) {
            let position = all.iter().position(|t| t == bad).unwrap_or(0);
            let why = format!("failed to check for dual stack with error:invalid IP[{position}]: {bad}");
            e.push(copepod_meta::FieldError::internal(&at.path, why));
        }
        let families: BTreeSet<bool> =
            all.iter().filter_map(|t| ip::parse(t)).map(|ip| ip.is_ipv4()).collect();
        if families.len() != 2 || all.len() > 2 {
            let printed = crate::print::internal_list(
                at.value,
                if list == "podIPs" { "core/PodIP" } else { "core/HostIP" },
            );
            at.invalid_printed(e, printed, "may specify no more than one IP for each IP family");
        }
    }
}

/// Users, allocated resources, image digests of container statuses.
fn container_statuses(pod: &Value, status: At, opts: &Options, e: &mut ErrorList) {
    let lists = [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", ""),
    ];
    let os = pod.at(&["spec", "os", "name"]).as_str().unwrap_or("linux");
    for (list, _) in lists {
        for container in status.get(list).items() {
            user(container.get("user"), os, e);
        }
    }
    for (list, spec) in lists {
        for container in status.get(list).items() {
            let allocated = container.get("allocatedResourcesStatus");
            if spec.is_empty() {
                if !allocated.is_empty() {
                    allocated.forbidden(e, "must not be specified in container status");
                }
                continue;
            }
            let name = container.value.str_at(&["name"]);
            let of_spec = pod.list_at(&["spec", spec]).iter().find(|c| c.str_at(&["name"]) == name);
            allocated_resources(allocated, of_spec, e);
        }
    }
    if !opts.image_digest {
        return;
    }
    for (list, _) in lists {
        for container in status.get(list).items() {
            for mount in container.get("volumeMounts").items() {
                image_status(mount.get("volumeStatus"), e);
            }
        }
    }
}

/// upstream: validateContainerStatusUsers
fn user(at: At, os: &str, e: &mut ErrorList) {
    let linux = at.get("linux");
    if !linux.is_set() {
        return;
    }
    match os {
        "windows" => linux.forbidden(e, "cannot be set for a windows pod"),
        "linux" => {
            for member in ["uid", "gid"] {
                linux.get(member).in_range(e, 0, i64::from(i32::MAX));
            }
            for group in linux.get("supplementalGroups").items() {
                group.id(e);
            }
        }
        _ => {}
    }
}

/// upstream: validateContainerStatusAllocatedResourcesStatus
fn allocated_resources(list: At, container: Option<&Value>, e: &mut ErrorList) {
    const MESSAGE_BYTES_MAX: usize = 1024;
    for resource in list.items() {
        let name = resource.get("name");
        if let Some(container) = container {
            let claim = name.str().strip_prefix("claim:");
            let known = match claim {
                Some(claim) => container.list_at(&["resources", "claims"]).iter().any(|c| {
                    let (name, request) = (c.str_at(&["name"]), c.str_at(&["request"]));
                    if request.is_empty() { claim == name } else { claim == format!("{name}/{request}") }
                }),
                None => container.map_at(&["resources", "requests"]).contains_key(name.str()),
            };
            if !known {
                name.invalid(e, match claim {
                    Some(_) => {
                        "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or \
                         'claim:<claimName>' if request is empty"
                    }
                    None => "must match one of the container's resource requests",
                });
            }
        }
        let mut seen = BTreeSet::new();
        for device in resource.get("resources").items() {
            device.get("health").one_of(e, &["Healthy", "Unhealthy", "Unknown"]);
            let message = device.get("message");
            if message.is_set() && message.is_empty() {
                message.required(e, "must be non-empty if specified");
            } else if message.len() > MESSAGE_BYTES_MAX {
                message.too_long(e, MESSAGE_BYTES_MAX);
            }
            let id = device.get("resourceID");
            if !seen.insert(id.str()) {
                id.duplicate(e);
            }
        }
    }
}

/// upstream: validateVolumeStatus, validateImageVolumeStatus
fn image_status(at: At, e: &mut ErrorList) {
    const IMAGE_BYTES_MAX: usize = 256;
    let image = at.get("image");
    if !image.is_set() {
        return;
    }
    let reported = at.get("imageVolumeStatus");
    let reported = reported.get("imageRef");
    let reference = reported.with(image.value.get("imageRef"));
    if reference.is_empty() {
        reference.required(e, "imageRef must not be empty");
    }
    if reference.len() > IMAGE_BYTES_MAX {
        reference.too_long(e, IMAGE_BYTES_MAX);
    }
}

/// Writers of status that leave observedGeneration out keep the stored one.
/// upstream: pkg/registry/core/pod/strategy.go preserveOldObservedGeneration
pub fn keep_observed_generation(pod: &mut Value, old: &Value) {
    let was = old.int_at(&["status", "observedGeneration"]);
    if pod.int_at(&["status", "observedGeneration"]) == 0 && was != 0 {
        pod.set(&["status", "observedGeneration"], was);
    }
    // A list a type: validation lets several conditions of one type pass.
    let mut known: Vec<(&str, i64)> = old
        .list_at(&["status", "conditions"])
        .iter()
        .map(|c| (c.str_at(&["type"]), c.int_at(&["observedGeneration"])))
        .collect();
    let Some(conditions) = pod.at_mut(&["status", "conditions"]).and_then(Value::as_list_mut) else { return };
    for condition in conditions {
        let Some(i) = known.iter().position(|(ty, _)| *ty == condition.str_at(&["type"])) else { continue };
        let (_, generation) = known.remove(i);
        if condition.int_at(&["observedGeneration"]) == 0 && generation != 0 {
            condition.set(&["observedGeneration"], generation);
        }
    }
}
