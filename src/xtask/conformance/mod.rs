//! `cargo xtask conformance`: upstream's own e2e suite against a cluster of ours, and its result as data.
//!
//! | module | what |
//! |---|---|
//! | [`selection`] | which tests of the suite a run is about |
//! | [`cluster`] | the cluster: two nodes and a registry of images, or one that is there |
//! | [`cast`], [`others`] | who plays which component: ours or upstream's |
//! | [`ginkgo`], [`report`], [`group`] | the suite as a child process, and what it tells of a finished test |
//! | [`results`] | one row a test, merged over runs |
//! | [`causes`] | why tests fail, as data |
//! | [`must_pass`] | what passed once and must go on passing |
//! | [`table`] | the results for people |
//!
//! `conformance/README.md` tells how to use it.

mod cast;
mod causes;
mod cluster;
mod ginkgo;
mod group;
mod must_pass;
mod others;
mod report;
mod results;
mod selection;
mod table;
#[cfg(test)]
mod tests;

use anyhow::Context as _;
use clap::Parser;
use regex::Regex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cast::Cast;
use causes::Causes;
use cluster::{Cluster, Parts, tool};
use ginkgo::{Job, Programs};
use results::{Results, Row, State};
use selection::{Selection, Shard};

/// The suite whose tests must go on passing, and its results' name.
const OWN: &str = "conformance";
/// Results are written while tests run, so that a run that is killed loses little.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);

/// Runs Kubernetes' conformance tests against a cluster of two nodes on this machine.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask conformance")]
struct Options {
    /// Only tests whose name matches this regular expression.
    #[arg(long)]
    focus: Option<Regex>,
    /// No tests whose name matches this regular expression.
    #[arg(long)]
    skip: Option<Regex>,
    /// Only tests of this group, as in `sig-node`.
    #[arg(long)]
    group: Option<String>,
    /// Only the i-th of n parts, as in `2/4`.
    #[arg(long)]
    shard: Option<Shard>,
    /// Only tests that have not passed yet.
    #[arg(long)]
    resume: bool,
    /// Only the fast ones of those that must pass, and nothing is recorded: some minutes. One that fails has a second try, alone.
    #[arg(long)]
    quick: bool,
    /// Only the twenty tests of smoke.txt, which touch every component.
    #[arg(long)]
    smoke: bool,
    /// Upstream's own components instead of ours, on the same nodes and images.
    #[arg(long)]
    upstream: bool,
    /// Components played by the other side: `apiserver=ours,kubelet=upstream`. Names: apiserver, controller-manager,
    /// scheduler, kubelet, proxy, dns.
    #[arg(long, value_name = "COMPONENT=SIDE", value_delimiter = ',')]
    swap: Vec<String>,
    /// Tests at a time; those that must run alone do so all the same.
    #[arg(long, default_value_t = 8)]
    procs: usize,
    /// A cluster that is there, instead of one made for the run.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Published images from their registries instead of stand-ins.
    #[arg(long)]
    real_images: bool,
    /// The copepod program; built when missing.
    #[arg(long, value_name = "PROGRAM")]
    copepod: Option<PathBuf>,
    /// More flags for `copepod up`.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    up: Vec<String>,
    /// Where the cluster, rows and logs lie while it runs.
    #[arg(long, value_name = "FOLDER", default_value = "/var/tmp/copepod-conformance")]
    folder: PathBuf,
    /// Name of the results: conformance/results/NAME.json.
    #[arg(long, value_name = "NAME")]
    results: Option<String>,
    /// Leave the cluster as it is when the run is over.
    #[arg(long)]
    keep: bool,
    /// Write conformance/suite/tests.txt from the suite and stop.
    #[arg(long)]
    renew_tests: bool,
    /// Merge the rows of these files into the results and stop: of shards that ran elsewhere.
    #[arg(long, value_name = "FILE")]
    merge: Vec<PathBuf>,
    /// Make causes and tables of the results anew and stop.
    #[arg(long)]
    tables: bool,
}

