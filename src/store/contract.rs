//! What every [`Store`] must do, written once as functions over the trait and run on each backend.
//!
//! Each function gets a store that may hold other keys and may have any history, and a folder of its own in it.
//! upstream: apiserver/pkg/storage/testing/store_tests.go, watcher_tests.go (the idea and the cases)

mod reads;
mod watches;
mod writes;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::store::{Event, KeyValue, ListRequest, Op, Store, StoreError, TxnResult, WatchItem};
use crate::watch_stream::WatchStream;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

type Case = (&'static str, fn(Fixture) -> Pin<Box<dyn Future<Output = ()> + Send>>);

/// Lists the functions of the suite by their own names.
macro_rules! cases {
    ($($module:ident::$name:ident),* $(,)?) => {
        &[$((stringify!($name), |fixture| Box::pin($module::$name(fixture)))),*]
    };
}

/// Cases that forget history come last.
const CASES: &[Case] = cases![
    reads::get_finds_what_was_written,
    reads::lists_stay_in_their_folder,
    reads::pages_of_one_revision_see_one_state,
    reads::lists_at_revisions_see_the_past,
    reads::revisions_that_do_not_exist_yet_are_refused,
    reads::large_lists_come_whole,
    writes::each_write_has_the_next_revision,
    writes::a_write_needs_the_revision_it_expects,
    writes::concurrent_increments_are_never_lost,
    writes::values_over_the_limit_are_refused,
    writes::keys_with_a_time_to_live_go_away,
    watches::a_watch_continues_a_list,
    watches::a_watch_from_zero_shows_all_history,
    watches::a_watch_of_the_future_waits,
    watches::a_watch_stays_in_its_folder,
    watches::changes_carry_what_was_before,
    watches::concurrent_writers_are_seen_in_one_order,
    watches::a_slow_reader_loses_nothing,
    watches::giving_up_waiting_loses_nothing,
    watches::progress_never_runs_ahead,
    watches::many_watches_see_their_own,
    reads::compaction_forgets_the_past_and_keeps_the_present,
    watches::a_watch_of_forgotten_history_is_refused,
];

/// Runs the whole suite on a store.
pub(crate) async fn run(store: Arc<dyn Store>) {
    for (name, case) in CASES {
        println!("{name}");
        case(Fixture { store: store.clone(), folder: format!("/contract/{name}/") }).await;
    }
}

/// A store and a folder of one's own in it.
#[derive(Clone)]
pub(crate) struct Fixture {
    store: Arc<dyn Store>,
    folder: String,
}

impl Fixture {
    fn key(&self, name: &str) -> Bytes {
        format!("{}{name}", self.folder).into()
    }

    fn name(&self, key: &[u8]) -> String {
        let key = String::from_utf8_lossy(key);
        key.strip_prefix(&self.folder).map_or_else(|| key.to_string(), str::to_string)
    }

    fn all(&self) -> ListRequest {
        ListRequest::prefix(self.folder.clone())
    }

    async fn get(&self, name: &str) -> Option<KeyValue> {
        self.store.get(&self.key(name)).await.expect("get").kv
    }

    async fn txn(&self, name: &str, expect: u64, op: Op) -> TxnResult {
        self.store.txn(&self.key(name), expect, op).await.expect("txn")
    }

    /// Writes whatever is there now; returns the revision.
    async fn put(&self, name: &str, value: impl Into<Bytes>) -> u64 {
        let expect = self.get(name).await.map_or(0, |kv| kv.mod_revision);
        done(self.txn(name, expect, put(value)).await)
    }

    async fn delete(&self, name: &str) -> u64 {
        let expect = self.get(name).await.expect("it exists").mod_revision;
        done(self.txn(name, expect, Op::Delete).await)
    }

    async fn revision(&self) -> u64 {
        self.store.current_revision().await.expect("current revision")
    }

    /// `name=value@mod/create.version` of everything that a list finds.
    async fn render(&self, request: ListRequest) -> String {
        let list = self.store.list(request).await.expect("list");
        list.kvs.iter().map(|kv| self.render_kv(kv)).collect::<Vec<_>>().join(" ")
    }

    fn render_kv(&self, kv: &KeyValue) -> String {
        format!("{}={}", self.name(&kv.key), String::from_utf8_lossy(&kv.value))
    }

    async fn watch(&self, after: u64) -> Watched {
        let stream = self.store.watch(self.folder.as_bytes(), after).await.expect("watch");
        Watched { fixture: self.clone(), stream }
    }
}

/// A watch with words for what is expected of it.
struct Watched {
    fixture: Fixture,
    stream: WatchStream,
}

impl Watched {
    async fn item(&mut self) -> Option<Result<WatchItem, StoreError>> {
        tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("the watch delivers nothing")
    }

    /// The next changes, past any progress.
    async fn events(&mut self) -> (u64, Arc<[Event]>) {
        loop {
            match self.item().await {
                Some(Ok(WatchItem::Events { revision, events })) => return (revision, events),
                Some(Ok(WatchItem::Progress { .. })) => {}
                other => panic!("the watch ended: {other:?}"),
            }
        }
    }

    /// `+a=1`, `~a=2 (1)`, `-a (2)`: what happened, and what was there before.
    async fn render(&mut self, changes: usize) -> String {
        let mut words = Vec::new();
        while words.len() < changes {
            let (revision, events) = self.events().await;
            words.extend(events.iter().map(|event| self.render_event(event, revision)));
        }
        words.join(" ")
    }

    fn render_event(&self, event: &Event, revision: u64) -> String {
        let before = event.prev.as_ref().map(|kv| format!(" ({})", String::from_utf8_lossy(&kv.value)));
        let Some(kv) = &event.kv else {
            return format!("-{}{}", self.fixture.name(&event.key), before.unwrap_or_default());
        };
        assert_eq!((kv.mod_revision, &kv.key), (revision, &event.key));
        let sign = if kv.create_revision == revision { '+' } else { '~' };
        format!("{sign}{}{}", self.fixture.render_kv(kv), before.unwrap_or_default())
    }

    /// Asks for progress until there is some at `revision` or later; no changes may come before.
    async fn progress(&mut self, revision: u64) -> u64 {
        let folder = self.fixture.folder.clone();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            assert!(tokio::time::Instant::now() < deadline, "no progress");
            self.fixture.store.request_progress(folder.as_bytes()).await.expect("ask for progress");
            let item = tokio::time::timeout(Duration::from_millis(50), self.stream.next()).await;
            match item {
                Ok(Some(Ok(WatchItem::Progress { revision: at }))) if at >= revision => return at,
                Ok(Some(Ok(WatchItem::Progress { .. }))) | Err(_) => {}
                Ok(other) => panic!("waited for progress, got {other:?}"),
            }
        }
    }
}

fn put(value: impl Into<Bytes>) -> Op {
    Op::Put { value: value.into(), ttl_seconds: None }
}

fn done(result: TxnResult) -> u64 {
    match result {
        TxnResult::Done { revision } => revision,
        TxnResult::Conflict { current, .. } => panic!("a conflict with {current:?}"),
    }
}
