//! Conditional writes.

use std::time::Duration;

use bytes::Bytes;

use super::{Fixture, PATIENCE, done, put};
use crate::store::{Op, StoreError, TxnResult, VALUE_BYTES_MAX};

pub(super) async fn each_write_has_the_next_revision(f: Fixture) {
    let start = f.revision().await;
    assert!(start >= 1, "0 names no state");
    let made = f.put("a", "1").await;
    assert_eq!(made, start + 1);
    assert_eq!(f.put("b", "1").await, start + 2);
    assert_eq!(f.put("a", "1").await, start + 3, "the same value is a change, too");
    assert_eq!(f.delete("a").await, start + 4);
    // What changes nothing has no revision.
    f.txn("b", 1, put("2")).await;
    f.txn("a", 0, Op::Delete).await;
    assert_eq!(f.revision().await, start + 4);
}

pub(super) async fn a_write_needs_the_revision_it_expects(f: Fixture) {
    let old = f.put("a", "1").await;
    let now = f.put("a", "2").await;
    let there = f.get("a").await;
    for op in [put("3"), Op::Delete] {
        for (name, expect) in [("none", 0), ("an old one", old), ("one to come", now + 1)] {
            match f.txn("a", expect, op.clone()).await {
                TxnResult::Conflict { current, revision } => {
                    assert_eq!((&current, revision), (&there, now), "{name} for {op:?}");
                }
                done => panic!("{name} for {op:?}: {done:?}"),
            }
            match f.txn("missing", expect.max(1), op.clone()).await {
                TxnResult::Conflict { current, .. } => assert_eq!(current, None),
                done => panic!("{op:?} of nothing: {done:?}"),
            }
        }
    }
    assert_eq!(f.get("a").await, there);
    assert_eq!(f.txn("missing", 0, Op::Delete).await, TxnResult::Done { revision: now }, "nothing to do");
    assert_eq!(done(f.txn("a", now, Op::Delete).await), now + 1);
    assert_eq!(done(f.txn("a", 0, put("4")).await), now + 2);
}

/// Eight writers count to 400 together; a count that somebody saw is never taken back.
pub(super) async fn concurrent_increments_are_never_lost(f: Fixture) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 50;
    f.put("counter", "0").await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let f = f.clone();
            tokio::spawn(async move {
                let mut highest = 0;
                for _ in 0..EACH {
                    highest = increment(&f, highest).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    let kv = f.get("counter").await.expect("it exists");
    assert_eq!(kv.value, Bytes::from((WRITERS * EACH).to_string()));
    assert_eq!(kv.version, WRITERS * EACH + 1);
}

async fn increment(f: &Fixture, highest: u64) -> u64 {
    let mut kv = f.get("counter").await.expect("it exists");
    loop {
        let count: u64 = std::str::from_utf8(&kv.value).expect("digits").parse().expect("a number");
        assert!(count >= highest, "saw {highest}, then {count}");
        match f.txn("counter", kv.mod_revision, put((count + 1).to_string())).await {
            TxnResult::Done { revision } => {
                assert!(revision > kv.mod_revision);
                return count + 1;
            }
            TxnResult::Conflict { current, .. } => {
                let current = current.expect("nobody deletes it");
                assert!(current.mod_revision > kv.mod_revision, "a conflict with what was expected");
                kv = current;
            }
        }
    }
}

pub(super) async fn values_over_the_limit_are_refused(f: Fixture) {
    let largest = Bytes::from(vec![7; VALUE_BYTES_MAX]);
    f.put("a", largest.clone()).await;
    assert_eq!(f.get("a").await.expect("it exists").value, largest);
    let revision = f.revision().await;
    // What etcd takes beyond is for its frame.
    let larger = Bytes::from(vec![7; VALUE_BYTES_MAX + 64 * 1024]);
    assert!(matches!(f.store.txn(&f.key("b"), 0, put(larger)).await, Err(StoreError::TooLarge { .. })));
    assert_eq!((f.get("b").await, f.revision().await), (None, revision));
    assert!(matches!(f.store.txn(b"", 0, put("x")).await, Err(StoreError::Rejected(_))), "no key");
}

pub(super) async fn keys_with_a_time_to_live_go_away(f: Fixture) {
    let mut watched = f.watch(f.revision().await).await;
    let ttl = |value: &'static str| Op::Put { value: value.into(), ttl_seconds: Some(1) };
    f.txn("short", 0, ttl("1")).await;
    f.txn("long", 0, Op::Put { value: "1".into(), ttl_seconds: Some(3600) }).await;
    let kept = done(f.txn("kept", 0, ttl("1")).await);
    f.txn("kept", kept, put("2")).await;
    assert_eq!(watched.render(4).await, "+short=1 +long=1 +kept=1 ~kept=2 (1)");
    // Backends look at their clocks now and then; a minute is what they are allowed for an hour's lease.
    let gone = tokio::time::timeout(PATIENCE, watched.render(1)).await.expect("it goes");
    assert_eq!(gone, "-short (1)");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(f.render(f.all()).await, "kept=2 long=1");
}
