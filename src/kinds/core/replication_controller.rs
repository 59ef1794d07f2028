//! ReplicationController. upstream: pkg/registry/core/replicationcontroller/strategy.go, validation.go

use copepod_meta::{ErrorList, LabelSelector, Value};

use super::pod::defaults::{self, fill_nil};
use super::pod::options::Options;
use super::pod::template;
use crate::apps::{self, replica_set};
use crate::cells;
use crate::check::At;
use crate::generic::{bump_generation_if_changed, clear_status, keep};
use crate::metadata;
use crate::strategy::{Column, Context, DefaultPropagation, Row, Strategy};

/// The strategy.
pub struct ReplicationController;
/// `replicationcontrollers/status`
pub struct ReplicationControllerStatus;

/// upstream: SetDefaults_ReplicationController
fn default(object: &mut Value) {
    if let Some(template) = object.at_mut(&["spec", "template"]) {
        defaults::template(template);
    }
    let labels = object.at(&["spec", "template", "metadata", "labels"]).clone();
    if !labels.is_null() {
        for path in [["spec", "selector"], ["metadata", "labels"]] {
            if object.map_at(&path).is_empty() {
                object.set(&path, labels.clone());
            }
        }
    }
    fill_nil(object.make(&["spec"]), "replicas", 1);
}

impl Strategy for ReplicationController {
    fn default(&self, _version: &str, object: &mut Value) {
        default(object);
    }
    fn to_hub(&self, _version: &str, object: &mut Value) {
        apps::convert_template(object);
    }
    fn from_hub(&self, _version: &str, object: &mut Value) {
        apps::convert_template(object);
    }
    fn prepare_create(&self, _cx: &Context, object: &mut Value) {
        crate::core::pod::template::drop_disabled(object, None, &["spec", "template", "spec"]);
        clear_status(object);
        object.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        crate::core::pod::template::drop_disabled(object, Some(old), &["spec", "template", "spec"]);
        keep(object, old, "status");
        bump_generation_if_changed(object, old, "io.k8s.api.core.v1.ReplicationControllerSpec");
    }
    fn validate_create(&self, cx: &Context, object: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(object, e);
        validate(object, &apps::options(cx, None), e);
    }
    fn validate_update(&self, cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(object, old, e);
        validate(object, &apps::options(cx, Some(old)), e);
    }
    fn warnings(&self, _cx: &Context, object: &Value, old: Option<&Value>) -> Vec<String> {
        match old {
            None => apps::warn(object, None, true),
            // upstream hands the two templates over in the wrong order: it is the old one that it warns of.
            Some(old) => apps::warn(old, Some(object), true),
        }
    }
    fn default_propagation(&self) -> DefaultPropagation {
        DefaultPropagation::Orphan
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("core/ReplicationController")
    }
    fn row(&self, object: &Value) -> Row {
        replica_set::replica_row(object, cells::labels(object.at(&["spec", "selector"])))
    }
    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }
    fn field(&self, object: &Value, _name: &str) -> String {
        object.int_at(&["status", "replicas"]).to_string()
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&ReplicationControllerStatus as &dyn Strategy)
    }
}

impl Strategy for ReplicationControllerStatus {
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        keep(object, old, "spec");
    }
    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(object, old, e);
        replica_set::validate_status(At::root(object).get("status"), e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

/// upstream: ValidateReplicationControllerSpec
fn validate(object: &Value, opts: &Options, e: &mut ErrorList) {
    let root = At::root(object);
    let spec = root.get("spec");
    spec.get("minReadySeconds").not_negative(e);
    spec.get("selector").need(e);
    let replicas = spec.get("replicas");
    if replicas.is_set() {
        replicas.not_negative(e);
    } else {
        replicas.required(e, "");
    }
    let template = spec.get("template");
    if !template.is_set() {
        return template.required(e, "");
    }
    apps::labels_match(&LabelSelector::from_labels(spec.get("selector").map()), template, e);
    template::validate(template, opts, e);
    apps::forever(template, "ReplicationController", e);
}
