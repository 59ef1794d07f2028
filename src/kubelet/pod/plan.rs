//! The decision: from a pod's spec and what the runtime has of it, what is to be done next. Pure.
//!
//! Invariants:
//! * a second sandbox is only planned together with the end of everything in the first;
//! * an init container is started only when all before it are done (or, as sidecars, started);
//! * a container in back-off is named in `waiting`, with the time to look again, and never in `start`.
//!
//! upstream: kubelet/kuberuntime/kuberuntime_manager.go computePodActions, kuberuntime_container.go
//! computeInitContainerActions, doBackOff

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{
    backoff::{self, Backoff},
    model::{
        ContainerKind, Observed, ProbeTable, RunState, as_container, ephemeral_containers, host_network,
        init_containers, is_sidecar, restart_policy, should_restart, spec,
    },
};
use crate::{
    container::hash::container_hash,
    text::{go_duration, pod_text},
};

/// Why a container is killed; decides its grace period and what happens to it next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    /// Its startup probe failed.
    StartupProbe,
    /// Its liveness probe failed.
    LivenessProbe,
    /// The runtime lost sight of it.
    Unknown,
    /// Anything else.
    Other,
}

/// A container to kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The event's message.
    pub message: String,
    /// Why.
    pub reason: KillReason,
}

/// A container to start: a place in one of the spec's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Which list.
    pub kind: ContainerKind,
    /// Where in it.
    pub index: usize,
}

/// A container that would be started if it were not in back-off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its name.
    pub name: String,
    /// Message of the waiting state.
    pub message: String,
    /// When to look again.
    pub until: Timestamp,
}

/// What to do about the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxPlan {
    /// It is good.
    Keep(String),
    /// Make one. `replaces` says that there was another one.
    Create {
        /// Its number.
        attempt: u32,
        /// Whether an older one is thrown away.
        replaces: bool,
    },
    /// There is none and none is needed any more.
    None,
}

/// The next steps, in the order of the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Kill every container and stop every sandbox first.
    pub kill_pod: bool,
    /// Containers to kill.
    pub kill: Vec<Kill>,
    /// The sandbox.
    pub sandbox: SandboxPlan,
    /// Containers to start, in order.
    pub start: Vec<Start>,
    /// Containers held back.
    pub waiting: Vec<Waiting>,
}

/// Everything a decision depends on.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What is there.
    pub observed: &'a Observed,
    /// What probes found.
    pub probes: &'a ProbeTable,
    /// Crash-loop delays, by container name.
    pub backoff: &'a Backoff,
    /// Now.
    pub now: Timestamp,
}

/// Whether another sandbox is needed, and its number.
// upstream: kubelet/kuberuntime/util/util.go PodSandboxChanged
pub fn sandbox_changed(pod: &Pod, observed: &Observed) -> Option<u32> {
    let Some(newest) = observed.sandboxes.first() else { return Some(0) };
    let ready = observed.sandboxes.iter().filter(|sandbox| sandbox.ready).count();
    let lost_address =
        !host_network(pod) && newest.ips.as_ref().is_some_and(|ips| ips.first().is_none_or(String::is_empty));
    (ready > 1 || !newest.ready || newest.host_network != host_network(pod) || lost_address)
        .then_some(newest.attempt + 1)
}

/// Decides.
pub fn plan(inputs: Inputs<'_>) -> Plan {
    let Inputs { pod, observed, .. } = inputs;
    if let Some(attempt) = sandbox_changed(pod, observed) {
        return plan_sandbox(inputs, attempt);
    }
    let id = observed.active_sandbox().map(|sandbox| sandbox.id.clone()).unwrap_or_default();
    let mut plan = Plan {
        kill_pod: false,
        kill: Vec::new(),
        sandbox: SandboxPlan::Keep(id),
        start: Vec::new(),
        waiting: Vec::new(),
    };
    for (index, container) in ephemeral_containers(pod).iter().enumerate() {
        if observed.latest(&container.name).is_none() {
            plan.start.push(Start { kind: ContainerKind::Ephemeral, index });
        }
    }
    match plan_init(inputs, &mut plan) {
        Init::Failed => {
            return Plan { kill_pod: true, sandbox: SandboxPlan::None, start: Vec::new(), ..plan };
        }
        Init::Going => return hold_back(inputs, plan),
        Init::Done => {}
    }
    let keep = plan_regular(inputs, &mut plan);
    let starts_regular = plan.start.iter().any(|start| start.kind == ContainerKind::Regular);
    if keep == 0 && !starts_regular {
        plan.kill_pod = true;
        plan.sandbox = SandboxPlan::None;
        plan.start.clear();
    }
    hold_back(inputs, plan)
}

