//! The embedded store: a log of revisions in redb, every newest value in memory, one writing thread with group commit.
//!
//! It is the store of one process: of edge machines, of `copepod up`, of tests. The file holds one row per revision and
//! nothing else; opening it replays the rows. What compaction finds superseded is removed row by row.
//!
//! Invariants:
//! * a write is acknowledged, and shown to readers and watches, only after its row is on disk (fsync); so a crash at any
//!   moment loses nothing that anybody has seen;
//! * writers that come at the same time share one commit;
//! * one key changes per revision, and revisions have no gaps but those left by compaction;
//! * two processes never have the same directory open.
//!
//! When it breaks: an error of the disk is final. After a failed flush nobody knows what the disk holds, and pages that the
//! system has dropped read back as if they had been written; so the process ends ([`OnFailure`]) before anybody is answered,
//! and finds out what is there when it opens the store anew.

mod hub;
mod log;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

pub use log::OpenError;

use crate::store::{
    GetResult, KeyValue, ListDetail, ListRequest, ListResult, Op, Store, StoreError, TxnResult,
    VALUE_BYTES_MAX,
};
use crate::watch_stream::WatchStream;
use hub::{Hub, Source};
use log::{Log, View};
use state::{Pick, State};
use writer::{QUEUE_MAX, Request, Writer};

/// History is kept at least so long, at most twice as long.
/// upstream: apiserver/pkg/storage/storagebackend/config.go DefaultCompactInterval
pub const COMPACT_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// What is done when the disk has failed, with the reason: called once, by the writing thread, before the writes under way
/// are answered. If it returns, they and all that follow are answered with [`StoreError::Failed`].
pub type OnFailure = Arc<dyn Fn(&str) + Send + Sync>;

/// The status with which a process ends whose disk has failed: EX_IOERR of sysexits(3), for whoever looks after it.
pub const FAILED_EXIT_CODE: i32 = 74;

/// How a store is opened.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// How long history is kept, at least; `None`: until somebody compacts it.
    pub compact_interval: Option<Duration>,
    /// What a failed disk leads to. The default ends the process: [`end_process`].
    pub on_failure: OnFailure,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { compact_interval: Some(COMPACT_INTERVAL), on_failure: Arc::new(end_process) }
    }
}

/// Ends the process at once, without an orderly end: that would write to the disk that has failed.
pub fn end_process(why: &str) {
    // Beside the log, which may be kept on the same disk.
    eprintln!("the store's disk has failed, this process ends: {why}");
    std::process::exit(FAILED_EXIT_CODE);
}

/// See the module.
pub struct EmbeddedStore {
    inner: Arc<Inner>,
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

/// What readers, watches and the writer share.
struct Inner {
    state: RwLock<State>,
    hub: Hub,
    log: Log,
    /// Set once, when the disk has failed.
    failed: OnceLock<Arc<str>>,
    on_failure: OnFailure,
}

impl Inner {
    fn failure(&self) -> Option<StoreError> {
        self.failed.get().map(|why| StoreError::Failed(why.clone()))
    }

    fn fail(&self, why: &str) {
        tracing::error!(why, "the store has failed and accepts no more writes");
        self.failed.get_or_init(|| why.into());
        (self.on_failure)(why);
        // Still here: watches tell their readers.
        self.hub.close();
    }
}

impl EmbeddedStore {
    /// Opens the store of a directory, which is made if it is not there.
    pub fn open(dir: &Path, options: EmbeddedOptions) -> Result<Self, OpenError> {
        Self::start(Log::open(dir)?, options)
    }

    /// A store in memory that ends with the process. For tests; everything but durability is as on disk.
    pub fn ephemeral() -> Result<Self, OpenError> {
        Self::start(Log::ephemeral()?, EmbeddedOptions::default())
    }

