//! The words of the pod core: what a pod wants, what of it is there, what probes say.

use std::borrow::Cow;
use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// Annotation that names where a static pod comes from (`file`), or `api`.
pub const CONFIG_SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// Annotation with the hash of a static pod's manifest.
pub const CONFIG_HASH_ANNOTATION: &str = "kubernetes.io/config.hash";
/// Annotation with the time a static pod was first seen.
pub const CONFIG_SEEN_ANNOTATION: &str = "kubernetes.io/config.seen";
/// Annotation by which a mirror pod is known; its value is the static pod's hash.
pub const CONFIG_MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Which list of the spec a container is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    /// `spec.initContainers`, sidecars among them.
    Init,
    /// `spec.containers`.
    Regular,
    /// `spec.ephemeralContainers`.
    Ephemeral,
}

impl ContainerKind {
    /// The field path that events of this container carry.
    pub fn field_path(self, name: &str) -> String {
        let list = match self {
            ContainerKind::Init => "initContainers",
            ContainerKind::Regular => "containers",
            ContainerKind::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{name}}}")
    }
}

/// State of a container in the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime does not know.
    Unknown,
}

/// A container in the runtime.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerObserved {
    /// Runtime's id, without the `containerd://`.
    pub id: String,
    /// Sandbox it belongs to.
    pub sandbox_id: String,
    /// Name in the spec.
    pub name: String,
    /// What it does.
    pub state: RunState,
    /// Which restart this is, from its annotations.
    pub restart_count: i32,
    /// When it was made, in nanoseconds: the order of instances.
    pub created_at: i64,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Its exit code.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, ...
    pub reason: String,
    /// The runtime's message and the termination message.
    pub message: String,
    /// Image as the runtime names it.
    pub image: String,
    /// Image reference with digest.
    pub image_id: String,
    /// Hash of name and image it was created from.
    pub hash: u64,
    /// User the first process runs as, if the runtime says.
    pub user: Option<(i64, i64, Vec<i64>)>,
}

/// A sandbox in the runtime.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxObserved {
    /// Runtime's id.
    pub id: String,
    /// Which sandbox of the pod this is.
    pub attempt: u32,
    /// Whether it is up.
    pub ready: bool,
    /// When it was made, in nanoseconds.
    pub created_at: i64,
    /// Whether it shares the node's network.
    pub host_network: bool,
    /// Its addresses; `None` if the runtime gave no network status at all.
    pub ips: Option<Vec<String>>,
}

/// All that the runtime has of one pod, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Sandboxes.
    pub sandboxes: Vec<SandboxObserved>,
    /// Containers of all sandboxes.
    pub containers: Vec<ContainerObserved>,
}

impl Observed {
    /// The newest instance of a container.
    pub fn latest(&self, name: &str) -> Option<&ContainerObserved> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The sandbox that is in use: the newest if it is ready.
    pub fn active_sandbox(&self) -> Option<&SandboxObserved> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// Addresses of the sandbox in use.
    pub fn ips(&self) -> &[String] {
        self.active_sandbox().and_then(|sandbox| sandbox.ips.as_deref()).unwrap_or_default()
    }

    /// Whether anything may still run.
    pub fn anything_alive(&self) -> bool {
        self.containers.iter().any(|container| container.state == RunState::Running)
            || self.sandboxes.iter().any(|sandbox| sandbox.ready)
    }
}

/// What the probes of one container found. `None`: no such probe, or no result yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeResults {
    /// Last settled liveness.
    pub liveness: Option<bool>,
    /// Last settled readiness.
    pub readiness: Option<bool>,
    /// Last settled startup.
    pub startup: Option<bool>,
}

/// Probe results by container id.
pub type ProbeTable = HashMap<String, ProbeResults>;

/// The spec; an empty one for a pod without.
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// Init containers.
pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// Ephemeral containers.
pub fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    spec(pod).ephemeral_containers.as_deref().unwrap_or_default()
}

