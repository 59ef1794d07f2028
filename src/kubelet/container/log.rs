//! Reading container logs in CRI's format: `<RFC 3339 time> <stdout|stderr> <P|F> <text>`.
//!
//! Following is by inotify on the log's directory: writes to the file and its exchange by rotation both wake the reader.
//!
//! upstream: cri-client/pkg/logs/logs.go

use std::io::SeekFrom;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

use crate::directory::{DirectoryWatch, GROWTH};

/// Block read when the start of the last lines is looked for.
const BLOCK_BYTES: u64 = 16 * 1024;
/// Output is handed on in pieces of about this size.
const CHUNK_BYTES: usize = 32 * 1024;
/// How often a silent log's container is asked whether it still runs. upstream: logs.go logForceCheckPeriod
const STATE_CHECK: Duration = Duration::from_secs(1);

/// What of a log is wanted.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on as the container writes.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail: Option<u64>,
    /// Only what is newer.
    pub since: Option<Timestamp>,
    /// Put its time before each line.
    pub timestamps: bool,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Why reading stopped early. `Gone`: the reader went away, nothing is wrong.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be read.
    #[error("failed to read log: {0}")]
    Io(#[from] std::io::Error),
    /// A line is not in the format.
    #[error("unsupported log format: {0:?}")]
    Format(String),
    /// Nobody reads any more.
    #[error("reader is gone")]
    Gone,
}

/// A line of a log.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    time: &'a str,
    /// The text, with its newline if the line is whole.
    text: &'a [u8],
    whole: bool,
}

// upstream: cri-client/pkg/logs/logs.go parseCRILog
fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = parts.next()?;
    if !matches!(stream, b"stdout" | b"stderr") {
        return None;
    }
    let tags = parts.next()?;
    let text = parts.next()?;
    let whole = tags.split(|byte| *byte == b':').next()? == b"F";
    let text = if whole { text } else { text.strip_suffix(b"\n").unwrap_or(text) };
    Some(Line { time, text, whole })
}

/// Sends a log's text to `out`. `running` says whether the container may still write.
pub async fn read_log<R>(
    path: &Path,
    options: &LogOptions,
    out: &mpsc::Sender<Bytes>,
    running: impl Fn() -> R,
) -> Result<(), LogError>
where
    R: Future<Output = bool>,
{
    let mut file = File::open(path).await?;
    let start = match options.tail {
        Some(lines) => tail_start(&mut file, lines).await?,
        None => 0,
    };
    file.seek(SeekFrom::Start(start)).await?;
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, file);
    let watch = if options.follow {
        path.parent().map(|parent| DirectoryWatch::new(parent, GROWTH)).transpose()?
    } else {
        None
    };
    let mut writer = Writer { options, out, chunk: BytesMut::new(), sent: 0, line_start: true };
    let mut line = Vec::new();
    // After the container's end the rest is read once more: it may have written between the last read and its end.
    let mut last_round = false;
    // The file after a rotation, until the one before it is read to its end.
    let mut successor = None;
    loop {
        let read = reader.read_until(b'\n', &mut line).await?;
        if read > 0 && line.ends_with(b"\n") {
            if writer.line(&line).await? {
                return writer.flush().await;
            }
            line.clear();
            continue;
        }
        writer.flush().await?;
        let Some(watch) = &watch else { return Ok(()) };
        if last_round {
            return Ok(());
        }
        if let Some(next) = successor.take() {
            reader = BufReader::with_capacity(CHUNK_BYTES, next);
            line.clear();
            continue;
        }
        successor = exchanged(path, reader.get_ref()).await?;
        if successor.is_some() {
            // Once more to the end: the old file was written to until the new one was there.
            continue;
        }
        // Asked before any waiting: the log of a container that has ended does not change any more.
        last_round = !running().await;
        if last_round {
            continue;
        }
        tokio::select! {
            changed = watch.changed() => changed?,
            () = tokio::time::sleep(STATE_CHECK) => {}
            () = out.closed() => return Err(LogError::Gone),
        }
    }
}

/// The file at `path` if it is another one than the one that is open: the log was rotated.
async fn exchanged(path: &Path, open: &File) -> Result<Option<File>, LogError> {
    use std::os::unix::fs::MetadataExt;
    let ours = open.metadata().await?;
    match tokio::fs::metadata(path).await {
        Ok(there) if there.ino() != ours.ino() => Ok(Some(File::open(path).await?)),
        // Between rename and reopen there is no file for a moment.
        _ => Ok(None),
    }
}

