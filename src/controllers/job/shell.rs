//! Watches, then acts as [`plan`](super::plan) says: pods first, then the status that counts them, then finalizers.

use std::collections::HashMap;
use std::sync::Arc;

use copepod_client::events::{EventType, Recorder};
use copepod_client::informer::{BY_NAMESPACE, Informer};
use copepod_client::object::{Key, MetaExt, controller_reference, reference};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::rest::{PatchType, ResourceType};
use copepod_client::{Client, rest};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::backoff::Backoff;
use super::plan::{self, NewPod, Turn};
use super::{FAILURES, IGNORED_FAILURES, INDEX, TRACKING};
use crate::common::pod_control::{PodControl, PodOwner, victims};
use crate::common::resources::{JOBS, PODS};
use crate::common::{selector, template, writes};
use crate::context::{Context, Work, controller_key, enqueue_self};
use crate::kinds::{Job, Pod};

impl PodOwner for Job {
    const RESOURCE: ResourceType = JOBS;
    const KIND: &'static str = "Job";
    const FINALIZER: Option<&'static str> = Some(TRACKING);
    fn selector(&self) -> LabelSelector {
        self.spec.selector.clone()
    }
}

const NAME: &str = "job-controller";
/// Longest generated name that leaves room for a suffix. upstream: apiserver/pkg/storage/names MaxGeneratedNameLength
const PREFIX_MAX: usize = 253 - 5;

struct Shell {
    client: Client,
    recorder: Recorder,
    jobs: Arc<Informer<Job>>,
    pods: Arc<Informer<Pod>>,
    control: Arc<PodControl<Job>>,
    /// Failures of each job that no success has followed.
    backoffs: Mutex<HashMap<Key, Backoff>>,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        recorder: context.recorder.with_component(NAME),
        jobs: context.informer(),
        pods: context.informer(),
        control: PodControl::new(context, NAME),
        backoffs: Mutex::default(),
    });
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&shell.jobs, &queue);
    shell.control.watch(&queue);
    let workers = context.config.concurrent_job_syncs;
    Box::pin(run_workers(NAME, queue, workers, context.shutdown.clone(), move |key| {
        let shell = shell.clone();
        async move { shell.sync(&key).await }
    }))
}

impl Shell {
    async fn sync(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(job) = self.jobs.get(key) else {
            self.control.forget(key);
            self.backoffs.lock().remove(key);
            return self.release_orphans(key).await.map(|()| Next::Done);
        };
        if job.spec.managed_by.as_deref().is_some_and(|manager| manager != "kubernetes.io/job-controller") {
            return Ok(Next::Done);
        }
        if selector::is_empty(&job.spec.selector) {
            tracing::warn!(job = %key, "a job without a selector has no pods; the server should have made one");
            return Ok(Next::Done);
        }
        let mine = self.control.claim(&job, |_| true).await?;
        if job.metadata.deleting() {
            let tracked: Vec<String> = mine.iter().map(|pod| pod.metadata.name().to_owned()).collect();
            return self.untrack(&job.metadata, &mine, &tracked).await.map(|()| Next::Done);
        }
        if !matches!(job.spec.completion_mode.as_deref(), None | Some("NonIndexed" | "Indexed")) {
            let message = "Skipped Job sync because completion mode is unknown";
            self.recorder.event(&reference(&*job), EventType::Warning, "UnknownCompletionMode", message);
            return Ok(Next::Done);
        }
        let backoff = self.backoffs.lock().get(key).cloned().unwrap_or_default();
        let turn = plan::plan(&job, &mine, self.control.has_seen_all(key), &backoff, Timestamp::now());
        let after = turn.after;
        self.act(key, &job, &mine, turn).await?;
        Ok(after.map_or(Next::Done, Next::After))
    }

