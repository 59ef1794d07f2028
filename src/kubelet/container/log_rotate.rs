//! Rotation of container logs: at a size the file is renamed, the runtime opens a new one, older ones are compressed and
//! the oldest deleted.
//!
//! upstream: kubelet/logs/container_log_manager.go

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::{Compression, write::GzEncoder};

use crate::context::Context;

/// How often sizes are looked at: there is no event for a size.
const INTERVAL: Duration = Duration::from_secs(10);

/// Looks at the running containers' logs until the agent ends.
pub async fn run(context: &Context) {
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let logs: Vec<(String, PathBuf)> =
            context.cgroups.logs.lock().iter().map(|(id, path)| (id.clone(), path.clone())).collect();
        for (id, path) in logs {
            let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            if size < context.config.container_log_max_size {
                continue;
            }
            if let Err(error) = rotate(context, &id, &path).await {
                tracing::warn!(%error, container = id, path = %path.display(), "log rotation");
            }
        }
    }
}

async fn rotate(context: &Context, id: &str, path: &Path) -> anyhow::Result<()> {
    // The live file and the one about to be made by the rename count too.
    let keep = context.config.container_log_max_files.saturating_sub(2);
    let old = tokio::task::spawn_blocking({
        let path = path.to_owned();
        move || tidy(&path, keep)
    });
    old.await??;
    let stamp =
        jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y%m%d-%H%M%S").to_string();
    let rotated = PathBuf::from(format!("{}.{stamp}", path.display()));
    fs::rename(path, &rotated)?;
    if let Err(error) = context.runtime.reopen_container_log(id).await {
        // The runtime goes on writing to the renamed file: give it its name back.
        fs::rename(&rotated, path)?;
        return Err(error.into());
    }
    Ok(())
}

/// Rotated files of a log, oldest first.
fn rotated(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Removes half-made files and the oldest, compresses the rest.
fn tidy(path: &Path, keep: usize) -> std::io::Result<()> {
    let mut files = Vec::new();
    for file in rotated(path)? {
        if file.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(&file)?;
        } else {
            files.push(file);
        }
    }
    let excess = files.len().saturating_sub(keep);
    for file in files.drain(..excess) {
        fs::remove_file(file)?;
    }
    for file in files {
        if file.extension().is_none_or(|extension| extension != "gz") {
            compress(&file)?;
        }
    }
    Ok(())
}

fn compress(path: &Path) -> std::io::Result<()> {
    let temporary = PathBuf::from(format!("{}.tmp", path.display()));
    let mut encoder = GzEncoder::new(fs::File::create(&temporary)?, Compression::default());
    std::io::copy(&mut fs::File::open(path)?, &mut encoder)?;
    encoder.finish()?.flush()?;
    fs::rename(&temporary, format!("{}.gz", path.display()))?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_are_compressed_and_the_oldest_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("0.log");
        for name in [
            "0.log",
            "0.log.20260101-000001.gz",
            "0.log.20260101-000002",
            "0.log.20260101-000003",
            "0.log.x.tmp",
        ] {
            fs::write(directory.path().join(name), name).expect("written");
        }
        tidy(&log, 2).expect("tidied");
        let names: Vec<String> = rotated(&log)
            .expect("a list")
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        assert_eq!(names, ["0.log.20260101-000002.gz", "0.log.20260101-000003.gz"]);
        assert!(log.exists());
    }
}
