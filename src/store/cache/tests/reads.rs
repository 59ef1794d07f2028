//! Gets and lists.

use super::*;
use crate::store::{ListDetail, ListRequest, StoreError};

#[tokio::test]
async fn the_first_reader_fills_the_cache() {
    let bench = Bench::new(config());
    bench.put("a/x", "|n1|").await;
    let revision = bench.put("a/y", "|n1|").await;
    assert!(!bench.cache.is_ready());
    let listing = bench.list(ReadAt::Any).await.expect("list");
    assert_eq!((names(&listing.entries).as_str(), listing.revision), ("a/x a/y", revision));
    let entry = &listing.entries[0];
    assert_eq!((&*entry.attributes.namespace, &*entry.attributes.name), ("a", "x"));
}

/// A held watch stands for a store whose news are late. `Latest` must not show the past, `Any` may.
#[tokio::test]
async fn each_kind_of_read_sees_what_it_must() {
    let bench = Bench::new(config());
    let old = bench.put("a/x", "|n1|old").await;
    bench.settle().await;
    bench.store.set(|faults| faults.hold_watches = true);
    let new = bench.put("a/x", "|n1|new").await;

    let any = bench.list(ReadAt::Any).await.expect("list");
    assert_eq!(any.revision, old);
    let latest = bench.list(ReadAt::Latest).await.expect("read through after a while");
    assert_eq!((latest.revision, &latest.entries[0].stored[..]), (new, &b"|n1|new"[..]));
    let got = bench.cache.get(&key("a/x"), ReadAt::Latest).await.expect("get");
    assert_eq!((got.revision, got.entry.expect("it exists").revision), (new, new));
    let got = bench.cache.get(&key("a/x"), ReadAt::Any).await.expect("get");
    assert_eq!((got.revision, got.entry.expect("it exists").revision), (old, old));
    let late = bench.list(ReadAt::AtLeast(new)).await;
    assert!(
        matches!(late, Err(CacheError::TooLarge { asked, current }) if (asked, current) == (new, old)),
        "{late:?}"
    );

    bench.store.set(|faults| faults.hold_watches = false);
    assert_eq!(bench.list(ReadAt::AtLeast(new)).await.expect("list").revision, new);
    let future = bench.cache.get(&key("a/x"), ReadAt::AtLeast(new + 5)).await;
    assert!(matches!(future, Err(CacheError::TooLarge { .. })), "{future:?}");
}

#[tokio::test]
async fn own_writes_are_seen_at_once_also_where_nothing_changed() {
    let bench = Bench::new(config());
    bench.put("a/x", "|n1|").await;
    bench.settle().await;
    for i in 0..50 {
        // The revision of a write elsewhere is reached by progress alone.
        let op = Op::Put { value: "1".into(), ttl_seconds: None };
        let elsewhere = done(bench.store.txn(format!("/other/{i}").as_bytes(), 0, op).await.expect("txn"));
        assert!(bench.list(ReadAt::Latest).await.expect("list").revision >= elsewhere);
        let mine = bench.put(&format!("a/{i}"), "|n1|").await;
        let listing = bench.list(ReadAt::Latest).await.expect("list");
        assert!(listing.entries.iter().any(|entry| entry.revision == mine));
    }
    assert_eq!(
        bench.store.lists.lock().len(),
        1,
        "none of them asked the store for more than the first list"
    );
}

#[tokio::test]
async fn a_store_without_progress_is_read_through() {
    let bench = Bench::new(config());
    bench.store.set(|faults| faults.no_progress = true);
    let revision = bench.put("a/x", "|n1|").await;
    assert_eq!(bench.settle().await, revision);
    assert_eq!(names(&bench.list(ReadAt::Any).await.expect("list").entries), "a/x");
}

