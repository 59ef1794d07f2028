//! Watches, then acts as [`plan`](super::plan) says.

use std::sync::Arc;

use copepod_client::events::{EventType, Recorder};
use copepod_client::informer::{BY_NAMESPACE, Change, Informer};
use copepod_client::object::{Key, MetaExt, join, reference};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::rest::ResourceType;
use copepod_client::{Client, rest};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::identity;
use super::plan::{self, Revisions, Turn};
use super::retention;
use crate::common::pod_control::{PodControl, PodOwner, when_available};
use crate::common::resources::{PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS};
use crate::common::{revisions, selector, writes};
use crate::context::{Context, Work, enqueue_self};
use crate::kinds::{Claim, ControllerRevision, Pod, StatefulSet, Template};

impl PodOwner for StatefulSet {
    const RESOURCE: ResourceType = STATEFUL_SETS;
    const KIND: &'static str = "StatefulSet";
    fn selector(&self) -> LabelSelector {
        self.spec.selector.clone()
    }
}

const NAME: &str = "statefulset-controller";

struct Shell {
    client: Client,
    recorder: Recorder,
    sets: Arc<Informer<StatefulSet>>,
    control: Arc<PodControl<StatefulSet>>,
    revisions: Arc<Informer<ControllerRevision>>,
    claims: Arc<Informer<Claim>>,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        recorder: context.recorder.with_component(NAME),
        sets: context.informer(),
        control: PodControl::new(context, NAME),
        revisions: context.informer(),
        claims: context.informer(),
    });
    let queue = WorkQueue::<Key>::default();
    enqueue_self(&shell.sets, &queue);
    shell.control.watch(&queue);
    shell.watch_claims(&queue);
    let workers = context.config.concurrent_statefulset_syncs;
    Box::pin(run_workers(NAME, queue, workers, context.shutdown.clone(), move |key| {
        let shell = shell.clone();
        async move { shell.sync(&key).await }
    }))
}

impl Shell {
    async fn sync(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(set) = self.sets.get(key) else { return Ok(Next::Done) };
        if set.metadata.deleting() || selector::is_empty(&set.spec.selector) {
            return Ok(Next::Done);
        }
        let known = revisions::of(&self.revisions, &*set);
        let template = &set.spec.template;
        let update =
            revisions::current(&self.client, &*set, template, &known, set.status.collision_count).await?;
        // The state that pods had before an update; the newest if there is no other.
        let current = known
            .iter()
            .find(|revision| revision.metadata.name() == set.status.current_revision)
            .unwrap_or(&update)
            .clone();
        let mine = self.control.claim(&set, |pod| identity::ordinal_of(&set, pod).is_some()).await?;
        let now = Timestamp::now();
        let names = Revisions { current: current.metadata.name(), update: update.metadata.name() };
        let turn = plan::plan(&set, &mine, &names, now);
        // Before a pod goes for good its claims must know whether they go with it.
        self.own_claims(&set, &mine).await?;
        self.act(&set, &mine, &turn, &current, &update).await?;
        if turn.status != set.status {
            writes::status(&self.client, &STATEFUL_SETS, &*set, &turn.status).await?;
        }
        self.clean_up(&set, &known, &mine, &names).await?;
        Ok(when_available(&mine, set.spec.min_ready_seconds, now))
    }

    async fn act(
        &self,
        set: &StatefulSet,
        mine: &[Arc<Pod>],
        turn: &Turn,
        current: &ControllerRevision,
        update: &ControllerRevision,
    ) -> Result<(), kube::Error> {
        for (ordinal, newest) in &turn.create {
            let revision = if *newest { update } else { current };
            let template = revisions::template_of(revision);
            self.create(set, &template, revision.metadata.name(), *ordinal).await?;
        }
        for pod in mine.iter().filter(|pod| turn.delete.iter().any(|name| name == pod.metadata.name())) {
            self.delete(set, pod).await?;
        }
        Ok(())
    }

    /// A claim that has come may have to be given an owner.
    fn watch_claims(self: &Arc<Self>, queue: &WorkQueue<Key>) {
        let (shell, queue) = (self.clone(), queue.clone());
        self.claims.on_change(move |change| {
            let (Change::Added(claim) | Change::Updated(_, claim)) = change else { return };
            for set in shell.sets.by_index(BY_NAMESPACE, MetaExt::namespace(&claim.metadata)) {
                if set.spec.persistent_volume_claim_retention_policy.is_some()
                    && identity::is_claim_of(&set, claim.metadata.name())
                {
                    queue.add(set.metadata.key());
                }
            }
        });
    }

