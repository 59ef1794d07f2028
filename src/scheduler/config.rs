//! What can be set.

/// The profile that pods name by default, and the name that events carry.
pub const SCHEDULER_NAME: &str = "default-scheduler";

/// Settings of a scheduler.
#[derive(Clone, Default)]
pub struct Config {
    /// Where counters are registered.
    pub registry: copepod_serve::metrics::Registry,
}
