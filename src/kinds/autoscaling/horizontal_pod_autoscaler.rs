//! HorizontalPodAutoscaler. upstream: pkg/registry/autoscaling/horizontalpodautoscaler/strategy.go,
//! pkg/apis/autoscaling/{v1,v2,validation}
//!
//! upstream, too: SetDefaults_HorizontalPodAutoscalerBehavior

use copepod_meta::{ErrorList, Value, names};

use super::{convert, metrics};
use crate::cells::{self, UNSET};
use crate::check::{At, NEGATIVE};
use crate::core::pod::defaults::fill_nil;
use crate::core::resources::quantity;
use crate::generic::{clear_status, keep};
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct HorizontalPodAutoscaler;
/// `horizontalpodautoscalers/status`
pub struct HorizontalPodAutoscalerStatus;

/// What passes in a reference's apiVersion.
#[derive(Clone, Copy, Default)]
pub(super) struct Reference {
    /// The core group.
    pub(super) empty_group: bool,
    /// Anything.
    pub(super) anything: bool,
}

/// upstream: SetDefaults_HorizontalPodAutoscaler of v1 and v2
fn default(version: &str, object: &mut Value) {
    let spec = object.make(&["spec"]);
    fill_nil(spec, "minReplicas", 1);
    if version == "v1" {
        return;
    }
    if spec.list_at(&["metrics"]).is_empty() {
        spec.set(&["metrics"], vec![convert::cpu_metric(convert::DEFAULT_CPU)]);
    }
    if spec.get("behavior").is_null() {
        return;
    }
    let policy = |ty: &str, value: i64| {
        let mut policy = Value::map();
        policy.set(&["type"], ty);
        policy.set(&["value"], value);
        policy.set(&["periodSeconds"], 15);
        policy
    };
    let up = spec.make(&["behavior", "scaleUp"]);
    fill_nil(up, "stabilizationWindowSeconds", 0);
    fill_nil(up, "policies", vec![policy("Pods", 4), policy("Percent", 100)]);
    let down = spec.make(&["behavior", "scaleDown"]);
    fill_nil(down, "policies", vec![policy("Percent", 100)]);
    for direction in ["scaleUp", "scaleDown"] {
        fill_nil(spec.make(&["behavior", direction]), "selectPolicy", "Max");
    }
}

fn to_hub(version: &str, object: &mut Value) {
    match version {
        "v1" => convert::to_v2(object),
        _ => convert::drop_annotations(object),
    }
}

fn from_hub(version: &str, object: &mut Value) {
    match version {
        "v1" => convert::to_v1(object),
        _ => convert::drop_annotations(object),
    }
}

/// upstream: dropDisabledFields
fn drop_tolerance(cx: &Context, object: &mut Value, old: &Value) {
    let paths = ["scaleDown", "scaleUp"].map(|d| ["spec", "behavior", d, "tolerance"]);
    if !(cx.feature)("HPAConfigurableTolerance") && paths.iter().all(|p| old.at(p).is_null()) {
        for path in paths {
            object.remove(&path);
        }
    }
}

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, version: &str, object: &mut Value) {
        default(version, object);
    }
    fn to_hub(&self, version: &str, object: &mut Value) {
        to_hub(version, object);
    }
    fn from_hub(&self, version: &str, object: &mut Value) {
        from_hub(version, object);
    }
    fn prepare_create(&self, cx: &Context, object: &mut Value) {
        clear_status(object);
        drop_tolerance(cx, object, &Value::Null);
    }
    fn prepare_update(&self, cx: &Context, object: &mut Value, old: &Value) {
        keep(object, old, "status");
        drop_tolerance(cx, object, old);
    }
    fn validate_create(&self, cx: &Context, object: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(object, e);
        validate(cx, object, &Value::Null, e);
    }
    fn validate_update(&self, cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(object, old, e);
        validate(cx, object, old, e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("autoscaling/HorizontalPodAutoscaler")
    }
    fn row(&self, object: &Value) -> Row {
        let spec = object.get("spec");
        let target = spec.get("scaleTargetRef");
        let status = object.list_at(&["status", "currentMetrics"]);
        let min = spec.get("minReplicas").as_int();
        cells::row([
            cells::name(object),
            format!("{}/{}", target.str_at(&["kind"]), target.str_at(&["name"])).into(),
            metrics::text(spec.list_at(&["metrics"]), status).into(),
            min.map_or(UNSET.to_string(), |n| n.to_string()).into(),
            spec.int_at(&["maxReplicas"]).into(),
            object.int_at(&["status", "currentReplicas"]).into(),
            cells::age(object),
        ])
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&HorizontalPodAutoscalerStatus as &dyn Strategy)
    }
}

