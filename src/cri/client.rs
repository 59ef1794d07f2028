//! CRI v1 over a unix socket.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::{
    CriError, ExecOutput, Runtime, RuntimeEvent,
    api::{self, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient},
    events,
};

/// Limit of a call that waits for nothing but the runtime (upstream's `--runtime-request-timeout`).
pub const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// A sandbox may wait for CNI plugins: upstream gives it twice the usual limit.
const SANDBOX_TIMEOUT: Duration = Duration::from_secs(240);

/// Largest answer taken. Upstream's limit for CRI messages; a list of thousands of containers stays below.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Client of one runtime. Clones share the connection.
#[derive(Debug, Clone)]
pub struct CriClient {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    /// Connection to containerd's own API, for events of versions without CRI events.
    containerd: Channel,
}

impl CriClient {
    /// A client of the socket at `endpoint` (`unix:///run/containerd/containerd.sock`, or a bare path). Connects on
    /// first use, so that a runtime which is not up yet is an error of the calls, not of the start.
    ///
    /// `containerd_endpoint` is where containerd's events service listens if that is another socket.
    pub fn new(endpoint: &str, containerd_endpoint: Option<&str>) -> Result<Self, CriError> {
        let channel = connect(endpoint)?;
        let containerd = match containerd_endpoint {
            Some(other) if other != endpoint => connect(other)?,
            _ => channel.clone(),
        };
        Ok(CriClient {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            images: ImageServiceClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            containerd,
        })
    }
}

fn connect(endpoint: &str) -> Result<Channel, CriError> {
    let path = match endpoint.split_once("://") {
        Some(("unix", path)) => path,
        Some((scheme, _)) => {
            return Err(CriError::Unavailable(format!("protocol {scheme:?} not supported, use unix")));
        }
        None => endpoint,
    }
    .to_owned();
    Ok(Endpoint::from_static("http://localhost").connect_with_connector_lazy(service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    })))
}

/// A request with a limit that travels in its headers and is kept by the client too.
fn limited<T>(message: T, limit: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    request
}

/// Waits at most `limit`: a runtime that hangs must not hang its caller.
async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, CriError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(CriError::DeadlineExceeded("context deadline exceeded".into())),
    }
}

