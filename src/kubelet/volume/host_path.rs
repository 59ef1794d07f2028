//! hostPath: a path of the node, checked or made as its type says.
//!
//! upstream: pkg/volume/hostpath/host_path.go

use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::VolumeError;

/// Checks that `path` is of the type, making it for the `OrCreate` types.
pub fn check(path: &str, kind: &str) -> Result<(), VolumeError> {
    let target = Path::new(path);
    if path.split('/').any(|part| part == "..") {
        return Err(VolumeError::Path(format!("path must not contain '..': {path}")));
    }
    let found = fs::metadata(target).ok().map(|metadata| metadata.file_type());
    let expect = |holds: bool, what: &str| {
        if holds { Ok(()) } else { Err(VolumeError::HostPathType(format!("{path} is not {what}"))) }
    };
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" => match found {
            Some(found) => expect(found.is_dir(), "a directory"),
            None => fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(target)
                .map_err(VolumeError::io("mkdir", target)),
        },
        "FileOrCreate" => match found {
            Some(found) => expect(found.is_file(), "a file"),
            None => fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(target)
                .map(drop)
                .map_err(VolumeError::io("create", target)),
        },
        "Directory" => expect(found.is_some_and(|found| found.is_dir()), "a directory"),
        "File" => expect(found.is_some_and(|found| found.is_file()), "a file"),
        "Socket" => expect(found.is_some_and(|found| found.is_socket()), "a socket"),
        "CharDevice" => expect(found.is_some_and(|found| found.is_char_device()), "a character device"),
        "BlockDevice" => expect(found.is_some_and(|found| found.is_block_device()), "a block device"),
        other => Err(VolumeError::HostPathType(format!("{other:?} is an invalid volume type"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        fs::write(path("file"), "").expect("a file");
        for (name, kind, good) in [
            ("none", "", true),
            ("none", "Directory", false),
            ("made/deep", "DirectoryOrCreate", true),
            ("made", "Directory", true),
            ("made", "File", false),
            ("file", "File", true),
            ("file", "DirectoryOrCreate", false),
            ("new", "FileOrCreate", true),
            ("new", "File", true),
            ("file", "Socket", false),
            ("file", "Odd", false),
        ] {
            assert_eq!(check(&path(name), kind).is_ok(), good, "{name} {kind}");
        }
        let error = check(&path("file"), "Directory").expect_err("not a directory").to_string();
        assert!(error.starts_with("hostPath type check failed: ") && error.ends_with("is not a directory"));
    }
}
