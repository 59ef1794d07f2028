//! Why the cache did not answer.

use crate::cache::CodecError;
use crate::store::StoreError;

/// What the reader should do:
/// * `NotReady`, `TooLarge`: the client may retry (429 and 504 with Retry-After 1);
/// * `Expired`: the client must list anew (410);
/// * `Corrupt`: stored bytes could not be read; other objects of the resource may be fine when read by name;
/// * `Store`: as [`StoreError`] says.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The first list of the resource is not there yet.
    #[error("storage is (re)initializing")]
    NotReady,
    /// The revision asked for was not reached in time.
    #[error("Too large resource version: {asked}, current: {current}")]
    TooLarge {
        /// What the reader asked for.
        asked: u64,
        /// How far the cache has come.
        current: u64,
    },
    /// The changes behind the revision asked for are no longer kept.
    #[error("too old resource version: {asked} ({oldest})")]
    Expired {
        /// What the reader asked for.
        asked: u64,
        /// The oldest revision from which a watch can still go on.
        oldest: u64,
    },
    /// A stored object cannot be read.
    #[error("stored object {key:?} cannot be read")]
    Corrupt {
        /// Its key.
        key: String,
        /// What the codec said.
        #[source]
        source: CodecError,
    },
    /// The store itself.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CacheError {
    pub(crate) fn corrupt(key: &[u8], source: CodecError) -> Self {
        Self::Corrupt { key: String::from_utf8_lossy(key).into_owned(), source }
    }
}
