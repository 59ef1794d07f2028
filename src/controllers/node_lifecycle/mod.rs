//! Nodes that fall silent: their conditions become Unknown, they are tainted, their pods are evicted.
//!
//! A node lives as long as its lease, or its Ready condition, changes; what counts is when *this* program saw the change.
//! Taints follow from conditions; evictions follow from `NoExecute` taints and the pods' tolerations. How many nodes get
//! such a taint in a second, and when none does, is [`zones`]' to say.
//!
//! upstream: pkg/controller/nodelifecycle, pkg/controller/tainteviction

mod eviction;
mod monitor;
mod plan;
mod zones;

pub use eviction::start as start_eviction;
pub use monitor::start;
