//! Why tests fail, as data: `conformance/results/causes.yaml`.

use anyhow::Context as _;
use regex::Regex;
use serde::Deserialize;
use std::path::Path;

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
    /// Out of the file's text.
    pub fn parse(yaml: &str) -> anyhow::Result<Causes> {
        let (json, _) = copepod_codec::yaml_to_json(yaml.as_bytes())?;
        let entries: Option<Vec<Entry>> = serde_json::from_slice(&json)?;
        let compiled = entries.unwrap_or_default().into_iter().map(|entry| {
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
    pub fn read(path: &Path) -> anyhow::Result<Causes> {
        let context = || path.display().to_string();
        Causes::parse(&std::fs::read_to_string(path).with_context(context)?).with_context(context)
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
            _ => row,
        }
    }
}