/// A pod without a usable sandbox.
fn plan_sandbox(inputs: Inputs<'_>, attempt: u32) -> Plan {
    let Inputs { pod, observed, .. } = inputs;
    let nothing = Plan {
        kill_pod: true,
        kill: Vec::new(),
        sandbox: SandboxPlan::None,
        start: Vec::new(),
        waiting: Vec::new(),
    };
    if restart_policy(pod) == "Never" && attempt != 0 && !observed.containers.is_empty() {
        // The containers ran and must not run again.
        return nothing;
    }
    let to_start: Vec<Start> = spec(pod)
        .containers
        .iter()
        .enumerate()
        .filter(|(_, container)| {
            let policy = container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod));
            !(policy == "OnFailure" && succeeded(container, observed))
        })
        .map(|(index, _)| Start { kind: ContainerKind::Regular, index })
        .collect();
    if to_start.is_empty() && any_regular_created(pod, observed) {
        return nothing;
    }
    let start = if init_containers(pod).is_empty() {
        to_start
    } else {
        vec![Start { kind: ContainerKind::Init, index: 0 }]
    };
    let sandbox = SandboxPlan::Create { attempt, replaces: !observed.sandboxes.is_empty() };
    hold_back(inputs, Plan { sandbox, start, ..nothing })
}

enum Init {
    /// All init containers are done, all sidecars started.
    Done,
    /// Not yet.
    Going,
    /// One failed for good.
    Failed,
}

/// Init containers are looked at from the last to the first: the last one that was ever started says how far the pod got.
fn plan_init(inputs: Inputs<'_>, plan: &mut Plan) -> Init {
    let Inputs { pod, observed, probes, .. } = inputs;
    let list = init_containers(pod);
    if list.is_empty() {
        return Init::Done;
    }
    let mut initialized = spec(pod).containers.iter().any(|container| {
        let state = observed.latest(&container.name).map(|instance| instance.state);
        matches!(state, Some(RunState::Created | RunState::Running))
    });
    let mut previously = initialized;
    let mut starts = Vec::new();
    for (index, container) in list.iter().enumerate().rev() {
        let sidecar = is_sidecar(container);
        let Some(instance) = observed.latest(&container.name) else {
            if previously && sidecar {
                starts.push(index);
            }
            continue;
        };
        if previously && !sidecar {
            continue;
        }
        let last = index + 1 == list.len();
        match instance.state {
            RunState::Created => starts.push(index),
            RunState::Running if !sidecar => {}
            RunState::Running => {
                let probe = probes.get(&instance.id).copied().unwrap_or_default();
                let kill = |message: String, reason| Kill {
                    id: instance.id.clone(),
                    name: container.name.clone(),
                    message,
                    reason,
                };
                let started = container.startup_probe.is_none() || probe.startup == Some(true);
                if probe.startup == Some(false) {
                    plan.kill.push(kill(
                        format!("Init container {} failed startup probe", container.name),
                        KillReason::StartupProbe,
                    ));
                    starts.push(index);
                } else if started {
                    if last {
                        initialized = true;
                    } else if !previously {
                        starts.push(index + 1);
                    }
                    if instance.hash != container_hash(container) {
                        let message = format!("Init container {} definition changed", container.name);
                        plan.kill.push(kill(message, KillReason::Other));
                        starts.push(index);
                    } else if probe.liveness == Some(false) {
                        let message = format!("Init container {} failed liveness probe", container.name);
                        plan.kill.push(kill(message, KillReason::LivenessProbe));
                        starts.push(index);
                    }
                }
            }
            RunState::Exited if sidecar => starts.push(index),
            RunState::Exited if instance.exit_code != 0 => {
                if !should_restart(container, pod, observed) {
                    return Init::Failed;
                }
                starts.push(index);
            }
            RunState::Exited => {
                if last {
                    initialized = true;
                } else {
                    starts.push(index + 1);
                }
            }
            RunState::Unknown => {
                if !sidecar && restart_policy(pod) == "Never" {
                    return Init::Failed;
                }
                plan.kill.push(Kill {
                    id: instance.id.clone(),
                    name: container.name.clone(),
                    message: "Init container is in \"unknown\" state, try killing it before restart".into(),
                    reason: KillReason::Unknown,
                });
                starts.push(index);
            }
        }
        previously = true;
    }
    if !previously {
        starts.push(0);
    }
    starts.sort_unstable();
    starts.dedup();
    plan.start.extend(starts.into_iter().map(|index| Start { kind: ContainerKind::Init, index }));
    if initialized { Init::Done } else { Init::Going }
}

