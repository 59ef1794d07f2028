//! One row a test, kept under version control: `conformance/results/<suite>.json`.
//!
//! Owns: the rows of a suite, their file, and how a newer run is merged into an older one. Does not: run anything.
//!
//! Invariants: each known test has exactly one row, in the order of the names; a newer row replaces the older one; one row
//! stands on one line, so that a change of the file reads as a change of tests.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

use super::causes::Causes;

/// How a test ended.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum State {
    /// All its checks held.
    #[serde(rename = "passed")]
    Passed,
    /// One did not.
    #[serde(rename = "failed")]
    Failed,
    /// It was not started, was interrupted, or skipped itself.
    #[default]
    #[serde(rename = "not run")]
    NotRun,
}

/// A test and how it ended last.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The test's full name.
    pub name: String,
    /// How it ended.
    pub state: State,
    /// How long it took.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seconds: f64,
    /// The first line that tells what failed, or why it skipped itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure: String,
    /// Why, in this project's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// The checkout that ran it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub commit: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
}

impl Row {
    /// `sig-node` of `[sig-node] Pods ...`.
    pub fn group(&self) -> &str {
        group(&self.name)
    }
}

/// `sig-node` of `[sig-node] Pods ...`.
pub fn group(name: &str) -> &str {
    name.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or("none", |(group, _)| group)
}

/// Whether a test must run alone.
pub fn is_serial(name: &str) -> bool {
    name.contains("[Serial]")
}

/// The rows of a suite.
#[derive(Debug, PartialEq)]
pub struct Results(BTreeMap<String, Row>);

impl Results {
    /// A row for each of these tests; none has run.
    pub fn none(tests: &[String]) -> Results {
        let row = |name: &String| (name.clone(), Row { name: name.clone(), ..Row::default() });
        Results(tests.iter().map(row).collect())
    }

    /// What the file says of these tests. No file: none has run. Rows of tests that are gone are left out.
    pub fn read(path: &Path, tests: &[String]) -> anyhow::Result<Results> {
        let mut results = Results::none(tests);
        if path.exists() {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let rows: Vec<Row> = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
            rows.into_iter().for_each(|row| results.put(row));
        }
        Ok(results)
    }

    /// Replaces a test's row. A test that was not run says nothing new about one that was.
    pub fn put(&mut self, row: Row) {
        if let Some(old) = self.0.get_mut(&row.name) {
            let says_nothing = row.state == State::NotRun && row.failure.is_empty();
            if !(says_nothing && old.state != State::NotRun) {
                *old = row;
            }
        }
    }

    /// All rows, by name.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.0.values()
    }

    /// One test's row.
    pub fn get(&self, name: &str) -> Option<&Row> {
        self.0.get(name)
    }

    /// How many ended so.
    pub fn count(&self, state: State) -> usize {
        self.rows().filter(|row| row.state == state).count()
    }

    /// Names each failure's cause anew.
    pub fn explain(&mut self, causes: &Causes) {
        for row in self.0.values_mut() {
            let told = row.state == State::Failed || !row.failure.is_empty();
            row.cause = if told { causes.of(row).unwrap_or_default().to_string() } else { String::new() };
        }
    }

    /// The text of the file.
    pub fn text(&self) -> anyhow::Result<String> {
        let rows = self.rows().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        Ok(format!("[\n{}\n]\n", rows.join(",\n")))
    }

    /// Writes the file as a whole: a run that is killed leaves the old or the new one.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        write(path, &self.text()?)
    }
}

/// Writes a file beside the old one and puts it in its place.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let context = || path.display().to_string();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(context)?;
    }
    let new = path.with_extension("new");
    std::fs::write(&new, text).with_context(context)?;
    std::fs::rename(&new, path).with_context(context)
}

/// The names in a file, one a line.
pub fn names(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect())
}
