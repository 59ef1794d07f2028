//! What `/metrics` shows, under upstream's names.
//!
//! upstream: pkg/scheduler/metrics/metrics.go

use std::sync::Arc;
use std::time::Duration;

use copepod_serve::metrics::{Counter, Gauge, Histogram, Registry};

use crate::config::SCHEDULER_NAME;

/// Bounds of the duration of a decision, in seconds: upstream's, and three below, because ours are faster.
const DURATIONS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024,
    2.048, 4.096, 8.192, 16.384,
];

/// How a decision ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attempt {
    /// A node was found.
    Scheduled,
    /// No node fits.
    Unschedulable,
    /// The binding failed.
    Error,
}

/// The scheduler's counters.
pub(crate) struct Metrics {
    attempts: [Arc<Counter>; 3],
    durations: [Arc<Histogram>; 3],
    pending: [Arc<Gauge>; 3],
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let attempts = registry.counters(
            "scheduler_schedule_attempts_total",
            "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, \
             while 'error' means an internal scheduler problem.",
            &["result", "profile"],
        );
        let durations = registry.histograms(
            "scheduler_scheduling_attempt_duration_seconds",
            "Scheduling attempt latency in seconds (scheduling algorithm)",
            &["result", "profile"],
            DURATIONS,
        );
        let pending = registry.gauges(
            "scheduler_pending_pods",
            "Number of pending pods, by the queue type.",
            &["queue"],
        );
        let results = ["scheduled", "unschedulable", "error"];
        Self {
            attempts: results.map(|result| attempts.with(&[result, SCHEDULER_NAME])),
            durations: results.map(|result| durations.with(&[result, SCHEDULER_NAME])),
            pending: ["active", "backoff", "unschedulable"].map(|queue| pending.with(&[queue])),
        }
    }

    pub(crate) fn attempt(&self, result: Attempt, took: Duration) {
        self.attempts[result as usize].inc();
        self.durations[result as usize].observe(took.as_secs_f64());
    }

    /// Active, backing off, unschedulable.
    pub(crate) fn pending(&self, (active, backing_off, unschedulable): (usize, usize, usize)) {
        for (gauge, length) in self.pending.iter().zip([active, backing_off, unschedulable]) {
            gauge.set(length as f64);
        }
    }
}
