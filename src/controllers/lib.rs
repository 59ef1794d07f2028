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
use copepod_client::{Client, Shutdown, leader};

pub use config::{Config, LeaderElection};
use context::{Context, Controller};

/// Every controller, by upstream's name for it.
pub const CONTROLLERS: &[Controller] = &[
    Controller { name: "namespace-controller", start: namespace::start },
    Controller { name: "serviceaccount-controller", start: serviceaccount::start },
    Controller { name: "root-ca-certificate-publisher-controller", start: root_ca::start },
    Controller { name: "clusterrole-aggregation-controller", start: cluster_role_aggregation::start },
    Controller { name: "garbage-collector-controller", start: garbage_collector::start },
    Controller { name: "pod-garbage-collector-controller", start: pod_gc::start },
    Controller { name: "replicaset-controller", start: replicaset::start },
    Controller { name: "replicationcontroller-controller", start: replicaset::start_replication },
    Controller { name: "deployment-controller", start: deployment::start },
    Controller { name: "statefulset-controller", start: statefulset::start },
    Controller { name: "daemonset-controller", start: daemonset::start },
    Controller { name: "job-controller", start: job::start },
    Controller { name: "cronjob-controller", start: cron_job::start },
    Controller { name: "ttl-after-finished-controller", start: ttl_after_finished::start },
    Controller { name: "endpointslice-controller", start: endpoint_slice::start },
    Controller { name: "endpoints-controller", start: endpoints::start },
    Controller { name: "node-lifecycle-controller", start: node_lifecycle::start },
    Controller { name: "taint-eviction-controller", start: node_lifecycle::start_eviction },
    Controller { name: "disruption-controller", start: disruption::start },
    Controller { name: "resourcequota-controller", start: resource_quota::start },
];

/// Runs the controllers until `shutdown`; with leader election only while it leads, and returns an error when it lost
/// the lead.
pub async fn run(client: Client, config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let Some(election) = config.leader_election.clone() else {
        run_controllers(client, config, shutdown).await;
        return Ok(());
    };
    let lease = leader::Config {
        lease_duration: election.lease_duration,
        renew_deadline: election.renew_deadline,
        retry_period: election.retry_period,
        ..leader::Config::new(&election.namespace, &election.name, leader::identity())
    };
    let outcome =
        leader::run(client.clone(), lease, shutdown, |token| run_controllers(client, config, token)).await;
    match outcome {
        leader::Outcome::Ended => Ok(()),
        leader::Outcome::Lost => anyhow::bail!("leaderelection lost"),
    }
}

async fn run_controllers(client: Client, config: Config, shutdown: Shutdown) {
    let context = Context {
        factory: Factory::new(client.clone()),
        recorder: Recorder::new(client.clone(), "controllermanager", "", shutdown.clone()),
        client,
        config: Arc::new(config),
        shutdown: shutdown.clone(),
    };
    let enabled = CONTROLLERS.iter().filter(|controller| context.config.is_enabled(controller.name));
    let works: Vec<_> = enabled.map(|controller| (controller.name, (controller.start)(&context))).collect();
    context.factory.start(&shutdown);
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = context.factory.wait_synced() => {}
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
}
