//! Copepod's storage: keys at revisions ([`store`]), the two backends that keep them (`embedded`, `etcd`), the one
//! suite that both must pass (`contract`) and the watch cache from which readers are served ([`cache`]).
//!
//! This crate deals in bytes. What an object is, how its key is built, what a field selector selects is said from above,
//! through [`cache::ObjectCodec`].

// A test fails by panicking.
#![cfg_attr(test, allow(clippy::panic, clippy::unwrap_used))]

pub mod cache;
#[cfg(test)]
mod contract;
mod cow_map;
pub mod embedded;
pub mod etcd;
mod signal;
pub mod store;
#[cfg(test)]
mod testing;
mod watch_stream;

pub use store::{
    Event, GetResult, KeyValue, ListDetail, ListRequest, ListResult, Op, Store, StoreError, TxnResult,
    VALUE_BYTES_MAX, WatchItem, prefix_end,
};
pub use watch_stream::{WatchSource, WatchStream};