/// Regular containers; returns how many are well and stay.
fn plan_regular(inputs: Inputs<'_>, plan: &mut Plan) -> usize {
    let Inputs { pod, observed, probes, .. } = inputs;
    let mut keep = 0;
    for (index, container) in spec(pod).containers.iter().enumerate() {
        let start = Start { kind: ContainerKind::Regular, index };
        let running = observed.latest(&container.name).filter(|instance| instance.state == RunState::Running);
        let Some(instance) = running else {
            if should_restart(container, pod, observed) {
                plan.start.push(start);
                if let Some(lost) =
                    observed.latest(&container.name).filter(|instance| instance.state == RunState::Unknown)
                {
                    plan.kill.push(Kill {
                        id: lost.id.clone(),
                        name: container.name.clone(),
                        message: "Container is in \"unknown\" state, try killing it before restart".into(),
                        reason: KillReason::Unknown,
                    });
                }
            }
            continue;
        };
        let probe = probes.get(&instance.id).copied().unwrap_or_default();
        let policy = container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod));
        let name = &container.name;
        let (message, reason, restart) = if instance.hash != container_hash(container) {
            (format!("Container {name} definition changed"), KillReason::Other, true)
        } else if probe.liveness == Some(false) {
            (format!("Container {name} failed liveness probe"), KillReason::LivenessProbe, policy != "Never")
        } else if probe.startup == Some(false) {
            (format!("Container {name} failed startup probe"), KillReason::StartupProbe, policy != "Never")
        } else {
            keep += 1;
            continue;
        };
        let message = if restart { format!("{message}, will be restarted") } else { message };
        if restart {
            plan.start.push(start);
        }
        plan.kill.push(Kill { id: instance.id.clone(), name: name.clone(), message, reason });
    }
    keep
}

/// Takes containers in back-off out of the starts.
fn hold_back(inputs: Inputs<'_>, mut plan: Plan) -> Plan {
    let Inputs { pod, observed, backoff, now, .. } = inputs;
    let mut blocked = false;
    let mut held = Vec::new();
    plan.start.retain(|start| {
        let container = container_at(pod, *start);
        let exited = observed
            .containers
            .iter()
            .find(|instance| instance.name == container.name && instance.state == RunState::Exited);
        let key = backoff::key(&container);
        let until = exited
            .and_then(|instance| instance.finished_at)
            .and_then(|finished| backoff.until(&key, finished, now));
        if let Some(until) = until {
            held.push(Waiting {
                message: format!(
                    "back-off {} restarting failed container={} pod={}",
                    go_duration(backoff.delay(&key)),
                    container.name,
                    pod_text(pod)
                ),
                name: container.name.clone(),
                until,
            });
            // Nothing behind a plain init container may start before it.
            blocked |= start.kind == ContainerKind::Init && !is_sidecar(&container);
            return false;
        }
        !blocked || start.kind == ContainerKind::Ephemeral
    });
    plan.waiting.extend(held);
    plan
}

/// The container that a start means.
pub fn container_at(pod: &Pod, start: Start) -> std::borrow::Cow<'_, Container> {
    use std::borrow::Cow;
    let listed = match start.kind {
        ContainerKind::Init => init_containers(pod).get(start.index).map(Cow::Borrowed),
        ContainerKind::Regular => spec(pod).containers.get(start.index).map(Cow::Borrowed),
        ContainerKind::Ephemeral => {
            ephemeral_containers(pod).get(start.index).map(|found| Cow::Owned(as_container(found)))
        }
    };
    listed.unwrap_or_default()
}

fn succeeded(container: &Container, observed: &Observed) -> bool {
    observed
        .latest(&container.name)
        .is_some_and(|instance| instance.state == RunState::Exited && instance.exit_code == 0)
}

/// Whether the pod got as far as its regular containers.
// upstream: kubelet/kuberuntime/kuberuntime_container.go HasAnyRegularContainerCreated
pub fn any_regular_created(pod: &Pod, observed: &Observed) -> bool {
    spec(pod).containers.iter().any(|container| observed.latest(&container.name).is_some())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
#[allow(clippy::panic)] // A test's way to fail.
mod tests;
