//! Acting on a plan: sandboxes and containers are made and cleaned away here, ended in [`super::kill`]. Nothing is decided
//! here.
//!
//! upstream: kubelet/kuberuntime/kuberuntime_manager.go SyncPod, kuberuntime_container.go startContainer

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use copepod_client::{events::EventType, rest};
use copepod_cri::api;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;

use super::kill::{Victim, grace_seconds, kill_container};
use super::model::{ContainerKind, Observed, RunState, ephemeral_containers, spec, uid};
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
    let victim = Victim {
        pod,
        name: &container.name,
        id,
        message: "FailedPostStartHook",
        grace_seconds: grace,
        pod_ips,
    };
    if let Err(error) = kill_container(context, victim).await {
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
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(%error, directory = %directory.display(), "counting restarts by logs");
            }
            return 0;
        }
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().split('.').next()?.parse::<i32>().ok())
        .max()
        .map_or(0, |highest| highest + 1)
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
