//! PriorityLevelConfiguration. upstream: pkg/registry/flowcontrol/prioritylevelconfiguration/strategy.go,
//! pkg/apis/flowcontrol/validation

use copepod_meta::{ErrorList, Value, names};

use super::{conditions, keep_metadata};
use crate::cells::{self, NONE};
use crate::check::At;
use crate::core::pod::defaults::{fill, fill_nil};
use crate::equality::same_as;
use crate::generic::{bump_generation_if_changed, clear_status, keep};
use crate::strategy::{Cell, Column, Context, Row, Strategy};
use crate::{metadata, print};

/// The strategy.
pub struct PriorityLevelConfiguration;
/// `prioritylevelconfigurations/status`
pub struct PriorityLevelConfigurationStatus;

const SPEC: &str = "io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationSpec";
const ZERO_SHARES: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";

fn default(level: &mut Value) {
    let spec = level.make(&["spec"]);
    for (member, shares) in [("exempt", 0), ("limited", 30)] {
        if let Some(part) = spec.at_mut(&[member]).filter(|p| !p.is_null()) {
            fill_nil(part, "nominalConcurrencyShares", shares);
            fill_nil(part, "lendablePercent", 0);
        }
    }
    let queuing = ["limited", "limitResponse", "queuing"];
    if let Some(queuing) = spec.at_mut(&queuing).filter(|q| !q.is_null()) {
        fill(queuing, "handSize", 8);
        fill(queuing, "queues", 64);
        fill(queuing, "queueLengthLimit", 50);
    }
}

impl Strategy for PriorityLevelConfiguration {
    fn default(&self, _version: &str, level: &mut Value) {
        default(level);
    }
    fn prepare_create(&self, _cx: &Context, level: &mut Value) {
        clear_status(level);
        level.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, _cx: &Context, level: &mut Value, old: &Value) {
        bump_generation_if_changed(level, old, SPEC);
        keep(level, old, "status");
    }
    fn validate_create(&self, _cx: &Context, level: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(level, e);
        validate(level, e);
    }
    fn validate_update(&self, _cx: &Context, level: &Value, _old: &Value, e: &mut ErrorList) {
        metadata::validate_core(level, false, &names::dns1123_subdomain_prefixed, e);
        validate(level, e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("flowcontrol/PriorityLevelConfiguration")
    }
    fn row(&self, level: &Value) -> Row {
        let limited = level.at(&["spec", "limited"]);
        let queuing = limited.at(&["limitResponse", "queuing"]);
        let number = |part: &Value, member: &str| match part.is_null() {
            true => Cell::from(NONE),
            false => part.int_at(&[member]).into(),
        };
        cells::row([
            cells::name(level),
            level.str_at(&["spec", "type"]).into(),
            number(limited, "nominalConcurrencyShares"),
            number(queuing, "queues"),
            number(queuing, "handSize"),
            number(queuing, "queueLengthLimit"),
            cells::age(level),
        ])
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&PriorityLevelConfigurationStatus as &dyn Strategy)
    }
}

impl Strategy for PriorityLevelConfigurationStatus {
    fn prepare_update(&self, _cx: &Context, level: &mut Value, old: &Value) {
        keep_metadata(level, old);
        keep(level, old, "spec");
    }
    fn validate_update(&self, _cx: &Context, level: &Value, _old: &Value, e: &mut ErrorList) {
        conditions(At::root(level).get("status.conditions"), e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["metadata"], &["spec"]]
    }
}

/// upstream: ValidatePriorityLevelConfiguration
fn validate(level: &Value, e: &mut ErrorList) {
    let root = At::root(level);
    if level.map_at(&["metadata", "annotations"]).contains_key(ZERO_SHARES) {
        root.get("metadata.annotations").forbidden(e, format!("annotation '{ZERO_SHARES}' is forbidden"));
    }
    let spec = root.get("spec");
    let name = level.str_at(&["metadata", "name"]);
    validate_spec(spec, name, e);
    fixed(spec, name, e);
    conditions(root.get("status.conditions"), e);
}

