//! Trying again after a conflict, as client-go's `util/retry` does.

use std::future::Future;
use std::time::Duration;

use crate::rest;

/// Tries of [`on_conflict`]. upstream: client-go/util/retry/util.go DefaultRetry
const CONFLICT_TRIES_MAX: u32 = 5;
/// The wait between two tries.
const CONFLICT_WAIT: Duration = Duration::from_millis(10);

/// Runs `attempt` until it does anything but lose to another writer; the last conflict is returned.
/// `attempt` must read the object anew each time.
pub async fn on_conflict<T, F, A>(mut attempt: A) -> Result<T, kube::Error>
where
    A: FnMut() -> F,
    F: Future<Output = Result<T, kube::Error>>,
{
    for _ in 1..CONFLICT_TRIES_MAX {
        match attempt().await {
            Err(e) if rest::is_conflict(&e) => tokio::time::sleep(jittered(CONFLICT_WAIT)).await,
            other => return other,
        }
    }
    attempt().await
}

/// `base` lengthened by up to a tenth, so that competing clients do not stay in step.
fn jittered(base: Duration) -> Duration {
    base.mul_f64(1.0 + 0.1 * rand::random::<f64>())
}
