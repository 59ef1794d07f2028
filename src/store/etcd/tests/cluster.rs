//! Three members that are killed in turn while clients write and watch.
//!
//! Judged by a ledger: each acknowledged write is found, a write of unknown outcome turns out done or not, and every watch
//! has seen one and the same history, without a gap and without a repetition.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use super::*;
use crate::store::KeyValue;

const MEMBERS: usize = 3;
const WRITERS: usize = 4;
const WATCHERS: usize = 3;
/// Acknowledged writes between two kills.
const WRITES_BETWEEN: u64 = 150;
/// How long a store without a quorum may let its callers wait: an attempt that etcd gives up (5 s and two elections), begun
/// at the last moment at which requests are tried again.
const BOUND: Duration = Duration::from_secs(12);

/// etcds that know each other, all on this machine.
pub(super) struct Cluster {
    members: Vec<Etcd>,
    tls: Option<Tls>,
}

struct Tls {
    authority: Authority,
    _dir: tempfile::TempDir,
}

impl Cluster {
    fn start(binary: PathBuf, tls: bool) -> Self {
        let (scheme, tls, more) = if tls { Self::tls() } else { ("http", None, Vec::new()) };
        let peers: Vec<_> = (0..MEMBERS).map(|_| format!("http://127.0.0.1:{}", free_port())).collect();
        let names: Vec<_> = peers.iter().enumerate().map(|(at, peer)| format!("m{at}={peer}")).collect();
        let member = |(at, peer): (usize, &String)| {
            let mut flags = vec![
                format!("--name=m{at}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster={}", names.join(",")),
                // What a killed process has written stays; a slow disk must not look like a lost leader.
                "--unsafe-no-fsync".into(),
                // Elections within half a second.
                "--heartbeat-interval=50".into(),
                "--election-timeout=250".into(),
            ];
            flags.extend(more.iter().cloned());
            Etcd::start_with(binary.clone(), scheme, &flags)
        };
        Self { members: peers.iter().enumerate().map(member).collect(), tls }
    }

    fn tls() -> (&'static str, Option<Tls>, Vec<String>) {
        let (authority, dir) = (Authority::new(), tempfile::tempdir().expect("a directory"));
        let flags = authority.flags(dir.path());
        ("https", Some(Tls { authority, _dir: dir }), flags)
    }

    fn options(&self, members: &[usize]) -> EtcdOptions {
        let identity = |tls: &Tls| {
            let (certificate, key) = tls.authority.leaf();
            (certificate.into(), key.into())
        };
        EtcdOptions {
            endpoints: members.iter().map(|&at| self.members[at].url.clone()).collect(),
            ca_pem: self.tls.as_ref().map(|tls| tls.authority.pem.clone().into()),
            identity_pem: self.tls.as_ref().map(identity),
            compact_interval: None,
        }
    }

    async fn store(&self) -> EtcdStore {
        connected(self.options(&[0, 1, 2])).await
    }

