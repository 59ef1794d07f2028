//! One task a pod: it looks, decides, acts and tells, until the pod is gone.
//!
//! States: *syncing* while the pod is to run; *ending* from the moment it is deleted, gone, or done; *ended* when nothing
//! runs any more. There is no way back. A deletion interrupts syncing wherever it stands: every step can be looked at anew.
//!
//! Invariants:
//! * only this task makes or kills containers of its pod, so that there is never more than one sandbox in use;
//! * the API object is deleted only after nothing runs, the volumes are down and the last status is written;
//! * between events and timers the task sleeps.
//!
//! upstream: kubelet/pod_workers.go, kubelet/kubelet.go SyncPod, SyncTerminatingPod, SyncTerminatedPod

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_client::{events::EventType, rest};
use copepod_cri::api;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;

use super::{
    act::{self, StartError, StartInputs, clean, create_sandbox, kill_container, kill_pod, start_container},
    admit,
    backoff::{Backoff, later},
    model::{
        ContainerKind, Observed, ProbeResults, RunState, find_container, is_deleted, is_sidecar, spec, uid,
    },
    observe::{Cache, observe},
    patch,
    plan::{Inputs, Plan, SandboxPlan, container_at, plan},
    status::{StartErrors, StatusInputs, generate},
    tell::StatusSender,
};
use crate::{
    container::sandbox::sandbox_config,
    context::{Context, container_reference, pod_reference},
    probe::{ProbeSet, Target},
    text::pod_text,
    volume::{self, Mounted, teardown},
    wake::{Cause, Waker},
};

/// Wait after a failed step before it is tried again.
// upstream: kubelet/kubelet.go backOffPeriod
const RETRY: Duration = Duration::from_secs(10);
/// First and longest wait after a volume failed.
// upstream: pkg/util/goroutinemap/exponentialbackoff
const VOLUME_RETRY_MIN: Duration = Duration::from_millis(500);
const VOLUME_RETRY_MAX: Duration = Duration::from_secs(122);
/// Waits between looks for an end that was announced but is not shown yet: containerd tells the world of an exit while its
/// own CRI service still learns of it.
const END_LOOKS: &[Duration] = &[
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];
/// Rounds of look, decide, act before the task lets others run.
const ROUNDS_MAX: usize = 50;

/// What a worker is told.
#[derive(Clone)]
pub struct Update {
    /// The pod's newest form.
    pub pod: Arc<Pod>,
    /// The object that shows a static pod to the API.
    pub mirror: Option<Arc<Pod>>,
    /// It is not in the API (or the directory) any more.
    pub gone: bool,
}

impl Update {
    /// Whether the pod has to end.
    fn doomed(&self) -> bool {
        self.gone || is_deleted(&self.pod)
    }

    /// The API's object for this pod.
    fn api_object(&self) -> Option<Arc<Pod>> {
        if super::model::is_static(&self.pod) { self.mirror.clone() } else { Some(self.pod.clone()) }
    }
}

/// The task's state.
pub struct Worker {
    context: Arc<Context>,
    uid: String,
    updates: watch::Receiver<Update>,
    waker: Arc<Waker>,
    cache: Cache,
    probes: ProbeSet,
    backoff: Backoff,
    errors: StartErrors,
    retries: HashMap<String, Timestamp>,
    status: PodStatus,
    /// Phase, reason and message that overrule what the containers say.
    verdict: Option<(&'static str, String, String)>,
    /// The node had no room for it.
    rejected: bool,
    mounted: Option<Mounted>,
    volume_delay: Duration,
    /// Ends that were announced and not seen yet, with the number of looks so far.
    announced: HashMap<String, usize>,
    sender: StatusSender,
    seen_running: bool,
    born: std::time::Instant,
}

impl Worker {
    /// A worker for the pod of `updates`.
    /// `rejection`: the node has no room for it, so that it fails at once.
    pub fn new(
        context: Arc<Context>,
        updates: watch::Receiver<Update>,
        rejection: Option<admit::Rejection>,
    ) -> Self {
        let update = updates.borrow().clone();
        let uid = uid(&update.pod).to_owned();
        let object = update.api_object();
        let status = object.as_ref().and_then(|pod| pod.status.clone()).unwrap_or_default();
        Worker {
            waker: context.wakers.of(&uid),
            sender: StatusSender::start(context.clone(), object),
            context,
            uid,
            updates,
            cache: Cache::default(),
            probes: ProbeSet::default(),
            backoff: Backoff::default(),
            errors: StartErrors::new(),
            retries: HashMap::new(),
            seen_running: status.phase.as_deref() == Some("Running"),
            status,
            rejected: rejection.is_some(),
            verdict: rejection
                .map(|(reason, message)| ("Failed", reason, format!("Pod was rejected: {message}"))),
            mounted: None,
            volume_delay: VOLUME_RETRY_MIN,
            announced: HashMap::new(),
            born: std::time::Instant::now(),
        }
    }

