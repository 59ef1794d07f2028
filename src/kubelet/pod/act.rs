//! Acting on a plan: sandboxes and containers are made, killed and cleaned away here. Nothing is decided here.
//!
//! upstream: kubelet/kuberuntime/kuberuntime_manager.go SyncPod, kuberuntime_container.go startContainer, killContainer

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use copepod_client::{events::EventType, rest};
use copepod_cri::api;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;

use super::model::{
    ContainerKind, Observed, RunState, ephemeral_containers, find_container, init_containers, is_sidecar,
    spec, uid,
};
use super::plan::KillReason;
use crate::{
    container::{
        config::{ConfigInputs, container_config, log_path},
        hook,
        sandbox::{log_dir, sandbox_config},
    },
    context::{Context, container_reference, pod_reference},
};

const RUNTIME_CLASSES: rest::ResourceType =
    rest::ResourceType::cluster("node.k8s.io", "v1", "runtimeclasses");

/// A container always gets at least so long to end, in seconds.
const GRACE_MIN_SECONDS: i64 = 2;

/// Why a container was not started: reason and message of its waiting state, and when to try again if time decides.
#[derive(Debug, Clone)]
pub struct StartError {
    /// Reason.
    pub reason: String,
    /// Message.
    pub message: String,
    /// When another try makes sense.
    pub retry_at: Option<jiff::Timestamp>,
}

impl StartError {
    fn new(reason: &str, message: String) -> Self {
        StartError { reason: reason.into(), message, retry_at: None }
    }
}

/// Makes a sandbox. The error is told to the user as an event already.
pub async fn create_sandbox(
    context: &Context,
    pod: &Pod,
    attempt: u32,
) -> Result<(String, api::PodSandboxConfig), String> {
    let failed = |error: String| {
        let message = format!("Failed to create pod sandbox: {error}");
        context.recorder.event(
            &pod_reference(pod),
            EventType::Warning,
            "FailedCreatePodSandBox",
            message.clone(),
        );
        message
    };
    let (config, warning) =
        sandbox_config(context, pod, attempt).map_err(|error| failed(error.to_string()))?;
    if let Some(warning) = warning {
        context.recorder.event(&pod_reference(pod), EventType::Warning, "MissingClusterDNS", warning);
    }
    let directory = log_dir(context, pod);
    std::fs::create_dir_all(&directory)
        .map_err(|error| failed(format!("create log directory {}: {error}", directory.display())))?;
    let handler = runtime_handler(context, pod).await.map_err(failed)?;
    context.metrics.started_pods.inc();
    match context.runtime.run_pod_sandbox(config.clone(), &handler).await {
        Ok(id) => Ok((id, config)),
        Err(error) => Err(failed(error.grpc_text())),
    }
}

/// The runtime handler of the pod's RuntimeClass; empty for the default.
async fn runtime_handler(context: &Context, pod: &Pod) -> Result<String, String> {
    let Some(name) = spec(pod).runtime_class_name.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(String::new());
    };
    match rest::get::<RuntimeClass>(&context.client, &RUNTIME_CLASSES, "", name).await {
        Ok(class) => Ok(class.handler),
        Err(error) => Err(format!("failed to get sandbox runtime: {}", rest::message(&error))),
    }
}

/// What starting a container needs to know.
pub struct StartInputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// From which list it is.
    pub kind: ContainerKind,
    /// What is there.
    pub observed: &'a Observed,
    /// The sandbox.
    pub sandbox: &'a str,
    /// Its configuration.
    pub sandbox_config: &'a api::PodSandboxConfig,
    /// Where the volumes are.
    pub volumes: &'a HashMap<String, PathBuf>,
    /// Addresses of the pod.
    pub pod_ips: &'a [String],
}

