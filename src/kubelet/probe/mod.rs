//! Probes: one task for each probe of a running container, verdicts in a table, a knock at the worker when one changes.
//!
//! A startup probe runs alone; when it has succeeded, liveness and readiness begin. A verdict settles when as many
//! results in a row agree as its threshold says. After a failed liveness or a settled startup the task ends: what follows
//! is the worker's to do.
//!
//! upstream: kubelet/prober/worker.go, prober.go

pub mod exec;
pub mod grpc;
pub mod http;
pub mod tcp;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_client::events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::{
    context::{Context, container_reference},
    pod::{
        backoff::later,
        model::{ProbeResults, ProbeTable, names},
    },
    wake::{Cause, Waker},
};

/// Tries of a probe that could not be carried out at all.
const TRIES: usize = 3;

/// What one attempt found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Success,
    /// Well, with a remark.
    Warning(String),
    /// Not well, and why.
    Failure(String),
    /// It could not be tried.
    Error(String),
}

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Startup.
    Startup,
    /// Liveness.
    Liveness,
    /// Readiness.
    Readiness,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Kind::Startup => container.startup_probe.as_ref(),
            Kind::Liveness => container.liveness_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What a probe task needs to know.
#[derive(Clone)]
pub struct Target {
    /// Shared parts.
    pub context: Arc<Context>,
    /// The pod.
    pub pod: Arc<Pod>,
    /// The container.
    pub container: Container,
    /// Its id.
    pub id: String,
    /// First address of the pod.
    pub pod_ip: String,
    /// When the container was started.
    pub started_at: Timestamp,
}

struct Running {
    results: Arc<Mutex<ProbeResults>>,
    tasks: JoinSet<()>,
}

/// The probes of one pod's containers.
#[derive(Default)]
pub struct ProbeSet {
    running: HashMap<String, Running>,
}

impl ProbeSet {
    /// The verdicts so far.
    pub fn table(&self) -> ProbeTable {
        self.running.iter().map(|(id, running)| (id.clone(), *running.results.lock())).collect()
    }

    /// Whether a container's probes are on.
    pub fn has(&self, id: &str) -> bool {
        self.running.contains_key(id)
    }

    /// Ends the probes of containers that are not in `alive`.
    pub fn keep(&mut self, alive: impl Fn(&str) -> bool) {
        self.running.retain(|id, _| alive(id));
    }

    /// Ends what could kill a container that is being stopped; readiness goes on.
    pub fn stop_killing(&mut self) {
        for running in self.running.values_mut() {
            let mut results = running.results.lock();
            results.liveness = results.liveness.and(Some(true));
            results.startup = results.startup.or(Some(true));
        }
    }

