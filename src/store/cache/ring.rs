//! The newest changes of one resource, for watches that start in the past or stay behind.
//!
//! Invariants: revisions strictly increase; every change behind `floor` is there; bytes and number are bounded by
//! [`RingLimits`], and so is age as soon as there are more than a few.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::entry::Entry;

/// One change of one object.
pub(crate) struct Change {
    pub(crate) key: Bytes,
    /// `None`: deleted.
    pub(crate) current: Option<Arc<Entry>>,
    /// `None`: created.
    pub(crate) previous: Option<Arc<Entry>>,
    gone: OnceLock<Arc<Entry>>,
}

impl Change {
    pub(crate) fn new(key: Bytes, current: Option<Arc<Entry>>, previous: Option<Arc<Entry>>) -> Self {
        Self { key, current, previous, gone: OnceLock::new() }
    }

    /// What those are shown whose selection the object left by this change: its content before, at the revision of the
    /// change. Made once and shared, so that its body is, too.
    /// upstream: apiserver/pkg/storage/cacher/cache_watcher.go convertToWatchEvent
    pub(crate) fn gone(&self, revision: u64) -> Option<&Arc<Entry>> {
        let previous = self.previous.as_ref()?;
        Some(self.gone.get_or_init(|| previous.gone_at(revision)))
    }
}

/// All changes of one revision.
pub(crate) struct Batch {
    pub(crate) revision: u64,
    pub(crate) changes: Box<[Change]>,
    bytes: usize,
    applied: Instant,
}

impl Batch {
    pub(crate) fn new(revision: u64, changes: Vec<Change>) -> Arc<Self> {
        // The current entry is the map's until the next change makes it this batch's alone, so both count.
        let entry = |entry: &Option<Arc<Entry>>| entry.as_ref().map_or(0, |e| e.stored.len() + ENTRY_BYTES);
        let bytes = changes.iter().map(|c| entry(&c.previous).max(entry(&c.current)) + CHANGE_BYTES).sum();
        Arc::new(Self { revision, changes: changes.into(), bytes, applied: Instant::now() })
    }
}

/// About what an entry takes beyond its stored bytes.
const ENTRY_BYTES: usize = 400;
/// About what a change takes beyond its entries.
const CHANGE_BYTES: usize = 160;

/// The bounds of a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    /// Bytes of all changes together: 5,000 changes of a pod of 3 KB.
    pub bytes_max: usize,
    /// Number of revisions.
    pub batches_max: usize,
    /// So many are kept whatever their age: the watches of a quiet resource can resume for days.
    pub batches_min: usize,
    /// Older ones beyond `batches_min` are let go: a client that was away for longer lists anew. Bookmarks come each minute.
    pub age_max: Duration,
}

impl Default for RingLimits {
    fn default() -> Self {
        // upstream: apiserver/pkg/storage/cacher/watch_cache.go defaultLowerBoundCapacity, defaultUpperBoundCapacity;
        // storagebackend/config.go DefaultEventsHistoryWindow
        Self {
            bytes_max: 16 << 20,
            batches_max: 100 * 1024,
            batches_min: 100,
            age_max: Duration::from_secs(75),
        }
    }
}

/// See the module.
pub(crate) struct Ring {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    /// The highest revision of which changes are missing: that of the first list, or of the newest batch let go.
    floor: u64,
    limits: RingLimits,
}

impl Ring {
    /// An empty ring that goes on from `floor`.
    pub(crate) fn new(floor: u64, limits: RingLimits) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, floor, limits }
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// The newest revision at which this resource changed, as far as the ring knows.
    pub(crate) fn newest(&self) -> u64 {
        self.batches.back().map_or(self.floor, |batch| batch.revision)
    }

    pub(crate) fn push(&mut self, batch: Arc<Batch>) {
        debug_assert!(batch.revision > self.newest());
        self.bytes += batch.bytes;
        self.batches.push_back(batch);
        self.trim();
    }

    /// Lets go of what is over the limits.
    pub(crate) fn trim(&mut self) {
        while let Some(oldest) = self.batches.front() {
            let over = self.bytes > self.limits.bytes_max || self.batches.len() > self.limits.batches_max;
            let old = self.batches.len() > self.limits.batches_min
                && oldest.applied.elapsed() > self.limits.age_max;
            // The newest stays, however large: it must be delivered once.
            if self.batches.len() == 1 || !(over || old) {
                break;
            }
            self.bytes -= oldest.bytes;
            self.floor = oldest.revision;
            self.batches.pop_front();
        }
    }

    /// The batches behind `after`, at most `limit`, and whether there are more.
    pub(crate) fn after(&self, after: u64, limit: usize) -> (Vec<Arc<Batch>>, bool) {
        let from = self.batches.partition_point(|batch| batch.revision <= after);
        let to = self.batches.len().min(from.saturating_add(limit));
        (self.batches.range(from..to).cloned().collect(), to < self.batches.len())
    }

    /// The first revision behind `after` at which something changed.
    pub(crate) fn next(&self, after: u64) -> Option<u64> {
        let at = self.batches.partition_point(|batch| batch.revision <= after);
        self.batches.get(at).map(|batch| batch.revision)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::entry::BodyBudget;

    fn batch(revision: u64, bytes: usize) -> Arc<Batch> {
        let entry =
            Entry::new("k".into(), revision, 1, vec![0; bytes].into(), Arc::default(), BodyBudget::new(0));
        Batch::new(revision, vec![Change::new("k".into(), Some(entry), None)])
    }

    fn revisions(ring: &Ring, after: u64) -> Vec<u64> {
        ring.after(after, usize::MAX).0.iter().map(|batch| batch.revision).collect()
    }

    #[test]
    fn bounds_hold_and_the_floor_tells_what_is_missing() {
        let limits = RingLimits { bytes_max: 10_000, batches_max: 5, ..RingLimits::default() };
        let mut ring = Ring::new(7, limits);
        assert_eq!((ring.floor(), ring.newest()), (7, 7));
        for revision in [10, 12, 13, 20, 21, 22, 23] {
            ring.push(batch(revision, 10));
        }
        assert_eq!((ring.floor(), revisions(&ring, 0)), (12, vec![13, 20, 21, 22, 23]), "by number");
        assert_eq!(revisions(&ring, 20), [21, 22, 23]);
        assert_eq!((ring.next(13), ring.next(14), ring.next(23)), (Some(20), Some(20), None));
        ring.push(batch(24, 6_000));
        ring.push(batch(25, 6_000));
        assert_eq!((ring.floor(), revisions(&ring, 0)), (24, vec![25]), "by bytes");
        ring.push(batch(26, 60_000));
        assert_eq!(revisions(&ring, 0), [26], "the newest stays");
        assert!(ring.bytes() > 60_000);
    }

    #[tokio::test(start_paused = true)]
    async fn old_batches_go_but_a_few_stay() {
        let limits = RingLimits { batches_min: 2, ..RingLimits::default() };
        let mut ring = Ring::new(0, limits);
        (1..=4).for_each(|revision| ring.push(batch(revision, 10)));
        tokio::time::advance(limits.age_max + Duration::from_secs(1)).await;
        ring.trim();
        assert_eq!(revisions(&ring, 0), [3, 4]);
    }
}
