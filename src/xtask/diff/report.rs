//! Differences by cause: what is accepted, what people see, what is kept as a result.

use anyhow::Context as _;
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::compare::Difference;
use super::script::Script;

/// Lines of a pair of answers that are shown.
const LINES_MAX: usize = 60;
/// Width of one of the two columns.
const COLUMN: usize = 76;
/// Differing lines of each answer that are kept in the results.
const KEPT_LINES_MAX: usize = 10;
/// Characters of such a line: whole objects stand in some messages.
const KEPT_LINE_CHARS_MAX: usize = 160;
/// Characters of a request that are kept in the results.
const KEPT_REQUEST_CHARS_MAX: usize = 800;

/// A difference that is known and stays.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// Regular expression over the cause.
    pub cause: String,
    /// Why it stays.
    pub reason: String,
}

/// Known differences.
pub struct AcceptedList(Vec<(Regex, Accepted)>);

impl AcceptedList {
    /// Out of `conformance/diff/accepted.yaml`.
    pub fn parse(yaml: &str) -> anyhow::Result<AcceptedList> {
        let (json, _) = copepod_codec::yaml_to_json(yaml.as_bytes())?;
        let rows: Option<Vec<Accepted>> = serde_json::from_slice(&json)?;
        let rows = rows.unwrap_or_default().into_iter().map(|row| Ok((Regex::new(&row.cause)?, row)));
        rows.collect::<anyhow::Result<Vec<_>>>().map(AcceptedList)
    }

    /// Out of the file.
    pub fn read(path: &Path) -> anyhow::Result<AcceptedList> {
        AcceptedList::parse(&std::fs::read_to_string(path).with_context(|| path.display().to_string())?)
    }

    /// The reason why a cause stays.
    pub fn reason(&self, cause: &str) -> Option<&str> {
        self.0.iter().find(|(pattern, _)| pattern.is_match(cause)).map(|(_, row)| row.reason.as_str())
    }
}

/// All that was seen of one cause.
#[derive(Clone, Debug)]
pub struct Cause {
    /// Scripts that show it.
    pub count: usize,
    /// Resources that show it.
    pub resources: BTreeSet<String>,
    /// The first one, made small.
    pub example: Script,
    /// How it shows there.
    pub difference: Difference,
}

/// Causes by their name.
#[derive(Default)]
pub struct Causes {
    /// By name.
    pub by_name: BTreeMap<String, Cause>,
}

impl Causes {
    /// Counts a script's differences; names of causes that are new.
    pub fn add(&mut self, script: &Script, differences: &[Difference]) -> Vec<String> {
        let mut new = Vec::new();
        let unique: BTreeMap<&str, &Difference> =
            differences.iter().rev().map(|d| (d.cause.as_str(), d)).collect();
        for (name, difference) in unique {
            if let Some(cause) = self.by_name.get_mut(name) {
                cause.count += 1;
                cause.resources.insert(difference.resource.clone());
                continue;
            }
            new.push(name.to_string());
            let resources = BTreeSet::from([difference.resource.clone()]);
            let cause =
                Cause { count: 1, resources, example: script.clone(), difference: difference.clone() };
            self.by_name.insert(name.to_string(), cause);
        }
        new
    }

    /// Most frequent first.
    pub fn sorted(&self) -> Vec<(&String, &Cause)> {
        let mut rows: Vec<_> = self.by_name.iter().collect();
        rows.sort_by_key(|(name, cause)| (std::cmp::Reverse(cause.count), (*name).clone()));
        rows
    }
}

/// What was run.
pub struct Run {
    /// Seed of the generator.
    pub seed: u64,
    /// Requests sent to each server by scripts.
    pub requests: usize,
    /// Scripts.
    pub scripts: usize,
    /// Kinds, by plural name.
    pub kinds: Vec<String>,
    /// Upstream's `git version`.
    pub upstream: String,
    /// Ours.
    pub commit: String,
}

/// The results as they are kept.
#[derive(Serialize)]
struct Row<'a> {
    cause: &'a str,
    scripts: usize,
    resources: &'a BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<&'a str>,
    /// Of open causes only.
    #[serde(skip_serializing_if = "Option::is_none")]
    example: Option<Example>,
}

/// One place where a cause shows: enough to know it again. The whole script comes out of the seed at any time.
#[derive(Serialize)]
struct Example {
    script: String,
    request: String,
    upstream: Vec<String>,
    ours: Vec<String>,
}

/// The request that shows a cause and where the answers part, both cut.
fn example(cause: &Cause) -> anyhow::Result<Example> {
    let request = match cause.example.steps.get(cause.difference.step) {
        Some(step) => serde_json::to_string(step)?,
        None => "what is stored in the end".into(),
    };
    let (upstream, ours) = differing_lines(&cause.difference.upstream, &cause.difference.ours);
    let script = cause.example.name.clone();
    Ok(Example { script, request: request.chars().take(KEPT_REQUEST_CHARS_MAX).collect(), upstream, ours })
}

