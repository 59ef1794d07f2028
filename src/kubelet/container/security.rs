//! Security contexts: the pod's and the container's made one, and CRI's form of it. Pure.
//!
//! upstream: pkg/securitycontext/util.go, kubelet/kuberuntime/security_context.go, helpers.go

use copepod_cri::api;
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, SELinuxOptions, SeccompProfile, SecurityContext,
};

use crate::{
    pod::model::{host_network, spec},
    text::pod_text,
};

/// Paths of /proc and /sys hidden from containers.
// upstream: pkg/securitycontext/util.go defaultMaskedPaths
const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths of /proc that containers may only read.
// upstream: pkg/securitycontext/util.go defaultReadonlyPaths
const READONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A security context that cannot be had. The text stands in the container's status.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SecurityError {
    /// `runAsNonRoot`, and the spec says root.
    #[error("container's runAsUser breaks non-root policy (pod: {pod:?}, container: {container})")]
    RunAsRoot {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// `runAsNonRoot`, and the image says root.
    #[error("container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})")]
    ImageRoot {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// `runAsNonRoot`, and the image names a user without a number.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: {pod:?}, container: {container})"
    )]
    ImageUser {
        /// The image's user.
        user: String,
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// A profile that needs a name has none.
    #[error("localhostProfile must be set if seccompProfile type is Localhost.")]
    SeccompLocalhost,
    /// A policy word nobody knows.
    #[error("unsupported supplementalGroupsPolicy: {0}")]
    GroupsPolicy(String),
    /// AppArmor profile without name.
    #[error("missing localhost apparmor profile name")]
    AppArmorLocalhost,
}

/// The container's context over the pod's.
// upstream: pkg/securitycontext/util.go DetermineEffectiveSecurityContext
pub fn effective(pod: &Pod, container: &Container) -> SecurityContext {
    let mut context = container.security_context.clone().unwrap_or_default();
    if let Some(pod) = &spec(pod).security_context {
        context.run_as_user = context.run_as_user.or(pod.run_as_user);
        context.run_as_group = context.run_as_group.or(pod.run_as_group);
        context.run_as_non_root = context.run_as_non_root.or(pod.run_as_non_root);
        context.se_linux_options = context.se_linux_options.or_else(|| pod.se_linux_options.clone());
        context.seccomp_profile = context.seccomp_profile.or_else(|| pod.seccomp_profile.clone());
        context.app_armor_profile = context.app_armor_profile.or_else(|| pod.app_armor_profile.clone());
    }
    context
}

/// Refuses root where the pod forbids it. `image_user` is the image's: a number, or a name.
// upstream: kubelet/kuberuntime/security_context_others.go verifyRunAsNonRoot
pub fn verify_non_root(
    pod: &Pod,
    container: &Container,
    context: &SecurityContext,
    image_user: &ImageUser,
) -> Result<(), SecurityError> {
    if context.run_as_non_root != Some(true) {
        return Ok(());
    }
    let (text, name) = (pod_text(pod), container.name.clone());
    match (context.run_as_user, image_user) {
        (Some(0), _) => Err(SecurityError::RunAsRoot { pod: text, container: name }),
        (Some(_), _) => Ok(()),
        (None, ImageUser::Id(0)) => Err(SecurityError::ImageRoot { pod: text, container: name }),
        (None, ImageUser::Name(user)) => {
            Err(SecurityError::ImageUser { user: user.clone(), pod: text, container: name })
        }
        (None, ImageUser::Id(_)) => Ok(()),
    }
}

/// The user an image asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageUser {
    /// A number; 0 if the image says nothing.
    Id(i64),
    /// A name from the image's /etc/passwd.
    Name(String),
}

impl ImageUser {
    /// As the runtime reports it.
    pub fn of(image: &api::Image) -> Self {
        match &image.uid {
            Some(uid) => ImageUser::Id(uid.value),
            None if !image.username.is_empty() => ImageUser::Name(image.username.clone()),
            None => ImageUser::Id(0),
        }
    }
}

