//! The conditions of a pod that the node agent owns. Pure.
//!
//! upstream: kubelet/status/generate.go

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    model::{init_containers, is_sidecar, spec},
    plan::sandbox_changed,
    status::StatusInputs,
};
use crate::text::go_list;

/// Conditions that only this agent writes.
const OWNED: &[&str] = &[
    "PodScheduled",
    "Ready",
    "Initialized",
    "ContainersReady",
    "PodReadyToStartContainers",
    "PodResizePending",
    "PodResizeInProgress",
    "AllContainersRestarting",
];

/// One verdict: status, reason, message.
type Verdict = (bool, &'static str, String);

const TRUE: fn() -> Verdict = || (true, "", String::new());

/// All conditions: the others' as they are, then ours in upstream's order.
pub(super) fn generate(
    inputs: StatusInputs<'_>,
    regular: &[ContainerStatus],
    init: &[ContainerStatus],
    phase: &str,
) -> Vec<PodCondition> {
    let StatusInputs { pod, old, .. } = inputs;
    let current = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut all: Vec<PodCondition> =
        current.iter().filter(|condition| !OWNED.contains(&condition.type_.as_str())).cloned().collect();
    let disruption = old.conditions.iter().flatten().find(|condition| condition.type_ == "DisruptionTarget");
    if let Some(condition) = disruption {
        all.retain(|other| other.type_ != condition.type_);
        all.push(condition.clone());
    }
    let statuses: Vec<&ContainerStatus> = init.iter().chain(regular).collect();
    let containers_ready = containers_ready(inputs, &statuses, phase);
    let verdicts = [
        ("PodReadyToStartContainers", (sandbox_changed(pod, inputs.observed).is_none(), "", String::new())),
        ("Initialized", initialized(inputs, &statuses, phase)),
        ("Ready", ready(inputs, &containers_ready, &all)),
        ("ContainersReady", containers_ready),
        ("PodScheduled", TRUE()),
    ];
    for (kind, verdict) in verdicts {
        all.push(condition(inputs, kind, verdict));
    }
    all
}

/// A condition with the time of its last change.
fn condition(inputs: StatusInputs<'_>, kind: &str, (status, reason, message): Verdict) -> PodCondition {
    let status = if status { "True" } else { "False" };
    let before = inputs.old.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    let unchanged = before.filter(|condition| condition.status == status);
    let changed_at = unchanged.and_then(|condition| condition.last_transition_time.clone());
    PodCondition {
        type_: kind.into(),
        status: status.into(),
        reason: (!reason.is_empty()).then(|| reason.into()),
        message: (!message.is_empty()).then_some(message),
        last_probe_time: None,
        last_transition_time: changed_at.or(Some(Time(inputs.now))),
        observed_generation: inputs.pod.metadata.generation.filter(|generation| *generation != 0),
    }
}

fn name_list(names: &[&str], what: &str) -> Option<String> {
    (!names.is_empty()).then(|| format!("containers with {what} status: {}", go_list(names)))
}

fn containers_ready(inputs: StatusInputs<'_>, statuses: &[&ContainerStatus], phase: &str) -> Verdict {
    if statuses.is_empty() {
        return (false, "UnknownContainerStatuses", String::new());
    }
    let sidecars = init_containers(inputs.pod).iter().filter(|container| is_sidecar(container));
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for container in sidecars.chain(&spec(inputs.pod).containers) {
        match statuses.iter().find(|status| status.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) if !status.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return (false, "PodCompleted", String::new());
    }
    if phase == "Failed" {
        return (false, "PodFailed", String::new());
    }
    let messages: Vec<String> =
        [name_list(&unknown, "unknown"), name_list(&unready, "unready")].into_iter().flatten().collect();
    if messages.is_empty() { TRUE() } else { (false, "ContainersNotReady", messages.join(", ")) }
}

fn ready(inputs: StatusInputs<'_>, containers_ready: &Verdict, conditions: &[PodCondition]) -> Verdict {
    if !containers_ready.0 {
        return containers_ready.clone();
    }
    let gates = spec(inputs.pod).readiness_gates.as_deref().unwrap_or_default();
    let messages: Vec<String> = gates
        .iter()
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match conditions.iter().find(|condition| &condition.type_ == kind) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate {kind:?} does not exist."))
                }
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if messages.is_empty() { TRUE() } else { (false, "ReadinessGatesNotReady", messages.join(", ")) }
}

fn initialized(inputs: StatusInputs<'_>, statuses: &[&ContainerStatus], phase: &str) -> Verdict {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in init_containers(inputs.pod) {
        match statuses.iter().find(|status| status.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) => {
                let done = if is_sidecar(container) { status.started == Some(true) } else { status.ready };
                if !done {
                    incomplete.push(container.name.as_str());
                }
            }
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return (true, "PodCompleted", String::new());
    }
    let regular_started = spec(inputs.pod).containers.iter().any(|container| {
        statuses.iter().filter(|status| status.name == container.name).any(|status| {
            status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        })
    });
    if regular_started {
        return TRUE();
    }
    let messages: Vec<String> = [name_list(&unknown, "unknown"), name_list(&incomplete, "incomplete")]
        .into_iter()
        .flatten()
        .collect();
    if messages.is_empty() { TRUE() } else { (false, "ContainersNotInitialized", messages.join(", ")) }
}
