//! Drives a cluster as kube-rs programs do, with kube's own client as users get it, and says how many cases held.
//!
//! It needs a cluster: `KUBECONFIG` names an administrator's kubeconfig; without it nothing passes. It is a program and no
//! test of cargo, because a test that has no cluster could only pass without having tested, or fail on every machine. It
//! runs against Copepod and against upstream alike, and every expectation has to hold on both.
//!
//! `CONFORMANCE_NODE=1`: there is a node that runs pods of `CONFORMANCE_IMAGE` [localhost/copepod/web:1]; otherwise the
//! cases that need one are counted as skipped. Arguments choose cases by a part of their name.

mod control;
mod node;
mod objects;
mod watching;

use anyhow::Context as _;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a case may take; the slowest waits for pods.
const CASE_MAX: Duration = Duration::from_secs(90);
/// How many cases run beside each other: a pod each, at most.
const CASES_AT_ONCE: usize = 4;

/// Where a case works: a client and a namespace of its own.
#[derive(Clone)]
struct Place {
    client: Client,
    namespace: String,
}

impl Place {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn config_map(&self, name: &str) -> anyhow::Result<ConfigMap> {
        let map =
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": "conformance"}}}))?;
        self.api().create(&PostParams::default(), &map).await.context("create")
    }
}

type Run = fn(Place) -> BoxFuture<'static, anyhow::Result<()>>;

struct Case {
    name: &'static str,
    needs_node: bool,
    run: Run,
}

/// `case(name, function)`: a row of a module's table.
const fn case(name: &'static str, run: Run) -> Case {
    Case { name, needs_node: false, run }
}

const fn node_case(name: &'static str, run: Run) -> Case {
    Case { name, needs_node: true, run }
}

enum Outcome {
    Passed,
    Skipped,
    Failed(anyhow::Error),
}

async fn play(client: Client, case: &'static Case, node: bool) -> (&'static Case, Outcome, Duration) {
    let start = Instant::now();
    if case.needs_node && !node {
        return (case, Outcome::Skipped, start.elapsed());
    }
    let outcome = match tokio::time::timeout(CASE_MAX, in_namespace(client, case)).await {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(error)) => Outcome::Failed(error),
        Err(_) => Outcome::Failed(anyhow::anyhow!("not done within {CASE_MAX:?}")),
    };
    (case, outcome, start.elapsed())
}

/// The namespace goes at the end, whatever the case said.
async fn in_namespace(client: Client, case: &Case) -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let id = uuid::Uuid::new_v4().simple().to_string();
    let namespace = serde_json::from_value(json!({"metadata": {"name": format!("kube-rs-{}", &id[..8])}}))?;
    let namespace =
        namespaces.create(&PostParams::default(), &namespace).await.context("namespace")?.name_any();
    let place = Place { client, namespace: namespace.clone() };
    let outcome = std::panic::AssertUnwindSafe((case.run)(place)).catch_unwind().await;
    namespaces.delete(&namespace, &DeleteParams::default()).await.context("delete the namespace")?;
    outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked")))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<bool> {
    std::env::var("KUBECONFIG").context("KUBECONFIG must name the kubeconfig of the cluster under test")?;
    let node = std::env::var("CONFORMANCE_NODE").is_ok_and(|value| !value.is_empty());
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let client = Client::try_default().await.context("no client")?;
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let cases = [objects::CASES, watching::CASES, control::CASES, node::CASES];
    let chosen = cases.into_iter().flatten();
    let chosen = chosen
        .filter(|case| wanted.is_empty() || wanted.iter().any(|part| case.name.contains(part.as_str())));
    let mut outcomes = futures::stream::iter(chosen)
        .map(|case| play(client.clone(), case, node))
        .buffer_unordered(CASES_AT_ONCE);
    while let Some((case, outcome, took)) = outcomes.next().await {
        let word = match &outcome {
            Outcome::Passed => "ok",
            Outcome::Skipped => "skipped",
            Outcome::Failed(_) => "FAILED",
        };
        println!("{word:<8} {:<50} {:6.2} s", case.name, took.as_secs_f64());
        match outcome {
            Outcome::Passed => passed += 1,
            Outcome::Skipped => skipped += 1,
            Outcome::Failed(error) => {
                failed += 1;
                println!("         {error:#}");
            }
        }
    }
    println!("kube-rs: {passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0 && passed > 0)
}
