//! What all parts of the agent share. One value a process, made once at the start, handed about by `Arc`.

use std::collections::HashMap;
use std::sync::Arc;

use copepod_client::{Client, Shutdown, events::Recorder};
use copepod_cri::Runtime;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodStatus};
use parking_lot::{Mutex, RwLock};

use crate::{
    cgroup::Cgroups,
    config::KubeletConfig,
    container::{downward::NodeFacts, image::Puller, resources::LimitFacts},
    metrics::Metrics,
    node::{machine::Machine, own::OwnNode},
    objects::{ObjectCache, ServiceCache},
    pod::model::{find_container, names, uid},
    volume::token::TokenCache,
    wake::Wakers,
};

/// The shared parts.
pub struct Context {
    /// Settings.
    pub config: KubeletConfig,
    /// The API server.
    pub client: Client,
    /// The container runtime.
    pub runtime: Arc<dyn Runtime>,
    /// Its name, the scheme of container ids.
    pub runtime_name: String,
    /// Events.
    pub recorder: Recorder,
    /// ConfigMaps and Secrets that pods of this node use.
    pub objects: ObjectCache,
    /// Services, for environment variables.
    pub services: ServiceCache,
    /// Service-account tokens of pods.
    pub tokens: TokenCache,
    /// The node's cgroups.
    pub cgroups: Cgroups,
    /// Image pulls.
    pub puller: Puller,
    /// What the machine has.
    pub machine: Machine,
    /// The node's object.
    pub node: OwnNode,
    /// Addresses of the node.
    pub host_ips: Vec<String>,
    /// Counters.
    pub metrics: Metrics,
    /// The pods of this node, for those who ask from outside their workers.
    pub pods: PodTable,
    /// Knockers of the workers.
    pub wakers: Arc<Wakers>,
    /// Ends everything.
    pub shutdown: Shutdown,
}

impl Context {
    /// What a pod may know of the node.
    pub fn facts(&self, pod_ips: &[String]) -> NodeFacts {
        let (cpu, memory) = self.machine.allocatable(&self.config);
        NodeFacts {
            pod_ips: pod_ips.to_vec(),
            host_ips: self.host_ips.clone(),
            node_name: self.config.node_name.clone(),
            allocatable_cpu_milli: cpu,
            allocatable_memory: memory,
        }
    }
}

impl Context {
    /// What of the machine decides about containers' limits.
    pub fn limit_facts(&self) -> LimitFacts<'_> {
        LimitFacts {
            memory_capacity: self.machine.memory_bytes,
            cgroup_v2: self.cgroups.is_v2(),
            swap_controller: self.cgroups.swap_controller(),
            huge_page_sizes: self.cgroups.huge_page_sizes(),
        }
    }
}

/// Pods by uid, as the workers know them, and whose each container is.
#[derive(Default)]
pub struct PodTable {
    pods: RwLock<HashMap<String, Arc<Pod>>>,
    owners: Mutex<HashMap<String, String>>,
    statuses: RwLock<HashMap<String, PodStatus>>,
}

impl PodTable {
    /// Notes a pod's newest form.
    pub fn put(&self, pod: Arc<Pod>) {
        self.pods.write().insert(uid(&pod).to_owned(), pod);
    }

    /// Forgets a pod and its containers.
    pub fn remove(&self, uid: &str) {
        self.pods.write().remove(uid);
        self.statuses.write().remove(uid);
        self.owners.lock().retain(|_, owner| owner != uid);
    }

    /// Notes the status made last, which the API may not have yet.
    pub fn put_status(&self, uid: &str, status: PodStatus) {
        self.statuses.write().insert(uid.to_owned(), status);
    }

    /// The status made last.
    pub fn status(&self, uid: &str) -> Option<PodStatus> {
        self.statuses.read().get(uid).cloned()
    }

    /// All pods.
    pub fn all(&self) -> Vec<Arc<Pod>> {
        self.pods.read().values().cloned().collect()
    }

    /// A pod by namespace and name; of several (an old one still ending) the one that is not being deleted.
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let pods = self.pods.read();
        let mut found: Vec<&Arc<Pod>> = pods.values().filter(|pod| names(pod) == (namespace, name)).collect();
        found.sort_by_key(|pod| crate::pod::model::is_deleted(pod));
        found.first().map(|pod| Arc::clone(pod))
    }

    /// Notes whose a container or sandbox is.
    pub fn own(&self, id: &str, uid: &str) {
        self.owners.lock().insert(id.to_owned(), uid.to_owned());
    }

    /// Forgets the containers and sandboxes of a pod that are not there any more.
    pub fn disown(&self, uid: &str, there: impl Fn(&str) -> bool) {
        self.owners.lock().retain(|id, owner| owner != uid || there(id));
    }

    /// Whose a container or sandbox is.
    pub fn owner(&self, id: &str) -> Option<String> {
        self.owners.lock().get(id).cloned()
    }
}

/// What events about a pod point at.
pub fn pod_reference(pod: &Pod) -> ObjectReference {
    let (namespace, name) = names(pod);
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(namespace.into()),
        name: Some(name.into()),
        uid: Some(uid(pod).into()),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// What events about a container point at.
// upstream: kubelet/container/ref.go GenerateContainerRef
pub fn container_reference(pod: &Pod, container: &str) -> ObjectReference {
    let field_path = find_container(pod, container).map(|(kind, _)| kind.field_path(container));
    ObjectReference { field_path, ..pod_reference(pod) }
}
