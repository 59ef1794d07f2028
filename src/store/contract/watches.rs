//! Watches.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Fixture, PATIENCE, Watched};
use crate::store::{StoreError, WatchItem};

pub(super) async fn a_watch_continues_a_list(f: Fixture) {
    f.put("a", "1").await;
    let middle = f.put("b", "1").await;
    f.put("c", "1").await;
    f.put("a", "2").await;
    let list = f.store.list(f.all()).await.expect("list");
    let mut from_middle = f.watch(middle).await;
    let mut from_list = f.watch(list.revision).await;
    f.put("d", "1").await;
    f.delete("a").await;
    assert_eq!(from_middle.render(4).await, "+c=1 ~a=2 (1) +d=1 -a (2)");
    assert_eq!(from_list.render(2).await, "+d=1 -a (2)");
}

pub(super) async fn a_watch_from_zero_shows_all_history(f: Fixture) {
    f.put("a", "1").await;
    f.put("a", "2").await;
    f.delete("a").await;
    assert_eq!(f.watch(0).await.render(3).await, "+a=1 ~a=2 (1) -a (2)");
}

pub(super) async fn a_watch_of_the_future_waits(f: Fixture) {
    let now = f.revision().await;
    let mut watched = f.watch(now + 2).await;
    for value in ["1", "2", "3", "4"] {
        f.put("a", value).await;
    }
    assert_eq!(watched.render(2).await, "~a=3 (2) ~a=4 (3)");
}

pub(super) async fn a_watch_stays_in_its_folder(f: Fixture) {
    let inner = Fixture { folder: format!("{}a/", f.folder), ..f.clone() };
    let mut watched = inner.watch(f.revision().await).await;
    for name in ["a", "a/1", "a0", "ab", "b/1", "a/1/2", "a/"] {
        f.put(name, "x").await;
    }
    assert_eq!(watched.render(3).await, "+1=x +1/2=x +=x");
    let last = f.revision().await;
    watched.progress(last).await;
}

pub(super) async fn changes_carry_what_was_before(f: Fixture) {
    let mut watched = f.watch(f.revision().await).await;
    f.put("a", "1").await;
    f.put("a", "").await;
    f.delete("a").await;
    f.put("a", "3").await;
    let (_, events) = watched.events().await;
    assert_eq!(events[0].prev, None);
    let before = events[0].kv.clone();
    let (_, events) = watched.events().await;
    assert_eq!(events[0].prev, before);
    let before = events[0].kv.clone();
    let (_, events) = watched.events().await;
    assert_eq!((&events[0].kv, &events[0].prev), (&None, &before));
    let (_, events) = watched.events().await;
    assert_eq!(events[0].prev, None, "a new life has nothing before");
}

/// Whatever order the writers were acknowledged in, every watch shows one: that of the revisions, none missing.
pub(super) async fn concurrent_writers_are_seen_in_one_order(f: Fixture) {
    const WRITERS: usize = 16;
    const EACH: usize = 25;
    let start = f.revision().await;
    let mut early = f.watch(start).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let f = f.clone();
            tokio::spawn(async move {
                let mut revisions = Vec::new();
                for i in 0..EACH {
                    revisions.push(f.put(&format!("{writer}/{}", i % 5), i.to_string()).await);
                }
                assert!(revisions.is_sorted(), "one writer's writes are in order");
                revisions
            })
        })
        .collect();
    let mut acknowledged = BTreeSet::new();
    for writer in writers {
        acknowledged.extend(writer.await.expect("a writer"));
    }
    assert_eq!(acknowledged.len(), WRITERS * EACH, "no revision twice");
    for mut watched in [f.watch(start).await, f.watch(start).await] {
        for revision in &acknowledged {
            assert_eq!(watched.events().await.0, *revision);
        }
    }
    for revision in &acknowledged {
        assert_eq!(early.events().await.0, *revision);
    }
}

