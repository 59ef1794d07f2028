//! Watches, then acts as [`plan`](super::plan) says: status first, then finalizers, then pods.

use std::sync::Arc;

use copepod_client::events::{EventType, Recorder};
use copepod_client::informer::{BY_CONTROLLER, BY_NAMESPACE, Change, Informer};
use copepod_client::object::{Key, MetaExt, controller_reference, reference};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::rest::PatchType;
use copepod_client::{Client, rest};
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::plan::{self, Turn};
use super::{INDEX, TRACKING};
use crate::common::expectations::Expectations;
use crate::common::resources::{JOBS, PODS};
use crate::common::{claim, pods, selector, slow_start, template};
use crate::context::{Context, Work, controller_key, enqueue_self};
use crate::kinds::{Job, Pod};

const NAME: &str = "job-controller";
/// Fields that change what a job does and that this controller does not know.
const UNSUPPORTED: [&str; 3] = ["podFailurePolicy", "successPolicy", "backoffLimitPerIndex"];

struct Shell {
    client: Client,
    recorder: Recorder,
    jobs: Arc<Informer<Job>>,
    pods: Arc<Informer<Pod>>,
    expectations: Expectations,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        recorder: context.recorder.with_component(NAME),
        jobs: context.informer(),
        pods: context.informer(),
        expectations: Expectations::default(),
    });
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&shell.jobs, &queue);
    let (watching, add) = (shell.clone(), queue.clone());
    shell.pods.on_change(move |change| watching.pod_changed(&change, &add));
    let workers = context.config.concurrent_job_syncs;
    Box::pin(run_workers(NAME, queue, workers, context.shutdown.clone(), move |key| {
        let shell = shell.clone();
        async move { shell.sync(&key).await }
    }))
}

impl Shell {
    fn pod_changed(&self, change: &Change<'_, Pod>, queue: &WorkQueue<Key>) {
        let pod = change.object();
        let Some(owner) = controller_key(&**pod, "Job") else { return };
        match change {
            Change::Added(_) if !pod.metadata.deleting() => self.expectations.creation_observed(&owner),
            Change::Updated(..) if !pod.metadata.deleting() => {}
            _ => self.expectations.deletion_observed(&owner, pod.metadata.uid()),
        }
        queue.add(owner);
    }

    async fn sync(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(job) = self.jobs.get(key) else {
            self.expectations.forget(key);
            return self.release_orphans(key).await.map(|()| Next::Done);
        };
        if job.spec.managed_by.as_deref().is_some_and(|manager| manager != "kubernetes.io/job-controller") {
            return Ok(Next::Done);
        }
        if selector::is_empty(&job.spec.selector) {
            tracing::warn!(job = %key, "a job without a selector has no pods; the server should have made one");
            return Ok(Next::Done);
        }
        let mine = self.claim(&job).await?;
        if job.metadata.deleting() {
            let tracked: Vec<String> = mine.iter().map(|pod| pod.metadata.name().to_owned()).collect();
            return self.untrack(&job.metadata, &mine, &tracked).await.map(|()| Next::Done);
        }
        let turn = plan::plan(&job, &mine, self.expectations.satisfied(key), Timestamp::now());
        let after = turn.after;
        self.act(key, &job, &mine, turn).await?;
        Ok(after.map_or(Next::Done, Next::After))
    }

