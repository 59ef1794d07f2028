//! Containers of all three sorts. upstream: validation.go validateContainers, validateInitContainers,
//! validateEphemeralContainers

use copepod_meta::{ErrorList, Value};
use std::collections::{BTreeMap, BTreeSet};

use super::options::Options;
use super::{env, mounts, probes, security};
use crate::check::At;
use crate::core::resources::{self, Level};

/// What validation of a container needs to know of its pod.
pub struct Pod<'a> {
    /// Valid volumes by name.
    pub volumes: BTreeMap<&'a str, &'a Value>,
    /// Names of the pod's resource claims.
    pub claims: BTreeSet<&'a str>,
    /// terminationGracePeriodSeconds
    pub grace_period: Option<i64>,
    /// spec.os.name; `None` without spec.os.
    pub os: Option<&'a str>,
    /// restartPolicy of the pod.
    pub restart_policy: &'a str,
    /// Shares the host's user namespace.
    pub host_users: bool,
    /// Options.
    pub opts: &'a Options,
}

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

/// upstream: validateContainers
pub fn regular(list: At, pod: &Pod, e: &mut ErrorList) {
    if list.is_empty() {
        return list.required(e, "");
    }
    let mut names = BTreeSet::new();
    for container in list.items() {
        common(container, pod, e);
        let name = container.get("name");
        if !names.insert(name.str()) {
            name.duplicate(e);
        }
        lifecycle_and_probes(container, pod, e);
        if pod.opts.restart_rules {
            restart_policy(container, pod.opts, e);
        } else if container.get("restartPolicy").is_set() {
            container.get("restartPolicy").forbidden(e, "may not be set for non-init containers");
        }
    }
    host_ports(list.items(), e);
}

fn lifecycle_and_probes(container: At, pod: &Pod, e: &mut ErrorList) {
    probes::lifecycle(container.get("lifecycle"), pod, e);
    probes::probe_of(container.get("livenessProbe"), probes::Kind::Liveness, pod, e);
    probes::probe_of(container.get("readinessProbe"), probes::Kind::Readiness, pod, e);
    probes::probe_of(container.get("startupProbe"), probes::Kind::Startup, pod, e);
}

/// upstream: validateInitContainers
pub fn init(list: At, regular: &Value, pod: &Pod, e: &mut ErrorList) {
    let mut names: BTreeSet<&str> = regular.list_at(&[]).iter().map(|c| c.str_at(&["name"])).collect();
    for container in list.items() {
        common(container, pod, e);
        init_restart_policy(container, pod.opts, e);
        let always = container.get("restartPolicy").str() == "Always";
        let name = container.get("name");
        if names.contains(name.str()) {
            name.duplicate(e);
        } else if !name.is_empty() {
            names.insert(name.str());
        }
        // Init containers run one by one: conflicts within each. Upstream counts its only container as index 0.
        let alone = Value::List(vec![container.value.clone()]);
        host_ports(list.with(&alone).items(), e);
        if always {
            lifecycle_and_probes(container, pod, e);
        } else {
            for member in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                let at = container.get(member);
                if at.is_set() {
                    at.forbidden(e, "may not be set for init containers without restartPolicy=Always");
                }
            }
        }
        if !always && !pod.opts.init_restart_container {
            for policy in container.get("resizePolicy").items() {
                let restart = policy.get("restartPolicy");
                if restart.str() == "RestartContainer" {
                    restart
                        .invalid(e, "must not be set to 'RestartContainer' for non-sidecar initContainers");
                }
            }
        }
    }
}

/// Fields of an ephemeral container that may be set, in the order of Go's struct: (JSON name, allowed).
const EPHEMERAL_FIELDS_REFUSED: &[&str] = &[
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

/// upstream: validateEphemeralContainers
pub fn ephemeral(list: At, spec: At, pod: &Pod, e: &mut ErrorList) {
    const CANNOT: &str = "cannot be set for an Ephemeral Container";
    let others: BTreeSet<&str> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|member| spec.value.list_at(&[member]))
        .map(|c| c.str_at(&["name"]))
        .collect();
    let mut names = others.clone();
    for container in list.items() {
        common(container, pod, e);
        only_for_pod(container, e);
        let name = container.get("name");
        if !names.insert(name.str()) {
            name.duplicate(e);
        }
        let target = container.get("targetContainerName");
        if !target.is_empty() && !others.contains(target.str()) {
            target.not_found(e);
        }
        for member in EPHEMERAL_FIELDS_REFUSED {
            let at = container.get(member);
            let set = match *member {
                "resources" => !crate::equality::same(at.value, &Value::Null),
                _ => at.is_set(),
            };
            if set {
                at.forbidden(e, CANNOT);
            }
        }
        for mount in container.get("volumeMounts").items() {
            for member in ["subPath", "subPathExpr"] {
                if !mount.get(member).is_empty() {
                    mount.get(member).forbidden(e, CANNOT);
                }
            }
        }
    }
}

/// upstream: validateContainerOnlyForPod
pub fn only_for_pod(container: At, e: &mut ErrorList) {
    let image = container.get("image");
    if image.str().trim().len() != image.len() {
        image.invalid(e, "must not have leading or trailing whitespace");
    }
}

