//! Mount points that the machine lacks: made for the nodes, remembered, and removed with the cluster.

use super::holder::{KEPT, VOLATILE};
use crate::layout::Layout;
use anyhow::Context as _;
use copepod_pki::files::{self, Mode};
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

fn record(layout: &Layout) -> PathBuf {
    layout.join("nodes/made-folders")
}

/// Makes what is missing. A folder is written down before it is made: a crash between leaves no trace.
pub fn ensure(layout: &Layout) -> anyhow::Result<()> {
    let text = files::read(&record(layout))?.unwrap_or_default();
    let mut made: BTreeSet<PathBuf> = text.lines().map(PathBuf::from).collect();
    let points = KEPT.iter().map(|(point, _)| *point).chain(VOLATILE);
    let missing: Vec<PathBuf> = points
        .flat_map(|point| Path::new(point).ancestors().filter(|path| !path.exists()).map(Path::to_owned))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    made.extend(missing.iter().cloned());
    let text: String = made.iter().map(|path| format!("{}\n", path.display())).collect();
    files::write(&record(layout), text.as_bytes(), Mode::Public)?;
    for path in missing {
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    }
    Ok(())
}

/// Removes what was made and is empty. What another cluster has mounted something on meanwhile stays: the kernel would take
/// the mount away with the folder.
pub fn remove(layout: &Layout) -> anyhow::Result<()> {
    let Some(text) = files::read(&record(layout))? else { return Ok(()) };
    let used = mount_points()?;
    let mut made: Vec<&Path> = text.lines().map(Path::new).collect();
    made.sort_by_key(|path| std::cmp::Reverse(path.as_os_str().len()));
    for path in made.into_iter().filter(|path| !used.contains(*path)) {
        match fs::remove_dir(path) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {}
            Err(error) => return Err(error).with_context(|| format!("removing {}", path.display())),
        }
    }
    Ok(())
}

/// Mount points of all processes of the machine.
fn mount_points() -> anyhow::Result<HashSet<PathBuf>> {
    let mut found = HashSet::new();
    for entry in fs::read_dir("/proc").context("reading /proc")? {
        // A process that has just ended has no mounts any more.
        let table = fs::read_to_string(entry?.path().join("mountinfo")).unwrap_or_default();
        found.extend(table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from));
    }
    Ok(found)
}
