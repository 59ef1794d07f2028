//! Random writers, readers and failures against a naive model: the list of all states the store has ever had.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::etcd::tests::{Etcd, Proxy, etcd_3_5, store};
use crate::store::StoreError;

type State = BTreeMap<String, (u64, String)>;

/// Every state there has been, by revision.
#[derive(Default)]
struct Model {
    states: BTreeMap<u64, State>,
}

impl Model {
    fn write(&mut self, revision: u64, name: &str, value: Option<&str>) {
        let mut state = self.at(revision);
        match value {
            Some(value) => state.insert(name.into(), (revision, value.into())),
            None => state.remove(name),
        };
        self.states.insert(revision, state);
    }

    fn at(&self, revision: u64) -> State {
        self.states.range(..=revision).next_back().map(|(_, state)| state.clone()).unwrap_or_default()
    }
}

/// What one reader is interested in.
#[derive(Clone)]
struct Interest {
    scope: Scope,
    filter: Option<Filter>,
    field: Option<(usize, CompactString)>,
    wants: fn(&str, &str) -> bool,
}

fn interests() -> Vec<Interest> {
    let (n1, n1_field) = on_node("n1");
    let all = Interest { scope: Scope::Resource, filter: None, field: None, wants: |_, _| true };
    vec![
        all.clone(),
        Interest { scope: folder("a"), wants: |name, _| name.starts_with("a/"), ..all.clone() },
        Interest { scope: Scope::Key(key("b/3")), wants: |name, _| name == "b/3", ..all.clone() },
        Interest {
            filter: Some(labelled("app", "web")),
            wants: |_, value| value.starts_with("app=web"),
            ..all.clone()
        },
        Interest { filter: Some(n1), field: Some(n1_field), wants: |_, value| value.contains("|n1|"), ..all },
    ]
}

fn select(state: State, interest: &Interest) -> State {
    state.into_iter().filter(|(name, (_, value))| (interest.wants)(name, value)).collect()
}

/// A client as client-go writes it: it holds what it has been shown, resumes where a watch ended, lists anew when that is
/// too long ago.
async fn informer(
    bench: Arc<Bench>,
    interest: Interest,
    stop_at: tokio::sync::watch::Receiver<u64>,
) -> State {
    let mut held = State::new();
    let mut last = 0;
    loop {
        let start = if last == 0 { WatchStart::State(ReadAt::Any) } else { WatchStart::After(last) };
        let query = WatchQuery {
            filter: interest.filter.clone(),
            field: interest.field.clone(),
            bookmarks: true,
            initial_events_end: last == 0,
            ..WatchQuery::new(interest.scope.clone(), start)
        };
        let mut watcher = match bench.cache.watch(query).await {
            Ok(watcher) => watcher,
            Err(CacheError::Expired { .. }) => {
                held.clear();
                last = 0;
                continue;
            }
            Err(CacheError::NotReady) => continue,
            Err(error) => panic!("{error}"),
        };
        if last == 0 {
            held.clear();
        }
        // Until the bookmark the revisions are those of the objects, in any order.
        let mut initial = last == 0;
        loop {
            // Asks for a bookmark now and then, to see how far it is.
            watcher.next_bookmark_now();
            let Some(event) = watcher.next().await else { break };
            match event {
                WatchEvent::Bookmark { revision, initial_events_end } => {
                    assert!(revision >= last, "went back");
                    if initial && !initial_events_end {
                        continue;
                    }
                    initial = false;
                    last = revision;
                    if revision >= *stop_at.borrow() {
                        return held;
                    }
                }
                WatchEvent::Change { kind, entry } => {
                    if !initial {
                        assert!(entry.revision > last, "{} again", entry.revision);
                        last = entry.revision;
                    }
                    let value = String::from_utf8_lossy(&entry.stored).into_owned();
                    let known = held.contains_key(&name(&entry));
                    match kind {
                        ChangeKind::Added => assert!(!known, "added twice"),
                        _ => assert!(known, "{kind:?} of what was never added"),
                    }
                    match kind {
                        ChangeKind::Deleted => held.remove(&name(&entry)),
                        _ => held.insert(name(&entry), (entry.revision, value)),
                    };
                }
            }
        }
        if initial {
            last = 0;
        }
    }
}

impl Watcher {
    fn next_bookmark_now(&mut self) {
        self.next_bookmark = Some(tokio::time::Instant::now() + Duration::from_millis(2));
    }
}

