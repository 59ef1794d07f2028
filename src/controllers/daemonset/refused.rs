//! Nodes on which a pod of a set has failed: the next one waits longer each time, so that a kubelet that refuses pods and
//! this controller do not keep each other busy.
//!
//! upstream: pkg/controller/daemon/daemon_controller.go failedPodsBackoff, client-go/util/flowcontrol/backoff.go

use std::collections::HashMap;
use std::time::Duration;

use copepod_client::object::Key;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Wait after the first failure.
const BASE: Duration = Duration::from_secs(1);
/// Longest wait.
const MAX: Duration = Duration::from_secs(15 * 60);

/// By node: how long to wait, since when.
type Waits = HashMap<String, (Duration, Instant)>;

/// Failures by set and node.
#[derive(Default)]
pub(super) struct Refused(Mutex<HashMap<Key, Waits>>);

impl Refused {
    /// A pod has failed on a node, and goes now.
    pub(super) fn note(&self, set: &Key, node: &str, now: Instant) {
        let mut all = self.0.lock();
        let nodes = all.entry(set.clone()).or_default();
        // Long quiet is forgiven.
        nodes.retain(|_, (_, since)| now.duration_since(*since) < MAX * 2);
        let wait = nodes.get(node).map_or(BASE, |(wait, _)| (*wait * 2).min(MAX));
        nodes.insert(node.to_owned(), (wait, now));
    }

    /// How long a failed pod on a node is left where it is.
    pub(super) fn left(&self, set: &Key, node: &str, now: Instant) -> Option<Duration> {
        let all = self.0.lock();
        let (wait, since) = all.get(set)?.get(node)?;
        wait.checked_sub(now.duration_since(*since)).filter(|left| !left.is_zero())
    }

    /// When the first of a set's waits ends.
    pub(super) fn next(&self, set: &Key, now: Instant) -> Option<Duration> {
        let nodes: Vec<String> = self.0.lock().get(set)?.keys().cloned().collect();
        nodes.iter().filter_map(|node| self.left(set, node, now)).min()
    }

    /// The set is gone.
    pub(super) fn forget(&self, set: &Key) {
        self.0.lock().remove(set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_wait() {
        let (refused, set, start) = (Refused::default(), Key::from("x/d"), Instant::now());
        let left = |node: &str, now| refused.left(&set, node, now).map_or(0, |left| left.as_secs());
        assert_eq!(left("a", start), 0);
        refused.note(&set, "a", start);
        assert_eq!((left("a", start), left("b", start)), (1, 0));
        let later = start + Duration::from_secs(2);
        assert_eq!(left("a", later), 0);
        refused.note(&set, "a", later);
        assert_eq!((left("a", later), refused.next(&set, later)), (2, Some(Duration::from_secs(2))));
        for _ in 0..20 {
            refused.note(&set, "a", later);
        }
        assert_eq!(left("a", later), 900, "a quarter of an hour at most");
    }
}
