//! What the embedded store holds in memory: every key's newest value, the versions behind it that history still has, and
//! the newest changes for its watches.
//!
//! Values of older versions stay on disk. The newest ones are the bytes that the watch cache holds, too (shared by
//! reference count), so they cost nothing twice and a read never waits for the disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::cow_map::{CowMap, Ordered};
use crate::store::{Event, KeyValue, StoreError};

/// Bytes of the newest changes kept for watches; who is further behind reads the log on disk.
const RECENT_BYTES_MAX: usize = 4 << 20;
/// And their number.
const RECENT_MAX: usize = 4096;

/// The newest value of a key.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) kv: KeyValue,
    /// When it goes away by itself; 0: never.
    pub(super) deadline_ms: u64,
}

impl Ordered for Arc<Live> {
    fn order(&self) -> &[u8] {
        &self.kv.key
    }
}

/// A version of a key that a newer one has replaced. Its value is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Old {
    pub(super) revision: u64,
    pub(super) create_revision: u64,
    pub(super) version: u64,
    pub(super) deleted: bool,
}

/// A row of the log that is needed only by readers below `superseded_at`.
#[derive(Clone, Debug)]
pub(super) struct Garbage {
    pub(super) superseded_at: u64,
    pub(super) revision: u64,
    pub(super) key: Bytes,
}

/// A change as the log has it.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) key: Bytes,
    /// `None`: deleted.
    pub(super) live: Option<Arc<Live>>,
}

/// See the module.
pub(super) struct State {
    pub(super) live: CowMap<Arc<Live>>,
    /// Versions behind the newest one, and deletions, in rising order per key.
    old: BTreeMap<Bytes, VecDeque<Old>>,
    /// In rising order of `superseded_at`.
    garbage: VecDeque<Garbage>,
    pub(super) revision: u64,
    pub(super) compacted: u64,
    recent: VecDeque<(u64, Arc<[Event]>)>,
    recent_bytes: usize,
    /// The highest revision that is not in `recent`.
    recent_floor: u64,
}

/// Where to find a key's value at some revision.
pub(super) enum Pick {
    Live(Arc<Live>),
    Row(Bytes, Old),
}

impl Pick {
    pub(super) fn key(&self) -> &Bytes {
        match self {
            Self::Live(live) => &live.kv.key,
            Self::Row(key, _) => key,
        }
    }
}

impl State {
    /// A store in which nothing has been written: etcd's, too, stands at 1.
    pub(super) fn empty() -> Self {
        Self {
            live: CowMap::default(),
            old: BTreeMap::new(),
            garbage: VecDeque::new(),
            revision: 1,
            compacted: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            recent_floor: 1,
        }
    }

    /// Takes a change of the log, in order of revision. With `previous` it returns what was there before.
    pub(super) fn apply(&mut self, change: &Change) -> Option<Arc<Live>> {
        debug_assert!(change.revision > self.revision);
        self.revision = change.revision;
        let previous = match &change.live {
            Some(live) => self.live.insert(live.clone()),
            None => self.live.remove(&change.key),
        };
        if let Some(previous) = &previous {
            let KeyValue { key, create_revision, mod_revision, version, .. } = &previous.kv;
            let (revision, create_revision, version) = (*mod_revision, *create_revision, *version);
            self.supersede(
                key.clone(),
                Old { revision, create_revision, version, deleted: false },
                change.revision,
            );
        }
        if change.live.is_none() {
            let deletion = Old { revision: change.revision, create_revision: 0, version: 0, deleted: true };
            self.supersede(change.key.clone(), deletion, change.revision);
        }
        previous
    }

    fn supersede(&mut self, key: Bytes, old: Old, superseded_at: u64) {
        self.old.entry(key.clone()).or_default().push_back(old);
        self.garbage.push_back(Garbage { superseded_at, revision: old.revision, key });
    }