/// A reader that checks lists of all kinds against the model.
async fn lister(
    bench: Arc<Bench>,
    model: Arc<Mutex<Model>>,
    seed: u64,
    stop: tokio::sync::watch::Receiver<u64>,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let interests = interests();
    let mut lists = 0;
    while *stop.borrow() == u64::MAX || lists < 20 {
        lists += 1;
        let interest = &interests[rng.random_range(0..interests.len())];
        let known = model.lock().states.keys().next_back().copied().unwrap_or(1);
        let at = match rng.random_range(0..4) {
            0 => ReadAt::Any,
            1 => ReadAt::Latest,
            2 => ReadAt::AtLeast(known),
            _ => ReadAt::Exactly(known.saturating_sub(rng.random_range(0..30)).max(1)),
        };
        let mut query = ListQuery {
            limit: [0, 3, 7][rng.random_range(0..3)],
            filter: interest.filter.clone(),
            field: interest.field.clone(),
            ..ListQuery::new(interest.scope.clone(), at)
        };
        let mut got = State::new();
        let revision = loop {
            let page = match bench.cache.list(query.clone()).await {
                Ok(page) => page,
                Err(CacheError::NotReady | CacheError::TooLarge { .. }) => break None,
                Err(CacheError::Store(StoreError::Compacted { .. })) => break None,
                Err(error) => panic!("{error}"),
            };
            for entry in &page.entries {
                got.insert(
                    name(entry),
                    (entry.revision, String::from_utf8_lossy(&entry.stored).into_owned()),
                );
            }
            if !page.more {
                break Some(page.revision);
            }
            let last = page.entries.last().expect("a page with more has a last entry");
            query.start = [&last.key[..], &[0]].concat().into();
            query.at = ReadAt::Exactly(page.revision);
            tokio::task::yield_now().await;
        };
        let Some(revision) = revision else { continue };
        match at {
            ReadAt::Latest | ReadAt::AtLeast(_) => assert!(revision >= known, "{at:?} gave {revision}"),
            ReadAt::Exactly(exact) => assert_eq!(revision, exact),
            ReadAt::Any => {}
        }
        // A revision may be listed before its writer has told the model; then there is nothing to compare with yet.
        while model.lock().states.keys().next_back().copied().unwrap_or(1) < revision {
            tokio::task::yield_now().await;
        }
        assert_eq!(got, select(model.lock().at(revision), interest), "{at:?} at {revision}");
    }
}

async fn writer(bench: Arc<Bench>, model: Arc<Mutex<Model>>, seed: u64, writes: u32) {
    let mut rng = StdRng::seed_from_u64(seed);
    for i in 0..writes {
        let name = format!("{}/{}", ["a", "ab", "b"][rng.random_range(0..3)], rng.random_range(0..8));
        let value = format!("app={}|n{}|{i}", ["web", "db"][rng.random_range(0..2)], rng.random_range(0..3));
        let exists = bench.writes.get(&key(&name)).await.expect("get").kv.is_some();
        let (revision, value) = if exists && rng.random_bool(0.3) {
            (bench.delete(&name).await, None)
        } else {
            (bench.put(&name, &value).await, Some(value))
        };
        model.lock().write(revision, &name, value.as_deref());
        if rng.random_bool(0.02) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if rng.random_bool(0.004) {
            bench.store.break_watches();
        }
        if rng.random_bool(0.003) {
            // May be behind an earlier one.
            let _ = bench.writes.compact(revision.saturating_sub(20)).await;
        }
    }
}

/// Writers, listers and informers for so many writes, then `written`; everybody must come to hold what the model holds.
async fn agree(bench: Arc<Bench>, seed: u64, writes: u32, written: impl FnOnce()) {
    let model = Arc::new(Mutex::new(Model::default()));
    let (stop, stopped) = tokio::sync::watch::channel(u64::MAX);
    let informers: Vec<_> = interests()
        .into_iter()
        .flat_map(|interest| [interest.clone(), interest])
        .map(|interest| (interest.clone(), tokio::spawn(informer(bench.clone(), interest, stopped.clone()))))
        .collect();
    let listers: Vec<_> = (0..3)
        .map(|i| tokio::spawn(lister(bench.clone(), model.clone(), seed * 10 + i, stopped.clone())))
        .collect();
    writer(bench.clone(), model.clone(), seed, writes).await;
    written();
    let last = model.lock().states.keys().next_back().copied().expect("writes");
    stop.send_replace(last);
    for (interest, informer) in informers {
        let held = tokio::time::timeout(PATIENCE, informer).await.expect("it catches up").expect("no panic");
        assert_eq!(held, select(model.lock().at(last), &interest), "seed {seed}");
    }
    for lister in listers {
        tokio::time::timeout(PATIENCE, lister).await.expect("it ends").expect("no panic");
    }
}

/// A small ring, so that clients fall behind it, too.
fn small_ring() -> CacheConfig {
    CacheConfig { ring: RingLimits { batches_max: 60, ..RingLimits::default() }, ..config() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_agree_with_the_model_whatever_happens() {
    for seed in 0..4 {
        agree(Arc::new(Bench::new(small_ring())), seed, 1500, || {}).await;
    }
}

/// The same over etcd, whose connections to the cache break now and then as long as there are writes. (On a slow machine they
/// could break before anything comes over them, for ever.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_agree_with_the_model_over_a_bad_line() {
    let etcd = Etcd::start(etcd_3_5());
    let proxy = Proxy::start(&etcd).await;
    let (bad, good) = (Arc::new(store(&[&proxy.url]).await), Arc::new(etcd.store().await));
    let cutter = tokio::spawn(async move {
        for pause in [70u64, 130, 310].iter().cycle() {
            tokio::time::sleep(Duration::from_millis(*pause)).await;
            proxy.cut();
        }
    });
    agree(Arc::new(Bench::over(bad, good, small_ring())), 42, 500, || cutter.abort()).await;
}
