//! Compacts etcd's history, together with all other API servers on the same etcd, upstream's included.
//!
//! The key `compact_rev_key` holds the revision of the last compaction; its version is the clock of all compactors. Who
//! raises it from the version it saw last has the turn and compacts to the revision it saw at its last turn; who does not
//! learns the version and tries again an interval later. So history is kept for one to two intervals, and no two compact in
//! the same one.
//!
//! upstream: apiserver/pkg/storage/etcd3/compact.go runCompactLoop

use std::time::Duration;

use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse};

/// Not below the prefix of the objects: all API servers of an etcd share it.
pub(super) const COMPACT_REV_KEY: &str = "compact_rev_key";

/// What one round has taught.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// The version of the key.
    pub(super) clock: i64,
    /// etcd's revision at that time: what the next turn compacts to.
    pub(super) revision: i64,
}

/// Runs until it is aborted.
pub(super) async fn run(client: etcd_client::Client, interval: Duration) {
    let mut last = Turn::default();
    loop {
        tokio::time::sleep(interval).await;
        match turn(&client, last).await {
            Ok(next) => last = next,
            Err(error) => {
                tracing::warn!(%error, "etcd could not be compacted, the next try is in an interval")
            }
        }
    }
}

/// One round.
pub(super) async fn turn(client: &etcd_client::Client, last: Turn) -> Result<Turn, etcd_client::Error> {
    let txn = Txn::new()
        .when([Compare::version(COMPACT_REV_KEY, CompareOp::Equal, last.clock)])
        .and_then([TxnOp::put(COMPACT_REV_KEY, last.revision.to_string(), None)])
        .or_else([TxnOp::get(COMPACT_REV_KEY, None)]);
    let mut kv = client.kv_client();
    let answer = kv.txn(txn).await?;
    let revision = answer.header().map_or(0, |header| header.revision());
    if !answer.succeeded() {
        let clock = answer.op_responses().iter().find_map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(|kv| kv.version()),
            _ => None,
        });
        // Gone: somebody removed the key, everybody starts over.
        return Ok(Turn { clock: clock.unwrap_or(0), revision });
    }
    // A server that has just started knows no revision to compact to.
    if last.revision > 0 {
        kv.compact(last.revision, None).await?;
        tracing::debug!(revision = last.revision, "etcd is compacted");
    }
    Ok(Turn { clock: last.clock + 1, revision })
}