impl Options {
    fn cast(&self) -> anyhow::Result<Cast> {
        Cast::new(self.upstream, &self.swap)
    }
}

/// Where the data lies.
struct Files(PathBuf);

impl Files {
    fn tests(&self) -> PathBuf {
        self.0.join("suite/tests.txt")
    }
    fn smoke(&self) -> PathBuf {
        self.0.join("smoke.txt")
    }
    fn must_pass(&self) -> PathBuf {
        self.0.join("must-pass.txt")
    }
    fn results(&self, suite: &str) -> PathBuf {
        self.0.join(format!("results/{suite}.json"))
    }
    fn causes(&self) -> PathBuf {
        self.0.join("results/causes.yaml")
    }
    fn readme(&self) -> PathBuf {
        self.0.join("README.md")
    }
}

/// Runs the command; a line for each test that must pass and did not.
pub fn command(root: &Path, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let words = std::iter::once("cargo xtask conformance").chain(arguments.iter().copied());
    let options = match Options::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    let files = Files(root.join("conformance"));
    if options.tables {
        tables(&files)?;
        return Ok(Vec::new());
    }
    if !options.merge.is_empty() {
        return merge(root, &options, files);
    }
    let programs = programs(root)?;
    if options.renew_tests {
        let folder = tempfile::TempDir::with_prefix("copepod-suite-")?;
        let names = ginkgo::list(&programs, folder.path())?;
        results::write(&files.tests(), &format!("{}\n", names.join("\n")))?;
        println!("{} tests", names.len());
        return Ok(Vec::new());
    }
    let mut run = Run::new(root, &options, files)?;
    let tests = run.selection(&options)?;
    if tests.is_empty() {
        println!("nothing to run");
        return Ok(Vec::new());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(async {
            // Whatever ends first, the other one is dropped: test processes and cluster go with it. The signals first, so
            // that they are waited for before there is anything to take down.
            tokio::select! {
                biased;
                signal = interrupted() => Err(signal),
                done = conduct(root, &options, &programs, &mut run, &tests) => done,
            }
        })
        .or_else(|error| run.save().and_then(|()| run.tables()).and(Err(error)))?;
    run.end()
}

/// Rows of other runs, as if they had finished in this one.
fn merge(root: &Path, options: &Options, files: Files) -> anyhow::Result<Vec<String>> {
    let mut run = Run::new(root, options, files)?;
    for file in &options.merge {
        let other = Results::read(file, &run.tests)?;
        for row in other.rows().filter(|row| row.state != State::NotRun || !row.failure.is_empty()) {
            run.finished.insert(row.name.clone());
            run.results.put(run.causes.weighed(row.clone()));
        }
    }
    run.end()
}

async fn interrupted() -> anyhow::Error {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        anyhow::Ok(())
    };
    match wait.await {
        Ok(()) => anyhow::anyhow!("interrupted; --resume goes on"),
        Err(error) => error.context("cannot wait for signals"),
    }
}

/// Brings up the cluster and runs first what may run side by side, then the rest one by one.
async fn conduct(
    root: &Path,
    options: &Options,
    programs: &Programs,
    run: &mut Run,
    tests: &[String],
) -> anyhow::Result<()> {
    let cluster = match &options.kubeconfig {
        Some(kubeconfig) => Cluster::given(kubeconfig),
        None => Cluster::start(parts(root, options, programs)?, &options.folder)?,
    };
    let (serial, parallel): (Vec<String>, Vec<String>) =
        tests.iter().cloned().partition(|name| results::is_serial(name));
    for (tests, procs) in [(parallel, options.procs), (serial, 1)] {
        play(options, programs, &cluster, run, &tests, procs).await?;
    }
    if options.quick {
        let again = run.failed();
        play(options, programs, &cluster, run, &again, 1).await?;
    }
    Ok(())
}

