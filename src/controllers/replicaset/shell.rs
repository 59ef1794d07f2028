//! Watches, then acts as [`plan`](super::plan) says.

use std::collections::HashMap;
use std::sync::Arc;

use copepod_client::informer::{BY_CONTROLLER, Informer};
use copepod_client::object::{Key, MetaExt, controller_reference};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::{Client, rest};
use jiff::Timestamp;

use super::Replicated;
use super::plan::{self, Action};
use crate::common::pod_control::{PodControl, when_available};
use crate::common::{pods, template, writes};
use crate::context::{Context, Work, enqueue_self};
use crate::kinds::Pod;

struct Shell<R> {
    client: Client,
    sets: Arc<Informer<R>>,
    pods: Arc<Informer<Pod>>,
    control: Arc<PodControl<R>>,
}

pub(super) fn start<R: Replicated>(context: &Context, name: &'static str, workers: usize) -> Work {
    let shell = Arc::new(Shell::<R> {
        client: context.client.clone(),
        sets: context.informer::<R>(),
        pods: context.informer::<Pod>(),
        control: PodControl::new(context, name),
    });
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&shell.sets, &queue);
    shell.control.watch(&queue);
    let shutdown = context.shutdown.clone();
    Box::pin(run_workers(name, queue, workers, shutdown, move |key| {
        let shell = shell.clone();
        async move { shell.sync(&key).await }
    }))
}

impl<R: Replicated> Shell<R> {
    async fn sync(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(set) = self.sets.get(key) else {
            self.control.forget(key);
            return Ok(Next::Done);
        };
        let ready_to_act = self.control.has_seen_all(key);
        let mine = self.control.claim(&set, |_| true).await?;
        let (active, rest): (Vec<_>, Vec<_>) = mine.into_iter().partition(|pod| pods::is_active(pod));
        let terminating = rest.iter().filter(|pod| pods::is_terminating(pod)).count();
        let now = Timestamp::now();
        let mut failure = None;
        if ready_to_act && !set.meta().deleting() {
            failure = self.manage(key, &set, &active, now).await.err();
        }
        let message = failure.as_ref().map(rest::message);
        let status = plan::status(&*set, &active, terminating, message.as_deref(), now);
        if status != *set.status() {
            writes::status(&self.client, &R::RESOURCE, &*set, &status).await?;
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(when_available(&active, set.min_ready_seconds(), now)),
        }
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
            Action::Create(count) => {
                let (meta, owner) = (set.meta(), controller_reference(set));
                let (namespace, name) = (MetaExt::namespace(meta), MetaExt::name(meta));
                let pod = template::pod(&set.template().0, namespace, name, &owner);
                self.control.create(key, set, count, |_| pod.clone()).await
            }
            Action::Delete(victims) => self.control.delete(key, set, victims).await,
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
}
