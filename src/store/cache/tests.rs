//! The invariants of the cache, one by one, and all of them against a naive model.

mod measure;
mod model;
mod reads;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::embedded::EmbeddedStore;
use crate::store::{Op, Store, TxnResult};
use crate::testing::FaultyStore;

const PATIENCE: Duration = Duration::from_secs(10);
const PREFIX: &str = "/registry/pods/";
/// The selectable field that is indexed: the node.
const NODE: usize = 0;

/// Objects are `label=value,label=value|node|anything`.
struct TextCodec;

impl ObjectCodec for TextCodec {
    fn attributes(&self, key: &[u8], stored: &Bytes) -> Result<Attributes, CodecError> {
        let key = std::str::from_utf8(key)?.strip_prefix(PREFIX).ok_or("a key of another folder")?;
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let mut parts = std::str::from_utf8(stored)?.split('|');
        let labels = parts.next().unwrap_or_default();
        let label = |pair: &str| pair.split_once('=').map(|(name, value)| (name.into(), value.into()));
        Ok(Attributes {
            namespace: namespace.into(),
            name: name.into(),
            labels: labels.split(',').filter_map(label).collect(),
            fields: [parts.next().ok_or("no node")?.into()].into(),
        })
    }

    fn body(&self, stored: &Bytes, revision: u64, form: Form) -> Result<Bytes, CodecError> {
        Ok(format!("{}@{revision} as {}", std::str::from_utf8(stored)?, form.0).into())
    }
}

fn labelled(name: &'static str, value: &'static str) -> Filter {
    Arc::new(move |attributes| attributes.labels.iter().any(|(n, v)| n == name && v == value))
}

fn on_node(node: &str) -> (Filter, (usize, CompactString)) {
    let wanted = CompactString::from(node);
    let field = (NODE, wanted.clone());
    (Arc::new(move |attributes| attributes.fields[NODE] == wanted), field)
}

fn config() -> CacheConfig {
    CacheConfig { indexes: [NODE].into(), ..CacheConfig::new("pods", PREFIX) }
}

/// A cache over an embedded store with faults.
struct Bench {
    /// What the cache follows.
    store: Arc<FaultyStore>,
    /// Where the tests write: the same keys, without the faults.
    writes: Arc<dyn Store>,
    cache: Arc<Cache>,
}

impl Bench {
    fn new(config: CacheConfig) -> Self {
        let embedded: Arc<dyn Store> = Arc::new(EmbeddedStore::ephemeral().expect("open"));
        Self::over(embedded.clone(), embedded, config)
    }

    fn over(store: Arc<dyn Store>, writes: Arc<dyn Store>, config: CacheConfig) -> Self {
        let store = FaultyStore::new(store);
        let cache = Cache::new(store.clone(), Arc::new(TextCodec), config, BodyBudget::new(BODY_BYTES_MAX));
        Self { store, writes, cache: Arc::new(cache) }
    }

    async fn put(&self, name: &str, value: &str) -> u64 {
        let key = format!("{PREFIX}{name}");
        let expect = self.writes.get(key.as_bytes()).await.expect("get").kv.map_or(0, |kv| kv.mod_revision);
        let op = Op::Put { value: Bytes::copy_from_slice(value.as_bytes()), ttl_seconds: None };
        done(self.writes.txn(key.as_bytes(), expect, op).await.expect("txn"))
    }

    /// A put that knows what it replaces, as the registry's: one trip to the store.
    async fn put_blindly(&self, name: &str, value: &str) -> u64 {
        let key = format!("{PREFIX}{name}");
        let held = self.cache.get(key.as_bytes(), ReadAt::Any).await.expect("get").entry;
        let op = Op::Put { value: Bytes::copy_from_slice(value.as_bytes()), ttl_seconds: None };
        let expect = held.map_or(0, |entry| entry.revision);
        done(self.writes.txn(key.as_bytes(), expect, op).await.expect("txn"))
    }

    async fn delete(&self, name: &str) -> u64 {
        let key = format!("{PREFIX}{name}");
        let kv = self.writes.get(key.as_bytes()).await.expect("get").kv.expect("it exists");
        done(self.writes.txn(key.as_bytes(), kv.mod_revision, Op::Delete).await.expect("txn"))
    }

    async fn list(&self, at: ReadAt) -> Result<Listing, CacheError> {
        self.cache.list(ListQuery::new(Scope::Resource, at)).await
    }

    async fn watch(&self, start: WatchStart) -> Watched {
        self.watch_for(WatchQuery::new(Scope::Resource, start)).await
    }

    async fn watch_for(&self, query: WatchQuery) -> Watched {
        Watched(self.cache.watch(query).await.expect("watch"))
    }

    /// Waits until the cache shows everything that was written.
    async fn settle(&self) -> u64 {
        self.list(ReadAt::Latest).await.expect("list").revision
    }
}

fn done(result: TxnResult) -> u64 {
    match result {
        TxnResult::Done { revision } => revision,
        conflict => panic!("{conflict:?}"),
    }
}

fn folder(namespace: &str) -> Scope {
    Scope::Folder(format!("{PREFIX}{namespace}/").into())
}

fn key(name: &str) -> Bytes {
    format!("{PREFIX}{name}").into()
}

fn name(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.key).trim_start_matches(PREFIX).to_string()
}

fn names(entries: &[Arc<Entry>]) -> String {
    entries.iter().map(|entry| name(entry)).collect::<Vec<_>>().join(" ")
}

/// A watch with words for what is expected of it.
struct Watched(Watcher);

impl Watched {
    async fn next(&mut self) -> Option<WatchEvent> {
        tokio::time::timeout(PATIENCE, self.0.next()).await.expect("the watch delivers nothing")
    }

    /// `+a/x ~a/x -a/x *`: added, modified, deleted, bookmark; `.` for the end.
    async fn render(&mut self, events: usize) -> String {
        let mut words = Vec::new();
        for _ in 0..events {
            words.push(self.next().await.map_or(".".into(), |event| render(&event)));
        }
        words.join(" ")
    }

    /// Asserts that nothing comes for a while.
    async fn is_quiet(&mut self) {
        if let Ok(event) = tokio::time::timeout(Duration::from_millis(50), self.0.next()).await {
            panic!("{:?} came", event.map(|event| render(&event)));
        }
    }
}

fn render(event: &WatchEvent) -> String {
    match event {
        WatchEvent::Change { kind, entry } => {
            let sign = match kind {
                ChangeKind::Added => '+',
                ChangeKind::Modified => '~',
                ChangeKind::Deleted => '-',
            };
            format!("{sign}{}", name(entry))
        }
        WatchEvent::Bookmark { initial_events_end: true, .. } => "**".into(),
        WatchEvent::Bookmark { .. } => "*".into(),
    }
}