#[tokio::test]
async fn scopes_filters_and_limits() {
    let bench = Bench::new(config());
    for (name, value) in [
        ("a/x", "app=web|n1|"),
        ("a/y", "app=db|n2|"),
        ("ab/x", "app=web|n2|"),
        ("b/x", "app=web|n1|"),
        ("b/xy", "app=db|n1|"),
    ] {
        bench.put(name, value).await;
    }
    let web = || Some(labelled("app", "web"));
    let (n1, n1_field) = on_node("n1");
    let query = ListQuery::new(Scope::Resource, ReadAt::Latest);
    let revision = bench.settle().await;
    for (what, query, want, remaining) in [
        ("everything", query.clone(), "a/x a/y ab/x b/x b/xy", None),
        ("a namespace", ListQuery { scope: folder("a"), ..query.clone() }, "a/x a/y", None),
        ("one", ListQuery { scope: Scope::Key(key("b/x")), ..query.clone() }, "b/x", None),
        ("one that is not", ListQuery { scope: Scope::Key(key("b/")), ..query.clone() }, "", None),
        ("by label", ListQuery { filter: web(), ..query.clone() }, "a/x ab/x b/x", None),
        ("a page", ListQuery { limit: 2, ..query.clone() }, "a/x a/y …", Some(3)),
        ("the rest", ListQuery { limit: 3, start: key("a/y\0"), ..query.clone() }, "ab/x b/x b/xy", None),
        ("a page by label", ListQuery { limit: 2, filter: web(), ..query.clone() }, "a/x ab/x …", None),
        // What is left is not looked at: the next page is empty.
        (
            "a last page by label",
            ListQuery { limit: 1, filter: web(), start: key("b/x"), ..query.clone() },
            "b/x …",
            None,
        ),
        (
            "by node",
            ListQuery { filter: Some(n1.clone()), field: Some(n1_field.clone()), ..query.clone() },
            "a/x b/x b/xy",
            None,
        ),
        (
            "by node in a namespace, a page",
            ListQuery {
                scope: folder("b"),
                limit: 1,
                filter: Some(n1),
                field: Some(n1_field),
                ..query.clone()
            },
            "b/x …",
            None,
        ),
        (
            "a namespace, a page",
            ListQuery { scope: folder("b"), limit: 1, ..query.clone() },
            "b/x …",
            Some(1),
        ),
    ] {
        // The state, a kept state, and the store itself select the same.
        for at in [ReadAt::Latest, ReadAt::Exactly(revision), ReadAt::Exactly(revision - 1)] {
            let listing = bench.cache.list(ListQuery { at, ..query.clone() }).await.expect("list");
            let dots = if listing.more { " …" } else { "" };
            let got = format!("{}{dots}", names(&listing.entries));
            if at == ReadAt::Exactly(revision - 1) {
                // Before the last write.
                assert!(!got.contains("b/xy"), "{what} {at:?}: {got}");
                continue;
            }
            assert_eq!((got.as_str(), listing.remaining), (want, remaining), "{what} {at:?}");
        }
    }
}

/// The pages of a list and the watch behind it see one history, whether the state is still kept or only the store has it.
#[tokio::test]
async fn pages_and_watch_see_one_history() {
    for forget in [false, true] {
        let bench = Bench::new(config());
        for i in 0..10 {
            bench.put(&format!("a/{i}"), "|n1|old").await;
        }
        let mut query = ListQuery { limit: 4, ..ListQuery::new(Scope::Resource, ReadAt::Latest) };
        let mut seen = Vec::new();
        let mut writes = 0;
        let revision = loop {
            let page = bench.cache.list(query.clone()).await.expect("a page");
            seen.extend(page.entries.iter().map(|entry| format!("{}{}", name(entry), &entry.stored.len())));
            let last = page.entries.last().expect("a page").key.clone();
            bench.put("a/9", "|n1|new and longer").await;
            bench.put(&format!("a/5{writes}"), "|n1|new").await;
            bench.put(&format!("a/2{writes}"), "|n1|new").await;
            writes += 3;
            bench.settle().await;
            if forget {
                bench.cache.shared.kept.lock().clear();
            }
            if !page.more {
                break page.revision;
            }
            query.at = ReadAt::Exactly(page.revision);
            query.start = [&last[..], &[0]].concat().into();
        };
        assert_eq!(seen, (0..10).map(|i| format!("a/{i}7")).collect::<Vec<_>>());
        let mut watched = bench.watch(WatchStart::After(revision)).await;
        let want = "~a/9 +a/50 +a/20 ~a/9 +a/53 +a/23 ~a/9 +a/56 +a/26";
        assert_eq!(watched.render(9).await, want);
        let full = |request: &&ListRequest| request.detail == ListDetail::Full;
        let lists_of_the_store = bench.store.lists.lock().iter().filter(full).count();
        assert_eq!(lists_of_the_store, if forget { 3 } else { 1 }, "kept states save the store the pages");
    }
}

#[tokio::test]
async fn an_exact_revision_is_exact() {
    let bench = Bench::new(config());
    let first = bench.put("a/x", "|n1|").await;
    let second = bench.put("a/y", "|n1|").await;
    bench.settle().await;
    let third = bench.delete("a/x").await;
    for (revision, want) in [(first, "a/x"), (second, "a/x a/y"), (third, "a/y")] {
        let listing = bench.list(ReadAt::Exactly(revision)).await.expect("list");
        assert_eq!((names(&listing.entries).as_str(), listing.revision), (want, revision));
        let got = bench.cache.get(&key("a/x"), ReadAt::Exactly(revision)).await.expect("get");
        assert_eq!(got.entry.is_some(), want.contains("a/x"));
    }
    bench.store.compact(third).await.expect("compact");
    let gone = bench.list(ReadAt::Exactly(first)).await;
    assert!(matches!(gone, Err(CacheError::Store(StoreError::Compacted { .. }))), "{gone:?}");
}