pub(super) async fn a_slow_reader_loses_nothing(f: Fixture) {
    const WRITES: usize = 3000;
    let mut watched = f.watch(f.revision().await).await;
    let value = vec![b'x'; 4096];
    let writers: Vec<_> = (0..10)
        .map(|writer| {
            let (f, value) = (f.clone(), value.clone());
            tokio::spawn(async move {
                let mut expect = 0;
                for _ in 0..WRITES / 10 {
                    expect =
                        super::done(f.txn(&format!("{writer}"), expect, super::put(value.clone())).await);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    let mut last = 0;
    for _ in 0..WRITES {
        let (revision, events) = watched.events().await;
        assert!(revision > last && events.len() == 1);
        last = revision;
    }
    watched.progress(f.revision().await).await;
}

pub(super) async fn giving_up_waiting_loses_nothing(f: Fixture) {
    let mut watched = f.watch(f.revision().await).await;
    let writer = {
        let f = f.clone();
        tokio::spawn(async move {
            for i in 0..200 {
                f.put("a", i.to_string()).await;
            }
        })
    };
    let mut seen = 0;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while seen < 200 {
        assert!(tokio::time::Instant::now() < deadline, "only {seen} came");
        // Most of these give up in the middle of something.
        let item = tokio::time::timeout(Duration::from_micros(seen % 7 * 20), watched.stream.next()).await;
        if let Ok(Some(Ok(WatchItem::Events { events, .. }))) = item {
            assert_eq!(events[0].kv.as_ref().expect("a put").value, seen.to_string());
            seen += 1;
        }
    }
    writer.await.expect("the writer");
}

/// Progress at a revision comes behind every change up to it.
pub(super) async fn progress_never_runs_ahead(f: Fixture) {
    let mut watched = f.watch(f.revision().await).await;
    let other = Fixture { folder: f.folder.replace("/contract/", "/contract-other/"), ..f.clone() };
    for i in 0..20 {
        let elsewhere = other.put("a", i.to_string()).await;
        assert!(watched.progress(elsewhere).await >= elsewhere, "a quiet folder follows the store");
        let mine = f.put("a", i.to_string()).await;
        f.store.request_progress(f.folder.as_bytes()).await.expect("ask");
        loop {
            match watched.item().await {
                Some(Ok(WatchItem::Progress { revision })) => assert!(revision < mine, "progress ran ahead"),
                Some(Ok(WatchItem::Events { revision, .. })) => break assert_eq!(revision, mine),
                other => panic!("{other:?}"),
            }
        }
    }
}

pub(super) async fn many_watches_see_their_own(f: Fixture) {
    let start = f.revision().await;
    let mut watches = Vec::new();
    for i in 0..100 {
        let folder = f.key(&format!("{i}/"));
        let stream = f.store.watch(&folder, start).await.expect("watch");
        watches.push(Watched { fixture: f.clone(), stream });
    }
    for i in 0..100 {
        f.put(&format!("{i}/a"), i.to_string()).await;
    }
    for (i, watched) in watches.iter_mut().enumerate() {
        assert_eq!(watched.render(1).await, format!("+{i}/a={i}"));
    }
    drop(watches.split_off(50));
    for i in 0..100 {
        f.put(&format!("{i}/a"), "again").await;
    }
    for (i, watched) in watches.iter_mut().enumerate() {
        assert_eq!(watched.render(1).await, format!("~{i}/a=again ({i})"));
    }
}

pub(super) async fn a_watch_of_forgotten_history_is_refused(f: Fixture) {
    let first = f.put("a", "1").await;
    f.put("a", "2").await;
    let to = f.put("a", "3").await;
    f.put("a", "4").await;
    f.store.compact(to).await.expect("compact");
    // Either the call refuses or the stream does.
    let refused = match f.store.watch(f.folder.as_bytes(), first - 1).await {
        Err(error) => error,
        Ok(stream) => match (Watched { fixture: f.clone(), stream }).item().await {
            Some(Err(error)) => error,
            other => panic!("{other:?}"),
        },
    };
    assert!(matches!(refused, StoreError::Compacted { .. }), "{refused:?}");
    let mut kept = f.watch(to - 1).await;
    assert_eq!(kept.events().await.0, to, "the compacted revision itself can still be watched");
    assert_eq!(kept.render(1).await, "~a=4 (3)");
}
