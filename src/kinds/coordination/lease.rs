//! Lease. upstream: pkg/registry/coordination/lease/strategy.go, pkg/apis/coordination/validation

use copepod_meta::{ErrorList, Value, names};

use crate::cells;
use crate::check::At;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct Lease;

const COORDINATED: [&str; 2] = ["strategy", "preferredHolder"];

impl Strategy for Lease {
    fn prepare_create(&self, cx: &Context, lease: &mut Value) {
        if !(cx.feature)("CoordinatedLeaderElection") {
            for member in COORDINATED {
                lease.remove(&["spec", member]);
            }
        }
    }
    fn prepare_update(&self, cx: &Context, lease: &mut Value, old: &Value) {
        if !(cx.feature)("CoordinatedLeaderElection") {
            for member in COORDINATED.into_iter().filter(|m| old.at(&["spec", m]).is_null()) {
                lease.remove(&["spec", member]);
            }
        }
    }
    fn validate_create(&self, _cx: &Context, lease: &Value, e: &mut ErrorList) {
        validate(lease, e);
    }
    fn validate_update(&self, _cx: &Context, lease: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update(lease, old, e);
        validate(lease, e);
    }
    fn allow_create_on_update(&self) -> bool {
        true
    }
    fn allow_unconditional_update(&self) -> bool {
        false
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("coordination/Lease")
    }
    fn row(&self, lease: &Value) -> Row {
        let holder = lease.str_at(&["spec", "holderIdentity"]);
        cells::row([cells::name(lease), holder.into(), cells::age(lease)])
    }
}

/// upstream: ValidateLeaseSpec
fn validate(lease: &Value, e: &mut ErrorList) {
    let root = At::root(lease);
    let spec = root.get("spec");
    let duration = spec.get("leaseDurationSeconds");
    if duration.is_set() && duration.int() <= 0 {
        duration.invalid_int(e, "must be greater than 0");
    }
    let transitions = spec.get("leaseTransitions");
    if transitions.int() < 0 {
        transitions.invalid_int(e, "must be greater than or equal to 0");
    }
    let strategy = spec.get("strategy");
    if strategy.is_set() {
        // Upstream's path names the member twice.
        let at = strategy.get("strategy");
        let at = at.with(strategy.value);
        if at.str().contains('/') {
            at.invalid_each(e, names::qualified_name(at.str()));
        } else {
            at.one_of(e, &["OldestEmulationVersion"]);
        }
    }
    if !spec.get("preferredHolder").is_empty() && strategy.is_empty() {
        spec.get("preferredHolder").forbidden(e, "may only be specified if `strategy` is defined");
    }
}
