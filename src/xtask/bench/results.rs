//! `conformance/results/bench.json`: what was seen, where, and of which programs.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::side::Which;
use super::stats::{Summary, ratio};
use crate::diff::first_line;

/// Parts by name, such as `api-5000`. A run replaces the parts that it measures.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    pub parts: BTreeMap<String, Part>,
}

/// What one run says of one subject.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    pub run: Run,
    pub rows: BTreeMap<String, Figures>,
}

/// One row on all sides.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    pub sides: BTreeMap<Which, Summary>,
    /// Why a side has no figure.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_supported: BTreeMap<Which, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ratio_to_upstream: BTreeMap<Which, f64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ratio_to_floor: BTreeMap<Which, f64>,
}

/// How it was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    pub date: String,
    pub commit: String,
    pub versions: BTreeMap<String, String>,
    pub machine: BTreeMap<String, String>,
    pub rounds: usize,
    /// How far the rounds went.
    pub seconds: f64,
    /// Of the last minute, before and after. A loaded machine makes times longer and caches colder, on all sides alike.
    pub load_average: [f64; 2],
}

/// What one side printed in one round.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Measured {
    pub rows: BTreeMap<String, f64>,
    #[serde(default)]
    pub not_supported: BTreeMap<String, String>,
}

impl Measured {
    /// Adds what was measured otherwise.
    pub fn with(mut self, row: &str, figure: f64) -> Measured {
        self.rows.insert(row.into(), figure);
        self
    }
}

impl Results {
    /// An empty one where there is no file.
    pub fn read(path: &Path) -> anyhow::Result<Results> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Results::default()),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| path.display().to_string())
    }
}

impl Part {
    /// Puts the rounds of all sides together.
    pub fn of(run: Run, measured: &BTreeMap<Which, Vec<Measured>>) -> Part {
        let mut rows: BTreeMap<String, Figures> = BTreeMap::new();
        for (side, rounds) in measured {
            let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
            for round in rounds {
                for (row, figure) in &round.rows {
                    figures.entry(row).or_default().push(*figure);
                }
                for (row, why) in &round.not_supported {
                    rows.entry(row.clone()).or_default().not_supported.insert(*side, why.clone());
                }
            }
            for (row, figures) in figures {
                if let Some(summary) = Summary::of(&figures) {
                    rows.entry(row.into()).or_default().sides.insert(*side, summary);
                }
            }
        }
        for figures in rows.values_mut() {
            figures.ratio_to_upstream = ratios(&figures.sides, Which::Upstream);
            figures.ratio_to_floor = ratios(&figures.sides, Which::Floor);
        }
        Part { run, rows }
    }
}

fn ratios(sides: &BTreeMap<Which, Summary>, to: Which) -> BTreeMap<Which, f64> {
    let Some(base) = sides.get(&to) else { return BTreeMap::new() };
    let others = sides.iter().filter(|(side, _)| **side != to && **side != Which::Floor);
    others.filter_map(|(side, summary)| Some((*side, ratio(summary, base)?))).collect()
}

impl Run {
    /// Says where and of what; to be [`ended`](Run::ended).
    pub fn begin(root: &Path, versions: &BTreeMap<String, String>) -> anyhow::Result<Run> {
        Ok(Run {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            commit: first_line(
                Command::new("git")
                    .args(["describe", "--always", "--dirty", "--abbrev=40"])
                    .current_dir(root),
            )?,
            versions: versions.clone(),
            machine: machine()?,
            load_average: [load_average()?; 2],
            ..Run::default()
        })
    }

    /// Says how long it took.
    pub fn ended(mut self, rounds: usize, time: Duration) -> anyhow::Result<Run> {
        self.load_average[1] = load_average()?;
        self.rounds = rounds;
        self.seconds = time.as_secs_f64().round();
        Ok(self)
    }
}

fn machine() -> anyhow::Result<BTreeMap<String, String>> {
    let line = |file: &str, name: &str| -> anyhow::Result<String> {
        let text = std::fs::read_to_string(file)?;
        let value = text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("unknown");
        Ok(value.trim_start_matches([' ', '\t', ':']).to_string())
    };
    Ok(BTreeMap::from([
        ("cpu".into(), line("/proc/cpuinfo", "model name")?),
        ("cores".into(), std::thread::available_parallelism()?.to_string()),
        ("memory".into(), line("/proc/meminfo", "MemTotal")?),
        ("kernel".into(), std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().into()),
    ]))
}

fn load_average() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    text.split_whitespace().next().context("no load average")?.parse().context("no load average")
}
