//! Looking at what the runtime has of a pod.
//!
//! An ended container does not change any more, so its status is asked for once and remembered; running ones are asked
//! for when the list shows another state than before.
//!
//! upstream: kubelet/kuberuntime/kuberuntime_container.go getPodContainerStatuses, toKubeContainerStatus

use std::collections::HashMap;
use std::path::Path;

use copepod_cri::{CriError, Runtime, api};
use jiff::Timestamp;

use super::model::{ContainerObserved, Observed, RunState, SandboxObserved};
use crate::container::{labels, log};

/// Longest termination message read from the container's file.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Longest termination message taken from the log.
const LOG_MESSAGE_BYTES_MAX: usize = 2048;
/// And its lines.
const LOG_MESSAGE_LINES_MAX: u64 = 80;

/// What was seen last, to ask only for what changed.
#[derive(Default)]
pub struct Cache {
    containers: HashMap<String, ContainerObserved>,
    sandboxes: HashMap<String, SandboxObserved>,
    logs: HashMap<String, String>,
}

impl Cache {
    /// Notes a sandbox that was asked for elsewhere.
    pub fn note_sandbox(&mut self, sandbox: SandboxObserved) {
        self.sandboxes.insert(sandbox.id.clone(), sandbox);
    }

    /// Log file of a container that was seen running.
    pub fn log_path(&self, id: &str) -> Option<&str> {
        self.logs.get(id).map(String::as_str)
    }
}

/// Looks at everything that carries the pod's uid.
pub async fn observe(runtime: &dyn Runtime, uid: &str, cache: &mut Cache) -> Result<Observed, CriError> {
    let selector = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
    let sandboxes = runtime.list_pod_sandboxes(Some(api::PodSandboxFilter {
        label_selector: selector.clone(),
        ..Default::default()
    }));
    let containers = runtime
        .list_containers(Some(api::ContainerFilter { label_selector: selector, ..Default::default() }));
    let (sandboxes, containers) = futures::try_join!(sandboxes, containers)?;
    // Asked for all at once: a start waits for the answers.
    let known: &Cache = cache;
    let sandboxes = sandboxes.iter().map(|listed| one_sandbox(runtime, listed, known));
    let containers = containers.iter().map(|listed| one_container(runtime, listed, known));
    let (sandboxes, containers) =
        futures::join!(futures::future::join_all(sandboxes), futures::future::join_all(containers));
    let mut observed = Observed::default();
    for seen in sandboxes.into_iter().filter_map(there) {
        let seen = seen?;
        cache.note_sandbox(seen.clone());
        observed.sandboxes.push(seen);
    }
    for seen in containers.into_iter().filter_map(there) {
        let (seen, log) = seen?;
        cache.logs.extend(log.map(|log| (seen.id.clone(), log)));
        cache.containers.insert(seen.id.clone(), seen.clone());
        observed.containers.push(seen);
    }
    observed.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at));
    observed.containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    cache.containers.retain(|id, _| observed.containers.iter().any(|container| &container.id == id));
    cache.sandboxes.retain(|id, _| observed.sandboxes.iter().any(|sandbox| &sandbox.id == id));
    cache.logs.retain(|id, _| cache.containers.contains_key(id));
    Ok(observed)
}

/// What was listed and is gone when it is asked for is not there.
fn there<T>(answer: Result<T, CriError>) -> Option<Result<T, CriError>> {
    match answer {
        Err(error) if error.is_not_found() => None,
        other => Some(other),
    }
}

async fn one_sandbox(
    runtime: &dyn Runtime,
    listed: &api::PodSandbox,
    cache: &Cache,
) -> Result<SandboxObserved, CriError> {
    let ready = listed.state() == api::PodSandboxState::SandboxReady;
    if let Some(known) = cache.sandboxes.get(&listed.id).filter(|known| known.ready == ready) {
        return Ok(known.clone());
    }
    Ok(sandbox_of(&runtime.pod_sandbox_status(&listed.id).await?))
}

/// A sandbox as the core sees it.
pub fn sandbox_of(status: &api::PodSandboxStatus) -> SandboxObserved {
    let options = status.linux.as_ref().and_then(|linux| linux.namespaces.as_ref()?.options.clone());
    SandboxObserved {
        id: status.id.clone(),
        attempt: status.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
        ready: status.state() == api::PodSandboxState::SandboxReady,
        created_at: status.created_at,
        host_network: options.is_some_and(|options| options.network() == api::NamespaceMode::Node),
        ips: status.network.as_ref().map(|network| {
            let more = network.additional_ips.iter().map(|ip| ip.ip.clone());
            std::iter::once(network.ip.clone()).filter(|ip| !ip.is_empty()).chain(more).collect()
        }),
    }
}

