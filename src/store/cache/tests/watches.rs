//! Watches.

use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn every_kind_of_start() {
    let bench = Bench::new(config());
    bench.put("a/w", "|n1|").await;
    bench.settle().await;
    let x = bench.put("a/x", "|n1|").await;
    let y = bench.put("a/y", "|n1|").await;
    bench.settle().await;
    let initial = |at| WatchQuery {
        initial_events_end: true,
        bookmarks: true,
        ..WatchQuery::new(Scope::Resource, WatchStart::State(at))
    };
    let after = |after| WatchQuery::new(Scope::Resource, WatchStart::After(after));
    let now = |at| WatchQuery::new(Scope::Resource, WatchStart::Now(at));
    let mut watches = Vec::new();
    for (what, query, want) in [
        ("behind the first list", after(x - 1), "+a/x +a/y +a/z -a/x"),
        ("in between", after(x), "+a/y +a/z -a/x"),
        ("the newest", after(y), "+a/z -a/x"),
        ("the future", after(y + 1), "-a/x"),
        ("now, at hand", now(ReadAt::Any), "+a/z -a/x"),
        ("now, of the store", now(ReadAt::Latest), "+a/z -a/x"),
        (
            "the state without a bookmark",
            WatchQuery::new(Scope::Resource, WatchStart::State(ReadAt::Any)),
            "+a/w +a/x +a/y +a/z -a/x",
        ),
        ("the state at hand", initial(ReadAt::Any), "+a/w +a/x +a/y ** +a/z -a/x"),
        ("the newest state", initial(ReadAt::Latest), "+a/w +a/x +a/y ** +a/z -a/x"),
        ("a state not older", initial(ReadAt::AtLeast(y)), "+a/w +a/x +a/y ** +a/z -a/x"),
    ] {
        watches.push((what, bench.watch_for(query).await, want));
    }
    bench.put("a/z", "|n1|").await;
    bench.delete("a/x").await;
    for (what, mut watched, want) in watches {
        assert_eq!(watched.render(want.split(' ').count()).await, want, "{what}");
        watched.is_quiet().await;
    }
    let too_old = bench.cache.watch(after(1)).await.map(|_| ());
    assert!(
        matches!(too_old, Err(CacheError::Expired { asked: 1, oldest }) if oldest == x - 1),
        "{too_old:?}"
    );
    let too_new = bench.cache.watch(initial(ReadAt::AtLeast(y + 100))).await.map(|_| ());
    assert!(matches!(too_new, Err(CacheError::TooLarge { .. })), "{too_new:?}");
}

/// What a change means depends on whether the object was selected before and is now.
#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let bench = Bench::new(config());
    let watch = |filter| {
        let query = WatchQuery { filter, ..WatchQuery::new(Scope::Resource, WatchStart::State(ReadAt::Any)) };
        bench.watch_for(query)
    };
    let mut web = watch(Some(labelled("app", "web"))).await;
    let mut all = watch(None).await;
    let mut elsewhere =
        bench.watch_for(WatchQuery { ..WatchQuery::new(folder("b"), WatchStart::State(ReadAt::Any)) }).await;
    bench.put("a/x", "app=db|n1|1").await;
    bench.put("a/x", "app=web|n1|2").await;
    bench.put("a/x", "app=web|n1|3").await;
    let left = bench.put("a/x", "app=db|n1|4").await;
    bench.put("a/x", "app=db|n1|5").await;
    bench.put("a/x", "app=web|n1|6").await;
    let gone = bench.delete("a/x").await;
    assert_eq!(all.render(7).await, "+a/x ~a/x ~a/x ~a/x ~a/x ~a/x -a/x");
    assert_eq!(web.render(2).await, "+a/x ~a/x");
    for (revision, content) in [(left, "app=web|n1|3"), (gone, "app=web|n1|6")] {
        match web.next().await {
            Some(WatchEvent::Change { kind: ChangeKind::Deleted, entry }) => {
                assert_eq!((entry.revision, &entry.stored[..]), (revision, content.as_bytes()));
            }
            other => panic!("{other:?}"),
        }
        if revision == left {
            assert_eq!(web.render(1).await, "+a/x");
        }
    }
    web.is_quiet().await;
    elsewhere.is_quiet().await;
}

