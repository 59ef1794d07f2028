//! The watches of the embedded store.
//!
//! A watch pulls: it reads the newest changes from memory and older ones from the log, at its own pace. A writer only
//! rings the bell of those whose prefix it touched.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::Inner;
use super::state::Change;
use crate::signal::Signal;
use crate::store::{Event, StoreError, WatchItem};
use crate::watch_stream::WatchSource;

/// Rows of the log looked at in one go.
const SCAN_ROWS: usize = 1000;

/// Who has to be told of changes.
#[derive(Default)]
pub(super) struct Hub {
    bells: Mutex<Vec<Arc<Bell>>>,
    /// Everything up to here has been told.
    told: AtomicU64,
}

struct Bell {
    prefix: Bytes,
    signal: Signal,
    progress: AtomicBool,
}

impl Hub {
    pub(super) fn new(revision: u64) -> Self {
        Self { bells: Mutex::default(), told: AtomicU64::new(revision) }
    }

    /// The newest revision of which all watches have been told.
    pub(super) fn told(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// Rings for changes that the state shows already.
    pub(super) fn raise(&self, changes: &[Change]) {
        {
            // A few dozen watches, one a resource: looking at each costs less than keeping a tree of them.
            let bells = self.bells.lock();
            for change in changes {
                for bell in bells.iter().filter(|bell| change.key.starts_with(&bell.prefix)) {
                    bell.signal.raise(change.revision);
                }
            }
        }
        if let Some(last) = changes.last() {
            self.told.store(last.revision, Ordering::Release);
        }
    }

    pub(super) fn ask_progress(&self, prefix: &[u8]) {
        for bell in self.bells.lock().iter().filter(|bell| bell.prefix == prefix) {
            bell.progress.store(true, Ordering::Release);
            bell.signal.nudge();
        }
    }

    pub(super) fn close(&self) {
        for bell in self.bells.lock().drain(..) {
            bell.signal.close();
        }
    }
}

/// The changes of one revision.
type Revised = (u64, Arc<[Event]>);

/// One watch.
pub(super) struct Source {
    inner: Arc<Inner>,
    bell: Arc<Bell>,
    /// Everything up to here under the prefix has been read.
    after: u64,
    /// What was read and not handed out.
    pending: VecDeque<Revised>,
}

impl Source {
    pub(super) fn open(inner: &Arc<Inner>, prefix: &[u8], after: u64) -> Result<Self, StoreError> {
        let bell = Arc::new(Bell {
            prefix: Bytes::copy_from_slice(prefix),
            signal: Signal::default(),
            progress: AtomicBool::new(false),
        });
        let state = inner.state.read();
        check_compacted(after, state.compacted)?;
        if after < state.revision {
            bell.signal.raise(after + 1);
        }
        // Still under the state's lock: the next change finds this bell.
        inner.hub.bells.lock().push(bell.clone());
        drop(state);
        Ok(Self { inner: inner.clone(), bell, after, pending: VecDeque::new() })
    }

    async fn pull(&mut self) -> Option<Result<WatchItem, StoreError>> {
        loop {
            if let Some((revision, events)) = self.pending.pop_front() {
                return Some(Ok(WatchItem::Events { revision, events }));
            }
            if let Some(error) = self.inner.failure() {
                return Some(Err(error));
            }
            if self.bell.signal.is_closed() {
                return None;
            }
            // Read before the signal: whatever is up to here has been signalled.
            let told = self.inner.hub.told();
            if let Some(from) = self.bell.signal.take() {
                if let Err(error) = self.read(from).await {
                    return Some(Err(error));
                }
                continue;
            }
            if told >= self.after && self.bell.progress.swap(false, Ordering::AcqRel) {
                self.after = told;
                return Some(Ok(WatchItem::Progress { revision: told }));
            }
            self.bell.signal.rung().await;
        }
    }

    /// Reads the changes from `from` on, from memory if they are there.
    async fn read(&mut self, from: u64) -> Result<(), StoreError> {
        let mut after = self.after.max(from - 1);
        loop {
            if self.read_recent(after)? {
                return Ok(());
            }
            // Until the rows are read the signal stands, in case the caller gives up waiting.
            self.bell.signal.put_back(after + 1);
            let (inner, prefix) = (self.inner.clone(), self.bell.prefix.clone());
            let read = tokio::task::spawn_blocking(move || inner.read_log(&prefix, after));
            let (events, until) = read
                .await
                .map_err(|error| StoreError::Failed(format!("reading the log: {error}").into()))??;
            after = until;
            self.after = until;
            self.pending = events.into();
            if !self.pending.is_empty() {
                self.bell.signal.put_back(until + 1);
                return Ok(());
            }
            self.bell.signal.take();
        }
    }

    /// False: memory does not reach back so far.
    fn read_recent(&mut self, after: u64) -> Result<bool, StoreError> {
        let state = self.inner.state.read();
        if after < state.recent_floor() {
            check_compacted(after, state.compacted)?;
            return Ok(false);
        }
        let mine = |event: &Event| event.key.starts_with(&self.bell.prefix);
        for (revision, events) in state.recent_after(after) {
            if events.iter().any(mine) {
                // Every change of this store is a revision of its own.
                self.pending.push_back((*revision, events.clone()));
            }
        }
        self.after = self.after.max(state.revision);
        Ok(true)
    }
}

impl WatchSource for Source {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<WatchItem, StoreError>>> {
        Box::pin(self.pull())
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.inner.hub.bells.lock().retain(|bell| !Arc::ptr_eq(bell, &self.bell));
    }
}

/// Whether a watch can still deliver everything behind `after`.
fn check_compacted(after: u64, compacted: u64) -> Result<(), StoreError> {
    let first = after.saturating_add(1);
    if first < compacted {
        return Err(StoreError::Compacted { requested: first, compacted });
    }
    Ok(())
}

impl Inner {
    /// Some of the changes behind `after` under a prefix, from the log; and the revision up to which that is all.
    fn read_log(&self, prefix: &[u8], after: u64) -> Result<(Vec<Revised>, u64), StoreError> {
        let view = self.log.view()?;
        let newest = self.state.read().revision;
        let (changes, until) = view.scan(after + 1, newest, prefix, SCAN_ROWS)?;
        let mut events = Vec::with_capacity(changes.len());
        for change in changes {
            let prev = self.value_before(&view, &change)?;
            let kv = change.live.as_ref().map(|live| live.kv.clone());
            events.push((change.revision, Arc::from([Event { key: change.key, kv, prev }])));
        }
        // Rows may have gone while they were read.
        check_compacted(after, self.state.read().compacted)?;
        Ok((events, until))
    }

    fn value_before(
        &self,
        view: &super::log::View,
        change: &Change,
    ) -> Result<Option<crate::store::KeyValue>, StoreError> {
        let before = self.state.read().old_at(&change.key, change.revision - 1);
        let Some(before) = before.filter(|old| !old.deleted) else { return Ok(None) };
        Ok(view.get(before.revision)?.and_then(|change| change.live).map(|live| live.kv.clone()))
    }
}
