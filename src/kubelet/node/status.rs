//! The node's status: what is looked at, and the API object made of it.
//!
//! upstream: kubelet/nodestatus/setters.go

use std::collections::BTreeMap;

use copepod_cri::api;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::pressure::{Pressures, Signal};
use crate::context::Context;

/// Version that is told to the API server: the API's that this agent keeps.
pub const KUBELET_VERSION: &str = "v1.36.3";

/// Images shown. upstream: KubeletConfiguration nodeStatusMaxImages
const IMAGES_MAX: usize = 50;
/// Names of one image. upstream: kubelet/nodestatus/setters.go MaxNamesPerImageInNodeStatus
const IMAGE_NAMES_MAX: usize = 5;

/// What this agent declares to be able to do beyond its version (NodeDeclaredFeatures).
const DECLARED_FEATURES: &[&str] = &["ExtendWebSocketsToKubelet"];

/// What was seen of the runtime and the machine at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Why the node is not ready; empty when it is.
    not_ready: String,
    runtime_version: String,
    handlers: Vec<(String, bool, bool)>,
    groups_policy: bool,
    images: Vec<ContainerImage>,
    pressures: Pressures,
}

impl Seen {
    /// Looks. Images are listed anew only if `images`, else taken from `before`.
    pub async fn look(context: &Context, images: bool, before: Option<&Seen>) -> Self {
        let version = context.runtime.version().await;
        let status = context.runtime.status().await;
        let mut problems = Vec::new();
        let runtime_version = match &version {
            Ok(version) => format!("{}://{}", version.runtime_name, version.runtime_version),
            Err(_) => before.map(|before| before.runtime_version.clone()).unwrap_or_default(),
        };
        let (mut handlers, mut groups_policy) = (Vec::new(), false);
        match status {
            Ok(status) => {
                let conditions = status.status.map(|status| status.conditions).unwrap_or_default();
                problems.extend(condition_problem(
                    &conditions,
                    "RuntimeReady",
                    "container runtime not ready",
                ));
                problems.extend(condition_problem(
                    &conditions,
                    "NetworkReady",
                    "container runtime network not ready",
                ));
                handlers = status
                    .runtime_handlers
                    .iter()
                    .map(|handler| {
                        let features = handler.features.unwrap_or_default();
                        (handler.name.clone(), features.recursive_read_only_mounts, features.user_namespaces)
                    })
                    .collect();
                groups_policy = status.features.is_some_and(|features| features.supplemental_groups_policy);
            }
            Err(error) => problems.push(format!("container runtime is down: {}", error.grpc_text())),
        }
        let not_ready = match problems.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let listed = match images {
            true => context.runtime.list_images().await.map(Some).unwrap_or_else(|error| {
                tracing::warn!(error = error.grpc_text(), "listing images");
                None
            }),
            false => None,
        };
        let images = match listed {
            Some(images) => image_list(images),
            None => before.map(|before| before.images.clone()).unwrap_or_default(),
        };
        let pressures = Pressures::look(context).await;
        Seen { not_ready, runtime_version, handlers, groups_policy, images, pressures }
    }