    async fn act(&self, key: &Key, job: &Job, mine: &[Arc<Pod>], turn: Turn) -> Result<(), kube::Error> {
        // Nothing is counted as ended while a pod that has to go may still run.
        self.control.delete(key, job, victims(mine, &turn.delete)).await?;
        let managed = self.manage(key, job, mine, &turn).await;
        if let Some(mut status) = turn.status {
            if managed.is_err() {
                status.active = turn.observed.active;
                status.ready = Some(turn.observed.ready);
                status.terminating = Some(turn.observed.terminating);
            }
            writes::status(&self.client, &JOBS, job, &status).await?;
        }
        let ended = super::finished(job).is_some();
        if ended || turn.backoff == Backoff::default() {
            self.backoffs.lock().remove(key);
        } else {
            self.backoffs.lock().insert(key.clone(), turn.backoff);
        }
        let about = reference(job);
        for (warning, reason, message) in turn.events {
            let kind = if warning { EventType::Warning } else { EventType::Normal };
            self.recorder.event(&about, kind, &reason, message);
        }
        self.untrack(&job.metadata, mine, &turn.untrack).await?;
        managed
    }

    async fn manage(&self, key: &Key, job: &Job, mine: &[Arc<Pod>], turn: &Turn) -> Result<(), kube::Error> {
        self.untrack(&job.metadata, mine, &turn.discard).await?;
        self.control.delete(key, job, victims(mine, &turn.discard)).await?;
        self.control.create(key, job, turn.create.len(), |at| pod_of(job, &turn.create[at])).await
    }

    /// Takes the finalizer off pods.
    async fn untrack(
        &self,
        owner: &ObjectMeta,
        mine: &[Arc<Pod>],
        names: &[String],
    ) -> Result<(), kube::Error> {
        let namespace = MetaExt::namespace(owner);
        for pod in mine.iter().filter(|pod| names.iter().any(|name| name == pod.metadata.name())) {
            self.remove_finalizer(namespace, pod).await?;
        }
        Ok(())
    }

    async fn remove_finalizer(&self, namespace: &str, pod: &Pod) -> Result<(), kube::Error> {
        let has = pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING);
        if !has {
            return Ok(());
        }
        let body =
            json!({"metadata": {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING]}});
        let name = pod.metadata.name();
        match rest::patch::<IgnoredAny>(&self.client, &PODS, namespace, name, "", PatchType::Strategic, &body)
            .await
        {
            Err(error) if rest::is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    /// The job is gone: its pods must not wait for somebody to count them.
    async fn release_orphans(&self, key: &Key) -> Result<(), kube::Error> {
        let (namespace, _) = copepod_client::object::split(key);
        for pod in self.pods.by_index(BY_NAMESPACE, namespace) {
            if controller_key(&*pod, "Job").as_ref() == Some(key) {
                self.remove_finalizer(namespace, &pod).await?;
            }
        }
        Ok(())
    }
}

/// A pod of the job; one of an indexed job knows its index by annotation, label, host name and environment.
fn pod_of(job: &Job, new: &NewPod) -> Value {
    let name = job.metadata.name();
    let owner = controller_reference(job);
    let mut pod = template::pod(&job.spec.template.0, MetaExt::namespace(&job.metadata), name, &owner);
    let finalizers = pod["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let ours = (!finalizers.iter().any(|known| known == TRACKING)).then(|| json!(TRACKING));
    pod["metadata"]["finalizers"] = finalizers.into_iter().chain(ours).collect();
    let Some(index) = new.index else { return pod };
    let suffix = format!("-{index}-");
    let prefix = &name[..name.len().min(PREFIX_MAX - suffix.len())];
    pod["metadata"]["generateName"] = json!(format!("{prefix}{suffix}"));
    pod["metadata"]["annotations"][INDEX] = json!(index.to_string());
    pod["metadata"]["labels"][INDEX] = json!(index.to_string());
    if let Some((counted, ignored)) = new.failures {
        pod["metadata"]["annotations"][FAILURES] = json!(counted.to_string());
        if ignored > 0 {
            pod["metadata"]["annotations"][IGNORED_FAILURES] = json!(ignored.to_string());
        }
    }
    pod["spec"]["hostname"] = json!(format!("{name}-{index}"));
    let variable = json!({"name": "JOB_COMPLETION_INDEX",
        "valueFrom": {"fieldRef": {"fieldPath": format!("metadata.labels['{INDEX}']")}}});
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let known = container["env"].as_array().cloned().unwrap_or_default();
            if known.iter().all(|known| known["name"] != variable["name"]) {
                container["env"] = known.into_iter().chain([variable.clone()]).collect();
            }
        }
    }
    pod
}
