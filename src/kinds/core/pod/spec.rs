//! A pod's spec, in a Pod or in a template. upstream: validation.go ValidatePodSpec

use copepod_meta::pod_references::CONTAINER_LISTS;
use copepod_meta::{ErrorList, FieldError, Path, Value, names};
use std::collections::BTreeSet;

use super::containers::{self, Pod};
use super::options::Options;
use super::{scheduling, security, volumes, windows};
use crate::check::At;
use crate::core::ip;
use crate::core::resources::{self, Level, quantity};
use crate::metadata;

/// Visits all containers in upstream's order. upstream: pkg/apis/core/pods VisitContainersWithPath
pub fn each_container(spec: At, mut visit: impl FnMut(At)) {
    for list in CONTAINER_LISTS {
        for container in spec.get(list).items() {
            visit(container);
        }
    }
}

/// upstream: ValidatePodSpec
pub fn validate(spec: At, opts: &Options, e: &mut ErrorList) {
    let grace = spec.get("terminationGracePeriodSeconds");
    if !grace.is_set() {
        grace.required(e, "");
    }
    let volumes = volumes::volumes(spec.get("volumes"), opts, e);
    let claims = spec.get("resourceClaims");
    let pod = Pod {
        volumes,
        claims: claims
            .value
            .list_at(&[])
            .iter()
            .map(|c| c.str_at(&["name"]))
            .filter(|n| !n.is_empty())
            .collect(),
        grace_period: grace.opt_int(),
        os: spec.get("os").is_set().then(|| spec.value.str_at(&["os", "name"])),
        restart_policy: spec.value.str_at(&["restartPolicy"]),
        host_users: spec.get("hostUsers").value.as_bool() != Some(false),
        opts,
    };
    resource_claims(claims, opts, e);
    containers::regular(spec.get("containers"), &pod, e);
    containers::init(spec.get("initContainers"), spec.value.get("containers"), &pod, e);
    containers::ephemeral(spec.get("ephemeralContainers"), spec, &pod, e);
    if opts.pod_level_resources {
        pod_resources(spec, &pod, e);
    }
    host_network_ports(spec, opts, e);
    policies(spec, e);
    metadata::labels(spec.get("nodeSelector"), e);
    security::pod(spec, opts, e);
    scheduling::affinity(spec.get("affinity"), opts, e);
    dns_config(spec, e);
    for gate in spec.get("readinessGates").items() {
        gate.get("conditionType").qualified_name(e);
    }
    scheduling::gates(spec.get("schedulingGates"), e);
    scheduling::spread_constraints(spec.get("topologySpreadConstraints"), opts, e);
    windows::host_process(spec, e);
    host_users(spec, opts, e);
    hostname_override(spec, e);
    references(spec, opts, e);
    os(spec, e);
    scheduling_group(spec.get("schedulingGroup"), e);
    file_key_volumes(spec, e);
}

