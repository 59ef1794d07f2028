//! ResourceQuota. upstream: pkg/registry/core/resourcequota/strategy.go, validation.go ValidateResourceQuota

use copepod_meta::{ErrorList, Value};
use std::collections::BTreeSet;

use super::pod::defaults::round_up;
use super::resources::{self, quantity};
use crate::cells;
use crate::check::At;
use crate::generic::{clear_status, keep};
use crate::metadata;
use crate::print;
use crate::strategy::{Cell, Column, Context, Row, Strategy};

/// The strategy.
pub struct ResourceQuota;
/// `resourcequotas/status`
pub struct ResourceQuotaStatus;

const COMPUTE: [&str; 6] =
    ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

fn default(quota: &mut Value) {
    for path in [["spec", "hard"], ["status", "hard"], ["status", "used"]] {
        round_up(quota, &path);
    }
}

impl Strategy for ResourceQuota {
    fn default(&self, _version: &str, quota: &mut Value) {
        default(quota);
    }
    fn prepare_create(&self, _cx: &Context, quota: &mut Value) {
        clear_status(quota);
    }
    fn prepare_update(&self, _cx: &Context, quota: &mut Value, old: &Value) {
        keep(quota, old, "status");
    }
    fn validate_create(&self, _cx: &Context, quota: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(quota, e);
        spec(quota, e);
        status(quota, e);
    }
    fn validate_update(&self, _cx: &Context, quota: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(quota, old, e);
        spec(quota, e);
        let root = At::root(quota);
        let scopes = root.get("spec.scopes");
        let set = |v: &Value| -> BTreeSet<String> {
            v.list_at(&["spec", "scopes"]).iter().filter_map(Value::as_str).map(str::to_string).collect()
        };
        if set(quota) != set(old) {
            scopes.invalid_printed(e, list_text(scopes.value), crate::check::IMMUTABLE);
        }
    }
    fn allow_create_on_update(&self) -> bool {
        false
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("core/ResourceQuota")
    }
    fn row(&self, quota: &Value) -> Row {
        let used = quota.at(&["status", "used"]);
        let of = |limits: bool| {
            let hard = quota.map_at(&["status", "hard"]).iter();
            let parts = hard
                .filter(|(name, _)| name.starts_with("limits.") == limits)
                .map(|(name, hard)| format!("{name}: {}/{}", quantity(used.get(name)), quantity(hard)));
            Cell::from(parts.collect::<Vec<_>>().join(", "))
        };
        cells::row([cells::name(quota), of(false), of(true), cells::age(quota)])
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&ResourceQuotaStatus as &dyn Strategy)
    }
}

impl Strategy for ResourceQuotaStatus {
    fn prepare_update(&self, _cx: &Context, quota: &mut Value, old: &Value) {
        keep(quota, old, "spec");
    }
    fn validate_update(&self, _cx: &Context, quota: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(quota, old, e);
        let root = At::root(quota);
        if root.get("metadata.resourceVersion").is_empty() {
            root.get("resourceVersion").required(e, "");
        }
        status(quota, e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

fn list_text(list: &Value) -> String {
    if list.is_null() { "null".into() } else { copepod_meta::debug_json::to_string(list) }
}

fn amounts(list: At, e: &mut ErrorList) {
    for (name, amount) in list.entries() {
        // A bad name gets the message about names and the one about quota, as upstream's does.
        resources::validate_name(amount, name, e);
        if !name.contains('/') && !resources::is_standard_quota(name) {
            amount.invalid_str(e, name, "must be a standard resource for quota");
        }
        resources::validate_amount(amount, name, e);
    }
}

fn status(quota: &Value, e: &mut ErrorList) {
    let root = At::root(quota);
    amounts(root.get("status.hard"), e);
    amounts(root.get("status.used"), e);
}

/// upstream: ValidateResourceQuotaSpec
fn spec(quota: &Value, e: &mut ErrorList) {
    let root = At::root(quota);
    let spec = root.get("spec");
    let hard = spec.get("hard");
    amounts(hard, e);
    scopes(spec.get("scopes"), hard, e);
    if spec.get("scopeSelector").is_set() {
        scope_selector(spec, hard, e);
    }
}

fn is_scope(scope: &str) -> bool {
    matches!(
        scope,
        "Terminating"
            | "NotTerminating"
            | "BestEffort"
            | "NotBestEffort"
            | "PriorityClass"
            | "CrossNamespacePodAffinity"
            | "VolumeAttributesClass"
    )
}

/// upstream: IsResourceQuotaScopeValidForResource
fn applies(scope: &str, resource: &str) -> bool {
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => resource == "pods" || COMPUTE.contains(&resource),
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

/// How many of the limited resources a scope does not go with.
fn misapplied(scope: &str, hard: At) -> usize {
    hard.map().keys().filter(|r| resources::is_standard_quota(r) && !applies(scope, r)).count()
}

fn conflicts(all: &BTreeSet<&str>) -> usize {
    let pairs = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
    pairs.iter().filter(|pair| pair.iter().all(|s| all.contains(s))).count()
}

/// upstream: validateResourceQuotaScopes
fn scopes(list: At, hard: At, e: &mut ErrorList) {
    let printed = list_text(list.value);
    let mut all = BTreeSet::new();
    for scope in list.items() {
        if !is_scope(scope.str()) {
            list.invalid_printed(e, printed.clone(), "unsupported scope");
        }
        for _resource in 0..misapplied(scope.str(), hard) {
            list.invalid_printed(e, printed.clone(), "unsupported scope applied to resource");
        }
        all.insert(scope.str());
    }
    for _pair in 0..conflicts(&all) {
        list.invalid_printed(e, printed.clone(), "conflicting scopes");
    }
}

/// upstream: validateScopedResourceSelectorRequirement
fn scope_selector(spec: At, hard: At, e: &mut ErrorList) {
    const EXISTS: &str = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                          ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                          ResourceQuotaScopeCrossNamespacePodAffinity";
    let selector = spec.get("scopeSelector");
    let list = selector.get("matchExpressions");
    let mut all = BTreeSet::new();
    for requirement in list.value.list_at(&[]) {
        let scope = requirement.str_at(&["scopeName"]);
        // Reported at the list, without an index.
        let (scope_at, operator_at, values_at) =
            (list.get("scopeName"), list.get("operator"), list.get("values"));
        if !is_scope(scope) {
            scope_at.invalid_str(e, scope, "unsupported scope");
        }
        for _resource in 0..misapplied(scope, hard) {
            let printed = print::internal(selector.value, "core/ScopeSelector");
            list.invalid_printed(e, printed, "unsupported scope applied to resource");
        }
        let text = requirement.str_at(&["operator"]);
        let only_exists = matches!(
            scope,
            "BestEffort" | "NotBestEffort" | "Terminating" | "NotTerminating" | "CrossNamespacePodAffinity"
        );
        if only_exists && text != "Exists" {
            operator_at.invalid_str(e, text, EXISTS);
        }
        let values = requirement.get("values");
        match text {
            "In" | "NotIn" if values.is_empty() => values_at.required(
                e,
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => values_at.with(values).invalid(
                e,
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => operator_at.invalid_str(e, text, "not a valid selector operator"),
        }
        all.insert(scope);
    }
    for _pair in 0..conflicts(&all) {
        let scopes = spec.get("scopes");
        list.invalid_printed(e, list_text(scopes.value), "conflicting scopes");
    }
}