    async fn own_claims(&self, set: &StatefulSet, mine: &[Arc<Pod>]) -> Result<(), kube::Error> {
        let namespace = MetaExt::namespace(&set.metadata);
        for pod in mine {
            let Some(ordinal) = identity::ordinal_of(set, pod) else { continue };
            for name in identity::claim_names(set, ordinal) {
                let Some(claim) = self.claims.get(&join(namespace, &name)) else { continue };
                let Some(owners) = retention::owners(set, pod, &claim) else { continue };
                let known = json!(claim.metadata.owner_references.clone().unwrap_or_default());
                let change = |live: &mut Value| {
                    // Decided on what was seen: an owner that came meanwhile is looked at in the next turn.
                    let same = live["metadata"].get("ownerReferences").cloned().unwrap_or(json!([])) == known;
                    live["metadata"]["ownerReferences"] = json!(owners);
                    same
                };
                let claims = &PERSISTENT_VOLUME_CLAIMS;
                let edited = rest::edit(&self.client, claims, namespace, &name, change).await;
                writes::unless_gone(edited.map(drop))?;
            }
        }
        Ok(())
    }

    async fn create(
        &self,
        set: &StatefulSet,
        template: &Template,
        revision: &str,
        ordinal: i32,
    ) -> Result<(), kube::Error> {
        let (namespace, owner) = (MetaExt::namespace(&set.metadata), set.metadata.name());
        let (about, name) = (reference(set), identity::pod_name(set, ordinal));
        for claim in identity::claims(set, ordinal) {
            let claim_name = claim["metadata"]["name"].as_str().unwrap_or_default();
            let made =
                rest::create::<IgnoredAny>(&self.client, &PERSISTENT_VOLUME_CLAIMS, namespace, &claim).await;
            match made {
                Ok(_) => {
                    let message =
                        format!("create Claim {claim_name} Pod {name} in StatefulSet {owner} success");
                    self.recorder.event(&about, EventType::Normal, "SuccessfulCreate", message);
                }
                Err(error) if rest::is_already_exists(&error) => {}
                Err(error) => return self.not_created(set, &format!("Claim {claim_name} Pod {name}"), error),
            }
        }
        let pod = identity::pod(set, template, revision, ordinal);
        match rest::create::<Value>(&self.client, &PODS, namespace, &pod).await {
            Ok(_) => {
                let message = format!("create Pod {name} in StatefulSet {owner} successful");
                self.recorder.event(&about, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            // Our own, and the watch has yet to show it.
            Err(error) if rest::is_already_exists(&error) => Ok(()),
            Err(error) => self.not_created(set, &format!("Pod {name}"), error),
        }
    }

    fn not_created(&self, set: &StatefulSet, what: &str, error: kube::Error) -> Result<(), kube::Error> {
        if rest::is_namespace_terminating(&error) {
            return Ok(());
        }
        let owner = set.metadata.name();
        let message = format!("create {what} in StatefulSet {owner} failed error: {}", rest::message(&error));
        self.recorder.event(&reference(set), EventType::Warning, "FailedCreate", message);
        Err(error)
    }

    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<(), kube::Error> {
        let (namespace, name) = (MetaExt::namespace(&pod.metadata), pod.metadata.name());
        let (about, owner) = (reference(set), set.metadata.name());
        let options = json!({"preconditions": {"uid": pod.metadata.uid}});
        match rest::delete(&self.client, &PODS, namespace, name, &options).await {
            Ok(()) => {
                let message = format!("delete Pod {name} in StatefulSet {owner} successful");
                self.recorder.event(&about, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if rest::is_not_found(&error) => Ok(()),
            Err(error) => {
                let message = format!(
                    "delete Pod {name} in StatefulSet {owner} failed error: {}",
                    rest::message(&error)
                );
                self.recorder.event(&about, EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    async fn clean_up(
        &self,
        set: &StatefulSet,
        known: &[Arc<ControllerRevision>],
        mine: &[Arc<Pod>],
        names: &Revisions<'_>,
    ) -> Result<(), kube::Error> {
        let mut in_use = vec![names.current, names.update];
        in_use.extend(mine.iter().filter_map(|pod| pod.metadata.label(revisions::HASH_LABEL)));
        revisions::clean_up(&self.client, known, &in_use, set.spec.revision_history_limit.unwrap_or(10)).await
    }
}
