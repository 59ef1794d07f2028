//! How fast the API server starts and what it weighs: the figures of the README.

use crate::child::Killed;
use anyhow::{Context as _, bail};
use copepod_pki::{ClusterPki, ClusterSpec};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Starts measured; the median is told.
const ROUNDS: usize = 5;
/// An answer that takes longer is "not yet".
const ANSWER_WAIT: Duration = Duration::from_secs(10);
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

fn one(program: &str, dir: &Path) -> anyhow::Result<(Duration, f64)> {
    let tls = tls(dir)?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let started = Instant::now();
    let mut command = Command::new(program);
    command
        .arg(format!("--storage=embedded:{}", dir.join("store").display()))
        .args(["--bind-address=127.0.0.1", "--authorization-mode=RBAC"])
        .arg(format!("--secure-port={port}"))
        .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
        .arg(format!("--service-account-signing-key-file={}", dir.join("pki/sa.key").display()))
        .arg(format!("--tls-cert-file={}", dir.join("pki/apiserver.crt").display()))
        .arg(format!("--tls-private-key-file={}", dir.join("pki/apiserver.key").display()))
        .arg(format!("--client-ca-file={}", dir.join("pki/ca.crt").display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = Killed::spawn(command).with_context(|| format!("could not start {program}"))?;
    let log = child.0.stderr.take().context("no log")?;
    // Read on, so that the server never waits for us.
    let log =
        std::thread::spawn(move || BufReader::new(log).lines().map_while(Result::ok).collect::<Vec<_>>());
    let mut probe: Option<Probe> = None;
    loop {
        probe = probe.or_else(|| Probe::connect(port, &tls));
        match probe.as_mut().map(Probe::ready) {
            Some(Ok(true)) => break,
            Some(Err(_)) => probe = None,
            Some(Ok(false)) | None => {}
        }
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

/// A connection on which /readyz is asked: a process for each question would be most of what is measured.
pub struct Probe(rustls::StreamOwned<rustls::ClientConnection, TcpStream>);

impl Probe {
    /// Connects over TLS; `None`: not yet.
    pub fn connect(port: u16, tls: &Arc<rustls::ClientConfig>) -> Option<Probe> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(ANSWER_WAIT)).ok()?;
        let name = rustls_pki_types::ServerName::try_from("127.0.0.1").ok()?;
        let client = rustls::ClientConnection::new(Arc::clone(tls), name).ok()?;
        Some(Probe(rustls::StreamOwned::new(client, stream)))
    }

    /// Whether it answers 200; an error is "not yet".
    pub fn ready(&mut self) -> std::io::Result<bool> {
        self.0.write_all(b"GET /readyz HTTP/1.1\r\nHost: measured\r\n\r\n")?;
        let mut answer = [0; 4096];
        let mut read = 0;
        // Head and body come in one write; the body says that it is whole.
        while read < answer.len() {
            read += match self.0.read(&mut answer[read..])? {
                0 => return Ok(false),
                n => n,
            };
            let text = &answer[..read];
            if text.ends_with(b"\r\n\r\nok") || text.ends_with(b"readyz check failed\n") {
                break;
            }
        }
        Ok(answer.starts_with(b"HTTP/1.1 200"))
    }
}

/// Believes the authority in `dir/pki`.
pub fn tls(dir: &Path) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(dir.join("pki/ca.crt"))? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
