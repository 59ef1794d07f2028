//! The node agent: runs the pods that are bound to its node, in a container runtime that speaks CRI, and tells the API
//! server how they are.
//!
//! | module | what |
//! |---|---|
//! | [`pod`] | the core: model, decision, status, worker, manager, static pods |
//! | [`container`] | configuration of containers and sandboxes, images, hooks, logs |
//! | [`volume`] | volumes |
//! | [`probe`] | probes |
//! | [`cgroup`] | cgroups of pods |
//! | [`node`] | registration, lease, status of the node |
//! | [`server`] | the HTTPS server: logs, exec, attach, port-forward |
//! | [`config`] | settings, flags, KubeletConfiguration |
//! | [`yaml`] | files in YAML |
//!
//! One entry: [`run`]. It ends with its shutdown token and leaves the pods running; started again it takes them over, for
//! everything it has to know about them is in the runtime's labels and annotations, in upstream's own form.
//!
//! Invariants:
//! * it is a client: it reads and writes the cluster through the API only, and upstream's API server will do;
//! * it acts on events (API watch, runtime events, probes, timers); a look at everything every five minutes is the safety
//!   net, counted by `kubelet_pleg_relist_total`;
//! * decisions ([`pod::plan`], [`pod::status`]) are pure functions; what acts ([`pod::act`]) decides nothing.
//!
//! Deliberately absent: eviction and image garbage collection, persistent volumes and CSI, device plugins, the systemd
//! cgroup driver, user namespaces. Each is refused by name or shown in the pod's events.

pub mod cgroup;
pub mod command;
pub mod config;
pub mod container;
pub mod context;
pub mod directory;
#[cfg(test)]
#[allow(clippy::panic)] // A test's way to fail.
mod fake_api;
pub mod metrics;
pub mod node;
pub mod objects;
pub mod pod;
pub mod probe;
pub mod server;
pub mod teardown;
pub mod text;
pub mod volume;
pub mod wake;
pub mod yaml;

use std::convert::Infallible;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use copepod_client::{Shutdown, events::Recorder};
use copepod_cri::{CriClient, Runtime, api};
use copepod_serve::{
    Limits, Transport,
    tls::{ClientCa, TlsFiles, TlsSettings},
};
use tokio::net::TcpListener;

pub use config::{Configuration, KubeletConfig};
use context::Context;
use node::pressure::Signal;

/// How the agent calls itself in events.
const COMPONENT: &str = "kubelet";

/// Runs the agent until `shutdown`.
pub async fn run(config: KubeletConfig, shutdown: Shutdown) -> anyhow::Result<()> {
    let runtime: Arc<dyn Runtime> =
        Arc::new(CriClient::new(&config.runtime_endpoint, config.containerd_endpoint.as_deref())?);
    // Boxed: it is large, and callers hold it beside others.
    Box::pin(run_with(config, runtime, shutdown)).await
}

