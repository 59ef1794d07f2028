//! Jobs: their pods outlive them unless the client says otherwise, and it is told so.
//!
//! upstream: pkg/registry/batch/job/storage/storage.go Delete, DeleteCollection

use super::Hooks;
use crate::api::{Caller, DeleteOptions};

const PRESERVED: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

pub(super) struct Job;

impl Hooks for Job {
    fn warn_of_delete(&self, caller: &Caller, options: &DeleteOptions) {
        if options.orphan_dependents.is_none() && options.propagation_policy.is_none() {
            caller.warnings.add(PRESERVED);
        }
    }
}
