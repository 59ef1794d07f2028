//! Wakes one follower of a log and tells it only where its news begin.
//!
//! A follower that is not interested in most of a log is not woken by it and need not have read it: what it has to read
//! starts at the position of the first signal that it has not taken yet. A signal costs the sender one atomic exchange
//! and, if the follower sleeps, one wake-up; it never waits and never grows.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// No position: logs start at 1.
const NOTHING: u64 = 0;

/// The bell of one follower.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    first: AtomicU64,
    closed: AtomicBool,
    notify: Notify,
}

impl Signal {
    /// There is something at `position` (raised in order by one sender at a time).
    pub(crate) fn raise(&self, position: u64) {
        debug_assert_ne!(position, NOTHING);
        let set = self.first.compare_exchange(NOTHING, position, Ordering::AcqRel, Ordering::Acquire);
        // Somebody who was told of an earlier position and has not looked yet will find this one too.
        if set.is_ok() {
            self.notify.notify_one();
        }
    }

    /// Wakes without news of the log: the follower should look around.
    pub(crate) fn nudge(&self) {
        self.notify.notify_one();
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The first position raised since the last take.
    pub(crate) fn take(&self) -> Option<u64> {
        match self.first.swap(NOTHING, Ordering::AcqRel) {
            NOTHING => None,
            position => Some(position),
        }
    }

    /// Puts back what was taken and not read to its end.
    pub(crate) fn put_back(&self, position: u64) {
        // Later positions may have been raised in between; the earlier one covers them.
        self.first.store(position, Ordering::Release);
    }

    /// Whether `take` would find something.
    pub(crate) fn is_raised(&self) -> bool {
        self.first.load(Ordering::Acquire) != NOTHING
    }

    /// Waits until something happened since the last wait. May return without news. Cancel-safe.
    pub(crate) async fn rung(&self) {
        self.notify.notified().await;
    }
}