    fn start(log: Log, options: EmbeddedOptions) -> Result<Self, OpenError> {
        let state = log.load()?;
        let hub = Hub::new(state.revision);
        let inner = Arc::new(Inner {
            state: RwLock::new(state),
            hub,
            log,
            failed: OnceLock::new(),
            on_failure: options.on_failure,
        });
        let (requests, receiver) = mpsc::channel(QUEUE_MAX);
        let writer = Writer::new(inner.clone(), receiver, options.compact_interval);
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || writer.run());
        let thread = thread.map_err(|source| OpenError::Io { path: "store-writer".into(), source })?;
        Ok(Self { inner, requests: Some(requests), writer: Some(thread) })
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let ended = || {
            self.inner.failure().unwrap_or_else(|| StoreError::Failed("the writing thread has ended".into()))
        };
        let requests = self.requests.as_ref().ok_or_else(ended)?;
        requests.send(request(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl Drop for EmbeddedStore {
    /// Waits for the commit that is on its way, so that the directory can be opened again at once.
    fn drop(&mut self) {
        self.requests = None;
        self.inner.hub.close();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writing thread had panicked");
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &[u8]) -> Result<GetResult, StoreError> {
        let state = self.inner.state.read();
        Ok(GetResult { kv: state.live.get(key).map(|live| live.kv.clone()), revision: state.revision })
    }

    async fn list(&self, request: ListRequest) -> Result<ListResult, StoreError> {
        let (live, revision) = {
            let state = self.inner.state.read();
            if let Some(revision) = request.revision {
                state.check(revision)?;
            }
            (state.live.clone(), state.revision)
        };
        if request.revision.is_none_or(|asked| asked == revision) {
            let count = live.count(&request.prefix, &request.start) as u64;
            let newest = live.range(&request.prefix, &request.start).map(|live| &live.kv);
            let kvs = take(newest, &request);
            return Ok(ListResult { more: (kvs.len() as u64) < count, kvs, revision, count });
        }
        let inner = self.inner.clone();
        let read = tokio::task::spawn_blocking(move || inner.list_old(&request));
        read.await.map_err(|error| StoreError::Failed(format!("reading the log: {error}").into()))?
    }

    async fn txn(&self, key: &[u8], expect: u64, op: Op) -> Result<TxnResult, StoreError> {
        if key.is_empty() {
            return Err(StoreError::Rejected("a key must not be empty".into()));
        }
        if let Op::Put { value, .. } = &op
            && value.len() > VALUE_BYTES_MAX
        {
            return Err(StoreError::TooLarge { bytes: value.len(), max: VALUE_BYTES_MAX });
        }
        let key = Bytes::copy_from_slice(key);
        self.ask(|reply| Request::Txn { key, expect, op, reply }).await
    }

    async fn watch(&self, prefix: &[u8], after: u64) -> Result<WatchStream, StoreError> {
        Source::open(&self.inner, prefix, after).map(WatchStream::new)
    }

    async fn current_revision(&self) -> Result<u64, StoreError> {
        Ok(self.inner.hub.told())
    }

    async fn request_progress(&self, prefix: &[u8]) -> Result<(), StoreError> {
        self.inner.hub.ask_progress(prefix);
        Ok(())
    }

    fn progress_supported(&self) -> bool {
        true
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.ask(|reply| Request::Compact { revision, reply }).await
    }
}

/// As many of the keys, and as much of each, as a request wants.
fn take<'a>(kvs: impl Iterator<Item = &'a KeyValue>, request: &ListRequest) -> Vec<KeyValue> {
    let limit = if request.limit == 0 { usize::MAX } else { request.limit };
    match request.detail {
        ListDetail::Full => kvs.take(limit).cloned().collect(),
        ListDetail::KeysOnly => {
            kvs.take(limit).map(|kv| KeyValue { value: Bytes::new(), ..kv.clone() }).collect()
        }
        ListDetail::CountOnly => Vec::new(),
    }
}

impl Inner {
    /// A list at a revision of the past.
    fn list_old(&self, request: &ListRequest) -> Result<ListResult, StoreError> {
        let (picks, view, revision) = {
            let state = self.state.read();
            let revision = request.revision.unwrap_or(state.revision);
            state.check(revision)?;
            // Opened under the lock: the rows that the state names are in this view unless a compaction is removing them.
            (state.pick(&request.prefix, &request.start, revision), self.log.view()?, revision)
        };
        let count = picks.len() as u64;
        let limit = match (request.detail, request.limit) {
            (ListDetail::CountOnly, _) => 0,
            (_, 0) => usize::MAX,
            (_, limit) => limit,
        };
        let kvs = picks
            .into_iter()
            .take(limit)
            .map(|pick| self.read_pick(pick, request, &view, revision))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(ListResult { more: (kvs.len() as u64) < count, kvs, revision, count })
    }

    fn read_pick(
        &self,
        pick: Pick,
        request: &ListRequest,
        view: &View,
        revision: u64,
    ) -> Result<KeyValue, StoreError> {
        let mut kv = match pick {
            Pick::Live(live) => live.kv.clone(),
            Pick::Row(key, old) if request.detail == ListDetail::Full => {
                let row = view.get(old.revision)?.and_then(|change| change.live);
                let Some(live) = row.filter(|live| live.kv.key == key) else {
                    let compacted = self.state.read().compacted;
                    return Err(StoreError::Compacted { requested: revision, compacted });
                };
                live.kv.clone()
            }
            Pick::Row(key, old) => KeyValue {
                key,
                value: Bytes::new(),
                create_revision: old.create_revision,
                mod_revision: old.revision,
                version: old.version,
            },
        };
        if request.detail != ListDetail::Full {
            kv.value = Bytes::new();
        }
        Ok(kv)
    }
}
