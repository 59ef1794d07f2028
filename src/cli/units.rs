//! The processes of a cluster: each started detached, found again by its pid file, stopped by signal.
//!
//! A unit outlives the command that started it, and the other units: when the control plane dies, containerd and the pods
//! go on. A pid counts only together with the start time of its process, so that a reused pid is never taken for ours.

use crate::layout::Layout;
use anyhow::{Context as _, bail};
use copepod_pki::files::{self, Mode};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a unit gets to end by itself.
const STOP_WAIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
/// How much of a log an error shows.
const LOG_TAIL_BYTES: u64 = 2000;

/// One process to be run.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Name of pid file and log.
    pub name: &'static str,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Folder that its PATH begins with.
    pub path_first: Option<PathBuf>,
}

/// A running unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its process.
    pub pid: i32,
    /// Resident memory in KiB.
    pub resident_kib: u64,
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
}

/// Field 22 of /proc/PID/stat: start time in ticks since boot. `None`: no such process, or a dead one not yet reaped.
fn stat(pid: i32) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name stands in parentheses and may hold anything.
    let rest: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    if rest.first() == Some(&"Z") {
        return None;
    }
    let number = |i: usize| rest.get(i).and_then(|t| t.parse::<u64>().ok());
    Some((number(19)?, number(11)? + number(12)?))
}

/// The unit's process, if it is alive.
pub fn running(layout: &Layout, name: &str) -> anyhow::Result<Option<Running>> {
    let Some(text) = files::read(&layout.pid(name))? else { return Ok(None) };
    let mut words = text.split_whitespace();
    let (Some(pid), Some(started)) =
        (words.next().and_then(|w| w.parse::<i32>().ok()), words.next().and_then(|w| w.parse::<u64>().ok()))
    else {
        return Ok(None);
    };
    let Some((start, ticks)) = stat(pid).filter(|(start, _)| *start == started) else { return Ok(None) };
    debug_assert_eq!(start, started);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let resident =
        status.lines().find_map(|l| l.strip_prefix("VmRSS:")).and_then(|v| v.split_whitespace().next());
    // A tick is 10 ms on every Linux that this runs on (USER_HZ).
    let resident_kib = resident.and_then(|v| v.parse().ok()).unwrap_or(0);
    Ok(Some(Running { pid, resident_kib, cpu_ms: ticks * 10 }))
}

/// Starts the unit unless it runs. True if it was started.
pub fn start(layout: &Layout, unit: &Unit) -> anyhow::Result<bool> {
    if running(layout, unit.name)?.is_some() {
        return Ok(false);
    }
    let log = open_log(layout, unit.name)?;
    let (program, arguments) = unit.command.split_first().context("a unit without a program")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    command.current_dir("/");
    if let Some(first) = &unit.path_first {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let rest = std::env::split_paths(&path);
        command.env("PATH", std::env::join_paths(std::iter::once(first.clone()).chain(rest))?);
    }
    // A shell's job control or a terminal's hang-up must not reach the cluster: own process group, no terminal input.
    let child = command.spawn().with_context(|| format!("could not start {program}"))?;
    let pid = i32::try_from(child.id())?;
    let (started, _) = stat(pid)
        .with_context(|| format!("{program} ended at once; see {}", layout.log(unit.name).display()))?;
    files::write(&layout.pid(unit.name), format!("{pid} {started}\n").as_bytes(), Mode::Public)?;
    Ok(true)
}

fn open_log(layout: &Layout, name: &str) -> anyhow::Result<File> {
    let path = layout.log(name);
    let open = OpenOptions::new().create(true).append(true).mode(0o640).open(&path);
    open.with_context(|| format!("could not open {}", path.display()))
}

/// The end of a unit's log, for an error message.
pub fn log_tail(layout: &Layout, name: &str) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(layout.log(name))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|e| format!("(no log: {e})"))
}

/// Stops the unit and waits for its end. True if it ran.
pub fn stop(layout: &Layout, name: &str) -> anyhow::Result<bool> {
    let Some(unit) = running(layout, name)? else {
        remove_pid(layout, name)?;
        return Ok(false);
    };
    kill(Pid::from_raw(unit.pid), Signal::SIGTERM)
        .with_context(|| format!("could not stop {name} ({})", unit.pid))?;
    if !ended(layout, name, STOP_WAIT)? {
        kill(Pid::from_raw(unit.pid), Signal::SIGKILL).with_context(|| format!("could not kill {name}"))?;
        if !ended(layout, name, STOP_WAIT)? {
            bail!("{name} (process {}) does not end", unit.pid);
        }
    }
    remove_pid(layout, name)?;
    Ok(true)
}

fn remove_pid(layout: &Layout, name: &str) -> anyhow::Result<()> {
    match std::fs::remove_file(layout.pid(name)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// Processes of others end without telling us: their end can only be looked for.
fn ended(layout: &Layout, name: &str, wait: Duration) -> anyhow::Result<bool> {
    let until = Instant::now() + wait;
    while Instant::now() < until {
        if running(layout, name)?.is_none() {
            return Ok(true);
        }
        std::thread::sleep(POLL);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_started_once_found_and_stopped() {
        let dir = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(dir.path().into());
        for sub in ["run", "log"] {
            std::fs::create_dir(layout.join(sub)).expect("a folder");
        }
        let unit =
            Unit { name: "sleeper", command: ["sleep", "100"].map(String::from).to_vec(), path_first: None };
        assert!(start(&layout, &unit).expect("starts"));
        assert!(!start(&layout, &unit).expect("runs already"));
        let pid = running(&layout, "sleeper").expect("looks").expect("runs").pid;
        // The pid file of another process of that number is not ours.
        files::write(&layout.pid("other"), format!("{pid} 1\n").as_bytes(), Mode::Public).expect("writes");
        assert_eq!(running(&layout, "other").expect("looks"), None);
        assert!(stop(&layout, "sleeper").expect("stops"));
        assert!(!stop(&layout, "sleeper").expect("is stopped"));
    }
}
