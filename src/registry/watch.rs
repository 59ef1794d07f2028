//! Watches: changes of a collection, selected, in order of revision.

use crate::api::Object;
use copepod_meta::Status;

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
}

impl Watch {
    /// The next frame; `None` when the server ends the watch (timeout, shutdown, the client fell behind): resume.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        None
    }
}
