//! Jobs: run pods until enough of them have succeeded, or too many have failed.
//!
//! Pods carry a finalizer until their end is counted, so that none is lost when somebody deletes them. Counting has two
//! steps, each of which may be repeated: ended pods are first listed in `status.uncountedTerminatedPods`; when their
//! finalizer is off, they move from there into the numbers.
//!
//! upstream: pkg/controller/job/job_controller.go

mod backoff;
mod indexes;
mod plan;
mod policy;
mod shell;
mod status;
#[cfg(test)]
mod tests;

pub use shell::start;

/// Finalizer of a pod whose end is not counted yet.
pub(crate) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Label and annotation of a pod of an indexed job.
pub(crate) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Annotations of a pod whose job limits the failures of each index: counted ones before it, and ignored ones.
pub(crate) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub(crate) const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

use copepod_client::object::MetaExt as _;

use crate::common::conditions;
use crate::kinds::{Job, Pod};

/// The index of a pod.
pub(crate) fn index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotation(INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// Whether a job has ended, and how: `Complete` or `Failed`.
pub(crate) fn finished(job: &Job) -> Option<&'static str> {
    ["Complete", "Failed"].into_iter().find(|kind| conditions::is_true(&job.status.conditions, kind))
}
