//! etcd 3.5 and 3.6 as a store.
//!
//! Owns what etcd's client leaves to its users: retries of reads, writes whose outcome is unknown, watches that survive
//! their connection (`watch`), shared leases (`lease`), one question for the newest revision by all who ask (`newest`),
//! compaction together with other API servers (`compactor`).
//! Nothing of etcd's client is visible outside.
//!
//! Invariants:
//! * reads and writes, long lists, and watches have connections of their own: none waits behind another's bytes;
//! * no write is repeated unless repeating it cannot do it twice (it names the revision that it replaces);
//! * `Done` is said only of a write that etcd acknowledged or that was found in etcd.
//!
//! When it breaks: everything is `Unavailable` until some endpoint answers again; watches go on where they were.

mod compactor;
mod errors;
mod lease;
mod newest;
mod queue;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::proto::{PbKeyValue, PbTxnOpResponse};
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, GetOptions, Identity, KvClient, PutOptions,
    TlsOptions, Txn, TxnOp,
};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::store::{
    GetResult, KeyValue, ListDetail, ListRequest, ListResult, Op, Store, StoreError, TxnResult,
    VALUE_BYTES_MAX, prefix_end,
};
use crate::watch_stream::WatchStream;
use compactor::COMPACT_REV_KEY;
use errors::{read_error, write_error};
use lease::Leases;
use newest::Newest;
use watch::Watches;

/// upstream: apiserver/pkg/storage/storagebackend/factory/etcd3.go keepaliveTime, keepaliveTimeout, dialTimeout
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// One attempt of a request. etcd itself gives up after seven seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The same of a list: a page may be hundreds of megabytes.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a request is tried again.
const RETRY_FOR: Duration = Duration::from_secs(5);
/// An attempt that took so long was not refused in haste: longer than an election, shorter than etcd's own time limit.
const PATIENT_ATTEMPT: Duration = Duration::from_secs(3);
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(20);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(500);
/// gRPC's own bound is 4 MB; a page of 10,000 large objects is more. What is asked for is bounded by its limit.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;
/// History is kept at least so long.
/// upstream: apiserver/pkg/storage/storagebackend/config.go DefaultCompactInterval
pub const COMPACT_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// How to reach etcd.
#[derive(Clone, Debug, Default)]
pub struct EtcdOptions {
    /// `http://host:port` or `https://host:port`, at least one.
    pub endpoints: Vec<String>,
    /// The authorities that etcd's certificate is checked against, PEM; `None`: the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Our certificate and key, PEM.
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
    /// How often history is compacted; `None`: never, somebody else does it.
    pub compact_interval: Option<Duration>,
}

/// See the module.
pub struct EtcdStore {
    /// Gets and writes.
    kv: KvClient,
    /// Lists, whose answers are long.
    bulk: KvClient,
    leases: Leases,
    newest: Newest,
    watches: Watches,
    progress: Arc<ProgressSupport>,
    tasks: Vec<AbortHandle>,
}

impl EtcdStore {
    /// Prepares the connections. They are made when they are first used, so this fails for a wrong configuration only.
    pub async fn connect(options: EtcdOptions) -> Result<Self, StoreError> {
        let rejected = |error: etcd_client::Error| StoreError::Rejected(error.to_string().into());
        let connect = |endpoints: &[String], connect_options: ConnectOptions| {
            let endpoints = endpoints.to_vec();
            // Boxed: the client's future is kilobytes large.
            Box::pin(async move { Client::connect(endpoints, Some(connect_options)).await.map_err(rejected) })
        };
        let plain = connect_options(&options);
        let kv = connect(&options.endpoints, plain.clone()).await?;
        let bulk = connect(&options.endpoints, plain.clone()).await?;
        // A member without a leader would keep a watch open for ever and silent.
        let watch = connect(&options.endpoints, plain.clone().with_require_leader(true)).await?;
        let progress = Arc::new(ProgressSupport::default());
        let mut tasks = Vec::new();
        for endpoint in &options.endpoints {
            let member = connect(std::slice::from_ref(endpoint), plain.clone()).await?;
            tasks.push(tokio::spawn(progress.clone().check(endpoint.clone(), member)).abort_handle());
        }
        if let Some(interval) = options.compact_interval {
            tasks.push(tokio::spawn(compactor::run(kv.clone(), interval)).abort_handle());
        }
        Ok(Self {
            leases: Leases::new(kv.clone()),
            newest: Newest::default(),
            kv: kv.kv_client().max_decoding_message_size(MESSAGE_BYTES_MAX),
            bulk: bulk.kv_client().max_decoding_message_size(MESSAGE_BYTES_MAX),
            watches: Watches::new(watch.watch_client().max_decoding_message_size(MESSAGE_BYTES_MAX)),
            progress,
            tasks,
        })
    }

