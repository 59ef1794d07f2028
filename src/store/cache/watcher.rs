//! One client's watch: the state it starts from, the changes behind it, bookmarks.
//!
//! A watcher reads the ring at its own pace. It holds no queue beyond the few events it is about to hand out; what it has
//! missed while it was not looking is in the ring or the watch ends.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use compact_str::CompactString;
use tokio::time::{Instant, Sleep};

use super::entry::Entry;
use super::follow::Image;
use super::read::ReadAt;
use super::ring::{Batch, Change};
use super::watchers::Bucket;
use super::{Cache, CacheError, Filter, Hold, Scope, Shared};
use crate::signal::Signal;
use crate::store::ListRequest;

/// Bookmarks come about so often.
/// upstream: apiserver/pkg/storage/cacher/cacher.go defaultBookmarkFrequency
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// And so long before the end of the watch.
/// upstream: apiserver/pkg/storage/cacher/cache_watcher.go nextBookmarkTime
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Revisions read from the ring at a time, entries from the state, objects from the store.
const READ_BATCHES: usize = 64;
const READ_ENTRIES: usize = 256;
const READ_PAGE: usize = 500;

/// Where a watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// With the changes behind this revision (`resourceVersion=N`). `Expired` if they are no longer kept.
    After(u64),
    /// With the changes behind the newest state (`sendInitialEvents=false`): of the store (`Latest`) or what is at hand.
    Now(ReadAt),
    /// With the objects of a state as `Added`, then the changes behind it (`resourceVersion` 0 or unset, or
    /// `sendInitialEvents=true`).
    State(ReadAt),
}

/// What [`Cache::watch`] shall deliver.
#[derive(Clone)]
pub struct WatchQuery {
    /// Which objects.
    pub scope: Scope,
    /// From where on.
    pub start: WatchStart,
    /// Which of them; `None`: all.
    pub filter: Option<Filter>,
    /// The filter only passes objects with this value in this selectable field. A hint that saves wake-ups.
    pub field: Option<(usize, CompactString)>,
    /// The client wants bookmarks.
    pub bookmarks: bool,
    /// A bookmark marks the end of the initial state (`sendInitialEvents=true` with bookmarks).
    pub initial_events_end: bool,
    /// When the server will end the watch.
    pub deadline: Option<Instant>,
}

impl WatchQuery {
    /// All changes of a scope, without bookmarks or end.
    pub fn new(scope: Scope, start: WatchStart) -> Self {
        Self {
            scope,
            start,
            filter: None,
            field: None,
            bookmarks: false,
            initial_events_end: false,
            deadline: None,
        }
    }
}

/// What has become of an object in the eyes of one watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It exists now, or is selected now.
    Added,
    /// It was changed and is still selected.
    Modified,
    /// It was deleted, or is no longer selected.
    Deleted,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// An object changed.
    Change {
        /// How.
        kind: ChangeKind,
        /// The object; of a `Deleted` one its content before, at the revision of the event.
        entry: Arc<Entry>,
    },
    /// Nothing below or at `revision` is left to be delivered.
    Bookmark {
        /// A watch may resume from here.
        revision: u64,
        /// The initial state ends here.
        initial_events_end: bool,
    },
}

impl WatchEvent {
    /// The event's `resourceVersion`.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Change { entry, .. } => entry.revision,
            Self::Bookmark { revision, .. } => *revision,
        }
    }
}

/// The rest of the state that a watch starts with.
enum Initial {
    /// All of it has been handed out, or none was wanted.
    Done,
    /// Of the cache's state; entries behind `start` are left.
    Image { image: Image, start: Bytes },
    /// Of the store, where the cache holds no state.
    Pages { request: ListRequest, at_least: u64 },
}

/// What a look into the ring found.
enum Read {
    /// Changes, wanted or not; look again.
    Some,
    /// Nothing.
    Nothing,
    /// What was missed is no longer there.
    Lost,
}

/// An open watch. Dropping it ends it.
pub struct Watcher {
    shared: Arc<Shared>,
    query: WatchQuery,
    bucket: Bucket,
    pub(super) signal: Arc<Signal>,
    /// Everything up to here has been handed out or is in `pending`.
    after: u64,
    initial: Initial,
    pending: VecDeque<WatchEvent>,
    timer: Option<Pin<Box<Sleep>>>,
    pub(super) next_bookmark: Option<Instant>,
}

impl Cache {
    /// Opens a watch. Its first event may come much later.
    pub async fn watch(&self, query: WatchQuery) -> Result<Watcher, CacheError> {
        let start = match query.start {
            WatchStart::State(at) if self.shared.config.hold == Hold::State => {
                self.freshen(at).await?;
                query.start
            }
            WatchStart::Now(ReadAt::Latest) => {
                self.freshen(ReadAt::Any).await?;
                WatchStart::After(self.shared.store.current_revision().await?)
            }
            start => {
                self.freshen(ReadAt::Any).await?;
                start
            }
        };
        self.subscribe(query, start)
    }