/// What the store has forgotten nobody shows, though the state is held: kept for pages, or unchanged since.
#[tokio::test]
async fn held_states_are_compacted_with_the_store() {
    for changed in [false, true] {
        let bench = Bench::new(config());
        for name in ["a/x", "a/y", "a/z"] {
            bench.put(name, "|n1|").await;
        }
        let mut query = ListQuery { limit: 2, ..ListQuery::new(Scope::Resource, ReadAt::Latest) };
        let page = bench.cache.list(query.clone()).await.expect("a page");
        query.at = ReadAt::Exactly(page.revision);
        query.start = key("a/y\0");
        if changed {
            bench.put("a/w", "|n1|").await;
            bench.settle().await;
        }
        assert_eq!(names(&bench.cache.list(query.clone()).await.expect("the rest").entries), "a/z");
        let other = bench.store.txn(b"/elsewhere", 0, Op::Put { value: "x".into(), ttl_seconds: None }).await;
        other.expect("a write of another resource");
        let newest = bench.store.current_revision().await.expect("revision");
        bench.store.compact(newest).await.expect("compact");
        let gone = bench.cache.list(query).await;
        assert!(matches!(gone, Err(CacheError::Store(StoreError::Compacted { .. }))), "{changed}: {gone:?}");
    }
}

/// Until the first list is there, a list says so after a while, and a get is answered by the store.
#[tokio::test]
async fn a_cache_that_is_not_filled_never_shows_an_empty_list() {
    let bench = Bench::new(config());
    bench.put("a/x", "|n1|").await;
    bench.store.set(|faults| faults.hold_lists = true);
    let listing = bench.list(ReadAt::Any).await;
    assert!(matches!(listing, Err(CacheError::NotReady)), "{listing:?}");
    let watch = bench.cache.watch(WatchQuery::new(Scope::Resource, WatchStart::State(ReadAt::Any))).await;
    assert!(matches!(watch, Err(CacheError::NotReady)));
    for at in [ReadAt::Any, ReadAt::Latest] {
        assert!(bench.cache.get(&key("a/x"), at).await.expect("get").entry.is_some());
    }
    bench.store.set(|faults| faults.hold_lists = false);
    assert_eq!(names(&bench.list(ReadAt::Any).await.expect("list").entries), "a/x");
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_named() {
    let bench = Bench::new(config());
    bench.put("a/x", "|n1|").await;
    bench.put("a/broken", "no bars").await;
    assert!(matches!(bench.list(ReadAt::Any).await, Err(CacheError::NotReady)));
    match bench.cache.get(&key("a/broken"), ReadAt::Latest).await {
        Err(CacheError::Corrupt { key, .. }) => assert_eq!(key, "/registry/pods/a/broken"),
        other => panic!("{other:?}"),
    }
    assert!(bench.cache.get(&key("a/x"), ReadAt::Latest).await.expect("get").entry.is_some());
    bench.delete("a/broken").await;
    assert_eq!(
        names(&bench.list(ReadAt::Any).await.expect("list").entries),
        "a/x",
        "once it is gone all is well"
    );
}

/// Gets, lists and watches of one revision hand out the same bytes.
#[tokio::test]
async fn readers_share_bodies() {
    let bench = Bench::new(config());
    let mut watched = bench.watch(WatchStart::State(ReadAt::Any)).await;
    let mut other = bench.watch(WatchStart::State(ReadAt::Any)).await;
    let revision = bench.put("a/x", "|n1|").await;
    let entry = |event: Option<WatchEvent>| match event {
        Some(WatchEvent::Change { entry, .. }) => entry,
        other => panic!("{other:?}"),
    };
    let got =
        bench.cache.get(&key("a/x"), ReadAt::AtLeast(revision)).await.expect("get").entry.expect("it exists");
    let through = bench.cache.get(&key("a/x"), ReadAt::Latest).await.expect("get").entry.expect("it exists");
    let listed = bench.list(ReadAt::Latest).await.expect("list").entries.remove(0);
    let body = bench.cache.body(&got, Form(1)).expect("body");
    assert_eq!(body, format!("|n1|@{revision} as 1"));
    for entry in [through, listed, entry(watched.next().await), entry(other.next().await)] {
        assert_eq!(bench.cache.body(&entry, Form(1)).expect("body").as_ptr(), body.as_ptr());
    }
    let gone = bench.delete("a/x").await;
    let (one, two) = (entry(watched.next().await), entry(other.next().await));
    let body = watched.0.body(&one, Form(0)).expect("body");
    assert_eq!(body, format!("|n1|@{gone} as 0"), "the last sight of it, at the revision of the deletion");
    assert_eq!(other.0.body(&two, Form(0)).expect("body").as_ptr(), body.as_ptr());
}
