//! Watches, then acts as [`plan`](super::plan) says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_client::events::{EventType, Recorder};
use copepod_client::informer::{BY_CONTROLLER, BY_NAMESPACE, Change, Informer};
use copepod_client::object::{Key, MetaExt, controller_reference, reference};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::{Client, rest};
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::Replicated;
use super::plan::{self, Action};
use crate::common::expectations::Expectations;
use crate::common::resources::PODS;
use crate::common::{claim, pods, selector, slow_start, template};
use crate::context::{Context, Work, controller_key, enqueue_self};
use crate::kinds::Pod;

/// Deletions under way at once.
const DELETIONS_MAX: usize = 32;

struct Shell<R> {
    client: Client,
    recorder: Recorder,
    sets: Arc<Informer<R>>,
    pods: Arc<Informer<Pod>>,
    expectations: Expectations,
}

pub(super) fn start<R: Replicated>(context: &Context, name: &'static str, workers: usize) -> Work {
    let shell = Arc::new(Shell::<R> {
        client: context.client.clone(),
        recorder: context.recorder.with_component(name),
        sets: context.informer::<R>(),
        pods: context.informer::<Pod>(),
        expectations: Expectations::default(),
    });
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&shell.sets, &queue);
    let (watching, add) = (shell.clone(), queue.clone());
    shell.pods.on_change(move |change| watching.pod_changed(&change, &add));
    let shutdown = context.shutdown.clone();
    Box::pin(run_workers(name, queue, workers, shutdown, move |key| {
        let shell = shell.clone();
        async move { shell.sync(&key).await }
    }))
}

impl<R: Replicated> Shell<R> {
    /// Notes what was expected, and enqueues the sets that a pod's change concerns.
    fn pod_changed(&self, change: &Change<'_, Pod>, queue: &WorkQueue<Key>) {
        let pod = change.object();
        let owner = controller_key(&**pod, R::KIND);
        match (change, &owner) {
            (Change::Added(_), Some(owner)) if !pod.metadata.deleting() => {
                self.expectations.creation_observed(owner)
            }
            (Change::Added(_) | Change::Updated(..), Some(owner)) if pod.metadata.deleting() => {
                self.expectations.deletion_observed(owner, MetaExt::uid(&pod.metadata));
            }
            (Change::Deleted(_), Some(owner)) => {
                self.expectations.deletion_observed(owner, MetaExt::uid(&pod.metadata));
            }
            _ => {}
        }
        if let Change::Updated(before, after) = change
            && before.metadata.controller().map(|o| &o.uid) != after.metadata.controller().map(|o| &o.uid)
            && let Some(former) = controller_key(&***before, R::KIND)
        {
            queue.add(former);
        }
        match owner {
            Some(owner) => queue.add(owner),
            // An orphan may be adopted.
            None if pod.metadata.controller().is_none() && !matches!(change, Change::Deleted(_)) => {
                for set in self.sets.by_index(BY_NAMESPACE, MetaExt::namespace(&pod.metadata)) {
                    let wish = set.selector();
                    if !selector::is_empty(&wish) && selector::matches(&wish, &pod.metadata) {
                        queue.add(set.meta().key());
                    }
                }
            }
            None => {}
        }
    }

