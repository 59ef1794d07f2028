//! Exponential back-off by key, as client-go's flowcontrol.Backoff: a key's delay doubles with each failure and is
//! forgotten when nothing failed for twice the longest delay. Time is passed in.

use std::{collections::HashMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Container;

/// First delay after a crash or a failed pull.
pub const INITIAL: Duration = Duration::from_secs(10);
/// Longest delay.
pub const MAX: Duration = Duration::from_secs(300);

/// Delays by key. Bounded by its user: a pod has one key for each form of a container.
#[derive(Debug, Clone)]
pub struct Backoff {
    entries: HashMap<String, Entry>,
    initial: Duration,
    max: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    delay: Duration,
    updated: Timestamp,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { entries: HashMap::new(), initial: INITIAL, max: MAX }
    }
}

impl Backoff {
    /// The delay now in force for a key.
    pub fn delay(&self, key: &str) -> Duration {
        self.entries.get(key).map_or(Duration::ZERO, |entry| entry.delay)
    }

    /// Whether less than the delay has passed since `event`; if so, when it will have.
    // upstream: client-go/util/flowcontrol/backoff.go IsInBackOffSince
    pub fn until(&self, key: &str, event: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entries.get(key)?;
        if self.expired(entry, event) {
            return None;
        }
        let end = later(event, entry.delay);
        (now < end).then_some(end)
    }

    /// Whether less than the delay has passed since the last failure was noted.
    // upstream: client-go/util/flowcontrol/backoff.go IsInBackOffSinceUpdate
    pub fn until_since_update(&self, key: &str, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entries.get(key)?;
        if self.expired(entry, now) {
            return None;
        }
        let end = later(entry.updated, entry.delay);
        (now < end).then_some(end)
    }

    /// Notes a failure that happened at `event`: the next delay is twice as long.
    // upstream: client-go/util/flowcontrol/backoff.go Next
    pub fn next(&mut self, key: &str, event: Timestamp, now: Timestamp) {
        let delay = match self.entries.get(key) {
            Some(entry) if !self.expired(entry, event) => entry.delay.saturating_mul(2).min(self.max),
            _ => self.initial,
        };
        self.entries.insert(key.to_owned(), Entry { delay, updated: now });
    }

    /// Forgets a key.
    pub fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }

    fn expired(&self, entry: &Entry, event: Timestamp) -> bool {
        event > later(entry.updated, self.max.saturating_mul(2))
    }
}

/// The key of a container's crashes: one whose image or resources are changed is not to wait for what the old one did.
// upstream: kubelet/container/helpers.go GetBackoffKey
pub fn key(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    format!("{}/{image}/{:?}", container.name, container.resources)
}

/// `time` and a duration; the end of time if that is beyond it.
pub fn later(time: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|step| time.checked_add(step).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// A container that crashes at once: delays 10, 20, 40 ... 300, and 10 again after ten quiet minutes.
    #[test]
    fn delays_double_and_are_forgotten() {
        let mut backoff = Backoff::default();
        let mut now = 0;
        let mut delays = Vec::new();
        assert_eq!(backoff.until("c", at(0), at(0)), None, "the first restart is at once");
        for _ in 0..7 {
            backoff.next("c", at(now), at(now));
            let end = backoff.until("c", at(now), at(now)).expect("backing off");
            delays.push(end.as_second() - now);
            now = end.as_second();
            assert_eq!(backoff.until("c", at(now - delays[delays.len() - 1]), at(now)), None);
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        let quiet = now + 601;
        assert_eq!(backoff.until("c", at(quiet), at(quiet)), None);
        backoff.next("c", at(quiet), at(quiet));
        assert_eq!(backoff.delay("c"), INITIAL);
    }
}
