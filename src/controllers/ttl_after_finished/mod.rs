//! Finished jobs are deleted when their time to live is over.
//!
//! upstream: pkg/controller/ttlafterfinished/ttlafterfinished_controller.go

use std::sync::Arc;
use std::time::Duration;

use copepod_client::informer::Informer;
use copepod_client::object::{Key, MetaExt};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::rest;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::common::conditions;
use crate::common::resources::JOBS;
use crate::context::{Context, Work, enqueue_self};
use crate::kinds::Job;

const NAME: &str = "ttl-after-finished-controller";

/// What is left of a job's time; `None` if it has no end.
fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    if job.metadata.deleting() {
        return None;
    }
    let ttl = SignedDuration::from_secs(job.spec.ttl_seconds_after_finished?);
    let ended = conditions::find(&job.status.conditions, crate::job::finished(job)?)?;
    let since = ended.last_transition_time.as_ref()?.0;
    Some(Duration::try_from(ttl - now.duration_since(since)).unwrap_or_default())
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let jobs: Arc<Informer<Job>> = context.informer();
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&jobs, &queue);
    let (client, workers) = (context.client.clone(), context.config.concurrent_ttl_after_finished_syncs);
    Box::pin(run_workers(NAME, queue, workers, context.shutdown.clone(), move |key: Key| {
        let (client, job) = (client.clone(), jobs.get(&key));
        async move {
            let Some(job) = job else { return Ok(Next::Done) };
            match left(&job, Timestamp::now()) {
                None => Ok(Next::Done),
                Some(wait) if !wait.is_zero() => Ok(Next::After(wait)),
                Some(_) => {
                    // The version guards against a time to live that was made longer meanwhile.
                    let preconditions =
                        json!({"uid": job.metadata.uid, "resourceVersion": job.metadata.resource_version});
                    let options = json!({"propagationPolicy": "Foreground", "preconditions": preconditions});
                    let (namespace, name) = (MetaExt::namespace(&job.metadata), job.metadata.name());
                    match rest::delete(&client, &JOBS, namespace, name, &options).await {
                        Err(error) if rest::is_not_found(&error) => Ok(Next::Done),
                        other => other.map(|()| Next::Done),
                    }
                }
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finished_jobs_with_a_time_to_live_end() {
        let job = |ttl: Option<i64>, ended: bool| -> Job {
            let conditions = if ended {
                json!([{"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}])
            } else {
                json!([])
            };
            serde_json::from_value(
                json!({"spec": {"ttlSecondsAfterFinished": ttl}, "status": {"conditions": conditions}}),
            )
            .expect("a job")
        };
        let now = "2026-01-01T00:01:00Z".parse().expect("a time");
        for (name, job, want) in [
            ("runs", job(Some(10), false), None),
            ("stays", job(None, true), None),
            ("later", job(Some(100), true), Some(40)),
            ("now", job(Some(60), true), Some(0)),
            ("overdue", job(Some(0), true), Some(0)),
        ] {
            assert_eq!(left(&job, now).map(|left| left.as_secs()), want, "{name}");
        }
    }
}