/// A watcher is woken by what concerns it only, and loses nothing by having slept while the ring went round.
#[tokio::test]
async fn selective_watchers_sleep_through_the_rest() {
    let ring = RingLimits { batches_max: 8, batches_min: 8, ..RingLimits::default() };
    let bench = Bench::new(CacheConfig { ring, ..config() });
    bench.settle().await;
    let start = WatchStart::Now(ReadAt::Any);
    let (filter, field) = on_node("n7");
    let mut by_node = bench
        .watch_for(WatchQuery {
            filter: Some(filter),
            field: Some(field),
            ..WatchQuery::new(Scope::Resource, start)
        })
        .await;
    let mut by_key = bench.watch_for(WatchQuery::new(Scope::Key(key("b/x")), start)).await;
    let mut by_folder = bench.watch_for(WatchQuery::new(folder("b"), start)).await;
    for round in 0..3 {
        for i in 0..100 {
            bench.put(&format!("a/{i}"), &format!("|n{round}|{i}")).await;
        }
        bench.settle().await;
        for watched in [&by_node, &by_key, &by_folder] {
            assert!(!watched.0.signal.is_raised());
        }
        bench.put("b/x", "|n7|").await;
        bench.put("b/x", "|n8|").await;
        let first = if round == 0 { "+b/x" } else { "~b/x" };
        assert_eq!(by_node.render(2).await, "+b/x -b/x");
        assert_eq!(by_key.render(2).await, format!("{first} ~b/x"));
        assert_eq!(by_folder.render(2).await, format!("{first} ~b/x"));
    }
}

/// Who falls behind the ring is closed; nobody else notices, and the cache does not wait.
#[tokio::test]
async fn a_watcher_that_stays_behind_is_closed() {
    let ring = RingLimits { batches_max: 50, ..RingLimits::default() };
    let bench = Bench::new(CacheConfig { ring, ..config() });
    let mut slow = bench.watch(WatchStart::State(ReadAt::Any)).await;
    let mut quick = bench.watch(WatchStart::State(ReadAt::Any)).await;
    for i in 0..200 {
        bench.put("a/x", &format!("|n1|{i}")).await;
        quick.next().await.expect("it keeps up");
    }
    bench.settle().await;
    assert_eq!(slow.render(1).await, ".");
    assert_eq!(slow.render(1).await, ".", "the end stays the end");
    bench.put("a/x", "|n1|").await;
    assert_eq!(quick.render(1).await, "~a/x");
    drop((slow, quick));
    assert_eq!(bench.cache.stats().watchers, 0);
}

/// A slow reader of a long initial state is not behind: the state waits for it.
#[tokio::test]
async fn a_long_initial_state_may_be_read_slowly() {
    let bench = Bench::new(config());
    for i in 0..1000 {
        bench.put(&format!("a/{i:03}"), "|n1|").await;
    }
    let mut watched = bench.watch(WatchStart::State(ReadAt::Latest)).await;
    for i in 0..1000 {
        if i % 100 == 0 {
            bench.put(&format!("a/{:03}", 999 - i), "|n2|").await;
        }
        assert_eq!(watched.render(1).await, format!("+a/{i:03}"));
    }
    assert_eq!(
        watched.render(10).await,
        (0..10).map(|i| format!("~a/{:03}", 999 - i * 100)).collect::<Vec<_>>().join(" ")
    );
}

/// After a gap in the store's watch all watches end, the state is filled again, and nobody resumes across the gap.
#[tokio::test]
async fn a_gap_closes_watches_and_fills_anew() {
    let bench = Bench::new(config());
    let before = bench.put("a/x", "|n1|").await;
    let mut watched = bench.watch(WatchStart::State(ReadAt::Latest)).await;
    assert_eq!(watched.render(1).await, "+a/x");
    bench.store.set(|faults| faults.hold_watches = true);
    bench.delete("a/x").await;
    let after = bench.put("a/y", "|n1|").await;
    bench.store.set(|faults| faults.hold_watches = false);
    bench.store.break_watches();
    // It may have seen what came before the gap or not.
    while let Some(event) = watched.next().await {
        assert!(matches!(render(&event).as_str(), "-a/x" | "+a/y"));
    }
    let listing = bench.list(ReadAt::Latest).await.expect("list");
    assert_eq!((names(&listing.entries).as_str(), listing.revision), ("a/y", after));
    let query = WatchQuery::new(Scope::Resource, WatchStart::After(before));
    let resumed = bench.cache.watch(query).await.map(|_| ());
    assert!(matches!(resumed, Err(CacheError::Expired { .. })), "{resumed:?}");
    let mut watched = bench.watch(WatchStart::After(listing.revision)).await;
    bench.put("a/z", "|n1|").await;
    assert_eq!(watched.render(1).await, "+a/z");
}

#[tokio::test]
async fn dropping_the_cache_ends_its_watches() {
    let bench = Bench::new(config());
    let mut watched = bench.watch(WatchStart::State(ReadAt::Any)).await;
    drop(bench);
    assert_eq!(watched.render(1).await, ".");
}

