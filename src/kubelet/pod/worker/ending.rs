//! The end of a pod: everything is stopped, the last status written, what is left removed.
//!
//! upstream: kubelet/kubelet.go SyncTerminatingPod, SyncTerminatedPod; kubelet/pod_workers.go

use std::time::Duration;

use copepod_client::{events::EventType, rest};

use super::{RETRY, Update, Worker, until};
use crate::{
    context::pod_reference,
    pod::{
        act::clean,
        kill::kill_pod,
        model::{Observed, is_deleted, is_static, spec},
        patch,
    },
    text::pod_text,
    volume::{self, teardown},
};

impl Worker {
    /// Ends the pod; true when nothing of it is left.
    pub(super) async fn end(&mut self, update: &Update) -> bool {
        self.probes.stop_killing();
        self.stop_everything(update).await;
        let mut update = self.updates.borrow_and_update().clone();
        let observed = loop {
            match self.look(&update).await {
                Ok(observed) => break observed,
                Err(error) => tracing::warn!(error, pod = pod_text(&update.pod), "looking at the runtime"),
            }
            tokio::time::sleep(RETRY).await;
        };
        self.tell(&update, &observed, true);
        self.take_down(&update).await;
        self.sender.flush().await;
        // Done, but still shown: wait for the deletion.
        while !update.doomed() {
            self.sender.set_object(update.api_object());
            if self.updates.changed().await.is_err() {
                return true;
            }
            update = self.updates.borrow_and_update().clone();
            self.context.pods.put(update.pod.clone());
        }
        self.sender.flush().await;
        self.remove(&update, &observed).await;
        true
    }

    /// Kills until nothing runs, anew when the grace period is shortened.
    async fn stop_everything(&mut self, update: &Update) {
        let mut update = update.clone();
        loop {
            let observed = match self.look(&update).await {
                Ok(observed) if !observed.anything_alive() => return,
                Ok(observed) => observed,
                Err(error) => {
                    tracing::warn!(error, pod = pod_text(&update.pod), "looking at the runtime");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            self.tell(&update, &observed, false);
            let grace = grace_of(&update);
            let (context, pod) = (self.context.clone(), update.pod.clone());
            let kill = kill_pod(&context, &pod, &observed, Some(grace));
            tokio::pin!(kill);
            let waker = self.waker.clone();
            let mut changes = self.updates.clone();
            changes.mark_unchanged();
            let result = loop {
                tokio::select! {
                    result = &mut kill => break Some(result),
                    () = waker.woken() => self.look_and_tell(&update).await,
                    // A shorter grace period; an error is the manager's end, which this task does not outlive.
                    () = until(&mut changes, |other| grace_of(other) < grace) => break None,
                }
            };
            if let Some(Err(error)) = result {
                let message = format!("error killing pod: {error}");
                self.context.recorder.event(
                    &pod_reference(&update.pod),
                    EventType::Warning,
                    "FailedKillPod",
                    message,
                );
                tokio::time::sleep(RETRY).await;
            }
            update = self.updates.borrow().clone();
        }
    }

    /// Volumes and cgroup of a pod that runs no more.
    async fn take_down(&mut self, update: &Update) {
        self.mounted = None;
        self.context.objects.release(&self.uid);
        self.context.tokens.forget(&self.uid);
        let directory = volume::pod_dir(&self.context, &self.uid);
        let volumes = [directory.join("volumes"), volume::subpath::directory(&directory)];
        for path in volumes {
            let result = tokio::task::spawn_blocking(move || teardown::remove_pod_dir(&path)).await;
            match result {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, pod = pod_text(&update.pod), "taking volumes down"),
                Err(error) => tracing::error!(%error, pod = pod_text(&update.pod), "taking volumes down"),
            }
        }
        if let Err(error) = self.context.cgroups.remove_pod(&self.uid) {
            tracing::debug!(%error, pod = pod_text(&update.pod), "removing the pod's cgroup");
        }
    }

    /// The last of the pod: containers, logs, directory, API object.
    async fn remove(&mut self, update: &Update, observed: &Observed) {
        clean(&self.context, &update.pod, observed, true).await;
        if let Err(error) = self.context.cgroups.remove_pod(&self.uid) {
            tracing::warn!(%error, pod = pod_text(&update.pod), "removing the pod's cgroup");
        }
        let logs = crate::container::sandbox::log_dir(&self.context, &update.pod);
        for path in [volume::pod_dir(&self.context, &self.uid), logs] {
            if let Err(error) = teardown::remove_pod_dir(&path) {
                tracing::warn!(%error, pod = pod_text(&update.pod), "removing the pod's files");
            }
        }
        let object = update.api_object().filter(|_| !update.gone || is_static(&update.pod));
        let Some(object) = object else { return };
        let mut wait = Duration::from_millis(100);
        while let Err(error) = patch::delete(&self.context.client, &object).await {
            tracing::warn!(
                error = rest::message(&error),
                pod = pod_text(&update.pod),
                "deleting the pod object"
            );
            if rest::code(&error).is_some_and(|code| (400..500).contains(&code) && code != 429) {
                return;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY);
        }
    }
}

/// How long everything of the pod gets, in seconds: at least one.
// upstream: kubelet/pod_workers.go calculateEffectiveGracePeriod
fn grace_of(update: &Update) -> i64 {
    let deletion = update.pod.metadata.deletion_grace_period_seconds;
    let own = spec(&update.pod).termination_grace_period_seconds;
    let grace = deletion.or(own).unwrap_or(30);
    let grace = if update.gone && is_deleted(&update.pod) { grace.min(1) } else { grace };
    grace.max(1)
}
