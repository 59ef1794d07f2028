//! The one task that keeps a cache's state: a list, then the watch behind it, and again when that ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;

use super::entry::{Attributes, Entry};
use super::ring::{Batch, Change, Ring};
use super::{CacheConfig, CacheError, Hold, Shared};
use crate::cow_map::{CowMap, Ordered};
use crate::store::{Event, KeyValue, ListRequest, StoreError, WatchItem};

/// Keys per page of the first list.
/// upstream: apiserver/pkg/storage/cacher/cacher.go storageWatchListPageSize
const FILL_PAGE: usize = 10_000;
/// After so many objects the task lets others run.
const FILL_YIELD: usize = 256;
/// Pauses between attempts to fill.
const FILL_BACKOFF_MIN: Duration = Duration::from_millis(50);
const FILL_BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Every object and the indexes over them: copied at once, so that a reader keeps it without holding anybody up.
#[derive(Clone)]
pub(super) struct Image {
    pub(super) entries: CowMap<Arc<Entry>>,
    /// One per indexed field, in the order of the configuration.
    pub(super) indexes: Box<[CowMap<Indexed>]>,
}

/// An entry under the value of one of its fields.
#[derive(Clone)]
pub(super) struct Indexed {
    order: Bytes,
    pub(super) entry: Arc<Entry>,
}

impl Ordered for Indexed {
    fn order(&self) -> &[u8] {
        &self.order
    }
}

/// Where the entries with `value` stand in an index: in front of a key.
pub(super) fn index_prefix(value: &str) -> Vec<u8> {
    // Field values are text without NUL; one with NUL would be found by its filter only.
    let mut prefix = Vec::with_capacity(value.len() + 1);
    prefix.extend_from_slice(value.as_bytes());
    prefix.push(0);
    prefix
}

fn index_order(attributes: &Attributes, field: usize, key: &[u8]) -> Bytes {
    let mut order = index_prefix(attributes.fields.get(field).map_or("", |value| value));
    order.extend_from_slice(key);
    order.into()
}

impl Image {
    fn empty(config: &CacheConfig) -> Self {
        Self {
            entries: CowMap::default(),
            indexes: config.indexes.iter().map(|_| CowMap::default()).collect(),
        }
    }

    /// Makes one change; returns what stood there before.
    fn change(&mut self, config: &CacheConfig, change: &Change) {
        let before = match &change.current {
            Some(entry) => self.entries.insert(entry.clone()),
            None => self.entries.remove(&change.key),
        };
        for (&field, index) in config.indexes.iter().zip(&mut self.indexes) {
            let old = before.as_ref().map(|entry| index_order(&entry.attributes, field, &entry.key));
            let new = change.current.as_ref().map(|entry| index_order(&entry.attributes, field, &entry.key));
            if let Some(old) = old.filter(|old| Some(old) != new.as_ref()) {
                index.remove(&old);
            }
            if let (Some(order), Some(entry)) = (new, &change.current) {
                index.insert(Indexed { order, entry: entry.clone() });
            }
        }
    }
}

/// What the task writes and readers read.
pub(super) struct State {
    pub(super) image: Image,
    pub(super) ring: Ring,
    /// Everything up to here is in `image` and `ring`.
    pub(super) revision: u64,
    /// There is a state at all.
    pub(super) ready: bool,
}

impl State {
    pub(super) fn empty(config: &CacheConfig) -> Self {
        Self { image: Image::empty(config), ring: Ring::new(0, config.ring), revision: 0, ready: false }
    }
}

/// Runs until it is aborted.
pub(super) async fn follow(shared: Arc<Shared>) {
    let mut backoff = FILL_BACKOFF_MIN;
    loop {
        let (was_ready, error) = match shared.fill().await {
            Ok(revision) => (true, shared.apply_all(revision).await),
            Err(error) => (false, error),
        };
        shared.close();
        tracing::warn!(resource = %shared.config.resource, %error, "watch cache has to be filled again");
        backoff = if was_ready { FILL_BACKOFF_MIN } else { (backoff * 2).min(FILL_BACKOFF_MAX) };
        // Spread out: the caches of all resources lose their store at the same moment.
        let pause = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
        tokio::time::sleep(pause).await;
    }
}

