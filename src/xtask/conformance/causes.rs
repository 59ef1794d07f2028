//! Why tests fail, as data: `conformance/results/causes.yaml`.

use anyhow::Context as _;
use regex::Regex;
use serde::Deserialize;
use std::path::Path;

use super::cast::{is_component, upstream_plays};
use super::results::{Row, State};

/// A pattern and what it means. With both patterns given both must match.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Regular expression over the test's name.
    #[serde(default)]
    test: String,
    /// Regular expression over the failure.
    #[serde(default)]
    failure: String,
    /// What is missing or wrong.
    cause: String,
    /// The test passes without having tested anything: a pass counts as a failure with this cause.
    #[serde(default)]
    hollow: bool,
    /// The component that lacks something: where upstream plays it, the entry says nothing.
    #[serde(default)]
    lacks: String,
}

/// All causes; the first that matches counts.
pub struct Causes(Vec<Cause>);

struct Cause {
    test: Regex,
    failure: Regex,
    text: String,
    hollow: bool,
}

/// The failure of a row whose pass is hollow.
const HOLLOW: &str = "passed without testing anything";

impl Causes {
    /// Out of the file's text, those that can be meant by failures of this suite.
    pub fn parse(yaml: &str, suite: &str) -> anyhow::Result<Causes> {
        let (json, _) = copepod_codec::yaml_to_json(yaml.as_bytes())?;
        let entries: Option<Vec<Entry>> = serde_json::from_slice(&json)?;
        for entry in entries.iter().flatten().filter(|entry| !entry.lacks.is_empty()) {
            anyhow::ensure!(
                is_component(&entry.lacks),
                "the cause '{}' is that of no component: {}",
                entry.cause,
                entry.lacks
            );
        }
        let entries = entries.into_iter().flatten().filter(|entry| !upstream_plays(suite, &entry.lacks));
        let compiled = entries.map(|entry| {
            anyhow::ensure!(
                !entry.test.is_empty() || !entry.failure.is_empty(),
                "the cause '{}' matches everything",
                entry.cause
            );
            let (test, failure) = (Regex::new(&entry.test)?, Regex::new(&entry.failure)?);
            Ok(Cause { test, failure, text: entry.cause, hollow: entry.hollow })
        });
        compiled.collect::<anyhow::Result<Vec<_>>>().map(Causes)
    }

    /// Out of the file.
    pub fn read(path: &Path, suite: &str) -> anyhow::Result<Causes> {
        let context = || path.display().to_string();
        Causes::parse(&std::fs::read_to_string(path).with_context(context)?, suite).with_context(context)
    }

    /// Of a row that did not pass.
    pub fn of(&self, row: &Row) -> Option<&str> {
        let matches = |cause: &&Cause| cause.test.is_match(&row.name) && cause.failure.is_match(&row.failure);
        self.0.iter().find(matches).map(|cause| cause.text.as_str())
    }

    /// The row, failed where its pass is hollow.
    pub fn weighed(&self, row: Row) -> Row {
        let hollow = self.0.iter().any(|cause| cause.hollow && cause.test.is_match(&row.name));
        match row.state {
            State::Passed if hollow => Row { state: State::Failed, failure: HOLLOW.into(), ..row },
            // The entry was removed.
            State::Failed if !hollow && row.failure == HOLLOW => {
                Row { state: State::Passed, failure: String::new(), ..row }
            }
            _ => row,
        }
    }
}
