//! Watches, turned into happenings one object at a time: no object is kept in the form in which it came.

use std::collections::HashSet;

use copepod_client::informer::{Cached, watch_backoff};
use copepod_client::object::{Key, MetaExt};
use copepod_client::{Client, Shutdown};
use futures::StreamExt;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use tokio::sync::mpsc;

use super::Happening;

/// A change of one resource.
pub(super) enum Change<K> {
    Applied(Box<K>),
    Deleted(Box<K>),
    /// A list is complete: what is not among these keys is gone. `true` for the first one.
    Listed(HashSet<Key>, bool),
}

/// Starts one task for each resource. Pods that have ended take no room and are not watched.
pub(super) fn start(client: &Client, tell: &mpsc::Sender<Happening>, shutdown: &Shutdown) {
    let alive = Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    spawn(client, alive, Happening::Pod, tell, shutdown);
    spawn(client, Config::default(), Happening::Node, tell, shutdown);
    spawn(client, Config::default(), Happening::Budget, tell, shutdown);
    spawn(client, Config::default(), Happening::Namespace, tell, shutdown);
}

fn spawn<K: Cached + kube::Resource<DynamicType = ()>>(
    client: &Client,
    config: Config,
    wrap: fn(Change<K>) -> Happening,
    tell: &mpsc::Sender<Happening>,
    shutdown: &Shutdown,
) {
    let (api, tell, shutdown) = (Api::<K>::all(client.clone()), tell.clone(), shutdown.clone());
    tokio::spawn(async move {
        let feeding = feed(api, config, wrap, tell);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = feeding => {}
        }
    });
}

async fn feed<K: Cached>(
    api: Api<K>,
    config: Config,
    wrap: fn(Change<K>) -> Happening,
    tell: mpsc::Sender<Happening>,
) where
    K::DynamicType: Send,
{
    let mut events = std::pin::pin!(watcher(api, config.streaming_lists()).backoff(watch_backoff()));
    let mut listed = HashSet::new();
    let mut first = true;
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listed.insert(object.meta().key());
                Change::Applied(Box::new(object))
            }
            Ok(Event::InitDone) => Change::Listed(std::mem::take(&mut listed), std::mem::take(&mut first)),
            Ok(Event::Apply(object)) => Change::Applied(Box::new(object)),
            Ok(Event::Delete(object)) => Change::Deleted(Box::new(object)),
            Err(error) => {
                tracing::warn!(resource = std::any::type_name::<K>(), %error, "watch failed, will try again");
                continue;
            }
        };
        if tell.send(wrap(change)).await.is_err() {
            return;
        }
    }
}
