//! The contract between Copepod and whatever keeps its bytes.
//!
//! A [`Store`] is a map from keys to values whose every change has a revision. It knows nothing of objects, kinds or
//! HTTP. Two backends keep the contract ([`crate::embedded`], [`crate::etcd`]) and [`crate::contract`] checks them both
//! with the same functions.
//!
//! Invariants every backend keeps:
//! * revisions are etcd's: one counter for the whole store, raised by one by each write that changes something; an empty
//!   store stands at 1, so that 0 never names a state;
//! * an acknowledged write survives the death of the process and of the machine;
//! * reads without a revision are linearizable: they see every write that was acknowledged before they began;
//! * a watch delivers each change after its start once, in order of revision, never a part of a revision; when it cannot
//!   it ends with an error, it never skips;
//! * everything in between is bounded: a reader that stays behind costs the store nothing and the writers no time.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::watch_stream::WatchStream;

/// The largest value of one key that every backend takes: etcd's `--max-request-bytes` less room for key and frame. An
/// etcd that was told to take more does.
pub const VALUE_BYTES_MAX: usize = (1536 - 16) * 1024;

/// One key at one revision.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The whole key, prefix included.
    pub key: Bytes,
    /// The stored bytes, never interpreted here.
    pub value: Bytes,
    /// Revision of the write that made the key (after its last deletion).
    pub create_revision: u64,
    /// Revision of the write that left this value: the `resourceVersion` of the object in it.
    pub mod_revision: u64,
    /// How many writes the key has seen since it was made; the first one is 1.
    pub version: u64,
}

impl std::fmt::Debug for KeyValue {
    // Values are megabytes of protobuf or somebody's secret: neither belongs into a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}@{} ({} bytes, made @{}, version {})",
            String::from_utf8_lossy(&self.key),
            self.mod_revision,
            self.value.len(),
            self.create_revision,
            self.version
        )
    }
}

/// Answer of [`Store::get`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetResult {
    /// The key's newest value, if it exists.
    pub kv: Option<KeyValue>,
    /// The revision at which the whole store stood when it was read.
    pub revision: u64,
}

/// How much of each key a list wants to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListDetail {
    /// Keys, revisions and values.
    #[default]
    Full,
    /// Values are empty.
    KeysOnly,
    /// No keys at all, only [`ListResult::count`].
    CountOnly,
}

/// What [`Store::list`] shall read.
///
/// One key at an old revision is `prefix = start = key, limit = 1`: the key sorts first among those that it prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// Every key that begins with these bytes. A folder ends in `/`, otherwise `/pods` also finds `/podsx`.
    pub prefix: Bytes,
    /// The first key wanted, inclusive; empty: from the beginning. After the page that ended at `k` comes `k\0`
    /// ([`ListRequest::after`]).
    pub start: Bytes,
    /// At most so many keys; 0: all of them.
    pub limit: usize,
    /// The revision to read at; `None`: the newest.
    pub revision: Option<u64>,
    /// How much of each key.
    pub detail: ListDetail,
}

impl ListRequest {
    /// All keys under `prefix`, newest revision.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    /// Reads at `revision` instead of at the newest.
    #[must_use]
    pub fn at(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    /// Reads at most `limit` keys.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Goes on behind `key`.
    #[must_use]
    pub fn after(mut self, key: &[u8]) -> Self {
        let mut start = Vec::with_capacity(key.len() + 1);
        start.extend_from_slice(key);
        start.push(0);
        self.start = start.into();
        self
    }

    /// Reads so much of each key.
    #[must_use]
    pub fn detail(mut self, detail: ListDetail) -> Self {
        self.detail = detail;
        self
    }
}

/// Answer of [`Store::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListResult {
    /// In order of their keys' bytes.
    pub kvs: Vec<KeyValue>,
    /// The revision of this state: the one asked for, otherwise the store's newest.
    pub revision: u64,
    /// Keys remain behind the last one of `kvs`.
    pub more: bool,
    /// How many keys there are from `start` on, `limit` ignored; less `kvs.len()` it is `remainingItemCount`.
    pub count: u64,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes the value.
    Put {
        /// The new bytes; [`VALUE_BYTES_MAX`] is what every backend takes.
        value: Bytes,
        /// The key goes away by itself so many seconds after this write, give or take the backend's granularity
        /// (leases are shared: up to a minute or 5 % later). `None`: it stays, also if an earlier write had a limit.
        ttl_seconds: Option<u64>,
    },
    /// Removes the key. Of a key that is not there (`expect` 0) it is `Done` and changes nothing.
    Delete,
}

/// Answer of [`Store::txn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnResult {
    /// The change was made, durably, at this revision.
    Done {
        /// Its revision: the `mod_revision` of what was put, the revision of the deletion.
        revision: u64,
    },
    /// The key was not as expected; nothing was changed.
    Conflict {
        /// What the key holds instead; `None`: it does not exist.
        current: Option<KeyValue>,
        /// The revision of the store at that time.
        revision: u64,
    },
}

