//! Plots of the results as SVG, written by hand: bars of ratios, and growth over the number of pods.

use anyhow::Context as _;
use std::fmt::Write as _;
use std::path::Path;

use super::results::Results;
use super::rows::{Row, Rows};
use super::side::Which;
use super::table::number;

const WIDTH: f64 = 860.0;
const LABEL: f64 = 330.0;
const LINE: f64 = 22.0;
const TOP: f64 = 44.0;
const COLORS: [(Which, &str); 4] = [
    (Which::Upstream, "#7a7f87"),
    (Which::Ours, "#0b7a75"),
    (Which::OursEmbedded, "#d17b0f"),
    (Which::Floor, "#b8bcc2"),
];
/// Ratios are drawn on a scale of powers of ten, from a thousandth to ten.
const DECADES: [f64; 5] = [0.001, 0.01, 0.1, 1.0, 10.0];

/// Writes every plot for which there are results.
pub fn write(root: &Path, results: &Results, rows: &Rows) -> anyhow::Result<()> {
    let folder = root.join("conformance/results");
    std::fs::create_dir_all(&folder)?;
    let save = |name: &str, svg: Option<String>| match svg {
        Some(svg) => std::fs::write(folder.join(name), svg).with_context(|| name.to_string()),
        None => Ok(()),
    };
    save("bench-api.svg", bars(results, rows, &format!("api-{}", Row::TARGET_PODS)))?;
    save("bench-scheduler.svg", bars(results, rows, "scheduler"))?;
    for row in rows.rows.iter().filter(|row| row.short) {
        save(&format!("bench-growth-{}.svg", row.row), growth(results, row))?;
    }
    Ok(())
}

/// Ours as a part of upstream's, a bar a row.
pub fn bars(results: &Results, rows: &Rows, name: &str) -> Option<String> {
    let part = results.parts.get(name)?;
    let drawn: Vec<(&Row, f64)> = rows
        .rows
        .iter()
        .filter_map(|row| Some((row, *part.rows.get(&row.row)?.ratio_to_upstream.get(&Which::Ours)?)))
        .filter(|(_, ratio)| *ratio > 0.0)
        .collect();
    if drawn.is_empty() {
        return None;
    }
    let height = TOP + LINE * drawn.len() as f64 + 30.0;
    let mut out =
        head(height, &format!("{name}: ours divided by upstream's (1 is upstream; scale of powers of ten)"));
    let width = WIDTH - LABEL - 70.0;
    let x = |ratio: f64| {
        let (first, last) = (DECADES[0].log10(), DECADES[DECADES.len() - 1].log10());
        LABEL + width * ((ratio.log10() - first) / (last - first)).clamp(0.0, 1.0)
    };
    for decade in DECADES {
        let at = x(decade);
        let strong = if decade == 1.0 { "#333" } else { "#ddd" };
        let bottom = height - 24.0;
        push(
            &mut out,
            format_args!(
                r#"<line x1="{at:.1}" y1="{TOP}" x2="{at:.1}" y2="{bottom:.1}" stroke="{strong}"/>"#
            ),
        );
        text(&mut out, at, height - 8.0, "middle", &format!("{decade}"));
    }
    let zero = x(1.0);
    for (index, (row, ratio)) in drawn.iter().enumerate() {
        let y = TOP + LINE * index as f64;
        let end = x(*ratio);
        let better = (*ratio <= 1.0) != row.more_is_better;
        let color = if better { COLORS[1].1 } else { "#b3261e" };
        text(&mut out, LABEL - 8.0, y + 15.0, "end", &row.what);
        let (left, length) = (end.min(zero), (end - zero).abs().max(1.0));
        push(
            &mut out,
            format_args!(
                r#"<rect x="{left:.1}" y="{:.1}" width="{length:.1}" height="14" fill="{color}"/>"#,
                y + 4.0
            ),
        );
        let after = end.max(zero) + 6.0;
        text(&mut out, after, y + 15.0, "start", &number(*ratio));
    }
    Some(out + "</svg>\n")
}

/// One row over the number of pods, both on scales of powers of ten.
pub fn growth(results: &Results, row: &Row) -> Option<String> {
    let mut sizes: Vec<(f64, &String)> = results
        .parts
        .keys()
        .filter_map(|name| Some((name.strip_prefix("api-")?.parse().ok()?, name)))
        .collect();
    sizes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let line = |side: Which| -> Vec<(f64, f64)> {
        let at = |(pods, name): &(f64, &String)| {
            let figures = results.parts.get(*name)?.rows.get(&row.row)?;
            Some((*pods, figures.sides.get(&side)?.median)).filter(|(_, seen)| *seen > 0.0)
        };
        sizes.iter().filter_map(at).collect()
    };
    let lines = COLORS.iter().map(|(side, color)| (*side, *color, line(*side)));
    let lines: Vec<_> = lines.filter(|(_, _, points)| points.len() > 1).collect();
    let all: Vec<(f64, f64)> = lines.iter().flat_map(|l| l.2.clone()).collect();
    let range = |pick: fn(&(f64, f64)) -> f64| {
        let values: Vec<f64> = all.iter().map(pick).map(f64::log10).collect();
        let least = values.iter().copied().reduce(f64::min)?;
        let most = values.iter().copied().reduce(f64::max)?;
        Some((least, (most - least).max(0.1)))
    };
    let ((left, wide), (low, high)) = (range(|p| p.0)?, range(|p| p.1)?);
    let height = 300.0;
    let mut out = head(height, &format!("{} ({}) over pods", row.what, row.unit));
    let x = |pods: f64| 60.0 + 520.0 * (pods.log10() - left) / wide;
    let y = |seen: f64| 260.0 - 190.0 * (seen.log10() - low) / high;
    for (pods, _) in &sizes {
        text(&mut out, x(*pods), height - 12.0, "middle", &format!("{pods}"));
    }
    for (index, (side, color, points)) in lines.iter().enumerate() {
        let path: Vec<String> = points.iter().map(|(p, s)| format!("{:.1},{:.1}", x(*p), y(*s))).collect();
        push(
            &mut out,
            format_args!(
                r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="2.5"/>"#,
                path.join(" ")
            ),
        );
        for (pods, seen) in points {
            text(&mut out, x(*pods), y(*seen) - 7.0, "middle", &number(*seen));
        }
        let at = 70.0 + LINE * index as f64;
        push(
            &mut out,
            format_args!(r#"<rect x="640" y="{:.1}" width="14" height="14" fill="{color}"/>"#, at),
        );
        text(&mut out, 662.0, at + 12.0, "start", side.name());
    }
    Some(out + "</svg>\n")
}

fn head(height: f64, title: &str) -> String {
    let mut out = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
"##
    );
    text(&mut out, 12.0, 22.0, "start", title);
    out
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    push(
        out,
        format_args!(r##"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="#222">{text}</text>"##),
    );
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _infallible = writeln!(out, "{line}");
}
