//! The scheduler: gives every waiting pod a node. A client of the API like any other.
//!
//! | module | what | pure |
//! |---|---|---|
//! | [`model`] | pods and nodes, reduced to what scheduling reads | yes |
//! | [`cluster`] | all of them, with assumed and nominated pods | yes |
//! | [`queue`] | pods that wait: ready, backing off, waiting for a change | yes |
//! | [`filter`], [`score`], [`post_filter`] | one file a plugin | yes |
//! | [`cycle`] | one decision | yes |
//! | [`diagnosis`] | the text of "0/3 nodes are available" | yes |
//! | [`command`] | the command line | no |
//! | [`shell`] | watches, bindings, conditions, events: everything that waits | no |
//!
//! Invariants:
//! * one task owns cluster and queue; a decision is made on one consistent state and takes no lock;
//! * a pod is counted on its node from the decision on, not from the API's answer;
//! * the texts of events and conditions are upstream's, because people and tools read them.
//!
//! Not here: volumes, claims of devices, extenders, several profiles. Pods that name another scheduler are left alone.
//!
//! When it breaks: without the API nothing is decided; a failed binding is taken back and the pod tried again.

pub mod cluster;
pub mod command;
pub mod config;
pub mod cycle;
pub mod diagnosis;
pub mod filter;
mod metrics;
pub mod model;
pub mod plugin;
pub mod post_filter;
pub mod queue;
pub mod score;
pub mod shell;
#[cfg(test)]
mod tests;

pub use config::Config;

use copepod_client::events::SchedulingRecorder;
use copepod_client::{Client, Shutdown};

/// Schedules until `shutdown`.
pub async fn run(client: Client, config: Config, shutdown: Shutdown) {
    let recorder = SchedulingRecorder::new(client.clone(), config::SCHEDULER_NAME, shutdown.clone());
    shell::run(client, config, recorder, shutdown).await;
}
