//! Lives of pods, on the fake runtime and the fake API server: what the user sees, and what is left on the node.

use std::sync::Arc;
use std::time::Duration;

use copepod_client::{Shutdown, events::Recorder};
use copepod_cri::{CriError, Runtime, fake::FakeRuntime};
use serde_json::{Value, json};

use super::manager::Manager;
use crate::{
    cgroup::Cgroups,
    config::KubeletConfig,
    container::image::Puller,
    context::{Context, PodTable},
    fake_api::FakeApi,
    metrics::Metrics,
    node::{machine::Machine, own::OwnNode},
    objects::{ObjectCache, ServiceCache},
    volume::token::TokenCache,
    wake::Wakers,
};

/// A node: an agent that can be stopped and started on one runtime.
struct Node {
    api: Arc<FakeApi>,
    runtime: Arc<FakeRuntime>,
    directory: tempfile::TempDir,
    shutdown: Shutdown,
}

impl Node {
    fn start() -> Self {
        let runtime = FakeRuntime::default();
        runtime.add_image("image:1");
        runtime.add_pullable("far:1");
        let mut node = Node {
            api: Arc::default(),
            runtime: Arc::new(runtime),
            directory: tempfile::tempdir().expect("a directory"),
            shutdown: Shutdown::new(),
        };
        node.restart();
        node
    }

    /// Ends the agent and starts another one on the same runtime.
    fn restart(&mut self) {
        self.shutdown.cancel();
        self.shutdown = Shutdown::new();
        let client = self.api.client();
        let mut config = KubeletConfig::new(client.clone(), "node");
        config.root_dir = self.directory.path().join("kubelet");
        config.pod_logs_dir = self.directory.path().join("logs");
        config.resolv_conf = None;
        let wakers = Arc::new(Wakers::default());
        let context = Arc::new(Context {
            recorder: Recorder::for_test().0,
            objects: ObjectCache::new(client.clone(), wakers.clone()),
            services: ServiceCache::start(client.clone()),
            tokens: TokenCache::default(),
            cgroups: Cgroups::new("/", false).expect("cgroups"),
            puller: Puller::new(1),
            machine: Machine { cpus: 1, memory_bytes: 1 << 30, ..Machine::default() },
            node: OwnNode::watch(client.clone(), "node", self.shutdown.clone()),
            metrics: Metrics::default(),
            pods: PodTable::default(),
            runtime: self.runtime.clone(),
            runtime_name: "fake".into(),
            host_ips: vec!["192.0.2.1".into()],
            shutdown: self.shutdown.clone(),
            client,
            wakers,
            config,
        });
        tokio::spawn(Manager::new(context).run());
    }

    /// The changing calls of a kind.
    fn calls(&self, kind: &str) -> usize {
        self.runtime.calls().iter().filter(|call| call.starts_with(kind)).count()
    }

    async fn container(&self) -> String {
        self.runtime.list_containers(None).await.expect("a list").last().expect("a container").id.clone()
    }

    async fn is_empty(&self) -> bool {
        let containers = self.runtime.list_containers(None).await.expect("a list");
        let sandboxes = self.runtime.list_pod_sandboxes(None).await.expect("a list");
        containers.is_empty() && sandboxes.is_empty()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn pod(policy: &str, image: &str, command: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n", "uid": "uid-of-the-pod", "generation": 1},
        "spec": {
            "nodeName": "node", "restartPolicy": policy, "terminationGracePeriodSeconds": 2, "enableServiceLinks": true,
            "containers": [{"name": "c", "image": image, "command": command, "imagePullPolicy": "IfNotPresent"}]
        },
        "status": {"phase": "Pending"}
    })
}

fn phase(wanted: &str) -> impl Fn(Option<&Value>) -> bool {
    move |pod| pod.is_some_and(|pod| pod["status"]["phase"] == wanted)
}

fn container_state(path: &str) -> impl Fn(Option<&Value>) -> bool {
    move |pod| {
        pod.is_some_and(|pod| {
            !pod["status"]["containerStatuses"][0].pointer(path).unwrap_or(&Value::Null).is_null()
        })
    }
}

#[tokio::test]
async fn a_pod_runs_and_is_deleted_without_a_trace() {
    let node = Node::start();
    node.api.put(pod("Always", "image:1", &["sleep"]));
    node.api.until("n/p", "running", phase("Running")).await;
    let shown = node.api.pod("n/p").expect("the pod");
    assert_eq!(shown["status"]["containerStatuses"][0]["ready"], true);
    assert_eq!(shown["status"]["podIP"], "10.0.0.1");
    node.api.delete("n/p", 2);
    node.api.until("n/p", "gone", |pod| pod.is_none()).await;
    assert!(node.is_empty().await, "the runtime is empty when the object goes");
    assert_eq!(node.calls("run_pod_sandbox"), 1);
    let last = node.api.patches().pop().expect("a last status");
    assert_eq!(last["status"]["phase"], "Failed", "137 is no success: {last}");
}