/// To stop or remove what is gone is done already. (containerd before 1.7 says NotFound; CRI says it must not.)
fn gone_is_done<T>(answer: Result<T, CriError>) -> Result<(), CriError> {
    match answer {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

fn missing(what: &str) -> CriError {
    CriError::Failed { code: "Internal", message: format!("{what} is not set") }
}

/// `call!(self.runtime.stop_container(message))`: one limited unary call.
macro_rules! call {
    ($self:ident . $client:ident . $method:ident ( $message:expr ), $limit:expr) => {{
        let mut client = $self.$client.clone();
        let limit = $limit;
        within(limit, client.$method(limited($message, limit))).await
    }};
    ($self:ident . $client:ident . $method:ident ( $message:expr )) => {
        call!($self.$client.$method($message), CALL_TIMEOUT)
    };
}

#[async_trait]
impl Runtime for CriClient {
    async fn version(&self) -> Result<api::VersionResponse, CriError> {
        call!(self.runtime.version(api::VersionRequest { version: "0.1.0".into() }))
    }

    async fn status(&self) -> Result<api::StatusResponse, CriError> {
        call!(self.runtime.status(api::StatusRequest { verbose: false }))
    }

    async fn cgroup_driver(&self) -> Result<Option<api::CgroupDriver>, CriError> {
        match call!(self.runtime.runtime_config(api::RuntimeConfigRequest {})) {
            Ok(config) => Ok(config.linux.map(|linux| linux.cgroup_driver())),
            Err(CriError::Unimplemented(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn run_pod_sandbox(
        &self,
        config: api::PodSandboxConfig,
        handler: &str,
    ) -> Result<String, CriError> {
        let message = api::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.into() };
        Ok(call!(self.runtime.run_pod_sandbox(message), SANDBOX_TIMEOUT)?.pod_sandbox_id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        gone_is_done(call!(
            self.runtime.stop_pod_sandbox(api::StopPodSandboxRequest { pod_sandbox_id: id.into() })
        ))
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        gone_is_done(call!(
            self.runtime.remove_pod_sandbox(api::RemovePodSandboxRequest { pod_sandbox_id: id.into() })
        ))
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<api::PodSandboxStatus, CriError> {
        let message = api::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        call!(self.runtime.pod_sandbox_status(message))?.status.ok_or_else(|| missing("pod sandbox status"))
    }

    async fn list_pod_sandboxes(
        &self,
        filter: Option<api::PodSandboxFilter>,
    ) -> Result<Vec<api::PodSandbox>, CriError> {
        Ok(call!(self.runtime.list_pod_sandbox(api::ListPodSandboxRequest { filter }))?.items)
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: api::ContainerConfig,
        sandbox_config: api::PodSandboxConfig,
    ) -> Result<String, CriError> {
        let message = api::CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(call!(self.runtime.create_container(message))?.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<(), CriError> {
        call!(self.runtime.start_container(api::StartContainerRequest { container_id: id.into() })).map(drop)
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let message = api::StopContainerRequest { container_id: id.into(), timeout };
        gone_is_done(call!(self.runtime.stop_container(message), CALL_TIMEOUT.saturating_add(grace)))
    }

    async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        gone_is_done(call!(
            self.runtime.remove_container(api::RemoveContainerRequest { container_id: id.into() })
        ))
    }

    async fn list_containers(
        &self,
        filter: Option<api::ContainerFilter>,
    ) -> Result<Vec<api::Container>, CriError> {
        Ok(call!(self.runtime.list_containers(api::ListContainersRequest { filter }))?.containers)
    }

    async fn container_status(&self, id: &str) -> Result<api::ContainerStatus, CriError> {
        let message = api::ContainerStatusRequest { container_id: id.into(), verbose: false };
        call!(self.runtime.container_status(message))?.status.ok_or_else(|| missing("container status"))
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: api::LinuxContainerResources,
    ) -> Result<(), CriError> {
        let message = api::UpdateContainerResourcesRequest {
            container_id: id.into(),
            linux: Some(resources),
            ..Default::default()
        };
        call!(self.runtime.update_container_resources(message)).map(drop)
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), CriError> {
        call!(self.runtime.reopen_container_log(api::ReopenContainerLogRequest { container_id: id.into() }))
            .map(drop)
    }

    async fn list_container_stats(&self) -> Result<Vec<api::ContainerStats>, CriError> {
        Ok(call!(self.runtime.list_container_stats(api::ListContainerStatsRequest { filter: None }))?.stats)
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecOutput, CriError> {
        let message = api::ExecSyncRequest {
            container_id: id.into(),
            cmd: command,
            timeout: timeout.map_or(0, |t| i64::try_from(t.as_secs().max(1)).unwrap_or(i64::MAX)),
        };
        let mut client = self.runtime.clone();
        let answer = match timeout {
            // The runtime stops the command itself; our own limit is only for a runtime that hangs.
            Some(timeout) => within(timeout.saturating_add(CALL_TIMEOUT), client.exec_sync(message)).await?,
            // A hook without a limit of its own: its caller drops the call when the grace period is over.
            None => client.exec_sync(message).await?.into_inner(),
        };
        Ok(ExecOutput { stdout: answer.stdout, stderr: answer.stderr, exit_code: answer.exit_code })
    }

    async fn exec(&self, request: api::ExecRequest) -> Result<String, CriError> {
        Ok(call!(self.runtime.exec(request))?.url)
    }

    async fn attach(&self, request: api::AttachRequest) -> Result<String, CriError> {
        Ok(call!(self.runtime.attach(request))?.url)
    }

    async fn port_forward(&self, request: api::PortForwardRequest) -> Result<String, CriError> {
        Ok(call!(self.runtime.port_forward(request))?.url)
    }

    async fn image_status(&self, image: api::ImageSpec) -> Result<Option<api::Image>, CriError> {
        let message = api::ImageStatusRequest { image: Some(image), verbose: false };
        Ok(call!(self.images.image_status(message))?.image)
    }

    async fn pull_image(
        &self,
        image: api::ImageSpec,
        auth: Option<api::AuthConfig>,
        sandbox_config: api::PodSandboxConfig,
    ) -> Result<String, CriError> {
        let message =
            api::PullImageRequest { image: Some(image), auth, sandbox_config: Some(sandbox_config) };
        Ok(self.images.clone().pull_image(message).await?.into_inner().image_ref)
    }

    async fn list_images(&self) -> Result<Vec<api::Image>, CriError> {
        Ok(call!(self.images.list_images(api::ListImagesRequest { filter: None }))?.images)
    }

    async fn remove_image(&self, image: api::ImageSpec) -> Result<(), CriError> {
        call!(self.images.remove_image(api::RemoveImageRequest { image: Some(image) })).map(drop)
    }

    async fn image_fs_info(&self) -> Result<api::ImageFsInfoResponse, CriError> {
        call!(self.images.image_fs_info(api::ImageFsInfoRequest {}))
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<RuntimeEvent, CriError>>, CriError> {
        Ok(events::subscribe(self.runtime.clone(), self.containerd.clone()))
    }
}
