//! What a controller has done and not yet seen in its informers: it must not act again before that.
//!
//! upstream: pkg/controller/controller_utils.go ControllerExpectations

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use copepod_client::object::Key;
use parking_lot::Mutex;
use tokio::time::Instant;

/// After this an expectation is given up: an event must have been lost. upstream: ExpectationsTimeout
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Creations and deletions under way, by the key of the owner.
#[derive(Default)]
pub struct Expectations(Mutex<HashMap<Key, Expected>>);

struct Expected {
    creations: i64,
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    /// `count` creations will be seen.
    pub fn expect_creations(&self, owner: &Key, count: i64) {
        self.set(owner, count, HashSet::new());
    }

    /// Deletions of these uids will be seen.
    pub fn expect_deletions(&self, owner: &Key, uids: impl IntoIterator<Item = String>) {
        self.set(owner, 0, uids.into_iter().collect());
    }

    fn set(&self, owner: &Key, creations: i64, deletions: HashSet<String>) {
        self.0.lock().insert(owner.clone(), Expected { creations, deletions, since: Instant::now() });
    }

    /// A creation was seen, or will not be because it failed.
    pub fn creation_observed(&self, owner: &str) {
        if let Some(expected) = self.0.lock().get_mut(owner) {
            expected.creations -= 1;
        }
    }

    /// A deletion was seen, or will not be because it failed.
    pub fn deletion_observed(&self, owner: &str, uid: &str) {
        if let Some(expected) = self.0.lock().get_mut(owner) {
            expected.deletions.remove(uid);
        }
    }

    /// Whether everything has been seen, or waited for long enough.
    pub fn satisfied(&self, owner: &str) -> bool {
        self.0.lock().get(owner).is_none_or(|expected| {
            (expected.creations <= 0 && expected.deletions.is_empty()) || expected.since.elapsed() > TIMEOUT
        })
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &str) {
        self.0.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_owner_waits_until_all_is_seen_or_five_minutes_passed() {
        let expectations = Expectations::default();
        let owner: Key = "x/a".into();
        assert!(expectations.satisfied(&owner), "nothing expected");
        expectations.expect_creations(&owner, 2);
        expectations.creation_observed(&owner);
        assert!(!expectations.satisfied(&owner));
        expectations.creation_observed(&owner);
        assert!(expectations.satisfied(&owner));
        expectations.expect_deletions(&owner, ["u1".to_owned(), "u2".to_owned()]);
        expectations.deletion_observed(&owner, "u1");
        expectations.deletion_observed(&owner, "u1");
        assert!(!expectations.satisfied(&owner), "one deletion seen twice is one");
        tokio::time::advance(TIMEOUT + Duration::from_secs(1)).await;
        assert!(expectations.satisfied(&owner));
    }
}
