//! Gets and lists.

use bytes::Bytes;

use super::{Fixture, done, put};
use crate::store::{ListDetail, ListRequest, Op, StoreError, prefix_end};

pub(super) async fn get_finds_what_was_written(f: Fixture) {
    let before = f.store.get(&f.key("a")).await.expect("get");
    assert_eq!((before.kv, before.revision), (None, f.revision().await));

    let made = f.put("a", "1").await;
    let changed = f.put("a", "2").await;
    let got = f.store.get(&f.key("a")).await.expect("get");
    assert_eq!(got.revision, changed);
    let kv = got.kv.expect("it exists");
    assert_eq!((&kv.key, &kv.value), (&f.key("a"), &Bytes::from("2")));
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (made, changed, 2));

    f.delete("a").await;
    assert_eq!(f.get("a").await, None);
    let again = f.put("a", "").await;
    let kv = f.get("a").await.expect("it exists again");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (again, again, 1), "a new life");
    assert_eq!(kv.value, Bytes::new(), "an empty value is a value");
}

pub(super) async fn lists_stay_in_their_folder(f: Fixture) {
    for name in ["a", "a/1", "a/1/2", "a0", "ab", "b/1", "a/\u{10ffff}", "a/"] {
        f.put(name, "x").await;
    }
    f.store.txn(&[f.folder.as_bytes(), b"\xff\xff"].concat(), 0, put("end")).await.expect("put");
    for (prefix, start, want) in [
        ("a/", "", "a/ a/1 a/1/2 a/\u{10ffff}"),
        ("a", "", "a a/ a/1 a/1/2 a/\u{10ffff} a0 ab"),
        ("a/1", "", "a/1 a/1/2"),
        ("a/", "a/1\0", "a/1/2 a/\u{10ffff}"),
        ("a/", "a/zzz", "a/\u{10ffff}"),
        ("a/", "b", ""),
        ("a/", "a", "a/ a/1 a/1/2 a/\u{10ffff}"),
        ("b/", "", "b/1"),
        ("c/", "", ""),
    ] {
        let mut request = ListRequest::prefix(f.key(prefix));
        request.start = if start.is_empty() { Bytes::new() } else { f.key(start) };
        let list = f.store.list(request).await.expect("list");
        let got: Vec<_> = list.kvs.iter().map(|kv| f.name(&kv.key)).collect();
        assert_eq!(got.join(" "), want, "{prefix} from {start:?}");
        assert_eq!((list.count, list.more), (got.len() as u64, false), "{prefix} from {start:?}");
    }
    let high =
        f.store.list(ListRequest::prefix([f.folder.as_bytes(), b"\xff"].concat())).await.expect("list");
    assert_eq!(high.kvs.len(), 1, "a prefix that cannot be counted up");
    assert_eq!(prefix_end(b"\xff\xff"), None);
    assert_eq!(prefix_end(b"a\xff").as_deref(), Some(&b"b"[..]));
}

pub(super) async fn pages_of_one_revision_see_one_state(f: Fixture) {
    for i in 0..10 {
        f.put(&format!("k{i}"), "old").await;
    }
    let mut request = f.all().limit(4);
    let mut seen = Vec::new();
    let mut first_revision = None;
    for (page, left) in [6, 2, 0].into_iter().enumerate() {
        let list = f.store.list(request.clone()).await.expect("list");
        let revision = *first_revision.get_or_insert(list.revision);
        assert_eq!(list.revision, revision, "page {page}");
        assert_eq!(list.count - list.kvs.len() as u64, left, "page {page}");
        assert_eq!(list.more, left > 0, "page {page}");
        seen.extend(list.kvs.iter().map(|kv| f.render_kv(kv)));
        let last = list.kvs.last().expect("a page").key.clone();
        request = f.all().limit(4).after(&last).at(revision);
        // All that happens between the pages is none of their business.
        f.put("k9", format!("new {page}")).await;
        f.put(&format!("k3-{page}"), "new").await;
        f.put(&format!("k8-{page}"), "new").await;
        if page == 0 {
            f.delete("k5").await;
        }
    }
    let want: Vec<_> = (0..10).map(|i| format!("k{i}=old")).collect();
    assert_eq!(seen, want);
}

