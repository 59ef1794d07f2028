//! Both schedulers in turn, as clients of the same API server (ours, on etcd), with workloads after upstream's
//! scheduler_perf. Every measurement has an API server of its own, on a copy of a store with all nodes in it.

use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use super::Options;
use super::api::copy;
use super::programs::{self, Programs};
use super::results::{Measured, Part, Run};
use super::side::{Setup, Side, Which};
use crate::child::Killed;
use crate::diff::pair::{TOKEN, credentials, spawn};
use crate::diff::tool;

const NODES: usize = 5_000;
const SIDES: [Which; 2] = [Which::Upstream, Which::Ours];
/// From the start of a scheduler until it has read all nodes.
const SYNC: Duration = Duration::from_secs(5);

/// One of upstream's scheduler_perf in a size that three rounds of both are done in minutes.
struct Workload {
    name: &'static str,
    /// Pods on nodes at the beginning.
    initial: usize,
    /// Pods that are scheduled while it is measured.
    pods: usize,
    /// Why ours cannot do it; `None`: it can.
    not_supported: Option<&'static str>,
}

const fn workload(name: &'static str, initial: usize, pods: usize) -> Workload {
    Workload { name, initial, pods, not_supported: None }
}

const WORKLOADS: [Workload; 6] = [
    workload("basic", 1_000, 1_000),
    workload("anti_affinity", 1_000, 500),
    workload("affinity", 1_000, 500),
    workload("topology_spreading", 1_000, 500),
    workload("preemption", NODES, 200),
    workload("unschedulable", 200, 1_000),
];

/// The rows of a workload end in these.
const ROWS: [&str; 5] = ["cpu_us", "per_second", "latency_p50_ms", "latency_p99_ms", "memory_mib"];

pub fn measure(root: &Path, options: &Options, programs: &Programs) -> anyhow::Result<Part> {
    let upstream = tool(root, &options.upstream_scheduler, "kube-scheduler")?;
    let ours = programs::ours(root, options, &["copepod-scheduler"])?.join("copepod-scheduler");
    let chosen = chosen(&options.workload)?;
    let run = Run::begin(root, &programs.versions()?)?;
    let begun = Instant::now();
    let folder = TempDir::with_prefix("copepod-bench-")?;
    credentials(folder.path())?;
    let mut setup = Setup { programs, folder: folder.path(), answers: folder.path().into(), durable: false };
    let template = folder.path().join("template");
    eprintln!("making {NODES} nodes");
    Side::start(&setup, Which::Ours, &template)?.client("scheduler", None, &[format!("-nodes={NODES}")])?;
    setup.durable = true;
    let mut measured: BTreeMap<Which, Vec<Measured>> = BTreeMap::new();
    for round in 0..options.rounds {
        for which in super::order(&SIDES, round) {
            let program = if which == Which::Upstream { &upstream } else { &ours };
            let mut all = Measured::default();
            for workload in &chosen {
                eprintln!("{}, round {} of {}: {}", workload.name, round + 1, options.rounds, which.name());
                if let (Some(why), Which::Ours) = (workload.not_supported, which) {
                    let rows = ROWS.iter().map(|row| (format!("{}_{row}", workload.name), why.into()));
                    all.not_supported.extend(rows);
                    continue;
                }
                let dir = TempDir::new_in(folder.path())?;
                copy(&template, dir.path())?;
                let figures = one(&setup, which, program, dir.path(), workload)
                    .with_context(|| format!("{} with {}", workload.name, program.display()))?;
                all.rows.extend(figures.rows);
            }
            measured.entry(which).or_default().push(all);
        }
    }
    Ok(Part::of(run.ended(options.rounds, begun.elapsed())?, &measured))
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Workload>> {
    if let Some(unknown) = names.iter().find(|name| !WORKLOADS.iter().any(|w| w.name == **name)) {
        bail!("unknown workload {unknown}");
    }
    Ok(WORKLOADS.iter().filter(|w| names.is_empty() || names.iter().any(|name| name == w.name)).collect())
}

fn one(
    setup: &Setup<'_>,
    which: Which,
    program: &Path,
    dir: &Path,
    workload: &Workload,
) -> anyhow::Result<Measured> {
    let server = Side::start(setup, Which::Ours, dir)?;
    let config = kubeconfig(setup.folder, dir, &server.url())?;
    let mut flags = vec![
        format!("--kubeconfig={}", config.display()),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
    ];
    if which == Which::Upstream {
        // As in scheduler_perf: its own limit is not what is measured. Ours has none.
        flags.extend(["--kube-api-qps=5000".into(), "--kube-api-burst=5000".into()]);
    }
    let log = dir.join("scheduler.log");
    let mut scheduler = spawn(program, flags, &log)?;
    std::thread::sleep(SYNC);
    let flags = [
        format!("-nodes={NODES}"),
        format!("-workload={}", workload.name),
        format!("-initial={}", workload.initial),
        format!("-pods={}", workload.pods),
    ];
    let outcome = server.client("scheduler", Some(scheduler.0.id()), &flags);
    outcome.with_context(|| told(&mut scheduler, &log))
}

fn told(scheduler: &mut Killed, log: &Path) -> String {
    let ended = if matches!(scheduler.0.try_wait(), Ok(None)) { "" } else { " (the scheduler has ended)" };
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let tail: Vec<&str> = text.lines().rev().take(5).collect();
    format!("the scheduler's log ends{ended} in (last line first): {}", tail.join("\n"))
}

fn kubeconfig(folder: &Path, dir: &Path, server: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join("kubeconfig");
    let authority = folder.join("pki/ca.crt");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: bench\n\
         contexts: [{{name: bench, context: {{cluster: bench, user: bench}}}}]\n\
         clusters: [{{name: bench, cluster: {{server: \"{server}\", certificate-authority: \"{}\"}}}}]\n\
         users: [{{name: bench, user: {{token: {TOKEN}}}}}]\n",
        authority.display()
    );
    copepod_pki::files::write(&path, text.as_bytes(), copepod_pki::files::Mode::Private)?;
    Ok(path)
}
