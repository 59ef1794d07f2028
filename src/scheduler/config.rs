//! What can be set.

use std::time::Duration;

/// The profile that pods name by default, and the name that events carry.
pub const SCHEDULER_NAME: &str = "default-scheduler";

/// Settings of a scheduler.
#[derive(Clone, Default)]
pub struct Config {
    /// Take part in an election; `None` to schedule at once.
    pub leader_election: Option<LeaderElection>,
    /// Where counters are registered.
    pub registry: copepod_serve::metrics::Registry,
}

/// Settings of the election, with upstream's defaults.
#[derive(Debug, Clone)]
pub struct LeaderElection {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// How long a silent leader keeps it.
    pub lease_duration: Duration,
    /// How long the leader tries to renew it.
    pub renew_deadline: Duration,
    /// Wait between tries.
    pub retry_period: Duration,
}

impl Default for LeaderElection {
    fn default() -> Self {
        Self {
            namespace: "kube-system".into(),
            name: "kube-scheduler".into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}
