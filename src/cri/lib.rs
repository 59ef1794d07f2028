//! The container runtime as the node agent sees it: the `Runtime` trait, a CRI v1 client, an in-memory fake.
//!
//! Owns: the connection to the runtime's unix socket, time limits of calls, the translation of gRPC statuses into
//! [`CriError`], the stream of container events. Does not: decide what runs; keep state about containers (the runtime
//! is the only truth, every question is a call).
//!
//! Invariants:
//! * stopping or removing something that is already gone succeeds, as CRI demands of runtimes; [`CriError::NotFound`]
//!   comes only from questions (`*_status`) and from actions that need the object (`start_container`, `exec_sync`);
//! * no call hangs for ever: each has a limit ([`CALL_TIMEOUT`], plus the grace period or probe time it was given),
//!   except `pull_image`, which its caller may drop;
//! * a broken connection is remade by the next call; an event stream that breaks ends, and its consumer relists.
//!
//! The same contract suite (`contract.rs`) runs over the fake and, where `COPEPOD_CRI_ENDPOINT` names a socket, over a
//! real runtime.

mod client;
#[cfg(test)]
#[allow(clippy::panic)] // A test's way to fail.
mod contract;
mod error;
mod events;
pub mod fake;

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

pub use client::{CALL_TIMEOUT, CriClient};
pub use error::CriError;
pub use events::{EventKind, RuntimeEvent};
/// The messages of CRI v1, as generated from its definition.
pub use k8s_cri::v1 as api;

/// What a command run in a container left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Bytes of standard output, at most what the runtime keeps (16 MiB).
    pub stdout: Vec<u8>,
    /// Bytes of standard error.
    pub stderr: Vec<u8>,
    /// Exit code of the command.
    pub exit_code: i32,
}

/// The calls of CRI's RuntimeService and ImageService that a node agent needs.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Name and version of the runtime.
    async fn version(&self) -> Result<api::VersionResponse, CriError>;
    /// Conditions (`RuntimeReady`, `NetworkReady`), handlers and features.
    async fn status(&self) -> Result<api::StatusResponse, CriError>;

    /// How the runtime makes cgroups; `None` if it cannot say (containerd 1.x).
    async fn cgroup_driver(&self) -> Result<Option<api::CgroupDriver>, CriError>;

    /// Creates and starts a sandbox; returns its id.
    async fn run_pod_sandbox(&self, config: api::PodSandboxConfig, handler: &str)
    -> Result<String, CriError>;
    /// Kills whatever runs in the sandbox and releases its network.
    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError>;
    /// Removes a sandbox and all its containers.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError>;
    /// Status of one sandbox with its addresses.
    async fn pod_sandbox_status(&self, id: &str) -> Result<api::PodSandboxStatus, CriError>;
    /// Sandboxes that match the filter; all of them without one.
    async fn list_pod_sandboxes(
        &self,
        filter: Option<api::PodSandboxFilter>,
    ) -> Result<Vec<api::PodSandbox>, CriError>;

    /// Creates a container in a sandbox; returns its id.
    async fn create_container(
        &self,
        sandbox: &str,
        config: api::ContainerConfig,
        sandbox_config: api::PodSandboxConfig,
    ) -> Result<String, CriError>;
    /// Starts a created container.
    async fn start_container(&self, id: &str) -> Result<(), CriError>;
    /// Stop signal, then a kill after `grace`.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError>;
    /// Removes a container, by force if it runs.
    async fn remove_container(&self, id: &str) -> Result<(), CriError>;
    /// Containers that match the filter; all of them without one.
    async fn list_containers(
        &self,
        filter: Option<api::ContainerFilter>,
    ) -> Result<Vec<api::Container>, CriError>;
    /// Status of one container.
    async fn container_status(&self, id: &str) -> Result<api::ContainerStatus, CriError>;
    /// Changes cgroup limits of a running container.
    async fn update_container_resources(
        &self,
        id: &str,
        resources: api::LinuxContainerResources,
    ) -> Result<(), CriError>;
    /// Makes the runtime open the container's log file anew, after it was renamed.
    async fn reopen_container_log(&self, id: &str) -> Result<(), CriError>;
    /// Usage figures of all containers.
    async fn list_container_stats(&self) -> Result<Vec<api::ContainerStats>, CriError>;

    /// Runs a command and waits for it. A `timeout` that passes is [`CriError::DeadlineExceeded`].
    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecOutput, CriError>;
    /// URL at which the runtime's streaming server serves this exec.
    async fn exec(&self, request: api::ExecRequest) -> Result<String, CriError>;
    /// URL at which the runtime's streaming server serves this attach.
    async fn attach(&self, request: api::AttachRequest) -> Result<String, CriError>;
    /// URL at which the runtime's streaming server serves this port-forward.
    async fn port_forward(&self, request: api::PortForwardRequest) -> Result<String, CriError>;

    /// The image if it is here.
    async fn image_status(&self, image: api::ImageSpec) -> Result<Option<api::Image>, CriError>;
    /// Pulls an image; returns its reference.
    async fn pull_image(
        &self,
        image: api::ImageSpec,
        auth: Option<api::AuthConfig>,
        sandbox_config: api::PodSandboxConfig,
    ) -> Result<String, CriError>;
    /// All images that are here.
    async fn list_images(&self) -> Result<Vec<api::Image>, CriError>;
    /// Removes an image; one that is not here is no error.
    async fn remove_image(&self, image: api::ImageSpec) -> Result<(), CriError>;
    /// Space used by images.
    async fn image_fs_info(&self) -> Result<api::ImageFsInfoResponse, CriError>;

    /// What happens to containers from about the first poll on (a runtime does not say when it has subscribed: look at
    /// everything a moment later). Ends when the connection breaks: relist, then subscribe anew.
    async fn events(&self) -> Result<BoxStream<'static, Result<RuntimeEvent, CriError>>, CriError>;
}
