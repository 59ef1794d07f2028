//! The container's configuration, put together.
//!
//! upstream: kubelet/kuberuntime/kuberuntime_container.go generateContainerConfig

use std::collections::HashMap;
use std::path::PathBuf;

use copepod_cri::api;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{
    env::{EnvError, EnvSources, environment, needs},
    expand::expand,
    labels, mounts,
    resources::container_resources,
    sandbox::log_dir,
    security::{self, ImageUser, SecurityError},
};
use crate::{
    context::Context,
    pod::model::{names, spec, uid},
    volume::VolumeError,
};

/// Why a container cannot be configured. Its reason in the status is `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The environment.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The security context.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// A mount.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// Anything else, in upstream's words.
    #[error("{0}")]
    Other(String),
}

/// What a container's configuration depends on besides the specs.
pub struct ConfigInputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// Number of instances before this one.
    pub restart_count: i32,
    /// The image.
    pub image: &'a api::Image,
    /// Where the volumes are.
    pub volumes: &'a HashMap<String, PathBuf>,
    /// Addresses of the pod.
    pub pod_ips: &'a [String],
    /// Container whose processes this one is to see.
    pub target_id: Option<&'a str>,
}

/// Path of an instance's log below the pod's log directory.
pub fn log_path(container: &str, restart_count: i32) -> String {
    format!("{container}/{restart_count}.log")
}

/// Makes the configuration. Writes the files that are mounted.
pub async fn container_config(
    context: &Context,
    inputs: ConfigInputs<'_>,
) -> Result<api::ContainerConfig, ConfigError> {
    let ConfigInputs { pod, container, restart_count, image, pod_ips, .. } = inputs;
    let env = env_of(context, pod, container, pod_ips).await?;
    let mounts = mounts::mounts(context, pod, container, restart_count, inputs.volumes, &env, pod_ips)?;
    let effective = security::effective(pod, container);
    let image_user = ImageUser::of(image);
    security::verify_non_root(pod, container, &effective, &image_user)?;
    let seccomp_root = context.config.root_dir.join("seccomp");
    let security_context = security::container_context(
        pod,
        &effective,
        &image_user,
        inputs.target_id,
        &seccomp_root.to_string_lossy(),
    )?;
    let directory = log_dir(context, pod).join(&container.name);
    std::fs::create_dir_all(&directory).map_err(|error| {
        ConfigError::Other(format!(
            "create container log directory for container {} failed: {error}",
            container.name
        ))
    })?;
    let facts = context.limit_facts();
    let lookup = |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let words = |list: &Option<Vec<String>>| list.iter().flatten().map(|word| expand(word, lookup)).collect();
    Ok(api::ContainerConfig {
        metadata: Some(api::ContainerMetadata {
            name: container.name.clone(),
            attempt: u32::try_from(restart_count).unwrap_or(0),
        }),
        image: Some(api::ImageSpec {
            image: image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..api::ImageSpec::default()
        }),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        labels: labels::container_labels(pod, container),
        annotations: labels::container_annotations(pod, container, restart_count),
        mounts,
        log_path: log_path(&container.name, restart_count),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(api::LinuxContainerConfig {
            resources: Some(container_resources(pod, container, facts)),
            security_context: Some(security_context),
        }),
        envs: env.into_iter().map(|(key, value)| api::KeyValue { key, value }).collect(),
        ..api::ContainerConfig::default()
    })
}

async fn env_of(
    context: &Context,
    pod: &Pod,
    container: &Container,
    pod_ips: &[String],
) -> Result<Vec<(String, String)>, ConfigError> {
    let (namespace, _) = names(pod);
    let links = spec(pod).enable_service_links.unwrap_or(true);
    let services = context.services.variables(namespace, links).await.map_err(ConfigError::Other)?;
    let (config_maps, secrets) = needs(container);
    let mut sources = EnvSources::default();
    for name in config_maps {
        let found =
            context.objects.config_map(uid(pod), namespace, &name).await.map_err(ConfigError::Other)?;
        sources.config_maps.insert(name, found);
    }
    for name in secrets {
        let found = context.objects.secret(uid(pod), namespace, &name).await.map_err(ConfigError::Other)?;
        sources.secrets.insert(name, found);
    }
    Ok(environment(pod, container, &sources, &services, &context.facts(pod_ips))?)
}
