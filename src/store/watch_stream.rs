//! The receiving end of a store's watch.

use futures::future::BoxFuture;

use crate::store::{StoreError, WatchItem};

/// What a backend puts behind a [`WatchStream`]: pulled, never pushed, so that a slow reader holds nothing back.
pub trait WatchSource: Send + 'static {
    /// The next item; `None` after an error or when the store was closed. Cancel-safe.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<WatchItem, StoreError>>>;
}

/// An open watch. Dropping it ends the watch.
pub struct WatchStream {
    source: Box<dyn WatchSource>,
    /// The highest revision delivered, to check the order that everybody relies on.
    delivered: u64,
    ended: bool,
}

impl WatchStream {
    /// Wraps a backend's source.
    pub fn new(source: impl WatchSource) -> Self {
        Self { source: Box::new(source), delivered: 0, ended: false }
    }

    /// The next item, in order of revision. After an error nothing more comes. Cancel-safe: dropping the future loses
    /// no item.
    pub async fn next(&mut self) -> Option<Result<WatchItem, StoreError>> {
        if self.ended {
            return None;
        }
        let item = self.source.next().await.map(|item| item.and_then(|item| self.check_order(item)));
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }

    /// Order is what all readers above build on; a backend that breaks it must not be believed any further.
    fn check_order(&mut self, item: WatchItem) -> Result<WatchItem, StoreError> {
        let (revision, in_order) = match &item {
            WatchItem::Events { revision, .. } => (*revision, *revision > self.delivered),
            WatchItem::Progress { revision } => (*revision, *revision >= self.delivered),
        };
        if !in_order {
            return Err(StoreError::Corrupt(
                format!("the watch went back from revision {} to {revision}", self.delivered).into(),
            ));
        }
        self.delivered = revision;
        Ok(item)
    }
}
