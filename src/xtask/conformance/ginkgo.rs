//! The suite as a child process: ginkgo, its test processes, and what they tell of each finished test.
//!
//! Owns: the process group, which ends with this value. Does not: judge rows, or know the cluster beyond its kubeconfig.
//!
//! When it breaks: ginkgo's exit code says only that some test failed. A run that tells of no test at all is an error, with
//! the end of its log.

use anyhow::{Context as _, bail};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::group::Group;
use super::report::{self, Tail};
use super::results::Row;

/// Names in one `--focus`; the kernel takes 128 KiB in an argument, and ginkgo several of them.
const FOCUS_NAMES_MAX: usize = 100;
/// How ginkgo names the suite before a test's own name.
const SUITE_NAME: &str = "Kubernetes e2e suite";
const POLL_INTERVAL: Duration = Duration::from_millis(250);
const LOG_LINES_SHOWN: usize = 40;

/// The programs that a run needs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Upstream's suite, built in `conformance/suite`.
    pub suite: PathBuf,
    /// Its runner.
    pub ginkgo: PathBuf,
    /// Which the tests of kubectl call.
    pub kubectl: PathBuf,
}

/// One call of ginkgo.
pub struct Job<'a> {
    /// The tests, by their full names.
    pub tests: &'a [String],
    /// Test processes.
    pub procs: usize,
    /// Of the cluster.
    pub kubeconfig: &'a Path,
    /// For rows, the log and what tests write.
    pub folder: &'a Path,
    /// Of the checkout, for the rows.
    pub commit: &'a str,
}

/// Runs the tests and hands over each one's row when it has finished.
pub async fn run(
    programs: &Programs,
    job: &Job<'_>,
    mut tell: impl FnMut(Row) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(job.folder)?;
    let folder = std::path::absolute(job.folder)?;
    let (log, rows) = (folder.join("suite.log"), folder.join("rows"));
    if rows.exists() {
        std::fs::remove_file(&rows)?;
    }
    let output = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
    let child = Command::new(&programs.ginkgo)
        .args(arguments(programs, job, &folder, &rows)?)
        // kubectl caches what it discovers at home.
        .env("HOME", &folder)
        .env_remove("KUBECONFIG")
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .with_context(|| programs.ginkgo.display().to_string())?;
    // Test processes and their kubectls are in the group, too.
    let mut group = Group(child);
    let (mut tail, mut told) = (Tail::new(rows), 0);
    loop {
        let ended = group.0.try_wait()?;
        for line in tail.lines()? {
            told += 1;
            tell(report::row(&line, job.commit)?)?;
        }
        match ended {
            Some(status) if told == 0 => {
                bail!("no test ran ({status}); {}\n{}", log.display(), end_of(&log)?)
            }
            Some(_) => return Ok(()),
            None => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

fn arguments(programs: &Programs, job: &Job<'_>, folder: &Path, rows: &Path) -> anyhow::Result<Vec<String>> {
    let mut arguments = vec![
        "run".to_owned(),
        format!("--procs={}", job.procs),
        // Of the whole run; each test has its cap.
        "--timeout=24h".into(),
        "--no-color".into(),
    ];
    arguments.extend(job.tests.chunks(FOCUS_NAMES_MAX).map(focus));
    arguments.push(programs.suite.display().to_string());
    arguments.push("--".into());
    arguments.extend([
        format!("--kubeconfig={}", std::path::absolute(job.kubeconfig)?.display()),
        format!("--kubectl-path={}", programs.kubectl.display()),
        format!("--rows={}", rows.display()),
        format!("--e2e-output-dir={}", folder.display()),
        "--provider=skeleton".into(),
        "--repo-root=".into(),
        // A cluster that is not ready by then will not be.
        "--node-schedulable-timeout=2m".into(),
        "--system-pods-startup-timeout=2m".into(),
        "--system-daemonsets-startup-timeout=2m".into(),
    ]);
    Ok(arguments)
}

/// Exactly these tests.
fn focus(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| regex::escape(name)).collect();
    format!("--focus=^{SUITE_NAME} (?:{})$", names.join("|"))
}

fn end_of(log: &Path) -> anyhow::Result<String> {
    let text = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n"))
}

/// The names of all conformance tests, from the suite itself.
pub fn list(programs: &Programs, folder: &Path) -> anyhow::Result<Vec<String>> {
    let rows = folder.join("rows");
    let output = Command::new(&programs.suite)
        .args(["--ginkgo.dry-run", "--ginkgo.focus=\\[Conformance\\]", "--kubeconfig=/dev/null"])
        .arg(format!("--rows={}", rows.display()))
        .output()
        .with_context(|| programs.suite.display().to_string())?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let lines = Tail::new(rows).lines()?;
    let mut names =
        lines.iter().map(|line| Ok(report::row(line, "")?.name)).collect::<anyhow::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}