/// One change of one key as a watch shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key that changed.
    pub key: Bytes,
    /// Its new value; `None`: it was deleted (or its time ran out).
    pub kv: Option<KeyValue>,
    /// Its value before, if there was one and history still has it. Absent after a compaction in between, so a follower
    /// that holds the state itself trusts its own.
    pub prev: Option<KeyValue>,
}

/// What a watch delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// All changes of one revision under the watched prefix: never a part, never two revisions.
    Events {
        /// The revision, higher than that of any item before.
        revision: u64,
        /// Not empty; shared among the watchers where the backend can.
        events: Arc<[Event]>,
    },
    /// Everything up to `revision` has been delivered.
    Progress {
        /// Not lower than that of any item before.
        revision: u64,
    },
}

/// Keys at revisions. `Arc<dyn Store>` is how everybody holds it.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest value of one key. Linearizable.
    async fn get(&self, key: &[u8]) -> Result<GetResult, StoreError>;

    /// The keys under a prefix at one revision. Linearizable if no revision is asked for.
    async fn list(&self, request: ListRequest) -> Result<ListResult, StoreError>;

    /// One conditional write: if the key's `mod_revision` is `expect` (0: it does not exist), do `op`.
    async fn txn(&self, key: &[u8], expect: u64, op: Op) -> Result<TxnResult, StoreError>;

    /// The changes under `prefix` whose revision is HIGHER than `after`. With the revision of a list it continues that
    /// list without gap or overlap; `after = 0` is all history there is ever been (or `Compacted`). `after` may lie in
    /// the future: nothing is delivered until the store has passed it.
    ///
    /// A disconnect is mended inside. `Compacted` may come from this call or as the stream's last item.
    async fn watch(&self, prefix: &[u8], after: u64) -> Result<WatchStream, StoreError>;

    /// The revision of the newest write. Linearizable.
    async fn current_revision(&self) -> Result<u64, StoreError>;

    /// Asks that each open watch of exactly `prefix` (others may join in) soon delivers something at the current revision
    /// or later: an event or a `Progress`. Best effort, so ask again while waiting; calls may be merged. Without effect
    /// unless [`Store::progress_supported`].
    async fn request_progress(&self, prefix: &[u8]) -> Result<(), StoreError>;

    /// Whether `request_progress` can be relied on. Where not (etcd before 3.4.31 and 3.5.13 lies), who must know the
    /// newest state reads it from the store.
    fn progress_supported(&self) -> bool;

    /// Forgets history: reads and watches below `revision` fail from now on, the state at `revision` stays. A second
    /// compaction at or below an earlier one is `Compacted`, one beyond the newest revision `FutureRevision`.
    async fn compact(&self, revision: u64) -> Result<(), StoreError>;
}

/// Why a store did not answer, in terms of what the caller can do:
///
/// * `Compacted`: the revision is gone for good: list anew (a client gets 410);
/// * `FutureRevision`: the revision does not exist yet: wait or give up;
/// * `Unavailable`: nothing was changed, try again after a pause;
/// * `UnknownOutcome`: the write may or may not have happened: read the key back before deciding anything;
/// * `TooLarge`, `Rejected`: the request will never succeed as it is;
/// * `Corrupt`: stored bytes contradict each other: an operator has to look, reading on may be possible;
/// * `Failed`: the store has lost its disk and accepts nothing more (the process ends, unless its owner has said otherwise).
///   What was acknowledged is kept; a write answered with this may or may not be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// History before `compacted` is forgotten.
    #[error("revision {requested} has been compacted, the oldest kept is {compacted}")]
    Compacted {
        /// The revision asked for (of a watch: the first one it would have to deliver).
        requested: u64,
        /// The oldest revision that can still be read; 0 where the backend did not say.
        compacted: u64,
    },
    /// The store has not come so far.
    #[error("revision {requested} is in the future, the newest is {current}")]
    FutureRevision {
        /// The revision asked for.
        requested: u64,
        /// The newest there is; 0 where the backend did not say.
        current: u64,
    },
    /// Not reachable, without a leader, overloaded. Nothing was changed.
    #[error("the store is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// The connection broke between the write and its answer.
    #[error("the outcome of the write is unknown: {0}")]
    UnknownOutcome(Arc<str>),
    /// Over a limit of the store.
    #[error("request is too large: {bytes} bytes, about {max} are taken")]
    TooLarge {
        /// The size of the value.
        bytes: usize,
        /// The limit, where the backend did not say: [`VALUE_BYTES_MAX`].
        max: usize,
    },
    /// The store understood and will not do it (permission, space alarm, malformed request).
    #[error("the store refused: {0}")]
    Rejected(Arc<str>),
    /// What was read cannot have been written.
    #[error("the store holds corrupt data: {0}")]
    Corrupt(Arc<str>),
    /// A write to disk failed; after that nobody knows what the disk holds.
    #[error("the store has failed and is closed: {0}")]
    Failed(Arc<str>),
}

impl StoreError {
    /// Whether the same request may succeed later and cannot have had an effect now.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// The smallest key behind all keys that begin with `prefix`; `None`: there is no such key (all bytes are 0xff).
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&b| b != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}
