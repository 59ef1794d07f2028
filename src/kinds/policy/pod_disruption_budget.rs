//! PodDisruptionBudget. upstream: pkg/registry/policy/poddisruptionbudget/strategy.go, pkg/apis/policy/validation

use copepod_meta::{ErrorList, Value};

use crate::apps::{at_most_100_percent, int_or_percent, not_negative};
use crate::cells;
use crate::check::At;
use crate::generic::{bump_generation_if_changed, clear_status, keep};
use crate::strategy::{Cell, Column, Context, Row, Strategy};
use crate::{metadata, print};

/// The strategy.
pub struct PodDisruptionBudget;
/// `poddisruptionbudgets/status`
pub struct PodDisruptionBudgetStatus;

/// The label of selectors that policy/v1beta1 stood for "everything" or "nothing" with.
const OLD_LABEL: &str = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";

/// Keeps that label from being mixed with what users wrote.
/// upstream: Convert_v1_PodDisruptionBudget_To_policy_PodDisruptionBudget
fn strip_old_label(budget: &mut Value) {
    let Some(selector) = budget.at_mut(&["spec", "selector"]) else { return };
    let labels = selector.map_at(&["matchLabels"]).len();
    let expressions = selector.list_at(&["matchExpressions"]).len();
    let named = |x: &Value| x.str_at(&["key"]) == OLD_LABEL;
    let alone = labels == 0 && expressions == 1;
    let kept = selector
        .list_at(&["matchExpressions"])
        .iter()
        .any(|x| alone && named(x) && matches!(x.str_at(&["operator"]), "Exists" | "DoesNotExist"));
    if kept {
        return;
    }
    selector.remove(&["matchLabels", OLD_LABEL]);
    if let Some(list) = selector.at_mut(&["matchExpressions"]).and_then(Value::as_list_mut) {
        list.retain(|x| !named(x));
    }
}

impl Strategy for PodDisruptionBudget {
    fn to_hub(&self, _version: &str, budget: &mut Value) {
        strip_old_label(budget);
    }
    fn prepare_create(&self, _cx: &Context, budget: &mut Value) {
        clear_status(budget);
        budget.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, _cx: &Context, budget: &mut Value, old: &Value) {
        keep(budget, old, "status");
        bump_generation_if_changed(budget, old, "io.k8s.api.policy.v1.PodDisruptionBudgetSpec");
    }
    fn metadata_first(&self) -> bool {
        false
    }
    fn validate_create(&self, _cx: &Context, budget: &Value, e: &mut ErrorList) {
        validate(budget, false, e);
    }
    fn validate_update(&self, _cx: &Context, budget: &Value, old: &Value, e: &mut ErrorList) {
        let root = At::root(old);
        let mut wrong = ErrorList::new();
        metadata::label_selector(root.get("spec.selector"), false, &mut wrong);
        validate(budget, !wrong.is_empty(), e);
    }
    fn allow_unconditional_update(&self) -> bool {
        false
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("policy/PodDisruptionBudget")
    }
    fn row(&self, budget: &Value) -> Row {
        let amount = |member: &str| match budget.at(&["spec", member]) {
            Value::Null => Cell::from("N/A"),
            Value::String(text) => text.as_str().into(),
            number => number.as_int().unwrap_or(0).to_string().into(),
        };
        cells::row([
            cells::name(budget),
            amount("minAvailable"),
            amount("maxUnavailable"),
            budget.int_at(&["status", "disruptionsAllowed"]).into(),
            cells::age(budget),
        ])
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&PodDisruptionBudgetStatus as &dyn Strategy)
    }
}

impl Strategy for PodDisruptionBudgetStatus {
    fn prepare_update(&self, _cx: &Context, budget: &mut Value, old: &Value) {
        keep(budget, old, "spec");
    }
    fn validate_update(&self, _cx: &Context, budget: &Value, _old: &Value, e: &mut ErrorList) {
        let root = At::root(budget);
        let status = root.get("status");
        metadata::conditions(status.get("conditions"), e);
        let numbers = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        not_negative(status, &numbers, e);
    }
    fn allow_unconditional_update(&self) -> bool {
        false
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

/// upstream: ValidatePodDisruptionBudgetSpec
fn validate(budget: &Value, invalid_values: bool, e: &mut ErrorList) {
    let root = At::root(budget);
    let spec = root.get("spec");
    let amounts = [spec.get("minAvailable"), spec.get("maxUnavailable")];
    if amounts.iter().all(At::is_set) {
        let printed = print::internal(spec.value, "policy/PodDisruptionBudgetSpec");
        spec.invalid_printed(e, printed, "minAvailable and maxUnavailable cannot be both set");
    }
    for amount in amounts {
        if amount.is_set() {
            int_or_percent(amount, e);
            at_most_100_percent(amount, e);
        }
    }
    metadata::label_selector(spec.get("selector"), invalid_values, e);
    let policy = spec.get("unhealthyPodEvictionPolicy");
    if policy.is_set() {
        policy.one_of(e, &["AlwaysAllow", "IfHealthyBudget"]);
    }
}
