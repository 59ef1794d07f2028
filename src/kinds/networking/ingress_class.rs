//! IngressClass. upstream: pkg/registry/networking/ingressclass/strategy.go, pkg/apis/networking/validation

use copepod_meta::{ErrorList, Value, names};

use super::typed_reference;
use crate::cells::{self, NONE};
use crate::check::At;
use crate::core::pod::defaults::fill_nil;
use crate::generic::bump_generation_if_changed;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct IngressClass;

impl Strategy for IngressClass {
    fn default(&self, _version: &str, class: &mut Value) {
        if let Some(parameters) = class.at_mut(&["spec", "parameters"]).filter(|p| !p.is_null()) {
            fill_nil(parameters, "scope", "Cluster");
        }
    }
    fn prepare_create(&self, _cx: &Context, class: &mut Value) {
        class.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, _cx: &Context, class: &mut Value, old: &Value) {
        bump_generation_if_changed(class, old, "io.k8s.api.networking.v1.IngressClassSpec");
    }
    fn validate_create(&self, _cx: &Context, class: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(class, e);
        validate(class, e);
    }
    fn validate_update(&self, _cx: &Context, class: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(class, old, e);
        let root = At::root(class);
        root.get("spec.controller").immutable(e, old.at(&["spec", "controller"]));
        metadata::validate_core(class, false, &names::dns1123_subdomain_prefixed, e);
        validate(class, e);
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("networking/IngressClass")
    }
    fn row(&self, class: &Value) -> Row {
        let mut name = class.str_at(&["metadata", "name"]).to_string();
        if class.str_at(&["metadata", "annotations", "ingressclass.kubernetes.io/is-default-class"]) == "true"
        {
            name.push_str(" (default)");
        }
        let parameters = class.at(&["spec", "parameters"]);
        let text = match parameters.get("apiGroup").as_str() {
            _ if parameters.is_null() => NONE.into(),
            Some(group) => {
                format!("{}.{group}/{}", parameters.str_at(&["kind"]), parameters.str_at(&["name"]))
            }
            None => format!("{}/{}", parameters.str_at(&["kind"]), parameters.str_at(&["name"])),
        };
        let controller = class.str_at(&["spec", "controller"]);
        cells::row([name.into(), controller.into(), text.into(), cells::age(class)])
    }
}

/// upstream: validateIngressClassSpec
fn validate(class: &Value, e: &mut ErrorList) {
    const CONTROLLER_MAX: usize = 250;
    let root = At::root(class);
    let controller = root.get("spec.controller");
    if controller.len() > CONTROLLER_MAX {
        controller.too_long(e, CONTROLLER_MAX);
    }
    controller.domain_prefixed_path(e);
    let parameters = root.get("spec.parameters");
    if !parameters.is_set() {
        return;
    }
    typed_reference(parameters, e);
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    if !scope.is_set() {
        return scope.required(e, "");
    }
    match (scope.str(), namespace.is_set()) {
        ("Namespace", false) => namespace.required(e, "`parameters.scope` is set to 'Namespace'"),
        ("Namespace", true) => namespace.dns_label(e),
        ("Cluster", true) => namespace.forbidden(e, "`parameters.scope` is set to 'Cluster'"),
        ("Cluster", false) => {}
        _ => scope.not_supported(e, &["Cluster", "Namespace"]),
    }
}
