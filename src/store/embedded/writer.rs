//! The one thread that writes. It takes whatever requests have gathered while it wrote the last ones, decides them in
//! order, writes all that change something with one commit, and only then shows and acknowledges them: group commit.
//!
//! A failed commit is final. After an fsync error nobody knows what the disk holds, and trying again may only seem to work.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Inner;
use super::state::{Change, Live};
use crate::store::{Event, KeyValue, Op, StoreError, TxnResult};

/// Requests that wait while a commit is on its way; who comes later waits for room.
pub(super) const QUEUE_MAX: usize = 1024;
/// Requests decided in one commit.
const BATCH_MAX: usize = 512;
/// Rows removed in one commit, so that a large compaction holds writers up for milliseconds only.
const COMPACT_BATCH: usize = 2000;
/// Expired keys removed in one commit.
const EXPIRE_BATCH: usize = 500;

/// What the thread is asked to do.
pub(super) enum Request {
    Txn { key: Bytes, expect: u64, op: Op, reply: oneshot::Sender<Result<TxnResult, StoreError>> },
    Compact { revision: u64, reply: oneshot::Sender<Result<(), StoreError>> },
}

type Answer = (oneshot::Sender<Result<TxnResult, StoreError>>, TxnResult);

/// See the module.
pub(super) struct Writer {
    inner: Arc<Inner>,
    requests: mpsc::Receiver<Request>,
    /// When which key goes away.
    deadlines: BTreeSet<(u64, Bytes)>,
    compact_every: Option<Duration>,
    /// The revision to compact to at the next tick: the newest of the tick before.
    /// upstream: apiserver/pkg/storage/etcd3/compact.go runCompactLoop
    compact_to: u64,
}

/// A batch while it is being decided.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    answers: Vec<Answer>,
    /// What the batch has made of keys so far.
    staged: HashMap<Bytes, Option<Arc<Live>>>,
}

impl Writer {
    pub(super) fn new(
        inner: Arc<Inner>,
        requests: mpsc::Receiver<Request>,
        compact_every: Option<Duration>,
    ) -> Self {
        let deadlines = inner.state.read().live.range(b"", b"").filter_map(deadline).collect();
        Self { inner, requests, deadlines, compact_every, compact_to: 0 }
    }

