//! Ending containers and whole pods: hook, turn, stop signal, kill.
//!
//! Invariants:
//! * a container's preStop hook begins at once, whosever turn it is;
//! * a sidecar is stopped after all regular containers and after the sidecars behind it in the spec, or when its own grace
//!   period is over.
//!
//! upstream: kubelet/kuberuntime/kuberuntime_container.go killContainer, killContainersWithSyncResult,
//! kuberuntime_termination_order.go

use std::collections::HashSet;
use std::time::{Duration, Instant};

use copepod_client::events::EventType;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::watch;

use super::model::{Observed, RunState, find_container, init_containers, is_sidecar, spec};
use super::plan::KillReason;
use crate::{
    container::hook,
    context::{Context, container_reference},
};

/// A container always gets at least so long to end, in seconds.
const GRACE_MIN_SECONDS: i64 = 2;

/// How long a container gets to end.
// upstream: kubelet/kuberuntime/kuberuntime_container.go setTerminationGracePeriod
pub fn grace_seconds(pod: &Pod, container: &Container, reason: KillReason) -> i64 {
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        return seconds;
    }
    let Some(seconds) = spec(pod).termination_grace_period_seconds else { return GRACE_MIN_SECONDS };
    let probe = match reason {
        KillReason::StartupProbe => container.startup_probe.as_ref(),
        KillReason::LivenessProbe => container.liveness_probe.as_ref(),
        _ => None,
    };
    probe.and_then(|probe| probe.termination_grace_period_seconds).unwrap_or(seconds)
}

/// One container to end.
#[derive(Clone, Copy)]
pub struct Victim<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container's name.
    pub name: &'a str,
    /// Its id.
    pub id: &'a str,
    /// The event's message; empty for the usual one.
    pub message: &'a str,
    /// How long it gets.
    pub grace_seconds: i64,
    /// Addresses of the pod, for hooks.
    pub pod_ips: &'a [String],
}

/// Hook, stop signal, kill.
pub async fn kill_container(context: &Context, victim: Victim<'_>) -> Result<(), String> {
    kill_in_turn(context, victim, std::future::ready(())).await
}

/// The same, where the stop signal waits for its turn while there is time.
async fn kill_in_turn(
    context: &Context,
    victim: Victim<'_>,
    turn: impl Future<Output = ()>,
) -> Result<(), String> {
    let Victim { pod, name, id, message, .. } = victim;
    let message = if message.is_empty() { format!("Stopping container {name}") } else { message.to_owned() };
    context.recorder.event(&container_reference(pod, name), EventType::Normal, "Killing", message);
    let begun = Instant::now();
    // upstream counts whole seconds, each step for itself.
    let left = |begun: Instant, of: i64| of - i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX);
    pre_stop(context, victim).await;
    let after_hook = left(begun, victim.grace_seconds);
    let begun = Instant::now();
    if tokio::time::timeout(seconds(after_hook), turn).await.is_err() {
        tracing::debug!(container = id, "grace period was over before a container's turn to end");
    }
    let grace = seconds(left(begun, after_hook).max(GRACE_MIN_SECONDS));
    match context.runtime.stop_container(id, grace).await {
        Err(error) if !error.is_not_found() => Err(error.grpc_text()),
        _ => Ok(()),
    }
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

/// Runs the preStop hook, for as long as there is time.
async fn pre_stop(context: &Context, victim: Victim<'_>) {
    let Victim { pod, name, id, grace_seconds, pod_ips, .. } = victim;
    let Some((_, container)) = find_container(pod, name) else { return };
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    let Some(handler) = hook.filter(|_| grace_seconds > 0) else { return };
    let run = hook::run(context, pod, &container, id, pod_ips, handler);
    match tokio::time::timeout(seconds(grace_seconds), run).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::info!(error, container = id, "preStop hook");
            let reference = container_reference(pod, name);
            context.recorder.event(&reference, EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
        }
        // upstream: executePreStopHook tells the log and nobody else.
        Err(_) => tracing::info!(container = id, grace_seconds, "preStop hook not completed in grace period"),
    }
}

/// Names of the containers that end before this one: for a sidecar all regular ones and the next sidecar in the spec.
fn before(pod: &Pod, name: &str) -> Vec<String> {
    let sidecars: Vec<&Container> =
        init_containers(pod).iter().filter(|container| is_sidecar(container)).collect();
    let Some(place) = sidecars.iter().position(|sidecar| sidecar.name == name) else { return Vec::new() };
    let next = sidecars.get(place + 1).map(|sidecar| sidecar.name.clone());
    spec(pod).containers.iter().map(|container| container.name.clone()).chain(next).collect()
}

/// Ends everything of a pod: its containers in their order, then the sandboxes.
pub async fn kill_pod(
    context: &Context,
    pod: &Pod,
    observed: &Observed,
    grace: Option<i64>,
) -> Result<(), String> {
    let alive = |state: RunState| matches!(state, RunState::Running | RunState::Unknown);
    let victims: Vec<_> = observed.containers.iter().filter(|instance| alive(instance.state)).collect();
    let running: HashSet<String> = victims.iter().map(|instance| instance.name.clone()).collect();
    let (still_running, _) = watch::channel(running);
    let kills = victims.into_iter().map(|instance| {
        let found = find_container(pod, &instance.name);
        let victim = Victim {
            pod,
            name: &instance.name,
            id: &instance.id,
            message: "",
            grace_seconds: match (grace, found) {
                (Some(seconds), _) => seconds,
                (None, Some((_, container))) => grace_seconds(pod, &container, KillReason::Other),
                (None, None) => GRACE_MIN_SECONDS,
            },
            pod_ips: observed.ips(),
        };
        let (still_running, mut others) = (&still_running, still_running.subscribe());
        async move {
            let first = before(pod, victim.name);
            let turn = async {
                // The sending end lives as long as this future.
                if others.wait_for(|running| first.iter().all(|name| !running.contains(name))).await.is_err()
                {
                    tracing::error!("the order in which a pod's containers end is lost");
                }
            };
            let ended = kill_in_turn(context, victim, turn).await;
            still_running.send_modify(|running| {
                running.remove(victim.name);
            });
            ended
        }
    });
    futures::future::join_all(kills).await.into_iter().collect::<Result<Vec<()>, String>>()?;
    for sandbox in observed.sandboxes.iter().filter(|sandbox| sandbox.ready) {
        context.runtime.stop_pod_sandbox(&sandbox.id).await.map_err(|error| error.grpc_text())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// upstream: kuberuntime_termination_order_test.go: sidecars end last first, after what is regular.
    #[test]
    fn sidecars_wait_for_regular_containers_and_later_sidecars() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {}, "spec": {
            "initContainers": [
                {"name": "s1", "restartPolicy": "Always"}, {"name": "i"}, {"name": "s2", "restartPolicy": "Always"}
            ],
            "containers": [{"name": "a"}, {"name": "b"}]
        }}))
        .expect("a pod");
        for (name, want) in [
            ("a", vec![]),
            ("i", vec![]),
            ("s2", vec!["a", "b"]),
            ("s1", vec!["a", "b", "s2"]),
            ("x", vec![]),
        ] {
            assert_eq!(before(&pod, name), want, "{name}");
        }
    }
}
