//! How events reach the workers of pods: a flag and a knock, never a queue.
//!
//! An event says only that something changed; the worker looks for itself. So a thousand events for one pod cost one
//! look, and nothing grows when workers are slow.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// The runtime's containers.
    Runtime = 1,
    /// A ConfigMap or Secret.
    Objects = 2,
    /// A probe's verdict.
    Probe = 4,
}

/// Announced ends that may wait for a worker. One that is lost is found at the next look for another reason.
const ENDS_MAX: usize = 64;

/// The knocker of one pod.
#[derive(Debug, Default)]
pub struct Waker {
    causes: AtomicU8,
    notify: Notify,
    ended: Mutex<Vec<String>>,
}

impl Waker {
    /// Notes a cause and knocks.
    pub fn wake(&self, cause: Cause) {
        self.causes.fetch_or(cause as u8, Ordering::AcqRel);
        self.notify.notify_one();
    }

    /// Notes that a container or sandbox was said to have ended, and knocks.
    pub fn wake_ended(&self, id: &str) {
        let mut ended = self.ended.lock();
        if ended.len() < ENDS_MAX {
            ended.push(id.to_owned());
        }
        drop(ended);
        self.wake(Cause::Runtime);
    }

    /// Takes the ends noted so far.
    pub fn take_ended(&self) -> Vec<String> {
        std::mem::take(&mut self.ended.lock())
    }

    /// Waits for a knock.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }

    /// Takes the causes noted so far.
    pub fn take(&self) -> Causes {
        Causes(self.causes.swap(0, Ordering::AcqRel))
    }
}

/// A set of causes.
#[derive(Debug, Clone, Copy)]
pub struct Causes(u8);

impl Causes {
    /// Whether the set contains the cause.
    pub fn has(self, cause: Cause) -> bool {
        self.0 & cause as u8 != 0
    }
}

/// The knockers of all pods, by uid.
#[derive(Debug, Default)]
pub struct Wakers {
    by_uid: Mutex<HashMap<String, Arc<Waker>>>,
}

impl Wakers {
    /// The knocker of a pod, made if it is new.
    pub fn of(&self, uid: &str) -> Arc<Waker> {
        self.by_uid.lock().entry(uid.to_owned()).or_default().clone()
    }

    /// Forgets a pod.
    pub fn forget(&self, uid: &str) {
        self.by_uid.lock().remove(uid);
    }

    /// Knocks at one pod's worker, if there is one.
    pub fn wake(&self, uid: &str, cause: Cause) {
        if let Some(waker) = self.by_uid.lock().get(uid) {
            waker.wake(cause);
        }
    }

    /// Knocks at one pod's worker with the end of a container of its.
    pub fn wake_ended(&self, uid: &str, id: &str) {
        if let Some(waker) = self.by_uid.lock().get(uid) {
            waker.wake_ended(id);
        }
    }

    /// Knocks everywhere: after a gap in events.
    pub fn wake_all(&self, cause: Cause) {
        for waker in self.by_uid.lock().values() {
            waker.wake(cause);
        }
    }
}