/// The same on any runtime: tests bring a fake one.
pub async fn run_with(
    mut config: KubeletConfig,
    runtime: Arc<dyn Runtime>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    for directory in [&config.root_dir, &config.pod_logs_dir] {
        std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    // What pods keep here is theirs, secrets among it: nobody else on the machine may look in.
    let pods = config.root_dir.join("pods");
    std::fs::create_dir_all(&pods).with_context(|| format!("making {}", pods.display()))?;
    volume::set_mode(&pods, 0o750)?;
    let listener = TcpListener::bind((config.address.as_str(), config.port))
        .await
        .with_context(|| format!("listening on {}:{}", config.address, config.port))?;
    config.port = listener.local_addr()?.port();
    let runtime_name = tokio::select! {
        name = runtime_name(runtime.as_ref()) => name,
        () = shutdown.cancelled() => return Ok(()),
    };
    check_cgroup_driver(runtime.as_ref(), config.cgroups_per_qos).await?;
    let context = build(config, runtime, runtime_name, &shutdown)?;
    // What evictions keep free is kept free by evictions, not by a limit that kills.
    let (cpu, memory) = context.machine.allocatable(&context.config);
    let memory = memory + context.config.eviction_hard.amount(Signal::Memory, context.machine.memory_bytes);
    let pids = context.machine.pids_allocatable(&context.config);
    context.cgroups.set_up(cpu, memory, pids).context("making the cgroup kubepods")?;
    let server = serve(context.clone(), listener)?;
    let log_context = context.clone();
    let manager = pod::manager::Manager::new(context.clone());
    let ((), (), (), served) = tokio::join!(
        node::run(context.clone()),
        manager.run(),
        async move { container::log_rotate::run(&log_context).await },
        server
    );
    served
}

/// The runtime's name; waits for a runtime that is not up yet.
async fn runtime_name(runtime: &dyn Runtime) -> String {
    loop {
        match runtime.version().await {
            Ok(version) => return version.runtime_name,
            Err(error) => tracing::warn!(error = error.grpc_text(), "waiting for the container runtime"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Refuses a runtime that leaves cgroups to systemd: limits of pods would be set in one place and read in another.
// upstream: cmd/kubelet/app/server.go getCgroupDriverFromCRI
async fn check_cgroup_driver(runtime: &dyn Runtime, cgroups_per_qos: bool) -> anyhow::Result<()> {
    match runtime.cgroup_driver().await.context("asking the runtime for its cgroup driver")? {
        Some(api::CgroupDriver::Systemd) if cgroups_per_qos => {
            Err(config::ConfigError::RuntimeDriver("systemd").into())
        }
        _ => Ok(()),
    }
}

fn build(
    config: KubeletConfig,
    runtime: Arc<dyn Runtime>,
    runtime_name: String,
    shutdown: &Shutdown,
) -> anyhow::Result<Arc<Context>> {
    let client = config.client.clone();
    let wakers = Arc::new(wake::Wakers::default());
    let host_ips = if config.node_ips.is_empty() { vec![own_address()] } else { config.node_ips.clone() };
    Ok(Arc::new(Context {
        recorder: Recorder::new(client.clone(), COMPONENT, &config.node_name, shutdown.clone()),
        objects: objects::ObjectCache::new(client.clone(), wakers.clone()),
        services: objects::ServiceCache::start(client.clone()),
        tokens: volume::token::TokenCache::default(),
        cgroups: cgroup::Cgroups::new(&config.cgroup_root, config.cgroups_per_qos)
            .context("reading cgroups")?,
        puller: container::image::Puller::new(config.parallel_pulls),
        machine: node::machine::Machine::read(&config.root_dir).context("reading the machine")?,
        node: node::own::OwnNode::watch(client.clone(), &config.node_name, shutdown.clone()),
        metrics: metrics::Metrics::default(),
        pods: context::PodTable::default(),
        client,
        runtime,
        runtime_name,
        host_ips,
        wakers,
        config,
        shutdown: shutdown.clone(),
    }))
}

/// The address the kernel would use towards the world; nothing is sent.
fn own_address() -> String {
    let probe = || -> std::io::Result<String> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("192.0.2.1:9")?;
        Ok(socket.local_addr()?.ip().to_string())
    };
    // Without a route there is only the machine itself.
    probe().unwrap_or_else(|_| "127.0.0.1".into())
}

fn serve(
    context: Arc<Context>,
    listener: TcpListener,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>>> {
    let config = &context.config;
    let pair = match &config.tls {
        Some(pair) => pair.clone(),
        None => self_signed(&config.root_dir, &config.node_name, &context.host_ips)?,
    };
    let tls = TlsSettings::load(TlsFiles {
        default: pair,
        client_ca: config.client_ca.iter().cloned().collect(),
        // As upstream. Upstream's API server, besides, loses the last piece of a log that it has over HTTP/1.1 and passes on over
        // WebSocket, when piece and end arrive together.
        http2: true,
        ..TlsFiles::default()
    })?;
    let client_ca = config.client_ca.as_deref().map(ClientCa::load).transpose()?;
    let server = Arc::new(server::Server::new(context.clone(), server::auth::Authenticator::new(client_ca)));
    let service = tower::service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.handle(request).await) }
    });
    // Streams of exec and logs do not end by themselves: at the end of the agent they are cut soon.
    let limits = Limits { drain_timeout: Duration::from_secs(2), ..Limits::default() };
    let shutdown = context.shutdown.clone();
    Ok(async move {
        copepod_serve::serve(listener, Transport::Tls(Arc::new(tls)), service, limits, shutdown).await?;
        Ok(())
    })
}

/// A certificate of the node's own, made once, as upstream's kubelet makes `pki/kubelet.{crt,key}`.
fn self_signed(root_dir: &Path, node_name: &str, ips: &[String]) -> anyhow::Result<(PathBuf, PathBuf)> {
    use std::os::unix::fs::OpenOptionsExt;
    let directory = root_dir.join("pki");
    let (certificate, key) = (directory.join("kubelet.crt"), directory.join("kubelet.key"));
    if certificate.exists() && key.exists() {
        return Ok((certificate, key));
    }
    std::fs::create_dir_all(&directory)?;
    let names: Vec<String> = std::iter::once(node_name.to_owned()).chain(ips.iter().cloned()).collect();
    let made = rcgen::generate_simple_self_signed(names)?;
    std::fs::write(&certificate, made.cert.pem())?;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&key)?;
    std::io::Write::write_all(&mut file, made.signing_key.serialize_pem().as_bytes())?;
    Ok((certificate, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use copepod_cri::fake::FakeRuntime;

    /// One line that says what to do; a runtime that cannot say is taken for one with files, as upstream's default is.
    #[tokio::test]
    async fn a_runtime_with_another_cgroup_driver_is_refused() {
        let runtime = FakeRuntime::default();
        check_cgroup_driver(&runtime, true).await.expect("it does not say");
        runtime.set_cgroup_driver(api::CgroupDriver::Cgroupfs);
        check_cgroup_driver(&runtime, true).await.expect("the same");
        runtime.set_cgroup_driver(api::CgroupDriver::Systemd);
        let error = check_cgroup_driver(&runtime, true).await.expect_err("another").to_string();
        assert!(error.contains("SystemdCgroup = false") && !error.contains('\n'), "{error}");
        check_cgroup_driver(&runtime, false).await.expect("no cgroups, no matter");
    }
}
