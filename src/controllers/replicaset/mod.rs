//! ReplicaSets and ReplicationControllers: keep so many pods of a template.
//!
//! Owns: pods whose controller is one of them. Invariants: never acts on a set while earlier creations or deletions have
//! not been seen; creates in growing batches; deletes the least useful pods first.
//!
//! upstream: pkg/controller/replicaset, pkg/controller/replication

mod plan;
mod shell;

use std::collections::BTreeMap;

use copepod_client::rest::ResourceType;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::common::pod_control::PodOwner;
use crate::common::resources::{REPLICA_SETS, REPLICATION_CONTROLLERS};
use crate::context::{Context, Work};
use crate::kinds::{ReplicaSet, ReplicaSetStatus, ReplicationController, Template};

/// What ReplicaSets and ReplicationControllers have in common.
pub trait Replicated: PodOwner {
    /// Whether its status says how many pods are terminating.
    const COUNTS_TERMINATING: bool;
    /// Pods wanted.
    fn replicas(&self) -> i32;
    /// When a ready pod counts as available.
    fn min_ready_seconds(&self) -> i32;
    /// What pods look like.
    fn template(&self) -> &Template;
    /// The status as the API has it.
    fn status(&self) -> &ReplicaSetStatus;
}

impl PodOwner for ReplicaSet {
    const RESOURCE: ResourceType = REPLICA_SETS;
    const KIND: &'static str = "ReplicaSet";
    fn selector(&self) -> LabelSelector {
        self.spec.selector.clone()
    }
}

impl PodOwner for ReplicationController {
    const RESOURCE: ResourceType = REPLICATION_CONTROLLERS;
    const KIND: &'static str = "ReplicationController";
    fn selector(&self) -> LabelSelector {
        let labels: BTreeMap<String, String> = self.spec.selector.clone();
        LabelSelector { match_labels: Some(labels), match_expressions: None }
    }
}

impl Replicated for ReplicaSet {
    const COUNTS_TERMINATING: bool = true;
    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }
    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds
    }
    fn template(&self) -> &Template {
        &self.spec.template
    }
    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }
}

impl Replicated for ReplicationController {
    const COUNTS_TERMINATING: bool = false;
    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }
    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds
    }
    fn template(&self) -> &Template {
        &self.spec.template
    }
    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }
}

/// Starts the controller of ReplicaSets.
pub fn start(context: &Context) -> Work {
    shell::start::<ReplicaSet>(context, "replicaset-controller", context.config.concurrent_replicaset_syncs)
}

/// Starts the controller of ReplicationControllers.
pub fn start_replication(context: &Context) -> Work {
    shell::start::<ReplicationController>(
        context,
        "replication-controller",
        context.config.concurrent_rc_syncs,
    )
}
