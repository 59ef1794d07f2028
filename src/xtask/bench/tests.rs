//! The tool itself: medians, ratios, bounds, tables and plots of results that are given.

use std::collections::BTreeMap;

use super::results::{Measured, Part, Results, Run};
use super::rows::Rows;
use super::side::Which;
use super::stats::{Summary, ratio};
use super::{order, plot, quick, table};

const ROWS: &str = r#"
rows:
  - {row: get, what: "CPU per GET", unit: us, target: 50, target_embedded: 10, bound: 0.3, why: "seen 0.1", short: true}
  - {row: rate, what: "creates", unit: 1/s, more_is_better: true, bound: 2, why: "seen 3", target_ratio: 4}
  - {row: other, what: "a & b < c", unit: ms}
"#;

fn rows() -> Rows {
    Rows::parse(ROWS).expect("rows")
}

/// A figure a round for each side.
fn part(rounds: &[(Which, &str, &[f64])]) -> Part {
    let mut measured: BTreeMap<Which, Vec<Measured>> = BTreeMap::new();
    for (side, row, figures) in rounds {
        let all = measured.entry(*side).or_default();
        for (index, figure) in figures.iter().enumerate() {
            if all.len() <= index {
                all.push(Measured::default());
            }
            all[index].rows.insert((*row).into(), *figure);
        }
    }
    Part::of(Run { commit: "0123456789abcdef".into(), ..Run::default() }, &measured)
}

#[test]
fn medians_and_spread() {
    for (rounds, want) in [
        (&[][..], None),
        (&[2.0], Some((2.0, 2.0, 2.0))),
        (&[3.0, 1.0, 2.0], Some((2.0, 1.0, 3.0))),
        (&[4.0, 1.0, 2.0, 3.0], Some((2.5, 1.0, 4.0))),
    ] {
        assert_eq!(Summary::of(rounds).map(|s| (s.median, s.least, s.most)), want, "{rounds:?}");
    }
}

/// The machine was slow in the second round, for both: the ratio does not see it.
#[test]
fn ratios_are_taken_within_a_round() {
    for (of, to, want) in [
        (&[1.0, 10.0, 1.0][..], &[10.0, 100.0, 10.0][..], Some(0.1)),
        (&[1.0, 2.0, 9.0], &[10.0, 10.0, 10.0], Some(0.2)),
        (&[3.0], &[10.0, 12.0], Some(3.0 / 11.0)),
        (&[1.0], &[0.0], None),
    ] {
        let ratio = ratio(&Summary::of(of).expect("figures"), &Summary::of(to).expect("figures"));
        assert_eq!(ratio, want, "{of:?} to {to:?}");
    }
}

#[test]
fn every_other_round_runs_backwards() {
    let sides = [Which::Upstream, Which::Ours, Which::Floor];
    let backwards = [Which::Floor, Which::Ours, Which::Upstream];
    assert_eq!([order(&sides, 0), order(&sides, 1), order(&sides, 2)], [sides, backwards, sides]);
}

#[test]
fn bounds() {
    let fine = [(Which::Upstream, "rate", &[1.0][..]), (Which::Ours, "rate", &[3.0])];
    for (name, get, rate, want) in [
        ("within", &[0.3][..], &fine[..], &[][..]),
        (
            "too much",
            &[0.31],
            &fine,
            &["get: ours is 0.31 of upstream's; the bound is 0.30 at most (seen 0.1)"],
        ),
        ("one bad round of three", &[0.1, 9.0, 0.1], &fine, &[]),
        (
            "too little",
            &[0.1],
            &[(Which::Upstream, "rate", &[1.0]), (Which::Ours, "rate", &[1.9])],
            &["rate: ours is 1.90 of upstream's; the bound is 2.00 at least (seen 3)"],
        ),
        ("not measured", &[0.1], &[], &["rate: was not measured"]),
    ] {
        let upstream = vec![1.0; get.len()];
        let mut all = vec![(Which::Upstream, "get", upstream.as_slice()), (Which::Ours, "get", get)];
        all.extend_from_slice(rate);
        assert_eq!(quick::out_of_bounds(&part(&all), &rows()), want, "{name}");
    }
}

