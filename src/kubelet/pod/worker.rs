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

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use copepod_client::events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;

use super::{
    act::clean,
    admit,
    backoff::{Backoff, later},
    model::{
        ContainerKind, Observed, ProbeResults, RunState, find_container, is_deleted, is_sidecar, spec, uid,
    },
    observe::{Cache, observe},
    plan::{Inputs, Plan, container_at, plan},
    resize,
    status::{StartErrors, StatusInputs, generate},
    tell::StatusSender,
};
use crate::{
    context::{Context, container_reference, pod_reference},
    probe::{ProbeSet, Target},
    text::pod_text,
    volume::{self, Mounted, VolumeError},
    wake::{Cause, Waker},
};

/// Wait after a failed step before it is tried again.
// upstream: kubelet/kubelet.go backOffPeriod
const RETRY: Duration = Duration::from_secs(10);
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

mod acting;
mod ending;

use acting::VOLUME_RETRY_MIN;

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
    /// Volumes that were set up, or failed, before anybody asked for them.
    ahead: Option<Result<Mounted, (String, VolumeError)>>,
    /// Limits that containers were given.
    applied: resize::Applied,
    /// Labels and annotations that the volumes show.
    shown: Option<Shown>,
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
            verdict: rejection.map(|no| ("Failed", no.reason, format!("Pod was rejected: {}", no.message))),
            mounted: None,
            volume_delay: VOLUME_RETRY_MIN,
            ahead: None,
            applied: resize::Applied::new(),
            shown: None,
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
                if Box::pin(self.end(&update)).await {
                    return;
                }
                continue;
            }
            let mut changes = self.updates.clone();
            let next = tokio::select! {
                biased;
                // A dropped sender is the manager's end: the loop sees it below.
                () = until(&mut changes, Update::doomed) => continue,
                // Boxed: what syncing needs is given back while the pod is well.
                next = Box::pin(self.sync(&update)) => next,
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
            let observed = match self.first_or_next_look(update).await {
                Ok(observed) => observed,
                Err(error) => {
                    tracing::warn!(error, pod = pod_text(&update.pod), "looking at the runtime");
                    return Some(later(Timestamp::now(), RETRY));
                }
            };
            if causes.has(Cause::Objects) {
                // What was missing may be there now: no use in waiting on.
                self.retries.clear();
            }
            // After a change, when a token is due, and once for a pod that an agent before this one started.
            let due = self.mounted.as_ref().and_then(|mounted| mounted.refresh_at);
            let stale = causes.has(Cause::Objects)
                || due.is_some_and(|due| due <= Timestamp::now())
                || self.shown.as_ref().is_some_and(|shown| *shown != shown_of(&update.pod));
            let adopted = self.mounted.is_none() && observed.active_sandbox().is_some();
            if (stale && self.mounted.is_some()) || (adopted && !self.retries.contains_key("")) {
                self.set_up_volumes(update, &observed).await;
            }
            self.resize(update, &observed).await;
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

    /// A pod that no agent has told of yet most likely has nothing in the runtime, and needs its volumes next: they are set
    /// up while the runtime is asked.
    async fn first_or_next_look(&mut self, update: &Update) -> Result<Observed, String> {
        let told = update.pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        if told || self.ahead.is_some() || self.mounted.is_some() || self.status.start_time.is_some() {
            return self.look(update).await;
        }
        let context = self.context.clone();
        let (observed, ahead) = futures::join!(self.look(update), volume::set_up(&context, &update.pod, &[]));
        self.ahead = Some(ahead);
        observed
    }

    async fn clean_up(&self, update: &Update, observed: &Observed) {
        let dead = observed.containers.iter().filter(|instance| instance.state != RunState::Running).count();
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
        self.context.pods.disown(&self.uid, |id| {
            observed.containers.iter().any(|instance| instance.id == id)
                || observed.sandboxes.iter().any(|sandbox| sandbox.id == id)
        });
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
}

/// What of a pod's metadata its volumes may show.
type Shown = (Option<BTreeMap<String, String>>, Option<BTreeMap<String, String>>);

fn shown_of(pod: &Pod) -> Shown {
    (pod.metadata.labels.clone(), pod.metadata.annotations.clone())
}

/// Waits for an update of a kind. What it is, the caller reads anew.
async fn until(updates: &mut watch::Receiver<Update>, kind: impl FnMut(&Update) -> bool) {
    if updates.wait_for(kind).await.is_err() {
        // The manager's end, which this task does not outlive: there is nothing to go on with.
        std::future::pending::<()>().await;
    }
}
