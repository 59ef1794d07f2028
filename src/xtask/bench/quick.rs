//! `--quick`: the guard of `hack/test`. Ratios to upstream, measured now, against the bounds of `rows.yaml`; no absolute
//! times, which say more about the machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;

use super::Options;
use super::programs::Programs;
use super::results::{Measured, Part, Run};
use super::rows::Rows;
use super::side::{Setup, Side, Which};
use super::table;
use crate::diff::pair::credentials;

/// Its part of the results.
pub const NAME: &str = "quick";
const SIDES: [Which; 2] = [Which::Upstream, Which::Ours];
const ROUNDS: usize = 2;
const FLAGS: [&str; 6] = [
    "-pods=500",
    "-nodes=300",
    "-scale=0.3",
    "-watchers=100",
    "-round=1",
    "-steps=empty,create,status,get,apply,leases,nodes,lists,loaded,watches",
];

/// Measures what is guarded.
pub fn measure(root: &Path, options: &Options, programs: &Programs) -> anyhow::Result<Part> {
    let run = Run::begin(root, &programs.versions()?)?;
    let begun = Instant::now();
    let folder = TempDir::with_prefix("copepod-bench-")?;
    credentials(folder.path())?;
    let setup = Setup { programs, folder: folder.path(), answers: folder.path().into(), durable: true };
    let mut measured: BTreeMap<Which, Vec<Measured>> = BTreeMap::new();
    let rounds = options.rounds.min(ROUNDS);
    for round in 0..rounds {
        for which in super::order(&SIDES, round) {
            let dir = TempDir::new_in(folder.path())?;
            let mut server = Side::start(&setup, which, dir.path())?;
            let fresh_ms = server.ready_ms;
            let figures = server.client("api", None, &FLAGS.map(String::from))?;
            server.restart()?;
            let figures = figures.with("start_fresh_ms", fresh_ms);
            measured.entry(which).or_default().push(figures.with("start_on_data_ms", server.ready_ms));
        }
    }
    Ok(Part::of(run.ended(rounds, begun.elapsed())?, &measured))
}

/// Rows with a bound that were not measured are out of bounds, too: a guard that sees nothing guards nothing.
pub fn out_of_bounds(part: &Part, rows: &Rows) -> Vec<String> {
    let mut out = Vec::new();
    for row in &rows.rows {
        let Some(bound) = row.bound else { continue };
        let seen = part.rows.get(&row.row).and_then(|f| f.ratio_to_upstream.get(&Which::Ours));
        let (word, within) = match seen {
            None => {
                out.push(format!("{}: was not measured", row.row));
                continue;
            }
            Some(seen) if row.more_is_better => ("least", *seen >= bound),
            Some(seen) => ("most", *seen <= bound),
        };
        if !within {
            let seen = seen.copied().unwrap_or_default();
            out.push(format!(
                "{}: ours is {} of upstream's; the bound is {} at {word} ({})",
                row.row,
                table::number(seen),
                table::number(bound),
                row.why
            ));
        }
    }
    out
}
