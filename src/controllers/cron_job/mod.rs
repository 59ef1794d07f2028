//! CronJobs: a job at each time of a schedule.
//!
//! upstream: pkg/controller/cronjob/cronjob_controllerv2.go

mod plan;
pub mod schedule;
mod shell;

pub use shell::start;
