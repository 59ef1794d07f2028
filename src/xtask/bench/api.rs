//! The API server: memory, starts, CPU of each kind of request, fan-out; beside the floor of the same TLS and HTTP stack.
//!
//! Up to [`WRITTEN_PODS_MAX`] pods each side writes all of them while it is measured. More are written once, by ours, into a
//! store that every round gets a copy of: the bytes in etcd are the same whoever wrote them.

use anyhow::Context as _;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;

use super::Options;
use super::programs::Programs;
use super::results::{Measured, Part, Run};
use super::side::{self, Setup, Side, Which};
use crate::diff::pair::{credentials, ports};

/// More take too long to write in each round.
const WRITTEN_PODS_MAX: usize = 5_000;
/// Nodes that renew leases, at most.
const NODES_MAX: usize = 5_000;
const SIDES: [Which; 4] = [Which::Upstream, Which::Ours, Which::OursEmbedded, Which::Floor];
/// What a server that answers from memory can be asked.
const FLOOR_STEPS: &str = "create,status,get,apply,leases,lists,watches";
/// What is asked of a server that has the pods already.
const EXISTING_STEPS: &str = "create,status,get,apply,lists,loaded,watches";

/// Measures with so many pods.
pub fn measure(root: &Path, options: &Options, programs: &Programs, pods: usize) -> anyhow::Result<Part> {
    let run = Run::begin(root, &programs.versions()?)?;
    let begun = Instant::now();
    let folder = TempDir::with_prefix("copepod-bench-")?;
    credentials(folder.path())?;
    let setup =
        Setup { programs, folder: folder.path(), answers: folder.path().join("answers"), durable: true };
    std::fs::create_dir_all(&setup.answers)?;
    let templates = folder.path().join("templates");
    let existing = pods > WRITTEN_PODS_MAX;
    if existing {
        let quick_disk = Setup { answers: setup.answers.clone(), durable: false, ..setup };
        for which in [Which::Ours, Which::OursEmbedded] {
            fill(&quick_disk, which, &template(&templates, which), pods)?;
        }
    }
    let mut measured: BTreeMap<Which, Vec<Measured>> = BTreeMap::new();
    for round in 0..options.rounds {
        for which in super::order(&SIDES, round) {
            eprintln!("{pods} pods, round {} of {}: {}", round + 1, options.rounds, which.name());
            let dir = TempDir::new_in(folder.path())?;
            if existing && which != Which::Floor {
                copy(&template(&templates, which), dir.path())?;
            }
            let mut flags = vec![format!("-pods={pods}"), format!("-round={}", round + 1)];
            flags.extend(options.client_flags());
            let figures = match which {
                Which::Floor => floor(&setup, dir.path(), flags, existing)?,
                _ if existing => on_data(&setup, which, dir.path(), flags)?,
                _ => whole(&setup, which, dir.path(), flags, pods)?,
            };
            measured.entry(which).or_default().push(figures);
        }
    }
    Ok(Part::of(run.ended(options.rounds, begun.elapsed())?, &measured))
}

/// From an empty store to all pods, and a start on them.
fn whole(
    setup: &Setup<'_>,
    which: Which,
    dir: &Path,
    mut flags: Vec<String>,
    pods: usize,
) -> anyhow::Result<Measured> {
    let mut server = Side::start(setup, which, dir)?;
    let fresh_ms = server.ready_ms;
    flags.push(format!("-nodes={}", pods.min(NODES_MAX)));
    flags.extend(recording(setup, which));
    let mut measured = server.client("api", None, &flags)?;
    if let (Some(lease), Some(status)) =
        (measured.rows.get("renew_lease_cpu_us"), measured.rows.get("node_status_patch_cpu_us"))
    {
        let percent = nodes_percent(*lease, *status);
        measured = measured.with("nodes_5000_cpu_percent", percent);
    }
    server.restart()?;
    let measured = measured.with("start_fresh_ms", fresh_ms).with("start_on_data_ms", server.ready_ms);
    Ok(measured.with("memory_after_start_mib", server.settled_mib()?))
}

/// What 5,000 kubelets cost: a lease every 10 s and a status every 5 minutes each, in percent of a core.
fn nodes_percent(lease_us: f64, status_us: f64) -> f64 {
    let (leases_a_second, statuses_a_second) = (NODES_MAX as f64 / 10.0, NODES_MAX as f64 / 300.0);
    100.0 * (leases_a_second * lease_us + statuses_a_second * status_us) / 1e6
}

