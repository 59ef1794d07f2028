//! Files that change all at once: a reader sees the old set or the new one, never a mix.
//!
//! The files are in a directory named after the time; `..data` is a link to it that is replaced by a rename; each name
//! that the container sees is a link through `..data`.
//!
//! upstream: pkg/volume/util/atomic_writer.go

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use super::VolumeError;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its bytes.
    pub data: Vec<u8>,
    /// Its mode.
    pub mode: u32,
}

/// Files by relative path.
pub type Files = BTreeMap<String, File>;

/// Makes the directory show exactly these files. Returns whether anything changed.
pub fn write(target: &Path, files: &Files) -> Result<bool, VolumeError> {
    for path in files.keys() {
        validate(path)?;
    }
    let data_link = target.join(DATA);
    let current = match fs::read_link(&data_link) {
        Ok(current) => Some(current),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(VolumeError::io("readlink", &data_link)(error)),
    };
    if let Some(current) = &current
        && same(&target.join(current), files)
    {
        return Ok(false);
    }
    let fresh = fresh_directory(target)?;
    for (path, file) in files {
        write_file(&target.join(&fresh).join(path), file)?;
    }
    let new_link = target.join(DATA_NEW);
    remove_if_there(&new_link)?;
    symlink(&fresh, &new_link).map_err(VolumeError::io("symlink", &new_link))?;
    fs::rename(&new_link, &data_link).map_err(VolumeError::io("rename", &data_link))?;
    show(target, files)?;
    if let Some(old) = current {
        let old = target.join(old);
        fs::remove_dir_all(&old).map_err(VolumeError::io("remove", &old))?;
    }
    Ok(true)
}

/// A path must be relative, without `..`, and not begin with `..`, which is the writer's own.
fn validate(path: &str) -> Result<(), VolumeError> {
    let bad = |what: &str| Err(VolumeError::Path(format!("invalid path: {what}: {path}")));
    if path.is_empty() {
        return bad("must not be empty");
    }
    let path_ref = Path::new(path);
    if path_ref.is_absolute() {
        return bad("must be relative path");
    }
    if !path_ref.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir)) {
        return bad("must not contain '..'");
    }
    if path.starts_with("..") {
        return bad("must not start with '..'");
    }
    Ok(())
}

fn same(directory: &Path, files: &Files) -> bool {
    let mut seen = BTreeSet::new();
    if list(directory, directory, &mut seen).is_err() {
        return false;
    }
    let wanted: BTreeSet<PathBuf> = files.keys().map(|path| Path::new(path).components().collect()).collect();
    seen == wanted
        && files.iter().all(|(path, file)| fs::read(directory.join(path)).is_ok_and(|data| data == file.data))
}

fn list(root: &Path, directory: &Path, seen: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(root, &entry.path(), seen)?;
        } else if let Ok(relative) = entry.path().strip_prefix(root) {
            seen.insert(relative.to_owned());
        }
    }
    Ok(())
}

/// A new directory `..2006_01_02_15_04_05.N`.
fn fresh_directory(target: &Path) -> Result<PathBuf, VolumeError> {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let stamp = now.strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    for number in 0..u32::MAX {
        let name = PathBuf::from(format!("{stamp}.{number}"));
        let path = target.join(&name);
        match fs::create_dir(&path) {
            Ok(()) => {
                super::set_mode(&path, 0o755)?;
                return Ok(name);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(VolumeError::io("mkdir", &path)(error)),
        }
    }
    Err(VolumeError::Path("no free directory name".into()))
}

fn write_file(path: &Path, file: &File) -> Result<(), VolumeError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(VolumeError::io("mkdir", parent))?;
    }
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(file.mode)
        .open(path)
        .map_err(VolumeError::io("create", path))?;
    out.write_all(&file.data).map_err(VolumeError::io("write", path))?;
    // The mode at creation goes through the umask.
    out.set_permissions(fs::Permissions::from_mode(file.mode)).map_err(VolumeError::io("chmod", path))
}

/// The links that containers see: one for the first part of each path.
fn show(target: &Path, files: &Files) -> Result<(), VolumeError> {
    let first = |path: &str| {
        Path::new(path).components().find_map(|component| match component {
            Component::Normal(name) => Some(PathBuf::from(name)),
            _ => None,
        })
    };
    let wanted: BTreeSet<PathBuf> = files.keys().filter_map(|path| first(path)).collect();
    for name in &wanted {
        let link = target.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link).map_err(VolumeError::io("symlink", &link))?;
        }
    }
    for entry in fs::read_dir(target).map_err(VolumeError::io("read", target))? {
        let entry = entry.map_err(VolumeError::io("read", target))?;
        let name = PathBuf::from(entry.file_name());
        if !name.to_string_lossy().starts_with("..") && !wanted.contains(&name) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<(), VolumeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(VolumeError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> Files {
        pairs
            .iter()
            .map(|(path, data)| ((*path).to_owned(), File { data: data.as_bytes().to_vec(), mode: 0o640 }))
            .collect()
    }

    fn visible(target: &Path) -> String {
        let mut names: Vec<String> = fs::read_dir(target)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with(".."))
            .collect();
        names.sort();
        names.join(" ")
    }

    #[test]
    fn sets_are_exchanged_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = directory.path();
        assert!(write(target, &files(&[("a", "1"), ("d/b", "2"), ("d/c", "3")])).expect("written"));
        assert_eq!(visible(target), "a d");
        assert_eq!(fs::read_to_string(target.join("d/b")).expect("read"), "2");
        let mode = fs::metadata(target.join("a")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);

        let before = fs::read_link(target.join(DATA)).expect("a link");
        assert!(!write(target, &files(&[("a", "1"), ("d/b", "2"), ("d/c", "3")])).expect("unchanged"));
        assert_eq!(fs::read_link(target.join(DATA)).expect("a link"), before);

        assert!(write(target, &files(&[("a", "9"), ("e", "")])).expect("written"));
        assert_eq!(visible(target), "a e");
        assert_eq!(fs::read_to_string(target.join("a")).expect("read"), "9");
        assert!(!target.join(before).exists(), "the old set is gone");
        assert!(write(target, &files(&[])).expect("emptied"));
        assert_eq!(visible(target), "");
    }

    #[test]
    fn paths_stay_inside() {
        let directory = tempfile::tempdir().expect("a directory");
        for path in ["/abs", "../up", "a/../../b", "..data", ""] {
            assert!(write(directory.path(), &files(&[(path, "x")])).is_err(), "{path:?}");
        }
    }
}
