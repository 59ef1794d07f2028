//! The controller manager: loops that bring the cluster to where its objects say it should be.
//!
//! Each controller is a folder with a pure `plan` (what is observed in, writes out) and a thin shell that watches and
//! acts. All of them share one set of informers: a kind is watched once, whoever needs it.
//!
//! | file | what |
//! |---|---|
//! | [`CONTROLLERS`] | THE list: what runs, under which name |
//! | [`context`] | what a controller gets, and how it registers |
//! | [`kinds`] | the partial types that are watched |
//! | [`common`] | what workload controllers share: claims, expectations, slow start, templates |
//!
//! Invariants:
//! * handlers only enqueue; a turn reads informers, plans, writes;
//! * pod templates travel as raw JSON; an object is never read into a type and sent back;
//! * turns are bounded in number (`--concurrent-*-syncs`), failing keys back off.
//!
//! When it breaks: without the API nothing happens; after a restart every turn begins from what is observed.

pub mod cluster_role_aggregation;
pub mod command;
pub mod common;
pub mod config;
pub mod context;
pub mod cron_job;
pub mod daemonset;
pub mod deployment;
pub mod discovery;
pub mod disruption;
pub mod endpoint_slice;
pub mod endpoint_slice_mirroring;
pub mod endpoints;
pub mod garbage_collector;
pub mod job;
pub mod kinds;
pub mod namespace;
pub mod node_lifecycle;
pub mod pod_gc;
pub mod replicaset;
pub mod resource_quota;
pub mod root_ca;
pub mod serviceaccount;
pub mod statefulset;
pub mod ttl_after_finished;

use std::sync::Arc;

use copepod_client::events::Recorder;
use copepod_client::informer::Factory;
use copepod_client::{Client, Shutdown};

pub use config::Config;
use context::{Context, Controller, Identities};

/// Every controller: upstream's name for it, its service account, how it starts.
pub const CONTROLLERS: &[Controller] = &[
    Controller::new("namespace-controller", "namespace-controller", namespace::start),
    Controller::new("serviceaccount-controller", "service-account-controller", serviceaccount::start),
    Controller::new("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", root_ca::start),
    Controller::new(
        "clusterrole-aggregation-controller",
        "clusterrole-aggregation-controller",
        cluster_role_aggregation::start,
    ),
    Controller::new("garbage-collector-controller", "generic-garbage-collector", garbage_collector::start),
    Controller::new("pod-garbage-collector-controller", "pod-garbage-collector", pod_gc::start),
    Controller::new("replicaset-controller", "replicaset-controller", replicaset::start),
    Controller::new(
        "replicationcontroller-controller",
        "replication-controller",
        replicaset::start_replication,
    ),
    Controller::new("deployment-controller", "deployment-controller", deployment::start),
    Controller::new("statefulset-controller", "statefulset-controller", statefulset::start),
    Controller::new("daemonset-controller", "daemon-set-controller", daemonset::start),
    Controller::new("job-controller", "job-controller", job::start),
    Controller::new("cronjob-controller", "cronjob-controller", cron_job::start),
    Controller::new(
        "ttl-after-finished-controller",
        "ttl-after-finished-controller",
        ttl_after_finished::start,
    ),
    Controller::new("endpointslice-controller", "endpointslice-controller", endpoint_slice::start),
    Controller::new(
        "endpointslice-mirroring-controller",
        "endpointslicemirroring-controller",
        endpoint_slice_mirroring::start,
    ),
    Controller::new("endpoints-controller", "endpoint-controller", endpoints::start),
    Controller::new("node-lifecycle-controller", "node-controller", node_lifecycle::start),
    Controller::new("taint-eviction-controller", "node-controller", node_lifecycle::start_eviction),
    Controller::new("disruption-controller", "disruption-controller", disruption::start),
    Controller::new("resourcequota-controller", "resourcequota-controller", resource_quota::start),
];

/// Runs the controllers until `shutdown`. `root` reads for all of them (informers); each writes as `identities` say.
pub async fn run(
    root: Client,
    identities: Identities,
    config: Config,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let (factory, config) = (Factory::new(root), Arc::new(config));
    let enabled: Vec<_> =
        CONTROLLERS.iter().filter(|controller| config.is_enabled(controller.name)).collect();
    let clients =
        futures::future::try_join_all(enabled.iter().map(|controller| identities.client(controller.account)));
    let gone = tokio::sync::broadcast::Sender::new(context::GONE_MAX);
    let mut works = Vec::new();
    for (controller, client) in enabled.iter().zip(clients.await?) {
        let context = Context {
            recorder: Recorder::new(client.clone(), controller.name, "", shutdown.clone()),
            client,
            factory: factory.clone(),
            gone: gone.clone(),
            config: config.clone(),
            shutdown: shutdown.clone(),
        };
        works.push((controller.name, (controller.start)(&context)));
    }
    factory.start(&shutdown);
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = factory.wait_synced() => {}
    }
    let mut running = tokio::task::JoinSet::new();
    for (name, work) in works {
        tracing::info!(controller = name, "started");
        running.spawn(work);
    }
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller ended badly");
        }
    }
    Ok(())
}
