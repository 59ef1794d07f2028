//! From the failures of the floors below to what a client is told. The causes are logged here, where they would be lost.
//!
//! upstream: apiserver/pkg/registry/generic/registry/../storage/errors Interpret*Error

use copepod_meta::{GroupResource, Reason, Status};
use copepod_store::StoreError;
use copepod_store::cache::CacheError;

/// What upstream says to a write that comes too late.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// The store failed in the middle of `verb`.
pub(crate) fn store(error: StoreError, resource: &GroupResource, verb: &str) -> Status {
    match error {
        StoreError::Compacted { .. } => {
            Status::expired("The provided continue parameter is too old to display a consistent list result.")
        }
        StoreError::FutureRevision { requested, current } => {
            Status::too_large_resource_version(requested, current, 1)
        }
        // etcd's errors reach clients as they are: a plain 500. (No storage of upstream's says "unreachable", for which
        // Interpret*Error have a ServerTimeout.)
        StoreError::Unavailable(why) | StoreError::UnknownOutcome(why) => {
            tracing::warn!(%resource, verb, %why, "the store did not answer");
            Status::new(500, Reason::Unknown, why.as_ref())
        }
        StoreError::TooLarge { .. } => Status::new(500, Reason::Unknown, "etcdserver: request is too large"),
        StoreError::Rejected(why) => {
            tracing::error!(%resource, verb, %why, "the store refused");
            Status::internal(why)
        }
        StoreError::Corrupt(why) | StoreError::Failed(why) => {
            tracing::error!(%resource, verb, %why, "the store failed");
            Status::internal(why)
        }
    }
}

/// The cache failed in the middle of `verb`.
pub(crate) fn cache(error: CacheError, resource: &GroupResource, verb: &str) -> Status {
    match error {
        CacheError::NotReady => Status::too_many_requests("storage is (re)initializing", 1),
        CacheError::TooLarge { asked, current } => Status::too_large_resource_version(asked, current, 1),
        CacheError::Expired { .. } => Status::expired(error.to_string()),
        CacheError::Corrupt { .. } => corrupt(error),
        CacheError::Store(error) => store(error, resource, verb),
    }
}

/// Stored bytes that are no object.
pub(crate) fn corrupt(error: impl std::error::Error) -> Status {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        chain = format!("{chain}: {cause}");
        source = cause.source();
    }
    tracing::error!(error = chain, "a stored object cannot be read");
    Status::internal(chain)
}

/// A tree of ours that has no encoding.
pub(crate) fn unencodable(error: impl std::error::Error) -> Status {
    tracing::error!(%error, "an object cannot be encoded");
    Status::internal(error)
}
