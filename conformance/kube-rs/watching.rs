//! Watches, watchers in both ways of getting the initial state, reflectors.

use crate::{Case, Place, case};
use anyhow::{Context as _, ensure};
use futures::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::runtime::{WatchStreamExt as _, reflector};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    case("watch from a list", |p| raw(p).boxed()),
    case("watch with initial events ends them by a bookmark", |p| initial_events(p).boxed()),
    case("watcher by list and watch", |p| watched(p, Config::default()).boxed()),
    case("watcher by list of any state", |p| watched(p, Config::default().any_semantic()).boxed()),
    case("watcher by list in pages", |p| watched(p, Config::default().page_size(2)).boxed()),
    case("watcher by streaming list", |p| watched(p, Config::default().streaming_lists()).boxed()),
    case("watcher of metadata", |p| metadata(p).boxed()),
    case("reflector store by list and watch", |p| reflected(p, Config::default()).boxed()),
    case("reflector store by streaming list", |p| reflected(p, Config::default().streaming_lists()).boxed()),
];

fn label(config: Config) -> Config {
    config.labels("app=conformance")
}

/// Watchers that take any state may be shown one of before; after a consistent list the server's cache is as new as that.
async fn settle(maps: &Api<ConfigMap>) -> anyhow::Result<()> {
    maps.list(&Default::default()).await.map(|_| ()).context("list")
}

async fn change(maps: &Api<ConfigMap>, name: &str) -> anyhow::Result<()> {
    maps.patch(name, &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "v"}})))
        .await
        .map(|_| ())
        .context("patch")
}

async fn raw(p: Place) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> = p.api();
    let list = maps.list(&Default::default()).await?;
    let version = list.metadata.resource_version.context("a list without a resourceVersion")?;
    let mut events =
        maps.watch(&WatchParams::default().labels("app=conformance").timeout(20), &version).await?.boxed();
    p.config_map("w").await?;
    change(&maps, "w").await?;
    maps.delete("w", &DeleteParams::default()).await?;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(match events.try_next().await?.context("the watch ended")? {
            WatchEvent::Added(m) => format!("ADDED {}", m.name_any()),
            WatchEvent::Modified(m) => format!("MODIFIED {}", m.name_any()),
            WatchEvent::Deleted(m) => format!("DELETED {}", m.name_any()),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => anyhow::bail!("{status:?}"),
        });
    }
    ensure!(seen == ["ADDED w", "MODIFIED w", "DELETED w"], "{seen:?}");
    Ok(())
}

async fn initial_events(p: Place) -> anyhow::Result<()> {
    p.config_map("a").await?;
    let maps: Api<ConfigMap> = p.api();
    settle(&maps).await?;
    let params = WatchParams::default().labels("app=conformance").initial_events();
    let mut events = maps.watch(&params, "0").await?.boxed();
    let first = events.try_next().await?;
    ensure!(matches!(&first, Some(WatchEvent::Added(m)) if m.name_any() == "a"), "{first:?}");
    match events.try_next().await? {
        Some(WatchEvent::Bookmark(b)) => {
            let end = b.metadata.annotations.get("k8s.io/initial-events-end");
            ensure!(
                end.is_some_and(|v| v == "true") && !b.metadata.resource_version.is_empty(),
                "{:?}",
                b.metadata.annotations
            );
        }
        other => anyhow::bail!("wanted a bookmark: {other:?}"),
    }
    Ok(())
}

/// The events of a watcher as words; the initial ones in the order of their names, which a watcher need not keep.
async fn words(
    mut events: impl Stream<Item = kube::runtime::watcher::Result<Event<ConfigMap>>> + Unpin,
    count: usize,
) -> anyhow::Result<Vec<String>> {
    let (mut seen, mut initial) = (Vec::new(), Vec::new());
    while seen.len() < count {
        match events.try_next().await?.context("the watcher ended")? {
            Event::Init => seen.push("init".into()),
            Event::InitApply(m) => initial.push(format!("has {}", m.name_any())),
            Event::InitDone => {
                initial.sort();
                seen.append(&mut initial);
                seen.push("done".into());
            }
            Event::Apply(m) => seen.push(format!("apply {}", m.name_any())),
            Event::Delete(m) => seen.push(format!("delete {}", m.name_any())),
        }
    }
    Ok(seen)
}

async fn watched(p: Place, config: Config) -> anyhow::Result<()> {
    for name in ["a", "b", "c", "d", "e"] {
        p.config_map(name).await?;
    }
    let maps: Api<ConfigMap> = p.api();
    settle(&maps).await?;
    let mut events = watcher(maps.clone(), label(config)).boxed();
    let seen = words(&mut events, 7).await?;
    ensure!(seen == ["init", "has a", "has b", "has c", "has d", "has e", "done"], "{seen:?}");
    p.config_map("f").await?;
    change(&maps, "a").await?;
    maps.delete("b", &DeleteParams::default()).await?;
    let seen = words(&mut events, 3).await?;
    ensure!(seen == ["apply f", "apply a", "delete b"], "{seen:?}");
    Ok(())
}

async fn metadata(p: Place) -> anyhow::Result<()> {
    let made = p.config_map("a").await?;
    let maps: Api<PartialObjectMeta<ConfigMap>> = p.api();
    let mut events = watcher(maps, label(Config::default().streaming_lists())).applied_objects().boxed();
    let seen = events.try_next().await?.context("the watcher ended")?;
    ensure!(seen.uid() == made.uid() && seen.labels() == made.labels(), "{seen:?}");
    Ok(())
}

async fn reflected(p: Place, config: Config) -> anyhow::Result<()> {
    for i in 0..10 {
        p.config_map(&format!("m{i}")).await?;
    }
    let maps: Api<ConfigMap> = p.api();
    settle(&maps).await?;
    let (reader, writer) = reflector::store();
    let events = watcher(maps.clone(), label(config)).default_backoff().reflect(writer).touched_objects();
    let follow = tokio::spawn(events.for_each(|_| async {}));
    reader.wait_until_ready().await?;
    ensure!(reader.len() == 10, "{} objects", reader.len());
    change(&maps, "m3").await?;
    maps.delete("m4", &DeleteParams::default()).await?;
    p.config_map("m10").await?;
    // The store tells nobody when it changes: it is asked until it shows the state.
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        let changed = reader.find(|m| m.name_any() == "m3").is_some_and(|m| m.data.is_some());
        let added = reader.find(|m| m.name_any() == "m10").is_some();
        let gone = reader.find(|m| m.name_any() == "m4").is_none();
        if changed && added && gone && reader.len() == 10 {
            break;
        }
    }
    follow.abort();
    Ok(())
}
