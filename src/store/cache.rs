//! The watch cache: the newest state and the newest changes of one resource, from which its readers are served.
//!
//! Owns, per resource: every object at its newest revision ([`Entry`], in key order, with secondary indexes), a ring of
//! the newest changes, the encoded bodies that readers share, and the registry of its watchers. Does not: authorize, decode
//! objects (that is [`ObjectCodec`]'s), evaluate selectors (readers bring a closure), write.
//!
//! One task per resource follows the store: a list, then a watch from the list's revision. It starts with the first use.
//! Nobody else changes the state.
//!
//! Invariants (each is a test):
//! * a list at a revision, its next pages and the watch from that revision see one history;
//! * changes reach a watcher in order of revision, all of one revision together, none twice, none left out;
//! * what a client wrote becomes visible when the store's watch shows it, never earlier and to some only;
//! * a read that asks for the newest state sees every write acknowledged before it began; it waits, with the store's
//!   progress asked for only meanwhile, or is read through;
//! * `apply` never waits for a watcher and no lock is held over an await: watchers read the ring at their own pace, and one
//!   that falls behind the ring is closed, so that its client resumes or lists anew;
//! * ring, kept pages and bodies are bounded by named constants;
//! * a cache that is not filled says so ([`CacheError::NotReady`]) or reads through; it never shows an empty list.
//!
//! When it breaks: if the store's watch ends (compaction overtook it, an object cannot be read), all watchers are closed,
//! the ring is dropped, and the state is filled by a new list.

mod entry;
mod error;
mod follow;

mod read;
mod ring;
#[cfg(test)]
mod tests;
mod watcher;
mod watchers;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use compact_str::CompactString;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use entry::{Attributes, BODY_BYTES_MAX, BodyBudget, CodecError, Entry, Form, ObjectCodec};
pub use error::CacheError;
pub use read::{Got, ListQuery, Listing, ReadAt};
pub use ring::RingLimits;
pub use watcher::{ChangeKind, WatchEvent, WatchQuery, WatchStart, Watcher};

use crate::store::Store;
use follow::State;
use read::KeptPages;
use watchers::Watchers;

/// Says whether a reader wants an object. Called without locks, once per object and read.
pub type Filter = Arc<dyn Fn(&Attributes) -> bool + Send + Sync>;

/// How much of a resource is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// The whole state. Reads are served from it.
    #[default]
    State,
    /// The newest changes only. Reads go to the store; watches are shared. For what is many and seldom read (Events).
    Changes,
}

/// What a cache is told about its resource.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Its name for logs.
    pub resource: CompactString,
    /// The folder of its keys, ending in `/`.
    pub prefix: Bytes,
    /// The selectable fields (positions in [`Attributes::fields`]) whose values are indexed.
    pub indexes: Box<[usize]>,
    /// How much is held.
    pub hold: Hold,
    /// How many changes are kept.
    pub ring: RingLimits,
}

impl CacheConfig {
    /// A cache of the whole state without secondary indexes.
    pub fn new(resource: &str, prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        debug_assert!(prefix.ends_with(b"/"), "a folder ends in a slash");
        Self {
            resource: resource.into(),
            prefix,
            indexes: Box::default(),
            hold: Hold::State,
            ring: RingLimits::default(),
        }
    }
}

/// Which objects of a resource a reader means, in terms of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    Resource,
    /// Those directly in this folder (a namespace), which ends in `/`.
    Folder(Bytes),
    /// The one with this key.
    Key(Bytes),
}

impl Scope {
    fn prefix<'a>(&'a self, resource: &'a Bytes) -> &'a Bytes {
        match self {
            Self::Resource => resource,
            Self::Folder(prefix) | Self::Key(prefix) => prefix,
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Resource => true,
            Self::Folder(folder) => key.starts_with(folder),
            Self::Key(wanted) => key == wanted,
        }
    }
}

/// The cache of one resource. See the module.
pub struct Cache {
    shared: Arc<Shared>,
    task: OnceLock<AbortHandle>,
}

/// What the cache, its task and its watchers share.
pub(crate) struct Shared {
    config: CacheConfig,
    store: Arc<dyn Store>,
    codec: Arc<dyn ObjectCodec>,
    budget: Arc<BodyBudget>,
    state: RwLock<State>,
    /// Locked after `state` where both are held.
    watchers: Mutex<Watchers>,
    /// The revision up to which everything is applied and its watchers are told; 0: not ready.
    reached: watch::Sender<u64>,
    kept: Mutex<KeptPages>,
}

/// What a cache costs at the moment, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStats {
    /// Objects held.
    pub objects: usize,
    /// Revisions in the ring.
    pub ring_batches: usize,
    /// Their bytes.
    pub ring_bytes: usize,
    /// Open watches.
    pub watchers: usize,
    /// The revision up to which changes are applied; 0: not ready.
    pub revision: u64,
}

impl Cache {
    /// A cache that starts to follow the store when it is first used, and ends when it is dropped.
    pub fn new(
        store: Arc<dyn Store>,
        codec: Arc<dyn ObjectCodec>,
        config: CacheConfig,
        budget: Arc<BodyBudget>,
    ) -> Self {
        let shared = Shared {
            state: RwLock::new(State::empty(&config)),
            watchers: Mutex::new(Watchers::new(config.indexes.clone())),
            reached: watch::Sender::new(0),
            kept: Mutex::default(),
            config,
            store,
            codec,
            budget,
        };
        Self { shared: Arc::new(shared), task: OnceLock::new() }
    }

    /// Starts to follow the store, if it has not been used before. Needs the runtime.
    pub fn start(&self) {
        self.task.get_or_init(|| tokio::spawn(follow::follow(self.shared.clone())).abort_handle());
    }

    /// Whether the state is there.
    pub fn is_ready(&self) -> bool {
        *self.shared.reached.borrow() > 0
    }

    /// An object encoded for readers; shared with everybody who wants the same.
    pub fn body(&self, entry: &Arc<Entry>, form: Form) -> Result<Bytes, CacheError> {
        entry.body(form, &*self.shared.codec).map_err(|source| CacheError::corrupt(&entry.key, source))
    }

    /// The revision of the newest change of the resource that the state holds: it grows with changes only, never with progress.
    pub fn newest_change(&self) -> u64 {
        self.shared.state.read().ring.newest()
    }

    /// What the cache costs.
    pub fn stats(&self) -> CacheStats {
        let state = self.shared.state.read();
        CacheStats {
            objects: state.image.entries.len(),
            ring_batches: state.ring.len(),
            ring_bytes: state.ring.bytes(),
            watchers: self.shared.watchers.lock().len(),
            revision: *self.shared.reached.borrow(),
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
        self.shared.close();
    }
}
