//! Tests that passed once and must go on passing: `conformance/must-pass.txt`. The list may only grow.

use std::collections::BTreeSet;
use std::path::Path;

use super::results::{self, Results, Row, State};

/// Seconds of tests that `--quick` runs on each process: what `hack/test` can afford.
const QUICK_SECONDS_MAX: f64 = 300.0;
/// A test that takes longer is not quick, whatever the budget.
const QUICK_TEST_SECONDS_MAX: f64 = 30.0;

/// Names, one a line, sorted.
pub fn read(path: &Path) -> anyhow::Result<BTreeSet<String>> {
    Ok(if path.exists() { results::names(path)?.into_iter().collect() } else { BTreeSet::new() })
}

/// Writes the list.
pub fn write(path: &Path, list: &BTreeSet<String>) -> anyhow::Result<()> {
    let head = "# Tests that must pass; made by `cargo xtask conformance`, which only adds.\n";
    let lines: Vec<&str> = list.iter().map(String::as_str).collect();
    results::write(path, &format!("{head}{}\n", lines.join("\n")))
}

/// What this run says: tests to add, and the listed ones that failed.
pub fn judge<'a>(
    list: &BTreeSet<String>,
    ran: impl Iterator<Item = &'a Row>,
) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut new, mut broken) = (Vec::new(), Vec::new());
    for row in ran {
        match row.state {
            State::Passed if !list.contains(&row.name) => new.push(row.name.as_str()),
            State::Failed if list.contains(&row.name) => broken.push(row.name.as_str()),
            _ => {}
        }
    }
    (new, broken)
}

/// Those of the list that fit the time of `hack/test` on so many processes: the fastest ones, none that must run alone.
pub fn quick(list: &BTreeSet<String>, results: &Results, procs: usize) -> Vec<String> {
    let seconds = |name: &String| results.get(name).map_or(f64::MAX, |row| row.seconds);
    let mut names: Vec<&String> = list
        .iter()
        .filter(|name| !results::is_serial(name) && seconds(name) <= QUICK_TEST_SECONDS_MAX)
        .collect();
    names.sort_by(|a, b| seconds(a).total_cmp(&seconds(b)));
    #[expect(clippy::cast_precision_loss, reason = "a handful of processes")]
    let mut left = QUICK_SECONDS_MAX * procs as f64;
    let fits = |name: &&String| {
        left -= seconds(name);
        left >= 0.0
    };
    names.into_iter().take_while(fits).cloned().collect()
}