    /// Runs until the pod is gone and nothing of it is left.
    pub async fn run(mut self) {
        loop {
            let update = self.updates.borrow_and_update().clone();
            self.context.pods.put(update.pod.clone());
            self.sender.set_object(update.api_object());
            if update.doomed() || self.is_final(&update.pod) {
                if self.end(&update).await {
                    return;
                }
                continue;
            }
            let mut changes = self.updates.clone();
            let next = tokio::select! {
                biased;
                // A dropped sender is the manager's end: the loop sees it below.
                () = until(&mut changes, Update::doomed) => continue,
                next = self.sync(&update) => next,
            };
            let timer = async {
                match next.map(|next| next.duration_since(Timestamp::now())) {
                    Some(wait) => tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await,
                    None => std::future::pending().await,
                }
            };
            let waker = self.waker.clone();
            tokio::select! {
                changed = self.updates.changed() => if changed.is_err() { return },
                () = waker.woken() => {}
                () = timer => {}
            }
        }
    }

    fn is_final(&self, pod: &Pod) -> bool {
        let known = |phase: Option<&str>| matches!(phase, Some("Failed" | "Succeeded"));
        let api = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        self.verdict.is_some() || known(self.status.phase.as_deref()) || known(api)
    }

    /// Looks, decides and acts until there is nothing to do; says when to look again.
    async fn sync(&mut self, update: &Update) -> Option<Timestamp> {
        for _ in 0..ROUNDS_MAX {
            let causes = self.waker.take();
            let observed = match self.look(update).await {
                Ok(observed) => observed,
                Err(error) => {
                    tracing::warn!(error, pod = pod_text(&update.pod), "looking at the runtime");
                    return Some(later(Timestamp::now(), RETRY));
                }
            };
            // After a change, when a token is due, and once for a pod that an agent before this one started.
            let due = self.mounted.as_ref().and_then(|mounted| mounted.refresh_at);
            let stale = causes.has(Cause::Objects) || due.is_some_and(|due| due <= Timestamp::now());
            let adopted = self.mounted.is_none() && observed.active_sandbox().is_some();
            if (stale && self.mounted.is_some()) || (adopted && !self.retries.contains_key("")) {
                self.set_up_volumes(update, &observed).await;
            }
            if self.past_deadline(&update.pod) {
                let message = "Pod was active on the node longer than the specified deadline";
                self.verdict = Some(("Failed", "DeadlineExceeded".into(), message.into()));
                let reference = pod_reference(&update.pod);
                self.context.recorder.event(&reference, EventType::Normal, "DeadlineExceeded", message);
                return Some(Timestamp::now());
            }
            let plan = plan(Inputs {
                pod: &update.pod,
                observed: &observed,
                probes: &self.probes.table(),
                backoff: &self.backoff,
                now: Timestamp::now(),
            });
            self.note_waiting(update, &plan);
            self.tell(update, &observed, false);
            if self.is_final(&update.pod) {
                return Some(Timestamp::now());
            }
            let plan = self.without_retries(&update.pod, plan);
            let acts = plan.kill_pod || !plan.kill.is_empty() || !plan.start.is_empty();
            let next = self.next_look(&update.pod, &plan);
            if !acts {
                self.clean_up(update, &observed).await;
                return next;
            }
            if let Err(retry) = self.act(update, &observed, plan).await {
                self.look_and_tell(update).await;
                return Some(next.map_or(retry, |next| next.min(retry)));
            }
        }
        Some(later(Timestamp::now(), RETRY))
    }

    async fn clean_up(&self, update: &Update, observed: &Observed) {
        let dead = observed.containers.iter().filter(|instance| instance.state == RunState::Exited).count();
        if dead > 0 || observed.sandboxes.len() > 1 {
            clean(&self.context, &update.pod, observed, false).await;
        }
    }

