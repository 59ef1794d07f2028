//! An in-memory runtime for tests: it keeps CRI's rules (one name and attempt once, nothing starts in a dead sandbox,
//! stopping twice is fine), runs no process, and lets a test make containers exit, images appear and calls fail.
//!
//! What a container does follows from its command: `exit N` ends at once with code N, everything else runs until it is
//! stopped. An `exec_sync` answers what the test laid down with [`FakeRuntime::on_exec`], else success.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::{CriError, EventKind, ExecOutput, Runtime, RuntimeEvent, api};

/// Events a slow consumer may lag behind before it is cut off and has to relist.
const EVENTS_MAX: usize = 1024;

/// The fake. Its time is the machine's, but no two changes of state have the same.
pub struct FakeRuntime {
    state: Mutex<State>,
    clock_nanos: AtomicI64,
    events: broadcast::Sender<RuntimeEvent>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    sandboxes: BTreeMap<String, api::PodSandboxStatus>,
    containers: BTreeMap<String, FakeContainer>,
    images: BTreeMap<String, api::Image>,
    pullable: BTreeMap<String, api::Image>,
    exec: HashMap<(String, Vec<String>), ExecOutput>,
    failures: HashMap<&'static str, CriError>,
    calls: Vec<String>,
    cgroup_driver: Option<api::CgroupDriver>,
}

struct FakeContainer {
    sandbox: String,
    config: api::ContainerConfig,
    status: api::ContainerStatus,
}

impl Default for FakeRuntime {
    fn default() -> Self {
        FakeRuntime {
            state: Mutex::default(),
            clock_nanos: AtomicI64::new(0),
            events: broadcast::channel(EVENTS_MAX).0,
        }
    }
}

impl FakeRuntime {
    /// Puts an image on the fake machine.
    pub fn add_image(&self, name: &str) {
        self.state.lock().images.insert(name.into(), image(name));
    }

    /// Lets an image be pulled.
    pub fn add_pullable(&self, name: &str) {
        self.state.lock().pullable.insert(name.into(), image(name));
    }

    /// What `command` answers in containers of this name.
    pub fn on_exec(&self, container: &str, command: &[&str], output: ExecOutput) {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        self.state.lock().exec.insert((container.into(), command), output);
    }

    /// Makes every call of this name fail, until `None` is given.
    pub fn fail(&self, call: &'static str, error: Option<CriError>) {
        let mut state = self.state.lock();
        match error {
            Some(error) => state.failures.insert(call, error),
            None => state.failures.remove(call),
        };
    }

    /// Makes the fake say how it makes cgroups.
    pub fn set_cgroup_driver(&self, driver: api::CgroupDriver) {
        self.state.lock().cgroup_driver = Some(driver);
    }

    /// Ends a running container by itself.
    pub fn exit(&self, id: &str, code: i32) {
        let mut state = self.state.lock();
        self.finish(&mut state, id, code);
    }

    /// Ends a sandbox as a crash of its pause process would.
    pub fn break_sandbox(&self, id: &str) {
        if let Some(sandbox) = self.state.lock().sandboxes.get_mut(id) {
            sandbox.state = api::PodSandboxState::SandboxNotready.into();
            self.emit(id, EventKind::Stopped);
        }
    }

