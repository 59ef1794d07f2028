//! The contract on disk and in memory, and what only this backend can get wrong.

mod disk;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::*;
use crate::contract;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_in_memory() {
    contract::run(Arc::new(EmbeddedStore::ephemeral().expect("open"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_on_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    contract::run(Arc::new(open(dir.path()))).await;
    // What is read back is what was there.
    let before = open(dir.path());
    let everything = before.list(ListRequest::prefix("/")).await.expect("list");
    drop(before);
    let after = open(dir.path());
    assert_eq!(after.list(ListRequest::prefix("/")).await.expect("list"), everything);
}

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(dir, EmbeddedOptions { compact_interval: None, ..EmbeddedOptions::default() })
        .expect("open")
}

fn put(value: &'static str) -> Op {
    Op::Put { value: value.into(), ttl_seconds: None }
}

async fn must(store: &EmbeddedStore, key: &str, expect: u64, op: Op) -> u64 {
    match store.txn(key.as_bytes(), expect, op).await.expect("txn") {
        TxnResult::Done { revision } => revision,
        conflict => panic!("{conflict:?}"),
    }
}

#[tokio::test]
async fn history_and_compaction_survive_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    assert_eq!(store.current_revision().await.expect("revision"), 1);
    let first = must(&store, "/a", 0, put("1")).await;
    let second = must(&store, "/a", first, put("2")).await;
    let third = must(&store, "/a", second, Op::Delete).await;
    drop(store);

    let store = open(dir.path());
    let at = |revision| store.list(ListRequest::prefix("/").at(revision));
    assert_eq!(store.current_revision().await.expect("revision"), third);
    assert_eq!(at(second).await.expect("list").kvs[0].value, "2");
    store.compact(third).await.expect("compact");
    assert!(matches!(at(second).await, Err(StoreError::Compacted { .. })));
    drop(store);

    let store = open(dir.path());
    assert_eq!(store.current_revision().await.expect("revision"), third, "no revision is given twice");
    let refused = store.list(ListRequest::prefix("/").at(second)).await;
    assert!(matches!(refused, Err(StoreError::Compacted { compacted, .. }) if compacted == third));
    assert_eq!(must(&store, "/a", 0, put("3")).await, third + 1);
}

#[tokio::test]
async fn keys_expire_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let op = Op::Put { value: "1".into(), ttl_seconds: Some(1) };
    let revision = must(&store, "/a", 0, op).await;
    drop(store);
    let store = open(dir.path());
    let mut watch = store.watch(b"/", revision).await.expect("watch");
    let gone = tokio::time::timeout(std::time::Duration::from_secs(5), watch.next()).await.expect("in time");
    assert!(matches!(gone, Some(Ok(crate::store::WatchItem::Events { .. }))), "{gone:?}");
    assert_eq!(store.get(b"/a").await.expect("get").kv, None);
}

#[tokio::test]
async fn history_is_compacted_by_and_by() {
    let options =
        EmbeddedOptions { compact_interval: Some(Duration::from_millis(100)), ..EmbeddedOptions::default() };
    let store = EmbeddedStore::start(Log::ephemeral().expect("log"), options).expect("open");
    let first = must(&store, "/a", 0, put("1")).await;
    must(&store, "/a", first, put("2")).await;
    // The first tick notes the revision, the second compacts to it.
    tokio::time::timeout(Duration::from_secs(5), async {
        while store.list(ListRequest::prefix("/").at(first)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("history is forgotten");
    assert_eq!(store.list(ListRequest::prefix("/")).await.expect("list").kvs[0].value, "2");
}

#[tokio::test]
async fn a_directory_is_open_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let second = EmbeddedStore::open(dir.path(), EmbeddedOptions::default());
    assert!(matches!(second, Err(OpenError::Locked(_))));
    // One that is about to end is waited for.
    let ending = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(store);
    });
    open(dir.path());
    ending.join().expect("it ended");
}

#[tokio::test]
async fn files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    let mode = std::fs::metadata(dir.path().join("store.redb")).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

