//! Markdown of the results, between markers, so that no figure is typed by hand.

use anyhow::{Context as _, bail};
use std::fmt::Write as _;
use std::path::Path;

use super::quick;
use super::results::{Figures, Part, Results};
use super::rows::{Row, Rows};
use super::side::Which;
use super::stats::Summary;

const BEGIN: &str = "<!-- bench: made by `cargo xtask bench`, do not edit -->";
const END: &str = "<!-- bench: end -->";

/// Puts the short table into the README and all of them into that of conformance/bench.
pub fn write(root: &Path, results: &Results, rows: &Rows) -> anyhow::Result<()> {
    replace(&root.join("README.md"), &short(results, rows))?;
    replace(&root.join("conformance/bench/README.md"), &full(results, rows))
}

/// Every part.
pub fn full(results: &Results, rows: &Rows) -> String {
    let mut names: Vec<&String> = results.parts.keys().collect();
    // api-1000 before api-50000.
    names.sort_by_key(|name| (name.trim_end_matches(char::is_numeric), name.len(), *name));
    names.into_iter().map(|name| part(name, &results.parts[name], rows)).collect::<Vec<_>>().join("\n")
}

/// One part: a line about the run, then its rows.
pub fn part(name: &str, part: &Part, rows: &Rows) -> String {
    let run = &part.run;
    // The design's figures are for one size.
    let sized = name.starts_with("api-") || name == quick::NAME;
    let with_target = name == format!("api-{}", Row::TARGET_PODS) || !sized;
    let mut out = format!(
        "### {name}\n\n{} rounds in {:.0} s on {} at {}; load average {:.1} before, {:.1} after; {}.\n\n",
        run.rounds,
        run.seconds,
        run.date,
        run.commit.get(..12).unwrap_or(&run.commit),
        run.load_average[0],
        run.load_average[1],
        run.versions.values().cloned().collect::<Vec<_>>().join(", "),
    );
    let sides: Vec<Which> = [Which::Upstream, Which::Ours, Which::OursEmbedded, Which::Floor]
        .into_iter()
        .filter(|side| {
            part.rows.values().any(|f| f.sides.contains_key(side) || f.not_supported.contains_key(side))
        })
        .collect();
    let head: Vec<&str> = sides.iter().map(|side| side.name()).collect();
    let columns = format!("| what | unit | {} | ours / upstream | ours / floor | target |", head.join(" | "));
    let lines = "|---".repeat(columns.matches('|').count() - 1);
    out += &format!("{columns}\n{lines}|\n");
    for row in &rows.rows {
        let Some(figures) = part.rows.get(&row.row) else { continue };
        let cells: Vec<String> = sides.iter().map(|side| cell(figures, *side)).collect();
        let target = if with_target { target(row, figures) } else { String::new() };
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {target} |",
            row.what,
            row.unit,
            cells.join(" | "),
            ratio(figures.ratio_to_upstream.get(&Which::Ours)),
            ratio(figures.ratio_to_floor.get(&Which::Ours)),
        );
    }
    out
}

/// Rows that people look for first, at the size that the targets are for.
pub fn short(results: &Results, rows: &Rows) -> String {
    let mut out = String::from(
        "| what | upstream | ours | ours, embedded store | ours / upstream |\n|---|---|---|---|---|\n",
    );
    let whole = format!("api-{}", Row::TARGET_PODS);
    // What the guard saw is better than nothing: few pods, few rounds.
    let api = if results.parts.contains_key(&whole) { whole.as_str() } else { quick::NAME };
    let mut told = String::new();
    for (name, part) in [api, "scheduler", "pods"].iter().filter_map(|n| results.parts.get_key_value(*n)) {
        let run = &part.run;
        let _infallible = writeln!(
            told,
            "{name}: {} round(s) on {}, load average {:.0} before and {:.0} after.",
            run.rounds, run.date, run.load_average[0], run.load_average[1]
        );
        for row in rows.rows.iter().filter(|row| row.short) {
            let Some(figures) = part.rows.get(&row.row) else { continue };
            let cell = |side| match figures.sides.get(&side) {
                Some(summary) => format!("{} {}", number(summary.median), row.unit),
                None => String::new(),
            };
            let _infallible = writeln!(
                out,
                "| {} | {} | {} | {} | {} |",
                row.what,
                cell(Which::Upstream),
                cell(Which::Ours),
                cell(Which::OursEmbedded),
                ratio(figures.ratio_to_upstream.get(&Which::Ours)),
            );
        }
    }
    format!("{told}\n{out}")
}

fn cell(figures: &Figures, side: Which) -> String {
    match figures.sides.get(&side) {
        Some(summary) => spread(summary),
        None if figures.not_supported.contains_key(&side) => "not supported".into(),
        None => String::new(),
    }
}

fn spread(summary: &Summary) -> String {
    let [median, least, most] = [summary.median, summary.least, summary.most].map(number);
    if least == most { median } else { format!("{median} ({least} - {most})") }
}

/// The design's figure, and whether it was reached.
fn target(row: &Row, figures: &Figures) -> String {
    let met = |seen: f64, wanted: f64| if row.more_is_better { seen >= wanted } else { seen <= wanted };
    let mark = |met: bool| if met { "met" } else { "missed" };
    let mut said = Vec::new();
    let absolute = [(row.target, Which::Ours, ""), (row.target_embedded, Which::OursEmbedded, "embedded ")];
    for (wanted, side, prefix) in absolute {
        if let (Some(wanted), Some(seen)) = (wanted, figures.sides.get(&side)) {
            said.push(format!("{prefix}{}: {}", number(wanted), mark(met(seen.median, wanted))));
        }
    }
    if let (Some(wanted), Some(seen)) = (row.target_ratio, figures.ratio_to_upstream.get(&Which::Ours)) {
        said.push(format!("{} x: {}", number(wanted), mark(met(*seen, wanted))));
    }
    said.join("; ")
}

/// Three digits that count.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 99.5 => format!("{value:.0}"),
        v if v >= 9.95 => format!("{value:.1}"),
        v if v >= 0.0995 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn ratio(value: Option<&f64>) -> String {
    value.map(|v| number(*v)).unwrap_or_default()
}

/// Replaces what stands between the markers.
fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    let old = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let new = between(&old, text).with_context(|| file.display().to_string())?;
    std::fs::write(file, new).with_context(|| file.display().to_string())
}

pub fn between(old: &str, text: &str) -> anyhow::Result<String> {
    let Some((head, rest)) = old.split_once(BEGIN) else { bail!("there is no line {BEGIN}") };
    let Some((_, tail)) = rest.split_once(END) else { bail!("there is no line {END}") };
    Ok(format!("{head}{BEGIN}\n{}\n{END}{tail}", text.trim_end()))
}
