//! Resizing in place: limits of a running container that are not what its spec says now. Pure.
//!
//! upstream: kubelet/kuberuntime/kuberuntime_manager.go computePodResizeAction

use std::collections::HashMap;
use std::io;

use copepod_cri::api::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};

use super::model::{Observed, RunState, find_container};
use crate::container::resources::{LimitFacts, container_resources};

/// Limits in force, by container id.
pub type Applied = HashMap<String, LinuxContainerResources>;

/// What to do about one container.
#[derive(Debug, Clone, PartialEq)]
pub struct Resize {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its limits from now on.
    pub resources: LinuxContainerResources,
    /// The spec wants a restart for this change.
    pub restart: bool,
    /// Memory is limited more than before.
    pub lowers_memory: bool,
}

/// Refuses limits of memory below what is used already: the new hierarchy would end processes to get there. `used` tells
/// what the container and what the pod uses.
// upstream: kubelet/kuberuntime/kuberuntime_manager.go validateMemoryResizeAction
pub fn check_memory(
    resize: &Resize,
    pod_limit: Option<i64>,
    used: impl Fn(Option<&str>) -> io::Result<i64>,
) -> Result<(), String> {
    let mut errors = Vec::new();
    let container =
        (format!("container {:?}", resize.name), Some(&*resize.id), resize.resources.memory_limit_in_bytes);
    let pod = pod_limit.map(|limit| ("pod".to_owned(), None, limit));
    for (whose, id, limit) in pod.into_iter().chain([container]) {
        match used(id) {
            Ok(used) if used >= limit => errors.push(format!(
                "attempting to set {whose} memory limit ({limit}) below current usage ({used})"
            )),
            Ok(_) => {}
            Err(error) => errors.push(format!("missing {whose} memory usage: {error}")),
        }
    }
    let text = match errors.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    Err(format!("cannot decrease memory limits: {text}"))
}

/// Running containers whose limits are to change. Containers that are seen for the first time are noted in `applied`: an
/// agent before this one told in `old` which resources it had given them.
pub fn due(
    pod: &Pod,
    observed: &Observed,
    old: &PodStatus,
    applied: &mut Applied,
    facts: LimitFacts<'_>,
) -> Vec<Resize> {
    applied.retain(|id, _| observed.containers.iter().any(|instance| &instance.id == id));
    let mut all = Vec::new();
    for instance in observed.containers.iter().filter(|instance| instance.state == RunState::Running) {
        let Some((_, container)) = find_container(pod, &instance.name) else { continue };
        let resources = container_resources(pod, &container, facts);
        let before = match applied.get(&instance.id) {
            Some(before) => before.clone(),
            None if told(old, &instance.id, &container) => {
                applied.insert(instance.id.clone(), resources);
                continue;
            }
            None => LinuxContainerResources::default(),
        };
        if before != resources {
            let restart =
                needs_restart(&container, &before, &resources) && applied.contains_key(&instance.id);
            let (old, new) = (before.memory_limit_in_bytes, resources.memory_limit_in_bytes);
            let lowers_memory = new != 0 && (old == 0 || new < old);
            let (id, name) = (instance.id.clone(), instance.name.clone());
            all.push(Resize { id, name, resources, restart, lowers_memory });
        }
    }
    all
}

/// Whether the status says that this instance has the spec's resources, or says nothing about it yet.
fn told(old: &PodStatus, id: &str, container: &Container) -> bool {
    let statuses = old.container_statuses.iter().chain(&old.init_container_statuses).flatten();
    let known = statuses.into_iter().find(|status| {
        status
            .container_id
            .as_deref()
            .and_then(|text| text.split_once("://"))
            .is_some_and(|(_, known)| known == id)
    });
    let wanted = container.resources.clone().unwrap_or_default();
    known.is_none_or(|known| known.resources.as_ref().is_none_or(|resources| *resources == wanted))
}

fn needs_restart(
    container: &Container,
    before: &LinuxContainerResources,
    after: &LinuxContainerResources,
) -> bool {
    let policy = |name: &str| {
        let policies = container.resize_policy.iter().flatten();
        policies
            .into_iter()
            .any(|policy| policy.resource_name == name && policy.restart_policy == "RestartContainer")
    };
    let cpu = (before.cpu_shares, before.cpu_quota) != (after.cpu_shares, after.cpu_quota);
    let memory = before.memory_limit_in_bytes != after.memory_limit_in_bytes;
    (cpu && policy("cpu")) || (memory && policy("memory"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::model::ContainerObserved;

    fn pod(cpu: &str, policy: &str) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {}, "spec": {"containers": [{
            "name": "c", "resources": {"limits": {"cpu": cpu}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}]
        }]}}))
        .expect("a pod")
    }

    #[test]
    fn only_changes_are_due() {
        let facts = LimitFacts {
            memory_capacity: 1 << 30,
            cgroup_v2: false,
            swap_controller: false,
            huge_page_sizes: &[],
        };
        let observed = Observed {
            sandboxes: vec![],
            containers: vec![ContainerObserved {
                id: "i".into(),
                sandbox_id: "s".into(),
                name: "c".into(),
                state: RunState::Running,
                restart_count: 0,
                created_at: 0,
                started_at: None,
                finished_at: None,
                exit_code: 0,
                reason: String::new(),
                message: String::new(),
                image: String::new(),
                image_id: String::new(),
                hash: 0,
                user: None,
            }],
        };
        let mut applied = Applied::new();
        let new = PodStatus::default();
        assert!(due(&pod("1", "NotRequired"), &observed, &new, &mut applied, facts).is_empty(), "first seen");
        assert!(due(&pod("1", "NotRequired"), &observed, &new, &mut applied, facts).is_empty(), "unchanged");
        let changed = due(&pod("2", "NotRequired"), &observed, &new, &mut applied, facts);
        assert_eq!((changed.len(), changed[0].resources.cpu_quota, changed[0].restart), (1, 200_000, false));
        assert!(due(&pod("2", "RestartContainer"), &observed, &new, &mut applied, facts)[0].restart);

        // Seen first by this agent, resized while none was there.
        let old: PodStatus = serde_json::from_value(serde_json::json!({"containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "containerID": "x://i",
            "resources": {"limits": {"cpu": "1"}}
        }]}))
        .expect("a status");
        assert_eq!(due(&pod("2", "NotRequired"), &observed, &old, &mut Applied::new(), facts).len(), 1);
        assert!(due(&pod("1", "NotRequired"), &observed, &old, &mut Applied::new(), facts).is_empty());
    }

    #[test]
    fn memory_in_use_is_not_taken_away() {
        let resources = LinuxContainerResources { memory_limit_in_bytes: 100, ..Default::default() };
        let resize =
            Resize { id: "i".into(), name: "c".into(), resources, restart: false, lowers_memory: true };
        for (pod_limit, of_pod, of_container, want) in [
            (None, 900, 99, ""),
            (Some(200), 199, 99, ""),
            (
                None,
                900,
                100,
                "attempting to set container \"c\" memory limit (100) below current usage (100)",
            ),
            (Some(200), 200, 99, "attempting to set pod memory limit (200) below current usage (200)"),
            (
                Some(200),
                300,
                101,
                "[attempting to set pod memory limit (200) below current usage (300), attempting to set container \"c\" \
                 memory limit (100) below current usage (101)]",
            ),
        ] {
            let used = |id: Option<&str>| Ok(if id.is_some() { of_container } else { of_pod });
            let got = check_memory(&resize, pod_limit, used).err().unwrap_or_default();
            assert_eq!(got.trim_start_matches("cannot decrease memory limits: "), want);
        }
    }
}