    /// Runs until the store is dropped or its disk fails. The thread has a clock of its own and blocks nobody else.
    pub(super) fn run(mut self) {
        let clock = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(clock) => clock,
            Err(error) => return self.inner.fail(&format!("no timer for the writer: {error}")),
        };
        clock.block_on(async {
            let mut requests = Vec::with_capacity(BATCH_MAX);
            let mut next_compaction = self.compact_every.map(|every| Instant::now() + every);
            loop {
                let expiry = self.next_expiry();
                let timer = [expiry, next_compaction].into_iter().flatten().min();
                tokio::select! {
                    biased;
                    taken = self.requests.recv_many(&mut requests, BATCH_MAX) => {
                        if taken == 0 {
                            return;
                        }
                        self.serve(&mut requests);
                    }
                    () = sleep_until(timer) => {}
                }
                // Looked at on every round: a store that is never idle must not starve its timers.
                if next_compaction.is_some_and(|due| due <= Instant::now()) {
                    next_compaction = self.compact_every.map(|every| Instant::now() + every);
                    self.compact_history();
                }
                self.expire();
            }
        });
    }

    /// Answers all requests, in order.
    fn serve(&mut self, requests: &mut Vec<Request>) {
        let mut batch = Batch::default();
        for request in requests.drain(..) {
            match request {
                Request::Txn { key, expect, op, reply } => {
                    self.decide(&mut batch, key, expect, op, Some(reply))
                }
                Request::Compact { revision, reply } => {
                    // What came before is history by then.
                    self.commit(std::mem::take(&mut batch));
                    // Nobody may wait for it any more.
                    let _ = reply.send(self.compact(revision));
                }
            }
        }
        self.commit(batch);
    }

    /// Decides one conditional write against the state and what the batch has made of it.
    fn decide(
        &self,
        batch: &mut Batch,
        key: Bytes,
        expect: u64,
        op: Op,
        reply: Option<oneshot::Sender<Result<TxnResult, StoreError>>>,
    ) {
        let (current, newest) = {
            let state = self.inner.state.read();
            let staged = batch.staged.get(&key).cloned();
            (staged.unwrap_or_else(|| state.live.get(&key).cloned()), state.revision)
        };
        let newest = newest + batch.changes.len() as u64;
        let found = current.as_ref().map_or(0, |live| live.kv.mod_revision);
        let result = if found != expect {
            TxnResult::Conflict { current: current.map(|live| live.kv.clone()), revision: newest }
        } else if op == Op::Delete && current.is_none() {
            TxnResult::Done { revision: newest }
        } else {
            let revision = newest + 1;
            let live = put(op, &key, current.as_deref(), revision);
            batch.staged.insert(key.clone(), live.clone());
            batch.changes.push(Change { revision, key, live });
            TxnResult::Done { revision }
        };
        if let Some(reply) = reply {
            batch.answers.push((reply, result));
        }
    }

    /// Makes the changes durable, then visible, then acknowledges them.
    fn commit(&mut self, batch: Batch) {
        if let Some(error) = self.inner.failure() {
            return refuse(batch.answers, &error);
        }
        if !batch.changes.is_empty() {
            if let Err(error) = self.inner.log.append(&batch.changes) {
                self.inner.fail(&format!("a commit failed: {error}"));
                if let Some(error) = self.inner.failure() {
                    refuse(batch.answers, &error);
                }
                return;
            }
            self.publish(&batch.changes);
        }
        for (reply, result) in batch.answers {
            // A caller that has gone away does not undo its write.
            let _ = reply.send(Ok(result));
        }
    }

    fn publish(&mut self, changes: &[Change]) {
        {
            let mut state = self.inner.state.write();
            for change in changes {
                let previous = state.apply(change);
                if let Some(old) = previous.as_ref().and_then(deadline) {
                    self.deadlines.remove(&old);
                }
                self.deadlines.extend(change.live.as_ref().and_then(deadline));
                let event = Event {
                    key: change.key.clone(),
                    kv: change.live.as_ref().map(|live| live.kv.clone()),
                    prev: previous.map(|live| live.kv.clone()),
                };
                state.push_recent(change.revision, event);
            }
        }
        self.inner.hub.raise(changes);
    }

    /// Removes the keys whose time is over, each with a revision of its own.
    fn expire(&mut self) {
        let now = now_ms();
        let mut batch = Batch::default();
        for (_, key) in self.deadlines.iter().take_while(|(at, _)| *at <= now).take(EXPIRE_BATCH) {
            let current = self.inner.state.read().live.get(key).map(|live| live.kv.mod_revision);
            if let Some(expect) = current {
                self.decide(&mut batch, key.clone(), expect, Op::Delete, None);
            }
        }
        if !batch.changes.is_empty() && self.inner.failure().is_none() {
            self.commit(batch);
        }
    }

    fn next_expiry(&self) -> Option<Instant> {
        if self.inner.failure().is_some() {
            return None;
        }
        let (at, _) = self.deadlines.first()?;
        // The wall clock decides, also after a restart; looked at again at least once a minute in case it was set.
        let left = Duration::from_millis(at.saturating_sub(now_ms())).min(Duration::from_secs(60));
        Some(Instant::now() + left)
    }

    fn compact_history(&mut self) {
        let newest = self.inner.state.read().revision;
        let to = std::mem::replace(&mut self.compact_to, newest);
        if to > self.inner.state.read().compacted
            && let Err(error) = self.compact(to)
        {
            tracing::warn!(revision = to, %error, "history could not be compacted");
        }
    }

    fn compact(&mut self, revision: u64) -> Result<(), StoreError> {
        if let Some(error) = self.inner.failure() {
            return Err(error);
        }
        {
            let mut state = self.inner.state.write();
            if revision <= state.compacted {
                return Err(StoreError::Compacted { requested: revision, compacted: state.compacted });
            }
            state.check(revision)?;
            // From now on nobody starts to read what is about to go.
            state.compacted = revision;
        }
        loop {
            let garbage = self.inner.state.read().garbage(revision, COMPACT_BATCH);
            if let Err(error) = self.inner.log.remove(&garbage, revision) {
                self.inner.fail(&format!("a compaction failed: {error}"));
                return self.inner.failure().map_or(Ok(()), Err);
            }
            self.inner.state.write().forget(&garbage);
            if garbage.len() < COMPACT_BATCH {
                return Ok(());
            }
        }
    }
}

/// The value that a put leaves; `None` for a deletion.
fn put(op: Op, key: &Bytes, current: Option<&Live>, revision: u64) -> Option<Arc<Live>> {
    let Op::Put { value, ttl_seconds } = op else { return None };
    let kv = KeyValue {
        key: key.clone(),
        value,
        create_revision: current.map_or(revision, |live| live.kv.create_revision),
        mod_revision: revision,
        version: current.map_or(0, |live| live.kv.version) + 1,
    };
    let deadline_ms = ttl_seconds.map_or(0, |ttl| now_ms().saturating_add(ttl.saturating_mul(1000)));
    Some(Arc::new(Live { kv, deadline_ms }))
}

fn deadline(live: &Arc<Live>) -> Option<(u64, Bytes)> {
    (live.deadline_ms > 0).then(|| (live.deadline_ms, live.kv.key.clone()))
}

fn refuse(answers: Vec<Answer>, error: &StoreError) {
    for (reply, _) in answers {
        let _ = reply.send(Err(error.clone()));
    }
}

fn now_ms() -> u64 {
    // A clock before 1970 is no clock: nothing expires then.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

async fn sleep_until(timer: Option<Instant>) {
    match timer {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
