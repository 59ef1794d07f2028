//! subPath: a part of a volume, bound where a container cannot exchange it for a link out of the volume.
//!
//! The part is opened step by step beneath the volume (the kernel refuses to leave it), and the open file is bind-mounted
//! to a directory of the agent, which the runtime then mounts.
//!
//! upstream: pkg/volume/util/subpath/subpath_linux.go

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat};

use super::{VolumeError, teardown};

/// Where the parts of a pod's volumes are bound.
pub fn directory(pod_dir: &Path) -> PathBuf {
    pod_dir.join("volume-subpaths")
}

/// Binds `sub_path` of the volume for one mount of a container and says where.
pub fn bind(
    pod_dir: &Path,
    volume: &Path,
    volume_name: &str,
    container: &str,
    index: usize,
    sub_path: &str,
) -> Result<PathBuf, VolumeError> {
    let source = open_part(volume, sub_path)?;
    let target = directory(pod_dir).join(volume_name).join(container).join(index.to_string());
    if target.exists() && teardown::is_mount_point(&target)? {
        teardown::unmount(&target)?;
    }
    let from = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    let is_dir = fs::metadata(&from).map_err(VolumeError::io("stat", &from))?.is_dir();
    if is_dir {
        fs::create_dir_all(&target).map_err(VolumeError::io("mkdir", &target))?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(VolumeError::io("mkdir", parent))?;
        }
        fs::File::create(&target).map(drop).map_err(VolumeError::io("create", &target))?;
    }
    mount(Some(&from), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|error| VolumeError::io("bind", &target)(error.into()))?;
    Ok(target)
}

fn beneath(directory: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(directory, path, how)
}

/// Opens the part; directories that are missing are made.
fn open_part(volume: &Path, sub_path: &str) -> Result<OwnedFd, VolumeError> {
    let relative = Path::new(sub_path);
    if relative.is_absolute() || relative.components().any(|part| part == Component::ParentDir) {
        return Err(VolumeError::Path(format!("subPath {sub_path:?} must be relative and without '..'")));
    }
    let root: OwnedFd = fs::File::open(volume).map_err(VolumeError::io("open", volume))?.into();
    match beneath(&root, relative) {
        Ok(found) => return Ok(found),
        Err(Errno::ENOENT) => {}
        Err(error) => return Err(VolumeError::io("open subPath", &volume.join(relative))(error.into())),
    }
    let failed = |error: Errno| VolumeError::io("mkdir subPath", &volume.join(relative))(error.into());
    let mode = Mode::from_bits_truncate(0o750);
    let mut current = root;
    for part in relative.components() {
        let Component::Normal(name) = part else { continue };
        let next = match beneath(&current, Path::new(name)) {
            Err(Errno::ENOENT) => {
                mkdirat(&current, Path::new(name), mode).map_err(failed)?;
                beneath(&current, Path::new(name))
            }
            other => other,
        };
        current = next.map_err(failed)?;
    }
    Ok(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_in_their_volume() {
        let directory = tempfile::tempdir().expect("a directory");
        let volume = directory.path();
        fs::create_dir(volume.join("d")).expect("a directory");
        std::os::unix::fs::symlink("/etc", volume.join("out")).expect("a link");
        std::os::unix::fs::symlink("d", volume.join("in")).expect("a link");
        for (path, good) in [
            ("d", true),
            ("in", true),
            ("new/deep", true),
            ("out", false),
            ("out/passwd", false),
            ("../x", false),
            ("/etc", false),
        ] {
            assert_eq!(open_part(volume, path).is_ok(), good, "{path}");
        }
        assert!(volume.join("new/deep").is_dir());
    }
}
