//! What controllers of pods share: which pods are theirs, creating and deleting them, and what is still to be seen of it.
//!
//! Invariants: what was created or deleted is expected until the watch shows it ([`Expectations`]); creations go in
//! growing batches, deletions side by side; each of them tells in an event how it ended.
//!
//! upstream: pkg/controller/controller_utils.go RealPodControl, pkg/controller/controller_ref_manager.go PodControllerRefManager

use std::sync::Arc;
use std::time::Duration;

use copepod_client::events::{EventType, Recorder};
use copepod_client::informer::{BY_CONTROLLER, BY_NAMESPACE, Cached, Change, Informer};
use copepod_client::object::{Key, MetaExt, reference};
use copepod_client::queue::{Next, WorkQueue};
use copepod_client::rest::ResourceType;
use copepod_client::{Client, rest};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Resource;
use serde_json::{Value, json};

use super::expectations::Expectations;
use super::resources::PODS;
use super::{claim, pods, selector, slow_start};
use crate::context::{Context, controller_key};
use crate::kinds::Pod;

/// Deletions under way at once.
const DELETIONS_MAX: usize = 32;

/// A kind whose objects control pods.
pub trait PodOwner: Cached + Resource<DynamicType = ()> {
    /// Where it is written.
    const RESOURCE: ResourceType;
    /// Its kind.
    const KIND: &'static str;
    /// What a pod of it carries until it is let go.
    const FINALIZER: Option<&'static str> = None;
    /// Which pods are its.
    fn selector(&self) -> LabelSelector;
}

/// A pod that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victim {
    /// Its name.
    pub name: String,
    /// Its uid, so that no other pod of that name goes.
    pub uid: String,
}

impl From<&Pod> for Victim {
    fn from(pod: &Pod) -> Self {
        Self { name: pod.metadata.name().to_owned(), uid: pod.metadata.uid().to_owned() }
    }
}

/// The pods of one kind of owner.
pub struct PodControl<O> {
    client: Client,
    recorder: Recorder,
    owners: Arc<Informer<O>>,
    pods: Arc<Informer<Pod>>,
    expectations: Expectations,
}

impl<O: PodOwner> PodControl<O> {
    /// `component` is who speaks in events.
    pub fn new(context: &Context, component: &str) -> Arc<Self> {
        Arc::new(Self {
            client: context.client.clone(),
            recorder: context.recorder.with_component(component),
            owners: context.informer(),
            pods: context.informer(),
            expectations: Expectations::default(),
        })
    }

    /// Enqueues the owners that a change of a pod concerns, and notes what was expected.
    pub fn watch(self: &Arc<Self>, queue: &WorkQueue<Key>) {
        let (control, queue) = (self.clone(), queue.clone());
        self.pods.on_change(move |change| control.pod_changed(&change, &queue));
    }

    fn pod_changed(&self, change: &Change<'_, Pod>, queue: &WorkQueue<Key>) {
        let pod = change.object();
        let owner = controller_key(&**pod, O::KIND);
        if let Some(owner) = &owner {
            match change {
                Change::Added(_) if !pod.metadata.deleting() => self.expectations.creation_observed(owner),
                Change::Updated(..) if !pod.metadata.deleting() => {}
                _ => self.expectations.deletion_observed(owner, pod.metadata.uid()),
            }
        }
        if let Change::Updated(before, after) = change
            && before.metadata.controller().map(|o| &o.uid) != after.metadata.controller().map(|o| &o.uid)
            && let Some(former) = controller_key(&***before, O::KIND)
        {
            queue.add(former);
        }
        match owner {
            Some(owner) => queue.add(owner),
            // An orphan may be adopted.
            None if pod.metadata.controller().is_none() && !matches!(change, Change::Deleted(_)) => {
                for owner in self.owners.by_index(BY_NAMESPACE, MetaExt::namespace(&pod.metadata)) {
                    let wish = owner.selector();
                    if !selector::is_empty(&wish) && selector::matches(&wish, &pod.metadata) {
                        queue.add(owner.meta().key());
                    }
                }
            }
            None => {}
        }
    }

    /// Whether all that was done to an owner's pods has been seen.
    pub fn has_seen_all(&self, owner: &Key) -> bool {
        self.expectations.satisfied(owner)
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &Key) {
        self.expectations.forget(owner);
    }