    /// The changing calls so far, as `call argument`.
    pub fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }

    /// The configuration a container was created with.
    pub fn container_config(&self, id: &str) -> Option<api::ContainerConfig> {
        self.state.lock().containers.get(id).map(|container| container.config.clone())
    }

    fn now(&self) -> i64 {
        let real = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let real = i64::try_from(real.as_nanos()).unwrap_or(i64::MAX - 1);
        let before = self.clock_nanos.fetch_max(real, Ordering::Relaxed);
        if before < real { real } else { self.clock_nanos.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    fn emit(&self, id: &str, kind: EventKind) {
        // An error says that nobody listens, which is fine: events are hints, the state is the truth.
        let _nobody_listens = self.events.send(RuntimeEvent { id: id.into(), kind }).is_err();
    }

    fn begin(&self, call: &'static str, argument: &str) -> Result<(), CriError> {
        let mut state = self.state.lock();
        state.calls.push(format!("{call} {argument}"));
        match state.failures.get(call) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn finish(&self, state: &mut State, id: &str, code: i32) {
        let Some(container) = state.containers.get_mut(id) else { return };
        if container.status.state() != api::ContainerState::ContainerRunning {
            return;
        }
        container.status.set_state(api::ContainerState::ContainerExited);
        container.status.finished_at = self.now();
        container.status.exit_code = code;
        container.status.reason = if code == 0 { "Completed" } else { "Error" }.into();
        self.emit(id, EventKind::Stopped);
    }
}

fn image(name: &str) -> api::Image {
    api::Image { id: format!("sha256:{name}"), repo_tags: vec![name.into()], size: 1, ..Default::default() }
}

fn not_found(what: &str, id: &str) -> CriError {
    CriError::NotFound(format!("an error occurred when try to find {what} \"{id}\": not found"))
}

fn refused(message: String) -> CriError {
    CriError::Failed { code: "Unknown", message }
}

fn labels_match(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<api::VersionResponse, CriError> {
        Ok(api::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "1".into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn status(&self) -> Result<api::StatusResponse, CriError> {
        self.begin("status", "")?;
        let condition =
            |name: &str| api::RuntimeCondition { r#type: name.into(), status: true, ..Default::default() };
        Ok(api::StatusResponse {
            status: Some(api::RuntimeStatus {
                conditions: vec![condition("RuntimeReady"), condition("NetworkReady")],
            }),
            ..Default::default()
        })
    }

    async fn cgroup_driver(&self) -> Result<Option<api::CgroupDriver>, CriError> {
        self.begin("cgroup_driver", "")?;
        Ok(self.state.lock().cgroup_driver)
    }

    async fn run_pod_sandbox(
        &self,
        config: api::PodSandboxConfig,
        handler: &str,
    ) -> Result<String, CriError> {
        let metadata = config.metadata.clone().unwrap_or_default();
        self.begin("run_pod_sandbox", &metadata.name)?;
        let mut state = self.state.lock();
        if state.sandboxes.values().any(|other| other.metadata.as_ref() == Some(&metadata)) {
            return Err(refused(format!("name \"{}\" is reserved", metadata.name)));
        }
        state.next_id += 1;
        let id = format!("sandbox-{}", state.next_id);
        let network = config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.as_ref()?.namespace_options.clone())
            .unwrap_or_default();
        let on_host = network.network() == api::NamespaceMode::Node;
        let ip = if on_host { String::new() } else { format!("10.0.0.{}", state.next_id) };
        let status = api::PodSandboxStatus {
            id: id.clone(),
            metadata: Some(metadata),
            state: api::PodSandboxState::SandboxReady.into(),
            created_at: self.now(),
            network: Some(api::PodSandboxNetworkStatus { ip, additional_ips: Vec::new() }),
            linux: Some(api::LinuxPodSandboxStatus {
                namespaces: Some(api::Namespace { options: Some(network) }),
            }),
            labels: config.labels,
            annotations: config.annotations,
            runtime_handler: handler.into(),
        };
        state.sandboxes.insert(id.clone(), status);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        self.begin("stop_pod_sandbox", id)?;
        let mut state = self.state.lock();
        let inside: Vec<String> =
            state.containers.iter().filter(|(_, c)| c.sandbox == id).map(|(id, _)| id.clone()).collect();
        for container in inside {
            self.finish(&mut state, &container, 137);
        }
        if let Some(sandbox) = state.sandboxes.get_mut(id) {
            sandbox.state = api::PodSandboxState::SandboxNotready.into();
            self.emit(id, EventKind::Stopped);
        }
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        self.stop_pod_sandbox(id).await?;
        self.begin("remove_pod_sandbox", id)?;
        let mut state = self.state.lock();
        state.containers.retain(|_, container| container.sandbox != id);
        state.sandboxes.remove(id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<api::PodSandboxStatus, CriError> {
        self.state.lock().sandboxes.get(id).cloned().ok_or_else(|| not_found("sandbox", id))
    }

    async fn list_pod_sandboxes(
        &self,
        filter: Option<api::PodSandboxFilter>,
    ) -> Result<Vec<api::PodSandbox>, CriError> {
        self.begin("list_pod_sandboxes", "")?;
        let filter = filter.unwrap_or_default();
        Ok(self
            .state
            .lock()
            .sandboxes
            .values()
            .filter(|sandbox| filter.id.is_empty() || filter.id == sandbox.id)
            .filter(|sandbox| labels_match(&filter.label_selector, &sandbox.labels))
            .filter(|sandbox| filter.state.as_ref().is_none_or(|want| want.state == sandbox.state))
            .map(|sandbox| api::PodSandbox {
                id: sandbox.id.clone(),
                metadata: sandbox.metadata.clone(),
                state: sandbox.state,
                created_at: sandbox.created_at,
                labels: sandbox.labels.clone(),
                annotations: sandbox.annotations.clone(),
                runtime_handler: sandbox.runtime_handler.clone(),
            })
            .collect())
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: api::ContainerConfig,
        _sandbox_config: api::PodSandboxConfig,
    ) -> Result<String, CriError> {
        let metadata = config.metadata.clone().unwrap_or_default();
        self.begin("create_container", &metadata.name)?;
        let mut state = self.state.lock();
        let owner = state.sandboxes.get(sandbox).ok_or_else(|| not_found("sandbox", sandbox))?;
        if owner.state() != api::PodSandboxState::SandboxReady {
            return Err(refused(format!("sandbox \"{sandbox}\" is not running")));
        }
        let image = config.image.clone().unwrap_or_default();
        let here =
            state.images.get(&image.image).or_else(|| state.images.values().find(|i| i.id == image.image));
        let Some(image_ref) = here.map(|image| image.id.clone()) else {
            return Err(not_found("image", &image.image));
        };
        if state
            .containers
            .values()
            .any(|other| other.sandbox == sandbox && other.config.metadata.as_ref() == Some(&metadata))
        {
            return Err(refused(format!("name \"{}\" is reserved", metadata.name)));
        }
        state.next_id += 1;
        let id = format!("container-{}", state.next_id);
        let status = api::ContainerStatus {
            id: id.clone(),
            metadata: Some(metadata),
            state: api::ContainerState::ContainerCreated.into(),
            created_at: self.now(),
            image: config.image.clone(),
            image_ref,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: config.log_path.clone(),
            ..Default::default()
        };
        state.containers.insert(id.clone(), FakeContainer { sandbox: sandbox.into(), config, status });
        self.emit(&id, EventKind::Created);
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), CriError> {
        self.begin("start_container", id)?;
        let mut state = self.state.lock();
        let container = state.containers.get_mut(id).ok_or_else(|| not_found("container", id))?;
        if container.status.state() != api::ContainerState::ContainerCreated {
            return Err(refused(format!(
                "container \"{id}\" is in {} state",
                container.status.state().as_str_name()
            )));
        }
        container.status.set_state(api::ContainerState::ContainerRunning);
        container.status.started_at = self.now();
        self.emit(id, EventKind::Started);
        let words: Vec<&str> =
            container.config.command.iter().chain(&container.config.args).map(String::as_str).collect();
        if let ["exit", code] | [_, "-c", code] = words.as_slice()
            && let Ok(code) = code.trim_start_matches("exit ").parse()
        {
            self.finish(&mut state, id, code);
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        // A real container takes its time: others go on meanwhile.
        tokio::task::yield_now().await;
        self.begin("stop_container", &format!("{id} {}", grace.as_secs()))?;
        let mut state = self.state.lock();
        self.finish(&mut state, id, 137);
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        self.begin("remove_container", id)?;
        let mut state = self.state.lock();
        self.finish(&mut state, id, 137);
        if state.containers.remove(id).is_some() {
            self.emit(id, EventKind::Deleted);
        }
        Ok(())
    }

    async fn list_containers(
        &self,
        filter: Option<api::ContainerFilter>,
    ) -> Result<Vec<api::Container>, CriError> {
        self.begin("list_containers", "")?;
        let filter = filter.unwrap_or_default();
        Ok(self
            .state
            .lock()
            .containers
            .values()
            .filter(|container| filter.id.is_empty() || filter.id == container.status.id)
            .filter(|container| {
                filter.pod_sandbox_id.is_empty() || filter.pod_sandbox_id == container.sandbox
            })
            .filter(|container| labels_match(&filter.label_selector, &container.status.labels))
            .filter(|container| filter.state.as_ref().is_none_or(|want| want.state == container.status.state))
            .map(|container| api::Container {
                id: container.status.id.clone(),
                pod_sandbox_id: container.sandbox.clone(),
                metadata: container.status.metadata.clone(),
                image: container.status.image.clone(),
                image_ref: container.status.image_ref.clone(),
                state: container.status.state,
                created_at: container.status.created_at,
                labels: container.status.labels.clone(),
                annotations: container.status.annotations.clone(),
                ..Default::default()
            })
            .collect())
    }

    async fn container_status(&self, id: &str) -> Result<api::ContainerStatus, CriError> {
        let state = self.state.lock();
        state.containers.get(id).map(|c| c.status.clone()).ok_or_else(|| not_found("container", id))
    }

    async fn update_container_resources(
        &self,
        id: &str,
        _resources: api::LinuxContainerResources,
    ) -> Result<(), CriError> {
        self.begin("update_container_resources", id)
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), CriError> {
        self.begin("reopen_container_log", id)
    }

    async fn list_container_stats(&self) -> Result<Vec<api::ContainerStats>, CriError> {
        Ok(Vec::new())
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        _timeout: Option<Duration>,
    ) -> Result<ExecOutput, CriError> {
        self.begin("exec_sync", &command.join(" "))?;
        let state = self.state.lock();
        let container = state.containers.get(id).ok_or_else(|| not_found("container", id))?;
        if container.status.state() != api::ContainerState::ContainerRunning {
            return Err(refused(format!("container is in {} state", container.status.state().as_str_name())));
        }
        let name = container.config.metadata.clone().unwrap_or_default().name;
        Ok(state.exec.get(&(name, command)).cloned().unwrap_or_default())
    }

    async fn exec(&self, request: api::ExecRequest) -> Result<String, CriError> {
        Ok(format!("http://127.0.0.1:1/exec/{}", request.container_id))
    }

    async fn attach(&self, request: api::AttachRequest) -> Result<String, CriError> {
        Ok(format!("http://127.0.0.1:1/attach/{}", request.container_id))
    }

    async fn port_forward(&self, request: api::PortForwardRequest) -> Result<String, CriError> {
        Ok(format!("http://127.0.0.1:1/portforward/{}", request.pod_sandbox_id))
    }

    async fn image_status(&self, image: api::ImageSpec) -> Result<Option<api::Image>, CriError> {
        let state = self.state.lock();
        Ok(state
            .images
            .get(&image.image)
            .or_else(|| state.images.values().find(|i| i.id == image.image))
            .cloned())
    }

    async fn pull_image(
        &self,
        image: api::ImageSpec,
        _auth: Option<api::AuthConfig>,
        _sandbox_config: api::PodSandboxConfig,
    ) -> Result<String, CriError> {
        self.begin("pull_image", &image.image)?;
        let mut state = self.state.lock();
        let Some(found) = state.pullable.get(&image.image).cloned() else {
            return Err(CriError::NotFound(format!(
                "failed to pull and unpack image \"{}\": not found",
                image.image
            )));
        };
        let id = found.id.clone();
        state.images.insert(image.image, found);
        Ok(id)
    }

    async fn list_images(&self) -> Result<Vec<api::Image>, CriError> {
        Ok(self.state.lock().images.values().cloned().collect())
    }

    async fn remove_image(&self, image: api::ImageSpec) -> Result<(), CriError> {
        self.state.lock().images.remove(&image.image);
        Ok(())
    }

    async fn image_fs_info(&self) -> Result<api::ImageFsInfoResponse, CriError> {
        Ok(api::ImageFsInfoResponse::default())
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<RuntimeEvent, CriError>>, CriError> {
        let stream = tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe());
        Ok(stream
            .map(|item| item.map_err(|lag| CriError::Unavailable(format!("events lost: {lag}"))))
            .boxed())
    }
}
