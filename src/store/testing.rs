//! A store that fails when a test wants it to.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::store::{GetResult, ListRequest, ListResult, Op, Store, StoreError, TxnResult, WatchItem};
use crate::watch_stream::{WatchSource, WatchStream};

/// What goes wrong at the moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Watches deliver nothing.
    pub(crate) hold_watches: bool,
    /// Lists do not answer.
    pub(crate) hold_lists: bool,
    /// Progress cannot be told.
    pub(crate) no_progress: bool,
    /// Watches opened before the change of this number end.
    pub(crate) breaks: u64,
}

/// A store with faults.
pub(crate) struct FaultyStore {
    inner: Arc<dyn Store>,
    faults: watch::Sender<Faults>,
    /// Lists asked for so far.
    pub(crate) lists: Mutex<Vec<ListRequest>>,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { inner, faults: watch::Sender::default(), lists: Mutex::default() })
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Faults)) {
        self.faults.send_modify(change);
    }

    /// Ends all open watches, as a compaction does that overtakes them.
    pub(crate) fn break_watches(&self) {
        self.set(|faults| faults.breaks += 1);
    }
}

struct FaultySource {
    inner: WatchStream,
    faults: watch::Receiver<Faults>,
    opened: u64,
}

impl FaultySource {
    async fn pull(&mut self) -> Option<Result<WatchItem, StoreError>> {
        loop {
            let faults = self.faults.borrow_and_update().clone();
            if faults.breaks > self.opened {
                return Some(Err(StoreError::Compacted { requested: 0, compacted: 0 }));
            }
            tokio::select! {
                biased;
                changed = self.faults.changed() => changed.ok()?,
                item = self.inner.next(), if !faults.hold_watches => return item,
            }
        }
    }
}

impl WatchSource for FaultySource {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<WatchItem, StoreError>>> {
        Box::pin(self.pull())
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn get(&self, key: &[u8]) -> Result<GetResult, StoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListResult, StoreError> {
        self.lists.lock().push(request.clone());
        let mut faults = self.faults.subscribe();
        faults
            .wait_for(|faults| !faults.hold_lists)
            .await
            .map_err(|_| StoreError::Unavailable("gone".into()))?;
        self.inner.list(request).await
    }

    async fn txn(&self, key: &[u8], expect: u64, op: Op) -> Result<TxnResult, StoreError> {
        self.inner.txn(key, expect, op).await
    }

    async fn watch(&self, prefix: &[u8], after: u64) -> Result<WatchStream, StoreError> {
        let faults = self.faults.subscribe();
        let opened = faults.borrow().breaks;
        let inner = self.inner.watch(prefix, after).await?;
        Ok(WatchStream::new(FaultySource { inner, faults, opened }))
    }

    async fn current_revision(&self) -> Result<u64, StoreError> {
        self.inner.current_revision().await
    }

    async fn request_progress(&self, prefix: &[u8]) -> Result<(), StoreError> {
        self.inner.request_progress(prefix).await
    }

    fn progress_supported(&self) -> bool {
        !self.faults.borrow().no_progress
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }
}
