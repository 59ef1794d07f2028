//! One API server with its store, as a child process: upstream's, ours on etcd, ours on the embedded store, or the floor.
//!
//! Invariants: all sides get the same flags, certificates and etcd; etcd syncs what it writes; nothing outlives the value.
//!
//! When it breaks: a program that does not become ready is told with the end of its log.

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::programs::Programs;
use super::results::Measured;
use crate::child::Killed;
use crate::diff::pair::{TOKEN, etcd_flags, ports, server_flags, spawn};
use crate::measure::{self, Probe};

const READY_WAIT: Duration = Duration::from_secs(300);
/// Between two looks at a server that starts. Each costs the server some CPU.
const READY_INTERVAL: Duration = Duration::from_millis(2);
/// From a start until its memory is read: what a start needs for a moment has been given back.
const SETTLE: Duration = Duration::from_secs(2);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// Upstream's program, on etcd where it has a store.
    Upstream,
    /// Ours, on etcd where it has a store.
    Ours,
    /// Ours on the embedded store.
    OursEmbedded,
    /// What nothing can be cheaper than: an HTTP server answering from memory, bare calls.
    Floor,
}

impl Which {
    pub fn name(self) -> &'static str {
        match self {
            Which::Upstream => "upstream",
            Which::Ours => "ours",
            Which::OursEmbedded => "ours, embedded store",
            Which::Floor => "floor",
        }
    }
}

/// What all sides share.
pub struct Setup<'a> {
    pub programs: &'a Programs,
    /// With certificates and tokens.
    pub folder: &'a Path,
    /// Answers for the floor.
    pub answers: PathBuf,
    /// Whether etcd syncs to disk; not while data is only being prepared.
    pub durable: bool,
}

/// A running server.
pub struct Side<'a> {
    setup: &'a Setup<'a>,
    which: Which,
    dir: PathBuf,
    store: String,
    port: u16,
    server: Option<Killed>,
    _etcd: Option<Killed>,
    /// From the start of its process until it answered /readyz.
    pub ready_ms: f64,
}

impl<'a> Side<'a> {
    /// Starts it in a folder of its own, which may hold data already.
    pub fn start(setup: &'a Setup<'a>, which: Which, dir: &Path) -> anyhow::Result<Side<'a>> {
        std::fs::create_dir_all(dir)?;
        let [port, client, peer] = ports()?;
        let on_etcd = matches!(which, Which::Upstream | Which::Ours);
        let etcd = if on_etcd { Some(etcd(setup, dir, client, peer)?) } else { None };
        let store = match etcd {
            Some(_) => format!("--etcd-servers=http://127.0.0.1:{client}"),
            None => format!("--storage=embedded:{}", dir.join("store").display()),
        };
        let mut side =
            Side { setup, which, dir: dir.into(), store, port, server: None, _etcd: etcd, ready_ms: 0.0 };
        side.restart()?;
        Ok(side)
    }

    /// Ends the server if it runs and starts it again on the same data.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.server = None;
        let tls = measure::tls(self.setup.folder)?;
        let (program, flags) = self.command_line();
        let log = self.dir.join("server.log");
        let begun = Instant::now();
        let mut server = spawn(program, flags, &log)?;
        wait_ready(self.port, &tls, &mut server, &log).with_context(|| program.display().to_string())?;
        self.ready_ms = begun.elapsed().as_secs_f64() * 1e3;
        self.server = Some(server);
        Ok(())
    }

    fn command_line(&self) -> (&Path, Vec<String>) {
        let programs = self.setup.programs;
        let flags = || server_flags(self.setup.folder, &self.dir, self.port, &self.store);
        match self.which {
            Which::Upstream => (&programs.upstream, flags()),
            Which::Ours | Which::OursEmbedded => (&programs.ours, flags()),
            Which::Floor => {
                let pki = |file: &str| self.setup.folder.join("pki").join(file).display().to_string();
                let flags = vec![
                    format!("--answers={}", self.setup.answers.display()),
                    format!("--secure-port={}", self.port),
                    format!("--tls-cert-file={}", pki("apiserver.crt")),
                    format!("--tls-private-key-file={}", pki("apiserver.key")),
                ];
                (&programs.floor, flags)
            }
        }
    }

    pub fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.server.as_ref().context("the server does not run")?.0.id())
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Resident memory, some time after the start.
    pub fn settled_mib(&self) -> anyhow::Result<f64> {
        std::thread::sleep(SETTLE);
        resident_mib(self.pid()?)
    }

    /// Runs the client against it and takes what it printed. `pid`: who is measured; `None`: this server.
    pub fn client(&self, mode: &str, pid: Option<u32>, flags: &[String]) -> anyhow::Result<Measured> {
        let mut command = Command::new(&self.setup.programs.client);
        command
            .arg(mode)
            .arg(format!("-server={}", self.url()))
            .arg(format!("-token={TOKEN}"))
            .arg(format!("-ca={}", self.setup.folder.join("pki/ca.crt").display()))
            .arg(format!("-pid={}", pid.map_or_else(|| self.pid(), Ok)?))
            .args(flags);
        output(&mut command).with_context(|| {
            let log = std::fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(5).collect();
            format!("{}; the end of the server's log: {}", self.which.name(), tail.join("\n"))
        })
    }
}

/// Runs a command that prints what it measured.
pub fn output(command: &mut Command) -> anyhow::Result<Measured> {
    let output = command.stderr(Stdio::inherit()).output().context("could not run the client")?;
    if !output.status.success() {
        bail!("the client failed");
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Resident memory of a process.
pub fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.split_whitespace().next().context("no VmRSS")?.parse()?;
    Ok(kib / 1024.0)
}

/// An etcd alone in a folder.
pub fn etcd(setup: &Setup<'_>, dir: &Path, client: u16, peer: u16) -> anyhow::Result<Killed> {
    let log = dir.join("etcd.log");
    let mut flags = etcd_flags(dir, client, peer);
    if !setup.durable {
        flags.push("--unsafe-no-fsync".into());
    }
    let mut etcd = spawn(&setup.programs.etcd, flags, &log)?;
    wait(&mut etcd, &log, || healthy(client)).context("etcd")?;
    Ok(etcd)
}

fn healthy(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(READY_WAIT))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.contains(r#""health":"true""#))
    };
    // An error is "not yet".
    ask().unwrap_or(false)
}

fn wait_ready(
    port: u16,
    tls: &Arc<rustls::ClientConfig>,
    server: &mut Killed,
    log: &Path,
) -> anyhow::Result<()> {
    let mut probe: Option<Probe> = None;
    wait(server, log, || {
        probe = probe.take().or_else(|| Probe::connect(port, tls));
        match probe.as_mut().map(Probe::ready) {
            Some(Ok(ready)) => ready,
            Some(Err(_)) => {
                probe = None;
                false
            }
            None => false,
        }
    })
}

fn wait(child: &mut Killed, log: &Path, mut ready: impl FnMut() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !ready() {
        if begun.elapsed() > READY_WAIT || child.0.try_wait()?.is_some() {
            let text = std::fs::read_to_string(log)?;
            let tail: Vec<&str> = text.lines().rev().take(20).collect();
            bail!("did not become ready; its log ends in (last line first):\n{}", tail.join("\n"));
        }
        std::thread::sleep(READY_INTERVAL);
    }
    Ok(())
}