    /// Reads, again and again while nobody answers.
    async fn read(
        &self,
        (client, timeout): (&KvClient, Duration),
        key: Vec<u8>,
        options: GetOptions,
        revision: u64,
    ) -> Result<etcd_client::proto::PbRangeResponse, StoreError> {
        let mut retry = Retry::start();
        loop {
            let mut client = client.clone();
            let call = client.get(key.clone(), Some(options.clone()));
            let error = match tokio::time::timeout(timeout, call).await {
                Ok(Ok(answer)) => return Ok(answer.0),
                Ok(Err(error)) => read_error(error, revision),
                Err(_) => StoreError::Unavailable("etcd did not answer in time".into()),
            };
            if !error.is_retryable() || !retry.pause().await {
                return Err(error);
            }
        }
    }

    /// One attempt of a conditional write.
    async fn attempt(&self, key: &[u8], expect: u64, op: &Op) -> Result<TxnResult, StoreError> {
        let (then, lease) = match op {
            Op::Delete => (TxnOp::delete(key, None), None),
            Op::Put { value, ttl_seconds } => {
                let lease = match ttl_seconds {
                    // A lease granted in vain ends by itself.
                    Some(ttl) => Some(self.leases.lease(*ttl).await.map_err(|error| read_error(error, 0))?),
                    None => None,
                };
                let options = lease.map(|id| PutOptions::new().with_lease(id));
                (TxnOp::put(key, value.to_vec(), options), lease)
            }
        };
        let txn = Txn::new()
            .when([Compare::mod_revision(key, CompareOp::Equal, revision_out(expect))])
            .and_then([then])
            .or_else([TxnOp::get(key, None)]);
        let mut client = self.kv.clone();
        let answer = match tokio::time::timeout(REQUEST_TIMEOUT, client.txn(txn)).await {
            Ok(Ok(answer)) => answer.0,
            Ok(Err(error)) => {
                if let Some(id) = lease.filter(|_| errors::is_lease_gone(&error)) {
                    self.leases.forget(id).await;
                    return Err(StoreError::Unavailable("the lease has ended".into()));
                }
                // How much it takes is a flag of etcd that it does not tell.
                if let Op::Put { value, .. } = op
                    && errors::is_too_large(&error)
                {
                    return Err(StoreError::TooLarge { bytes: value.len(), max: VALUE_BYTES_MAX });
                }
                return Err(write_error(error));
            }
            Err(_) => return Err(StoreError::UnknownOutcome("etcd did not answer in time".into())),
        };
        let revision = header_revision(answer.header)?;
        if answer.succeeded {
            return Ok(TxnResult::Done { revision });
        }
        let current = answer.responses.into_iter().find_map(|response| match response.response {
            Some(PbTxnOpResponse::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        Ok(TxnResult::Conflict { current: current.map(key_value), revision })
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &[u8]) -> Result<GetResult, StoreError> {
        let answer = self.read((&self.kv, REQUEST_TIMEOUT), key.to_vec(), GetOptions::new(), 0).await?;
        let revision = header_revision(answer.header)?;
        Ok(GetResult { kv: answer.kvs.into_iter().next().map(key_value), revision })
    }

    async fn list(&self, request: ListRequest) -> Result<ListResult, StoreError> {
        let (key, mut options) = range(&request.prefix, &request.start);
        options = options.with_limit(i64::try_from(request.limit).unwrap_or(i64::MAX));
        options = match request.detail {
            ListDetail::Full => options,
            ListDetail::KeysOnly => options.with_keys_only(),
            ListDetail::CountOnly => options.with_count_only(),
        };
        if let Some(revision) = request.revision {
            options = options.with_revision(revision_out(revision));
        }
        let answer =
            self.read((&self.bulk, LIST_TIMEOUT), key, options, request.revision.unwrap_or(0)).await?;
        let newest = header_revision(answer.header)?;
        Ok(ListResult {
            kvs: answer.kvs.into_iter().map(key_value).collect(),
            revision: request.revision.unwrap_or(newest),
            more: answer.more,
            count: u64::try_from(answer.count).unwrap_or(0),
        })
    }

    /// A write without an answer is sent again: it names the revision that it replaces, so it cannot be done twice. If it
    /// then meets its own value, it had been done before.
    async fn txn(&self, key: &[u8], expect: u64, op: Op) -> Result<TxnResult, StoreError> {
        let mut retry = Retry::start();
        let mut unknown = None;
        loop {
            let error = match self.attempt(key, expect, &op).await {
                Ok(TxnResult::Conflict { current, revision }) => {
                    let Some(why) = unknown else { return Ok(TxnResult::Conflict { current, revision }) };
                    return own_write(&op, expect, current).ok_or(StoreError::UnknownOutcome(why));
                }
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            match &error {
                StoreError::UnknownOutcome(why) => unknown = Some(why.clone()),
                error if !error.is_retryable() => {
                    return Err(unknown.map_or(error.clone(), StoreError::UnknownOutcome));
                }
                _ => {}
            }
            if !retry.pause().await {
                return Err(unknown.map_or(error, StoreError::UnknownOutcome));
            }
        }
    }

    async fn watch(&self, prefix: &[u8], after: u64) -> Result<WatchStream, StoreError> {
        Ok(WatchStream::new(self.watches.open(prefix, after).await?))
    }

    async fn current_revision(&self) -> Result<u64, StoreError> {
        let ask = || async {
            let options = GetOptions::new().with_keys_only();
            let answer = self.read((&self.kv, REQUEST_TIMEOUT), COMPACT_REV_KEY.into(), options, 0).await?;
            header_revision(answer.header)
        };
        self.newest.get(ask).await
    }

    async fn request_progress(&self, prefix: &[u8]) -> Result<(), StoreError> {
        self.watches.request_progress(prefix);
        Ok(())
    }

    fn progress_supported(&self) -> bool {
        self.progress.get()
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        let mut client = self.kv.clone();
        client.compact(revision_out(revision), None).await.map_err(|error| read_error(error, revision))?;
        Ok(())
    }
}

/// The value found where a write of unknown outcome met a conflict: is it that write?
fn own_write(op: &Op, expect: u64, found: Option<KeyValue>) -> Option<TxnResult> {
    match (op, found) {
        // Stored objects carry uids and times; nobody else writes the same bytes to the same key by chance.
        (Op::Put { value, .. }, Some(kv)) if kv.value == *value && kv.mod_revision > expect => {
            Some(TxnResult::Done { revision: kv.mod_revision })
        }
        // A deletion leaves nothing to be recognized by.
        _ => None,
    }
}

fn connect_options(options: &EtcdOptions) -> ConnectOptions {
    let mut connect = ConnectOptions::new()
        .with_keep_alive(KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT)
        .with_keep_alive_while_idle(true)
        .with_connect_timeout(CONNECT_TIMEOUT);
    if options.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
        let mut tls = match &options.ca_pem {
            Some(pem) => TlsOptions::new().ca_certificate(Certificate::from_pem(pem)),
            None => TlsOptions::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &options.identity_pem {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        connect = connect.with_tls(tls);
    }
    connect
}

/// etcd's range for the keys under a prefix from `start` on.
fn range(prefix: &[u8], start: &[u8]) -> (Vec<u8>, GetOptions) {
    let key = match prefix.max(start) {
        // etcd has no empty key; all keys are at or behind this one.
        b"" => vec![0],
        key => key.to_vec(),
    };
    let options = GetOptions::new();
    (
        key,
        match prefix_end(prefix) {
            Some(end) => options.with_range(end),
            None => options.with_from_key(),
        },
    )
}

fn key_value(kv: PbKeyValue) -> KeyValue {
    KeyValue {
        create_revision: revision_in(kv.create_revision),
        mod_revision: revision_in(kv.mod_revision),
        version: revision_in(kv.version),
        key: Bytes::from(kv.key),
        value: Bytes::from(kv.value),
    }
}

fn header_revision(header: Option<etcd_client::proto::PbResponseHeader>) -> Result<u64, StoreError> {
    let header = header.ok_or_else(|| StoreError::Corrupt("an answer of etcd without a header".into()))?;
    Ok(revision_in(header.revision))
}

/// etcd's revisions are positive.
fn revision_in(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

fn revision_out(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// Pauses between attempts, and their end.
struct Retry {
    until: Instant,
    pause: Duration,
    /// When the present attempt began.
    began: Instant,
}

impl Retry {
    fn start() -> Self {
        let now = Instant::now();
        Self { until: now + RETRY_FOR, pause: RETRY_PAUSE_MIN, began: now }
    }

    /// False: it has been tried long enough, or etcd itself has: a member that finds no quorum answers when it has waited for
    /// one for some seconds, and the next attempt would wait as long again.
    async fn pause(&mut self) -> bool {
        let now = Instant::now();
        if now + self.pause > self.until || now - self.began > PATIENT_ATTEMPT {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(RETRY_PAUSE_MAX);
        self.began = Instant::now();
        true
    }
}

/// Whether every member of which we know answers progress requests truthfully.
/// upstream: apiserver/pkg/storage/feature/feature_support_checker.go
#[derive(Default)]
struct ProgressSupport(AtomicU8);

impl ProgressSupport {
    const UNKNOWN: u8 = 0;
    const YES: u8 = 1;
    const NO: u8 = 2;

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::YES
    }

    /// Asks one member for its version until it answers.
    async fn check(self: Arc<Self>, endpoint: String, member: Client) {
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            match tokio::time::timeout(REQUEST_TIMEOUT, member.maintenance_client().status()).await {
                Ok(Ok(status)) => return self.note(&endpoint, status.version()),
                Ok(Err(error)) => tracing::debug!(endpoint, %error, "the version of etcd is not known yet"),
                Err(_) => tracing::debug!(endpoint, "the version of etcd is not known yet"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(15));
        }
    }

    fn note(&self, endpoint: &str, version: &str) {
        if answers_progress(version) {
            // One member that does not is enough to rely on none.
            let _ = self.0.compare_exchange(Self::UNKNOWN, Self::YES, Ordering::Relaxed, Ordering::Relaxed);
        } else {
            tracing::info!(endpoint, version, "this etcd cannot tell progress, lists are read through");
            self.0.store(Self::NO, Ordering::Relaxed);
        }
    }
}

/// etcd before 3.4.31, and 3.5 before 3.5.13, tells progress that its watches have not made.
fn answers_progress(version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map(|number| number.parse::<u32>().ok());
    let mut next = || numbers.next().flatten();
    match (next(), next(), next()) {
        (Some(3), Some(4), Some(patch)) => patch >= 31,
        (Some(3), Some(5), Some(patch)) => patch >= 13,
        (Some(3), Some(minor), Some(_)) => minor > 5,
        (Some(major), Some(_), Some(_)) => major > 3,
        _ => false,
    }
}