/// Image, configuration, creation, start, postStart hook.
pub async fn start_container(context: &Context, inputs: StartInputs<'_>) -> Result<String, StartError> {
    let StartInputs { pod, container, observed, sandbox, sandbox_config, pod_ips, .. } = inputs;
    let reference = container_reference(pod, &container.name);
    let warn = |message: String| context.recorder.event(&reference, EventType::Warning, "Failed", message);
    let image = match context.puller.ensure(context, pod, container, sandbox_config).await {
        Ok(image) => image,
        Err(error) => {
            warn(format!("Error: {}", error.reason));
            return Err(StartError {
                reason: error.reason.into(),
                message: error.message,
                retry_at: error.retry_at,
            });
        }
    };
    let restart_count = match observed.latest(&container.name) {
        Some(instance) => instance.restart_count + 1,
        None => restarts_by_logs(context, pod, &container.name),
    };
    let target_id = target_of(pod, &inputs).map_err(|message| {
        warn(format!("Error: {message}"));
        StartError::new("CreateContainerConfigError", message)
    })?;
    let config = container_config(
        context,
        ConfigInputs {
            pod,
            container,
            restart_count,
            image: &image,
            volumes: inputs.volumes,
            pod_ips,
            target_id: target_id.as_deref(),
        },
    )
    .await
    .map_err(|error| {
        warn(format!("Error: {error}"));
        StartError::new("CreateContainerConfigError", error.to_string())
    })?;
    let id =
        context.runtime.create_container(sandbox, config, sandbox_config.clone()).await.map_err(|error| {
            warn(format!("Error: {error}"));
            StartError::new("CreateContainerError", error.to_string())
        })?;
    // Before it is started: its end may come at once, and must find its way to this pod.
    context.pods.own(&id, uid(pod));
    context.recorder.event(&reference, EventType::Normal, "Created", "Container created");
    context.runtime.start_container(&id).await.map_err(|error| {
        warn(format!("Error: {error}"));
        StartError::new("RunContainerError", error.to_string())
    })?;
    context.recorder.event(&reference, EventType::Normal, "Started", "Container started");
    let kind = match inputs.kind {
        ContainerKind::Init => "init_container",
        ContainerKind::Regular => "container",
        ContainerKind::Ephemeral => "ephemeral_container",
    };
    context.metrics.started_containers.with(&[kind]).inc();
    post_start(context, pod, container, &id, pod_ips).await?;
    Ok(id)
}

async fn post_start(
    context: &Context,
    pod: &Pod,
    container: &Container,
    id: &str,
    pod_ips: &[String],
) -> Result<(), StartError> {
    let Some(handler) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref())
    else {
        return Ok(());
    };
    let Err(message) = hook::run(context, pod, container, id, pod_ips, handler).await else { return Ok(()) };
    let reference = container_reference(pod, &container.name);
    context.recorder.event(&reference, EventType::Warning, "FailedPostStartHook", "PostStartHook failed");
    let grace = grace_seconds(pod, container, KillReason::Other);
    let killed =
        kill_container(context, pod, &container.name, id, "FailedPostStartHook", grace, pod_ips).await;
    if let Err(error) = killed {
        tracing::warn!(error, container = id, "container whose hook failed");
    }
    Err(StartError::new("PostStartHookError", message))
}

/// An ephemeral container's target, which must be there.
fn target_of(pod: &Pod, inputs: &StartInputs<'_>) -> Result<Option<String>, String> {
    if inputs.kind != ContainerKind::Ephemeral {
        return Ok(None);
    }
    let ephemeral = ephemeral_containers(pod).iter().find(|other| other.name == inputs.container.name);
    let Some(name) =
        ephemeral.and_then(|found| found.target_container_name.as_deref()).filter(|name| !name.is_empty())
    else {
        return Ok(None);
    };
    match inputs.observed.latest(name) {
        Some(target) => Ok(Some(target.id.clone())),
        None => Err(format!("unable to find target container {name:?}")),
    }
}

/// Log files outlive containers that were cleaned away: the highest number among them is one less than the next.
// upstream: kubelet/kuberuntime/kuberuntime_container.go calcRestartCountByLogDir
fn restarts_by_logs(context: &Context, pod: &Pod, container: &str) -> i32 {
    let directory = log_dir(context, pod).join(container);
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().split('.').next()?.parse::<i32>().ok())
        .max()
        .map_or(0, |highest| highest + 1)
}

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

/// Hook, stop signal, kill. An empty message is the usual one.
pub async fn kill_container(
    context: &Context,
    pod: &Pod,
    name: &str,
    id: &str,
    message: &str,
    grace_seconds: i64,
    pod_ips: &[String],
) -> Result<(), String> {
    let reference = container_reference(pod, name);
    let message = if message.is_empty() { format!("Stopping container {name}") } else { message.to_owned() };
    context.recorder.event(&reference, EventType::Normal, "Killing", message);
    let mut left = grace_seconds;
    let found = find_container(pod, name);
    let hook = found.as_ref().and_then(|(_, container)| container.lifecycle.as_ref()?.pre_stop.as_ref());
    if let (Some(handler), Some((_, container))) = (hook, &found)
        && left > 0
    {
        let begun = Instant::now();
        let limit = Duration::from_secs(u64::try_from(left).unwrap_or(0));
        let run = hook::run(context, pod, container, id, pod_ips, handler);
        if let Ok(Err(error)) = tokio::time::timeout(limit, run).await {
            tracing::info!(error, container = id, "preStop hook");
            context.recorder.event(&reference, EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
        }
        left -= i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX);
    }
    stop(context, id, left).await
}

