//! Jobs: their pods outlive them unless the client says otherwise, and it is told so.
//!
//! upstream: pkg/registry/batch/job/storage/storage.go Delete, DeleteCollection

use copepod_meta::{Status, Value};

use super::Hooks;
use crate::api::DeleteOptions;
use crate::call::Call;
use crate::delete::{self, Plan};

const PRESERVED: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

pub(super) struct Job;

impl Hooks for Job {
    fn plan_delete(&self, call: &Call, old: &Value, options: &DeleteOptions) -> Result<Plan, Status> {
        if options.orphan_dependents.is_none() && options.propagation_policy.is_none() {
            call.caller.warnings.add(PRESERVED);
        }
        delete::plan(call, old, options)
    }
}
