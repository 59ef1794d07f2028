//! Gets and lists: which revision a reader accepts, and whether the state, a kept page or the store answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use compact_str::CompactString;
use tokio::time::Instant;

use super::entry::Entry;
use super::follow::{Image, index_prefix};
use super::{Cache, CacheError, Filter, Hold, Scope, Shared};
use crate::store::{ListDetail, ListRequest, ListResult};

/// How long a read waits for a revision.
/// upstream: apiserver/pkg/storage/cacher/watch_cache.go blockTimeout
const REACH_TIMEOUT: Duration = Duration::from_secs(3);
/// How often progress is asked for while somebody waits. The first time is at once.
/// upstream: apiserver/pkg/storage/cacher/progress/watch_progress.go progressRequestPeriod
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// How long the state behind a page is kept for the pages after it.
const KEPT_FOR: Duration = Duration::from_secs(120);
/// States kept at most per resource. Each costs what has changed since; beyond that pages come from the store.
const KEPT_MAX: usize = 16;

/// The first page asked from the store when a filter may drop most of it.
const THROUGH_PAGE_MIN: usize = 500;
/// The last one.
/// upstream: apiserver/pkg/storage/etcd3/store.go maxLimit
const THROUGH_PAGE_MAX: usize = 10_000;

/// The revision that a reader accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAt {
    /// The newest state: every write acknowledged before is in it (`resourceVersion` unset).
    Latest,
    /// What is at hand (`resourceVersion=0`).
    Any,
    /// This revision or a later one (`NotOlderThan`).
    AtLeast(u64),
    /// Exactly this one (`Exact`, and every page after the first).
    Exactly(u64),
}

/// Answer of [`Cache::get`].
#[derive(Clone, Debug)]
pub struct Got {
    /// The object, if it exists.
    pub entry: Option<Arc<Entry>>,
    /// The revision at which it was looked up.
    pub revision: u64,
}

/// What [`Cache::list`] shall read.
#[derive(Clone)]
pub struct ListQuery {
    /// Which objects.
    pub scope: Scope,
    /// The first key wanted, inclusive; empty: from the beginning.
    pub start: Bytes,
    /// At most so many objects that pass the filter; 0: all.
    pub limit: usize,
    /// At which revision.
    pub at: ReadAt,
    /// Which of them; `None`: all.
    pub filter: Option<Filter>,
    /// The filter only passes objects with this value in this selectable field. A hint: an index is used if there is one.
    pub field: Option<(usize, CompactString)>,
}

impl ListQuery {
    /// All objects of a scope.
    pub fn new(scope: Scope, at: ReadAt) -> Self {
        Self { scope, start: Bytes::new(), limit: 0, at, filter: None, field: None }
    }

    fn passes(&self, entry: &Entry) -> bool {
        self.scope.contains(&entry.key) && self.filter.as_ref().is_none_or(|filter| filter(&entry.attributes))
    }
}

/// Answer of [`Cache::list`].
#[derive(Clone, Debug)]
pub struct Listing {
    /// In order of their keys.
    pub entries: Vec<Arc<Entry>>,
    /// The revision of this state. A watch from it and the pages after this one see the same history.
    pub revision: u64,
    /// Objects may remain: the next page starts behind the last entry's key.
    pub more: bool,
    /// How many remain; known only where no filter decides.
    pub remaining: Option<u64>,
}

impl Cache {
    /// One object by key.
    pub async fn get(&self, key: &[u8], at: ReadAt) -> Result<Got, CacheError> {
        let held = self.shared.config.hold == Hold::State;
        match at {
            ReadAt::Any if !held || !self.is_ready() => self.get_through(key, 0).await,
            ReadAt::Latest => self.get_through(key, 0).await,
            ReadAt::AtLeast(revision) if !held => self.get_through(key, revision).await,
            ReadAt::Any | ReadAt::AtLeast(_) => {
                self.freshen(at).await?;
                let state = self.shared.state.read();
                if !state.ready {
                    return Err(CacheError::NotReady);
                }
                Ok(Got { entry: state.image.entries.get(key).cloned(), revision: state.revision })
            }
            ReadAt::Exactly(_) => {
                let mut query = ListQuery::new(Scope::Key(Bytes::copy_from_slice(key)), at);
                query.limit = 1;
                let listing = self.list(query).await?;
                Ok(Got { entry: listing.entries.into_iter().next(), revision: listing.revision })
            }
        }
    }

    /// The objects of a scope.
    pub async fn list(&self, query: ListQuery) -> Result<Listing, CacheError> {
        let through = self.shared.config.hold == Hold::Changes
            || (query.at == ReadAt::Latest && !self.shared.store.progress_supported());
        if through {
            return self.list_through(&query).await;
        }
        match query.at {
            ReadAt::Exactly(revision) => match self.image_at(revision).await? {
                Some(held) => {
                    self.remembers(revision).await?;
                    Ok(self.select(&held, revision, &query))
                }
                None => self.list_through(&query).await,
            },
            at => match self.freshen(at).await {
                // The store's watch is late; the store itself is not.
                // upstream: apiserver/pkg/storage/cacher/delegator.go GetList
                Err(CacheError::TooLarge { .. }) if at == ReadAt::Latest => self.list_through(&query).await,
                Err(error) => Err(error),
                Ok(_) => {
                    let (held, revision) = self.image_now()?;
                    Ok(self.select(&held, revision, &query))
                }
            },
        }
    }

