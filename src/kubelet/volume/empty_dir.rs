//! emptyDir: a directory of the node's disk, or a tmpfs.
//!
//! upstream: pkg/volume/emptydir/empty_dir.go

use std::path::Path;

use copepod_meta::quantity::Quantity;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use nix::mount::{MsFlags, mount};

use super::{VolumeError, ownership, set_mode, teardown};
use crate::{
    context::Context,
    pod::qos::{self, Side, pod_total},
};

/// Makes the directory; content that is there stays.
pub fn set_up(
    context: &Context,
    pod: &Pod,
    source: &EmptyDirVolumeSource,
    path: &Path,
) -> Result<(), VolumeError> {
    let fresh = !path.exists();
    std::fs::create_dir_all(path).map_err(VolumeError::io("mkdir", path))?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            if !teardown::is_mount_point(path)? {
                mount_tmpfs(path, Some(memory_limit(context, pod, source)))?;
            }
        }
        other => return Err(VolumeError::Unsupported(format!("emptyDir medium {other}"))),
    }
    if fresh {
        set_mode(path, 0o777)?;
        ownership::apply(pod, path, false)?;
    }
    Ok(())
}

/// The size limit, but not more than what the pod, or else the node, has.
// upstream: pkg/volume/emptydir/empty_dir.go calculateEmptyDirMemorySize
fn memory_limit(context: &Context, pod: &Pod, source: &EmptyDirVolumeSource) -> i64 {
    let own = source
        .size_limit
        .as_ref()
        .map(|raw| qos::quantity(Some(raw)))
        .map_or(0, |size: Quantity| size.value());
    let (_, allocatable) = context.machine.allocatable(&context.config);
    let pod_limit = qos::all_limited(pod, "memory").then(|| pod_total(pod, "memory", Side::Limits)).flatten();
    let room = pod_limit.unwrap_or(allocatable);
    if own > 0 { own.min(room) } else { room }
}

/// Mounts a tmpfs.
pub fn mount_tmpfs(path: &Path, bytes: Option<i64>) -> Result<(), VolumeError> {
    let options = bytes.map(|bytes| format!("size={bytes}"));
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), options.as_deref())
        .map_err(|error| VolumeError::io("mount tmpfs", path)(error.into()))
}
