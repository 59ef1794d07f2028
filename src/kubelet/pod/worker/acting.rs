//! Carrying a plan out, and keeping what runs up to date: volumes, limits.
//!
//! upstream: kubelet/kuberuntime/kuberuntime_manager.go SyncPod, doPodResizeAction

use std::time::Duration;

use copepod_client::events::EventType;
use copepod_cri::api;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{RETRY, Update, Worker, shown_of};
use crate::{
    container::sandbox::sandbox_config,
    context::{container_reference, pod_reference},
    pod::{
        act::{StartError, StartInputs, create_sandbox, start_container},
        backoff::{self, later},
        kill::{Victim, grace_seconds, kill_container, kill_pod},
        model::{ContainerKind, Observed, RunState, find_container, host_network, is_sidecar},
        observe::sandbox_of,
        plan::{KillReason, Plan, SandboxPlan, container_at},
        resize::{self, Resize, check_memory},
    },
    text::pod_text,
    volume,
};

/// First and longest wait after a volume failed.
// upstream: pkg/util/goroutinemap/exponentialbackoff
pub(super) const VOLUME_RETRY_MIN: Duration = Duration::from_millis(500);
const VOLUME_RETRY_MAX: Duration = Duration::from_secs(122);

impl Worker {
    /// Carries a plan out. The error is the time to try again.
    pub(super) async fn act(
        &mut self,
        update: &Update,
        observed: &Observed,
        plan: Plan,
    ) -> Result<(), Timestamp> {
        let context = self.context.clone();
        let pod = update.pod.clone();
        let soon = || later(Timestamp::now(), RETRY);
        let failed = |what: &'static str| {
            let pod = pod_text(&pod);
            move |error: String| {
                tracing::warn!(error, pod, what);
                soon()
            }
        };
        if plan.kill_pod {
            if matches!(plan.sandbox, SandboxPlan::Create { replaces: true, .. }) {
                let message = "Pod sandbox changed, it will be killed and re-created.";
                context.recorder.event(&pod_reference(&pod), EventType::Normal, "SandboxChanged", message);
            }
            kill_pod(&context, &pod, observed, None).await.map_err(failed("ending the pod"))?;
        }
        for kill in &plan.kill {
            let Some((_, container)) = find_container(&pod, &kill.name) else { continue };
            let victim = Victim {
                pod: &pod,
                name: &kill.name,
                id: &kill.id,
                message: &kill.message,
                grace_seconds: grace_seconds(&pod, &container, kill.reason),
                pod_ips: observed.ips(),
            };
            kill_container(&context, victim).await.map_err(failed("killing a container"))?;
        }
        if plan.start.is_empty() && !matches!(plan.sandbox, SandboxPlan::Create { .. }) {
            return Ok(());
        }
        if !self.set_up_volumes(update, observed).await {
            return Err(self.retries.get("").copied().unwrap_or_else(soon));
        }
        let (sandbox, config, ips) = match plan.sandbox {
            SandboxPlan::None => return Ok(()),
            SandboxPlan::Keep(id) => {
                let attempt = observed.active_sandbox().map_or(0, |sandbox| sandbox.attempt);
                let (config, _) = sandbox_config(&context, &pod, attempt)
                    .map_err(|error| failed("sandbox configuration")(error.to_string()))?;
                (id, config, observed.ips().to_vec())
            }
            SandboxPlan::Create { attempt, .. } => self.make_sandbox(update, attempt).await?,
        };
        let ips = if host_network(&pod) { context.host_ips.clone() } else { ips };
        let volumes = self.mounted.as_ref().map(|mounted| mounted.paths.clone()).unwrap_or_default();
        let mut retry: Option<Timestamp> = None;
        for start in plan.start {
            let container = container_at(&pod, start);
            self.note_restart(observed, &container);
            let inputs = StartInputs {
                pod: &pod,
                container: &container,
                kind: start.kind,
                observed,
                sandbox: &sandbox,
                sandbox_config: &config,
                volumes: &volumes,
                pod_ips: &ips,
            };
            match start_container(&context, inputs).await {
                Ok(id) => {
                    context.pods.own(&id, &self.uid);
                    self.errors.remove(&container.name);
                    self.retries.remove(&container.name);
                }
                Err(error) => {
                    let at = self.note_failure(&container.name, error);
                    retry = Some(retry.map_or(at, |other| other.min(at)));
                    if start.kind == ContainerKind::Init && !is_sidecar(&container) {
                        break;
                    }
                }
            }
        }
        retry.map_or(Ok(()), Err)
    }

    async fn make_sandbox(
        &mut self,
        update: &Update,
        attempt: u32,
    ) -> Result<(String, api::PodSandboxConfig, Vec<String>), Timestamp> {
        let context = self.context.clone();
        let hold = |worker: &mut Self| {
            let at = later(Timestamp::now(), RETRY);
            worker.retries.insert(String::new(), at);
            at
        };
        if let Err(error) = context.cgroups.create_pod(&update.pod) {
            let message = format!("error: failed to create pod cgroup: {error}");
            context.recorder.event(
                &pod_reference(&update.pod),
                EventType::Warning,
                "FailedCreatePodContainer",
                message,
            );
            return Err(hold(self));
        }
        let Ok((id, config)) = create_sandbox(&context, &update.pod, attempt).await else {
            return Err(hold(self));
        };
        context.pods.own(&id, &self.uid);
        match context.runtime.pod_sandbox_status(&id).await {
            Ok(status) => {
                let sandbox = sandbox_of(&status);
                self.cache.note_sandbox(sandbox.clone());
                Ok((id, config, sandbox.ips.unwrap_or_default()))
            }
            Err(error) => {
                let message = format!("Unable to get pod sandbox status: {}", error.grpc_text());
                context.recorder.event(
                    &pod_reference(&update.pod),
                    EventType::Warning,
                    "FailedPodSandBoxStatus",
                    message,
                );
                Err(later(Timestamp::now(), RETRY))
            }
        }
    }

    /// Counts a crash: the next restart waits longer.
    fn note_restart(&mut self, observed: &Observed, container: &Container) {
        let exited = observed
            .containers
            .iter()
            .find(|instance| instance.name == container.name && instance.state == RunState::Exited);
        if let Some(finished) = exited.and_then(|instance| instance.finished_at) {
            self.backoff.next(&backoff::key(container), finished, Timestamp::now());
        }
    }

    fn note_failure(&mut self, name: &str, error: StartError) -> Timestamp {
        self.errors.insert(name.to_owned(), (error.reason, error.message));
        let at = error.retry_at.unwrap_or_else(|| later(Timestamp::now(), RETRY));
        self.retries.insert(name.to_owned(), at);
        at
    }

    /// Sets volumes up, or brings them up to date. False: not now, the time to retry is noted.
    pub(super) async fn set_up_volumes(&mut self, update: &Update, observed: &Observed) -> bool {
        let set_up = match self.ahead.take() {
            Some(done) => done,
            None => volume::set_up(&self.context, &update.pod, observed.ips()).await,
        };
        match set_up {
            Ok(mounted) => {
                self.mounted = Some(mounted);
                self.shown = Some(shown_of(&update.pod));
                self.volume_delay = VOLUME_RETRY_MIN;
                true
            }
            Err((name, error)) => {
                let message = format!("MountVolume.SetUp failed for volume {name:?} : {error}");
                let reference = pod_reference(&update.pod);
                self.context.recorder.event(&reference, EventType::Warning, "FailedMount", message);
                self.retries.insert(String::new(), later(Timestamp::now(), self.volume_delay));
                self.volume_delay = (self.volume_delay * 2).min(VOLUME_RETRY_MAX);
                false
            }
        }
    }

    /// Gives running containers the limits that their spec says now.
    pub(super) async fn resize(&mut self, update: &Update, observed: &Observed) {
        let facts = self.context.limit_facts();
        for resize in resize::due(&update.pod, observed, &self.status, &mut self.applied, facts) {
            let pod = &update.pod;
            if resize.restart {
                let Some((_, container)) = find_container(pod, &resize.name) else { continue };
                let message = format!("Container {} resize requires restart", resize.name);
                let victim = Victim {
                    pod,
                    name: &resize.name,
                    id: &resize.id,
                    message: &message,
                    grace_seconds: grace_seconds(pod, &container, KillReason::Other),
                    pod_ips: observed.ips(),
                };
                if let Err(error) = kill_container(&self.context, victim).await {
                    tracing::warn!(error, pod = pod_text(pod), "killing a container to resize it");
                }
                continue;
            }
            match self.resize_one(pod, &resize).await {
                Ok(()) => _ = self.applied.insert(resize.id, resize.resources),
                Err(error) => {
                    let message = format!("Error resizing container {}: {error}", resize.name);
                    let reference = container_reference(pod, &resize.name);
                    self.context.recorder.event(&reference, EventType::Warning, "ResizeError", message);
                }
            }
        }
    }

    /// Limits of a running container and those of its pod's cgroup.
    async fn resize_one(&self, pod: &Pod, resize: &Resize) -> Result<(), String> {
        let cgroups = &self.context.cgroups;
        if resize.lowers_memory && !cgroups.parent_of(pod).is_empty() {
            let used = |id: Option<&str>| cgroups.memory_usage(pod, id);
            check_memory(resize, cgroups.memory_limit_of(pod), used)?;
        }
        // The pod's own limits first when they grow, and after the container's when they shrink.
        let before = cgroups.create_pod(pod);
        let changed =
            self.context.runtime.update_container_resources(&resize.id, resize.resources.clone()).await;
        let after = cgroups.create_pod(pod);
        if let (Err(_), Err(error)) = (before, after) {
            tracing::warn!(%error, pod = pod_text(pod), "limits of the pod's cgroup");
        }
        changed.map_err(|error| error.grpc_text())
    }
}