async fn stop(context: &Context, id: &str, seconds: i64) -> Result<(), String> {
    let grace = Duration::from_secs(u64::try_from(seconds.max(GRACE_MIN_SECONDS)).unwrap_or(0));
    match context.runtime.stop_container(id, grace).await {
        Err(error) if !error.is_not_found() => Err(error.grpc_text()),
        _ => Ok(()),
    }
}

/// Ends everything of a pod: containers at once, sidecars after them and last first, then the sandboxes.
// upstream: kubelet/kuberuntime/kuberuntime_container.go killContainersWithSyncResult, kuberuntime_termination_order.go
pub async fn kill_pod(
    context: &Context,
    pod: &Pod,
    observed: &Observed,
    grace: Option<i64>,
) -> Result<(), String> {
    let running = |name: &str| {
        observed
            .containers
            .iter()
            .filter(move |instance| instance.name == name)
            .filter(|instance| matches!(instance.state, RunState::Running | RunState::Unknown))
            .map(|instance| instance.id.clone())
            .collect::<Vec<_>>()
    };
    let ips = observed.ips().to_vec();
    let deadline = Instant::now();
    let left = |seconds: i64| seconds - i64::try_from(deadline.elapsed().as_secs()).unwrap_or(0);
    let kill = |container: String, id: String| {
        let ips = &ips;
        async move {
            let seconds = match (grace, find_container(pod, &container)) {
                (Some(seconds), _) => seconds,
                (None, Some((_, found))) => grace_seconds(pod, &found, KillReason::Other),
                (None, None) => GRACE_MIN_SECONDS,
            };
            kill_container(context, pod, &container, &id, "", left(seconds), ips).await
        }
    };
    let sidecars: Vec<&Container> =
        init_containers(pod).iter().filter(|container| is_sidecar(container)).collect();
    let others: Vec<String> = observed
        .containers
        .iter()
        .map(|instance| instance.name.clone())
        .filter(|name| sidecars.iter().all(|sidecar| &sidecar.name != name))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut kills = Vec::new();
    for name in others {
        kills.extend(running(&name).into_iter().map(|id| kill(name.clone(), id)));
    }
    let mut results = futures::future::join_all(kills).await;
    for sidecar in sidecars.into_iter().rev() {
        let kills = running(&sidecar.name).into_iter().map(|id| kill(sidecar.name.clone(), id));
        results.extend(futures::future::join_all(kills).await);
    }
    results.into_iter().collect::<Result<Vec<()>, String>>()?;
    for sandbox in observed.sandboxes.iter().filter(|sandbox| sandbox.ready) {
        context.runtime.stop_pod_sandbox(&sandbox.id).await.map_err(|error| error.grpc_text())?;
    }
    Ok(())
}

/// Removes what nobody needs any more: all but the newest ended instance of each container, and dead sandboxes without
/// containers. `everything`: the pod is gone.
// upstream: kubelet/kuberuntime/kuberuntime_gc.go
pub async fn clean(context: &Context, pod: &Pod, observed: &Observed, everything: bool) {
    let mut removed = Vec::new();
    let mut newest = HashSet::new();
    let mut ended = HashSet::new();
    for instance in &observed.containers {
        let is_newest = newest.insert(instance.name.as_str());
        // The newest ended one is what `logs --previous` shows.
        let is_newest_ended = instance.state == RunState::Exited && ended.insert(instance.name.as_str());
        let keep = is_newest || is_newest_ended || instance.state == RunState::Running;
        if keep && !everything {
            continue;
        }
        if let Err(error) = context.runtime.remove_container(&instance.id).await {
            tracing::warn!(%error, container = instance.id, "removing an ended container");
            continue;
        }
        removed.push(instance.id.as_str());
        if !everything {
            let path = log_dir(context, pod).join(log_path(&instance.name, instance.restart_count));
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "removing an old log");
            }
        }
    }
    for (index, sandbox) in observed.sandboxes.iter().enumerate() {
        let used = observed
            .containers
            .iter()
            .any(|instance| instance.sandbox_id == sandbox.id && !removed.contains(&instance.id.as_str()));
        let old = index > 0 && !sandbox.ready && !used;
        if (everything || old)
            && let Err(error) = context.runtime.remove_pod_sandbox(&sandbox.id).await
        {
            tracing::warn!(%error, sandbox = sandbox.id, pod = uid(pod), "removing a sandbox");
        }
    }
}
