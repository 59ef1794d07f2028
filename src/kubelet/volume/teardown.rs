//! Taking a pod's directory down: unmount what is mounted in it, then delete it.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use super::VolumeError;

const MOUNTS: &str = "/proc/self/mountinfo";

/// Mount points at or below a path, innermost first.
pub fn mounts_below(path: &Path) -> Result<Vec<PathBuf>, VolumeError> {
    let table = fs::read_to_string(MOUNTS).map_err(VolumeError::io("read", Path::new(MOUNTS)))?;
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point.starts_with(path))
        .collect();
    found.reverse();
    Ok(found)
}

/// Spaces and the like are written as octal numbers.
fn unescape(text: &str) -> String {
    let replaced = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    replaced.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Whether a path is the root of a mount.
pub fn is_mount_point(path: &Path) -> Result<bool, VolumeError> {
    Ok(mounts_below(path)?.iter().any(|point| point == path))
}

/// Unmounts; what is busy is detached and goes with its last user.
pub fn unmount(path: &Path) -> Result<(), VolumeError> {
    umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
        .map_err(|error| VolumeError::io("unmount", path)(error.into()))
}

/// Unmounts and deletes a pod's directory. Nothing is deleted while anything is mounted below.
pub fn remove_pod_dir(path: &Path) -> Result<(), VolumeError> {
    if !path.exists() {
        return Ok(());
    }
    for point in mounts_below(path)? {
        unmount(&point)?;
    }
    if let Some(point) = mounts_below(path)?.first() {
        return Err(VolumeError::Path(format!("{} is still mounted", point.display())));
    }
    fs::remove_dir_all(path).map_err(VolumeError::io("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_a_mount_and_a_new_directory_is_not() {
        assert!(is_mount_point(Path::new("/proc")).expect("readable"));
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pod");
        fs::create_dir_all(path.join("volumes/x")).expect("made");
        assert!(!is_mount_point(&path).expect("readable"));
        remove_pod_dir(&path).expect("removed");
        assert!(!path.exists());
        remove_pod_dir(&path).expect("gone is fine");
    }
}
