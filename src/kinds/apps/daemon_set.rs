//! DaemonSet. upstream: pkg/registry/apps/daemonset/strategy.go, pkg/apis/apps/validation
//!
//! upstream, too: Convert_apps_DaemonSet_To_v1_DaemonSet, Convert_v1_DaemonSet_To_apps_DaemonSet

use copepod_meta::{ErrorList, FieldError, LabelSelector, Value};

use super::{amount, at_most_100_percent, int_or_percent, not_decremented, not_negative};
use crate::cells;
use crate::check::At;
use crate::core::pod::defaults::{fill, fill_nil};
use crate::core::pod::options::Options;
use crate::core::pod::template;
use crate::equality::same_as;
use crate::generic::{bump_generation, clear_status, keep};
use crate::strategy::{Cell, Column, Context, Row, Strategy};
use crate::{metadata, print};

/// The strategy.
pub struct DaemonSet;
/// `daemonsets/status`
pub struct DaemonSetStatus;

/// Where `v1` keeps the internal type's templateGeneration.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// upstream: SetDefaults_DaemonSet
fn default(object: &mut Value) {
    super::default_template(object);
    let spec = object.make(&["spec"]);
    fill(spec.make(&["updateStrategy"]), "type", "RollingUpdate");
    if spec.str_at(&["updateStrategy", "type"]) == "RollingUpdate" {
        let rolling = spec.make(&["updateStrategy", "rollingUpdate"]);
        fill_nil(rolling, "maxUnavailable", 1);
        fill_nil(rolling, "maxSurge", 0);
    }
    fill_nil(spec, "revisionHistoryLimit", 10);
}

fn template_generation(object: &Value) -> i64 {
    object.str_at(&["metadata", "annotations", TEMPLATE_GENERATION]).parse().unwrap_or(0)
}

fn set_template_generation(object: &mut Value, generation: i64) {
    object.set(&["metadata", "annotations", TEMPLATE_GENERATION], generation.to_string());
}

fn without_template_generation(metadata: &mut Value) {
    metadata.remove(&["annotations", TEMPLATE_GENERATION]);
    if metadata.map_at(&["annotations"]).is_empty() {
        metadata.remove(&["annotations"]);
    }
}

impl Strategy for DaemonSet {
    fn default(&self, _version: &str, object: &mut Value) {
        default(object);
    }
    fn to_hub(&self, _version: &str, object: &mut Value) {
        super::convert_template(object);
    }
    fn from_hub(&self, _version: &str, object: &mut Value) {
        super::convert_template(object);
        set_template_generation(object, template_generation(object));
    }
    fn hub_metadata(&self) -> Option<fn(&mut Value)> {
        Some(without_template_generation)
    }
    fn of_nothing(&self, object: &mut Value) {
        set_template_generation(object, 0);
    }
    fn prepare_create(&self, _cx: &Context, object: &mut Value) {
        crate::core::pod::template::drop_disabled(object, None, &["spec", "template", "spec"]);
        clear_status(object);
        object.set(&["metadata", "generation"], 1);
        if template_generation(object) < 1 {
            set_template_generation(object, 1);
        }
    }
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        crate::core::pod::template::drop_disabled(object, Some(old), &["spec", "template", "spec"]);
        keep(object, old, "status");
        set_template_generation(object, template_generation(old));
        let path = ["spec", "template"];
        if !same_as(object.at(&path), old.at(&path), super::TEMPLATE) {
            set_template_generation(object, template_generation(old) + 1);
            bump_generation(object, old);
        } else if !same_as(object.get("spec"), old.get("spec"), "io.k8s.api.apps.v1.DaemonSetSpec") {
            bump_generation(object, old);
        }
    }
    fn validate_create(&self, cx: &Context, object: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(object, e);
        validate(object, &super::options(cx, None), e);
    }
    fn validate_update(&self, cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(object, old, e);
        super::immutable_selector(object, old, e);
        validate(object, &super::options(cx, Some(old)), e);
    }
    fn warnings(&self, _cx: &Context, object: &Value, old: Option<&Value>) -> Vec<String> {
        // Not whenever the spec changed, unlike other workloads.
        if old.is_some_and(|old| template_generation(old) == template_generation(object)) {
            return Vec::new();
        }
        super::warn(object, old, false)
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("apps/DaemonSet")
    }
    fn row(&self, object: &Value) -> Row {
        let status = |member: &str| Cell::from(object.int_at(&["status", member]));
        let spec = object.at(&["spec", "template", "spec"]);
        let (names, images) = cells::containers(spec);
        cells::row([
            cells::name(object),
            status("desiredNumberScheduled"),
            status("currentNumberScheduled"),
            status("numberReady"),
            status("updatedNumberScheduled"),
            status("numberAvailable"),
            cells::labels(spec.get("nodeSelector")).into(),
            cells::age(object),
            names,
            images,
            cells::selector(object.at(&["spec", "selector"])).into(),
        ])
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&DaemonSetStatus as &dyn Strategy)
    }
}

impl Strategy for DaemonSetStatus {
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        keep(object, old, "spec");
        set_template_generation(object, template_generation(old));
    }
    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(object, old, e);
        let root = At::root(object);
        let at = root.get("status");
        let numbers = [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ];
        not_negative(at, &numbers, e);
        not_decremented(at.get("collisionCount"), old.at(&["status", "collisionCount"]), e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

/// upstream: ValidateDaemonSetSpec
fn validate(object: &Value, opts: &Options, e: &mut ErrorList) {
    let root = At::root(object);
    let spec = root.get("spec");
    let (at, template) = (spec.get("selector"), spec.get("template"));
    metadata::label_selector(at, opts.invalid_affinity_values, e);
    // A nil selector matches nothing.
    let matches = match at.is_set() {
        false => Some(false),
        true => LabelSelector::from_value(at.value)
            .ok()
            .map(|s| s.matches_map(template.value.map_at(&["metadata", "labels"]))),
    };
    if matches == Some(false) {
        super::invalid_labels(template.get("metadata.labels"), e);
    }
    let empty =
        at.value.map_at(&["matchLabels"]).is_empty() && at.value.list_at(&["matchExpressions"]).is_empty();
    if at.is_set() && empty {
        let printed = print::json(at.value, print::LABEL_SELECTOR);
        at.invalid_printed(e, printed, "empty selector is invalid for daemonset");
    }
    template::validate(template, opts, e);
    super::forever(template, "DaemonSet", e);
    not_negative(spec, &["minReadySeconds"], e);
    update_strategy(spec.get("updateStrategy"), e);
    not_negative(spec, &["revisionHistoryLimit"], e);
}

/// upstream: ValidateDaemonSetUpdateStrategy
fn update_strategy(at: At, e: &mut ErrorList) {
    let rolling = at.get("rollingUpdate");
    match at.get("type").str() {
        "OnDelete" => {}
        "RollingUpdate" if !rolling.is_set() => rolling.required(e, ""),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            for check in [int_or_percent as fn(At, &mut ErrorList), at_most_100_percent] {
                check(unavailable, e);
                check(surge, e);
            }
            match (amount(unavailable.value) != 0, amount(surge.value) != 0) {
                (true, true) => surge.invalid(e, "may not be set when maxUnavailable is non-zero"),
                (false, false) => unavailable.required(e, "cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        _ => {
            let mut error = FieldError::not_supported(&at.path, at.value, &["RollingUpdate", "OnDelete"]);
            error.value = Some(print::internal(at.value, "apps/DaemonSetUpdateStrategy"));
            e.push(error);
        }
    }
}
