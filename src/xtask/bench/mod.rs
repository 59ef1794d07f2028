//! `cargo xtask bench`: upstream's programs and ours, measured in turn, in one run, on one machine.
//!
//! | module | what |
//! |---|---|
//! | [`rows`] | what is measured, with targets and bounds, as data |
//! | [`programs`], [`side`] | the programs; one server with its store as a child process |
//! | [`api`], [`scheduler`], [`agents`] | the parts: each measures its sides in alternating order |
//! | [`stats`], [`results`] | medians and ratios; `conformance/results/bench.json` |
//! | [`table`], [`plot`] | Markdown between markers, SVG |
//! | [`quick`] | the guard of `hack/test`: ratios within bounds |
//!
//! The client is `conformance/bench` (Go), the floor `conformance/bench/floor`. `conformance/bench/README.md` tells how to
//! use it.

mod agents;
mod api;
mod plot;
mod programs;
mod quick;
mod results;
mod rows;
mod scheduler;
mod side;
mod stats;
mod table;
#[cfg(test)]
mod tests;

use clap::{Parser, ValueEnum};
use std::path::{Path, PathBuf};

use programs::Programs;
use results::{Part as Measurements, Results};
use rows::Rows;
use side::Which;
pub use side::resident_mib;

/// Where things lie.
const ROWS: &str = "conformance/bench/rows.yaml";
const RESULTS: &str = "conformance/results/bench.json";

/// Measures upstream's programs and ours in turn.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
pub struct Options {
    /// At most 3 minutes: fails when a ratio is out of its bound.
    #[arg(long)]
    quick: bool,
    /// Every side is measured so often.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Factor on how often the client repeats things; less is quicker and coarser.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Sizes of the API server's part.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 5_000, 50_000])]
    pods: Vec<usize>,
    /// What to measure; default: all but `pods`, which needs root and a container runtime.
    #[arg(long, value_delimiter = ',')]
    part: Vec<Part>,
    /// Workloads of the scheduler; default: all.
    #[arg(long, value_delimiter = ',')]
    workload: Vec<String>,
    /// Images of `hack/images`, for the part `pods`.
    #[arg(long)]
    image: Vec<PathBuf>,
    /// Folder of our programs, built for release; default: they are built.
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Upstream's kube-apiserver; built when missing.
    #[arg(long)]
    upstream: Option<PathBuf>,
    /// Upstream's kube-scheduler; built when missing.
    #[arg(long)]
    upstream_scheduler: Option<PathBuf>,
    /// Upstream's kubelet; built when missing.
    #[arg(long)]
    upstream_kubelet: Option<PathBuf>,
    /// etcd; built when missing.
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// Write the results to conformance/results, the tables to the READMEs.
    #[arg(long)]
    keep: bool,
    /// Measure nothing; only make tables and plots of the results that are there.
    #[arg(long)]
    render: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Part {
    Api,
    Crds,
    Floor,
    Scheduler,
    Pods,
}

impl Options {
    /// Flags of the client that are the same for every side.
    fn client_flags(&self) -> Vec<String> {
        vec!["-watchers=100,1000".into(), format!("-scale={}", self.scale)]
    }

    fn wants(&self, part: Part) -> bool {
        if self.part.is_empty() { part != Part::Pods } else { self.part.contains(&part) }
    }
}

/// Runs the command; a line for each row out of bounds.
pub fn command(root: &Path, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let options = match Options::try_parse_from(
        std::iter::once("cargo xtask bench").chain(arguments.iter().copied()),
    ) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    let rows = Rows::read(&root.join(ROWS))?;
    let file = root.join(RESULTS);
    let mut results = Results::read(&file)?;
    if options.quick {
        let part = quick::measure(root, &options, &Programs::find(root, &options)?)?;
        println!("{}", table::part(quick::NAME, &part, &rows));
        let findings = quick::out_of_bounds(&part, &rows);
        if options.keep {
            results.parts.insert(quick::NAME.into(), part);
            results.write(&file)?;
            table::write(root, &results, &rows)?;
            plot::write(root, &results, &rows)?;
        }
        return Ok(findings);
    }
    if !options.render {
        let mut keep = |name: String, part: Measurements| -> anyhow::Result<()> {
            println!("{}", table::part(&name, &part, &rows));
            results.parts.insert(name, part);
            // After each part, so that what was measured is there when a later one fails.
            if options.keep { results.write(&file) } else { Ok(()) }
        };
        all(root, &options, &mut keep)?;
    }
    if options.keep || options.render {
        table::write(root, &results, &rows)?;
        plot::write(root, &results, &rows)?;
    }
    Ok(Vec::new())
}

fn all(
    root: &Path,
    options: &Options,
    keep: &mut dyn FnMut(String, Measurements) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if options.wants(Part::Pods) {
        keep("pods".into(), agents::measure(root, options)?)?;
    }
    let rest = [Part::Api, Part::Crds, Part::Floor, Part::Scheduler];
    if !rest.iter().any(|part| options.wants(*part)) {
        return Ok(());
    }
    let programs = Programs::find(root, options)?;
    if options.wants(Part::Floor) {
        keep("etcd".into(), api::bare_etcd(root, options, &programs)?)?;
    }
    if options.wants(Part::Api) {
        for pods in &options.pods {
            keep(format!("api-{pods}"), api::measure(root, options, &programs, *pods)?)?;
        }
    }
    if options.wants(Part::Crds) {
        keep("crds".into(), api::custom_resources(root, options, &programs)?)?;
    }
    if options.wants(Part::Scheduler) {
        keep("scheduler".into(), scheduler::measure(root, options, &programs)?)?;
    }
    Ok(())
}

/// The sides of a round: every other one backwards, so that none is always the first.
fn order(sides: &[Which], round: usize) -> Vec<Which> {
    let mut sides = sides.to_vec();
    if round % 2 == 1 {
        sides.reverse();
    }
    sides
}