/// CRI's form of a container's security context.
pub fn container_context(
    pod: &Pod,
    context: &SecurityContext,
    image_user: &ImageUser,
    target_id: Option<&str>,
    seccomp_root: &str,
) -> Result<api::LinuxContainerSecurityContext, SecurityError> {
    let mut out = api::LinuxContainerSecurityContext {
        capabilities: context.capabilities.as_ref().map(|capabilities| api::Capability {
            add_capabilities: capabilities.add.clone().unwrap_or_default(),
            drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
            ..api::Capability::default()
        }),
        privileged: context.privileged == Some(true),
        selinux_options: context.se_linux_options.as_ref().map(selinux),
        run_as_user: context.run_as_user.map(|value| api::Int64Value { value }),
        run_as_group: context.run_as_group.map(|value| api::Int64Value { value }),
        readonly_rootfs: context.read_only_root_filesystem == Some(true),
        no_new_privs: context.allow_privilege_escalation == Some(false),
        seccomp: Some(seccomp(context.seccomp_profile.as_ref(), seccomp_root)?),
        ..api::LinuxContainerSecurityContext::default()
    };
    if context.proc_mount.as_deref() != Some("Unmasked") {
        out.masked_paths = MASKED_PATHS.iter().map(|path| (*path).to_owned()).collect();
        out.readonly_paths = READONLY_PATHS.iter().map(|path| (*path).to_owned()).collect();
    }
    if let Some(profile) = &context.app_armor_profile {
        let (profile, old) = apparmor(profile)?;
        out.apparmor = Some(profile);
        // The old field is what containerd before 2.0 reads.
        #[allow(deprecated)]
        {
            out.apparmor_profile = old;
        }
    }
    if out.run_as_user.is_none() {
        match image_user {
            ImageUser::Id(value) => out.run_as_user = Some(api::Int64Value { value: *value }),
            ImageUser::Name(name) => out.run_as_username.clone_from(name),
        }
    }
    let mut namespaces = namespaces(pod);
    if let Some(target) = target_id
        && namespaces.pid() == api::NamespaceMode::Container
    {
        namespaces.set_pid(api::NamespaceMode::Target);
        namespaces.target_id = target.into();
    }
    out.namespace_options = Some(namespaces);
    out.supplemental_groups = supplemental_groups(pod);
    out.supplemental_groups_policy = groups_policy(pod)?.into();
    Ok(out)
}

/// CRI's form of the sandbox's security context.
pub fn sandbox_context(pod: &Pod) -> Result<api::LinuxSandboxSecurityContext, SecurityError> {
    let privileged = |container: &Container| {
        container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true))
    };
    let all = spec(pod).containers.iter().chain(spec(pod).init_containers.iter().flatten());
    let mut out = api::LinuxSandboxSecurityContext {
        privileged: all.into_iter().any(privileged),
        seccomp: Some(profile(api::security_profile::ProfileType::RuntimeDefault, "")),
        namespace_options: Some(namespaces(pod)),
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: groups_policy(pod)?.into(),
        ..api::LinuxSandboxSecurityContext::default()
    };
    if let Some(context) = &spec(pod).security_context {
        out.run_as_user = context.run_as_user.map(|value| api::Int64Value { value });
        out.run_as_group = context.run_as_group.map(|value| api::Int64Value { value });
        out.selinux_options = context.se_linux_options.as_ref().map(selinux);
    }
    Ok(out)
}