/// upstream: validateContainerCommon
fn common(container: At, pod: &Pod, e: &mut ErrorList) {
    let name = container.get("name");
    if name.need(e) {
        name.dns_label(e);
    }
    container.get("image").need(e);
    let message_policy = container.get("terminationMessagePolicy");
    if message_policy.need(e) {
        message_policy.one_of(e, &["File", "FallbackToLogsOnError"]);
    }
    ports(container.get("ports"), e);
    env::vars(container.get("env"), e);
    env::from(container.get("envFrom"), e);
    mounts::mounts(container, pod, e);
    mounts::devices(container, pod, e);
    pull_policy(container.get("imagePullPolicy"), e);
    resources::requirements(container.get("resources"), Level::Container, &pod.claims, pod.opts, e);
    resize_policy(container.get("resizePolicy"), pod.restart_policy, e);
    security::container(container.get("securityContext"), pod.host_users, e);
}

/// upstream: validatePullPolicy
pub fn pull_policy(at: At, e: &mut ErrorList) {
    if at.need(e) {
        at.one_of(e, PULL_POLICIES);
    }
}

/// upstream: validateContainerPorts
fn ports(list: At, e: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for port in list.items() {
        let name = port.get("name");
        if !name.is_empty() {
            let wrong = copepod_meta::names::port_name(name.str());
            if !wrong.is_empty() {
                // Upstream reuses its loop variable here; the path is that of the port all the same.
                name.invalid_each(e, wrong);
            } else if !seen.insert(name.str()) {
                name.duplicate(e);
            }
        }
        let number = port.get("containerPort");
        if number.need(e) {
            number.port(e);
        }
        let host = port.get("hostPort");
        if !host.is_empty() {
            host.port(e);
        }
        let protocol = port.get("protocol");
        if protocol.need(e) {
            protocol.one_of(e, &["SCTP", "TCP", "UDP"]);
        }
    }
}

/// upstream: checkHostPortConflicts
fn host_ports<'v: 'p, 'p>(containers: impl Iterator<Item = At<'v, 'p>>, e: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for container in containers {
        for port in container.get("ports").items() {
            let host = port.get("hostPort");
            if host.int() == 0 {
                continue;
            }
            let key = format!("{}/{}/{}", port.get("protocol").str(), port.get("hostIP").str(), host.int());
            if seen.contains(&key) {
                host.duplicate_str(e, &key);
            }
            seen.insert(key);
        }
    }
}

/// upstream: validateResizePolicy
fn resize_policy(list: At, pod_restart_policy: &str, e: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for policy in list.items() {
        let (resource, restart) = (policy.get("resourceName"), policy.get("restartPolicy"));
        if !seen.insert(resource.str()) {
            policy.duplicate_str(e, resource.str());
        }
        for (member, allowed) in
            [(resource, &["cpu", "memory"] as &[&str]), (restart, &["NotRequired", "RestartContainer"])]
        {
            let at_list = list.with(member.value);
            if at_list.need(e) {
                at_list.one_of(e, allowed);
            }
        }
        if pod_restart_policy == "Never" && restart.str() != "NotRequired" {
            list.with(restart.value).invalid(e, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

/// upstream: validateInitContainerRestartPolicy
fn init_restart_policy(container: At, opts: &Options, e: &mut ErrorList) {
    let (policy, rules) = (container.get("restartPolicy"), container.get("restartPolicyRules"));
    if !policy.is_set() {
        if !rules.is_empty() {
            policy.required(e, "must specify restartPolicy when restart rules are used");
        }
    } else if !opts.restart_rules {
        policy.one_of(e, &["Always"]);
    } else if policy.str() != "Always" || opts.restart_all {
        restart_policy(container, opts, e);
    } else if !rules.is_empty() {
        rules.forbidden(
            e,
            "restartPolicyRules are not allowed for init containers with restart policy Always",
        );
    }
}

/// upstream: validateContainerRestartPolicy
fn restart_policy(container: At, opts: &Options, e: &mut ErrorList) {
    const RULES_MAX: usize = 20;
    const EXIT_CODES_MAX: usize = 255;
    let (policy, rules) = (container.get("restartPolicy"), container.get("restartPolicyRules"));
    if policy.is_set() {
        policy.one_of(e, &["Always", "Never", "OnFailure"]);
    } else if rules.is_empty() {
        return;
    } else {
        policy.required(e, "must specify restartPolicy when restart rules are used");
    }
    if rules.len() > RULES_MAX {
        rules.too_many(e, rules.len(), RULES_MAX);
    }
    for rule in rules.items() {
        let actions: &[&str] =
            if opts.restart_all { &["Restart", "RestartAllContainers"] } else { &["Restart"] };
        rule.get("action").one_of(e, actions);
        let codes = rule.get("exitCodes");
        if codes.is_set() {
            codes.get("operator").one_of(e, &["In", "NotIn"]);
            let values = codes.get("values");
            if values.len() > EXIT_CODES_MAX {
                values.too_many(e, values.len(), EXIT_CODES_MAX);
            }
        } else {
            codes.required(e, "must be specified");
        }
    }
}