/// Runs these tests, so many at a time.
async fn play(
    options: &Options,
    programs: &Programs,
    cluster: &Cluster,
    run: &mut Run,
    tests: &[String],
    procs: usize,
) -> anyhow::Result<()> {
    if tests.is_empty() {
        return Ok(());
    }
    let folder = options.folder.join("suite");
    let commit = run.commit.clone();
    let job = Job {
        tests,
        procs: procs.min(tests.len()),
        kubeconfig: &cluster.kubeconfig,
        folder: &folder,
        commit: &commit,
    };
    ginkgo::run(programs, &job, |row| run.tell(row)).await?;
    run.save()
}

/// A run: what it is about and what it has seen.
struct Run {
    files: Files,
    suite: String,
    tests: Vec<String>,
    results: Results,
    causes: Causes,
    commit: String,
    /// Whether the results are written down, or only judged.
    recorded: bool,
    /// Names of tests that have finished in this run.
    finished: BTreeSet<String>,
    wanted: usize,
    start: Instant,
    saved: Instant,
}

impl Run {
    fn new(root: &Path, options: &Options, files: Files) -> anyhow::Result<Run> {
        let suite = match &options.results {
            Some(name) => name.clone(),
            None if options.kubeconfig.is_some() => anyhow::bail!("--kubeconfig needs --results NAME"),
            None => options.cast()?.suite(),
        };
        let tests = results::names(&files.tests())?;
        Ok(Run {
            results: Results::read(&files.results(&suite), &tests)?,
            causes: Causes::read(&files.causes(), &suite)?,
            commit: commit(root)?,
            recorded: !options.quick,
            finished: BTreeSet::new(),
            wanted: 0,
            start: Instant::now(),
            saved: Instant::now(),
            files,
            suite,
            tests,
        })
    }

    /// The tests that this run is about.
    fn selection(&mut self, options: &Options) -> anyhow::Result<Vec<String>> {
        let selection = Selection {
            focus: options.focus.clone(),
            skip: options.skip.clone(),
            group: options.group.clone(),
            shard: options.shard,
            resume: options.resume,
        };
        let all = if options.quick {
            let list = must_pass::read(&self.files.must_pass())?;
            let mut quick = must_pass::quick(&list, &self.results, options.procs);
            quick.sort();
            quick
        } else if options.smoke {
            results::names(&self.files.smoke())?
        } else {
            self.tests.clone()
        };
        let tests = selection.of(&all, &self.results);
        self.wanted = tests.len();
        Ok(tests)
    }

    /// Takes in a finished test.
    fn tell(&mut self, row: Row) -> anyhow::Result<()> {
        let row = self.causes.weighed(row);
        self.finished.insert(row.name.clone());
        let (state, failure) = match row.state {
            State::Passed => ("passed", String::new()),
            State::Failed => ("FAILED", format!("\n        {}", row.failure)),
            State::NotRun => ("not run", format!("\n        {}", row.failure)),
        };
        let (seconds, name) = (row.seconds, row.name.clone());
        self.results.put(row);
        println!(
            "{:>4} of {}, {} failed, {:>5.0} s: {state} in {seconds:.1} s: {name}{failure}",
            self.finished.len(),
            self.wanted,
            self.failed().len(),
            self.start.elapsed().as_secs_f64(),
        );
        if self.saved.elapsed() > SAVE_INTERVAL {
            self.save()?;
        }
        Ok(())
    }

