//! What is measured, as data: `conformance/bench/rows.yaml`.

use anyhow::{Context as _, bail};
use serde::Deserialize;
use std::path::Path;

/// A row of the tables.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its name in the results.
    pub row: String,
    /// What people read.
    pub what: String,
    pub unit: String,
    /// Whether more of it is better.
    #[serde(default)]
    pub more_is_better: bool,
    /// What ours must be at [`Row::TARGET_PODS`] pods (the design's "numbers to beat").
    #[serde(default)]
    pub target: Option<f64>,
    /// The same for the embedded store, where it differs.
    #[serde(default)]
    pub target_embedded: Option<f64>,
    /// What ours must be as a part of upstream's.
    #[serde(default)]
    pub target_ratio: Option<f64>,
    /// `--quick`: ours divided by upstream's may be this at most (or at least, where more is better).
    #[serde(default)]
    pub bound: Option<f64>,
    /// Why that much.
    #[serde(default)]
    pub why: String,
    /// Whether the short table in the README has it.
    #[serde(default)]
    pub short: bool,
}

impl Row {
    /// The design's figures are for so many pods.
    pub const TARGET_PODS: usize = 5_000;
}

/// All rows, in the order of the tables.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    pub rows: Vec<Row>,
}

impl Rows {
    /// Reads the file; a row that stands there twice, or a bound without a reason, is an error.
    pub fn read(path: &Path) -> anyhow::Result<Rows> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Rows::parse(&text).with_context(|| path.display().to_string())
    }

    pub fn parse(yaml: &str) -> anyhow::Result<Rows> {
        let (json, duplicates) = copepod_codec::yaml_to_json(yaml.as_bytes())?;
        if let Some(duplicate) = duplicates {
            bail!("{duplicate}");
        }
        let rows: Rows = serde_json::from_slice(&json)?;
        for (index, row) in rows.rows.iter().enumerate() {
            if rows.rows[..index].iter().any(|r| r.row == row.row) {
                bail!("{} stands there twice", row.row);
            }
            if row.bound.is_some() && row.why.is_empty() {
                bail!("{} has a bound without a reason", row.row);
            }
        }
        Ok(rows)
    }
}
