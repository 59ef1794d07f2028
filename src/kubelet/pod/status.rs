//! The status that the API shows, made from the spec, the runtime's state and the status before. Pure.
//!
//! upstream: kubelet/kubelet_pods.go generateAPIPodStatus, convertToAPIContainerStatuses, getPhase;
//! kubelet/prober/prober_manager.go UpdatePodStatus. Conditions are in `conditions.rs`.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, HostIP, LinuxContainerUser, Pod, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    conditions,
    model::{
        ContainerObserved, Observed, ProbeTable, RunState, as_container, ephemeral_containers, host_network,
        init_containers, is_deleted, is_sidecar, is_static, restarts_after, should_restart, spec,
    },
    plan::any_regular_created,
    qos::qos_class,
};

/// Why a container does not start: reason and message of its waiting state.
pub type StartErrors = HashMap<String, (String, String)>;

/// Everything a status depends on.
#[derive(Clone, Copy)]
pub struct StatusInputs<'a> {
    /// The pod as the API has it.
    pub pod: &'a Pod,
    /// What the runtime has.
    pub observed: &'a Observed,
    /// What probes found.
    pub probes: &'a ProbeTable,
    /// Why containers do not start.
    pub errors: &'a StartErrors,
    /// The status written last.
    pub old: &'a PodStatus,
    /// Name of the runtime, the scheme of container ids.
    pub runtime_name: &'a str,
    /// Addresses of the node.
    pub host_ips: &'a [String],
    /// Nothing of the pod will be started again.
    pub terminal: bool,
    /// Now.
    pub now: Timestamp,
}

/// Makes the status.
pub fn generate(inputs: StatusInputs<'_>) -> PodStatus {
    let StatusInputs { pod, old, now, .. } = inputs;
    let has_init = !init_containers(pod).is_empty();
    let ephemerals: Vec<Container> = ephemeral_containers(pod).iter().map(as_container).collect();
    let list = |old: &Option<Vec<ContainerStatus>>, containers: &[Container], is_init| {
        container_statuses(inputs, old.as_deref().unwrap_or_default(), containers, has_init, is_init)
    };
    let mut regular = list(&old.container_statuses, &spec(pod).containers, false);
    let mut init = list(&old.init_container_statuses, init_containers(pod), true);
    let ephemeral = list(&old.ephemeral_container_statuses, &ephemerals, false);
    regular.sort_by(|left, right| left.name.cmp(&right.name));

    let mut status = PodStatus { qos_class: Some(qos_class(pod).into()), ..PodStatus::default() };
    let current = pod.status.as_ref();
    let all: Vec<&ContainerStatus> = regular.iter().chain(&init).collect();
    let mut phase = phase(inputs, &all);
    let is_final = |phase: Option<&str>| matches!(phase, Some("Failed" | "Succeeded"));
    // A phase that was final once stays.
    if !is_final(Some(phase)) && is_final(old.phase.as_deref()) {
        phase = if old.phase.as_deref() == Some("Failed") { "Failed" } else { "Succeeded" };
    }
    if let Some(known) =
        current.and_then(|status| status.phase.as_deref()).filter(|phase| is_final(Some(phase)))
    {
        phase = if known == "Failed" { "Failed" } else { "Succeeded" };
    }
    status.phase = Some(phase.into());
    if old.phase.as_deref() == Some(phase) {
        status.reason = old.reason.clone().or_else(|| current?.reason.clone());
        status.message = old.message.clone().or_else(|| current?.message.clone());
    }

    apply_probes(inputs, &mut regular, &mut init);
    fill_addresses(inputs, &mut status);
    status.start_time = old.start_time.clone().or(Some(Time(now)));
    status.observed_generation = pod.metadata.generation.filter(|generation| *generation != 0);
    status.conditions = Some(conditions::generate(inputs, &regular, &init, phase));
    status.container_statuses = (!regular.is_empty()).then_some(regular);
    status.init_container_statuses = (!init.is_empty()).then_some(init);
    status.ephemeral_container_statuses = (!ephemeral.is_empty()).then_some(ephemeral);
    status
}