    /// The rows of this run.
    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.finished.iter().filter_map(|name| self.results.get(name))
    }

    /// Names of the tests that failed in this run.
    fn failed(&self) -> Vec<String> {
        self.rows().filter(|row| row.state == State::Failed).map(|row| row.name.clone()).collect()
    }

    fn save(&mut self) -> anyhow::Result<()> {
        if !self.recorded {
            return Ok(());
        }
        self.saved = Instant::now();
        self.results.explain(&self.causes);
        self.results.write(&self.files.results(&self.suite))
    }

    fn tables(&self) -> anyhow::Result<()> {
        if self.recorded { tables(&self.files) } else { Ok(()) }
    }

    /// Sums up, and lets the list of what must pass grow.
    fn end(mut self) -> anyhow::Result<Vec<String>> {
        if !self.recorded {
            return self.judged();
        }
        self.save()?;
        self.tables()?;
        for (cause, tests) in table::by_cause(&self.results) {
            println!("{:>4} failed: {cause}", tests.len());
        }
        let count = |state| self.results.count(state);
        println!(
            "{}: {} passed, {} failed, {} not run of {}; this run: {} tests in {:.0} s",
            self.suite,
            count(State::Passed),
            count(State::Failed),
            count(State::NotRun),
            self.tests.len(),
            self.finished.len(),
            self.start.elapsed().as_secs_f64(),
        );
        if self.suite != OWN {
            return Ok(Vec::new());
        }
        let mut list = must_pass::read(&self.files.must_pass())?;
        let (new, broken) = must_pass::judge(&list, self.rows());
        let broken = broken.into_iter().map(broken_line).collect();
        let new: Vec<String> = new.into_iter().map(str::to_owned).collect();
        if !new.is_empty() {
            println!("{} test(s) more that must pass from now on", new.len());
            list.extend(new);
            must_pass::write(&self.files.must_pass(), &list)?;
        }
        Ok(broken)
    }

    /// What a run says that is not recorded.
    fn judged(&self) -> anyhow::Result<Vec<String>> {
        let list = must_pass::read(&self.files.must_pass())?;
        let (_, broken) = must_pass::judge(&list, self.rows());
        println!("{} passed, {} failed", self.finished.len() - self.failed().len(), self.failed().len());
        Ok(broken.into_iter().map(broken_line).collect())
    }
}

fn broken_line(name: &str) -> String {
    format!("must pass and failed: {name}")
}

/// Renews causes and the tables of every suite that the document shows.
fn tables(files: &Files) -> anyhow::Result<()> {
    let path = files.readme();
    let mut document = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let tests = results::names(&files.tests())?;
    for suite in table::suites(&document.clone()) {
        let file = files.results(suite);
        let causes = Causes::read(&files.causes(), suite)?;
        let mut results = Results::read(&file, &tests)?;
        let rows: Vec<Row> = results.rows().cloned().collect();
        rows.into_iter().for_each(|row| results.put(causes.weighed(row)));
        results.explain(&causes);
        if file.exists() {
            results.write(&file)?;
        }
        document = table::replaced(&document, suite, &table::markdown(&results)?)?;
    }
    results::write(&path, &document)
}

/// The commit of the checkout; marked when sources are not as committed.
fn commit(root: &Path) -> anyhow::Result<String> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(root).args(arguments);
        command
    };
    let commit = cluster::output(&mut git(&["rev-parse", "--short=12", "HEAD"]))?;
    let clean =
        git(&["diff", "--quiet", "HEAD", "--", "src", "api", "conformance/images"]).status()?.success();
    Ok(format!("{}{}", commit.trim(), if clean { "" } else { "+changes" }))
}

/// Programs of others, built when missing.
fn programs(root: &Path) -> anyhow::Result<Programs> {
    Ok(Programs {
        suite: tool(root, "conformance-suite")?,
        ginkgo: tool(root, "ginkgo")?,
        kubectl: tool(root, "kubectl")?,
    })
}

fn parts(root: &Path, options: &Options, programs: &Programs) -> anyhow::Result<Parts> {
    let copepod = match &options.copepod {
        Some(program) => std::path::absolute(program)?,
        None => {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--release", "--locked", "-p", "copepod-cli"]).current_dir(root);
            anyhow::ensure!(cargo.status()?.success(), "copepod does not build");
            root.join("target/release/copepod")
        }
    };
    Ok(Parts {
        root: root.canonicalize()?,
        copepod: copepod.canonicalize()?,
        kubectl: programs.kubectl.clone(),
        cast: options.cast()?,
        real_images: options.real_images,
        flags: options.up.clone(),
        keep: options.keep,
    })
}
