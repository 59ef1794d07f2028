//! A controller that makes the world as its objects say, until nothing is left to do.

use crate::{Case, Place, case};
use anyhow::ensure;
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config as ControllerConfig};
use kube::runtime::watcher::Config;
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    case("controller by list and watch", |p| converges(p, Config::default()).boxed()),
    case("controller by streaming list", |p| converges(p, Config::default().streaming_lists()).boxed()),
];

const OWNERS: usize = 10;

struct Context {
    place: Place,
    runs: AtomicUsize,
}

/// Each config map has a secret of its name that it owns, and says so in an annotation.
async fn reconcile(map: Arc<ConfigMap>, context: Arc<Context>) -> Result<Action, kube::Error> {
    context.runs.fetch_add(1, Ordering::Relaxed);
    let name = map.name_any();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"of": name},
        "metadata": {"name": name, "labels": {"app": "conformance"}, "ownerReferences": [map.controller_owner_ref(&())]}});
    context
        .place
        .api::<Secret>()
        .patch(&name, &PatchParams::apply("controller").force(), &Patch::Apply(secret))
        .await?;
    let done = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "annotations": {"done": "yes"}}});
    context
        .place
        .api::<ConfigMap>()
        .patch(&name, &PatchParams::apply("controller"), &Patch::Apply(done))
        .await?;
    Ok(Action::await_change())
}

async fn converges(p: Place, config: Config) -> anyhow::Result<()> {
    let config = config.labels("app=conformance");
    for i in 0..OWNERS {
        p.config_map(&format!("m{i}")).await?;
    }
    let context = Arc::new(Context { place: p.clone(), runs: AtomicUsize::new(0) });
    let controller = Controller::new(p.api::<ConfigMap>(), config.clone())
        .owns(p.api::<Secret>(), config)
        .with_config(ControllerConfig::default().concurrency(4))
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(100)), context.clone());
    let running = tokio::spawn(controller.for_each(|_| async {}));
    let outcome = observe(&p, &context).await;
    running.abort();
    outcome
}

async fn observe(p: &Place, context: &Context) -> anyhow::Result<()> {
    let (maps, secrets): (Api<ConfigMap>, Api<Secret>) = (p.api(), p.api());
    let params = ListParams::default().labels("app=conformance");
    until("all is done", || all_done(&maps, &secrets, &params)).await?;
    // Nothing is left to do: writes without a change make no events, so the controller comes to rest.
    let mut runs = context.runs.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = context.runs.load(Ordering::Relaxed);
        if now == runs {
            break;
        }
        runs = now;
    }
    ensure!(runs <= OWNERS * 10, "{runs} runs for {OWNERS} objects");
    // What is lost is made again, because its owner is told.
    let lost = secrets.get("m3").await?.uid();
    secrets.delete("m3", &DeleteParams::default()).await?;
    until("what was lost is there again", || made_again(&secrets, &lost)).await?;
    let data = secrets.get("m3").await?.data.unwrap_or_default();
    ensure!(data.get("of").is_some_and(|v| v.0 == b"m3"), "{data:?}");
    Ok(())
}

async fn all_done(maps: &Api<ConfigMap>, secrets: &Api<Secret>, params: &ListParams) -> anyhow::Result<bool> {
    let done = |m: &&ConfigMap| m.annotations().get("done").is_some_and(|v| v == "yes");
    let maps = maps.list(params).await?;
    Ok(maps.iter().filter(done).count() == OWNERS && secrets.list(params).await?.items.len() == OWNERS)
}

async fn made_again(secrets: &Api<Secret>, lost: &Option<String>) -> anyhow::Result<bool> {
    Ok(secrets.get_opt("m3").await?.is_some_and(|s| s.uid() != *lost))
}

/// Asks again for up to 20 seconds: what the controller does is told to nobody else.
async fn until<F>(what: &str, holds: impl Fn() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<bool>>,
{
    for _ in 0..200 {
        if holds().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("not within 20 seconds: {what}")
}