impl Shared {
    /// Reads the whole resource at one revision and makes it the state.
    async fn fill(&self) -> Result<u64, CacheError> {
        let mut entries = Vec::new();
        let revision = match self.config.hold {
            Hold::Changes => self.store.current_revision().await?,
            Hold::State => self.fill_entries(&mut entries).await?,
        };
        let mut image = Image::empty(&self.config);
        for (position, &field) in self.config.indexes.iter().enumerate() {
            let mut index: Vec<_> = entries
                .iter()
                .map(|entry: &Arc<Entry>| Indexed {
                    order: index_order(&entry.attributes, field, &entry.key),
                    entry: entry.clone(),
                })
                .collect();
            index.sort_unstable_by(|a, b| a.order.cmp(&b.order));
            image.indexes[position] = CowMap::from_sorted(index);
        }
        image.entries = CowMap::from_sorted(entries);
        let objects = image.entries.len();
        *self.state.write() =
            State { image, ring: Ring::new(revision, self.config.ring), revision, ready: true };
        self.reached.send_replace(revision);
        tracing::debug!(resource = %self.config.resource, revision, objects, "watch cache is filled");
        Ok(revision)
    }

    async fn fill_entries(&self, entries: &mut Vec<Arc<Entry>>) -> Result<u64, CacheError> {
        let mut request = ListRequest::prefix(self.config.prefix.clone()).limit(FILL_PAGE);
        loop {
            let page = self.store.list(request.clone()).await?;
            for (at, kv) in page.kvs.into_iter().enumerate() {
                entries.push(self.entry(kv)?);
                if at % FILL_YIELD == FILL_YIELD - 1 {
                    tokio::task::yield_now().await;
                }
            }
            match entries.last() {
                Some(last) if page.more => request = request.after(&last.key).at(page.revision),
                _ => return Ok(page.revision),
            }
        }
    }

    /// Applies what the store shows behind `revision` until that ends, and returns why.
    async fn apply_all(&self, revision: u64) -> CacheError {
        let mut stream = match self.store.watch(&self.config.prefix, revision).await {
            Ok(stream) => stream,
            Err(error) => return error.into(),
        };
        while let Some(item) = stream.next().await {
            let applied = match item {
                Ok(WatchItem::Events { revision, events }) => self.apply(revision, &events),
                Ok(WatchItem::Progress { revision }) => {
                    self.progress(revision);
                    Ok(())
                }
                Err(error) => Err(error.into()),
            };
            if let Err(error) = applied {
                return error;
            }
        }
        StoreError::Unavailable("the watch ended".into()).into()
    }

    /// Makes all changes of one revision visible at once.
    fn apply(&self, revision: u64, events: &[Event]) -> Result<(), CacheError> {
        let changes = events.iter().map(|event| self.change(event)).collect::<Result<Vec<_>, _>>()?;
        // A deletion of what was never seen changes nothing; neither does an object made and gone within a compaction.
        let changes: Vec<_> =
            changes.into_iter().filter(|c| c.current.is_some() || c.previous.is_some()).collect();
        if changes.is_empty() {
            self.progress(revision);
            return Ok(());
        }
        let batch = Batch::new(revision, changes);
        {
            let mut state = self.state.write();
            if self.config.hold == Hold::State {
                for change in &batch.changes {
                    state.image.change(&self.config, change);
                }
            }
            state.ring.push(batch.clone());
            state.revision = revision;
        }
        self.watchers.lock().raise(&batch);
        // Only now may a bookmark speak of this revision.
        self.reached.send_replace(revision);
        self.kept.lock().expire();
        Ok(())
    }

    /// Everything up to `revision` has been applied, without a change.
    fn progress(&self, revision: u64) {
        {
            let mut state = self.state.write();
            state.revision = state.revision.max(revision);
            state.ring.trim();
        }
        self.reached.send_if_modified(|reached| {
            let higher = revision > *reached;
            *reached = revision.max(*reached);
            higher
        });
        self.kept.lock().expire();
    }

    fn change(&self, event: &Event) -> Result<Change, CacheError> {
        let current = event.kv.clone().map(|kv| self.entry(kv)).transpose()?;
        let previous = match self.config.hold {
            // The state is the authority: the store may have compacted the value before.
            Hold::State => self.state.read().image.entries.get(&event.key).cloned(),
            Hold::Changes => event.prev.clone().map(|kv| self.entry(kv)).transpose()?,
        };
        Ok(Change::new(event.key.clone(), current, previous))
    }

    /// Makes an entry of what the store has.
    pub(super) fn entry(&self, kv: KeyValue) -> Result<Arc<Entry>, CacheError> {
        let attributes = self
            .codec
            .attributes(&kv.key, &kv.value)
            .map_err(|source| CacheError::corrupt(&kv.key, source))?;
        Ok(Entry::new(
            kv.key,
            kv.mod_revision,
            kv.create_revision,
            kv.value,
            Arc::new(attributes),
            self.budget.clone(),
        ))
    }

    /// Leaves the state: nothing is served from it any more and all watches end.
    pub(super) fn close(&self) {
        *self.state.write() = State::empty(&self.config);
        self.reached.send_replace(0);
        self.watchers.lock().close_all();
        self.kept.lock().clear();
    }
}