const CRASH_DIR: &str = "COPEPOD_TEST_CRASH_DIR";

/// The half of the crash test that is killed: writes from four tasks and prints each acknowledged write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_writer() {
    let Ok(dir) = std::env::var(CRASH_DIR) else { return };
    let store = Arc::new(open(Path::new(&dir)));
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0.. {
                    let key = format!("/{task}/{}", i % 50);
                    let expect =
                        store.get(key.as_bytes()).await.expect("get").kv.map_or(0, |kv| kv.mod_revision);
                    let op = Op::Put { value: format!("{i}:{}", "x".repeat(500)).into(), ttl_seconds: None };
                    let revision = must(&store, &key, expect, op).await;
                    // One write call, so that a line is there whole or not at all.
                    std::io::stdout()
                        .write_all(format!("ack {key} {revision} {i}\n").as_bytes())
                        .expect("pipe");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a writer");
    }
}

/// Kills the writer at some moment, again and again: every acknowledged write is there.
#[tokio::test]
async fn acknowledged_writes_survive_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut acknowledged = BTreeMap::new();
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "embedded::tests::crash_writer", "--nocapture"])
            .env(CRASH_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut seen = 0;
        while let Some(Ok(line)) = lines.next() {
            let words: Vec<_> = line.split(' ').collect();
            if let [.., "ack", key, revision, i] = words[..] {
                let parse = |number: &str| number.parse::<u64>().expect("a number");
                acknowledged.insert(key.to_string(), (parse(revision), parse(i)));
                seen += 1;
            }
            if seen == 150 + 37 * round {
                child.kill().expect("kill -9");
            }
        }
        child.wait().expect("the child ends");
        assert!(seen >= 150, "only {seen} writes before the kill");

        let store = open(dir.path());
        for (key, (revision, i)) in &acknowledged {
            let kv =
                store.get(key.as_bytes()).await.expect("get").kv.unwrap_or_else(|| panic!("{key} is lost"));
            // The same write, or a later one whose acknowledgement did not come through.
            let is_it = kv.mod_revision == *revision && kv.value.starts_with(format!("{i}:").as_bytes());
            assert!(is_it || kv.mod_revision > *revision, "{key}: acknowledged at {revision}, found {kv:?}");
        }
    }
}

/// The power goes at any moment between two accesses of the disk. What had not been flushed by then is there, or not, or
/// in part; what was acknowledged is there, and nothing is there that was never written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_a_power_cut() {
    let disk = disk::Disk::new(11);
    let store =
        EmbeddedStore::start(Log::on(disk.clone()).expect("log"), EmbeddedOptions::default()).expect("open");
    let mut states = BTreeMap::from([(1, BTreeMap::new())]);
    let mut state = BTreeMap::new();
    disk.cut_power_now_and_then();
    for i in 0..300u64 {
        let key = format!("/{}", i % 17);
        let expect = store.get(key.as_bytes()).await.expect("get").kv.map_or(0, |kv| kv.mod_revision);
        let op = if expect > 0 && i % 5 == 0 {
            state.remove(&key);
            Op::Delete
        } else {
            let value = format!("{i}").repeat(i as usize % 900 + 1);
            state.insert(key.clone(), value.clone());
            Op::Put { value: value.into(), ttl_seconds: None }
        };
        let revision = must(&store, &key, expect, op).await;
        states.insert(revision, state.clone());
        disk.acknowledge(revision);
        if i % 60 == 59 {
            store.compact(revision - 10).await.expect("compact");
        }
    }
    let cuts = disk.cuts();
    assert!(cuts.len() > 50, "only {} cuts", cuts.len());
    for (acknowledged, image) in cuts {
        let log = Log::on(disk::Disk::of(image)).expect("a disk after a power cut can be opened");
        let store = EmbeddedStore::start(log, EmbeddedOptions::default()).expect("open");
        let found = store.list(ListRequest::prefix("/")).await.expect("list");
        assert!(
            found.revision >= acknowledged,
            "{acknowledged} was acknowledged, {} is there",
            found.revision
        );
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let state: BTreeMap<_, _> = found.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect();
        assert_eq!(Some(&state), states.get(&found.revision), "at {}", found.revision);
    }
}