/// upstream: ValidateIfMandatoryPriorityLevelConfigurationObject
fn fixed(spec: At, name: &str, e: &mut ErrorList) {
    let mut wanted = Value::map();
    let mut have = if spec.is_set() { spec.value.clone() } else { Value::map() };
    let printed = print::internal(&have, "flowcontrol/PriorityLevelConfigurationSpec");
    let except = match name {
        "exempt" => {
            wanted.set(&["type"], "Exempt");
            have.remove(&["exempt"]);
            " except the 'spec.exempt' field"
        }
        "catch-all" => {
            wanted.set(&["type"], "Limited");
            wanted.set(&["limited", "nominalConcurrencyShares"], 5);
            wanted.set(&["limited", "lendablePercent"], 0);
            wanted.set(&["limited", "limitResponse", "type"], "Reject");
            ""
        }
        _ => return,
    };
    if !same_as(&have, &wanted, SPEC) {
        spec.invalid_printed(e, printed, format!("spec of '{name}'{except} must equal the fixed value"));
    }
}

/// upstream: ValidatePriorityLevelConfigurationSpec
fn validate_spec(spec: At, name: &str, e: &mut ErrorList) {
    let (ty, exempt, limited) = (spec.get("type"), spec.get("exempt"), spec.get("limited"));
    if (name == "exempt") != (ty.str() == "Exempt") {
        ty.invalid(e, "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    match ty.str() {
        "Exempt" => {
            if limited.is_set() {
                limited.forbidden(e, "must be nil if the type is not Limited");
            }
            shares(exempt, e);
        }
        "Limited" => {
            if exempt.is_set() {
                exempt.forbidden(e, "must be nil if the type is Limited");
            }
            match limited.is_set() {
                true => limited_level(limited, e),
                false => limited.required(e, "must not be empty when type is Limited"),
            }
        }
        "" => ty.required(e, ""),
        _ => ty.not_supported(e, &["Exempt", "Limited"]),
    }
}

fn shares(at: At, e: &mut ErrorList) {
    let nominal = at.get("nominalConcurrencyShares");
    if nominal.int() < 0 {
        nominal.invalid(e, "must be a non-negative integer");
    }
    lendable(at, e);
}

fn lendable(at: At, e: &mut ErrorList) {
    let percent = at.get("lendablePercent");
    if !(0..=100).contains(&percent.int()) {
        percent.invalid(e, "must be between 0 and 100, inclusive");
    }
}

/// upstream: ValidateLimitedPriorityLevelConfiguration
fn limited_level(at: At, e: &mut ErrorList) {
    let nominal = at.get("nominalConcurrencyShares");
    if nominal.int() < 0 {
        nominal.invalid(e, "must be a non-negative integer");
    }
    let response = at.get("limitResponse");
    let (ty, queuing) = (response.get("type"), response.get("queuing"));
    match (ty.str(), queuing.is_set()) {
        ("Reject", true) => {
            queuing.forbidden(e, "must be nil if limited.limitResponse.type is not Limited");
        }
        ("Queue", false) => {
            queuing.required(e, "must not be empty if limited.limitResponse.type is Limited");
        }
        ("Queue", true) => queues(queuing, e),
        ("Reject", false) => {}
        ("", _) => ty.required(e, ""),
        _ => ty.not_supported(e, &["Queue", "Reject"]),
    }
    lendable(at, e);
    let borrowing = at.get("borrowingLimitPercent");
    if borrowing.int() < 0 {
        borrowing.invalid(e, "if specified, must be a non-negative integer");
    }
}

/// upstream: ValidatePriorityLevelQueuingConfiguration
fn queues(at: At, e: &mut ErrorList) {
    const QUEUES_MAX: i64 = 10_000_000;
    const HASH_BITS_MAX: i64 = 60;
    let [length, queues, hand] = ["queueLengthLimit", "queues", "handSize"].map(|m| at.get(m));
    for number in [length, queues, hand] {
        if number.int() <= 0 {
            number.invalid_int(e, "must be positive");
        }
        if number.path.to_string() == queues.path.to_string() && number.int() > QUEUES_MAX {
            number.invalid(e, format!("must not be greater than {QUEUES_MAX}"));
        }
    }
    if hand.int() <= 0 {
        return;
    }
    if hand.int() > queues.int() {
        return hand.invalid(e, format!("should not be greater than queues ({})", queues.int()));
    }
    // Both are far below what a float holds exactly.
    let bits = ((queues.int() as f64).log2() * hand.int() as f64).ceil() as i64;
    if bits > HASH_BITS_MAX {
        hand.invalid(
            e,
            format!(
                "required entropy bits of deckSize {} and handSize {} should not be greater than {HASH_BITS_MAX}",
                queues.int(),
                hand.int()
            ),
        );
    }
}
