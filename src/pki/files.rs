//! Files that are there whole or not at all, and private where they hold a key.

use crate::PkiError;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Its owner: 0600.
    Private,
    /// Everybody: 0644.
    Public,
}

pub(crate) fn error(path: &Path) -> impl FnOnce(std::io::Error) -> PkiError {
    let path = path.display().to_string();
    move |source| PkiError::File { path, source }
}

/// Writes a file beside its place and renames it there, so that no reader sees half of it.
pub fn write(path: &Path, text: &[u8], mode: Mode) -> Result<(), PkiError> {
    let beside = path.with_extension(format!("tmp{}", std::process::id()));
    let bits = if mode == Mode::Private { 0o600 } else { 0o644 };
    let write = || {
        // A leftover of a killed process would keep its own mode.
        match fs::remove_file(&beside) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(bits).open(&beside)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(error(path))
}

/// A folder that only its owner may enter.
pub fn private_dir(path: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(error(path))
}

/// The text of a file, `None` when there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(error(path)(e)),
    }
}