    /// The member that leads.
    async fn leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for at in 0..MEMBERS {
                let client =
                    Client::connect([&self.members[at].url], Some(connect_options(&self.options(&[at]))));
                let client = client.await.expect("a configuration in order");
                let status =
                    tokio::time::timeout(Duration::from_secs(1), client.maintenance_client().status()).await;
                if let Ok(Ok(status)) = status
                    && status.leader() != 0
                    && status.header().is_some_and(|header| header.member_id() == status.leader())
                {
                    return at;
                }
            }
            assert!(Instant::now() < deadline, "nobody leads");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What the writers know: of each key the value that must be found, or the two of which one must be.
#[derive(Default)]
struct Ledger {
    acknowledged: Mutex<BTreeMap<u64, (String, String)>>,
    count: AtomicU64,
    /// Writes whose outcome nobody knew at first, and how many of them had been done.
    unknown: AtomicU64,
    unknown_done: AtomicU64,
}

impl Ledger {
    fn acknowledge(&self, revision: u64, key: &str, value: &str) {
        let before = self.acknowledged.lock().insert(revision, (key.into(), value.into()));
        assert_eq!(before, None, "revision {revision} was given twice");
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until so many more writes are acknowledged.
    async fn wait_for(&self, more: u64) {
        let goal = self.count.load(Ordering::SeqCst) + more;
        let deadline = Instant::now() + PATIENCE;
        while self.count.load(Ordering::SeqCst) < goal {
            assert!(Instant::now() < deadline, "the writers do not go on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Reads until somebody answers.
async fn read_back(store: &EtcdStore, key: &str) -> Option<KeyValue> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match store.get(key.as_bytes()).await {
            Ok(got) => return got.kv,
            Err(StoreError::Unavailable(_)) if Instant::now() < deadline => {}
            Err(error) => panic!("{key}: {error}"),
        }
    }
}

/// Writes its own keys until it is told to stop.
async fn write(store: Arc<EtcdStore>, ledger: Arc<Ledger>, stop: Arc<AtomicBool>, writer: usize) {
    let mut expect = [0; 5];
    for round in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let (at, value) = (round % 5, format!("{round}"));
        let key = format!("/w/{writer}/{at}");
        match store.txn(key.as_bytes(), expect[at], put(value.clone())).await {
            Ok(TxnResult::Done { revision }) => {
                ledger.acknowledge(revision, &key, &value);
                expect[at] = revision;
            }
            // Nobody else writes it: what is there must be one of the two.
            Err(StoreError::UnknownOutcome(_)) => {
                ledger.unknown.fetch_add(1, Ordering::SeqCst);
                let found = read_back(&store, &key).await;
                let revision = found.as_ref().map_or(0, |kv| kv.mod_revision);
                if revision != expect[at] {
                    assert!(found.is_some_and(|kv| kv.value == value), "{key} holds what nobody wrote");
                    ledger.unknown_done.fetch_add(1, Ordering::SeqCst);
                    ledger.acknowledge(revision, &key, &value);
                    expect[at] = revision;
                }
            }
            Err(StoreError::Unavailable(_)) => {
                let found = read_back(&store, &key).await.map_or(0, |kv| kv.mod_revision);
                assert_eq!(found, expect[at], "{key}: nothing was changed, it was said");
            }
            other => panic!("{key}: {other:?}"),
        }
    }
}

type Seen = Vec<(u64, String, String)>;

/// Everything that a watch shows until the key `/w/end` comes.
async fn follow(store: Arc<EtcdStore>, after: u64) -> Seen {
    let mut stream = store.watch(b"/w/", after).await.expect("watch");
    let mut seen = Vec::new();
    loop {
        match stream.next().await {
            Some(Ok(WatchItem::Progress { .. })) => {}
            Some(Ok(WatchItem::Events { revision, events })) => {
                for event in events.iter() {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let value = event.kv.as_ref().map_or_else(String::new, |kv| text(&kv.value));
                    if event.key == "/w/end" {
                        return seen;
                    }
                    seen.push((revision, text(&event.key), value));
                }
            }
            other => panic!("the watch ended: {other:?}"),
        }
    }
}

/// The leader is killed, then each other member, so that whichever the watches and writers were connected to is among them.
async fn members_die_in_turn(mut cluster: Cluster) {
    let store = Arc::new(cluster.store().await);
    let start = store.current_revision().await.expect("revision");
    let (ledger, stop) = (Arc::new(Ledger::default()), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(store.clone(), ledger.clone(), stop.clone(), writer)))
        .collect();
    let watchers: Vec<_> = (0..WATCHERS).map(|_| tokio::spawn(follow(store.clone(), start))).collect();
    ledger.wait_for(WRITES_BETWEEN).await;
    let leader = cluster.leader().await;
    for dead in [leader, (leader + 1) % MEMBERS, (leader + 2) % MEMBERS] {
        cluster.members[dead].kill();
        let killed = Instant::now();
        ledger.wait_for(WRITES_BETWEEN).await;
        let went_on = killed.elapsed();
        cluster.members[dead].restart();
        // It must be back before the next one dies, or there is no quorum.
        connected(cluster.options(&[dead])).await;
        println!("{WRITES_BETWEEN} writes {went_on:?} after a kill, back after {:?}", killed.elapsed());
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.expect("a writer");
    }
    done(store.txn(b"/w/end", 0, put("")).await);
    let fresh = tokio::time::timeout(PATIENCE, follow(store.clone(), start)).await.expect("in time");
    for watcher in watchers {
        let seen = tokio::time::timeout(PATIENCE, watcher).await.expect("in time").expect("a watcher");
        assert_eq!(seen, fresh, "a watch that lived through it has seen what a new one sees");
    }
    let acknowledged = std::mem::take(&mut *ledger.acknowledged.lock());
    let history: BTreeMap<_, _> = fresh.into_iter().map(|(at, key, value)| (at, (key, value))).collect();
    assert_eq!(history, acknowledged, "what is there is what was acknowledged");
    let (unknown, found) = (&ledger.unknown, &ledger.unknown_done);
    println!("{} writes, {unknown:?} of unknown outcome, {found:?} of them done", acknowledged.len());
    without_a_quorum(cluster, store).await;
}

/// One member of three decides nothing: whoever asks is told so in etcd's words and in time. Then all is as before.
async fn without_a_quorum(mut cluster: Cluster, store: Arc<EtcdStore>) {
    let kv = read_back(&store, "/w/end").await.expect("it exists");
    let mut watch = store.watch(b"/w/", kv.mod_revision).await.expect("watch");
    let dead = [0, 1];
    dead.iter().for_each(|&at| cluster.members[at].kill());
    let began = Instant::now();
    // One read only: etcd lets a second one wait until the first has given up, and then as long again.
    let (got, written) = tokio::time::timeout(BOUND, async {
        tokio::join!(store.get(b"/w/end"), store.txn(b"/w/end", kv.mod_revision, put("lost?")))
    })
    .await
    .expect("an answer within the bound");
    println!("without a quorum: {:?}: {got:?}; {written:?}", began.elapsed());
    assert!(matches!(got, Err(StoreError::Unavailable(_))), "{got:?}");
    let Err(StoreError::UnknownOutcome(_) | StoreError::Unavailable(_)) = written else {
        panic!("{written:?}");
    };
    dead.iter().for_each(|&at| cluster.members[at].restart());
    let found = read_back(&store, "/w/end").await.expect("it exists");
    if found.mod_revision != kv.mod_revision {
        // The survivor had written it down and had it confirmed by those that came back.
        assert_eq!(found.value, "lost?");
    }
    let revision = done(store.txn(b"/w/end", found.mod_revision, put("back")).await);
    let mut last = kv.mod_revision;
    while last < revision {
        match tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time") {
            Some(Ok(WatchItem::Events { revision, .. })) => last = revision,
            Some(Ok(WatchItem::Progress { .. })) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(last, revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_3_5_loses_members() {
    members_die_in_turn(Cluster::start(etcd_3_5(), false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_3_6_with_certificates_loses_members() {
    members_die_in_turn(Cluster::start(etcd_3_6(), true)).await;
}

/// Compaction does not disturb a watch that keeps up; one that was cut off meanwhile is told what it has lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_under_watches() {
    let etcd = Etcd::start(etcd_3_6());
    let direct = etcd.store().await;
    let proxy = Proxy::start(&etcd).await;
    let through = store(&[&proxy.url]).await;
    let first = done(direct.txn(b"/a", 0, put("0")).await);
    let mut live = direct.watch(b"/", first).await.expect("watch");
    let mut cut_off = through.watch(b"/", first).await.expect("watch");
    let mut unread = direct.watch(b"/", first).await.expect("watch");
    let mut last = done(direct.txn(b"/a", first, put("1")).await);
    // From here on etcd has them: one that it had yet to create might rightly find its start forgotten.
    for watch in [&mut live, &mut cut_off, &mut unread] {
        assert_eq!(revision_of(watch.next().await), Some(last));
    }
    // Every answer ends its connection.
    proxy.mute.store(true, Ordering::SeqCst);
    proxy.cut();
    let seen = last;
    let mut written = Vec::new();
    for i in 0..50 {
        last = done(direct.txn(b"/a", last, put(format!("{i}"))).await);
        written.push(last);
        if i % 10 == 9 {
            direct.compact(last).await.expect("compact");
        }
    }
    for revision in &written {
        assert_eq!(revision_of(live.next().await), Some(*revision), "a watch that keeps up");
        // Its reader is slow, its queue is not full.
        assert_eq!(revision_of(unread.next().await), Some(*revision), "a watch whose queue has it all");
    }
    proxy.mute.store(false, Ordering::SeqCst);
    let told = tokio::time::timeout(PATIENCE, cut_off.next()).await.expect("in time");
    match told {
        Some(Err(StoreError::Compacted { requested, compacted })) => {
            assert_eq!((requested, compacted), (seen + 1, last));
        }
        other => panic!("{other:?}"),
    }
    assert!(cut_off.next().await.is_none(), "the end");
}

fn revision_of(item: Option<Result<WatchItem, StoreError>>) -> Option<u64> {
    match item {
        Some(Ok(WatchItem::Events { revision, .. })) => Some(revision),
        _ => None,
    }
}
