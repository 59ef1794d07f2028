//! The node: registration, lease, status.
//!
//! The lease is renewed every ten seconds and is what says that the node lives; the status is written when it changes, every
//! five minutes, and at once when the node controller has given the node up.
//!
//! upstream: kubelet/kubelet_node_status.go, component-helpers/apimachinery/lease/controller.go

pub mod machine;
pub mod own;
pub mod pressure;
pub mod status;

use std::sync::Arc;
use std::time::{Duration, Instant};

use copepod_client::{events::EventType, rest};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use serde_json::json;

use crate::context::Context;
use status::Seen;

const NODES: rest::ResourceType = rest::ResourceType::cluster("", "v1", "nodes");
const LEASES: rest::ResourceType = rest::ResourceType::namespaced("coordination.k8s.io", "v1", "leases");
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// How long the lease is good. upstream: KubeletConfiguration nodeLeaseDurationSeconds
const LEASE_SECONDS: i32 = 40;
/// How often it is renewed: a quarter of that.
const LEASE_INTERVAL: Duration = Duration::from_secs(10);
/// How often the status is made: the runtime has no event for its own health.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// How often an unchanged status is written. upstream: KubeletConfiguration nodeStatusReportFrequency
const REPORT_INTERVAL: Duration = Duration::from_secs(300);
/// Images are listed on every so many looks.
const IMAGES_EVERY: u32 = 6;
/// First and longest wait when the API server does not answer.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(7);

/// Registers the node and keeps lease and status until the agent ends.
pub async fn run(context: Arc<Context>) {
    let reference = node_reference(&context);
    context.recorder.event(&reference, EventType::Normal, "Starting", "Starting kubelet.");
    let mut seen = Seen::look(&context, true, None).await;
    if context.config.register_node {
        register(&context, &seen).await;
    }
    futures::join!(keep_lease(&context), async {
        // A node that begins says how it is, as upstream's does.
        let now = seen.status(&context, None, Timestamp::now());
        tell_changes(&context, &[], now.conditions.as_deref().unwrap_or_default());
        let mut written = keep_written(&context, &seen, None).await;
        let mut at = Instant::now();
        let mut round = 0;
        loop {
            tokio::select! {
                () = context.shutdown.cancelled() => return,
                () = tokio::time::sleep(STATUS_INTERVAL) => {}
                // What was written last is not what the API shows.
                () = context.node.given_up() => written = None,
            }
            round += 1;
            let next = Seen::look(&context, round % IMAGES_EVERY == 0, Some(&seen)).await;
            if next != seen || at.elapsed() >= REPORT_INTERVAL || written.is_none() {
                seen = next;
                written = keep_written(&context, &seen, written).await;
                at = Instant::now();
            }
        }
    });
}

/// What events about the node point at: upstream uses the name as the uid.
fn node_reference(context: &Context) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".into()),
        name: Some(context.config.node_name.clone()),
        uid: Some(context.config.node_name.clone()),
        ..ObjectReference::default()
    }
}