pub(super) async fn lists_at_revisions_see_the_past(f: Fixture) {
    let mut history = vec![(f.revision().await, "".to_string())];
    for (name, value) in [("a", "1"), ("b", "1"), ("a", "2"), ("b", ""), ("c", "1"), ("b", "3"), ("a", "")] {
        let revision = if value.is_empty() { f.delete(name).await } else { f.put(name, value).await };
        history.push((revision, f.render(f.all()).await));
    }
    assert_eq!(
        history.iter().map(|(_, state)| state.as_str()).collect::<Vec<_>>(),
        ["", "a=1", "a=1 b=1", "a=2 b=1", "a=2", "a=2 c=1", "a=2 b=3 c=1", "b=3 c=1"]
    );
    for (revision, state) in &history {
        let list = f.store.list(f.all().at(*revision)).await.expect("list");
        assert_eq!((list.revision, &f.render(f.all().at(*revision)).await), (*revision, state));
        let keys = f.store.list(f.all().at(*revision).detail(ListDetail::KeysOnly)).await.expect("keys");
        let revisions = |list: &crate::store::ListResult| -> Vec<_> {
            list.kvs
                .iter()
                .map(|kv| (kv.key.clone(), kv.create_revision, kv.mod_revision, kv.version))
                .collect()
        };
        assert_eq!(revisions(&keys), revisions(&list));
        assert!(keys.kvs.iter().all(|kv| kv.value.is_empty()));
        let count = f.store.list(f.all().at(*revision).detail(ListDetail::CountOnly)).await.expect("count");
        assert_eq!((count.count, count.kvs.len()), (list.kvs.len() as u64, 0));
    }
    let one = ListRequest { start: f.key("b"), ..ListRequest::prefix(f.key("b")).limit(1) };
    assert_eq!(f.render(one.at(history[3].0)).await, "b=1", "one key in the past");
}

pub(super) async fn revisions_that_do_not_exist_yet_are_refused(f: Fixture) {
    f.put("a", "1").await;
    let future = f.revision().await + 100;
    match f.store.list(f.all().at(future)).await {
        Err(StoreError::FutureRevision { requested, .. }) => assert_eq!(requested, future),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn large_lists_come_whole(f: Fixture) {
    let value = Bytes::from(vec![b'x'; 1 << 20]);
    for i in 0..12 {
        f.put(&format!("{i:02}"), value.clone()).await;
    }
    let list = f.store.list(f.all()).await.expect("12 MiB");
    assert_eq!(list.kvs.len(), 12);
    assert!(list.kvs.iter().all(|kv| kv.value == value));
}

pub(super) async fn compaction_forgets_the_past_and_keeps_the_present(f: Fixture) {
    let first = f.put("a", "1").await;
    f.put("b", "1").await;
    f.put("gone", "1").await;
    f.delete("gone").await;
    let to = f.put("a", "2").await;
    let last = f.put("b", "2").await;
    f.store.compact(to).await.expect("compact");

    assert_eq!(f.render(f.all()).await, "a=2 b=2");
    assert_eq!(f.render(f.all().at(to)).await, "a=2 b=1", "the revision itself is kept");
    assert_eq!(f.render(f.all().at(last)).await, "a=2 b=2");
    for revision in [first, to - 1] {
        match f.store.list(f.all().at(revision)).await {
            Err(StoreError::Compacted { requested, .. }) => assert_eq!(requested, revision),
            other => panic!("a list at {revision}: {other:?}"),
        }
    }
    assert!(matches!(f.store.compact(to).await, Err(StoreError::Compacted { .. })), "twice");
    assert!(matches!(f.store.compact(to - 1).await, Err(StoreError::Compacted { .. })), "backwards");
    assert!(matches!(f.store.compact(last + 100).await, Err(StoreError::FutureRevision { .. })), "too far");
    let kv = f.get("a").await.expect("it exists");
    assert_eq!((kv.create_revision, kv.version), (first, 2), "what is known of a key is not history");
    assert_eq!(done(f.txn("b", last, Op::Delete).await), last + 1, "writing goes on");
}
