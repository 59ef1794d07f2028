//! Warnings about pods that are accepted all the same. upstream: pkg/api/pod/warnings.go

use copepod_meta::{Path, Value};
use std::collections::{BTreeMap, BTreeSet};

use super::spec::each_container;
use crate::check::At;
use crate::core::resources::quantity;
use crate::core::{ip, node_labels};

/// Of a Pod (`template` false) or of a template at a path. upstream: warningsForPodSpecAndMeta
pub fn of(at: At, template: bool, out: &mut Vec<String>) {
    let spec = at.get("spec");
    node_selection(spec, out);
    annotations(at, out);
    volumes(spec, out);
    super::overlaps::warnings(spec.value, out);
    duplicates(spec.get("hostAliases"), "ip", "ip", out);
    duplicates(spec.get("imagePullSecrets"), "name", "name", out);
    for secret in spec.get("imagePullSecrets").items() {
        let name = secret.get("name");
        if name.is_empty() {
            out.push(format!("{}: invalid empty name \"\"", name.path));
        }
    }
    for name in ["memory", "ephemeral-storage"] {
        fractional(spec.get("overhead").key(name), out);
    }
    seccomp(at, spec, out);
    containers(at, spec, template, out);
    ports(spec, out);
    port_names(spec, out);
    if spec.get("terminationGracePeriodSeconds").int() < 0 {
        let path = spec.get("terminationGracePeriodSeconds");
        out.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            path.path
        ));
    }
    null_selectors(spec, out);
    for server in spec.get("dnsConfig.nameservers").items() {
        ip::warnings(server, out);
    }
    for alias in spec.get("hostAliases").items() {
        ip::warnings(alias.get("ip"), out);
    }
}

const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Deprecated node labels in selectors, affinity and spread constraints.
fn node_selection(spec: At, out: &mut Vec<String>) {
    for (key, at) in spec.get("nodeSelector").entries() {
        if let Some(why) = node_labels::deprecated(key) {
            out.push(format!("{}: {why}", at.path));
        }
    }
    let affinity = spec.get("affinity.nodeAffinity");
    for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms").items() {
        node_labels::term_warnings(term, false, out);
    }
    for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        node_labels::term_warnings(term.get("preference"), true, out);
    }
    for constraint in spec.get("topologySpreadConstraints").items() {
        let key = constraint.get("topologyKey");
        if let Some(why) = node_labels::deprecated(key.str()) {
            out.push(format!("{}: {} is {why}", key.path, key.str()));
        }
        let selector = constraint.get("labelSelector");
        if !selector.is_set() {
            out.push(format!("{}: {NULL_SELECTOR}", selector.path));
        }
    }
}

fn null_selectors(spec: At, out: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = spec.get("affinity");
        let affinity = affinity.get(kind);
        for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            let selector = term.get("labelSelector");
            if !selector.is_set() {
                out.push(format!("{}: {NULL_SELECTOR}", selector.path));
            }
        }
        for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            let selector = term.get("podAffinityTerm.labelSelector");
            if !selector.is_set() {
                out.push(format!("{}: {NULL_SELECTOR}", selector.path));
            }
        }
    }
}

fn annotations(at: At, out: &mut Vec<String>) {
    let annotations = at.get("metadata.annotations");
    for (key, why) in [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            "non-functional in v1.16+; use the \"priorityClassName\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/unsafe-sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
    ] {
        if annotations.map().contains_key(key) {
            out.push(format!("{}: {why}", annotations.key(key).path));
        }
    }
}

fn volumes(spec: At, out: &mut Vec<String>) {
    for volume in spec.get("volumes").items() {
        for (json, printed, why) in [
            ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
            ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
            ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
            ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
            ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
            ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
            ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
            ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
            ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
        ] {
            if volume.get(json).is_set() {
                out.push(format!("{}: {why}", volume.get(printed).path));
            }
        }
    }
}

fn duplicates(list: At, member: &str, what: &str, out: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for item in list.items() {
        let at = item.get(member);
        if !seen.insert(at.str()) {
            out.push(format!("{}: duplicate {what} {}", at.path, copepod_meta::field::quote(at.str())));
        }
    }
}

fn fractional(at: At, out: &mut Vec<String>) {
    if at.is_set() && quantity(at.value).milli_value() % 1000 != 0 {
        let text = quantity(at.value);
        out.push(format!("{}: fractional byte value \"{text}\" is invalid, must be an integer", at.path));
    }
}

fn seccomp(at: At, spec: At, out: &mut Vec<String>) {
    let key = "seccomp.security.alpha.kubernetes.io/pod";
    let annotations = at.get("metadata.annotations");
    if !spec.get("securityContext.seccompProfile").is_set() && annotations.map().contains_key(key) {
        let path = annotations.key(key).path.to_string();
        out.push(format!("{path}: non-functional in v1.27+; use the \"seccompProfile\" field instead"));
    }
}

