//! What is mounted into a container: its volumes, /etc/hosts, the file for its last words.
//!
//! upstream: kubelet/kubelet_pods.go makeMounts, kubelet/kuberuntime/kuberuntime_container.go makeMounts

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use copepod_cri::api;
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use super::{config::ConfigError, dns, expand::expand};
use crate::{
    context::Context,
    pod::model::{host_network, uid},
    volume::{self, VolumeError, set_mode, subpath},
};

const ETC_HOSTS: &str = "/etc/hosts";

/// All mounts of a container.
pub fn mounts(
    context: &Context,
    pod: &Pod,
    container: &Container,
    restart_count: i32,
    volumes: &HashMap<String, PathBuf>,
    env: &[(String, String)],
    pod_ips: &[String],
) -> Result<Vec<api::Mount>, ConfigError> {
    let mut all = Vec::new();
    let mut hosts_taken = false;
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        hosts_taken |= mount.mount_path == ETC_HOSTS;
        all.push(volume_mount(context, pod, container, index, mount, volumes, env)?);
    }
    if let Some(device) = container.volume_devices.iter().flatten().next() {
        return Err(ConfigError::Other(format!("block volume {:?} is not supported", device.name)));
    }
    if !hosts_taken && (!pod_ips.is_empty() || host_network(pod)) {
        let path = write_hosts(context, pod, pod_ips)?;
        all.push(mount_of(ETC_HOSTS, &path, false));
    }
    if let Some(target) = container.termination_message_path.as_deref().filter(|path| !path.is_empty()) {
        let path = termination_file(context, pod, container, restart_count)?;
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        all.push(mount_of(&target, &path, false));
    }
    Ok(all)
}

fn mount_of(container_path: &str, host_path: &Path, readonly: bool) -> api::Mount {
    api::Mount {
        container_path: container_path.into(),
        host_path: host_path.to_string_lossy().into_owned(),
        readonly,
        ..api::Mount::default()
    }
}

fn volume_mount(
    context: &Context,
    pod: &Pod,
    container: &Container,
    index: usize,
    mount: &VolumeMount,
    volumes: &HashMap<String, PathBuf>,
    env: &[(String, String)],
) -> Result<api::Mount, ConfigError> {
    let volume = volumes.get(&mount.name).ok_or_else(|| {
        ConfigError::Other(format!(
            "cannot find volume {:?} to mount into container {:?}",
            mount.name, container.name
        ))
    })?;
    let sub_path = match (&mount.sub_path_expr, &mount.sub_path) {
        (Some(text), _) if !text.is_empty() => {
            let missing = std::cell::Cell::new(false);
            let path = expand(text, |name| {
                let found = env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
                missing.set(missing.get() || found.is_none());
                found
            });
            if missing.get() {
                return Err(ConfigError::Other(format!("missing value for {text:?}")));
            }
            path
        }
        (_, Some(path)) => path.clone(),
        _ => String::new(),
    };
    let host_path = if sub_path.is_empty() {
        volume.clone()
    } else {
        let pod_dir = volume::pod_dir(context, uid(pod));
        subpath::bind(&pod_dir, volume, &mount.name, &container.name, index, &sub_path).map_err(|error| {
            tracing::warn!(%error, pod = uid(pod), container = container.name, "subPath");
            ConfigError::Other(format!(
                "failed to prepare subPath for volumeMount {:?} of container {:?}",
                mount.name, container.name
            ))
        })?
    };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => api::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => api::MountPropagation::PropagationBidirectional,
        _ => api::MountPropagation::PropagationPrivate,
    };
    if mount.recursive_read_only.as_deref() == Some("Enabled") {
        return Err(ConfigError::Other(format!(
            "volume {:?} requested recursive read-only mode, but it is not supported by the runtime",
            mount.name
        )));
    }
    Ok(api::Mount {
        propagation: propagation.into(),
        ..mount_of(
            &if mount.mount_path.starts_with('/') {
                mount.mount_path.clone()
            } else {
                format!("/{}", mount.mount_path)
            },
            &host_path,
            mount.read_only == Some(true),
        )
    })
}

fn write_hosts(context: &Context, pod: &Pod, pod_ips: &[String]) -> Result<PathBuf, VolumeError> {
    let directory = volume::pod_dir(context, uid(pod));
    fs::create_dir_all(&directory).map_err(VolumeError::io("mkdir", &directory))?;
    let path = directory.join("etc-hosts");
    let host_file = if host_network(pod) {
        Some(fs::read_to_string(ETC_HOSTS).map_err(VolumeError::io("read", Path::new(ETC_HOSTS)))?)
    } else {
        None
    };
    let text = dns::hosts_file(pod, pod_ips, &context.config.cluster_domain, host_file.as_deref());
    fs::write(&path, text).map_err(VolumeError::io("write", &path))?;
    set_mode(&path, 0o644)?;
    Ok(path)
}

/// A file per instance, which anybody in the container may write.
fn termination_file(
    context: &Context,
    pod: &Pod,
    container: &Container,
    restart_count: i32,
) -> Result<PathBuf, VolumeError> {
    let directory = volume::pod_dir(context, uid(pod)).join("containers").join(&container.name);
    fs::create_dir_all(&directory).map_err(VolumeError::io("mkdir", &directory))?;
    let path = directory.join(format!("termination-{restart_count}"));
    fs::File::create(&path).map_err(VolumeError::io("create", &path))?;
    set_mode(&path, 0o666)?;
    Ok(path)
}