impl Strategy for HorizontalPodAutoscalerStatus {
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        keep(object, old, "spec");
    }
    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(object, old, e);
        let root = At::root(object);
        root.get("status.currentReplicas").not_negative(e);
        root.get("status.desiredReplicas").not_negative(e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

/// What is wrong with an apiVersion. upstream: ValidateAPIVersion
fn bad_version(version: &str, options: Reference) -> Option<String> {
    if options.anything {
        return None;
    }
    let slashes = if version == "/" { 0 } else { version.matches('/').count() };
    if slashes > 1 {
        return Some(format!("unexpected GroupVersion string: {version}"));
    }
    let core = slashes == 0 || version.starts_with('/');
    (core && !options.empty_group).then(|| "apiVersion must specify API group".into())
}

/// upstream: ValidateCrossVersionObjectReference
pub(super) fn reference(at: At, options: Reference, e: &mut ErrorList) {
    for member in ["kind", "name"].map(|m| at.get(m)) {
        if member.need(e) {
            member.invalid_each(e, names::path_segment(member.str()));
        }
    }
    let version = at.get("apiVersion");
    if let Some(message) = bad_version(version.str(), options) {
        version.invalid(e, message);
    }
}

/// upstream: validateHorizontalPodAutoscalerSpec
fn validate(cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
    let root = At::root(object);
    let spec = root.get("spec");
    let zero_before = old.at(&["spec", "minReplicas"]).as_int() == Some(0);
    let lowest = i64::from(!((cx.feature)("HPAScaleToZero") || zero_before));
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if min.opt_int().is_some_and(|n| n < lowest) {
        min.invalid(e, format!("must be greater than or equal to {lowest}"));
    }
    match max.int() {
        0 => max.required(e, "must be set and greater than 0"),
        ..0 => max.invalid(e, "must be greater than or equal to 1"),
        _ => {}
    }
    if min.opt_int().is_some_and(|n| max.int() < n) {
        max.invalid_int(e, "must be greater than or equal to `minReplicas`");
    }
    let target = spec.get("scaleTargetRef");
    let old_target = old.at(&["spec", "scaleTargetRef"]);
    let same = |m: &str| target.value.str_at(&[m]) == old_target.str_at(&[m]);
    let unchanged = !old.is_null() && same("apiVersion") && same("kind");
    let core_kind = target.get("kind").str() == "ReplicationController";
    reference(target, Reference { anything: unchanged, empty_group: core_kind }, e);
    let described = Reference { empty_group: true, anything: false };
    let bad_before = old.list_at(&["spec", "metrics"]).iter().any(|m| {
        let object = m.get("object");
        let version = object.str_at(&["describedObject", "apiVersion"]);
        m.str_at(&["type"]) == "Object" && !object.is_null() && bad_version(version, described).is_some()
    });
    let described = Reference { anything: bad_before, ..described };
    metrics::validate(spec.get("metrics"), min.opt_int(), described, e);
    for direction in ["scaleUp", "scaleDown"] {
        let behavior = spec.get("behavior");
        let rules = behavior.get(direction);
        if rules.is_set() {
            scaling_rules(rules, e);
        }
    }
}

/// upstream: validateScalingRules
fn scaling_rules(rules: At, e: &mut ErrorList) {
    const WINDOW_MAX: i64 = 3600;
    const PERIOD_MAX: i64 = 1800;
    let window = rules.get("stabilizationWindowSeconds");
    match window.int() {
        ..0 => window.invalid(e, "must be greater than or equal to zero"),
        n if n > WINDOW_MAX => window.invalid(e, format!("must be less than or equal to {WINDOW_MAX}")),
        _ => {}
    }
    let select = rules.get("selectPolicy");
    if select.is_set() {
        select.one_of(e, &["Disabled", "Max", "Min"]);
    }
    let policies = rules.get("policies");
    if policies.is_empty() {
        policies.required(e, "must specify at least one Policy");
    }
    for policy in policies.items() {
        let (ty, value, period) = (policy.get("type"), policy.get("value"), policy.get("periodSeconds"));
        ty.one_of(e, &["Percent", "Pods"]);
        for number in [&value, &period] {
            if number.int() <= 0 {
                number.invalid_int(e, "must be greater than zero");
            }
        }
        if period.int() > PERIOD_MAX {
            period.invalid(e, format!("must be less than or equal to {PERIOD_MAX}"));
        }
    }
    let tolerance = rules.get("tolerance");
    let amount = quantity(tolerance.value);
    if tolerance.is_set() && amount.sign() < 0 {
        tolerance.invalid_str(e, &amount.to_string(), NEGATIVE);
    }
}
