//! Doing many equal things: one first, then twice as many at a time as long as all go well.
//!
//! upstream: pkg/controller/replicaset/replica_set.go slowStartBatch

use std::future::Future;

/// Runs `act` for `0..count`; returns how often it succeeded, and the first error. After an error no new batch begins.
pub async fn run<E, F: Future<Output = Result<(), E>>>(
    count: usize,
    act: impl Fn(usize) -> F,
) -> (usize, Option<E>) {
    let (mut done, mut batch, mut succeeded) = (0, 1, 0);
    while done < count {
        batch = batch.min(count - done);
        let results = futures::future::join_all((done..done + batch).map(&act)).await;
        done += batch;
        let mut failed = None;
        for result in results {
            match result {
                Ok(()) => succeeded += 1,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if failed.is_some() {
            return (succeeded, failed);
        }
        batch *= 2;
    }
    (succeeded, None)
}

#[cfg(test)]
mod tests {
    use super::run;
    use std::cell::Cell;

    #[tokio::test]
    async fn batches_double_and_stop_at_an_error() {
        for (name, count, fails_at, tried, succeeded) in [
            ("all well", 10, None, 10, 10),
            ("the first fails", 10, Some(0), 1, 0),
            ("one of the second batch", 10, Some(2), 3, 2),
            ("one of the third batch", 10, Some(3), 7, 6),
            ("nothing to do", 0, None, 0, 0),
        ] {
            let tries = Cell::new(0);
            let (ok, error) = run(count, |at| {
                tries.set(tries.get() + 1);
                async move { if Some(at) == fails_at { Err("no") } else { Ok(()) } }
            })
            .await;
            assert_eq!((tries.get(), ok, error.is_some()), (tried, succeeded, fails_at.is_some()), "{name}");
        }
    }
}
