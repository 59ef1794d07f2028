//! What the cache and the embedded store cost. Run on purpose:
//! `cargo test --release -p copepod-store measure -- --ignored --nocapture --test-threads 1`

use std::time::Instant;

use super::*;
use crate::embedded::EmbeddedOptions;
use crate::store::ListRequest;

const OBJECTS: usize = 5000;
const OBJECT_BYTES: usize = 3000;
const WATCHERS: usize = 1000;
/// Tells the writing process where.
const DIR: &str = "COPEPOD_MEASURE_DIR";

/// Bodies of the size of a pod's JSON.
struct LargeBodies;

impl ObjectCodec for LargeBodies {
    fn attributes(&self, key: &[u8], stored: &Bytes) -> Result<Attributes, CodecError> {
        TextCodec.attributes(key, stored)
    }

    fn body(&self, stored: &Bytes, _: u64, form: Form) -> Result<Bytes, CodecError> {
        Ok(vec![form.0; stored.len() + 1500 * usize::from(form.0)].into())
    }
}

fn resident_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: f64 = statm.split(' ').nth(1).expect("resident").parse().expect("a number");
    pages * 4096.0 / f64::from(1 << 20)
}

/// CPU time of this process in milliseconds.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) * 10.0
}

fn object(i: usize) -> (String, Bytes) {
    let value = format!("app=a{},tier=t{}|node-{}|{}", i % 50, i % 3, i % 50, "x".repeat(OBJECT_BYTES));
    (format!("{PREFIX}ns-{}/pod-{i:05}", i % 10), value.into())
}

async fn fill(store: &Arc<dyn Store>) {
    let writes: Vec<_> = (0..OBJECTS)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move {
                let (key, value) = object(i);
                store.txn(key.as_bytes(), 0, Op::Put { value, ttl_seconds: None }).await.expect("txn");
            })
        })
        .collect();
    for write in writes {
        write.await.expect("a write");
    }
}

fn disk(dir: &std::path::Path) -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::open(dir, EmbeddedOptions::default()).expect("open"))
}

