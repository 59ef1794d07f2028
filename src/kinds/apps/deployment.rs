//! Deployment. upstream: pkg/registry/apps/deployment/strategy.go, pkg/apis/apps/validation

use copepod_meta::{ErrorList, Value};

use super::{amount, at_most_100_percent, at_most_replicas, int_or_percent, not_decremented, not_negative};
use crate::cells;
use crate::check::At;
use crate::core::pod::defaults::{fill, fill_nil};
use crate::core::pod::options::Options;
use crate::equality::same_as;
use crate::generic::{bump_generation, clear_status, keep};
use crate::strategy::{Column, Context, Row, Strategy};
use crate::{metadata, print};

/// The strategy.
pub struct Deployment;
/// `deployments/status`
pub struct DeploymentStatus;

const SPEC: &str = "io.k8s.api.apps.v1.DeploymentSpec";

/// upstream: SetDefaults_Deployment
fn default(object: &mut Value) {
    super::default_template(object);
    let spec = object.make(&["spec"]);
    fill_nil(spec, "replicas", 1);
    fill(spec.make(&["strategy"]), "type", "RollingUpdate");
    if spec.str_at(&["strategy", "type"]) == "RollingUpdate" {
        let rolling = spec.make(&["strategy", "rollingUpdate"]);
        fill_nil(rolling, "maxUnavailable", "25%");
        fill_nil(rolling, "maxSurge", "25%");
    }
    fill_nil(spec, "revisionHistoryLimit", 10);
    fill_nil(spec, "progressDeadlineSeconds", 600);
}

impl Strategy for Deployment {
    fn default(&self, _version: &str, object: &mut Value) {
        default(object);
    }
    fn to_hub(&self, _version: &str, object: &mut Value) {
        super::convert_template(object);
    }
    fn from_hub(&self, _version: &str, object: &mut Value) {
        super::convert_template(object);
    }
    fn of_nothing(&self, object: &mut Value) {
        object.set(&["spec", "replicas"], 0);
    }
    fn prepare_create(&self, _cx: &Context, object: &mut Value) {
        crate::core::pod::template::drop_disabled(object, None, &["spec", "template", "spec"]);
        clear_status(object);
        object.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        crate::core::pod::template::drop_disabled(object, Some(old), &["spec", "template", "spec"]);
        keep(object, old, "status");
        let annotated = metadata::differs(object, old, "annotations");
        if annotated || !same_as(object.get("spec"), old.get("spec"), SPEC) {
            bump_generation(object, old);
        }
    }
    fn validate_create(&self, cx: &Context, object: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(object, e);
        validate(object, &super::options(cx, None), e);
    }
    fn validate_update(&self, cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(object, old, e);
        validate(object, &super::options(cx, Some(old)), e);
        super::immutable_selector(object, old, e);
    }
    fn warnings(&self, _cx: &Context, object: &Value, old: Option<&Value>) -> Vec<String> {
        super::warn(object, old, true)
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("apps/Deployment")
    }
    fn row(&self, object: &Value) -> Row {
        let status = |member: &str| object.int_at(&["status", member]);
        let (names, images) = cells::containers(object.at(&["spec", "template", "spec"]));
        let selector = match copepod_meta::LabelSelector::from_value(object.at(&["spec", "selector"])) {
            Ok(selector) => selector.to_string(),
            Err(_) => "<invalid>".into(),
        };
        cells::row([
            cells::name(object),
            format!("{}/{}", status("readyReplicas"), object.int_at(&["spec", "replicas"])).into(),
            status("updatedReplicas").into(),
            status("availableReplicas").into(),
            cells::age(object),
            names,
            images,
            selector.into(),
        ])
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&DeploymentStatus as &dyn Strategy)
    }
}

impl Strategy for DeploymentStatus {
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        keep(object, old, "spec");
        match old.at(&["metadata", "labels"]) {
            Value::Null => {
                object.remove(&["metadata", "labels"]);
            }
            labels => object.set(&["metadata", "labels"], labels.clone()),
        }
    }
    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(object, old, e);
        let root = At::root(object);
        let at = root.get("status");
        let numbers = [
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ];
        not_negative(at, &numbers, e);
        at_most_replicas(at, &["updatedReplicas", "readyReplicas", "availableReplicas"], "readyReplicas", e);
        not_decremented(at.get("collisionCount"), old.at(&["status", "collisionCount"]), e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"], &["metadata", "labels"]]
    }
}

/// upstream: ValidateDeploymentSpec
fn validate(object: &Value, opts: &Options, e: &mut ErrorList) {
    let root = At::root(object);
    let spec = root.get("spec");
    spec.get("replicas").not_negative(e);
    super::selected_template(spec, opts, e);
    strategy(spec.get("strategy"), e);
    not_negative(spec, &["minReadySeconds", "revisionHistoryLimit"], e);
    let deadline = spec.get("progressDeadlineSeconds");
    if deadline.is_set() {
        deadline.not_negative(e);
        if deadline.int() <= spec.get("minReadySeconds").int() {
            deadline.invalid_int(e, "must be greater than minReadySeconds");
        }
    }
}

/// upstream: ValidateDeploymentStrategy
fn strategy(at: At, e: &mut ErrorList) {
    let rolling = at.get("rollingUpdate");
    match at.get("type").str() {
        "Recreate" => {
            if rolling.is_set() {
                rolling.forbidden(e, "may not be specified when strategy `type` is 'Recreate'");
            }
        }
        "RollingUpdate" if !rolling.is_set() => {
            rolling.required(e, "this should be defaulted and never be nil")
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            int_or_percent(unavailable, e);
            int_or_percent(surge, e);
            if amount(unavailable.value) == 0 && amount(surge.value) == 0 {
                unavailable.invalid(e, "may not be 0 when `maxSurge` is 0");
            }
            at_most_100_percent(unavailable, e);
        }
        _ => {
            let mut error =
                copepod_meta::FieldError::not_supported(&at.path, at.value, &["Recreate", "RollingUpdate"]);
            error.value = Some(print::internal(at.value, "apps/DeploymentStrategy"));
            e.push(error);
        }
    }
}