    /// Keeps a change for the watches.
    pub(super) fn push_recent(&mut self, revision: u64, event: Event) {
        self.recent_bytes += recent_bytes(&event);
        self.recent.push_back((revision, Arc::new([event])));
        while self.recent.len() > 1
            && (self.recent_bytes > RECENT_BYTES_MAX || self.recent.len() > RECENT_MAX)
            && let Some((revision, events)) = self.recent.pop_front()
        {
            self.recent_bytes -= events.iter().map(recent_bytes).sum::<usize>();
            self.recent_floor = revision;
        }
    }

    /// Nothing below has been kept for watches.
    pub(super) fn forget_recent(&mut self) {
        self.recent.clear();
        self.recent_bytes = 0;
        self.recent_floor = self.revision;
    }

    pub(super) fn recent_floor(&self) -> u64 {
        self.recent_floor
    }

    /// The kept changes behind `after`.
    pub(super) fn recent_after(&self, after: u64) -> impl Iterator<Item = &(u64, Arc<[Event]>)> {
        let from = self.recent.partition_point(|(revision, _)| *revision <= after);
        self.recent.range(from..)
    }

    /// Whether a read at `revision` is possible.
    pub(super) fn check(&self, revision: u64) -> Result<(), StoreError> {
        if revision < self.compacted {
            return Err(StoreError::Compacted { requested: revision, compacted: self.compacted });
        }
        if revision > self.revision {
            return Err(StoreError::FutureRevision { requested: revision, current: self.revision });
        }
        Ok(())
    }

    /// The version of a key that a read at `revision` sees, among those that were replaced.
    pub(super) fn old_at(&self, key: &[u8], revision: u64) -> Option<Old> {
        let versions = self.old.get(key)?;
        let behind = versions.partition_point(|old| old.revision <= revision);
        versions.get(behind.checked_sub(1)?).copied()
    }

    /// The keys that a list at `revision` sees, in order.
    pub(super) fn pick(&self, prefix: &[u8], start: &[u8], revision: u64) -> Vec<Pick> {
        let mut picks: Vec<_> = self
            .live
            .range(prefix, start)
            .filter(|live| live.kv.mod_revision <= revision)
            .map(|live| Pick::Live(live.clone()))
            .collect();
        let from = Bytes::copy_from_slice(prefix.max(start));
        let replaced = self.old.range(from..).take_while(|(key, _)| key.starts_with(prefix));
        for (key, _) in replaced {
            let is_newest = self.live.get(key).is_some_and(|live| live.kv.mod_revision <= revision);
            if !is_newest && let Some(old) = self.old_at(key, revision).filter(|old| !old.deleted) {
                picks.push(Pick::Row(key.clone(), old));
            }
        }
        // Two sorted runs.
        picks.sort_by(|a, b| a.key().cmp(b.key()));
        picks
    }

    /// Up to `limit` rows that nobody needs any more once history begins at `compacted`.
    pub(super) fn garbage(&self, compacted: u64, limit: usize) -> Vec<Garbage> {
        // The change of `compacted` itself stays whole: a watch may start with it.
        self.garbage.iter().take_while(|g| g.superseded_at < compacted).take(limit).cloned().collect()
    }

    /// Forgets rows that have been removed from the log.
    pub(super) fn forget(&mut self, garbage: &[Garbage]) {
        for removed in garbage {
            let first = self.garbage.pop_front();
            debug_assert_eq!(first.map(|g| g.revision), Some(removed.revision));
            if let Some(versions) = self.old.get_mut(&removed.key) {
                versions.retain(|old| old.revision != removed.revision);
                if versions.is_empty() {
                    self.old.remove(&removed.key);
                }
            }
        }
    }
}

fn recent_bytes(event: &Event) -> usize {
    // The new value is the state's as long as it is the newest.
    let bytes = |kv: &Option<KeyValue>| kv.as_ref().map_or(0, |kv| kv.value.len());
    256 + event.key.len() + bytes(&event.prev).max(bytes(&event.kv))
}