fn fill_addresses(inputs: StatusInputs<'_>, status: &mut PodStatus) {
    let StatusInputs { pod, observed, host_ips, .. } = inputs;
    let mut pod_ips: Vec<String> =
        observed.ips().iter().filter(|ip| !ip.is_empty()).take(2).cloned().collect();
    if observed.active_sandbox().is_none() {
        // A pod that ended keeps the address it had. upstream: kubelet/pleg/generic.go getPodIPs
        pod_ips = inputs.old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    }
    let pod_ips = if host_network(pod) { host_ips.to_vec() } else { pod_ips };
    status.pod_ip = pod_ips.first().cloned();
    status.pod_ips = (!pod_ips.is_empty()).then(|| pod_ips.into_iter().map(|ip| PodIP { ip }).collect());
    status.host_ip = host_ips.first().cloned();
    status.host_ips =
        (!host_ips.is_empty()).then(|| host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: (!reason.is_empty()).then(|| reason.into()), message }),
        ..ContainerState::default()
    }
}

fn terminated(reason: &str, message: &str, exit_code: i32) -> ContainerStateTerminated {
    ContainerStateTerminated {
        reason: Some(reason.into()),
        message: Some(message.into()),
        exit_code,
        ..ContainerStateTerminated::default()
    }
}

/// Statuses of one list of containers.
fn container_statuses(
    inputs: StatusInputs<'_>,
    previous: &[ContainerStatus],
    containers: &[Container],
    has_init: bool,
    is_init: bool,
) -> Vec<ContainerStatus> {
    containers
        .iter()
        .map(|container| {
            let old = previous.iter().find(|status| status.name == container.name);
            let status = from_runtime(inputs, container, old, has_init);
            overlay_reason(inputs, container, status, is_init)
        })
        .collect()
}

/// The status before the runtime is asked: waiting, with what is known from before.
fn default_status(
    inputs: StatusInputs<'_>,
    container: &Container,
    old: Option<&ContainerStatus>,
    has_init: bool,
) -> ContainerStatus {
    if let Some(old) = old
        && old.state.as_ref().is_some_and(|state| state.terminated.is_some())
    {
        return old.clone();
    }
    let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting(reason, None)),
        volume_mounts: volume_mounts(container),
        ..ContainerStatus::default()
    };
    let Some(old) = old else { return status };
    status.restart_count = old.restart_count;
    status.last_state.clone_from(&old.last_state);
    let ran = old.state.as_ref().is_some_and(|state| state.running.is_some());
    let known_end = status.last_state.as_ref().is_some_and(|state| state.terminated.is_some());
    let there = inputs.observed.containers.iter().any(|instance| instance.name == container.name);
    if ran && !known_end && !there {
        let message =
            "The container could not be located when the pod was deleted.  The container used to be Running";
        status.last_state = Some(ContainerState {
            terminated: Some(terminated("ContainerStatusUnknown", message, 137)),
            ..ContainerState::default()
        });
        if !is_deleted(inputs.pod) {
            status.restart_count += 1;
        }
    }
    status
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    (!mounts.is_empty()).then(|| {
        mounts
            .iter()
            .map(|mount| VolumeMountStatus {
                name: mount.name.clone(),
                mount_path: mount.mount_path.clone(),
                read_only: mount.read_only.filter(|read_only| *read_only),
                recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".into()),
                ..VolumeMountStatus::default()
            })
            .collect()
    })
}

/// The two newest instances make state and last state.
fn from_runtime(
    inputs: StatusInputs<'_>,
    container: &Container,
    old: Option<&ContainerStatus>,
    has_init: bool,
) -> ContainerStatus {
    let mut instances = inputs.observed.containers.iter().filter(|instance| instance.name == container.name);
    let Some(newest) = instances.next() else { return default_status(inputs, container, old, has_init) };
    let mut status = convert(inputs, container, newest, old);
    if let Some(before) = instances.next() {
        status.last_state = convert(inputs, container, before, old).state;
    } else if let Some(old) = old {
        // The instance before may have been cleaned away; what was known of it stays.
        let ended = old.state.as_ref().filter(|state| state.terminated.is_some());
        let last = match ended {
            Some(state) if old.container_id != status.container_id => Some(state.clone()),
            _ => old.last_state.clone(),
        };
        status.last_state = last.filter(|state| state.terminated.is_some());
    }
    status
}