/// restartPolicy and dnsPolicy.
fn policies(spec: At, e: &mut ErrorList) {
    let restart = spec.get("restartPolicy");
    if restart.need(e) {
        restart.one_of(e, &["Always", "OnFailure", "Never"]);
    }
    let dns = spec.get("dnsPolicy");
    if dns.need(e) {
        dns.one_of(e, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    }
}

/// Names of other objects and small values, in upstream's order.
fn references(spec: At, opts: &Options, e: &mut ErrorList) {
    for member in ["serviceAccountName", "nodeName"] {
        let at = spec.get(member);
        if !at.is_empty() {
            at.dns_subdomain(e);
        }
    }
    let deadline = spec.get("activeDeadlineSeconds");
    if deadline.is_set() {
        deadline.in_range(e, 1, i64::from(i32::MAX));
    }
    for member in ["hostname", "subdomain"] {
        let at = spec.get(member);
        if !at.is_empty() {
            at.dns_label(e);
        }
    }
    scheduling::tolerations(spec.get("tolerations"), opts.toleration_comparison, e);
    for alias in spec.get("hostAliases").items() {
        ip::legacy(alias.get("ip"), &[], e);
        for name in alias.get("hostnames").items() {
            name.dns_subdomain(e);
        }
    }
    let class = spec.get("priorityClassName");
    if !class.is_empty() {
        class.dns_subdomain(e);
    }
    let runtime = spec.get("runtimeClassName");
    if runtime.is_set() {
        runtime.dns_subdomain(e);
    }
    let preemption = spec.get("preemptionPolicy");
    if preemption.is_set() {
        preemption_policy(preemption, e);
    }
    let overhead = spec.get("overhead");
    if overhead.is_set() {
        overhead_amounts(overhead, opts, e);
    }
}

/// upstream: ValidatePreemptionPolicy
pub fn preemption_policy(at: At, e: &mut ErrorList) {
    if at.need(e) {
        at.one_of(e, &["PreemptLowerPriority", "Never"]);
    }
}

/// Overhead is checked as limits; paths say so. upstream: validateOverhead
pub fn overhead_amounts(at: At, opts: &Options, e: &mut ErrorList) {
    let mut requirements = Value::map();
    requirements.set(&["limits"], at.value.clone());
    resources::requirements(at.with(&requirements), Level::Container, &BTreeSet::new(), opts, e);
}

/// upstream: validatePodResourceClaims
fn resource_claims(list: At, opts: &Options, e: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for claim in list.items() {
        if opts.pod.as_ref().is_some_and(|p| p.mirror) {
            e.push(FieldError::forbidden(&Path::nameless(), "static pods do not support resource claims"));
            continue;
        }
        let name = claim.get("name");
        if name.is_empty() {
            name.required(e, "");
        } else if seen.contains(name.str()) {
            name.duplicate(e);
        } else {
            name.dns_label(e);
            seen.insert(name.str());
        }
        let (direct, template) = (claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName"));
        let printed = || crate::print::internal(claim.value, "core/PodResourceClaim");
        if direct.is_set() && template.is_set() {
            let message =
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
            claim.invalid_printed(e, printed(), message);
        }
        if !direct.is_set() && !template.is_set() {
            let message = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
            claim.invalid_printed(e, printed(), message);
        }
        for at in [direct, template] {
            if at.is_set() {
                at.dns_subdomain(e);
            }
        }
    }
}

/// upstream: validatePodResources
fn pod_resources(spec: At, pod: &Pod, e: &mut ErrorList) {
    let at = spec.get("resources");
    if !at.is_set() {
        return;
    }
    if pod.os == Some("windows") {
        return at.forbidden(e, "may not be set for a windows pod");
    }
    let claims = at.get("claims");
    if claims.is_set() {
        claims.forbidden(e, "claims may not be set for Resources at pod-level");
    }
    resources::requirements(at, Level::Pod, &pod.claims, pod.opts, e);
    pod_resource_consistency(spec, at, e);
}

/// upstream: validatePodResourceConsistency
fn pod_resource_consistency(spec: At, at: At, e: &mut ErrorList) {
    let (requests, limits) = (at.get("requests"), at.get("limits"));
    for (name, sum) in resources::aggregate(spec.value, "requests") {
        let own = requests.key(&name);
        if own.is_set() && sum > quantity(own.value) {
            let message = format!("must be greater than or equal to aggregate container requests of {sum}");
            own.invalid_str(e, &quantity(own.value).to_string(), message);
        }
    }
    for (name, sum) in resources::aggregate(spec.value, "limits") {
        let own = limits.key(&name);
        if resources::is_huge_page(&name) && own.is_set() && sum > quantity(own.value) {
            let message = format!("must be greater than or equal to aggregate container limits of {sum}");
            own.invalid_str(e, &quantity(own.value).to_string(), message);
        }
    }
    for (i, container) in spec.value.list_at(&["containers"]).iter().enumerate() {
        for (name, limit) in container.map_at(&["resources", "limits"]).iter() {
            let own = limits.key(name);
            if own.is_set() && quantity(limit) > quantity(own.value) {
                // Upstream's path: the container below `resources`, the name before `limits`.
                let containers = at.get("containers");
                let container = containers.index(i);
                let named = container.key(name);
                let message = format!("must be less than or equal to pod limits of {}", quantity(own.value));
                named.get("limits").invalid_str(e, &quantity(limit).to_string(), message);
            }
        }
    }
}

/// upstream: validatePodHostNetworkDeps
fn host_network_ports(spec: At, opts: &Options, e: &mut ErrorList) {
    if !spec.get("hostNetwork").bool() {
        return;
    }
    for container in spec.get("containers").items() {
        for port in container.get("ports").items() {
            let (host, own) = (port.get("hostPort"), port.get("containerPort"));
            if (opts.is_pod || host.int() != 0) && host.int() != own.int() {
                host.invalid_int(e, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

/// upstream: validatePodDNSConfig
fn dns_config(spec: At, e: &mut ErrorList) {
    const NAMESERVERS_MAX: usize = 3;
    const SEARCHES_MAX: usize = 32;
    const SEARCH_BYTES_MAX: usize = 2048;
    let config = spec.get("dnsConfig");
    let servers = config.get("nameservers");
    if spec.get("dnsPolicy").str() == "None" {
        if !config.is_set() {
            return config.required(e, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            return servers.required(e, "must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    if servers.len() > NAMESERVERS_MAX {
        servers.invalid(e, format!("must not have more than {NAMESERVERS_MAX} nameservers"));
    }
    for server in servers.items() {
        ip::legacy(server, &[], e);
    }
    let searches = config.get("searches");
    if searches.len() > SEARCHES_MAX {
        searches.invalid(e, format!("must not have more than {SEARCHES_MAX} search paths"));
    }
    let bytes = searches.items().map(|s| s.len()).sum::<usize>() + searches.len().saturating_sub(1);
    if bytes > SEARCH_BYTES_MAX {
        let message = format!(
            "must not have more than {SEARCH_BYTES_MAX} characters (including spaces) in the search list"
        );
        searches.invalid(e, message);
    }
    for search in searches.items().filter(|s| s.str() != ".") {
        let text = search.str().strip_suffix('.').unwrap_or(search.str());
        for message in names::dns1123_subdomain_with_underscore(text) {
            search.invalid_str(e, text, message);
        }
    }
    for option in config.get("options").items() {
        if option.get("name").is_empty() {
            option.required(e, "must not be empty");
        }
    }
}

/// upstream: validateHostUsers
fn host_users(spec: At, opts: &Options, e: &mut ErrorList) {
    const WHEN: &str = "when `hostUsers` is false";
    if spec.get("hostUsers").value.as_bool() != Some(false) {
        return;
    }
    if !opts.user_namespace_host_network && spec.get("hostNetwork").bool() {
        spec.get("hostNetwork").forbidden(e, WHEN);
    }
    for (member, printed) in [("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.get(member).bool() {
            spec.get(printed).forbidden(e, WHEN);
        }
    }
    if !opts.user_namespace_devices {
        each_container(spec, |container| {
            let devices = container.get("volumeDevices");
            if !devices.is_empty() {
                devices.forbidden(e, WHEN);
            }
        });
    }
}

/// upstream: validatePodHostName
fn hostname_override(spec: At, e: &mut ErrorList) {
    const HOSTNAME_BYTES_MAX: usize = 64;
    let at = spec.get("hostnameOverride");
    if !at.is_set() {
        return;
    }
    if spec.get("setHostnameAsFQDN").bool() {
        at.forbidden(e, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.get("hostNetwork").bool() {
        at.forbidden(e, "may not be specified when hostNetwork is true");
    }
    if at.len() > HOSTNAME_BYTES_MAX {
        at.too_long(e, HOSTNAME_BYTES_MAX);
    }
    at.dns_subdomain(e);
}

/// upstream: validateOS and what follows from it
fn os(spec: At, e: &mut ErrorList) {
    let os = spec.get("os");
    if !os.is_set() {
        return;
    }
    let name = os.get("name");
    match name.str() {
        "" => name.required(e, ""),
        "linux" => windows::refuse_windows_options(spec, e),
        "windows" => windows::refuse_linux_options(spec, e),
        _ => os.with(name.value).not_supported(e, &["linux", "windows"]),
    }
}

/// upstream: validateSchedulingGroup
fn scheduling_group(at: At, e: &mut ErrorList) {
    if !at.is_set() {
        return;
    }
    let name = at.get("podGroupName");
    if name.is_set() {
        name.dns_subdomain(e);
    } else {
        name.invalid_printed(e, "null".into(), "must specify one of: `podGroupName`");
    }
}

/// upstream: validateFileKeyRefVolumes
fn file_key_volumes(spec: At, e: &mut ErrorList) {
    let volumes = spec.value.list_at(&["volumes"]);
    each_container(spec, |container| {
        for var in container.get("env").items() {
            if !var.get("valueFrom.fileKeyRef").is_set() {
                continue;
            }
            let name = var.get("valueFrom.fileKeyRef.volumeName");
            match volumes.iter().rfind(|v| v.str_at(&["name"]) == name.str()) {
                None => name.not_found(e),
                Some(v) if v.get("emptyDir").is_null() => {
                    name.invalid(e, "referenced volume must be of type emptyDir");
                }
                Some(_) => {}
            }
        }
    });
}
