//! What etcd's and gRPC's errors mean for a reader and for a writer.

use crate::store::StoreError;

/// gRPC's codes as far as they are told apart here.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const DATA_LOSS: i32 = 15;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

/// Refusals that come back under a code of trouble although etcd has looked at the request and will not do it.
/// upstream: go.etcd.io/etcd/api/v3/v3rpc/rpctypes/error.go
const REFUSALS: &[&str] = &["etcdserver: mvcc: database space exceeded", "etcdserver: user name is empty"];
/// Troubles that etcd or the transport meets before a write is proposed.
const BEFORE_PROPOSAL: &[&str] =
    &["etcdserver: no leader", "etcdserver: too many requests", "tcp connect error"];

/// The revision of a request, for errors that are about it.
pub(super) fn read_error(error: etcd_client::Error, revision: u64) -> StoreError {
    let (code, message) = match &error {
        etcd_client::Error::GRpcStatus(status) => (status.code() as i32, status.message()),
        etcd_client::Error::InvalidArgs(_) | etcd_client::Error::InvalidUri(_) => {
            return StoreError::Rejected(error.to_string().into());
        }
        _ => return StoreError::Unavailable(error.to_string().into()),
    };
    match code {
        code::OUT_OF_RANGE if message.contains("has been compacted") => {
            StoreError::Compacted { requested: revision, compacted: 0 }
        }
        code::OUT_OF_RANGE if message.contains("future revision") => {
            StoreError::FutureRevision { requested: revision, current: 0 }
        }
        _ if REFUSALS.contains(&message) => StoreError::Rejected(message.into()),
        code::INVALID_ARGUMENT
        | code::PERMISSION_DENIED
        | code::UNAUTHENTICATED
        | code::FAILED_PRECONDITION
        | code::UNIMPLEMENTED
        | code::OUT_OF_RANGE => StoreError::Rejected(message.into()),
        code::DATA_LOSS => StoreError::Corrupt(message.into()),
        _ => StoreError::Unavailable(describe(&error).into()),
    }
}

/// The same for a write: unless it is known that nothing was proposed, it may have been done.
pub(super) fn write_error(error: etcd_client::Error) -> StoreError {
    let is_early = is_before_proposal(&error);
    match read_error(error, 0) {
        StoreError::Unavailable(why) if !is_early => StoreError::UnknownOutcome(why),
        error => error,
    }
}

fn is_before_proposal(error: &etcd_client::Error) -> bool {
    let text = describe(error);
    BEFORE_PROPOSAL.iter().any(|known| text.contains(known))
}

/// Whether a put named a lease that has ended meanwhile.
pub(super) fn is_lease_gone(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message() == "etcdserver: requested lease not found")
}

/// Whether a request exceeds etcd's `--max-request-bytes`.
pub(super) fn is_too_large(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message() == "etcdserver: request is too large")
}

/// The error and what lies beneath it (the transport's own words are in its sources), as Go's client prints it: clients of
/// the API server are shown it. upstream: go.etcd.io/etcd/api/v3/v3rpc/rpctypes/error.go Error; google.golang.org/grpc/status
fn describe(error: &etcd_client::Error) -> String {
    let etcd_client::Error::GRpcStatus(status) = error else { return error.to_string() };
    if status.message().starts_with("etcdserver: ") {
        return status.message().to_string();
    }
    let mut text = format!("rpc error: code = {:?} desc = {}", status.code(), status.message());
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
