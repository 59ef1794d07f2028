//! Volumes of a pod: set up before its containers, kept up to date while it runs, taken down after it.
//!
//! Each volume lives under `<root>/pods/<uid>/volumes/<plugin>/<name>`, as upstream's, except hostPath which is where it
//! is. Content (ConfigMaps, Secrets, tokens, facts of the pod) is a [`payload`] written by [`atomic`].
//!
//! Invariants:
//! * setting up is idempotent: it runs on every start of a container and on every change of an object;
//! * taking down never deletes through a mount: what is still mounted is left, and the error is told;
//! * a volume kind that is not served is an error that names it, never an empty directory.

pub mod atomic;
pub mod empty_dir;
pub mod host_path;
pub mod ownership;
pub mod payload;
pub mod subpath;
pub mod teardown;
pub mod token;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::{
    context::Context,
    pod::model::{spec, uid},
};

/// Why a volume cannot be used now. The worker tells the user and tries again.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// An object that the volume needs does not exist.
    #[error("{0} \"{1}\" not found")]
    Missing(&'static str, String),
    /// A key that the volume names does not exist.
    #[error("references non-existent {kind} key: {key}")]
    Key {
        /// `config` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// The path of a hostPath volume is not what its type says.
    #[error("hostPath type check failed: {0}")]
    HostPathType(String),
    /// A kind of volume that is not served.
    #[error("failed to get Plugin from volumeSpec for volume {0:?} err=no volume plugin matched")]
    Unsupported(String),
    /// A path that leaves its volume, or is malformed.
    #[error("{0}")]
    Path(String),
    /// A field that cannot be given.
    #[error(transparent)]
    Downward(#[from] crate::container::downward::DownwardError),
    /// The API server does not answer or refuses.
    #[error("{0}")]
    Api(String),
    /// The file system says no.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

impl VolumeError {
    /// Wraps a file system error.
    pub fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> VolumeError {
        let path = path.to_owned();
        move |source| VolumeError::Io { what, path, source }
    }
}

/// Volumes that are set up.
#[derive(Debug, Clone, Default)]
pub struct Mounted {
    /// Where each volume is on the node.
    pub paths: HashMap<String, PathBuf>,
    /// When a token in them has to be renewed.
    pub refresh_at: Option<Timestamp>,
}

/// Directory of a pod's files.
pub fn pod_dir(context: &Context, uid: &str) -> PathBuf {
    context.config.root_dir.join("pods").join(uid)
}

fn volume_dir(context: &Context, uid: &str, plugin: &str, name: &str) -> PathBuf {
    pod_dir(context, uid).join("volumes").join(plugin).join(name)
}

/// Sets up all volumes of a pod, or brings them up to date. The error names the volume.
pub async fn set_up(
    context: &Context,
    pod: &Pod,
    pod_ips: &[String],
) -> Result<Mounted, (String, VolumeError)> {
    let mut mounted = Mounted::default();
    // All at once: most of the time they wait for the API server.
    let each = spec(pod).volumes.iter().flatten().map(|volume| async move {
        let done = one(context, pod, volume, pod_ips).await;
        (volume, done)
    });
    for (volume, done) in futures::future::join_all(each).await {
        let (path, refresh) = done.map_err(|error| (volume.name.clone(), error))?;
        mounted.paths.insert(volume.name.clone(), path);
        mounted.refresh_at = match (mounted.refresh_at, refresh) {
            (Some(left), Some(right)) => Some(left.min(right)),
            (left, right) => left.or(right),
        };
    }
    Ok(mounted)
}

async fn one(
    context: &Context,
    pod: &Pod,
    volume: &Volume,
    pod_ips: &[String],
) -> Result<(PathBuf, Option<Timestamp>), VolumeError> {
    if let Some(source) = &volume.host_path {
        host_path::check(&source.path, source.type_.as_deref().unwrap_or_default())?;
        return Ok((source.path.clone().into(), None));
    }
    if let Some(source) = &volume.empty_dir {
        let path = volume_dir(context, uid(pod), "kubernetes.io~empty-dir", &volume.name);
        empty_dir::set_up(context, pod, source, &path)?;
        return Ok((path, None));
    }
    let Some((plugin, in_memory)) = content_plugin(volume) else {
        return Err(VolumeError::Unsupported(volume.name.clone()));
    };
    let path = volume_dir(context, uid(pod), plugin, &volume.name);
    let content = payload::collect(context, pod, volume, pod_ips).await?;
    std::fs::create_dir_all(&path).map_err(VolumeError::io("mkdir", &path))?;
    if in_memory && !teardown::is_mount_point(&path)? {
        empty_dir::mount_tmpfs(&path, None)?;
        set_mode(&path, 0o777)?;
    }
    let changed = atomic::write(&path, &content.files)?;
    if changed {
        ownership::apply(pod, &path, true)?;
        ownership::apply_token_owner(pod, &path, &content)?;
    }
    Ok((path, content.refresh_at))
}

/// Plugin directory of volumes made of content, and whether they are kept in memory only.
fn content_plugin(volume: &Volume) -> Option<(&'static str, bool)> {
    if volume.config_map.is_some() {
        Some(("kubernetes.io~configmap", false))
    } else if volume.secret.is_some() {
        Some(("kubernetes.io~secret", true))
    } else if volume.downward_api.is_some() {
        Some(("kubernetes.io~downward-api", true))
    } else if volume.projected.is_some() {
        Some(("kubernetes.io~projected", true))
    } else {
        None
    }
}

/// Sets a path's mode exactly, whatever the umask.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), VolumeError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(VolumeError::io("chmod", path))
}