async fn time_of<F: Future>(what: &str, times: u32, mut run: impl FnMut() -> F) {
    let start = Instant::now();
    for _ in 0..times {
        run().await;
    }
    println!("{what}: {:.1} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(times));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_memory_and_reads() {
    // Another process writes, so that its garbage is not counted.
    if let Ok(dir) = std::env::var(DIR) {
        return fill(&disk(dir.as_ref())).await;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut writer = std::process::Command::new(std::env::current_exe().expect("this program"));
    let writer = writer.args(["--ignored", "measure_memory_and_reads"]).env(DIR, dir.path()).output();
    assert!(writer.expect("the writer").status.success());
    let empty = resident_mib();
    let start = Instant::now();
    let store = disk(dir.path());
    println!("open: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let before = resident_mib();
    println!("{OBJECTS} of {OBJECT_BYTES} B in the store: {:.1} MiB above {empty:.1}", before - empty);
    let cache = Cache::new(store.clone(), Arc::new(LargeBodies), config(), BodyBudget::new(BODY_BYTES_MAX));
    let start = Instant::now();
    let all = || ListQuery::new(Scope::Resource, ReadAt::Latest);
    let listing = cache.list(all()).await.expect("list");
    println!("fill: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    println!("cache above the store: {:.1} MiB", resident_mib() - before);
    for form in [0, 1] {
        for entry in &listing.entries {
            cache.body(entry, Form(form)).expect("body");
        }
        println!(
            "with bodies of {} forms: {:.1} MiB, resident {:.1}",
            form + 1,
            resident_mib() - before,
            resident_mib()
        );
    }
    drop(listing);

    time_of("list of all", 200, || async { cache.list(all()).await.expect("list") }).await;
    let (filter, field) = on_node("node-7");
    let by_node = || ListQuery { filter: Some(filter.clone()), field: Some(field.clone()), ..all() };
    time_of("list of 1/50 by indexed field", 200, || async { cache.list(by_node()).await.expect("list") })
        .await;
    let by_label = || ListQuery { filter: Some(labelled("app", "a7")), ..all() };
    time_of("list of 1/50 by label", 200, || async { cache.list(by_label()).await.expect("list") }).await;
    let (name, _) = object(7);
    time_of("get", 2000, || async { cache.get(name.as_bytes(), ReadAt::Latest).await.expect("get") }).await;
    let image = || async { cache.shared.state.read().image.clone() };
    time_of("snapshot", 2000, image).await;
    let mut copy = image().await.entries;
    let entry = copy.get(name.as_bytes()).expect("it exists").clone();
    time_of("write after a snapshot", 2000, || {
        let kept = copy.clone();
        copy.insert(entry.clone());
        async move { drop(kept) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_fan_out() {
    const EVENTS: usize = 500;
    let bench = Arc::new(Bench::new(config()));
    bench.settle().await;
    let before = resident_mib();
    let mut readers = Vec::new();
    for _ in 0..WATCHERS {
        let mut watcher = bench.watch(WatchStart::Now(ReadAt::Any)).await.0;
        readers.push(tokio::spawn(async move {
            for _ in 0..EVENTS {
                watcher.next().await.expect("it goes on");
            }
        }));
    }
    println!("{WATCHERS} watchers: {:.1} MiB", resident_mib() - before);
    let (start, cpu) = (Instant::now(), cpu_ms());
    for i in 0..EVENTS {
        bench.put("a/x", &format!("|n1|{i}")).await;
    }
    for reader in readers {
        reader.await.expect("a reader");
    }
    let delivered = (EVENTS * WATCHERS) as f64;
    println!(
        "delivered {delivered}: {:.0} ns wall, {:.0} ns CPU each",
        start.elapsed().as_nanos() as f64 / delivered,
        (cpu_ms() - cpu) * 1e6 / delivered
    );

    let (start, cpu) = (Instant::now(), cpu_ms());
    let mut sleepers = Vec::new();
    for i in 0..WATCHERS {
        let (filter, field) = on_node(&format!("n{i}"));
        let query = WatchQuery {
            filter: Some(filter),
            field: Some(field),
            ..WatchQuery::new(Scope::Resource, WatchStart::Now(ReadAt::Any))
        };
        sleepers.push(bench.watch_for(query).await);
    }
    for i in 0..2000 {
        bench.put("a/x", &format!("|n5|{i}")).await;
    }
    println!(
        "with {WATCHERS} watchers of one node each: {:.1} us wall, {:.1} us CPU an event",
        start.elapsed().as_micros() as f64 / 2000.0,
        (cpu_ms() - cpu) * 1e3 / 2000.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_writes_and_recovery() {
    let dir = tempfile::tempdir().expect("a directory");
    for what in ["new", "empty"] {
        let start = Instant::now();
        drop(disk(dir.path()));
        println!("open and close a store that is {what}: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    }
    let store = disk(dir.path());
    let mut times = Vec::new();
    for i in 0..1000 {
        let (key, value) = object(i);
        let start = Instant::now();
        store.txn(key.as_bytes(), 0, Op::Put { value, ttl_seconds: None }).await.expect("txn");
        times.push(start.elapsed());
    }
    times.sort();
    println!("one writer, durable: p50 {:?}, p99 {:?}", times[500], times[990]);
    let start = Instant::now();
    let writers: Vec<_> = (0..64)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0..50 {
                    let op = Op::Put { value: object(i).1, ttl_seconds: None };
                    store.txn(format!("/w/{writer}/{i}").as_bytes(), 0, op).await.expect("txn");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    println!("64 writers, durable: {:.0}/s", 3200.0 / start.elapsed().as_secs_f64());
    fill_more(&store).await;
    // What a crash leaves: the file without its orderly end.
    let crashed = tempfile::tempdir().expect("a directory");
    std::fs::copy(dir.path().join("store.redb"), crashed.path().join("store.redb")).expect("copy");
    println!(
        "file: {:.1} MiB",
        std::fs::metadata(dir.path().join("store.redb")).expect("file").len() as f64 / 1048576.0
    );
    let start = Instant::now();
    let reopened = disk(crashed.path());
    println!("open after a crash: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    assert_eq!(
        reopened.list(ListRequest::prefix("/")).await.expect("list"),
        store.list(ListRequest::prefix("/")).await.expect("list")
    );

    let ephemeral: Arc<dyn Store> = Arc::new(EmbeddedStore::ephemeral().expect("open"));
    let start = Instant::now();
    for i in 0..2000 {
        let (key, value) = object(i);
        ephemeral.txn(key.as_bytes(), 0, Op::Put { value, ttl_seconds: None }).await.expect("txn");
    }
    println!("one writer, in memory: {:.1} us", start.elapsed().as_micros() as f64 / 2000.0);
}

/// Writes one after the other, each sent when the last one was seen by all: the times until the last watcher has it.
async fn put_to_watch(what: &str, bench: &Bench, watchers: usize) -> Vec<Duration> {
    const WRITES: usize = 1000;
    bench.settle().await;
    let (seen, mut arrivals) = tokio::sync::mpsc::channel::<Instant>(watchers);
    for _ in 0..watchers {
        let (mut watcher, seen) = (bench.watch(WatchStart::Now(ReadAt::Any)).await.0, seen.clone());
        tokio::spawn(async move {
            while watcher.next().await.is_some() && seen.send(Instant::now()).await.is_ok() {}
        });
    }
    let mut times = Vec::new();
    for i in 0..WRITES + 50 {
        let value = format!("|n1|{i}{}", "x".repeat(OBJECT_BYTES));
        let sent = Instant::now();
        bench.put_blindly("a/x", &value).await;
        let mut last = sent;
        for _ in 0..watchers {
            last = last.max(arrivals.recv().await.expect("a watcher"));
        }
        times.push(last - sent);
    }
    report(what, times.split_off(50))
}

fn report(what: &str, mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e3;
    println!("{what}: p50 {:.3} ms, p90 {:.3} ms, p99 {:.3} ms", at(50), at(90), at(99));
    times
}

/// What etcd itself takes from a put to its watch.
async fn bare_etcd(etcd: &crate::etcd::tests::Etcd) {
    let client = etcd_client::Client::connect([etcd.url()], None).await.expect("connect");
    let mut watch = client.watch_client().watch("/bare", None).await.expect("watch");
    watch.message().await.expect("created");
    let mut times = Vec::new();
    for i in 0..1050 {
        let value = format!("{i}{}", "x".repeat(OBJECT_BYTES));
        let sent = Instant::now();
        let (put, event) = tokio::join!(
            async { client.kv_client().put("/bare", value, None).await.expect("put") },
            watch.message()
        );
        event.expect("an event");
        times.push(sent.elapsed());
        drop(put);
    }
    report("bare etcd, put to its watch", times.split_off(50));
}

/// `cargo test --release -p copepod-store measure_put_to_watch -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_put_to_watch() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut file = std::fs::File::create(dir.path().join("bare")).expect("a file");
    let flushes = (0..500).map(|_| {
        let start = Instant::now();
        std::io::Write::write_all(&mut file, &[7; 4096]).and_then(|()| file.sync_data()).expect("flushed");
        start.elapsed()
    });
    report("the disk, 4 KiB appended and flushed", flushes.collect());
    let embedded = disk(dir.path());
    for watchers in [1, 100] {
        let bench = Bench::over(embedded.clone(), embedded.clone(), config());
        put_to_watch(&format!("embedded on disk, {watchers} watchers"), &bench, watchers).await;
    }
    let etcd = crate::etcd::tests::Etcd::start(crate::etcd::tests::etcd_3_5());
    let store: Arc<dyn Store> = Arc::new(etcd.store().await);
    for _ in 0..2 {
        bare_etcd(&etcd).await;
        for watchers in [1, 100] {
            let bench = Bench::over(store.clone(), store.clone(), config());
            put_to_watch(&format!("etcd, {watchers} watchers"), &bench, watchers).await;
        }
    }
}

async fn fill_more(store: &Arc<dyn Store>) {
    for i in 1000..OBJECTS {
        let (key, value) = object(i);
        store.txn(key.as_bytes(), 0, Op::Put { value, ttl_seconds: None }).await.expect("txn");
    }
}