    /// Waits until the state is as new as asked; tells the revision that was needed.
    pub(super) async fn freshen(&self, at: ReadAt) -> Result<u64, CacheError> {
        self.start();
        let needed = match at {
            ReadAt::Any => 1,
            ReadAt::AtLeast(revision) | ReadAt::Exactly(revision) => revision.max(1),
            ReadAt::Latest => self.shared.store.current_revision().await?,
        };
        self.shared.reach(needed).await?;
        Ok(needed)
    }

    fn image_now(&self) -> Result<(Held, u64), CacheError> {
        let state = self.shared.state.read();
        if !state.ready {
            return Err(CacheError::NotReady);
        }
        Ok((Held { image: state.image.clone(), from: state.ring.newest() }, state.revision))
    }

    /// The state at exactly `revision`, if it is held: it is the newest, nothing has changed since, or it was kept.
    async fn image_at(&self, revision: u64) -> Result<Option<Held>, CacheError> {
        self.freshen(ReadAt::Exactly(revision)).await?;
        {
            let state = self.shared.state.read();
            if state.ready && (state.ring.newest()..=state.revision).contains(&revision) {
                return Ok(Some(Held { image: state.image.clone(), from: state.ring.newest() }));
            }
        }
        Ok(self.shared.kept.lock().find(revision))
    }

    /// Fails when the store has compacted `revision` away. A state that nothing has changed since could be shown for
    /// ever, but clients count on tokens that expire, and all servers of one store have to agree on which have.
    /// upstream: apiserver/pkg/storage/cacher/watch_cache.go Compact
    async fn remembers(&self, revision: u64) -> Result<(), CacheError> {
        let request = ListRequest::prefix(self.shared.config.prefix.clone()).limit(1).at(revision);
        self.shared.store.list(request.detail(ListDetail::KeysOnly)).await?;
        Ok(())
    }

    /// What a query selects from a state.
    fn select(&self, held: &Held, revision: u64, query: &ListQuery) -> Listing {
        let image = &held.image;
        let prefix = query.scope.prefix(&self.shared.config.prefix);
        let (entries, more) = match self.index_of(image, query) {
            Some((index, value)) => {
                let value = index_prefix(&value);
                let (prefix, start) = ([&value[..], prefix].concat(), [&value[..], &query.start].concat());
                take(index.range(&prefix, &start).map(|indexed| &indexed.entry), query)
            }
            None => take(image.entries.range(prefix, &query.start), query),
        };
        let mut remaining = None;
        if let Some(last) = entries.last().filter(|_| more) {
            self.shared.kept.lock().keep(held.from, revision, image);
            if query.filter.is_none() && matches!(query.scope, Scope::Resource | Scope::Folder(_)) {
                // The last entry itself is counted, too.
                remaining = Some(image.entries.count(prefix, &last.key) as u64 - 1);
            }
        }
        Listing { entries, revision, more, remaining }
    }

    fn index_of<'a>(
        &self,
        image: &'a Image,
        query: &ListQuery,
    ) -> Option<(&'a crate::cow_map::CowMap<super::follow::Indexed>, CompactString)> {
        let (field, value) = query.field.clone()?;
        let position = self.shared.config.indexes.iter().position(|&indexed| indexed == field)?;
        Some((&image.indexes[position], value))
    }

    /// One object from the store, as the entry that the state already has of it if that is current.
    async fn get_through(&self, key: &[u8], at_least: u64) -> Result<Got, CacheError> {
        let got = self.shared.store.get(key).await?;
        if got.revision < at_least {
            return Err(CacheError::TooLarge { asked: at_least, current: got.revision });
        }
        let entry = got.kv.map(|kv| self.shared.entry_of(kv)).transpose()?;
        Ok(Got { entry, revision: got.revision })
    }

    /// A list from the store, page by page until the limit is filled.
    /// upstream: apiserver/pkg/storage/etcd3/store.go GetList
    async fn list_through(&self, query: &ListQuery) -> Result<Listing, CacheError> {
        let mut request = ListRequest::prefix(query.scope.prefix(&self.shared.config.prefix).clone())
            .limit(self.first_page(query));
        request.start = query.start.clone();
        if let ReadAt::Exactly(revision) = query.at {
            request = request.at(revision);
        }
        let mut listing = Listing { entries: Vec::new(), revision: 0, more: false, remaining: None };
        loop {
            let page = self.shared.store.list(request.clone()).await?;
            listing.revision = page.revision;
            if let ReadAt::AtLeast(asked) = query.at
                && page.revision < asked
            {
                return Err(CacheError::TooLarge { asked, current: page.revision });
            }
            let last_key = page.kvs.last().map(|kv| kv.key.clone());
            let page_more = page.more;
            if self.take_page(page, query, &mut listing)? {
                return Ok(listing);
            }
            match last_key.filter(|_| page_more) {
                Some(last_key) => request = request.after(&last_key).at(listing.revision),
                None => return Ok(listing),
            }
            request.limit = (request.limit * 2).min(THROUGH_PAGE_MAX);
        }
    }

    fn first_page(&self, query: &ListQuery) -> usize {
        match (&query.scope, query.limit) {
            (Scope::Key(_), _) => 1,
            (_, 0) => THROUGH_PAGE_MAX,
            (_, limit) if query.filter.is_none() => limit,
            (_, limit) => limit.max(THROUGH_PAGE_MIN),
        }
    }

    /// Takes what the query wants of a page; true: nothing more is wanted.
    fn take_page(
        &self,
        page: ListResult,
        query: &ListQuery,
        listing: &mut Listing,
    ) -> Result<bool, CacheError> {
        let pairs = page.kvs.len() as u64;
        for (at, kv) in page.kvs.into_iter().enumerate() {
            let entry = self.shared.entry_of(kv)?;
            if query.passes(&entry) {
                listing.entries.push(entry);
            }
            if query.limit > 0 && listing.entries.len() == query.limit {
                let left = page.count - (at as u64 + 1);
                listing.more = left > 0 && !matches!(query.scope, Scope::Key(_));
                listing.remaining = (listing.more && query.filter.is_none()).then_some(left);
                return Ok(true);
            }
        }
        // The key that was wanted sorts first; whatever follows is another object.
        Ok(matches!(query.scope, Scope::Key(_)) || pairs == 0)
    }
}