/// On a store that has the pods.
fn on_data(setup: &Setup<'_>, which: Which, dir: &Path, mut flags: Vec<String>) -> anyhow::Result<Measured> {
    let server = Side::start(setup, which, dir)?;
    let started = server.settled_mib()?;
    flags.extend(["-existing".into(), format!("-steps={}{EXISTING_STEPS}", record_step(which))]);
    flags.extend(recording(setup, which));
    let measured = server.client("api", None, &flags)?;
    Ok(measured.with("start_on_data_ms", server.ready_ms).with("memory_after_start_mib", started))
}

fn floor(setup: &Setup<'_>, dir: &Path, mut flags: Vec<String>, existing: bool) -> anyhow::Result<Measured> {
    let server = Side::start(setup, Which::Floor, dir)?;
    flags.push(format!("-steps={FLOOR_STEPS}"));
    flags.push(format!("-existing={existing}"));
    let mut measured = server.client("api", None, &flags)?;
    // They say how fast the client is.
    measured.rows.retain(|row, _| !row.starts_with("memory_"));
    Ok(measured)
}

/// Ours is the one whose answers the floor plays back.
fn recording(setup: &Setup<'_>, which: Which) -> Option<String> {
    (which == Which::Ours).then(|| format!("-record={}", setup.answers.display()))
}

fn record_step(which: Which) -> &'static str {
    if which == Which::Ours { "record," } else { "" }
}

fn template(templates: &Path, which: Which) -> std::path::PathBuf {
    templates.join(if which == Which::OursEmbedded { "embedded" } else { "etcd" })
}

fn fill(setup: &Setup<'_>, which: Which, dir: &Path, pods: usize) -> anyhow::Result<()> {
    eprintln!("writing {pods} pods: {}", which.name());
    let server = Side::start(setup, which, dir)?;
    // A lease and a ConfigMap are recorded, too.
    let flags = [format!("-pods={pods}"), "-nodes=10".into(), "-steps=fill,apply,leases".into()];
    server.client("api", None, &flags).map(drop)
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A hundred custom resources: what they weigh, and how long a start with them takes.
pub fn custom_resources(root: &Path, options: &Options, programs: &Programs) -> anyhow::Result<Part> {
    let run = Run::begin(root, &programs.versions()?)?;
    let begun = Instant::now();
    let folder = TempDir::with_prefix("copepod-bench-")?;
    credentials(folder.path())?;
    let setup = Setup { programs, folder: folder.path(), answers: folder.path().into(), durable: true };
    let mut measured: BTreeMap<Which, Vec<Measured>> = BTreeMap::new();
    for round in 0..options.rounds {
        for which in super::order(&SIDES[..3], round) {
            eprintln!("custom resources, round {} of {}: {}", round + 1, options.rounds, which.name());
            let dir = TempDir::new_in(folder.path())?;
            let mut server = Side::start(&setup, which, dir.path())?;
            let mut figures = server.client("api", None, &["-steps=crds".into()])?;
            if let Some(why) = figures.not_supported.values().next().cloned() {
                figures.not_supported.insert("start_100_crds_ms".into(), why);
            } else {
                server.restart()?;
                figures = figures.with("start_100_crds_ms", server.ready_ms);
            }
            measured.entry(which).or_default().push(figures);
        }
    }
    Ok(Part::of(run.ended(options.rounds, begun.elapsed())?, &measured))
}

/// etcd alone, from a put until a watch shows it: what no server on it can be faster than.
pub fn bare_etcd(root: &Path, options: &Options, programs: &Programs) -> anyhow::Result<Part> {
    let run = Run::begin(root, &programs.versions()?)?;
    let begun = Instant::now();
    let folder = TempDir::with_prefix("copepod-bench-")?;
    let setup = Setup { programs, folder: folder.path(), answers: folder.path().into(), durable: true };
    let mut measured = Vec::new();
    for round in 0..options.rounds {
        let dir = folder.path().join(round.to_string());
        std::fs::create_dir_all(&dir)?;
        let [client, peer, _] = ports()?;
        let _etcd = side::etcd(&setup, &dir, client, peer)?;
        let mut command = std::process::Command::new(&programs.client);
        command.args(["etcd", &format!("-server=http://127.0.0.1:{client}")]);
        measured.push(side::output(&mut command)?);
    }
    let measured = BTreeMap::from([(Which::Floor, measured)]);
    Ok(Part::of(run.ended(options.rounds, begun.elapsed())?, &measured))
}

#[cfg(test)]
mod tests {
    #[test]
    fn five_thousand_nodes() {
        // 500 leases and 16.7 statuses a second.
        assert!((super::nodes_percent(1000.0, 3000.0) - 55.0).abs() < 1e-9);
    }
}
