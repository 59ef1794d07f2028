//! Watches, waits for the clock, then acts as [`plan`](super::plan) says.

use std::sync::Arc;

use copepod_client::events::{EventType, Recorder};
use copepod_client::informer::{BY_CONTROLLER, Informer};
use copepod_client::object::{Key, MetaExt, reference};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::{Client, rest};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::plan;
use crate::common::resources::{CRON_JOBS, JOBS};
use crate::common::writes;
use crate::context::{Context, Work, enqueue_controller, enqueue_self};
use crate::kinds::{CronJob, Job};

const NAME: &str = "cronjob-controller";

struct Shell {
    client: Client,
    recorder: Recorder,
    crons: Arc<Informer<CronJob>>,
    jobs: Arc<Informer<Job>>,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        recorder: context.recorder.with_component(NAME),
        crons: context.informer(),
        jobs: context.informer(),
    });
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&shell.crons, &queue);
    enqueue_controller(&shell.jobs, "CronJob", &queue);
    let workers = context.config.concurrent_cron_job_syncs;
    Box::pin(run_workers(NAME, queue, workers, context.shutdown.clone(), move |key| {
        let shell = shell.clone();
        async move { shell.sync(&key).await }
    }))
}

impl Shell {
    async fn sync(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(cron) = self.crons.get(key) else { return Ok(Next::Done) };
        let jobs = self.jobs.by_index(BY_CONTROLLER, cron.metadata.uid());
        let turn = plan::plan(&cron, &jobs, Timestamp::now());
        let about = reference(&*cron);
        for (warning, reason, message) in turn.events {
            let kind = if warning { EventType::Warning } else { EventType::Normal };
            self.recorder.event(&about, kind, reason, message);
        }
        for name in turn.delete.iter().chain(&turn.replace) {
            self.delete(&cron, name).await?;
            self.recorder.event(&about, EventType::Normal, "SuccessfulDelete", format!("Deleted job {name}"));
        }
        let mut status = turn.status;
        if let Some((job, due)) = turn.create {
            let made = self.create(&cron, &job).await?;
            let status = status.get_or_insert_with(|| cron.status.clone());
            status.last_schedule_time = Some(Time(due));
            if let Some(made) = made {
                status.active.push(made);
            }
        }
        if let Some(status) = status {
            writes::status(&self.client, &CRON_JOBS, &*cron, &status).await?;
        }
        Ok(turn.after.map_or(Next::Done, Next::After))
    }

    /// Creates the job; returns the reference to it, or nothing if it was there already.
    async fn create(&self, cron: &CronJob, job: &Value) -> Result<Option<Value>, kube::Error> {
        let namespace = MetaExt::namespace(&cron.metadata);
        let about = reference(cron);
        match rest::create::<Value>(&self.client, &JOBS, namespace, job).await {
            Ok(made) => {
                let metadata = &made["metadata"];
                let message = format!("Created job {}", metadata["name"].as_str().unwrap_or_default());
                self.recorder.event(&about, EventType::Normal, "SuccessfulCreate", message);
                Ok(Some(json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": namespace,
                    "name": metadata["name"], "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]})))
            }
            Err(error) if rest::is_already_exists(&error) || rest::is_namespace_terminating(&error) => {
                Ok(None)
            }
            Err(error) => {
                let message = format!("Error creating job: {}", rest::message(&error));
                self.recorder.event(&about, EventType::Warning, "FailedCreate", message);
                Err(error)
            }
        }
    }

    async fn delete(&self, cron: &CronJob, name: &str) -> Result<(), kube::Error> {
        let options = json!({"propagationPolicy": "Background"});
        let namespace = MetaExt::namespace(&cron.metadata);
        writes::unless_gone(rest::delete(&self.client, &JOBS, namespace, name, &options).await)
    }
}