/// Offset at which the last `lines` lines begin.
async fn tail_start(file: &mut File, lines: u64) -> Result<u64, LogError> {
    let size = file.seek(SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(size);
    }
    let mut newlines = 0;
    let mut end = size;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES);
        file.seek(SeekFrom::Start(start)).await?;
        block.resize(usize::try_from(end - start).unwrap_or(0), 0);
        file.read_exact(&mut block).await?;
        for (at, byte) in block.iter().enumerate().rev() {
            let position = start + at as u64;
            // The newline at the very end closes the last line.
            if *byte == b'\n' && position + 1 != size {
                newlines += 1;
                if newlines == lines {
                    return Ok(position + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

struct Writer<'a> {
    options: &'a LogOptions,
    out: &'a mpsc::Sender<Bytes>,
    chunk: BytesMut,
    sent: u64,
    line_start: bool,
}

impl Writer<'_> {
    /// Takes one raw line; true when the limit is reached.
    async fn line(&mut self, raw: &[u8]) -> Result<bool, LogError> {
        let line = parse(raw).ok_or_else(|| LogError::Format(String::from_utf8_lossy(raw).into_owned()))?;
        if let Some(since) = self.options.since {
            let time: Option<Timestamp> = line.time.parse().ok();
            if time.is_some_and(|time| time < since) {
                return Ok(false);
            }
        }
        if self.options.timestamps && self.line_start {
            self.push(line.time.as_bytes());
            self.push(b" ");
        }
        self.push(line.text);
        self.line_start = line.whole;
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush().await?;
        }
        Ok(self.options.limit_bytes.is_some_and(|limit| self.sent >= limit))
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = self.options.limit_bytes.map_or(u64::MAX, |limit| limit.saturating_sub(self.sent));
        let take = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        self.chunk.extend_from_slice(&bytes[..take]);
        self.sent += take as u64;
    }

    async fn flush(&mut self) -> Result<(), LogError> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.out.send(self.chunk.split().freeze()).await.map_err(|_| LogError::Gone)
    }
}

/// The end of a log, for a termination message: at most so many lines and bytes.
pub async fn last_words(path: &Path, lines: u64, bytes: usize) -> Result<Vec<u8>, LogError> {
    let (out, mut chunks) = mpsc::channel::<Bytes>(4);
    let options = LogOptions { tail: Some(lines), ..LogOptions::default() };
    let collect = async {
        let mut all: Vec<u8> = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            all.extend_from_slice(&chunk);
        }
        all
    };
    let read = async {
        let result = read_log(path, &options, &out, || std::future::ready(false)).await;
        drop(out);
        result
    };
    let (result, mut all) = futures::join!(read, collect);
    result?;
    let cut = all.len().saturating_sub(bytes);
    Ok(all.split_off(cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01.5Z stdout F one\n2026-01-01T00:00:02Z stderr P tw\n2026-01-01T00:00:02Z stderr F o\n2026-01-01T00:00:03Z stdout F three\n";

    async fn read(options: LogOptions) -> String {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), LOG).expect("written");
        let (out, mut chunks) = mpsc::channel(16);
        read_log(file.path(), &options, &out, || std::future::ready(false)).await.expect("read");
        drop(out);
        let mut all = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            all.extend_from_slice(&chunk);
        }
        String::from_utf8(all).expect("text")
    }

    #[tokio::test]
    async fn parts_of_a_log() {
        let base = LogOptions::default;
        let since = "2026-01-01T00:00:02Z".parse().ok();
        for (options, want) in [
            (base(), "one\ntwo\nthree\n"),
            (LogOptions { tail: Some(1), ..base() }, "three\n"),
            (LogOptions { tail: Some(0), ..base() }, ""),
            (LogOptions { tail: Some(100), ..base() }, "one\ntwo\nthree\n"),
            (LogOptions { since, ..base() }, "two\nthree\n"),
            (LogOptions { limit_bytes: Some(5), ..base() }, "one\nt"),
            (
                LogOptions { timestamps: true, ..base() },
                "2026-01-01T00:00:01.5Z one\n2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z three\n",
            ),
        ] {
            assert_eq!(read(options.clone()).await, want, "{options:?}");
        }
    }

    /// A reader that follows sees what is written later, across a rotation, and ends with the container.
    #[tokio::test]
    async fn following_survives_rotation() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        std::fs::write(&path, "2026-01-01T00:00:01Z stdout F one\n").expect("written");
        let running = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let (out, mut chunks) = mpsc::channel(16);
        let (reader_path, still) = (path.clone(), running.clone());
        let reader = tokio::spawn(async move {
            let options = LogOptions { follow: true, ..LogOptions::default() };
            let alive = || std::future::ready(still.load(std::sync::atomic::Ordering::SeqCst));
            read_log(&reader_path, &options, &out, alive).await
        });
        assert_eq!(chunks.recv().await.expect("a chunk"), "one\n");
        std::fs::rename(&path, directory.path().join("0.log.1")).expect("renamed");
        std::fs::write(&path, "2026-01-01T00:00:02Z stdout F two\n").expect("written");
        assert_eq!(chunks.recv().await.expect("a chunk"), "two\n");
        running.store(false, std::sync::atomic::Ordering::SeqCst);
        std::fs::write(directory.path().join("touch"), "").expect("written");
        assert_eq!(chunks.recv().await, None);
        reader.await.expect("joined").expect("an orderly end");
    }

    #[tokio::test]
    async fn what_is_no_log_is_told() {
        assert_eq!(parse(b"nonsense\n"), None);
        assert_eq!(parse(b"2026 stdin F x\n"), None);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), LOG).expect("written");
        assert_eq!(last_words(file.path(), 80, 7).await.expect("read"), b"\nthree\n");
    }
}