    /// What is there; starts and stops probes accordingly.
    async fn look(&mut self, update: &Update) -> Result<Observed, String> {
        let observed = observe(self.context.runtime.as_ref(), &self.uid, &mut self.cache)
            .await
            .map_err(|error| error.grpc_text())?;
        for id in observed.containers.iter().map(|c| &c.id).chain(observed.sandboxes.iter().map(|s| &s.id)) {
            self.context.pods.own(id, &self.uid);
        }
        let running = |id: &str| {
            observed
                .containers
                .iter()
                .any(|instance| instance.id == id && instance.state == RunState::Running)
        };
        {
            let mut logs = self.context.cgroups.logs.lock();
            for instance in &observed.containers {
                match self.cache.log_path(&instance.id) {
                    Some(path) if instance.state == RunState::Running && !path.is_empty() => {
                        logs.insert(instance.id.clone(), path.into());
                    }
                    _ => {
                        logs.remove(&instance.id);
                    }
                }
            }
        }
        self.announced.extend(self.waker.take_ended().into_iter().map(|id| (id, 0)));
        self.announced.retain(|id, looks| {
            *looks += 1;
            let alive =
                running(id) || observed.sandboxes.iter().any(|sandbox| &sandbox.id == id && sandbox.ready);
            alive && *looks <= END_LOOKS.len()
        });
        self.probes.keep(running);
        for instance in observed.containers.iter().filter(|instance| instance.state == RunState::Running) {
            self.start_probes(update, &observed, instance);
        }
        Ok(observed)
    }

    fn start_probes(
        &mut self,
        update: &Update,
        observed: &Observed,
        instance: &super::model::ContainerObserved,
    ) {
        let Some((kind, container)) = find_container(&update.pod, &instance.name) else { return };
        let probed = container.liveness_probe.is_some()
            || container.readiness_probe.is_some()
            || container.startup_probe.is_some();
        let plain_init = kind == ContainerKind::Init && !is_sidecar(&container);
        if !probed || plain_init || kind == ContainerKind::Ephemeral || self.probes.has(&instance.id) {
            return;
        }
        let host_ip = || self.context.host_ips.first().cloned().unwrap_or_default();
        let pod_ip = if super::model::host_network(&update.pod) {
            host_ip()
        } else {
            observed.ips().first().cloned().unwrap_or_default()
        };
        let target = Target {
            context: self.context.clone(),
            pod: update.pod.clone(),
            container: container.into_owned(),
            id: instance.id.clone(),
            pod_ip,
            started_at: instance.started_at.unwrap_or_else(Timestamp::now),
        };
        // A container that ran before this agent did keeps its verdicts until they are found anew.
        let id = format!("{}://{}", self.context.runtime_name, instance.id);
        let lists = [&self.status.container_statuses, &self.status.init_container_statuses];
        let old =
            lists.into_iter().flatten().flatten().find(|status| status.container_id.as_ref() == Some(&id));
        let before = ProbeResults {
            startup: old.and_then(|old| old.started).filter(|started| *started),
            readiness: old.map(|old| old.ready).filter(|ready| *ready),
            liveness: None,
        };
        self.probes.start(target, before, &self.waker);
    }

    fn past_deadline(&self, pod: &Pod) -> bool {
        self.deadline(pod).is_some_and(|deadline| Timestamp::now() >= deadline)
    }

    fn deadline(&self, pod: &Pod) -> Option<Timestamp> {
        let seconds = u64::try_from(spec(pod).active_deadline_seconds?).ok()?;
        Some(later(self.status.start_time.as_ref()?.0, Duration::from_secs(seconds)))
    }

    fn next_look(&self, pod: &Pod, plan: &Plan) -> Option<Timestamp> {
        plan.waiting
            .iter()
            .map(|waiting| waiting.until)
            .chain(self.retries.values().copied())
            .chain(self.mounted.as_ref().and_then(|mounted| mounted.refresh_at))
            .chain(self.deadline(pod))
            .chain(
                self.announced.values().filter_map(|looks| {
                    Some(later(Timestamp::now(), *END_LOOKS.get(looks.checked_sub(1)?)?))
                }),
            )
            .min()
    }

    /// Containers in crash-loop back-off: why they wait, in the status and as an event.
    fn note_waiting(&mut self, update: &Update, plan: &Plan) {
        for waiting in &plan.waiting {
            let reference = container_reference(&update.pod, &waiting.name);
            let message = format!(
                "Back-off restarting failed container {} in pod {}",
                waiting.name,
                pod_text(&update.pod)
            );
            self.context.recorder.event(&reference, EventType::Warning, "BackOff", message);
            self.errors.insert(waiting.name.clone(), ("CrashLoopBackOff".into(), waiting.message.clone()));
        }
    }

