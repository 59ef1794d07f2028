//! Between a stream to etcd and one of its readers: a bounded queue.
//!
//! The stream never waits for a reader. A queue that is full tells the stream so, which takes the watch off etcd until the
//! reader has caught up.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::store::{StoreError, WatchItem};
use crate::watch_stream::WatchSource;

/// What a reader may leave unread: revisions, and bytes of their values.
const QUEUE_ITEMS_MAX: usize = 4096;
const QUEUE_BYTES_MAX: usize = 8 << 20;

/// What a stream's task is told.
pub(super) enum Command {
    /// Somebody wants the changes behind `after`.
    Open { prefix: Bytes, after: u64, queue: Weak<Queue> },
    /// Queues have been read empty, or dropped: look after them.
    Look,
}

/// What a stream has for one reader.
#[derive(Default)]
pub(super) struct Queue {
    unread: Mutex<Unread>,
    filled: Notify,
}

#[derive(Default)]
struct Unread {
    items: VecDeque<WatchItem>,
    bytes: usize,
    /// Comes after the items.
    end: Option<StoreError>,
    /// The stream has stopped filling it until it is read empty.
    overflowed: bool,
}

impl Queue {
    /// False: there is no room.
    pub(super) fn push(&self, item: WatchItem) -> bool {
        let mut unread = self.unread.lock();
        if let (WatchItem::Progress { .. }, Some(last @ WatchItem::Progress { .. })) =
            (&item, unread.items.back_mut())
        {
            *last = item;
            return true;
        }
        let bytes = item_bytes(&item);
        let has_room = unread.items.len() < QUEUE_ITEMS_MAX && unread.bytes + bytes <= QUEUE_BYTES_MAX;
        // One item always has room, however large.
        if !unread.items.is_empty() && !has_room {
            unread.overflowed = true;
            return false;
        }
        unread.bytes += bytes;
        unread.items.push_back(item);
        drop(unread);
        self.filled.notify_one();
        true
    }

    /// Whether it has been read empty; then it may be filled again.
    pub(super) fn take_room(&self) -> bool {
        let mut unread = self.unread.lock();
        let is_empty = unread.items.is_empty();
        unread.overflowed &= !is_empty;
        is_empty
    }

    pub(super) fn end(&self, error: StoreError) {
        self.unread.lock().end = Some(error);
        self.filled.notify_one();
    }
}

fn item_bytes(item: &WatchItem) -> usize {
    let WatchItem::Events { events, .. } = item else { return 0 };
    let value = |kv: &Option<crate::store::KeyValue>| kv.as_ref().map_or(0, |kv| kv.value.len());
    events.iter().map(|event| value(&event.kv) + value(&event.prev) + event.key.len() + 128).sum()
}

/// One reader.
pub(super) struct Source {
    queue: Arc<Queue>,
    commands: mpsc::Sender<Command>,
}

impl Source {
    pub(super) fn new(queue: Arc<Queue>, commands: mpsc::Sender<Command>) -> Self {
        Self { queue, commands }
    }

    async fn pull(&mut self) -> Option<Result<WatchItem, StoreError>> {
        loop {
            let must_resume = {
                let mut unread = self.queue.unread.lock();
                if let Some(item) = unread.items.pop_front() {
                    unread.bytes -= item_bytes(&item);
                    return Some(Ok(item));
                }
                if let Some(error) = unread.end.clone() {
                    return Some(Err(error));
                }
                unread.overflowed
            };
            if must_resume {
                // The stream sees the flag, so it does not matter who sends this or how often.
                self.commands.send(Command::Look).await.ok()?;
            }
            tokio::select! {
                () = self.queue.filled.notified() => {}
                () = self.commands.closed() => return None,
            }
        }
    }
}

impl WatchSource for Source {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<WatchItem, StoreError>>> {
        Box::pin(self.pull())
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.queue = Arc::default();
        // If there is no room, what the task is busy with makes it look as well.
        let _ = self.commands.try_send(Command::Look);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Event;

    #[test]
    fn a_full_queue_stops_its_watch_and_progress_takes_no_room() {
        let queue = Queue::default();
        for revision in 1..=3 {
            assert!(queue.push(WatchItem::Progress { revision }));
        }
        assert_eq!(queue.unread.lock().items.len(), 1, "later progress replaces earlier");
        let kv = |bytes| crate::store::KeyValue {
            key: "/k".into(),
            value: vec![0; bytes].into(),
            create_revision: 1,
            mod_revision: 4,
            version: 1,
        };
        let item = |revision, bytes| WatchItem::Events {
            revision,
            events: [Event { key: "/k".into(), kv: Some(kv(bytes)), prev: None }].into(),
        };
        assert!(queue.push(item(4, 1000)));
        assert!(!queue.push(item(5, QUEUE_BYTES_MAX)), "over the bound");
        assert!(queue.unread.lock().overflowed);
        assert!(Queue::default().push(item(5, QUEUE_BYTES_MAX + 1)), "one item always fits");
    }
}
