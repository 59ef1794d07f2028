//! `cargo xtask diff`: the same requests to upstream's kube-apiserver and to ours, and what differs.
//!
//! | module | what |
//! |---|---|
//! | [`script`] | requests as data |
//! | [`chance`], [`values`], [`object`], [`generate`] | scripts from a seed |
//! | [`pair`] | both servers as child processes, each on an etcd of its own |
//! | [`server`], [`wire`], [`etcd`] | asking them, reading every media type, looking into the store |
//! | [`run`] | a script on both, step by step |
//! | [`normal`], [`compare`] | what no two servers share, and what differs beyond that |
//! | [`shrink`], [`report`] | the smallest script of a cause, the results |
//!
//! `conformance/diff/README.md` tells how to use it.

mod chance;
mod compare;
mod etcd;
mod generate;
mod normal;
mod object;
pub mod pair;
mod report;
mod run;
mod script;
mod server;
mod shrink;
#[cfg(test)]
mod tests;
mod values;
mod wire;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::child::unless_interrupted;
use object::Subject;
use pair::{Pair, Programs};
use report::{AcceptedList, Causes, Run};
use run::Target;
use script::Script;
use shrink::Judge;

/// Kinds whose strategies are upstream's in full.
const DEEP: [&str; 23] = [
    "pods",
    "nodes",
    "namespaces",
    "events",
    "configmaps",
    "secrets",
    "services",
    "endpoints",
    "endpointslices",
    "serviceaccounts",
    "leases",
    "priorityclasses",
    "roles",
    "rolebindings",
    "clusterroles",
    "clusterrolebindings",
    "deployments",
    "replicasets",
    "statefulsets",
    "daemonsets",
    "jobs",
    "cronjobs",
    "replicationcontrollers",
];

/// Sends the same requests to upstream's kube-apiserver and to ours and compares all that they say.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask diff")]
struct Options {
    /// Requests that generated scripts make, about.
    #[arg(long, default_value_t = 1000)]
    requests: usize,
    /// Of the generator.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run this script (YAML) instead of generated ones; may be repeated. A folder means all of it.
    #[arg(long)]
    script: Vec<PathBuf>,
    /// Kinds by plural name, comma-separated; `all`: every kind that can be compared. Default: those with deep strategies.
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
    /// Upstream's program; built when missing.
    #[arg(long)]
    upstream: Option<PathBuf>,
    /// Our program; built when missing.
    #[arg(long)]
    ours: Option<PathBuf>,
    /// etcd; built when missing.
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// Do not make scripts smaller.
    #[arg(long)]
    no_shrink: bool,
    /// Write the results to conformance/results/diff.json.
    #[arg(long)]
    keep: bool,
}

/// Runs the command; a line for each open cause.
pub fn command(root: &Path, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let options =
        match Options::try_parse_from(std::iter::once("cargo xtask diff").chain(arguments.iter().copied())) {
            Ok(options) => options,
            Err(error) => error.exit(),
        };
    let programs = programs(root, &options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(unless_interrupted(compare(root, &options, &programs)))
}

async fn compare(root: &Path, options: &Options, programs: &Programs) -> anyhow::Result<Vec<String>> {
    let accepted = AcceptedList::read(&root.join("conformance/diff/accepted.yaml"))?;
    let subjects = object::subjects(root)?;
    let subjects = chosen(&subjects, &options.kinds)?;
    let scripts = scripts(options, &subjects)?;
    let requests: usize = scripts.iter().map(|s| s.steps.len()).sum();
    eprintln!("{} scripts, {requests} requests; starting both servers", scripts.len());
    let pair = Pair::start(programs).await?;
    let mut arena = Arena { pair, number: 0, looked_for: String::new() };
    let mut causes = Causes::default();
    for (index, script) in scripts.iter().enumerate() {
        let differences = arena.run(script).await.with_context(|| script.name.clone())?;
        for name in causes.add(script, &differences) {
            if options.no_shrink || accepted.reason(&name).is_some() {
                continue;
            }
            arena.shrunk(&mut causes, &name).await?;
            if let Some(cause) = causes.by_name.get(&name) {
                println!("{}", report::cause_text(&name, cause)?);
            }
        }
        if (index + 1) % 100 == 0 {
            eprintln!("{} of {} scripts, {} causes", index + 1, scripts.len(), causes.by_name.len());
        }
    }
    let run = Run {
        seed: options.seed,
        requests,
        scripts: scripts.len(),
        kinds: subjects.iter().map(|s| s.plural.clone()).collect(),
        upstream: first_line(Command::new(&programs.upstream).arg("--version"))?,
        commit: first_line(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root))?,
    };
    if options.keep {
        let folder = root.join("conformance/results");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("diff.json"), report::results(&run, &causes, &accepted)?)?;
    }
    let mut open = Vec::new();
    for (name, cause) in causes.sorted() {
        match accepted.reason(name) {
            Some(reason) => println!("accepted, {} script(s): {name} ({reason})", cause.count),
            None => {
                let resources: Vec<&str> = cause.resources.iter().map(String::as_str).collect();
                open.push(format!("{} script(s), {}: {name}", cause.count, resources.join(" ")));
            }
        }
    }
    println!("{} requests in {} scripts; {} open causes", run.requests, run.scripts, open.len());
    Ok(open)
}

