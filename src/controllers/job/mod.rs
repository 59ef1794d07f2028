//! Jobs: run pods until enough of them have succeeded, or too many have failed.
//!
//! Pods carry a finalizer until their end is counted, so that none is lost when somebody deletes them. Counting has two
//! steps, each of which may be repeated: ended pods are first listed in `status.uncountedTerminatedPods`; when their
//! finalizer is off, they move from there into the numbers.
//!
//! upstream: pkg/controller/job/job_controller.go

mod indexes;
mod plan;
mod shell;
#[cfg(test)]
mod tests;

pub use shell::start;

/// Finalizer of a pod whose end is not counted yet.
pub(crate) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Label and annotation of a pod of an indexed job.
pub(crate) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

use crate::common::conditions;
use crate::kinds::Job;

/// Whether a job has ended, and how: `Complete` or `Failed`.
pub(crate) fn finished(job: &Job) -> Option<&'static str> {
    ["Complete", "Failed"].into_iter().find(|kind| conditions::is_true(&job.status.conditions, kind))
}