fn convert(
    inputs: StatusInputs<'_>,
    container: &Container,
    instance: &ContainerObserved,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let id = format!("{}://{}", inputs.runtime_name, instance.id);
    let mut status = ContainerStatus {
        name: instance.name.clone(),
        restart_count: instance.restart_count,
        image: instance.image.clone(),
        image_id: instance.image_id.clone(),
        container_id: Some(id.clone()),
        volume_mounts: old.and_then(|old| old.volume_mounts.clone()).or_else(|| volume_mounts(container)),
        ..ContainerStatus::default()
    };
    let old_running = old.and_then(|old| old.state.as_ref()).is_some_and(|state| state.running.is_some());
    let mut state = ContainerState::default();
    match instance.state {
        RunState::Running => {
            state.running = Some(ContainerStateRunning { started_at: instance.started_at.map(whole_second) });
        }
        RunState::Exited => {
            state.terminated = Some(ContainerStateTerminated {
                exit_code: instance.exit_code,
                reason: (!instance.reason.is_empty()).then(|| instance.reason.clone()),
                message: (!instance.message.is_empty()).then(|| instance.message.clone()),
                started_at: instance.started_at.map(whole_second),
                finished_at: instance.finished_at.map(whole_second),
                container_id: Some(id),
                signal: None,
            });
        }
        RunState::Unknown if old_running => {
            let message = "The container could not be located when the pod was terminated";
            state.terminated = Some(terminated("ContainerStatusUnknown", message, 137));
            status.restart_count = old.map_or(0, |old| old.restart_count) + 1;
        }
        RunState::Created | RunState::Unknown => state = waiting("", None),
    }
    status.state = Some(state);
    status.resources = Some(container.resources.clone().unwrap_or_default());
    status.allocated_resources =
        container.resources.as_ref().and_then(|resources| resources.requests.clone());
    status.user = instance.user.as_ref().map(|(uid, gid, groups)| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: *uid,
            gid: *gid,
            supplemental_groups: (!groups.is_empty()).then(|| groups.clone()),
        }),
    });
    status
}

