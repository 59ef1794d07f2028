//! The results for people: tables between markers of `conformance/README.md`.

use anyhow::Context as _;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::results::{Results, State};

/// What a failure without a cause is listed as.
const UNEXPLAINED: &str = "not yet explained";

/// Tests, passed, failed and not run of each group, then the failures by cause.
pub fn markdown(results: &Results) -> anyhow::Result<String> {
    let mut groups: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    let mut all = [0; 3];
    for row in results.rows() {
        let index = match row.state {
            State::Passed => 0,
            State::Failed => 1,
            State::NotRun => 2,
        };
        groups.entry(row.group()).or_default()[index] += 1;
        all[index] += 1;
    }
    let mut out = String::from("| group | tests | passed | failed | not run |\n|---|---|---|---|---|\n");
    for (group, counts) in groups.into_iter().chain([("**all**", all)]) {
        let [passed, failed, not_run] = counts;
        writeln!(out, "| {group} | {} | {passed} | {failed} | {not_run} |", passed + failed + not_run)?;
    }
    let causes = by_cause(results);
    if !causes.is_empty() {
        out.push_str("\n| cause of failure | tests | for example |\n|---|---|---|\n");
        for (cause, tests) in causes {
            writeln!(out, "| {} | {} | {} |", cell(&cause), tests.len(), cell(tests[0]))?;
        }
    }
    Ok(out)
}

/// Failures by cause, the most frequent first.
pub fn by_cause(results: &Results) -> Vec<(String, Vec<&str>)> {
    let mut causes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for row in results.rows().filter(|row| row.state == State::Failed) {
        let cause = if row.cause.is_empty() { UNEXPLAINED } else { &row.cause };
        causes.entry(cause.to_string()).or_default().push(&row.name);
    }
    let mut causes: Vec<_> = causes.into_iter().collect();
    causes.sort_by_key(|(_, tests)| std::cmp::Reverse(tests.len()));
    causes
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Names of the suites whose tables a document shows.
pub fn suites(document: &str) -> Vec<&str> {
    let names = document.lines().filter_map(|l| l.strip_prefix("<!-- results of ")?.strip_suffix(" -->"));
    names.collect()
}

/// The document with this text between the markers of a suite.
pub fn replaced(document: &str, suite: &str, table: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- results of {suite} -->\n"), format!("<!-- end of {suite} -->\n"));
    let (before, rest) = document.split_once(&begin).with_context(|| format!("no line {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("no line {end}"))?;
    Ok(format!("{before}{begin}\n{table}\n{end}{after}"))
}
