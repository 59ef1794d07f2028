//! Watches: changes of a collection, selected, in order of revision.

use std::sync::Arc;

use copepod_meta::Status;
use copepod_store::cache::{ChangeKind, WatchEvent as Event, Watcher};
use tokio::sync::watch;

use crate::api::Object;
use crate::collection::Collection;
use crate::served::Served;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// `ADDED`: new, or new to the selector.
    Added,
    /// `MODIFIED`
    Modified,
    /// `DELETED`: gone, or gone from the selector; the object is its last state, at the revision of the event.
    Deleted,
}

impl EventKind {
    /// The wire's word.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Added => "ADDED",
            EventKind::Modified => "MODIFIED",
            EventKind::Deleted => "DELETED",
        }
    }
}

/// One frame of a watch.
#[derive(Debug)]
pub enum WatchEvent {
    /// A change.
    Change {
        /// What happened.
        kind: EventKind,
        /// The object.
        object: Object,
    },
    /// `BOOKMARK`: an object of the kind with nothing but `metadata.resourceVersion` (and, at the end of the initial events,
    /// the annotation `k8s.io/initial-events-end: "true"`).
    Bookmark {
        /// Everything up to this was delivered.
        revision: u64,
        /// The state at the beginning was delivered.
        initial_events_end: bool,
    },
    /// `ERROR`: the watch is over and cannot be resumed from where it was.
    Error(Status),
}

/// An open watch. Dropping it ends it.
pub struct Watch {
    served: Arc<Served>,
    collection: Arc<Collection>,
    source: Source,
    /// Becomes true when the server shuts down.
    ending: watch::Receiver<bool>,
}

enum Source {
    Open(Box<Watcher>),
    /// Could not begin; the error is the only frame.
    Refused(Status),
    Over,
}

impl Watch {
    pub(crate) fn new(
        served: &Arc<Served>,
        collection: &Arc<Collection>,
        watcher: Result<Watcher, Status>,
        ending: watch::Receiver<bool>,
    ) -> Watch {
        let source = match watcher {
            Ok(watcher) => Source::Open(Box::new(watcher)),
            Err(status) => Source::Refused(status),
        };
        Watch { served: served.clone(), collection: collection.clone(), source, ending }
    }

    /// As what objects are shown.
    pub fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// What a bookmark is before it is framed: an object of the kind that has nothing but metadata.
    pub fn bookmark(&self, tree: copepod_meta::Value) -> Object {
        Object::of_tree(&self.served, Arc::new(tree))
    }

    /// The next frame; `None` when the server ends the watch (timeout, shutdown, the client fell behind): resume.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        let event = match &mut self.source {
            Source::Over => return None,
            Source::Refused(status) => {
                let status = status.clone();
                self.source = Source::Over;
                return Some(WatchEvent::Error(status));
            }
            Source::Open(watcher) => tokio::select! {
                biased;
                // The sender is the registry's; when that is gone, so is the server.
                _ = self.ending.wait_for(|ending| *ending) => None,
                event = watcher.next() => event,
            },
        };
        if event.is_none() {
            self.source = Source::Over;
        }
        event.map(|e| self.frame(e))
    }

    /// The next frame if there is one without waiting: fills a write with as many as there are.
    pub fn try_next(&mut self) -> Option<WatchEvent> {
        let Source::Open(watcher) = &mut self.source else { return None };
        let event = watcher.try_next()?;
        Some(self.frame(event))
    }

    fn frame(&self, event: Event) -> WatchEvent {
        match event {
            Event::Change { kind, entry } => WatchEvent::Change {
                kind: match kind {
                    ChangeKind::Added => EventKind::Added,
                    ChangeKind::Modified => EventKind::Modified,
                    ChangeKind::Deleted => EventKind::Deleted,
                },
                object: Object::of_entry(&self.served, &self.collection, entry),
            },
            Event::Bookmark { revision, initial_events_end } => {
                WatchEvent::Bookmark { revision, initial_events_end }
            }
        }
    }
}