    /// The API's form. `old` conditions keep the times of their last change.
    pub fn status(&self, context: &Context, old: Option<&[NodeCondition]>, now: Timestamp) -> NodeStatus {
        let machine = &context.machine;
        let mut addresses: Vec<NodeAddress> = context
            .host_ips
            .iter()
            .map(|ip| NodeAddress { type_: "InternalIP".into(), address: ip.clone() })
            .collect();
        addresses.push(NodeAddress { type_: "Hostname".into(), address: context.config.node_name.clone() });
        let (capacity, allocatable) = resources(context);
        NodeStatus {
            addresses: Some(addresses),
            capacity: Some(capacity),
            allocatable: Some(allocatable),
            conditions: Some(self.conditions(old.unwrap_or_default(), now)),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(context.config.port) }),
            }),
            declared_features: Some(DECLARED_FEATURES.iter().map(|name| (*name).to_owned()).collect()),
            images: Some(self.images.clone()),
            node_info: Some(NodeSystemInfo {
                architecture: machine.architecture.into(),
                boot_id: machine.boot_id.clone(),
                container_runtime_version: self.runtime_version.clone(),
                kernel_version: machine.kernel.clone(),
                kube_proxy_version: String::new(),
                kubelet_version: KUBELET_VERSION.into(),
                machine_id: machine.machine_id.clone(),
                operating_system: "linux".into(),
                os_image: machine.os_image.clone(),
                system_uuid: machine.system_uuid.clone(),
                ..NodeSystemInfo::default()
            }),
            runtime_handlers: (!self.handlers.is_empty()).then(|| {
                let handler = |(name, recursive, users): &(String, bool, bool)| NodeRuntimeHandler {
                    name: Some(name.clone()),
                    features: Some(NodeRuntimeHandlerFeatures {
                        recursive_read_only_mounts: Some(*recursive),
                        user_namespaces: Some(*users),
                    }),
                };
                self.handlers.iter().map(handler).collect()
            }),
            features: Some(NodeFeatures { supplemental_groups_policy: Some(self.groups_policy) }),
            ..NodeStatus::default()
        }
    }

    fn conditions(&self, old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
        let ready = self.not_ready.is_empty();
        let pressure = |kind: &str,
                        under: bool,
                        good: (&'static str, &'static str),
                        bad: (&'static str, &'static str)| {
            let (reason, message) = if under { bad } else { good };
            (kind.to_owned(), under, reason.to_owned(), message.to_owned())
        };
        let verdicts = [
            pressure(
                "MemoryPressure",
                self.pressures.memory,
                ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ),
            pressure(
                "DiskPressure",
                self.pressures.disk,
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ),
            pressure(
                "PIDPressure",
                self.pressures.pids,
                ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ),
            (
                "Ready".to_owned(),
                ready,
                if ready { "KubeletReady" } else { "KubeletNotReady" }.to_owned(),
                if ready { "kubelet is posting ready status".to_owned() } else { self.not_ready.clone() },
            ),
        ];
        let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        verdicts
            .into_iter()
            .map(|(kind, status, reason, message)| {
                let status = if status { "True" } else { "False" };
                let before =
                    old.iter().find(|condition| condition.type_ == kind && condition.status == status);
                let changed = before.and_then(|condition| condition.last_transition_time.clone());
                NodeCondition {
                    type_: kind,
                    status: status.into(),
                    reason: Some(reason),
                    message: Some(message),
                    last_heartbeat_time: Some(now.clone()),
                    last_transition_time: changed.or_else(|| Some(now.clone())),
                }
            })
            .collect()
    }
}

fn condition_problem(conditions: &[api::RuntimeCondition], name: &str, what: &str) -> Option<String> {
    let condition = conditions.iter().find(|condition| condition.r#type == name)?;
    (!condition.status)
        .then(|| format!("{what}: {name}=false reason:{} message:{}", condition.reason, condition.message))
}

/// Largest first, digests before tags.
fn image_list(mut images: Vec<api::Image>) -> Vec<ContainerImage> {
    images.sort_by_key(|image| (std::cmp::Reverse(image.size), image.id.clone()));
    images
        .into_iter()
        .take(IMAGES_MAX)
        .map(|image| ContainerImage {
            names: Some(
                image.repo_digests.into_iter().chain(image.repo_tags).take(IMAGE_NAMES_MAX).collect(),
            ),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect()
}

/// Capacity, and what of it pods may use.
fn resources(context: &Context) -> (BTreeMap<String, Quantity>, BTreeMap<String, Quantity>) {
    let machine = &context.machine;
    let (cpu, memory) = machine.allocatable(&context.config);
    let kib = |bytes: i64| Quantity(format!("{}Ki", bytes / 1024));
    let milli = |milli: i64| {
        Quantity(if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") })
    };
    let pods = Quantity(context.config.max_pods.to_string());
    let reserved_disk = context.config.reserved.get("ephemeral-storage").copied().unwrap_or(0);
    let kept = context.config.eviction_hard.amount(Signal::NodeDisk, machine.disk_bytes);
    let disk = (machine.disk_bytes - kept - reserved_disk).max(0);
    let list = |cpu: Quantity, memory: Quantity, disk: Quantity| {
        let mut list = BTreeMap::from([
            ("cpu".to_owned(), cpu),
            ("memory".to_owned(), memory),
            ("ephemeral-storage".to_owned(), disk),
            ("pods".to_owned(), pods.clone()),
        ]);
        for (size, count) in huge_pages() {
            list.insert(format!("hugepages-{size}"), Quantity(count));
        }
        list
    };
    (
        list(milli(machine.cpus * 1000), kib(machine.memory_bytes), kib(machine.disk_bytes)),
        list(milli(cpu), kib(memory), Quantity(disk.to_string())),
    )
}

/// Huge pages by size, as the API writes sizes: `2Mi`, `1Gi`.
fn huge_pages() -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count: u64 =
                std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
            let size = if kib >= 1 << 20 { format!("{}Gi", kib >> 20) } else { format!("{}Mi", kib >> 10) };
            let bytes = count * kib * 1024;
            Some((size, if bytes == 0 { "0".into() } else { format!("{}Ki", bytes / 1024) }))
        })
        .collect()
}
