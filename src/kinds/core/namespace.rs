//! Namespace. upstream: pkg/registry/core/namespace/strategy.go, validation.go ValidateNamespace
//!
//! upstream, too: AddFieldLabelConversionsForNamespace

use copepod_meta::{ErrorList, Value, names};

use crate::cells;
use crate::check::At;
use crate::generic::keep;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The label that every namespace has, with its own name. upstream: v1.LabelMetadataName
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";

/// The strategy.
pub struct Namespace;
/// `namespaces/status`
pub struct NamespaceStatus;
/// `namespaces/finalize`
pub struct NamespaceFinalize;

/// upstream: SetDefaults_Namespace; a name that is still to be generated comes with canonicalization.
fn label(namespace: &mut Value) {
    let name = namespace.str_at(&["metadata", "name"]).to_string();
    if !name.is_empty() {
        namespace.set(&["metadata", "labels", NAME_LABEL], name);
    }
}

fn default(namespace: &mut Value) {
    label(namespace);
    if namespace.str_at(&["status", "phase"]).is_empty() {
        namespace.set(&["status", "phase"], "Active");
    }
}

/// upstream: validateFinalizerName, reported at `at`
fn finalizer_name(at: At, name: &str, e: &mut ErrorList) {
    for message in names::qualified_name(name) {
        at.invalid_str(e, name, message);
    }
    if !name.contains('/') && !matches!(name, FINALIZER | "orphan" | "foregroundDeletion") {
        at.invalid_str(e, name, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

fn finalizers(namespace: &Value, e: &mut ErrorList) {
    let root = At::root(namespace);
    let list = root.get("spec.finalizers");
    for item in list.items() {
        finalizer_name(list, item.str(), e);
    }
}

impl Strategy for Namespace {
    fn default(&self, _version: &str, namespace: &mut Value) {
        default(namespace);
    }
    fn prepare_create(&self, _cx: &Context, namespace: &mut Value) {
        let mut status = Value::map();
        status.set(&["phase"], "Active");
        namespace.set(&["status"], status);
        let list = namespace.list_at(&["spec", "finalizers"]);
        if !list.iter().any(|f| f.as_str() == Some(FINALIZER)) {
            let mut list = list.to_vec();
            list.push(FINALIZER.into());
            namespace.set(&["spec", "finalizers"], list);
        }
    }
    fn prepare_update(&self, _cx: &Context, namespace: &mut Value, old: &Value) {
        keep(namespace, old, "spec");
        keep(namespace, old, "status");
    }
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::dns1123_label_prefixed(name, prefix)
    }
    fn validate_create(&self, _cx: &Context, namespace: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(namespace, e);
        finalizers(namespace, e);
    }
    fn validate_update(&self, _cx: &Context, namespace: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_core(namespace, false, &names::dns1123_label_prefixed, e);
        finalizers(namespace, e);
        metadata::validate_update_core(namespace, old, e);
    }
    fn canonicalize(&self, namespace: &mut Value) {
        label(namespace);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("core/Namespace")
    }
    fn row(&self, namespace: &Value) -> Row {
        let phase = namespace.str_at(&["status", "phase"]);
        cells::row([cells::name(namespace), phase.into(), cells::age(namespace)])
    }
    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.phase"]
    }
    fn field(&self, namespace: &Value, name: &str) -> String {
        match name {
            "status.phase" => namespace.str_at(&["status", "phase"]).into(),
            _ => String::new(),
        }
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        match name {
            "status" => Some(&NamespaceStatus),
            "finalize" => Some(&NamespaceFinalize),
            _ => None,
        }
    }
}

impl Strategy for NamespaceStatus {
    fn prepare_update(&self, _cx: &Context, namespace: &mut Value, old: &Value) {
        keep(namespace, old, "spec");
    }
    fn validate_update(&self, _cx: &Context, namespace: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(namespace, old, e);
        let root = At::root(namespace);
        let at = root.get("status.Phase");
        let phase = at.with(namespace.at(&["status", "phase"]));
        let deleted = !namespace.at(&["metadata", "deletionTimestamp"]).is_null();
        match (deleted, phase.str()) {
            (false, "Active") | (true, "Terminating") => {}
            (false, _) => phase.invalid(e, "may only be 'Active' if `deletionTimestamp` is empty"),
            (true, _) => phase.invalid(e, "may only be 'Terminating' if `deletionTimestamp` is not empty"),
        }
    }
    fn canonicalize(&self, namespace: &mut Value) {
        label(namespace);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

impl Strategy for NamespaceFinalize {
    fn prepare_update(&self, _cx: &Context, namespace: &mut Value, old: &Value) {
        keep(namespace, old, "status");
    }
    fn validate_update(&self, _cx: &Context, namespace: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(namespace, old, e);
        let root = At::root(namespace);
        for item in root.get("spec.finalizers").items() {
            finalizer_name(item, item.str(), e);
        }
    }
    fn canonicalize(&self, namespace: &mut Value) {
        label(namespace);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
}
