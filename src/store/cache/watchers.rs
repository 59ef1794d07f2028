//! Who has to be woken by a change: the watchers of one resource, sorted by what they can possibly be interested in.
//!
//! A thousand kubelets watch the pods of one node each; a change of a pod must not wake a thousand tasks. A watcher stands
//! in exactly one bucket; a change looks up the few buckets that it can concern.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use compact_str::CompactString;

use super::entry::Entry;
use super::ring::{Batch, Change};
use crate::signal::Signal;

/// What a watcher can be interested in at most; its filter decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Bucket {
    /// Every object of the resource.
    All,
    /// The objects of one folder, that is of one namespace.
    Folder(Bytes),
    /// One object.
    Key(Bytes),
    /// The objects with this value in this selectable field.
    Field(usize, CompactString),
}

/// See the module.
#[derive(Default)]
pub(crate) struct Watchers {
    buckets: HashMap<Bucket, Vec<Arc<Signal>>>,
    /// The positions of the fields by which buckets are looked up.
    indexed: Box<[usize]>,
    count: usize,
}

impl Watchers {
    pub(crate) fn new(indexed: Box<[usize]>) -> Self {
        Self { indexed, ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn add(&mut self, bucket: Bucket, signal: Arc<Signal>) {
        self.buckets.entry(bucket).or_default().push(signal);
        self.count += 1;
    }

    pub(crate) fn remove(&mut self, bucket: &Bucket, signal: &Arc<Signal>) {
        let Some(signals) = self.buckets.get_mut(bucket) else { return };
        if let Some(at) = signals.iter().position(|other| Arc::ptr_eq(other, signal)) {
            signals.swap_remove(at);
            self.count -= 1;
        }
        if signals.is_empty() {
            self.buckets.remove(bucket);
        }
    }

    /// Raises the signals of all whom a batch may concern. Never waits.
    pub(crate) fn raise(&self, batch: &Batch) {
        if self.buckets.is_empty() {
            return;
        }
        self.raise_bucket(&Bucket::All, batch.revision);
        for change in &batch.changes {
            self.raise_change(change, batch.revision);
        }
    }

    fn raise_change(&self, change: &Change, revision: u64) {
        if let Some(slash) = change.key.iter().rposition(|&b| b == b'/') {
            self.raise_bucket(&Bucket::Folder(change.key.slice(..=slash)), revision);
        }
        self.raise_bucket(&Bucket::Key(change.key.clone()), revision);
        for &field in &self.indexed {
            let value = |entry: &Option<Arc<Entry>>| {
                entry.as_ref().and_then(|entry| entry.attributes.fields.get(field).cloned())
            };
            let (current, previous) = (value(&change.current), value(&change.previous));
            // Signals swallow repetitions, so equal values need no care.
            for value in [current, previous].into_iter().flatten() {
                self.raise_bucket(&Bucket::Field(field, value), revision);
            }
        }
    }

    fn raise_bucket(&self, bucket: &Bucket, revision: u64) {
        for signal in self.buckets.get(bucket).into_iter().flatten() {
            signal.raise(revision);
        }
    }

    /// Ends all watches: the history that they follow has been broken.
    pub(crate) fn close_all(&mut self) {
        for signal in self.buckets.drain().flat_map(|(_, signals)| signals) {
            signal.close();
        }
        self.count = 0;
    }
}
