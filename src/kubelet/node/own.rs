//! The node's object as the API shows it: labels and taints that others gave it, for the admission of pods.
//!
//! Owns: a watch on this one object. Does not: write it ([`super::run`] does). Without an API server nothing is known.

use std::sync::Arc;

use copepod_client::informer::Informer;
use copepod_client::rest;
use copepod_serve::Shutdown;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher;
use kube::{Api, Client};

use super::NODES;

/// The node of one name.
pub struct OwnNode {
    client: Client,
    name: String,
    informer: Arc<Informer<Node>>,
}

impl OwnNode {
    /// Begins to watch, until the shutdown.
    pub fn watch(client: Client, name: &str, shutdown: Shutdown) -> Self {
        let informer = Arc::new(Informer::default());
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        // The status is this agent's own word, and the larger part.
        let slim = |node: &mut Node| node.status = None;
        tokio::spawn(informer.clone().run(Api::all(client.clone()), config, shutdown, slim));
        Self { client, name: name.into(), informer }
    }

    /// The newest state that has arrived.
    pub fn get(&self) -> Option<Arc<Node>> {
        self.informer.get(&self.name)
    }

    /// The newest state of all, asked for now.
    pub async fn read(&self) -> Result<Node, kube::Error> {
        rest::get(&self.client, &NODES, "", &self.name).await
    }
}