fn state_of(state: api::ContainerState) -> RunState {
    match state {
        api::ContainerState::ContainerCreated => RunState::Created,
        api::ContainerState::ContainerRunning => RunState::Running,
        api::ContainerState::ContainerExited => RunState::Exited,
        api::ContainerState::ContainerUnknown => RunState::Unknown,
    }
}

/// A container, and the path of its log if its status was asked for.
async fn one_container(
    runtime: &dyn Runtime,
    listed: &api::Container,
    cache: &Cache,
) -> Result<(ContainerObserved, Option<String>), CriError> {
    let state = state_of(listed.state());
    if let Some(known) = cache.containers.get(&listed.id).filter(|known| known.state == state) {
        return Ok((known.clone(), None));
    }
    let status = runtime.container_status(&listed.id).await?;
    let mut seen = container_of(&status);
    seen.sandbox_id.clone_from(&listed.pod_sandbox_id);
    if seen.state == RunState::Exited {
        let words = termination_message(&status, seen.exit_code).await;
        if !words.is_empty() {
            seen.message = if seen.message.is_empty() { words } else { format!("{}: {words}", seen.message) };
        }
    }
    Ok((seen, Some(status.log_path)))
}

fn container_of(status: &api::ContainerStatus) -> ContainerObserved {
    let time = |nanos: i64| (nanos > 0).then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok()).flatten();
    let annotation = |name: &str| status.annotations.get(name).map(String::as_str).unwrap_or_default();
    let exited = status.state() == api::ContainerState::ContainerExited;
    let name = status.labels.get(labels::CONTAINER_NAME).cloned();
    let user = status.user.as_ref().and_then(|user| user.linux.as_ref());
    let text = |value: &str| if exited { value.to_owned() } else { String::new() };
    ContainerObserved {
        id: status.id.clone(),
        sandbox_id: String::new(),
        name: name.unwrap_or_else(|| status.metadata.clone().unwrap_or_default().name),
        state: state_of(status.state()),
        restart_count: annotation(labels::RESTART_COUNT).parse().unwrap_or(0),
        created_at: status.created_at,
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
        exit_code: if exited { status.exit_code } else { 0 },
        reason: text(&status.reason),
        message: text(&status.message),
        image: status.image.as_ref().map(|image| image.image.clone()).unwrap_or_default(),
        image_id: status.image_ref.clone(),
        hash: u64::from_str_radix(annotation(labels::CONTAINER_HASH), 16).unwrap_or(0),
        user: user.map(|user| (user.uid, user.gid, user.supplemental_groups.clone())),
    }
}

/// What the container wrote as its last words, or the end of its log where the policy says so.
// upstream: kubelet/kuberuntime/kuberuntime_container.go getTerminationMessage
async fn termination_message(status: &api::ContainerStatus, exit_code: i32) -> String {
    let annotation = |name: &str| status.annotations.get(name).map(String::as_str).unwrap_or_default();
    let fallback = annotation(labels::TERMINATION_POLICY) == "FallbackToLogsOnError"
        && exit_code != 0
        && status.reason != "ContainerCannotRun";
    let path = annotation(labels::TERMINATION_PATH);
    let target = if path.starts_with('/') || path.is_empty() { path.to_owned() } else { format!("/{path}") };
    let mount = status.mounts.iter().find(|mount| !target.is_empty() && mount.container_path == target);
    let mut words = Vec::new();
    if let Some(mount) = mount {
        match read_end(Path::new(&mount.host_path)) {
            Ok(found) => words = found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return format!("Error on reading termination log {}: {error}", mount.host_path),
        }
    }
    if words.is_empty() && fallback {
        return match log::last_words(
            Path::new(&status.log_path),
            LOG_MESSAGE_LINES_MAX,
            LOG_MESSAGE_BYTES_MAX,
        )
        .await
        {
            Ok(words) => String::from_utf8_lossy(&words).into_owned(),
            Err(error) => format!("Error on reading termination message from logs: {error}"),
        };
    }
    String::from_utf8_lossy(&words).into_owned()
}

fn read_end(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(MESSAGE_BYTES_MAX as u64)))?;
    let mut words = Vec::new();
    file.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut words)?;
    Ok(words)
}