/// A store on a disk whose failure is noted instead of ending the test.
fn noting(disk: &disk::Disk) -> (EmbeddedStore, Arc<parking_lot::Mutex<Vec<String>>>) {
    let noted = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let notes = noted.clone();
    let on_failure: OnFailure = Arc::new(move |why| notes.lock().push(why.to_string()));
    let options = EmbeddedOptions { on_failure, ..EmbeddedOptions::default() };
    (EmbeddedStore::start(Log::on(disk.clone()).expect("log"), options).expect("open"), noted)
}

/// After a failed flush nobody knows what the disk holds: no write is acknowledged any more, and everybody is told.
#[tokio::test]
async fn a_failed_flush_is_final() {
    let disk = disk::Disk::new(0);
    let (store, noted) = noting(&disk);
    let revision = must(&store, "/a", 0, put("1")).await;
    let mut watch = store.watch(b"/", revision).await.expect("watch");
    disk.fail_flushes(true);
    assert!(matches!(store.txn(b"/a", revision, put("2")).await, Err(StoreError::Failed(_))));
    assert_eq!(noted.lock().len(), 1, "the reaction comes before the answer");
    assert!(noted.lock()[0].contains("the disk is gone"), "{noted:?}");
    disk.fail_flushes(false);
    assert!(
        matches!(store.txn(b"/b", 0, put("1")).await, Err(StoreError::Failed(_))),
        "it does not come back"
    );
    assert!(matches!(store.compact(revision).await, Err(StoreError::Failed(_))));
    assert!(matches!(watch.next().await, Some(Err(StoreError::Failed(_)))));
    assert_eq!(store.get(b"/a").await.expect("what was acknowledged").kv.expect("it exists").value, "1");
    assert_eq!(noted.lock().len(), 1, "once");
}

/// So is a compaction that cannot be written.
#[tokio::test]
async fn a_failed_compaction_is_final() {
    let disk = disk::Disk::new(0);
    let (store, noted) = noting(&disk);
    let first = must(&store, "/a", 0, put("1")).await;
    let second = must(&store, "/a", first, put("2")).await;
    disk.fail_flushes(true);
    assert!(matches!(store.compact(second).await, Err(StoreError::Failed(_))));
    disk.fail_flushes(false);
    assert!(matches!(store.txn(b"/a", second, put("3")).await, Err(StoreError::Failed(_))));
    assert_eq!(noted.lock().len(), 1);
}

const FAILING_DISK: &str = "COPEPOD_TEST_FAILING_DISK";

/// The half of the test below whose disk fails.
#[tokio::test]
async fn failing_writer() {
    if std::env::var_os(FAILING_DISK).is_none() {
        return;
    }
    let disk = disk::Disk::new(0);
    let options = EmbeddedOptions::default();
    let store = EmbeddedStore::start(Log::on(disk.clone()).expect("log"), options).expect("open");
    let revision = must(&store, "/a", 0, put("1")).await;
    println!("acknowledged before");
    disk.fail_flushes(true);
    let answer = store.txn(b"/a", revision, put("2")).await;
    println!("answered after: {answer:?}");
}

/// Unless told otherwise a process does not outlive its disk: it ends, and nobody gets an answer about the write.
#[test]
fn a_failed_flush_ends_the_process() {
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "embedded::tests::failing_writer", "--nocapture"])
        .env(FAILING_DISK, "1")
        .output()
        .expect("the child");
    let (out, errors) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert_eq!(child.status.code(), Some(FAILED_EXIT_CODE), "{out} {errors}");
    assert!(out.contains("acknowledged before") && !out.contains("answered after"), "{out}");
    assert!(errors.contains("the disk is gone"), "{errors}");
}