    /// Starts a container's probes. `before` are verdicts from before the agent's own restart.
    pub fn start(&mut self, target: Target, before: ProbeResults, waker: &Arc<Waker>) {
        let results = Arc::new(Mutex::new(before));
        let mut tasks = JoinSet::new();
        let (shared, waker) = (results.clone(), waker.clone());
        let id = target.id.clone();
        tasks.spawn(async move {
            let needs_startup =
                target.container.startup_probe.is_some() && shared.lock().startup != Some(true);
            if needs_startup && !run(&target, Kind::Startup, &shared, &waker).await {
                return;
            }
            futures::join!(
                run(&target, Kind::Liveness, &shared, &waker),
                run(&target, Kind::Readiness, &shared, &waker)
            );
        });
        self.running.insert(id, Running { results, tasks });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

/// Runs one probe until it is settled for good; true if it ended well.
async fn run(target: &Target, kind: Kind, results: &Mutex<ProbeResults>, waker: &Waker) -> bool {
    let Some(probe) = kind.of(&target.container) else { return true };
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
    };
    let begin = later(target.started_at, seconds(probe.initial_delay_seconds, 0));
    if let Ok(wait) = Duration::try_from(begin.duration_since(Timestamp::now())) {
        tokio::time::sleep(wait).await;
    }
    let mut ticks = tokio::time::interval(seconds(probe.period_seconds, 10).max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let threshold = |value: Option<i32>, default: i32| value.unwrap_or(default).max(1);
    let mut row = (true, 0);
    loop {
        ticks.tick().await;
        let Some(good) = attempt(target, kind, probe).await else { continue };
        row = if row.0 == good { (good, row.1 + 1) } else { (good, 1) };
        let needed =
            if good { threshold(probe.success_threshold, 1) } else { threshold(probe.failure_threshold, 3) };
        if row.1 < needed {
            continue;
        }
        let changed = {
            let mut results = results.lock();
            let slot = match kind {
                Kind::Startup => &mut results.startup,
                Kind::Liveness => &mut results.liveness,
                Kind::Readiness => &mut results.readiness,
            };
            let changed = *slot != Some(good);
            *slot = Some(good);
            changed
        };
        if changed {
            waker.wake(Cause::Probe);
        }
        match kind {
            Kind::Startup => return good,
            Kind::Liveness if !good => return false,
            _ => {}
        }
    }
}

/// One attempt with its events; `None` if it could not be carried out.
async fn attempt(target: &Target, kind: Kind, probe: &Probe) -> Option<bool> {
    let timeout = Duration::from_secs(
        probe.timeout_seconds.and_then(|value| u64::try_from(value).ok()).unwrap_or(1).max(1),
    );
    let mut outcome = Outcome::Error("not tried".into());
    for _ in 0..TRIES {
        outcome = once(target, probe, timeout).await;
        if !matches!(outcome, Outcome::Error(_)) {
            break;
        }
    }
    let name = kind.name();
    let event = |reason: &str, message: String| {
        let reference = container_reference(&target.pod, &target.container.name);
        target.context.recorder.event(&reference, EventType::Warning, reason, message);
    };
    let (verdict, label) = match outcome {
        Outcome::Success => (Some(true), "successful"),
        Outcome::Warning(text) => {
            event("ProbeWarning", format!("{name} probe warning: {text}"));
            (Some(true), "successful")
        }
        Outcome::Failure(text) => {
            event("Unhealthy", format!("{name} probe failed: {text}"));
            (Some(false), "failed")
        }
        Outcome::Error(text) => {
            event("Unhealthy", format!("{name} probe errored and resulted in unknown state: {text}"));
            (None, "unknown")
        }
    };
    let (namespace, pod) = names(&target.pod);
    target.context.metrics.probes.with(&[name, label, &target.container.name, pod, namespace]).inc();
    verdict
}

async fn once(target: &Target, probe: &Probe, timeout: Duration) -> Outcome {
    let Target { context, container, id, pod_ip, .. } = target;
    if let Some(action) = &probe.exec {
        let command = action.command.clone().unwrap_or_default();
        return exec::probe(context.runtime.as_ref(), id, command, timeout).await;
    }
    if let Some(action) = &probe.http_get {
        return match http::HttpTarget::new(action, container, pod_ip, "probe") {
            Ok(address) => http::probe(&address, timeout).await,
            Err(error) => Outcome::Error(error),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
        return match resolve_port(&action.port, container) {
            Ok(port) => tcp::probe(host, port, timeout).await,
            Err(error) => Outcome::Error(error),
        };
    }
    if let Some(action) = &probe.grpc {
        let service = action.service.as_deref().unwrap_or_default();
        return match u16::try_from(action.port) {
            Ok(port) => grpc::probe(pod_ip, port, service, timeout).await,
            Err(_) => Outcome::Error(format!("invalid port number: {}", action.port)),
        };
    }
    Outcome::Error(format!(
        "missing probe handler for {}:{}",
        crate::text::pod_text(&target.pod),
        container.name
    ))
}

/// A port by number or by the container's name for it.
// upstream: pkg/probe/util.go ResolveContainerPort
pub fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            match (named, name.parse()) {
                (Some(port), _) => port.container_port,
                (None, Ok(number)) => number,
                (None, Err(_)) => return Err(format!("couldn't find port: {name}")),
            }
        }
    };
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("invalid port number: {number}")),
    }
}

/// `host:port`, with brackets about an IPv6 address.
pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A connection failure in Go's words.
pub fn dial_error(address: &str, error: &std::io::Error) -> String {
    let what = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        std::io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {address}: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_by_number_and_name() {
        let container: Container = serde_json::from_value(
            serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}),
        )
        .expect("a container");
        for (port, want) in [
            (IntOrString::Int(80), Ok(80)),
            (IntOrString::String("web".into()), Ok(8080)),
            (IntOrString::String("81".into()), Ok(81)),
            (IntOrString::String("none".into()), Err("couldn't find port: none".to_owned())),
            (IntOrString::Int(70000), Err("invalid port number: 70000".to_owned())),
        ] {
            assert_eq!(resolve_port(&port, &container), want);
        }
    }
}