/// Which namespaces the pod shares with the node or among its containers.
// upstream: kubelet/kuberuntime/util/util.go NamespacesForPod
pub fn namespaces(pod: &Pod) -> api::NamespaceOption {
    let spec = spec(pod);
    let mode = |host: bool| if host { api::NamespaceMode::Node } else { api::NamespaceMode::Pod };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => api::NamespaceMode::Node,
        (_, Some(true)) => api::NamespaceMode::Pod,
        _ => api::NamespaceMode::Container,
    };
    api::NamespaceOption {
        network: mode(host_network(pod)).into(),
        ipc: mode(spec.host_ipc == Some(true)).into(),
        pid: pid.into(),
        ..api::NamespaceOption::default()
    }
}

fn supplemental_groups(pod: &Pod) -> Vec<i64> {
    let Some(context) = &spec(pod).security_context else { return Vec::new() };
    context.fs_group.into_iter().chain(context.supplemental_groups.iter().flatten().copied()).collect()
}

fn groups_policy(pod: &Pod) -> Result<api::SupplementalGroupsPolicy, SecurityError> {
    let context = spec(pod).security_context.as_ref();
    match context.and_then(|context| context.supplemental_groups_policy.as_deref()) {
        None | Some("Merge") => Ok(api::SupplementalGroupsPolicy::Merge),
        Some("Strict") => Ok(api::SupplementalGroupsPolicy::Strict),
        Some(other) => Err(SecurityError::GroupsPolicy(other.into())),
    }
}

fn profile(kind: api::security_profile::ProfileType, localhost: &str) -> api::SecurityProfile {
    api::SecurityProfile { profile_type: kind.into(), localhost_ref: localhost.into() }
}

fn seccomp(wanted: Option<&SeccompProfile>, root: &str) -> Result<api::SecurityProfile, SecurityError> {
    use api::security_profile::ProfileType;
    let Some(wanted) = wanted else { return Ok(profile(ProfileType::Unconfined, "")) };
    match wanted.type_.as_str() {
        "RuntimeDefault" => Ok(profile(ProfileType::RuntimeDefault, "")),
        "Localhost" => match wanted.localhost_profile.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => Ok(profile(ProfileType::Localhost, &format!("{root}/{name}"))),
            None => Err(SecurityError::SeccompLocalhost),
        },
        _ => Ok(profile(ProfileType::Unconfined, "")),
    }
}

fn apparmor(wanted: &AppArmorProfile) -> Result<(api::SecurityProfile, String), SecurityError> {
    use api::security_profile::ProfileType;
    match (wanted.type_.as_str(), wanted.localhost_profile.as_deref()) {
        ("RuntimeDefault", _) => Ok((profile(ProfileType::RuntimeDefault, ""), "runtime/default".into())),
        ("Localhost", Some(name)) => Ok((profile(ProfileType::Localhost, name), format!("localhost/{name}"))),
        ("Localhost", None) => Err(SecurityError::AppArmorLocalhost),
        _ => Ok((profile(ProfileType::Unconfined, ""), "unconfined".into())),
    }
}

fn selinux(options: &SELinuxOptions) -> api::SeLinuxOption {
    api::SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_root_is_verified_with_upstreams_words() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]}
        }))
        .expect("a pod");
        let container = &spec(&pod).containers[0];
        let mut context = effective(&pod, container);
        let verdict = |context: &SecurityContext, user: ImageUser| {
            verify_non_root(&pod, container, context, &user).map_err(|error| error.to_string())
        };
        assert_eq!(verdict(&context, ImageUser::Id(1000)), Ok(()));
        assert_eq!(
            verdict(&context, ImageUser::Id(0)),
            Err("container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"
                .into())
        );
        assert_eq!(
            verdict(&context, ImageUser::Name("web".into())),
            Err("container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root (pod: \"p_n(u)\", container: c)".into())
        );
        context.run_as_user = Some(0);
        assert_eq!(
            verdict(&context, ImageUser::Id(1000)),
            Err("container's runAsUser breaks non-root policy (pod: \"p_n(u)\", container: c)".into())
        );
        context.run_as_user = Some(7);
        assert_eq!(verdict(&context, ImageUser::Id(0)), Ok(()));
    }
}