    /// Takes out what failed a moment ago, until its time has come.
    fn without_retries(&mut self, pod: &Pod, mut plan: Plan) -> Plan {
        let now = Timestamp::now();
        self.retries.retain(|_, until| *until > now);
        if self.retries.contains_key("") {
            // The sandbox or a volume: nothing can start.
            return Plan { kill_pod: false, start: Vec::new(), ..plan };
        }
        let mut blocked = false;
        plan.start.retain(|start| {
            let container = container_at(pod, *start);
            let held = self.retries.contains_key(&container.name);
            blocked |= held && start.kind == ContainerKind::Init && !is_sidecar(&container);
            !held && !blocked
        });
        plan
    }

    /// Carries a plan out. The error is the time to try again.
    async fn act(&mut self, update: &Update, observed: &Observed, plan: Plan) -> Result<(), Timestamp> {
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
            let grace = act::grace_seconds(&pod, &container, kill.reason);
            kill_container(&context, &pod, &kill.name, &kill.id, &kill.message, grace, observed.ips())
                .await
                .map_err(failed("killing a container"))?;
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
        let ips = if super::model::host_network(&pod) { context.host_ips.clone() } else { ips };
        let volumes = self.mounted.as_ref().map(|mounted| mounted.paths.clone()).unwrap_or_default();
        let mut retry: Option<Timestamp> = None;
        for start in plan.start {
            let container = container_at(&pod, start);
            self.note_restart(observed, &container.name);
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
                let ips = super::observe::sandbox_of(&status).ips.unwrap_or_default();
                Ok((id, config, ips))
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
    fn note_restart(&mut self, observed: &Observed, name: &str) {
        let exited = observed
            .containers
            .iter()
            .find(|instance| instance.name == name && instance.state == RunState::Exited);
        if let Some(finished) = exited.and_then(|instance| instance.finished_at) {
            self.backoff.next(name, finished, Timestamp::now());
        }
    }

    fn note_failure(&mut self, name: &str, error: StartError) -> Timestamp {
        self.errors.insert(name.to_owned(), (error.reason, error.message));
        let at = error.retry_at.unwrap_or_else(|| later(Timestamp::now(), RETRY));
        self.retries.insert(name.to_owned(), at);
        at
    }

    /// Sets volumes up, or brings them up to date. False: not now, the time to retry is noted.
    async fn set_up_volumes(&mut self, update: &Update, observed: &Observed) -> bool {
        match volume::set_up(&self.context, &update.pod, observed.ips()).await {
            Ok(mounted) => {
                self.mounted = Some(mounted);
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

    /// Makes the status and hands it to the sender.
    fn tell(&mut self, update: &Update, observed: &Observed, terminal: bool) {
        let table = self.probes.table();
        let mut status = generate(StatusInputs {
            pod: &update.pod,
            observed,
            probes: &table,
            errors: &self.errors,
            old: &self.status,
            runtime_name: &self.context.runtime_name,
            host_ips: &self.context.host_ips,
            terminal,
            now: Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default(),
        });
        if self.rejected {
            // upstream: kubelet/kubelet.go rejectPod says no more than this.
            status = PodStatus {
                qos_class: status.qos_class,
                start_time: status.start_time,
                observed_generation: status.observed_generation,
                ..PodStatus::default()
            };
        }
        if let Some((phase, reason, message)) = &self.verdict {
            status.phase = Some((*phase).into());
            status.reason = Some(reason.clone());
            status.message = Some(message.clone());
        }
        if !self.seen_running && status.phase.as_deref() == Some("Running") {
            self.seen_running = true;
            self.context.metrics.pod_start.observe(self.born.elapsed().as_secs_f64());
        }
        if status != self.status {
            self.status = status.clone();
            self.context.pods.put_status(&self.uid, status.clone());
            self.sender.send(status);
        }
    }

    async fn look_and_tell(&mut self, update: &Update) {
        match self.look(update).await {
            Ok(observed) => self.tell(update, &observed, false),
            Err(error) => tracing::warn!(error, pod = pod_text(&update.pod), "looking at the runtime"),
        }
    }

    /// Ends the pod; true when nothing of it is left.
    async fn end(&mut self, update: &Update) -> bool {
        self.probes.stop_killing();
        self.stop_everything(update).await;
        let mut update = self.updates.borrow_and_update().clone();
        let observed = loop {
            match self.look(&update).await {
                Ok(observed) => break observed,
                Err(error) => tracing::warn!(error, pod = pod_text(&update.pod), "looking at the runtime"),
            }
            tokio::time::sleep(RETRY).await;
        };
        self.tell(&update, &observed, true);
        self.take_down(&update).await;
        self.sender.flush().await;
        // Done, but still shown: wait for the deletion.
        while !update.doomed() {
            self.sender.set_object(update.api_object());
            if self.updates.changed().await.is_err() {
                return true;
            }
            update = self.updates.borrow_and_update().clone();
            self.context.pods.put(update.pod.clone());
        }
        self.sender.flush().await;
        self.remove(&update, &observed).await;
        true
    }

    /// Kills until nothing runs, anew when the grace period is shortened.
    async fn stop_everything(&mut self, update: &Update) {
        let mut update = update.clone();
        loop {
            let observed = match self.look(&update).await {
                Ok(observed) if !observed.anything_alive() => return,
                Ok(observed) => observed,
                Err(error) => {
                    tracing::warn!(error, pod = pod_text(&update.pod), "looking at the runtime");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            self.tell(&update, &observed, false);
            let grace = grace_of(&update);
            let (context, pod) = (self.context.clone(), update.pod.clone());
            let kill = kill_pod(&context, &pod, &observed, Some(grace));
            tokio::pin!(kill);
            let waker = self.waker.clone();
            let mut changes = self.updates.clone();
            changes.mark_unchanged();
            let result = loop {
                tokio::select! {
                    result = &mut kill => break Some(result),
                    () = waker.woken() => self.look_and_tell(&update).await,
                    // A shorter grace period; an error is the manager's end, which this task does not outlive.
                    () = until(&mut changes, |other| grace_of(other) < grace) => break None,
                }
            };
            if let Some(Err(error)) = result {
                let message = format!("error killing pod: {error}");
                self.context.recorder.event(
                    &pod_reference(&update.pod),
                    EventType::Warning,
                    "FailedKillPod",
                    message,
                );
                tokio::time::sleep(RETRY).await;
            }
            update = self.updates.borrow().clone();
        }
    }

    /// Volumes and cgroup of a pod that runs no more.
    async fn take_down(&mut self, update: &Update) {
        self.mounted = None;
        self.context.objects.release(&self.uid);
        self.context.tokens.forget(&self.uid);
        let directory = volume::pod_dir(&self.context, &self.uid);
        let volumes = [directory.join("volumes"), volume::subpath::directory(&directory)];
        for path in volumes {
            let result = tokio::task::spawn_blocking(move || teardown::remove_pod_dir(&path)).await;
            if let Ok(Err(error)) = result {
                tracing::warn!(%error, pod = pod_text(&update.pod), "taking volumes down");
            }
        }
        if let Err(error) = self.context.cgroups.remove_pod(&self.uid) {
            tracing::debug!(%error, pod = pod_text(&update.pod), "removing the pod's cgroup");
        }
    }

    /// The last of the pod: containers, logs, directory, API object.
    async fn remove(&mut self, update: &Update, observed: &Observed) {
        clean(&self.context, &update.pod, observed, true).await;
        if let Err(error) = self.context.cgroups.remove_pod(&self.uid) {
            tracing::warn!(%error, pod = pod_text(&update.pod), "removing the pod's cgroup");
        }
        let logs = crate::container::sandbox::log_dir(&self.context, &update.pod);
        for path in [volume::pod_dir(&self.context, &self.uid), logs] {
            if let Err(error) = teardown::remove_pod_dir(&path) {
                tracing::warn!(%error, pod = pod_text(&update.pod), "removing the pod's files");
            }
        }
        let object = update.api_object().filter(|_| !update.gone || super::model::is_static(&update.pod));
        let Some(object) = object else { return };
        let mut wait = Duration::from_millis(100);
        while let Err(error) = patch::delete(&self.context.client, &object).await {
            tracing::warn!(
                error = rest::message(&error),
                pod = pod_text(&update.pod),
                "deleting the pod object"
            );
            if rest::code(&error).is_some_and(|code| (400..500).contains(&code) && code != 429) {
                return;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY);
        }
    }
}

/// Waits for an update of a kind. What it is, the caller reads anew.
async fn until(updates: &mut watch::Receiver<Update>, kind: impl FnMut(&Update) -> bool) {
    // An error is the manager's end, which this task does not outlive.
    let _ = updates.wait_for(kind).await;
}

/// How long everything of the pod gets, in seconds: at least one.
// upstream: kubelet/pod_workers.go calculateEffectiveGracePeriod
fn grace_of(update: &Update) -> i64 {
    let deletion = update.pod.metadata.deletion_grace_period_seconds;
    let own = spec(&update.pod).termination_grace_period_seconds;
    let grace = deletion.or(own).unwrap_or(30);
    let grace = if update.gone && super::model::is_deleted(&update.pod) { grace.min(1) } else { grace };
    grace.max(1)
}
