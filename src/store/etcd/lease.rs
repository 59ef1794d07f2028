//! Leases for keys with a time to live. One lease is shared by the keys written within a short while, because a lease per
//! Event would cost etcd more than the Event.
//!
//! upstream: apiserver/pkg/storage/etcd3/lease_manager.go

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// A lease is given out for so long after it was granted, or for `REUSE_PERCENT` of its time if that is less.
const REUSE_SECONDS_MAX: u64 = 60;
const REUSE_PERCENT: u64 = 5;
/// And to so many keys: etcd deletes all keys of a lease at once.
const KEYS_MAX: u32 = 1000;

/// See the module.
pub(super) struct Leases {
    client: etcd_client::Client,
    current: Mutex<Option<Lease>>,
}

struct Lease {
    id: i64,
    expires: Instant,
    keys: u32,
}

impl Leases {
    pub(super) fn new(client: etcd_client::Client) -> Self {
        Self { client, current: Mutex::default() }
    }

    /// A lease that lasts at least `ttl_seconds`, and hardly longer.
    pub(super) async fn lease(&self, ttl_seconds: u64) -> Result<i64, etcd_client::Error> {
        let reuse_seconds = (ttl_seconds * REUSE_PERCENT / 100).min(REUSE_SECONDS_MAX);
        let mut current = self.current.lock().await;
        let now = Instant::now();
        if let Some(lease) = current.as_mut()
            && lease.fits(now, ttl_seconds, reuse_seconds)
        {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let granted_seconds = ttl_seconds + reuse_seconds;
        let ttl = i64::try_from(granted_seconds).unwrap_or(i64::MAX);
        // Waiting under the lock is the point: who comes meanwhile shares the lease that is being granted.
        let id = self.client.lease_client().grant(ttl, None).await?.id();
        *current = Some(Lease { id, expires: now + Duration::from_secs(granted_seconds), keys: 1 });
        Ok(id)
    }

    /// The lease has ended early (an operator revoked it).
    pub(super) async fn forget(&self, id: i64) {
        self.current.lock().await.take_if(|lease| lease.id == id);
    }
}

impl Lease {
    fn fits(&self, now: Instant, ttl_seconds: u64, reuse_seconds: u64) -> bool {
        let long_enough = now + Duration::from_secs(ttl_seconds) < self.expires;
        let not_too_long = now + Duration::from_secs(ttl_seconds + reuse_seconds) > self.expires;
        long_enough && not_too_long && self.keys < KEYS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_shared_while_it_fits() {
        let now = Instant::now();
        let lease = |left, keys| Lease { id: 1, expires: now + Duration::from_secs(left), keys };
        // An Event lives 3,600 s, its lease was granted for 3,660 s.
        for (name, left, keys, fits) in [
            ("just granted", 3660, 1, false),
            ("a second later", 3659, 1, true),
            ("nearly a minute later", 3601, 1, true),
            ("a minute later", 3600, 1, false),
            ("of a longer time", 7000, 1, false),
            ("full", 3650, KEYS_MAX, false),
        ] {
            assert_eq!(lease(left, keys).fits(now, 3600, 60), fits, "{name}");
        }
    }
}
