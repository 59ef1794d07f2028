//! Who may read a volume's files: the pod's fsGroup, and the owner of token files.
//!
//! upstream: pkg/volume/volume_linux.go SetVolumeOwnership, pkg/securitycontext FsUserFrom

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use super::{VolumeError, payload::Content};
use crate::{
    container::security,
    pod::model::{init_containers, spec},
};

/// The pod's group for volumes.
pub fn fs_group(pod: &Pod) -> Option<i64> {
    spec(pod).security_context.as_ref()?.fs_group
}

/// The user that all containers run as, if they agree on one.
pub fn common_user(pod: &Pod) -> Option<i64> {
    let mut users = spec(pod)
        .containers
        .iter()
        .chain(init_containers(pod))
        .map(|container| security::effective(pod, container).run_as_user);
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first)
}

/// Gives everything below `path` to the pod's group, readable for it (and writable unless `read_only`).
pub fn apply(pod: &Pod, path: &Path, read_only: bool) -> Result<(), VolumeError> {
    let Some(group) = fs_group(pod).and_then(|group| u32::try_from(group).ok()) else { return Ok(()) };
    walk(path, group, if read_only { 0o440 } else { 0o660 })
}

fn walk(path: &Path, group: u32, mask: u32) -> Result<(), VolumeError> {
    let metadata = fs::symlink_metadata(path).map_err(VolumeError::io("stat", path))?;
    lchown(path, None, Some(group)).map_err(VolumeError::io("chown", path))?;
    if metadata.file_type().is_symlink() {
        return Ok(());
    }
    let mut mode = metadata.mode() & 0o7777 | mask;
    if metadata.is_dir() {
        mode |= 0o2110;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(VolumeError::io("chmod", path))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(VolumeError::io("read", path))? {
            walk(&entry.map_err(VolumeError::io("read", path))?.path(), group, mask)?;
        }
    }
    Ok(())
}

/// Gives token files to the user that all containers run as: their mode is 0600 then.
pub fn apply_token_owner(pod: &Pod, path: &Path, content: &Content) -> Result<(), VolumeError> {
    let Some(user) = common_user(pod).and_then(|user| u32::try_from(user).ok()) else { return Ok(()) };
    for token in &content.tokens {
        let file = path.join(token);
        std::os::unix::fs::chown(&file, Some(user), None).map_err(VolumeError::io("chown", &file))?;
    }
    Ok(())
}