    async fn claim(&self, job: &Job) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let mut candidates = self.pods.by_index(BY_CONTROLLER, job.metadata.uid());
        let all = self.pods.by_index(BY_NAMESPACE, MetaExt::namespace(&job.metadata));
        candidates.extend(
            all.into_iter().filter(|pod| pod.metadata.controller().is_none() && pods::is_active(pod)),
        );
        claim::claim(&self.client, job, &JOBS, &job.spec.selector, &PODS, candidates).await
    }

    async fn act(&self, key: &Key, job: &Job, mine: &[Arc<Pod>], turn: Turn) -> Result<(), kube::Error> {
        if let Some(status) = &turn.status {
            self.write_status(job, &json!(status)).await?;
        }
        let about = reference(job);
        for (warning, reason, message) in turn.events {
            let kind = if warning { EventType::Warning } else { EventType::Normal };
            self.recorder.event(&about, kind, reason, message);
        }
        self.untrack(&job.metadata, mine, &turn.untrack).await?;
        self.delete(key, job, mine, &turn.delete).await?;
        self.create(key, job, &turn.create).await
    }

    async fn write_status(&self, job: &Job, status: &Value) -> Result<(), kube::Error> {
        let mut status = status.clone();
        // A merge patch keeps what it does not name: what has been cleared is named as null.
        for field in ["startTime", "completionTime", "completedIndexes"] {
            if status.get(field).is_none() {
                status[field] = Value::Null;
            }
        }
        let body = json!({"metadata": {"resourceVersion": job.metadata.resource_version}, "status": status});
        let (namespace, name) = (MetaExt::namespace(&job.metadata), job.metadata.name());
        rest::patch::<IgnoredAny>(&self.client, &JOBS, namespace, name, "status", PatchType::Merge, &body)
            .await
            .map(drop)
    }

    /// Takes the finalizer off pods.
    async fn untrack(
        &self,
        owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
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

    async fn delete(
        &self,
        key: &Key,
        job: &Job,
        mine: &[Arc<Pod>],
        names: &[String],
    ) -> Result<(), kube::Error> {
        let victims: Vec<&Arc<Pod>> =
            mine.iter().filter(|p| names.iter().any(|n| n == p.metadata.name())).collect();
        if victims.is_empty() {
            return Ok(());
        }
        self.expectations.expect_deletions(key, victims.iter().map(|pod| pod.metadata.uid().to_owned()));
        let (namespace, about) = (MetaExt::namespace(&job.metadata), reference(job));
        for pod in victims {
            let name = pod.metadata.name();
            let options = json!({"preconditions": {"uid": pod.metadata.uid}});
            match rest::delete(&self.client, &PODS, namespace, name, &options).await {
                Ok(()) => {
                    self.recorder.event(
                        &about,
                        EventType::Normal,
                        "SuccessfulDelete",
                        format!("Deleted pod: {name}"),
                    );
                }
                Err(error) => {
                    self.expectations.deletion_observed(key, pod.metadata.uid());
                    if !rest::is_not_found(&error) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    async fn create(&self, key: &Key, job: &Job, indexes: &[Option<i32>]) -> Result<(), kube::Error> {
        if indexes.is_empty() {
            return Ok(());
        }
        self.warn_unsupported(job).await?;
        self.expectations.expect_creations(key, indexes.len() as i64);
        let (namespace, about) = (MetaExt::namespace(&job.metadata), reference(job));
        let (created, error) = slow_start::run(indexes.len(), |at| {
            let (body, about) = (pod_of(job, indexes[at]), &about);
            async move {
                match rest::create::<Value>(&self.client, &PODS, namespace, &body).await {
                    Ok(made) => {
                        let name = made["metadata"]["name"].as_str().unwrap_or_default();
                        let message = format!("Created pod: {name}");
                        self.recorder.event(about, EventType::Normal, "SuccessfulCreate", message);
                        Ok(())
                    }
                    Err(error) => {
                        if !rest::is_namespace_terminating(&error) {
                            let message = format!("Error creating: {}", rest::message(&error));
                            self.recorder.event(about, EventType::Warning, "FailedCreate", message);
                        }
                        Err(error)
                    }
                }
            }
        })
        .await;
        for _ in created..indexes.len() {
            self.expectations.creation_observed(key);
        }
        match error {
            Some(error) if !rest::is_namespace_terminating(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Says once, at the first pods, that a field has no effect here.
    async fn warn_unsupported(&self, job: &Job) -> Result<(), kube::Error> {
        if job.status.start_time.is_some() {
            return Ok(());
        }
        let live: Value =
            rest::get(&self.client, &JOBS, MetaExt::namespace(&job.metadata), job.metadata.name()).await?;
        for field in UNSUPPORTED.iter().filter(|field| live["spec"].get(**field).is_some()) {
            let message = format!("spec.{field} is not supported and has no effect");
            self.recorder.event(&reference(job), EventType::Warning, "Unsupported", message);
        }
        Ok(())
    }
}

/// A pod of the job; one of an indexed job knows its index by annotation, label, host name and environment.
fn pod_of(job: &Job, index: Option<i32>) -> Value {
    let name = job.metadata.name();
    let owner = controller_reference(job);
    let mut pod = template::pod(&job.spec.template.0, MetaExt::namespace(&job.metadata), name, &owner);
    let finalizers = pod["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let all: Vec<Value> = finalizers.into_iter().chain([json!(TRACKING)]).collect();
    pod["metadata"]["finalizers"] = json!(all);
    let Some(index) = index else { return pod };
    pod["metadata"]["generateName"] = json!(format!("{name}-{index}-"));
    pod["metadata"]["annotations"][INDEX] = json!(index.to_string());
    pod["metadata"]["labels"][INDEX] = json!(index.to_string());
    if pod["spec"]["hostname"].as_str().unwrap_or_default().is_empty() {
        pod["spec"]["hostname"] = json!(format!("{name}-{index}"));
    }
    let variable = json!({"name": "JOB_COMPLETION_INDEX",
        "valueFrom": {"fieldRef": {"fieldPath": format!("metadata.labels['{INDEX}']")}}});
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let known = container["env"].as_array().cloned().unwrap_or_default();
            if known.iter().all(|known| known["name"] != variable["name"]) {
                let all: Vec<Value> = known.into_iter().chain([variable.clone()]).collect();
                container["env"] = json!(all);
            }
        }
    }
    pod
}