/// Of both texts the lines that the other one has not, the first of them and what of them is not too long: a line that is
/// longer begins shortly before the place where it parts from its counterpart.
fn differing_lines(left: &str, right: &str) -> (Vec<String>, Vec<String>) {
    // What every answer differs in says nothing about this one.
    let lines = |text: &str| -> Vec<String> {
        pretty_lines(text).into_iter().filter(|line| !line.starts_with("x-kubernetes-pf-")).collect()
    };
    let (left, right) = (lines(left), lines(right));
    let (mut theirs, mut own) = (Vec::new(), Vec::new());
    for (a, b) in align(&left, &right).into_iter().filter(|(a, b)| a != b) {
        let same = match (a, b) {
            (Some(a), Some(b)) => a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count(),
            _ => 0,
        };
        for (line, out) in [(a, &mut theirs), (b, &mut own)] {
            let Some(line) = line.filter(|_| out.len() < KEPT_LINES_MAX) else { continue };
            let long = line.chars().count() > KEPT_LINE_CHARS_MAX;
            let from = if long { same.saturating_sub(KEPT_LINE_CHARS_MAX / 2) } else { 0 };
            out.push(line.chars().skip(from).take(KEPT_LINE_CHARS_MAX).collect());
        }
    }
    (theirs, own)
}

/// `conformance/results/diff.json`
pub fn results(run: &Run, causes: &Causes, accepted: &AcceptedList) -> anyhow::Result<String> {
    let rows: Vec<Row> = causes
        .sorted()
        .into_iter()
        .map(|(name, cause)| {
            let accepted = accepted.reason(name);
            let example = accepted.is_none().then(|| example(cause)).transpose()?;
            Ok(Row { cause: name, scripts: cause.count, resources: &cause.resources, accepted, example })
        })
        .collect::<anyhow::Result<_>>()?;
    let open = rows.iter().filter(|r| r.accepted.is_none()).count();
    let document = json!({
        "commit": run.commit,
        "upstream": run.upstream,
        "seed": run.seed,
        "requests": run.requests,
        "scripts": run.scripts,
        "kinds": run.kinds,
        "causesOpen": open,
        "causesAccepted": rows.len() - open,
        "causes": rows,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&document)?))
}

/// One cause for people: the smallest script and both answers.
pub fn cause_text(name: &str, cause: &Cause) -> anyhow::Result<String> {
    let mut out = String::new();
    writeln!(out, "=== {name}\n    in {} script(s); the smallest:", cause.count)?;
    for line in cause.example.to_yaml()?.lines() {
        writeln!(out, "    {line}")?;
    }
    writeln!(out, "    step {}: {:<COLUMN$} | ours", cause.difference.step, "upstream")?;
    out.push_str(&side_by_side(&cause.difference.upstream, &cause.difference.ours));
    Ok(out)
}

/// Two texts in two columns; what is the same is left out but for its neighbours.
pub fn side_by_side(left: &str, right: &str) -> String {
    let (left, right) = (pretty_lines(left), pretty_lines(right));
    let pairs = align(&left, &right);
    let differs = |pair: &(Option<&String>, Option<&String>)| pair.0 != pair.1;
    let mut out = String::new();
    let mut shown = 0;
    for (index, pair) in pairs.iter().enumerate() {
        let near = pairs[index.saturating_sub(2)..(index + 3).min(pairs.len())].iter().any(differs);
        if !near || shown > LINES_MAX {
            continue;
        }
        shown += 1;
        let cut = |line: Option<&String>| line.map_or(String::new(), |l| l.chars().take(COLUMN).collect());
        let mark = if differs(pair) { '!' } else { ' ' };
        out.push_str(&format!("  {mark} {:<COLUMN$} | {}\n", cut(pair.0), cut(pair.1)));
    }
    out
}

fn pretty_lines(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for line in text.lines() {
        match serde_json::from_str::<serde_json::Value>(line) {
            Ok(tree) if line.starts_with(['{', '[']) => {
                let pretty = serde_json::to_string_pretty(&tree).unwrap_or_default();
                out.extend(pretty.lines().map(str::to_string));
            }
            _ => out.push(line.to_string()),
        }
    }
    out
}

/// Longest common subsequence; two differing lines that stand at the same place share a row.
fn align<'a>(left: &'a [String], right: &'a [String]) -> Vec<(Option<&'a String>, Option<&'a String>)> {
    let (n, m) = (left.len(), right.len());
    let mut best = vec![vec![0u32; m + 1]; n + 1];
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            best[i][j] =
                if left[i] == right[j] { best[i + 1][j + 1] + 1 } else { best[i + 1][j].max(best[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    while i < n || j < m {
        // Equal lines, or a pair of unequal ones beside which nothing equal is lost.
        if i < n && j < m && (left[i] == right[j] || best[i + 1][j + 1] == best[i][j]) {
            out.push((Some(&left[i]), Some(&right[j])));
            (i, j) = (i + 1, j + 1);
        } else if j == m || (i < n && best[i + 1][j] >= best[i][j + 1]) {
            out.push((Some(&left[i]), None));
            i += 1;
        } else {
            out.push((None, Some(&right[j])));
            j += 1;
        }
    }
    out
}