fn containers(at: At, spec: At, template: bool, out: &mut Vec<String>) {
    let annotations = at.get("metadata.annotations");
    let of_pod = spec.value.at(&["securityContext", "appArmorProfile"]);
    each_container(spec, |container| {
        let name = container.value.str_at(&["name"]);
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
        if !container.get("securityContext.seccompProfile").is_set() && annotations.map().contains_key(&key) {
            let path = annotations.key(&key).path.to_string();
            out.push(format!("{path}: non-functional in v1.27+; use the \"seccompProfile\" field instead"));
        }
        let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
        let own = container.get("securityContext.appArmorProfile").is_set();
        if let Some(text) = annotations.map().get(&key).filter(|_| template && !own) {
            let field = super::app_armor_field(text.as_str().unwrap_or(""));
            if of_pod.is_null() || field.as_ref() != Some(of_pod) {
                let path = annotations.key(&key).path.to_string();
                out.push(format!(
                    "{path}: deprecated since v1.30; use the \"appArmorProfile\" field instead"
                ));
            }
        }
        for (list, name) in [
            ("resources.limits", "memory"),
            ("resources.requests", "memory"),
            ("resources.limits", "ephemeral-storage"),
            ("resources.requests", "ephemeral-storage"),
        ] {
            fractional(container.get(list).key(name), out);
        }
        env(container.get("env"), out);
    });
}

/// A variable that hides an earlier one without using it.
fn env(list: At, out: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for var in list.items() {
        let name = var.get("name").str();
        if seen.insert(name) {
            continue;
        }
        let (value, reference) = (var.get("value").str(), format!("$({name})"));
        if var.get("valueFrom").is_set() || value == reference || !value.contains(&reference) {
            out.push(format!(
                "{}: hides previous definition of {}, which may be dropped when using apply",
                var.path,
                copepod_meta::field::quote(name)
            ));
        }
    }
}

fn ports(spec: At, out: &mut Vec<String>) {
    let mut all: BTreeMap<String, Vec<(String, &Value)>> = BTreeMap::new();
    each_container(spec, |container| {
        for port in container.get("ports").items() {
            let (host_ip, host_port) = (port.value.str_at(&["hostIP"]), port.value.int_at(&["hostPort"]));
            if !host_ip.is_empty() && host_port == 0 {
                let text = go_port(port.value);
                out.push(format!("{}: hostIP set without hostPort: {text}", port.path));
            }
            let key = format!("{}/{}", port.get("containerPort").int(), port.get("protocol").str());
            let others = all.entry(key).or_default();
            for (path, other) in others.iter() {
                let (other_ip, other_port) = (other.str_at(&["hostIP"]), other.int_at(&["hostPort"]));
                let why = if host_ip == other_ip && host_port == other_port {
                    "duplicate port definition with"
                } else if host_port == 0 || other_port == 0 {
                    "overlapping port definition with"
                } else if host_port == other_port && host_ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous port definition with"
                } else {
                    continue;
                };
                out.push(format!("{}: {why} {path}", port.path));
            }
            // The value outlives the walk; the path is rendered for the later ones.
            others.push((port.path.to_string(), find(spec.value, port.value)));
        }
    });
}

/// The same value, borrowed from the spec.
fn find<'v>(spec: &'v Value, port: &Value) -> &'v Value {
    let all = copepod_meta::pod_references::all_containers(spec).flat_map(|c| c.list_at(&["ports"]));
    all.into_iter().find(|p| *p == port).unwrap_or(spec)
}

/// Go's `%+v` of a ContainerPort.
fn go_port(port: &Value) -> String {
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        port.str_at(&["name"]),
        port.int_at(&["hostPort"]),
        port.int_at(&["containerPort"]),
        port.str_at(&["protocol"]),
        port.str_at(&["hostIP"])
    )
}

fn port_names(spec: At, out: &mut Vec<String>) {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    each_container(spec, |container| {
        for port in container.get("ports").items() {
            let name = port.get("name").str();
            if name.is_empty() {
                continue;
            }
            match seen.get(name) {
                Some(other) => out.push(format!(
                    "{}: duplicate port name {} with {other}, services and probes that select ports by name will use {other}",
                    port.path,
                    copepod_meta::field::quote(name)
                )),
                None => {
                    seen.insert(name.into(), port.path.to_string());
                }
            }
        }
    });
}

/// The warning about a name that makes a poor host name. upstream: strategy.go WarningsOnCreate
pub fn host_name(pod: &Value, out: &mut Vec<String>) {
    let wrong = copepod_meta::names::dns1123_label(pod.str_at(&["metadata", "name"]));
    if !wrong.is_empty() {
        out.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is \
             recommended: {}",
            crate::print::go_list(&wrong)
        ));
    }
}

/// For a template at a path of another object.
pub fn of_template(object: &Value, path: &str, out: &mut Vec<String>) {
    let steps: Vec<&str> = path.split('.').collect();
    of(At::new(object.at(&steps), Path::new(path)), true, out);
}