#[tokio::test]
async fn giving_up_waiting_loses_nothing() {
    let bench = Bench::new(config());
    let mut watched = bench.watch(WatchStart::State(ReadAt::Any)).await;
    let writer = async {
        for i in 0..300 {
            bench.put("a/x", &format!("|n1|{i}")).await;
        }
    };
    let reader = async {
        let (mut seen, mut tries) = (0, 0u64);
        while seen < 300 {
            tries += 1;
            let wait = Duration::from_micros(tries % 5 * 30);
            if let Ok(event) = tokio::time::timeout(wait, watched.0.next()).await {
                match event {
                    Some(WatchEvent::Change { entry, .. }) => {
                        assert!(entry.stored.ends_with(format!("|{seen}").as_bytes()))
                    }
                    other => panic!("{other:?}"),
                }
                seen += 1;
                while let Some(event) = watched.0.try_next() {
                    assert!(matches!(event, WatchEvent::Change { .. }));
                    seen += 1;
                }
            }
        }
    };
    tokio::join!(writer, reader);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_every_minute_and_before_the_end() {
    let bench = Bench::new(config());
    let revision = bench.settle().await;
    let start = Instant::now();
    let query = WatchQuery {
        bookmarks: true,
        deadline: Some(start + Duration::from_secs(150)),
        ..WatchQuery::new(Scope::Resource, WatchStart::After(revision))
    };
    let mut watched = Watched(bench.cache.watch(query.clone()).await.expect("watch"));
    let mut without =
        Watched(bench.cache.watch(WatchQuery { bookmarks: false, ..query }).await.expect("watch"));
    let mut times = Vec::new();
    while let Some(event) = watched.0.next().await {
        assert!(
            matches!(event, WatchEvent::Bookmark { revision: at, initial_events_end: false } if at == revision)
        );
        times.push(start.elapsed().as_secs());
    }
    times.push(start.elapsed().as_secs());
    assert_eq!(times, [60, 120, 148, 150]);
    assert!(without.0.next().await.is_none(), "its time is over, too");
}

/// A bookmark speaks of a revision only when everything up to it has been handed out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookmarks_never_run_ahead() {
    let bench = Arc::new(Bench::new(config()));
    bench.settle().await;
    let writer = {
        let bench = bench.clone();
        tokio::spawn(async move {
            for i in 0..500 {
                bench.put("a/x", &format!("|n1|{i}")).await;
            }
        })
    };
    let query =
        WatchQuery { bookmarks: true, ..WatchQuery::new(Scope::Resource, WatchStart::State(ReadAt::Any)) };
    let mut watched = bench.watch_for(query).await;
    let (mut last, mut bookmarks, mut is_written) = (0, 0, false);
    // What was written before the watch began is one object of its initial state.
    while !is_written {
        // As if its minute were over each time.
        watched.0.next_bookmark = Some(Instant::now());
        match watched.next().await.expect("it goes on") {
            WatchEvent::Bookmark { revision, .. } => {
                assert!(revision >= last);
                last = revision;
                bookmarks += 1;
            }
            WatchEvent::Change { entry, .. } => {
                assert!(entry.revision > last, "{} came after a bookmark at {last}", entry.revision);
                last = entry.revision;
                is_written = entry.stored.ends_with(b"|499");
            }
        }
    }
    writer.await.expect("the writer");
    assert!(bookmarks > 0);
}

/// A cache of changes only: lists and initial states come from the store, watches from the ring.
#[tokio::test]
async fn events_keep_no_second_copy() {
    let bench = Bench::new(CacheConfig { hold: Hold::Changes, ..config() });
    for i in 0..1200 {
        bench.put(&format!("a/{i:04}"), "app=web|n1|").await;
    }
    let revision = bench.put("b/x", "app=db|n2|").await;
    let listing = bench.list(ReadAt::Latest).await.expect("list");
    assert_eq!((listing.entries.len(), listing.revision), (1201, revision));
    assert_eq!(bench.cache.stats().objects, 0);
    let query = ListQuery {
        limit: 1,
        filter: Some(labelled("app", "db")),
        ..ListQuery::new(Scope::Resource, ReadAt::AtLeast(revision))
    };
    assert_eq!(names(&bench.cache.list(query).await.expect("list").entries), "b/x");
    assert!(matches!(bench.list(ReadAt::AtLeast(revision + 9)).await, Err(CacheError::TooLarge { .. })));

    let query = WatchQuery {
        initial_events_end: true,
        ..WatchQuery::new(folder("a"), WatchStart::State(ReadAt::Latest))
    };
    let mut watched = bench.watch_for(query).await;
    let mut db = bench
        .watch_for(WatchQuery {
            filter: Some(labelled("app", "db")),
            ..WatchQuery::new(Scope::Resource, WatchStart::Now(ReadAt::Any))
        })
        .await;
    assert_eq!(watched.render(1).await, "+a/0000");
    bench.put("a/0000", "app=db|n1|").await;
    bench.put("b/x", "app=web|n2|").await;
    bench.delete("a/0000").await;
    for i in 1..1200 {
        // Pages are of one revision, so what changed meanwhile comes behind.
        assert_eq!(watched.render(1).await, format!("+a/{i:04}"));
    }
    assert_eq!(watched.render(3).await, "** ~a/0000 -a/0000");
    assert_eq!(db.render(3).await, "+a/0000 -b/x -a/0000");
    assert_eq!(bench.cache.stats().objects, 0);
}