/// A container of any kind by name. Ephemeral ones are seen as containers.
pub fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<(ContainerKind, Cow<'a, Container>)> {
    let in_list = |list: &'a [Container], kind| {
        list.iter().find(|container| container.name == name).map(|container| (kind, Cow::Borrowed(container)))
    };
    in_list(&spec(pod).containers, ContainerKind::Regular)
        .or_else(|| in_list(init_containers(pod), ContainerKind::Init))
        .or_else(|| {
            let found = ephemeral_containers(pod).iter().find(|container| container.name == name)?;
            Some((ContainerKind::Ephemeral, Cow::Owned(as_container(found))))
        })
}

/// An ephemeral container's part that is common to all containers.
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    Container {
        args: ephemeral.args.clone(),
        command: ephemeral.command.clone(),
        env: ephemeral.env.clone(),
        env_from: ephemeral.env_from.clone(),
        image: ephemeral.image.clone(),
        image_pull_policy: ephemeral.image_pull_policy.clone(),
        lifecycle: ephemeral.lifecycle.clone(),
        liveness_probe: ephemeral.liveness_probe.clone(),
        name: ephemeral.name.clone(),
        ports: ephemeral.ports.clone(),
        readiness_probe: ephemeral.readiness_probe.clone(),
        resize_policy: ephemeral.resize_policy.clone(),
        resources: ephemeral.resources.clone(),
        restart_policy: ephemeral.restart_policy.clone(),
        restart_policy_rules: ephemeral.restart_policy_rules.clone(),
        security_context: ephemeral.security_context.clone(),
        startup_probe: ephemeral.startup_probe.clone(),
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        termination_message_path: ephemeral.termination_message_path.clone(),
        termination_message_policy: ephemeral.termination_message_policy.clone(),
        tty: ephemeral.tty,
        volume_devices: ephemeral.volume_devices.clone(),
        volume_mounts: ephemeral.volume_mounts.clone(),
        working_dir: ephemeral.working_dir.clone(),
    }
}

/// An init container that goes on running beside the main ones.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether the pod uses the node's network.
pub fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network == Some(true)
}

/// Whether the pod was read from a file.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE_ANNOTATION).is_some_and(|source| source != "api")
}

/// Whether the pod only shows a static pod to the API.
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, CONFIG_MIRROR_ANNOTATION).is_some()
}

/// An annotation of the pod.
pub fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Whether somebody asked for the pod's deletion.
pub fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The pod's restart policy.
pub fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

/// Whether an exit with this code is followed by a restart.
// upstream: pkg/api/v1/pod/util.go ContainerShouldRestart
pub fn restarts_after(container: &Container, pod: &Pod, exit_code: i32) -> bool {
    let policy = match container.restart_policy.as_deref() {
        Some(own) => {
            let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
            let matching = rules.iter().find(|rule| {
                rule.exit_codes.as_ref().is_some_and(|codes| {
                    let listed = codes.values.as_deref().unwrap_or_default().contains(&exit_code);
                    match codes.operator.as_str() {
                        "In" => listed,
                        "NotIn" => !listed,
                        _ => false,
                    }
                })
            });
            if matching.is_some_and(|rule| rule.action == "Restart") {
                return true;
            }
            own
        }
        None => restart_policy(pod),
    };
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// Whether the newest instance of a container is to be followed by another one.
// upstream: kubelet/container/helpers.go ShouldContainerBeRestarted
pub fn should_restart(container: &Container, pod: &Pod, observed: &Observed) -> bool {
    if is_deleted(pod) {
        return false;
    }
    match observed.latest(&container.name) {
        None => true,
        Some(instance) => match instance.state {
            RunState::Running => false,
            RunState::Unknown | RunState::Created => true,
            RunState::Exited => restarts_after(container, pod, instance.exit_code),
        },
    }
}

/// Name and namespace of a pod.
pub fn names(pod: &Pod) -> (&str, &str) {
    (pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.name.as_deref().unwrap_or_default())
}

/// Uid of a pod.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}