/// The servers, and the next namespace.
struct Arena {
    pair: Pair,
    number: usize,
    looked_for: String,
}

impl Arena {
    async fn run(&mut self, script: &Script) -> anyhow::Result<Vec<compare::Difference>> {
        self.number += 1;
        let (upstream, ours) = (&self.pair.upstream, &self.pair.ours);
        let upstream = Target { server: &upstream.http, etcd: Some(&upstream.etcd) };
        let ours = Target { server: &ours.http, etcd: Some(&ours.etcd) };
        run::run(upstream, ours, script, &format!("dz-{}", self.number)).await
    }

    /// Puts the smallest script of a cause in its place.
    async fn shrunk(&mut self, causes: &mut Causes, name: &str) -> anyhow::Result<()> {
        let Some(cause) = causes.by_name.get_mut(name) else { return Ok(()) };
        self.looked_for = name.into();
        let small = shrink::shrink(cause.example.clone(), cause.difference.step, self).await?;
        let again = self.run(&small).await?;
        if let Some(difference) = again.into_iter().find(|d| d.cause == name) {
            cause.difference = difference;
            cause.example = small;
        }
        Ok(())
    }
}

#[async_trait]
impl Judge for Arena {
    async fn shows(&mut self, script: &Script) -> anyhow::Result<bool> {
        let differences = self.run(script).await?;
        Ok(differences.iter().any(|d| d.cause == self.looked_for))
    }
}

fn chosen<'a>(subjects: &'a [Subject], kinds: &[String]) -> anyhow::Result<Vec<&'a Subject>> {
    if kinds.iter().any(|k| k == "all") {
        return Ok(subjects.iter().collect());
    }
    let kinds: Vec<&str> =
        if kinds.is_empty() { DEEP.to_vec() } else { kinds.iter().map(String::as_str).collect() };
    for kind in &kinds {
        if !subjects.iter().any(|s| s.plural == *kind) {
            bail!("no such kind to compare: {kind}");
        }
    }
    Ok(subjects.iter().filter(|s| kinds.contains(&s.plural.as_str())).collect())
}

fn scripts(options: &Options, subjects: &[&Subject]) -> anyhow::Result<Vec<Script>> {
    let mut out = Vec::new();
    for path in &options.script {
        let files = if path.is_dir() {
            let mut files: Vec<PathBuf> =
                std::fs::read_dir(path)?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
            files.sort();
            files
        } else {
            vec![path.clone()]
        };
        for file in files {
            let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let mut script = Script::parse(&text).with_context(|| file.display().to_string())?;
            if script.name.is_empty() {
                script.name = file.display().to_string();
            }
            out.push(script);
        }
    }
    if !out.is_empty() {
        return Ok(out);
    }
    let (mut requests, mut number) = (0, 0);
    while requests < options.requests {
        let script = generate::script(subjects, options.seed, number);
        requests += script.steps.len();
        number += 1;
        out.push(script);
    }
    Ok(out)
}

/// The program that was named, or else the one that hack/tools builds.
pub fn tool(root: &Path, given: &Option<PathBuf>, name: &str) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.clone());
    }
    let output = Command::new(root.join("hack/tools")).arg(name).output()?;
    let paths = String::from_utf8(output.stdout)?;
    let last = paths.lines().last().filter(|_| output.status.success());
    let error = || format!("hack/tools {name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(PathBuf::from(last.with_context(error)?))
}

/// The programs that were named, the others built.
fn programs(root: &Path, options: &Options) -> anyhow::Result<Programs> {
    let ours = match &options.ours {
        Some(path) => path.clone(),
        None => {
            let cargo = Command::new(env!("CARGO"))
                .args(["build", "--locked", "-p", "copepod-apiserver"])
                .current_dir(root)
                .status()?;
            if !cargo.success() {
                bail!("our API server does not build");
            }
            root.join("target/debug/copepod-apiserver")
        }
    };
    Ok(Programs {
        upstream: tool(root, &options.upstream, "kube-apiserver")?,
        etcd: tool(root, &options.etcd, "etcd")?,
        ours,
    })
}

/// The first line of what a command prints.
pub fn first_line(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("").to_string())
}
