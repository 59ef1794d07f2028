//! ReplicaSet. upstream: pkg/registry/apps/replicaset/strategy.go, pkg/apis/apps/validation

use copepod_meta::{ErrorList, Value};

use super::{at_most_replicas, not_negative};
use crate::cells;
use crate::check::At;
use crate::core::pod::defaults::fill_nil;
use crate::core::pod::options::Options;
use crate::generic::{bump_generation_if_changed, clear_status, keep};
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct ReplicaSet;
/// `replicasets/status`
pub struct ReplicaSetStatus;

fn default(object: &mut Value) {
    super::default_template(object);
    fill_nil(object.make(&["spec"]), "replicas", 1);
}

impl Strategy for ReplicaSet {
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
        bump_generation_if_changed(object, old, "io.k8s.api.apps.v1.ReplicaSetSpec");
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
        cells::columns("apps/ReplicaSet")
    }
    fn row(&self, object: &Value) -> Row {
        replica_row(object, cells::selector(object.at(&["spec", "selector"])))
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&ReplicaSetStatus as &dyn Strategy)
    }
}

impl Strategy for ReplicaSetStatus {
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        keep(object, old, "spec");
    }
    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(object, old, e);
        validate_status(At::root(object).get("status"), e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

/// The row of a ReplicaSet or a ReplicationController, whose selectors differ.
pub(crate) fn replica_row(object: &Value, selector: String) -> Row {
    let (names, images) = cells::containers(object.at(&["spec", "template", "spec"]));
    cells::row([
        cells::name(object),
        object.int_at(&["spec", "replicas"]).into(),
        object.int_at(&["status", "replicas"]).into(),
        object.int_at(&["status", "readyReplicas"]).into(),
        cells::age(object),
        names,
        images,
        selector.into(),
    ])
}

/// Of a ReplicaSet or a ReplicationController. upstream: ValidateReplicaSetStatus
pub(crate) fn validate_status(at: At, e: &mut ErrorList) {
    let numbers = [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ];
    not_negative(at, &numbers, e);
    at_most_replicas(at, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], "readyReplicas", e);
}

/// upstream: ValidateReplicaSetSpec
fn validate(object: &Value, opts: &Options, e: &mut ErrorList) {
    let root = At::root(object);
    let spec = root.get("spec");
    not_negative(spec, &["replicas", "minReadySeconds"], e);
    super::selected_template(spec, opts, e);
}