/// What a query wants of entries in order, and whether something of its scope is left: that the filter would drop it is
/// not looked at, so the last page may be empty.
/// upstream: apiserver/pkg/storage/cacher/cacher.go GetList
fn take<'a>(entries: impl Iterator<Item = &'a Arc<Entry>>, query: &ListQuery) -> (Vec<Arc<Entry>>, bool) {
    let mut taken = Vec::new();
    let mut entries = entries.filter(|entry| query.scope.contains(&entry.key));
    for entry in entries.by_ref() {
        if query.filter.as_ref().is_none_or(|filter| filter(&entry.attributes)) {
            taken.push(entry.clone());
        }
        if query.limit > 0 && taken.len() == query.limit {
            return (taken, entries.next().is_some());
        }
    }
    (taken, false)
}

impl Shared {
    /// Waits until everything up to `needed` is applied.
    pub(super) async fn reach(&self, needed: u64) -> Result<(), CacheError> {
        let mut reached = self.reached.subscribe();
        let deadline = Instant::now() + REACH_TIMEOUT;
        loop {
            let current = *reached.borrow_and_update();
            if current >= needed {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(match current {
                    0 => CacheError::NotReady,
                    _ => CacheError::TooLarge { asked: needed, current },
                });
            }
            if current > 0 {
                // A request that fails is repeated, like one that the store could not answer.
                if let Err(error) = self.store.request_progress(&self.config.prefix).await {
                    tracing::debug!(resource = %self.config.resource, %error, "progress could not be asked for");
                }
            }
            let pause = PROGRESS_PERIOD.min(deadline.saturating_duration_since(Instant::now()));
            // Err: the time is over, look again. The sender lives as long as `self`.
            let _ = tokio::time::timeout(pause, reached.changed()).await;
        }
    }

    /// The state's own entry if it is of the same revision, so that its bodies are shared.
    fn entry_of(&self, kv: crate::store::KeyValue) -> Result<Arc<Entry>, CacheError> {
        let held =
            self.state.read().image.entries.get(&kv.key).filter(|e| e.revision == kv.mod_revision).cloned();
        held.map_or_else(|| self.entry(kv), Ok)
    }
}

/// A state, and since when it has been the same.
///
/// Both are taken under one lock: a state that is refilled in between would lend its age to another's content.
struct Held {
    image: Image,
    /// The lowest revision at which the state was this one, as far as is known.
    from: u64,
}

/// The states behind lists that were cut by a limit, for the pages that follow.
#[derive(Default)]
pub(super) struct KeptPages(VecDeque<KeptPage>);

struct KeptPage {
    /// The state was this one at each revision of the range.
    from: u64,
    to: u64,
    image: Image,
    kept: Instant,
}

impl KeptPages {
    fn keep(&mut self, from: u64, to: u64, image: &Image) {
        if self.find(to).is_some() {
            return;
        }
        if self.0.len() == KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(KeptPage { from, to, image: image.clone(), kept: Instant::now() });
    }

    fn find(&self, revision: u64) -> Option<Held> {
        let page = self.0.iter().find(|page| (page.from..=page.to).contains(&revision))?;
        Some(Held { image: page.image.clone(), from: page.from })
    }

    /// Lets go of what is too old; called with each change.
    pub(super) fn expire(&mut self) {
        while self.0.front().is_some_and(|page| page.kept.elapsed() > KEPT_FOR) {
            self.0.pop_front();
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
