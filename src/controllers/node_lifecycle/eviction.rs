//! Pods leave nodes with `NoExecute` taints when their tolerations end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_client::events::{EventType, Recorder};
use copepod_client::informer::Informer;
use copepod_client::object::{Key, MetaExt, reference};
use copepod_client::queue::{Next, WorkQueue, run_workers};
use copepod_client::{Client, rest};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use super::monitor::BY_NODE;
use super::plan;
use crate::common::conditions::{self, second};
use crate::common::resources::PODS;
use crate::common::writes;
use crate::context::{Context, Work};
use crate::kinds::{Node, Pod};

const NAME: &str = "taint-eviction-controller";

struct Shell {
    client: Client,
    recorder: Recorder,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    /// Since when each pod is on a tainted node.
    since: Mutex<HashMap<Key, (String, Instant)>>,
}

/// Starts the controller.
pub fn start(context: &Context) -> Work {
    let shell = Arc::new(Shell {
        client: context.client.clone(),
        recorder: context.recorder.with_component(NAME),
        pods: context.informer(),
        nodes: context.informer(),
        since: Mutex::default(),
    });
    shell.pods.add_index(BY_NODE, |pod| vec![pod.spec.node_name.clone()]);
    let queue = WorkQueue::<Key>::default();
    let (watching, add) = (shell.clone(), queue.clone());
    shell.nodes.on_change(move |change| {
        for pod in watching.pods.by_index(BY_NODE, change.object().metadata.name()) {
            add.add(pod.metadata.key());
        }
    });
    let add = queue.clone();
    shell.pods.on_change(move |change| add.add(change.object().metadata.key()));
    Box::pin(run_workers(NAME, queue, 8, context.shutdown.clone(), move |key| {
        let shell = shell.clone();
        async move { shell.sync(&key).await }
    }))
}

impl Shell {
    async fn sync(&self, key: &Key) -> Result<Next, kube::Error> {
        let pod = self.pods.get(key).filter(|pod| !pod.metadata.deleting());
        let node = pod.as_ref().and_then(|pod| self.nodes.get(&pod.spec.node_name));
        let stay = node
            .zip(pod.clone())
            .and_then(|(node, pod)| plan::may_stay(&node.spec.taints, &pod.spec.tolerations));
        let (Some(pod), Some(stay)) = (pod, stay) else {
            if self.since.lock().remove(key).is_some()
                && let Some(pod) = self.pods.get(key).filter(|pod| !pod.metadata.deleting())
            {
                let message = format!("Cancelling deletion of Pod {key}");
                self.recorder.event(&reference(&*pod), EventType::Normal, "TaintManagerEviction", message);
            }
            return Ok(Next::Done);
        };
        let left = stay.saturating_sub(self.waited(key, &pod));
        if !left.is_zero() {
            return Ok(Next::After(left));
        }
        self.evict(&pod).await?;
        self.since.lock().remove(key);
        Ok(Next::Done)
    }

    fn waited(&self, key: &Key, pod: &Pod) -> Duration {
        let (uid, now) = (MetaExt::uid(&pod.metadata).to_owned(), Instant::now());
        let mut since = self.since.lock();
        let known = since.entry(key.clone()).or_insert_with(|| (uid.clone(), now));
        if known.0 != uid {
            *known = (uid, now);
        }
        now.duration_since(known.1)
    }

    /// upstream: taint_eviction.go addConditionAndDeletePod
    async fn evict(&self, pod: &Pod) -> Result<(), kube::Error> {
        let (namespace, name) = (MetaExt::namespace(&pod.metadata), pod.metadata.name());
        let message = format!("Marking for deletion Pod {namespace}/{name}");
        self.recorder.event(&reference(pod), EventType::Normal, "TaintManagerEviction", message);
        let now = second(Timestamp::now()).0;
        let text = "Taint manager: deleting due to NoExecute taint";
        let condition = conditions::new("DisruptionTarget", "True", "DeletionByTaintManager", text, now);
        writes::pod_status(&self.client, pod, None, Some(&condition)).await?;
        let options = json!({"preconditions": {"uid": pod.metadata.uid}});
        writes::unless_gone(rest::delete(&self.client, &PODS, namespace, name, &options).await)
    }
}
