//! What the suite tells of a finished test (`conformance/suite/rows_test.go`): a line of JSON.

use anyhow::Context as _;
use serde::Deserialize;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use super::results::{Row, State};

/// A failure's text in a row is cut here; the whole stands in the run's log.
const FAILURE_CHARS_MAX: usize = 240;

#[derive(Debug, Deserialize)]
struct Line {
    name: String,
    state: String,
    seconds: f64,
    #[serde(default)]
    message: String,
}

/// A row out of a line of the suite.
pub fn row(line: &str, commit: &str) -> anyhow::Result<Row> {
    let line: Line = serde_json::from_str(line).with_context(|| format!("not a row: {line}"))?;
    let state = match line.state.as_str() {
        "passed" => State::Passed,
        // An interrupted test was ended by us or by Ctrl-C, not by what it tests.
        "skipped" | "pending" | "interrupted" | "aborted" => State::NotRun,
        "failed" | "timedout" | "panicked" => State::Failed,
        other => anyhow::bail!("unknown state {other} of {}", line.name),
    };
    let mut failure = if state == State::Passed { String::new() } else { first_line(&line.message) };
    if line.state == "timedout" {
        failure = format!("longer than the cap: {failure}");
    }
    Ok(Row {
        name: line.name,
        state,
        seconds: (line.seconds * 10.0).round() / 10.0,
        failure,
        cause: String::new(),
        commit: commit.to_string(),
    })
}

/// The first line that tells something. One that only begins a sentence is told with those that end it.
fn first_line(message: &str) -> String {
    let mut out = String::new();
    for line in message.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(line);
        let begins = ["Timed out after", "Told to stop"].iter().any(|begin| line.starts_with(begin));
        if !(begins || line.ends_with(':') || !line.contains(' ')) {
            break;
        }
    }
    out.chars().take(FAILURE_CHARS_MAX).collect()
}

/// Reads a file that grows, line by line.
pub struct Tail {
    path: PathBuf,
    offset: u64,
    rest: String,
}

impl Tail {
    /// From the file's start; it need not be there yet.
    pub fn new(path: PathBuf) -> Tail {
        Tail { path, offset: 0, rest: String::new() }
    }

    /// Lines that have become whole since.
    pub fn lines(&mut self) -> anyhow::Result<Vec<String>> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let mut file = std::fs::File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut new = Vec::new();
        self.offset += u64::try_from(file.read_to_end(&mut new)?)?;
        self.rest.push_str(&String::from_utf8_lossy(&new));
        let mut lines = Vec::new();
        while let Some(end) = self.rest.find('\n') {
            lines.push(self.rest.drain(..=end).collect::<String>().trim_end().to_string());
        }
        Ok(lines)
    }
}
