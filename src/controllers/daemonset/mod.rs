//! DaemonSets: one pod on every node that it fits.
//!
//! Each pod names its node by affinity, so that the scheduler places it and no other node is asked.
//!
//! upstream: pkg/controller/daemon

mod plan;
mod refused;
mod shell;
mod update;

pub use shell::start;
