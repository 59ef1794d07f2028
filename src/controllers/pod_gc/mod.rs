//! Pods that nobody else ends: ended ones beyond a number, ones on nodes that are gone, ones that were never scheduled.
//!
//! upstream: pkg/controller/podgc/gc_controller.go

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_client::informer::Informer;
use copepod_client::object::MetaExt;
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::{Client, rest};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::Instant;

use crate::common::resources::{NODES, PODS};
use crate::common::{conditions, pods, writes};
use crate::context::{Context, Work};
use crate::kinds::{Node, Pod};

const NAME: &str = "pod-garbage-collector-controller";
/// A node must be missing for so long before its pods are ended. upstream: quarantineTime
const QUARANTINE: Duration = Duration::from_secs(40);
/// Changes are gathered for so long: one pass looks at all pods.
const GATHER: Duration = Duration::from_secs(1);

/// Taint of a node that will not come back: what its kubelet should end is ended without it.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// A pod to be deleted at once.
#[derive(Debug)]
struct Victim {
    pod: Arc<Pod>,
    /// It may seem to run: it is marked as failed first.
    fail: bool,
    /// Its node is gone: it is told so.
    orphaned: bool,
}

/// The pods to delete. `missing` are nodes that have been gone for long enough, `out` those that are out of service.
fn plan(pods: &[Arc<Pod>], missing: &[String], out: &[String], ended_max: usize) -> Vec<Victim> {
    let victim = |pod: &Arc<Pod>, orphaned: bool| Victim {
        pod: pod.clone(),
        fail: !pods::is_finished(pod),
        orphaned: orphaned && !pods::is_finished(pod),
    };
    let mut victims: Vec<Victim> = Vec::new();
    let mut ended: Vec<&Arc<Pod>> = Vec::new();
    for pod in pods {
        if missing.contains(&pod.spec.node_name) {
            victims.push(victim(pod, true));
        } else if pod.metadata.deleting()
            && (pod.spec.node_name.is_empty() || out.contains(&pod.spec.node_name))
        {
            victims.push(victim(pod, false));
        } else if pods::is_finished(pod) && !pod.metadata.deleting() {
            ended.push(pod);
        }
    }
    if ended_max > 0 && ended.len() > ended_max {
        let evicted = |pod: &Pod| pod.status.phase == "Failed" && pod.status.reason == "Evicted";
        let age = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        ended.sort_by_key(|pod| (!evicted(pod), age(pod), pod.metadata.name().to_owned()));
        victims.extend(ended[..ended.len() - ended_max].iter().map(|pod| victim(pod, false)));
    }
    victims
}

struct Shell {
    client: Client,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    ended_max: usize,
    /// Since when each node is missing.
    quarantined: Mutex<HashMap<String, Instant>>,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        pods: context.informer(),
        nodes: context.informer(),
        ended_max: context.config.terminated_pod_gc_threshold,
        quarantined: Mutex::default(),
    });
    let queue = WorkQueue::<()>::default();
    let add = queue.clone();
    shell.pods.on_change(move |change| {
        let pod = change.object();
        if pods::is_finished(pod) || pod.metadata.deleting() {
            add.add_after((), GATHER);
        }
    });
    let add = queue.clone();
    shell.nodes.on_change(move |change| {
        if matches!(change, copepod_client::informer::Change::Deleted(_)) {
            add.add_after((), GATHER);
        }
    });
    queue.add(());
    Box::pin(run_workers(NAME, queue, 1, context.shutdown.clone(), move |()| {
        let shell = shell.clone();
        async move { shell.pass().await }
    }))
}

impl Shell {
    async fn pass(&self) -> Result<Next, kube::Error> {
        let pods = self.pods.list();
        let missing = self.missing_nodes(&pods).await?;
        for victim in plan(&pods, &missing, &self.nodes_out_of_service(), self.ended_max) {
            self.end(&victim).await?;
        }
        let waiting = !self.quarantined.lock().is_empty();
        Ok(if waiting { Next::After(QUARANTINE) } else { Next::Done })
    }

