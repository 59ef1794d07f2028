//! How fast the API server starts and what it weighs: the figures of the README.

use anyhow::{Context as _, bail};
use copepod_pki::{ClusterPki, ClusterSpec};
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Starts measured; the median is told.
const ROUNDS: usize = 5;
const READY_WAIT: Duration = Duration::from_secs(20);

/// Measures `program` (the API server's binary) on an empty embedded store and again on the data of the first start.
pub fn start(program: &str) -> anyhow::Result<()> {
    let dir = std::env::temp_dir().join(format!("copepod-measure-{}", std::process::id()));
    let result = measure(program, &dir);
    match std::fs::remove_dir_all(&dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let (fresh, again, resident) = result?;
    println!("kube-apiserver-compatible server, embedded store, one machine:");
    println!("  start to /readyz on an empty store    {:>7.1} ms", fresh.as_secs_f64() * 1e3);
    println!("  start to /readyz on data (median)     {:>7.1} ms", again.as_secs_f64() * 1e3);
    println!("  resident memory after the start       {resident:>7.1} MiB");
    Ok(())
}

fn measure(program: &str, dir: &Path) -> anyhow::Result<(Duration, Duration, f64)> {
    std::fs::create_dir_all(dir)?;
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let spec = ClusterSpec {
        node_name: "measured".into(),
        addresses: vec![loopback],
        service_address: [10, 96, 0, 1].into(),
        domain: "cluster.local".into(),
    };
    ClusterPki::ensure(&dir.join("pki"), &spec)?;
    let (fresh, _) = one(program, dir)?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(one(program, dir)?);
    }
    rounds.sort_by_key(|(time, _)| *time);
    let (again, resident) = rounds[ROUNDS / 2];
    Ok((fresh, again, resident))
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // The process may have ended by itself; either way it is reaped.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn one(program: &str, dir: &Path) -> anyhow::Result<(Duration, f64)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let started = Instant::now();
    let child = Command::new(program)
        .arg(format!("--storage=embedded:{}", dir.join("store").display()))
        .args(["--bind-address=127.0.0.1", "--authorization-mode=RBAC"])
        .arg(format!("--secure-port={port}"))
        .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
        .arg(format!("--service-account-signing-key-file={}", dir.join("pki/sa.key").display()))
        .arg(format!("--tls-cert-file={}", dir.join("pki/apiserver.crt").display()))
        .arg(format!("--tls-private-key-file={}", dir.join("pki/apiserver.key").display()))
        .arg(format!("--client-ca-file={}", dir.join("pki/ca.crt").display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {program}"))?;
    let mut child = Killed(child);
    let log = child.0.stderr.take().context("no log")?;
    // Read on, so that the server never waits for us.
    let log =
        std::thread::spawn(move || BufReader::new(log).lines().map_while(Result::ok).collect::<Vec<_>>());
    while !ready(port) {
        if child.0.try_wait()?.is_some() || started.elapsed() > READY_WAIT {
            drop(child);
            let lines = log.join().unwrap_or_default();
            bail!("{program} did not become ready:\n{}", lines.join("\n"));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    let time = started.elapsed();
    std::thread::sleep(Duration::from_millis(500));
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.0.id()))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.split_whitespace().next().context("no VmRSS")?.parse()?;
    Ok((time, kib / 1024.0))
}

/// Whether /readyz answers 200. Asked through curl only once the port is open, so that a start costs one process.
fn ready(port: u16) -> bool {
    if TcpStream::connect(("127.0.0.1", port)).is_err() {
        return false;
    }
    let url = format!("https://127.0.0.1:{port}/readyz");
    let curl = Command::new("curl").args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", &url]).output();
    curl.is_ok_and(|o| o.stdout == b"200")
}
