//! The node's object as the API shows it: labels and taints that others gave it, for the admission of pods; and whether
//! somebody took this agent for dead.
//!
//! Owns: a watch on this one object. Does not: write it ([`super::run`] does). Without an API server nothing is known.

use std::sync::Arc;

use copepod_client::informer::{Change, Informer};
use copepod_client::rest;
use copepod_serve::Shutdown;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::Notify;

use super::NODES;

/// The node of one name.
pub struct OwnNode {
    client: Client,
    name: String,
    informer: Arc<Informer<Node>>,
    given_up: Arc<Notify>,
}

impl OwnNode {
    /// Begins to watch, until the shutdown.
    pub fn watch(client: Client, name: &str, shutdown: Shutdown) -> Self {
        let informer = Arc::new(Informer::default());
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let given_up = Arc::new(Notify::new());
        let notify = given_up.clone();
        informer.on_change(move |change| {
            if !matches!(change, Change::Deleted(_)) && is_given_up(change.object()) {
                notify.notify_one();
            }
        });
        // The status is this agent's own word, and the larger part; of it only what others change is of use.
        let slim = |node: &mut Node| {
            let conditions = node.status.take().and_then(|status| status.conditions);
            node.status = Some(NodeStatus { conditions, ..NodeStatus::default() });
        };
        tokio::spawn(informer.clone().run(Api::all(client.clone()), config, shutdown, slim));
        Self { client, name: name.into(), informer, given_up }
    }

    /// The newest state that has arrived.
    pub fn get(&self) -> Option<Arc<Node>> {
        self.informer.get(&self.name)
    }

    /// Until the node controller has written that nobody hears of this node: the agent was slow, not dead, and says so.
    pub async fn given_up(&self) {
        self.given_up.notified().await;
    }

    /// The newest state of all, asked for now.
    pub async fn read(&self) -> Result<Node, kube::Error> {
        rest::get(&self.client, &NODES, "", &self.name).await
    }
}

/// The word for it is Unknown, which this agent never says of itself.
// upstream: nodelifecycle/node_lifecycle_controller.go tryUpdateNodeHealth
fn is_given_up(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "Unknown")
}