    /// Nodes that pods name, that have been missing for long enough, and that the server does not know either.
    async fn missing_nodes(&self, pods: &[Arc<Pod>]) -> Result<Vec<String>, kube::Error> {
        let now = Instant::now();
        let due: Vec<String> = {
            let mut quarantined = self.quarantined.lock();
            let named = pods.iter().map(|pod| &pod.spec.node_name).filter(|name| !name.is_empty());
            let gone: Vec<&String> = named.filter(|name| self.nodes.get(name).is_none()).collect();
            quarantined.retain(|name, _| gone.contains(&name));
            for name in gone {
                quarantined.entry(name.clone()).or_insert(now);
            }
            let long = quarantined.iter().filter(|(_, since)| now.duration_since(**since) >= QUARANTINE);
            long.map(|(name, _)| name.clone()).collect()
        };
        let mut missing = Vec::new();
        for name in due {
            match rest::get::<IgnoredAny>(&self.client, &NODES, "", &name).await {
                Ok(_) => {}
                Err(error) if rest::is_not_found(&error) => missing.push(name),
                Err(error) => return Err(error),
            }
        }
        Ok(missing)
    }

    /// upstream: gc_controller.go gcTerminating
    fn nodes_out_of_service(&self) -> Vec<String> {
        let is_out = |node: &Node| {
            let ready = node.status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            !ready && node.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
        };
        let nodes = self.nodes.list();
        nodes.iter().filter(|node| is_out(node)).map(|node| node.metadata.name().to_owned()).collect()
    }

    async fn end(&self, victim: &Victim) -> Result<(), kube::Error> {
        let pod = &victim.pod;
        if victim.fail {
            let now = conditions::second(Timestamp::now()).0;
            let message = "PodGC: node no longer exists";
            let condition = conditions::new("DisruptionTarget", "True", "DeletionByPodGC", message, now);
            let condition = victim.orphaned.then_some(&condition);
            ignore_changed(writes::pod_status(&self.client, pod, Some("Failed"), condition).await)?;
        }
        let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": pod.metadata.uid}});
        let (namespace, name) = (MetaExt::namespace(&pod.metadata), pod.metadata.name());
        ignore_changed(rest::delete(&self.client, &PODS, namespace, name, &options).await)
    }
}

/// Another pod of that name is none of the victim's.
fn ignore_changed(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(error) if rest::is_conflict(&error) => Ok(()),
        other => writes::unless_gone(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_nobody_else_ends() {
        let pod = |name: &str, node: &str, phase: &str, deleting: bool| -> Arc<Pod> {
            let time = deleting.then_some("2026-01-01T00:00:00Z");
            let value = json!({"metadata": {"name": name, "namespace": "x", "uid": name, "deletionTimestamp": time,
                "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"nodeName": node}, "status": {"phase": phase}});
            Arc::new(serde_json::from_value(value).expect("a pod"))
        };
        let all = [
            pod("runs", "n", "Running", false),
            pod("lost", "gone", "Running", false),
            pod("lost-ended", "gone", "Succeeded", false),
            pod("never", "", "Pending", true),
            pod("waits", "", "Pending", false),
            pod("stuck", "out", "Running", true),
            pod("stays", "out", "Running", false),
            pod("e1", "n", "Succeeded", false),
            pod("e2", "n", "Failed", false),
            pod("e3", "n", "Succeeded", false),
        ];
        let shown = |ended_max| {
            let mut victims: Vec<String> = plan(&all, &["gone".to_owned()], &["out".to_owned()], ended_max)
                .into_iter()
                .map(|v| (v.pod.metadata.name().to_owned(), v.fail, v.orphaned))
                .map(|(name, fail, orphaned)| {
                    format!("{name}{}{}", if fail { "!" } else { "" }, if orphaned { "?" } else { "" })
                })
                .collect();
            victims.sort();
            victims.join(" ")
        };
        assert_eq!(shown(2), "e1 lost!? lost-ended never! stuck!");
        assert_eq!(shown(0), "lost!? lost-ended never! stuck!", "zero means no limit");
    }
}
