//! The contract on real etcds, and what only this backend can get wrong: connections that break.

mod cluster;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener as AsyncListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::contract;
use crate::store::WatchItem;

const PATIENCE: Duration = Duration::from_secs(60);

/// An etcd of one member in a directory of its own, killed at the end.
pub(crate) struct Etcd {
    child: Child,
    arguments: Vec<String>,
    binary: PathBuf,
    url: String,
    _dir: tempfile::TempDir,
}

/// Where `hack/tools etcd` puts it, or what the environment says.
fn binary(variable: &str, name: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/copepod/bin").join(name),
        PathBuf::from,
    );
    assert!(path.exists(), "{} is not there; `hack/tools etcd` builds it, or set {variable}", path.display());
    path
}

pub(crate) fn etcd_3_5() -> PathBuf {
    binary("COPEPOD_ETCD_35", "etcd-3.5.35")
}

fn etcd_3_6() -> PathBuf {
    binary("COPEPOD_ETCD_36", "etcd-3.6.16")
}

/// A port below those that outgoing connections take: none of the tests beside this one gets it before etcd listens.
fn free_port() -> u16 {
    loop {
        let number = RandomState::new().build_hasher().finish() % 20_000;
        let port = 10_000 + u16::try_from(number).expect("small");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Etcd {
    pub(crate) fn start(binary: PathBuf) -> Self {
        Self::start_with(binary, "http", &[])
    }

    fn start_with(binary: PathBuf, scheme: &str, more: &[String]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("{scheme}://localhost:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut arguments: Vec<String> = [
            ("--data-dir", dir.path().display().to_string()),
            ("--listen-client-urls", url.replace("localhost", "127.0.0.1")),
            ("--advertise-client-urls", url.clone()),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer.clone()),
            ("--initial-cluster", format!("default={peer}")),
            ("--log-level", "error".into()),
        ]
        .into_iter()
        .map(|(flag, value)| format!("{flag}={value}"))
        .collect();
        // Of a flag that is given twice the last one counts.
        arguments.extend_from_slice(more);
        let child = Self::spawn(&binary, &arguments);
        Self { child, arguments, binary, url, _dir: dir }
    }

    fn spawn(binary: &Path, arguments: &[String]) -> Child {
        Command::new(binary)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts")
    }

    fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("it ends");
    }

    fn restart(&mut self) {
        self.child = Self::spawn(&self.binary, &self.arguments);
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn store(&self) -> EtcdStore {
        store(&[&self.url]).await
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) async fn store(endpoints: &[&str]) -> EtcdStore {
    connected(EtcdOptions {
        endpoints: endpoints.iter().map(|e| e.to_string()).collect(),
        ..Default::default()
    })
    .await
}

/// Connects and waits until etcd answers.
async fn connected(options: EtcdOptions) -> EtcdStore {
    let store = EtcdStore::connect(options).await.expect("connect");
    tokio::time::timeout(PATIENCE, async {
        while store.current_revision().await.is_err() || !store.progress_supported() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("etcd answers");
    store
}

fn put(value: impl Into<Bytes>) -> Op {
    Op::Put { value: value.into(), ttl_seconds: None }
}

fn done(result: Result<TxnResult, StoreError>) -> u64 {
    match result {
        Ok(TxnResult::Done { revision }) => revision,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_on_etcd_3_5() {
    let etcd = Etcd::start(etcd_3_5());
    contract::run(Arc::new(etcd.store().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_on_etcd_3_6() {
    let etcd = Etcd::start(etcd_3_6());
    contract::run(Arc::new(etcd.store().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_and_reads_survive_a_killed_etcd() {
    let mut etcd = Etcd::start(etcd_3_6());
    let store = etcd.store().await;
    let mut expect = done(store.txn(b"/a", 0, put("0")).await);
    let mut watch = store.watch(b"/", expect).await.expect("watch");
    for round in 0..2 {
        let mut written = Vec::new();
        for i in 0..20 {
            expect = done(store.txn(b"/a", expect, put(i.to_string())).await);
            written.push(expect);
        }
        etcd.kill();
        // The first attempt may have gone out on the connection that was breaking.
        let away = store.txn(b"/a", expect, put("while it is away")).await;
        assert!(matches!(away, Err(StoreError::Unavailable(_) | StoreError::UnknownOutcome(_))), "{away:?}");
        etcd.restart();
        let read = store.get(b"/a").await.expect("reads wait for it").kv.expect("it exists");
        assert_eq!(read.mod_revision, expect, "round {round}");
        for revision in written {
            loop {
                match tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time") {
                    Some(Ok(WatchItem::Progress { .. })) => {}
                    Some(Ok(WatchItem::Events { revision: seen, .. })) => break assert_eq!(seen, revision),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_endpoint_is_survived() {
    let etcd = Etcd::start(etcd_3_5());
    let dead = format!("http://127.0.0.1:{}", free_port());
    let store = store(&[&dead, &etcd.url]).await;
    let mut watch =
        store.watch(b"/", store.current_revision().await.expect("revision")).await.expect("watch");
    for i in 0..30 {
        let revision = done(store.txn(format!("/{i}").as_bytes(), 0, put("1")).await);
        let item = tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time");
        assert!(
            matches!(item, Some(Ok(WatchItem::Events { revision: seen, .. })) if seen == revision),
            "{item:?}"
        );
    }
}

/// A proxy in front of etcd that can be made to swallow answers and cut its connections.
pub(crate) struct Proxy {
    pub(crate) url: String,
    mute: Arc<AtomicBool>,
    cuts: watch::Sender<u32>,
}

impl Proxy {
    pub(crate) async fn start(etcd: &Etcd) -> Self {
        let listener = AsyncListener::bind("127.0.0.1:0").await.expect("listen");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let mute = Arc::new(AtomicBool::new(false));
        let cuts = watch::Sender::new(0);
        let (backend, silent) = (etcd.url.trim_start_matches("http://").to_string(), mute.clone());
        let cut = cuts.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(&backend).await {
                    let pipe = Self::pipe(client, server, silent.clone());
                    let mut cut = cut.subscribe();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = pipe => {}
                            _ = cut.changed() => {}
                        }
                    });
                }
            }
        });
        Self { url, mute, cuts }
    }

    /// Ends all connections there are.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Requests always go through. The first answer that comes while it is mute ends the connection.
    async fn pipe(client: TcpStream, server: TcpStream, mute: Arc<AtomicBool>) {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let forward = async move { tokio::io::copy(&mut from_client, &mut to_server).await };
        let back = async move {
            let mut buffer = vec![0; 65536];
            while let Ok(read) = from_server.read(&mut buffer).await {
                if read == 0
                    || mute.load(Ordering::SeqCst)
                    || to_client.write_all(&buffer[..read]).await.is_err()
                {
                    break;
                }
            }
        };
        // Whichever side ends, ends both.
        tokio::select! {
            _ = forward => {}
            () = back => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_without_an_answer_is_found_again() {
    let etcd = Etcd::start(etcd_3_6());
    let direct = etcd.store().await;
    let proxy = Proxy::start(&etcd).await;
    let store = Arc::new(store(&[&proxy.url]).await);
    let first = done(store.txn(b"/a", 0, put("1")).await);

    // etcd does it, nobody hears of it, and then the line is mended.
    proxy.mute.store(true, Ordering::SeqCst);
    let writer = {
        let store = store.clone();
        tokio::spawn(async move { store.txn(b"/a", first, put("2")).await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    proxy.mute.store(false, Ordering::SeqCst);
    let second = done(writer.await.expect("the writer"));
    let kv = direct.get(b"/a").await.expect("get").kv.expect("it exists");
    assert_eq!((kv.value, kv.mod_revision, kv.version), (Bytes::from("2"), second, 2), "done once");

    // A deletion cannot be recognized: whoever did it, the caller is told that nobody knows.
    proxy.mute.store(true, Ordering::SeqCst);
    let writer = {
        let store = store.clone();
        tokio::spawn(async move { store.txn(b"/a", second, Op::Delete).await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    proxy.mute.store(false, Ordering::SeqCst);
    let result = writer.await.expect("the writer");
    assert!(matches!(result, Err(StoreError::UnknownOutcome(_))), "{result:?}");

    // The line is never mended.
    proxy.mute.store(true, Ordering::SeqCst);
    let result = store.txn(b"/b", 0, put("1")).await;
    assert!(matches!(result, Err(StoreError::UnknownOutcome(_))), "{result:?}");
    assert!(matches!(store.get(b"/b").await, Err(StoreError::Unavailable(_))));
}

/// An authority, and a certificate of it for localhost, as PEM: certificate and key.
struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { pem, issuer: rcgen::Issuer::new(params, key) }
    }

    /// What an etcd needs that shows a certificate of this authority, and takes only clients that do, too.
    fn flags(&self, dir: &Path) -> Vec<String> {
        let file = |name: &str, pem: &str| {
            std::fs::write(dir.join(name), pem).expect("write");
            dir.join(name).display().to_string()
        };
        let (certificate, key) = self.leaf();
        vec![
            format!("--cert-file={}", file("server.crt", &certificate)),
            format!("--key-file={}", file("server.key", &key)),
            format!("--trusted-ca-file={}", file("ca.crt", &self.pem)),
            "--client-cert-auth".to_string(),
        ]
    }

    fn leaf(&self) -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params =
            rcgen::CertificateParams::new(["localhost".to_string(), "127.0.0.1".to_string()]).expect("names");
        (params.signed_by(&key, &self.issuer).expect("signed").pem(), key.serialize_pem())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_show_their_certificates() {
    let (ca, stranger) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().expect("a directory");
    let etcd = Etcd::start_with(etcd_3_6(), "https", &ca.flags(dir.path()));
    let options = |ca: &Authority, identity: Option<(String, String)>| EtcdOptions {
        endpoints: vec![etcd.url.clone()],
        ca_pem: Some(ca.pem.clone().into()),
        identity_pem: identity.map(|(certificate, key)| (certificate.into(), key.into())),
        ..EtcdOptions::default()
    };
    let store = connected(options(&ca, Some(ca.leaf()))).await;
    let mut watch = store.watch(b"/", 1).await.expect("watch");
    let revision = done(store.txn(b"/a", 0, put("1")).await);
    let item = tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time");
    assert!(
        matches!(item, Some(Ok(WatchItem::Events { revision: seen, .. })) if seen == revision),
        "{item:?}"
    );
    let refused = async |what: &str, options| {
        let store = EtcdStore::connect(options).await.expect("a configuration in order");
        let read = store.get(b"/a").await;
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "{what}: {read:?}");
    };
    tokio::join!(
        refused("no certificate", options(&ca, None)),
        refused("a stranger's certificate", options(&ca, Some(stranger.leaf()))),
        refused("an etcd of strangers", options(&stranger, Some(ca.leaf()))),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compactors_take_turns() {
    let etcd = Etcd::start(etcd_3_5());
    let store = etcd.store().await;
    let client = Client::connect([&etcd.url], None).await.expect("connect");
    let revision = done(store.txn(b"/a", 0, put("1")).await);

    let start = compactor::Turn::default();
    let ours = compactor::turn(&client, start).await.expect("the first turn");
    assert_eq!(ours.clock, 1, "a first turn compacts nothing");
    let theirs = compactor::turn(&client, start).await.expect("lost");
    assert_eq!(theirs.clock, 1, "who loses learns the time");
    done(store.txn(b"/a", revision, put("2")).await);
    let ours = compactor::turn(&client, ours).await.expect("the second turn");
    assert_eq!(ours.clock, 2);
    let refused = store.list(ListRequest::prefix("/").at(revision)).await;
    assert!(matches!(refused, Err(StoreError::Compacted { .. })), "{refused:?}");
    let theirs = compactor::turn(&client, theirs).await.expect("lost again");
    assert_eq!(theirs.clock, 2);
    // We are gone; they take over.
    assert_eq!(compactor::turn(&client, theirs).await.expect("their turn").clock, 3);
    let kv = store.get(COMPACT_REV_KEY.as_bytes()).await.expect("get").kv.expect("it exists");
    assert_eq!(kv.value, theirs.revision.to_string(), "as upstream writes it");
}

#[test]
fn progress_is_trusted_from_the_mended_versions_on() {
    for (version, trusted) in [
        ("3.4.30", false),
        ("3.4.31", true),
        ("3.5.0", false),
        ("3.5.12", false),
        ("3.5.13", true),
        ("3.5.35", true),
        ("3.6.0", true),
        ("3.6.0-rc.1", true),
        ("3.3.27", false),
        ("4.0.0", true),
        ("", false),
        ("not decided", false),
    ] {
        assert_eq!(answers_progress(version), trusted, "{version}");
    }
    let support = ProgressSupport::default();
    assert!(!support.get(), "unknown is no");
    support.note("a", "3.5.35");
    assert!(support.get());
    support.note("b", "3.5.0");
    support.note("a", "3.5.35");
    assert!(!support.get(), "one old member is enough");
}