/// Labels that every node carries, then the configured ones.
fn labels(context: &Context) -> std::collections::BTreeMap<String, String> {
    let arch = context.machine.architecture;
    let mut labels: std::collections::BTreeMap<String, String> = [
        ("kubernetes.io/hostname", context.config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    labels.extend(context.config.node_labels.clone());
    labels
}

/// Creates the node object, or gives an existing one our labels. Tries until it works.
async fn register(context: &Context, seen: &Seen) {
    let node = Node {
        metadata: ObjectMeta {
            name: Some(context.config.node_name.clone()),
            labels: Some(labels(context)),
            annotations: Some(
                [("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned())]
                    .into(),
            ),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!context.config.register_with_taints.is_empty())
                .then(|| context.config.register_with_taints.clone()),
            ..NodeSpec::default()
        }),
        status: Some(seen.status(context, None, Timestamp::now())),
    };
    let mut wait = RETRY_MIN;
    loop {
        let result = match rest::create::<Node>(&context.client, &NODES, "", &node).await {
            Err(error) if rest::is_already_exists(&error) => {
                let patch = json!({"metadata": {"labels": labels(context)}});
                let name = &context.config.node_name;
                rest::patch::<Node>(&context.client, &NODES, "", name, "", rest::PatchType::Strategic, &patch)
                    .await
            }
            other => other,
        };
        match result {
            Ok(_) => {
                tracing::info!(node = context.config.node_name, "registered");
                return;
            }
            Err(error) => tracing::warn!(error = rest::message(&error), "registering the node"),
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Writes the status; `None` if that failed and has to be done again.
async fn keep_written(context: &Context, seen: &Seen, before: Option<Node>) -> Option<Node> {
    let name = &context.config.node_name;
    let before = match before {
        Some(node) => node,
        None => match rest::get::<Node>(&context.client, &NODES, "", name).await {
            Ok(node) => node,
            Err(error) => {
                tracing::warn!(error = rest::message(&error), "reading the node");
                return None;
            }
        },
    };
    let old = before.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let status = seen.status(context, Some(old), Timestamp::now());
    tell_changes(context, old, status.conditions.as_deref().unwrap_or_default());
    let patch = json!({"status": status});
    match rest::patch::<Node>(&context.client, &NODES, "", name, "status", rest::PatchType::Strategic, &patch)
        .await
    {
        Ok(node) => Some(node),
        Err(error) => {
            tracing::warn!(error = rest::message(&error), "writing the node's status");
            None
        }
    }
}

/// Events for conditions that changed.
fn tell_changes(context: &Context, old: &[NodeCondition], new: &[NodeCondition]) {
    let reference = node_reference(context);
    for condition in new {
        let before = old.iter().find(|other| other.type_ == condition.type_);
        if before.is_some_and(|before| before.status == condition.status) {
            continue;
        }
        let good = condition.status == "True";
        let reason = match (condition.type_.as_str(), good) {
            ("Ready", true) => "NodeReady",
            ("Ready", false) => "NodeNotReady",
            ("MemoryPressure", false) => "NodeHasSufficientMemory",
            ("MemoryPressure", true) => "NodeHasInsufficientMemory",
            ("DiskPressure", false) => "NodeHasNoDiskPressure",
            ("DiskPressure", true) => "NodeHasDiskPressure",
            ("PIDPressure", false) => "NodeHasSufficientPID",
            ("PIDPressure", true) => "NodeHasInsufficientPID",
            _ => continue,
        };
        let message = format!("Node {} status is now: {reason}", context.config.node_name);
        context.recorder.event(&reference, EventType::Normal, reason, message);
    }
}

/// Creates the lease and renews it.
async fn keep_lease(context: &Context) {
    let mut lease: Option<Lease> = None;
    loop {
        let wait = match renew(context, lease.take()).await {
            Ok(renewed) => {
                lease = Some(renewed);
                LEASE_INTERVAL
            }
            Err(error) => {
                tracing::warn!(error = rest::message(&error), "renewing the node's lease");
                RETRY_MAX.min(LEASE_INTERVAL)
            }
        };
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn renew(context: &Context, known: Option<Lease>) -> Result<Lease, kube::Error> {
    let name = &context.config.node_name;
    let now = Some(MicroTime(Timestamp::now()));
    let known = match known {
        Some(lease) => Some(lease),
        None => match rest::get::<Lease>(&context.client, &LEASES, LEASE_NAMESPACE, name).await {
            Ok(lease) => Some(lease),
            Err(error) if rest::is_not_found(&error) => None,
            Err(error) => return Err(error),
        },
    };
    if let Some(mut lease) = known {
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(name.clone());
        spec.lease_duration_seconds = Some(LEASE_SECONDS);
        spec.renew_time = now;
        return rest::update(&context.client, &LEASES, LEASE_NAMESPACE, name, "", &lease).await;
    }
    // The node owns its lease, so that the lease goes with it.
    let node = rest::get::<Node>(&context.client, &NODES, "", name).await?;
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(LEASE_NAMESPACE.into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: name.clone(),
                uid: node.metadata.uid.unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: now,
            ..LeaseSpec::default()
        }),
    };
    rest::create(&context.client, &LEASES, LEASE_NAMESPACE, &lease).await
}