/// At once after the first crash, then in back-off, with both ends shown.
#[tokio::test]
async fn crashes_are_restarted_with_back_off() {
    let node = Node::start();
    node.api.put(pod("Always", "image:1", &["exit", "3"]));
    let waits = |pod: Option<&Value>| {
        pod.is_some_and(|pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
    };
    node.api.until("n/p", "in back-off", waits).await;
    let status = node.api.pod("n/p").expect("the pod")["status"]["containerStatuses"][0].clone();
    assert_eq!(status["restartCount"], 1);
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(
        status["state"]["waiting"]["message"],
        "back-off 10s restarting failed container=c pod=p_n(uid-of-the-pod)"
    );
    assert_eq!(node.calls("start_container"), 2);
}

#[tokio::test]
async fn jobs_end() {
    let node = Node::start();
    node.api.put(pod("Never", "image:1", &["exit", "0"]));
    node.api.until("n/p", "succeeded", phase("Succeeded")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(node.calls("create_container"), 1);
    assert!(!node.is_empty().await, "the ended container stays for its log");
    node.api.delete("n/p", 0);
    node.api.until("n/p", "gone", |pod| pod.is_none()).await;
    assert!(node.is_empty().await);
}

/// Hooks of all run at once; then what is regular ends, then the sidecars, the last one first.
#[tokio::test]
async fn sidecars_end_last() {
    let node = Node::start();
    let mut wanted = pod("Always", "image:1", &["sleep"]);
    let sidecar = |name: &str| {
        json!({"name": name, "image": "image:1", "command": ["sleep"], "restartPolicy": "Always",
            "imagePullPolicy": "IfNotPresent", "lifecycle": {"preStop": {"exec": {"command": [name]}}}})
    };
    wanted["spec"]["initContainers"] = json!([sidecar("s1"), sidecar("s2")]);
    node.api.put(wanted);
    node.api.until("n/p", "running", phase("Running")).await;
    let names: std::collections::HashMap<String, String> = node
        .runtime
        .list_containers(None)
        .await
        .expect("a list")
        .into_iter()
        .map(|container| (container.id, container.metadata.unwrap_or_default().name))
        .collect();
    node.api.delete("n/p", 30);
    node.api.until("n/p", "gone", |pod| pod.is_none()).await;
    let calls = node.runtime.calls();
    let shown: Vec<String> = calls
        .iter()
        .map(|call| {
            let words: Vec<&str> = call.split(' ').collect();
            format!("{} {}", words[0], names.get(words[1]).map_or(words[1], String::as_str))
        })
        .collect();
    let at = |what: &str| shown.iter().position(|call| call == what).expect(what);
    assert!(at("stop_container c") < at("stop_container s2"), "{shown:?}");
    assert!(at("stop_container s2") < at("stop_container s1"), "{shown:?}");
    assert!(at("exec_sync s1") < at("stop_container s2"), "the hook waits for nobody: {shown:?}");
}

/// Another agent on the same runtime goes on with what runs.
#[tokio::test]
async fn a_restarted_agent_restarts_nothing() {
    let mut node = Node::start();
    node.api.put(pod("Always", "image:1", &["sleep"]));
    node.api.until("n/p", "running", phase("Running")).await;
    let before = node.container().await;
    node.restart();
    node.api.until("n/p", "still running", phase("Running")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(node.container().await, before);
    assert_eq!((node.calls("run_pod_sandbox"), node.calls("create_container")), (1, 1));
    // And acts for it.
    node.runtime.exit(&before, 1);
    node.api.until("n/p", "restarted", container_state("/lastState/terminated")).await;
    assert_eq!(node.calls("create_container"), 2);
}

/// A pod deleted while the agent was away is ended by the next one.
#[tokio::test]
async fn orphans_are_ended() {
    let mut node = Node::start();
    node.api.put(pod("Always", "image:1", &["sleep"]));
    node.api.until("n/p", "running", phase("Running")).await;
    node.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    node.api = Arc::default();
    node.restart();
    for _ in 0..500 {
        if node.is_empty().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the orphan is still there: {:?}", node.runtime.calls());
}

#[tokio::test]
async fn a_broken_sandbox_is_replaced() {
    let node = Node::start();
    node.api.put(pod("Always", "image:1", &["sleep"]));
    node.api.until("n/p", "running", phase("Running")).await;
    let sandbox = node.runtime.list_pod_sandboxes(None).await.expect("a list")[0].id.clone();
    node.runtime.break_sandbox(&sandbox);
    let moved = |pod: Option<&Value>| {
        pod.is_some_and(|pod| pod["status"]["podIP"] != "10.0.0.1" && pod["status"]["phase"] == "Running")
    };
    node.api.until("n/p", "in another sandbox", moved).await;
    let ready = node.runtime.list_pod_sandboxes(None).await.expect("a list");
    assert_eq!(ready.iter().filter(|sandbox| sandbox.state == 0).count(), 1, "one sandbox is up");
}

#[tokio::test]
async fn images_are_pulled_or_missed() {
    let node = Node::start();
    node.api.put(pod("Always", "far:1", &["sleep"]));
    node.api.until("n/p", "running", phase("Running")).await;
    assert_eq!(node.calls("pull_image far:1"), 1);

    let node = Node::start();
    node.api.put(pod("Always", "none:1", &["sleep"]));
    let missed = |pod: Option<&Value>| {
        pod.is_some_and(|pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImagePull"
        })
    };
    node.api.until("n/p", "missed", missed).await;
    assert_eq!(node.api.pod("n/p").expect("the pod")["status"]["phase"], "Pending");
}

/// The runtime's refusal reaches the user, and the pod is tried again later, not at once.
#[tokio::test]
async fn a_sandbox_that_cannot_be_made_is_not_hammered() {
    let node = Node::start();
    let refusal = CriError::Failed { code: "Unknown", message: "no network".into() };
    node.runtime.fail("run_pod_sandbox", Some(refusal));
    node.api.put(pod("Always", "image:1", &["sleep"]));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(node.calls("run_pod_sandbox"), 1);
    let shown = node.api.pod("n/p").expect("the pod");
    assert_eq!(shown["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
}