/// The API's times have whole seconds.
fn whole_second(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// The reason why a container does not start takes the place of its state.
fn overlay_reason(
    inputs: StatusInputs<'_>,
    container: &Container,
    mut status: ContainerStatus,
    is_init: bool,
) -> ContainerStatus {
    let StatusInputs { pod, observed, errors, .. } = inputs;
    if is_init {
        let newest = observed.latest(&container.name);
        if newest.is_some_and(|instance| instance.state == RunState::Exited && instance.exit_code == 0) {
            return status;
        }
        let is_waiting = status.state.as_ref().is_some_and(|state| state.waiting.is_some());
        if newest.is_none() && any_regular_created(pod, observed) && !is_sidecar(container) && is_waiting {
            let message = "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally";
            status.state = Some(ContainerState {
                terminated: Some(terminated("Completed", message, 0)),
                ..ContainerState::default()
            });
            return status;
        }
    }
    if !should_restart(container, pod, observed) {
        return status;
    }
    let Some((reason, message)) = errors.get(&container.name) else { return status };
    if status.state.as_ref().is_some_and(|state| state.terminated.is_some()) {
        status.last_state = status.state.take();
    }
    status.state = Some(waiting(reason, (!message.is_empty()).then(|| message.clone())));
    status
}

/// `started` and `ready`.
fn apply_probes(inputs: StatusInputs<'_>, regular: &mut [ContainerStatus], init: &mut [ContainerStatus]) {
    for status in regular {
        let Some(container) =
            spec(inputs.pod).containers.iter().find(|container| container.name == status.name)
        else {
            continue;
        };
        let started = is_started(inputs, container, status);
        status.started = Some(started);
        status.ready = started && is_ready(inputs, container, status);
    }
    for status in init {
        let Some(container) =
            init_containers(inputs.pod).iter().find(|container| container.name == status.name)
        else {
            continue;
        };
        let started = is_started(inputs, container, status);
        status.started = Some(started);
        status.ready = if is_sidecar(container) {
            started && is_ready(inputs, container, status)
        } else {
            let end = status.state.as_ref().and_then(|state| state.terminated.as_ref());
            end.is_some_and(|end| end.exit_code == 0)
        };
    }
}

fn results(inputs: StatusInputs<'_>, status: &ContainerStatus) -> super::model::ProbeResults {
    let id = status.container_id.as_deref().and_then(|id| id.split_once("://")).map(|(_, id)| id);
    id.and_then(|id| inputs.probes.get(id)).copied().unwrap_or_default()
}

// upstream: kubelet/prober/prober_manager.go isContainerStarted
fn is_started(inputs: StatusInputs<'_>, container: &Container, status: &ContainerStatus) -> bool {
    let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
    running && (container.startup_probe.is_none() || results(inputs, status).startup == Some(true))
}

fn is_ready(inputs: StatusInputs<'_>, container: &Container, status: &ContainerStatus) -> bool {
    let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
    running && (container.readiness_probe.is_none() || results(inputs, status).readiness == Some(true))
}

/// How many containers are in which state.
#[derive(Default)]
struct Tally {
    running: usize,
    waiting: usize,
    stopped: usize,
    stopped_for_good: usize,
    succeeded: usize,
    unknown: usize,
}

// upstream: kubelet/kubelet_pods.go getPhase
fn phase(inputs: StatusInputs<'_>, statuses: &[&ContainerStatus]) -> &'static str {
    let StatusInputs { pod, observed, terminal, .. } = inputs;
    let find = |name: &str| {
        statuses
            .iter()
            .find(|status| status.name == name)
            .and_then(|status| status.state.as_ref().map(|state| (*status, state)))
    };
    let last_end = |status: &ContainerStatus| {
        status.last_state.as_ref().and_then(|state| state.terminated.as_ref()).map(|end| end.exit_code)
    };
    let (mut init_pending, mut init_failed) = (0, 0);
    let mut sidecars_pending = 0;
    let mut tally = Tally::default();
    for container in init_containers(pod) {
        let found = find(&container.name);
        if is_sidecar(container) {
            match found {
                None => tally.unknown += 1,
                Some((status, state)) if state.running.is_some() => {
                    // `started` is set after the phase upstream too: the old value decides.
                    let started = is_started(inputs, container, status);
                    sidecars_pending += usize::from(!started);
                    tally.running += 1;
                }
                Some((_, state)) if state.terminated.is_some() => {}
                Some((status, state)) if state.waiting.is_some() => {
                    if last_end(status).is_none() {
                        sidecars_pending += 1;
                        tally.waiting += 1;
                    }
                }
                Some(_) => {
                    sidecars_pending += 1;
                    tally.unknown += 1;
                }
            }
            continue;
        }
        let exit_code = match found {
            Some((_, state)) if state.terminated.is_some() => {
                state.terminated.as_ref().map(|end| end.exit_code)
            }
            Some((status, state)) if state.waiting.is_some() => last_end(status),
            _ => None,
        };
        match exit_code {
            None => init_pending += 1,
            Some(0) => {}
            Some(code) => init_failed += usize::from(!restarts_after(container, pod, code)),
        }
    }
    for container in &spec(pod).containers {
        let Some((status, state)) = find(&container.name) else {
            tally.unknown += 1;
            continue;
        };
        if state.running.is_some() {
            tally.running += 1;
        } else if let Some(end) = &state.terminated {
            tally.stopped += 1;
            tally.stopped_for_good += usize::from(!restarts_after(container, pod, end.exit_code));
            tally.succeeded += usize::from(end.exit_code == 0);
        } else if state.waiting.is_some() {
            match last_end(status) {
                Some(code) => {
                    tally.stopped += 1;
                    tally.stopped_for_good += usize::from(!restarts_after(container, pod, code));
                }
                None => tally.waiting += 1,
            }
        } else {
            tally.unknown += 1;
        }
    }
    if init_failed > 0 {
        return "Failed";
    }
    let initialized = any_active_regular(pod, observed);
    if init_pending > 0 || (sidecars_pending > 0 && !initialized) || tally.waiting > 0 {
        return "Pending";
    }
    conclude(&tally, terminal && !is_static(pod))
}

fn conclude(tally: &Tally, terminal: bool) -> &'static str {
    let verdict = if tally.stopped == tally.succeeded { "Succeeded" } else { "Failed" };
    if tally.running > 0 && tally.unknown == 0 {
        return "Running";
    }
    if tally.running == 0 && tally.stopped > 0 && tally.unknown == 0 {
        if !terminal && tally.stopped != tally.stopped_for_good {
            return "Running";
        }
        return verdict;
    }
    "Pending"
}

/// Whether a regular container exists in the sandbox now in use.
fn any_active_regular(pod: &Pod, observed: &Observed) -> bool {
    let Some(sandbox) = observed.active_sandbox() else { return false };
    observed.containers.iter().any(|instance| {
        instance.sandbox_id == sandbox.id
            && spec(pod).containers.iter().any(|container| container.name == instance.name)
    })
}

#[cfg(test)]
#[path = "status_tests.rs"]
#[allow(clippy::panic)] // A test's way to fail.
mod tests;