#[test]
fn rows_that_cannot_be_right() {
    for (yaml, want) in [
        ("rows: [{row: a, what: a, unit: ms}, {row: a, what: b, unit: ms}]", "a stands there twice"),
        ("rows: [{row: a, what: a, unit: ms, bound: 1}]", "a has a bound without a reason"),
        ("rows: [{row: a, what: a, unit: ms, boundd: 1}]", "unknown field"),
    ] {
        let error = Rows::parse(yaml).expect_err(want).to_string();
        assert!(error.contains(want), "{error}");
    }
    Rows::read(&crate::root().join(super::ROWS)).expect("those of the repository are right");
}

fn results() -> Results {
    let mut part = part(&[
        (Which::Upstream, "get", &[500.0, 400.0, 600.0][..]),
        (Which::Ours, "get", &[50.0, 60.0, 40.0]),
        (Which::OursEmbedded, "get", &[20.0]),
        (Which::Floor, "get", &[25.0, 25.0, 25.0]),
        (Which::Upstream, "other", &[0.01234]),
    ]);
    part.run.rounds = 3;
    let why = "not built";
    part.rows.entry("other".into()).or_default().not_supported.insert(Which::Ours, why.into());
    Results { parts: BTreeMap::from([("api-5000".into(), part)]) }
}

#[test]
fn tables() {
    let (results, rows) = (results(), rows());
    let full = table::full(&results, &rows);
    let lines: Vec<&str> = full.lines().filter(|l| l.starts_with('|')).collect();
    assert_eq!(
        lines,
        [
            "| what | unit | upstream | ours | ours, embedded store | floor | ours / upstream | ours / floor | target |",
            "|---|---|---|---|---|---|---|---|---|",
            "| CPU per GET | us | 500 (400 - 600) | 50.0 (40.0 - 60.0) | 20.0 | 25.0 | 0.10 | 2.00 | 50.0: met; embedded 10.0: missed |",
            "| a & b < c | ms | 0.012 | not supported |  |  |  |  |  |",
        ]
    );
    assert!(full.contains("### api-5000") && full.contains("at 0123456789ab;"), "{full}");
    let short = table::short(&results, &rows);
    assert!(short.starts_with("api-5000: 3 round(s)"), "{short}");
    assert!(short.ends_with("| CPU per GET | 500 us | 50.0 us | 20.0 us | 0.10 |\n"));
}

#[test]
fn tables_stand_between_markers() {
    let page = "a\n<!-- bench: made by `cargo xtask bench`, do not edit -->\nold\n<!-- bench: end -->\nb\n";
    let new = table::between(page, "new\n").expect("has markers");
    assert_eq!(new, page.replace("old", "new"));
    assert_eq!(table::between(&new, "new").expect("has markers"), new, "again changes nothing");
    assert!(table::between("no markers", "new").is_err());
    for file in ["README.md", "conformance/bench/README.md"] {
        let text = std::fs::read_to_string(crate::root().join(file)).expect("reads");
        assert!(table::between(&text, "").is_ok(), "{file} has the markers");
    }
}

#[test]
fn plots() {
    let mut results = results();
    let bars = plot::bars(&results, &rows(), "api-5000").expect("has ratios");
    assert!(bars.starts_with("<svg") && bars.ends_with("</svg>\n") && bars.contains("CPU per GET"), "{bars}");
    assert_eq!(plot::bars(&results, &rows(), "none"), None);
    let row = &rows().rows[0];
    assert_eq!(plot::growth(&results, row), None, "one size is no growth");
    let same = results.parts["api-5000"].clone();
    results.parts.insert("api-50000".into(), same);
    let lines = plot::growth(&results, row).expect("two sizes");
    assert_eq!(lines.matches("<polyline").count(), 4, "{lines}");
}

/// What the Go half prints.
#[test]
fn the_client_is_understood() {
    let text = r#"{"rows": {"get": 1.5}, "not_supported": {"other": "why"}}"#;
    let measured: Measured = serde_json::from_str(text).expect("is read");
    assert_eq!((measured.rows["get"], measured.not_supported["other"].as_str()), (1.5, "why"));
}