    /// Takes its place among the watchers, at one moment with the state it starts from.
    fn subscribe(&self, query: WatchQuery, start: WatchStart) -> Result<Watcher, CacheError> {
        let shared = &self.shared;
        let signal = Arc::new(Signal::default());
        let bucket = self.bucket(&query);
        let state = shared.state.read();
        if !state.ready {
            return Err(CacheError::NotReady);
        }
        let (after, initial) = match start {
            WatchStart::After(asked) if asked < state.ring.floor() => {
                return Err(CacheError::Expired { asked, oldest: state.ring.floor() });
            }
            WatchStart::After(asked) => (asked, Initial::Done),
            WatchStart::Now(_) => (state.revision, Initial::Done),
            WatchStart::State(at) => (state.revision, self.initial(&query, at, &state.image)),
        };
        if let Some(next) = state.ring.next(after) {
            signal.raise(next);
        }
        // Still under the state's lock: the next change finds this watcher or is behind `after`.
        shared.watchers.lock().add(bucket.clone(), signal.clone());
        drop(state);
        let mut watcher = Watcher {
            shared: shared.clone(),
            query,
            bucket,
            signal,
            after,
            initial,
            pending: VecDeque::new(),
            timer: None,
            next_bookmark: None,
        };
        watcher.schedule_bookmark();
        Ok(watcher)
    }

    fn initial(&self, query: &WatchQuery, at: ReadAt, image: &Image) -> Initial {
        if self.shared.config.hold == Hold::State {
            return Initial::Image { image: image.clone(), start: Bytes::new() };
        }
        let prefix = query.scope.prefix(&self.shared.config.prefix).clone();
        let at_least = if let ReadAt::AtLeast(revision) = at { revision } else { 0 };
        Initial::Pages { request: ListRequest::prefix(prefix).limit(READ_PAGE), at_least }
    }

    fn bucket(&self, query: &WatchQuery) -> Bucket {
        let indexed = |field: &usize| self.shared.config.indexes.contains(field);
        match (&query.field, &query.scope) {
            (_, Scope::Key(key)) => Bucket::Key(key.clone()),
            (Some((field, value)), _) if indexed(field) => Bucket::Field(*field, value.clone()),
            (_, Scope::Folder(folder)) => Bucket::Folder(folder.clone()),
            (_, Scope::Resource) => Bucket::All,
        }
    }
}