    /// The pods of an owner, after adopting orphans that `may_adopt` and letting go of what does not match any more.
    pub async fn claim(
        &self,
        owner: &O,
        may_adopt: impl Fn(&Pod) -> bool,
    ) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let mut candidates = self.pods.by_index(BY_CONTROLLER, MetaExt::uid(owner.meta()));
        let orphan =
            |pod: &Arc<Pod>| pod.metadata.controller().is_none() && pods::is_active(pod) && may_adopt(pod);
        let all = self.pods.by_index(BY_NAMESPACE, MetaExt::namespace(owner.meta()));
        candidates.extend(all.into_iter().filter(orphan));
        claim::Claims::new(&self.client, owner, &O::RESOURCE, &PODS)
            .marking(O::FINALIZER)
            .of(&owner.selector(), candidates)
            .await
    }

    /// Creates `count` pods, first one, then twice as many at a time as long as all go well.
    pub async fn create(
        &self,
        key: &Key,
        owner: &O,
        count: usize,
        pod: impl Fn(usize) -> Value,
    ) -> Result<(), kube::Error> {
        if count == 0 {
            return Ok(());
        }
        let (namespace, about) = (MetaExt::namespace(owner.meta()), reference(owner));
        self.expectations.expect_creations(key, count as i64);
        let (created, error) = slow_start::run(count, |at| self.create_one(namespace, &about, pod(at))).await;
        for _ in created..count {
            self.expectations.creation_observed(key);
        }
        match error {
            // The namespace takes the owner with it.
            Some(error) if !rest::is_namespace_terminating(&error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn create_one(
        &self,
        namespace: &str,
        about: &ObjectReference,
        pod: Value,
    ) -> Result<(), kube::Error> {
        let outcome = rest::create::<Value>(&self.client, &PODS, namespace, &pod).await;
        match &outcome {
            Ok(made) => {
                let name = made["metadata"]["name"].as_str().unwrap_or_default();
                let message = format!("Created pod: {name}");
                self.recorder.event(about, EventType::Normal, "SuccessfulCreate", message);
            }
            Err(error) if rest::is_namespace_terminating(error) => {}
            Err(error) => {
                let message = format!("Error creating: {}", rest::message(error));
                self.recorder.event(about, EventType::Warning, "FailedCreate", message);
            }
        }
        outcome.map(drop)
    }

    /// Deletes pods. Those that are gone already are no failure.
    pub async fn delete(&self, key: &Key, owner: &O, victims: Vec<Victim>) -> Result<(), kube::Error> {
        if victims.is_empty() {
            return Ok(());
        }
        let (namespace, about) = (MetaExt::namespace(owner.meta()), reference(owner));
        self.expectations.expect_deletions(key, victims.iter().map(|victim| victim.uid.clone()));
        let deleting = victims.into_iter().map(|victim| self.delete_one(key, namespace, &about, victim));
        let results: Vec<_> = futures::stream::iter(deleting).buffer_unordered(DELETIONS_MAX).collect().await;
        results.into_iter().collect()
    }

    async fn delete_one(
        &self,
        key: &Key,
        namespace: &str,
        about: &ObjectReference,
        victim: Victim,
    ) -> Result<(), kube::Error> {
        let options = json!({ "preconditions": { "uid": victim.uid } });
        let outcome = rest::delete(&self.client, &PODS, namespace, &victim.name, &options).await;
        let Err(error) = outcome else {
            let message = format!("Deleted pod: {}", victim.name);
            self.recorder.event(about, EventType::Normal, "SuccessfulDelete", message);
            return Ok(());
        };
        self.expectations.deletion_observed(key, &victim.uid);
        if rest::is_not_found(&error) {
            return Ok(());
        }
        let message = format!("Error deleting: {}", rest::message(&error));
        self.recorder.event(about, EventType::Warning, "FailedDelete", message);
        Err(error)
    }
}

/// Another turn when the next pod that is ready becomes available: no event tells.
pub fn when_available(pods: &[Arc<Pod>], min_ready_seconds: i32, now: Timestamp) -> Next {
    let times = pods.iter().filter_map(|pod| pods::available_at(pod, min_ready_seconds));
    match times.filter(|at| *at > now).min() {
        Some(at) => Next::After(Duration::try_from(at.duration_since(now)).unwrap_or_default()),
        None => Next::Done,
    }
}

/// Those of `pods` that are named.
pub fn victims(pods: &[Arc<Pod>], names: &[String]) -> Vec<Victim> {
    let named = |pod: &&Arc<Pod>| names.iter().any(|name| name == pod.metadata.name());
    pods.iter().filter(named).map(|pod| Victim::from(&**pod)).collect()
}
