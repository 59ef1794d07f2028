//! The two servers as child processes, each on an etcd of its own. Whatever happens, they end with this value.

use anyhow::{Context as _, bail};
use copepod_pki::{ClusterPki, ClusterSpec};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use super::etcd::Etcd;
use super::script::Request;
use super::server::{Http, Server as _};
use crate::child::Killed;

/// Upstream's server takes some seconds, more on a busy machine.
const READY_TIME_MAX: Duration = Duration::from_secs(90);
const READY_INTERVAL: Duration = Duration::from_millis(100);
/// Of a member of system:masters.
pub const TOKEN: &str = "differential-runs-only";

/// The programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Upstream's kube-apiserver.
    pub upstream: PathBuf,
    /// Ours.
    pub ours: PathBuf,
    /// etcd.
    pub etcd: PathBuf,
}

/// One server and its etcd.
pub struct Side {
    /// Its client.
    pub http: Http,
    /// What it stores.
    pub etcd: Etcd,
    _children: [Killed; 2],
}

/// Both.
pub struct Pair {
    /// kube-apiserver.
    pub upstream: Side,
    /// copepod-apiserver.
    pub ours: Side,
    _folder: TempDir,
}

impl Pair {
    /// Starts everything and waits until both are ready.
    pub async fn start(programs: &Programs) -> anyhow::Result<Pair> {
        let folder = TempDir::with_prefix("copepod-diff-")?;
        credentials(folder.path())?;
        let (upstream, ours) = tokio::try_join!(
            side("upstream", &programs.upstream, &programs.etcd, folder.path()),
            side("ours", &programs.ours, &programs.etcd, folder.path()),
        )?;
        Ok(Pair { upstream, ours, _folder: folder })
    }
}

/// Certificates and the token file that both servers use.
pub fn credentials(folder: &Path) -> anyhow::Result<()> {
    let spec = ClusterSpec {
        node_name: "none".into(),
        addresses: vec![IpAddr::from([127, 0, 0, 1])],
        service_address: [10, 96, 0, 1].into(),
        domain: "cluster.local".into(),
    };
    ClusterPki::ensure(&folder.join("pki"), &spec)?;
    copepod_pki::files::write(
        &folder.join("tokens.csv"),
        format!("{TOKEN},admin,1,system:masters\n").as_bytes(),
        copepod_pki::files::Mode::Private,
    )?;
    Ok(())
}

async fn side(name: &str, program: &Path, etcd: &Path, folder: &Path) -> anyhow::Result<Side> {
    let [port, client, peer] = ports()?;
    let dir = folder.join(name);
    std::fs::create_dir_all(&dir)?;
    let mut flags = etcd_flags(&dir, client, peer);
    // What is compared are answers, not how they last.
    flags.push("--unsafe-no-fsync".into());
    let mut etcd = spawn(etcd, flags, &dir.join("etcd.log"))?;
    wait_until(|| async { Ok(Etcd::new(client).revision().await.is_ok()) }, &mut etcd, &dir.join("etcd.log"))
        .await?;
    let log = dir.join("apiserver.log");
    // Both under upstream's name, which is the field manager of what they write themselves.
    let named = dir.join("kube-apiserver");
    std::os::unix::fs::symlink(std::path::absolute(program)?, &named)?;
    let store = format!("--etcd-servers=http://127.0.0.1:{client}");
    let mut server = spawn(&named, server_flags(folder, &dir, port, &store), &log)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let ca = folder.join("pki/ca.crt");
    wait_until(|| ready(address, &ca), &mut server, &log)
        .await
        .with_context(|| program.display().to_string())?;
    let http = Http::connect(address, &ca, TOKEN).await?;
    Ok(Side { http, etcd: Etcd::new(client), _children: [server, etcd] })
}

/// etcd's own flags; whether what is written is on disk is for the caller to add.
pub fn etcd_flags(dir: &Path, client: u16, peer: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    vec![
        format!("--data-dir={}", dir.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--log-level=error".into(),
    ]
}

/// The same for both, but for the store.
pub fn server_flags(folder: &Path, dir: &Path, port: u16, store: &str) -> Vec<String> {
    let pki = |file: &str| folder.join("pki").join(file).display().to_string();
    vec![
        store.into(),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", dir.display()),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--token-auth-file={}", folder.join("tokens.csv").display()),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        format!("--service-account-key-file={}", pki("sa.pub")),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        "--endpoint-reconciler-type=none".into(),
    ]
}

/// Free ports, held together so that they differ.
pub fn ports() -> anyhow::Result<[u16; 3]> {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(listeners) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}

/// Starts a program that writes to a log and ends with us.
pub fn spawn(program: &Path, flags: Vec<String>, log: &Path) -> anyhow::Result<Killed> {
    let file = std::fs::File::create(log)?;
    let mut command = Command::new(program);
    command.args(flags).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    Killed::spawn(command).with_context(|| format!("could not start {}", program.display()))
}

async fn ready(address: SocketAddr, ca: &Path) -> anyhow::Result<bool> {
    let Ok(http) = Http::connect(address, ca, TOKEN).await else { return Ok(false) };
    let request =
        Request { method: "GET".into(), path: "/readyz".into(), headers: Vec::new(), body: Vec::new() };
    Ok(http.ask(&request, false).await.is_ok_and(|(answer, _)| answer.code == 200))
}

/// Asks again and again; on failure the end of the log is told.
async fn wait_until<F: Future<Output = anyhow::Result<bool>>>(
    mut ready: impl FnMut() -> F,
    child: &mut Killed,
    log: &Path,
) -> anyhow::Result<()> {
    let start = Instant::now();
    while !ready().await? {
        if start.elapsed() > READY_TIME_MAX || child.0.try_wait()?.is_some() {
            let text = std::fs::read_to_string(log)?;
            let tail: Vec<&str> = text.lines().rev().take(20).collect();
            bail!(
                "did not become ready; its log ends in:\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        tokio::time::sleep(READY_INTERVAL).await;
    }
    Ok(())
}