impl Watcher {
    /// The next event. `None`: the watch has ended (its deadline, it stayed too far behind, the cache lost its history);
    /// the client resumes from the last revision it saw. Cancel-safe.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.is_over() {
                return None;
            }
            match self.read() {
                Read::Some => {
                    // What was read may all be of no interest: let others run.
                    if self.pending.is_empty() {
                        tokio::task::yield_now().await;
                    }
                    continue;
                }
                Read::Lost => {
                    tracing::debug!(resource = %self.shared.config.resource, after = self.after, "watcher fell behind");
                    return None;
                }
                Read::Nothing => {}
            }
            if matches!(self.initial, Initial::Pages { .. }) {
                if let Err(error) = self.read_page().await {
                    tracing::warn!(resource = %self.shared.config.resource, %error, "initial events failed");
                    return None;
                }
                continue;
            }
            self.wait().await;
        }
    }

    /// The next event if there is one without waiting, to fill a frame.
    pub fn try_next(&mut self) -> Option<WatchEvent> {
        if self.pending.is_empty() && !self.is_over() && !matches!(self.initial, Initial::Pages { .. }) {
            // `Lost` is found again and told by `next`.
            self.read();
        }
        self.pending.pop_front()
    }

    /// The encoded body of an event's object, shared with all other readers.
    pub fn body(&self, entry: &Arc<Entry>, form: super::Form) -> Result<Bytes, CacheError> {
        entry.body(form, &*self.shared.codec).map_err(|source| CacheError::corrupt(&entry.key, source))
    }

    fn is_over(&self) -> bool {
        self.signal.is_closed() || self.query.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Reads on without waiting.
    fn read(&mut self) -> Read {
        match std::mem::replace(&mut self.initial, Initial::Done) {
            Initial::Image { image, start } => {
                self.read_image(image, &start);
                Read::Some
            }
            pages @ Initial::Pages { .. } => {
                self.initial = pages;
                Read::Nothing
            }
            Initial::Done => self.read_ring(),
        }
    }

    /// Some more of the initial state.
    fn read_image(&mut self, image: Image, start: &Bytes) {
        let prefix = self.query.scope.prefix(&self.shared.config.prefix).clone();
        let (mut seen, mut last) = (0, None);
        for entry in image.entries.range(&prefix, start).take(READ_ENTRIES) {
            seen += 1;
            last = Some(entry.key.clone());
            if self.selects(entry) {
                self.pending.push_back(WatchEvent::Change { kind: ChangeKind::Added, entry: entry.clone() });
            }
        }
        match last {
            Some(last) if seen == READ_ENTRIES => {
                self.initial = Initial::Image { image, start: [&last[..], &[0]].concat().into() };
            }
            _ => self.end_initial(),
        }
    }

    /// Some more of the initial state, from the store.
    async fn read_page(&mut self) -> Result<(), CacheError> {
        let Initial::Pages { request, at_least } = &self.initial else { return Ok(()) };
        let (mut request, at_least) = (request.clone(), *at_least);
        let page = self.shared.store.list(request.clone()).await?;
        if page.revision < at_least {
            return Err(CacheError::TooLarge { asked: at_least, current: page.revision });
        }
        // The changes up to the list's revision are in the list.
        self.after = self.after.max(page.revision);
        let last = page.kvs.last().map(|kv| kv.key.clone());
        for kv in page.kvs {
            let entry = self.shared.entry(kv)?;
            if self.selects(&entry) {
                self.pending.push_back(WatchEvent::Change { kind: ChangeKind::Added, entry });
            }
        }
        match last {
            Some(last) if page.more => {
                request = request.after(&last).at(page.revision);
                self.initial = Initial::Pages { request, at_least };
            }
            _ => {
                self.initial = Initial::Done;
                self.end_initial();
            }
        }
        Ok(())
    }

    fn end_initial(&mut self) {
        if self.query.initial_events_end {
            self.pending.push_back(WatchEvent::Bookmark { revision: self.after, initial_events_end: true });
        }
    }

    /// The changes behind `after`.
    fn read_ring(&mut self) -> Read {
        let Some(from) = self.signal.take() else { return Read::Nothing };
        // Whatever lies before the first signal was of no interest.
        let after = self.after.max(from - 1);
        let (batches, more) = {
            let state = self.shared.state.read();
            if after < state.ring.floor() {
                self.signal.put_back(from);
                return Read::Lost;
            }
            let (batches, _) = state.ring.after(after, READ_BATCHES);
            let next = batches.last().and_then(|last| state.ring.next(last.revision));
            (batches, next)
        };
        if let Some(next) = more {
            self.signal.put_back(next);
        }
        for batch in &batches {
            self.take(batch);
            self.after = batch.revision;
        }
        Read::Some
    }

    fn take(&mut self, batch: &Batch) {
        for change in &batch.changes {
            if let Some(event) = self.event(change, batch.revision) {
                self.pending.push_back(event);
            }
        }
    }

    /// What a change means for this watcher.
    /// upstream: apiserver/pkg/storage/cacher/cache_watcher.go convertToWatchEvent
    fn event(&self, change: &Change, revision: u64) -> Option<WatchEvent> {
        if !self.query.scope.contains(&change.key) {
            return None;
        }
        let current = change.current.as_ref().filter(|entry| self.selects(entry));
        let was_selected = change.previous.as_ref().is_some_and(|entry| self.selects(entry));
        let (kind, entry) = match (current, was_selected) {
            (Some(entry), false) => (ChangeKind::Added, entry),
            (Some(entry), true) => (ChangeKind::Modified, entry),
            (None, true) => (ChangeKind::Deleted, change.gone(revision)?),
            (None, false) => return None,
        };
        Some(WatchEvent::Change { kind, entry: entry.clone() })
    }

    fn selects(&self, entry: &Entry) -> bool {
        self.query.scope.contains(&entry.key)
            && self.query.filter.as_ref().is_none_or(|f| f(&entry.attributes))
    }

    /// Waits for a signal, the time of a bookmark or the end.
    async fn wait(&mut self) {
        let until = [self.next_bookmark, self.query.deadline].into_iter().flatten().min();
        let Some(until) = until else {
            self.signal.rung().await;
            return;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        tokio::select! {
            biased;
            () = self.signal.rung() => {}
            () = timer.as_mut() => self.bookmark(),
        }
    }

    /// Says how far this watch has come, if it is time.
    fn bookmark(&mut self) {
        if self.next_bookmark.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.schedule_bookmark();
        // Read before the signal: a signal for anything up to `reached` has been raised before `reached` was set.
        let reached = *self.shared.reached.borrow();
        if !self.signal.is_raised() && reached >= self.after {
            self.after = reached;
            self.pending.push_back(WatchEvent::Bookmark { revision: reached, initial_events_end: false });
        }
    }

    fn schedule_bookmark(&mut self) {
        let now = Instant::now();
        let periodic = now + BOOKMARK_PERIOD;
        let last =
            self.query.deadline.map(|deadline| deadline.checked_sub(BOOKMARK_BEFORE_END).unwrap_or(now));
        self.next_bookmark = match last {
            _ if !self.query.bookmarks => None,
            Some(last) if last <= now => None,
            Some(last) => Some(last.min(periodic)),
            None => Some(periodic),
        };
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.watchers.lock().remove(&self.bucket, &self.signal);
    }
}
