//! Sending statuses: one after the other, of those that wait only the newest, so that the worker never waits for the API.
//!
//! What the server has is known from the watch and from the answers to our own patches; an older form of the object than
//! our last answer is not taken for the newest.

use std::sync::Arc;
use std::time::Duration;

use copepod_client::rest;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;

use super::{model::uid, patch};
use crate::{context::Context, text::pod_text};

/// First and longest wait after a failed patch.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// A status and its number.
type Numbered = (u64, Option<PodStatus>);

/// The sending end of one pod.
pub(super) struct StatusSender {
    wanted: watch::Sender<Numbered>,
    object: watch::Sender<Option<Arc<Pod>>>,
    sent: watch::Receiver<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for StatusSender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StatusSender {
    /// Starts the sender for the API's object of a pod, if there is one yet.
    pub(super) fn start(context: Arc<Context>, object: Option<Arc<Pod>>) -> Self {
        let (wanted, wanted_end) = watch::channel((0, None));
        let (object, object_end) = watch::channel(object);
        let (sent_end, sent) = watch::channel(0);
        let sending = Sending { context, wanted: wanted_end, object: object_end, sent: sent_end, base: None };
        StatusSender { wanted, object, sent, task: tokio::spawn(sending.run()) }
    }

    /// Hands over the newest status.
    pub(super) fn send(&self, status: PodStatus) {
        self.wanted.send_modify(|(number, held)| {
            *number += 1;
            *held = Some(status);
        });
    }

    /// Tells what the server has.
    pub(super) fn set_object(&self, object: Option<Arc<Pod>>) {
        let version = |pod: &Option<Arc<Pod>>| {
            pod.as_ref().map(|pod| (pod.metadata.uid.clone(), pod.metadata.resource_version.clone()))
        };
        self.object.send_if_modified(|held| {
            let changed = version(held) != version(&object);
            if changed {
                *held = object;
            }
            changed
        });
    }

    /// Waits until the server has the newest status, or there is no object to write it to.
    pub(super) async fn flush(&mut self) {
        let number = self.wanted.borrow().0;
        if self.object.borrow().is_some() {
            // The task lives as long as this end, unless it panicked.
            if self.sent.wait_for(|sent| *sent >= number).await.is_err() {
                tracing::error!("the status sender of a pod ended before its last status was written");
            }
        }
    }
}

struct Sending {
    context: Arc<Context>,
    wanted: watch::Receiver<Numbered>,
    object: watch::Receiver<Option<Arc<Pod>>>,
    sent: watch::Sender<u64>,
    /// The newest form of the object that is known: by its version, with its status.
    base: Option<(String, u64, PodStatus)>,
}

fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Sending {
    async fn run(mut self) {
        let mut wait = RETRY_MIN;
        loop {
            let (number, status) = self.wanted.borrow_and_update().clone();
            let object = self.object.borrow_and_update().clone();
            let mut failed = false;
            if let (Some(status), Some(object)) = (status, object) {
                self.learn(&object);
                failed = !self.send(&object, &status).await;
            }
            if failed {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
                continue;
            }
            wait = RETRY_MIN;
            self.sent.send_replace(number);
            let changed = tokio::select! {
                changed = self.wanted.changed() => changed,
                changed = self.object.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Takes a form of the object unless a newer one is known.
    fn learn(&mut self, pod: &Pod) {
        let known =
            self.base.as_ref().filter(|(known, ..)| known == uid(pod)).map_or(0, |(_, version, _)| *version);
        if self.base.is_none()
            || known == 0
            || version(pod) > known
            || self.base.as_ref().is_some_and(|(known, ..)| known != uid(pod))
        {
            self.base = Some((uid(pod).to_owned(), version(pod), pod.status.clone().unwrap_or_default()));
        }
    }

    /// False if it has to be tried again.
    async fn send(&mut self, object: &Pod, status: &PodStatus) -> bool {
        let Some((_, _, before)) = &self.base else { return true };
        let Some(body) = patch::status_patch(uid(object), before, status) else { return true };
        self.context.metrics.status_patches.inc();
        match patch::send_status(&self.context.client, object, &body).await {
            Ok(answer) => {
                self.learn(&answer);
                true
            }
            // Gone, or another pod of that name: there is nobody to tell.
            Err(error) if rest::is_not_found(&error) || rest::is_conflict(&error) => true,
            Err(error) => {
                tracing::warn!(error = rest::message(&error), pod = pod_text(object), "status patch");
                false
            }
        }
    }
}