    async fn sync(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            return Ok(Next::Done);
        };
        let ready_to_act = self.expectations.satisfied(key);
        let mine = self.claim(&*set).await?;
        let (active, rest): (Vec<_>, Vec<_>) = mine.into_iter().partition(|pod| pods::is_active(pod));
        let terminating = rest.iter().filter(|pod| pods::is_terminating(pod)).count();
        let now = Timestamp::now();
        let mut failure = None;
        if ready_to_act && !set.meta().deleting() {
            failure = self.manage(key, &*set, &active, now).await.err();
        }
        let message = failure.as_ref().map(rest::message);
        let status = plan::status(&*set, &active, terminating, message.as_deref(), now);
        if status != *set.status() {
            self.write_status(&*set, &status).await?;
        }
        if let Some(error) = failure {
            return Err(error);
        }
        // A pod that is ready but not available yet becomes so without any event.
        let min_ready = set.min_ready_seconds();
        let next =
            active.iter().filter_map(|pod| pods::available_at(pod, min_ready)).filter(|at| *at > now).min();
        Ok(match next {
            Some(at) => Next::After(Duration::try_from(at.duration_since(now)).unwrap_or_default()),
            None => Next::Done,
        })
    }

    async fn claim(&self, set: &R) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let namespace = MetaExt::namespace(set.meta());
        let mut candidates = self.pods.by_index(BY_CONTROLLER, MetaExt::uid(set.meta()));
        let orphan = |pod: &Arc<Pod>| pod.metadata.controller().is_none() && pods::is_active(pod);
        candidates.extend(self.pods.by_index(BY_NAMESPACE, namespace).into_iter().filter(orphan));
        let wish = set.selector();
        claim::claim(&self.client, set, &R::RESOURCE, &wish, &PODS, candidates).await
    }

    async fn manage(
        &self,
        key: &Key,
        set: &R,
        active: &[Arc<Pod>],
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        match plan::plan(set.replicas(), active, &self.related(set), now) {
            Action::Nothing => Ok(()),
            Action::Create(count) => self.create(key, set, count).await,
            Action::Delete(victims) => self.delete(key, set, victims).await,
        }
    }

    /// Active pods of sets with the same owner, by node: of equal pods the one in the most crowded place goes.
    fn related(&self, set: &R) -> HashMap<String, usize> {
        let mut by_node = HashMap::new();
        let siblings = match set.meta().controller() {
            Some(owner) => self.sets.by_index(BY_CONTROLLER, &owner.uid),
            None => self.sets.get(&set.meta().key()).into_iter().collect(),
        };
        for sibling in siblings {
            for pod in self.pods.by_index(BY_CONTROLLER, MetaExt::uid(sibling.meta())) {
                if pods::is_active(&pod) {
                    *by_node.entry(pod.spec.node_name.clone()).or_insert(0) += 1;
                }
            }
        }
        by_node
    }

    async fn create(&self, key: &Key, set: &R, count: usize) -> Result<(), kube::Error> {
        let owner = controller_reference(set);
        let (namespace, name) = (MetaExt::namespace(set.meta()), MetaExt::name(set.meta()));
        let pod = template::pod(&set.template().0, namespace, name, &owner);
        let about = reference(set);
        self.expectations.expect_creations(key, count as i64);
        let (created, error) = slow_start::run(count, |_| async {
            match rest::create::<Value>(&self.client, &PODS, namespace, &pod).await {
                Ok(made) => {
                    let message =
                        format!("Created pod: {}", made["metadata"]["name"].as_str().unwrap_or_default());
                    self.recorder.event(&about, EventType::Normal, "SuccessfulCreate", message);
                    Ok(())
                }
                Err(error) => {
                    if !rest::is_namespace_terminating(&error) {
                        let message = format!("Error creating: {}", rest::message(&error));
                        self.recorder.event(&about, EventType::Warning, "FailedCreate", message);
                    }
                    Err(error)
                }
            }
        })
        .await;
        for _ in created..count {
            self.expectations.creation_observed(key);
        }
        match error {
            Some(error) if !rest::is_namespace_terminating(&error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn delete(&self, key: &Key, set: &R, victims: Vec<(String, String)>) -> Result<(), kube::Error> {
        use futures::StreamExt as _;
        let namespace = MetaExt::namespace(set.meta());
        let about = reference(set);
        self.expectations.expect_deletions(key, victims.iter().map(|(_, uid)| uid.clone()));
        let deleting = victims.into_iter().map(|(name, uid)| {
            let about = &about;
            async move {
                let options = json!({ "preconditions": { "uid": uid } });
                let result = rest::delete(&self.client, &PODS, namespace, &name, &options).await;
                match &result {
                    Ok(()) => {
                        self.recorder.event(
                            about,
                            EventType::Normal,
                            "SuccessfulDelete",
                            format!("Deleted pod: {name}"),
                        );
                    }
                    Err(error) => {
                        self.expectations.deletion_observed(key, &uid);
                        if !rest::is_not_found(error) {
                            let message = format!("Error deleting: {}", rest::message(error));
                            self.recorder.event(about, EventType::Warning, "FailedDelete", message);
                        }
                    }
                }
                match result {
                    Err(error) if !rest::is_not_found(&error) => Err(error),
                    _ => Ok(()),
                }
            }
        });
        let results: Vec<_> = futures::stream::iter(deleting).buffer_unordered(DELETIONS_MAX).collect().await;
        results.into_iter().collect()
    }

    async fn write_status(
        &self,
        set: &R,
        status: &crate::kinds::ReplicaSetStatus,
    ) -> Result<(), kube::Error> {
        let meta = set.meta();
        let (namespace, name) = (MetaExt::namespace(meta), MetaExt::name(meta));
        let body = json!({ "metadata": { "resourceVersion": meta.resource_version }, "status": status });
        let written: Result<IgnoredAny, _> =
            rest::patch(&self.client, &R::RESOURCE, namespace, name, "status", rest::PatchType::Merge, &body)
                .await;
        match written {
            Err(error) if rest::is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}
