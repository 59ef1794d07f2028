//! One metadata-only watch for each kind that can be listed, watched and deleted. Custom kinds come and go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use copepod_client::Shutdown;
use copepod_client::informer::watch_backoff;
use copepod_client::object::MetaExt;
use copepod_client::rest::ResourceType;
use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;

use super::graph::Node;
use super::shell::Shell;
use crate::context::Gone;
use crate::discovery::{self, Discovered};

/// Kinds whose objects own nothing, are owned by nothing, and are many. upstream: ignoredResources
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];
/// Changes of these mean that other kinds may be served now.
const SERVING: [&str; 2] = ["customresourcedefinitions", "apiservices"];

/// The watches that run.
#[derive(Default)]
pub(super) struct Monitors {
    running: HashMap<ResourceType, Monitor>,
}

struct Monitor {
    stop: Shutdown,
    synced: watch::Receiver<bool>,
}

impl Monitors {
    /// Asks what is served, starts what is new and stops what is gone.
    pub(super) async fn follow_discovery(
        &mut self,
        shell: &Arc<Shell>,
        shutdown: &Shutdown,
    ) -> Result<(), kube::Error> {
        let (all, stale) = discovery::preferred(&shell.client).await?;
        let watched: Vec<Discovered> = all
            .iter()
            .filter(|d| d.can(&["list", "watch", "delete"]))
            .filter(|d| !IGNORED.contains(&(d.resource.group.as_ref(), d.resource.plural.as_ref())))
            .cloned()
            .collect();
        shell.learn_kinds(&all);
        let wanted: HashSet<&ResourceType> = watched.iter().map(|d| &d.resource).collect();
        let unknown =
            |resource: &ResourceType| stale.contains(&format!("{}/{}", resource.group, resource.version));
        self.running.retain(|resource, monitor| {
            let keep = wanted.contains(resource) || unknown(resource);
            if !keep {
                monitor.stop.cancel();
                shell.forget_resource(resource);
            }
            keep
        });
        for discovered in watched {
            if !self.running.contains_key(&discovered.resource) {
                let (synced_now, synced) = watch::channel(false);
                let stop = shutdown.child_token();
                let resource = discovered.resource.clone();
                tokio::spawn(run(shell.clone(), discovered, synced_now, stop.clone()));
                self.running.insert(resource, Monitor { stop, synced });
            }
        }
        Ok(())
    }

    /// Waits until all kinds are listed.
    pub(super) async fn wait_synced(&self) {
        for monitor in self.running.values() {
            let mut synced = monitor.synced.clone();
            // A monitor that was stopped meanwhile has nothing to wait for.
            let _ = synced.wait_for(|synced| *synced).await;
        }
    }
}

async fn run(shell: Arc<Shell>, discovered: Discovered, synced: watch::Sender<bool>, stop: Shutdown) {
    let watching = follow(&shell, &discovered, &synced);
    tokio::select! {
        () = stop.cancelled() => {}
        () = watching => {}
    }
}

async fn follow(shell: &Shell, discovered: &Discovered, synced: &watch::Sender<bool>) {
    let resource = Arc::new(discovered.resource.clone());
    let serving = SERVING.contains(&resource.plural.as_ref());
    let dynamic = ApiResource {
        group: resource.group.to_string(),
        version: resource.version.to_string(),
        api_version: resource.api_version(),
        kind: discovered.kind.clone(),
        plural: resource.plural.to_string(),
    };
    let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(shell.client.clone(), &dynamic);
    let config = watcher::Config::default().streaming_lists();
    let mut events = std::pin::pin!(watcher::watcher(api, config).backoff(watch_backoff()));
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.insert(object.metadata.uid().to_owned());
                shell.applied(Node::new(&resource, &object.metadata));
            }
            Ok(Event::InitDone) => {
                shell.keep_only(&resource, &std::mem::take(&mut listed));
                synced.send_replace(true);
            }
            Ok(Event::Apply(object)) => {
                shell.applied(Node::new(&resource, &object.metadata));
                if serving {
                    shell.serving_changed();
                }
            }
            Ok(Event::Delete(object)) => {
                shell.deleted(object.metadata.uid());
                let namespace = MetaExt::namespace(&object.metadata).to_owned();
                // Nobody may be listening.
                let _listeners = shell.gone.send(Gone { resource: resource.clone(), namespace });
                if serving {
                    shell.serving_changed();
                }
            }
            Err(error) => {
                tracing::debug!(resource = %resource.plural, %error, "metadata watch failed, will try again");
            }
        }
    }
}
