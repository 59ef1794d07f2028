//! IPAddress. upstream: pkg/registry/networking/ipaddress/strategy.go, pkg/apis/networking/validation

use copepod_meta::{ErrorList, Value, names};

use super::need_segment;
use crate::cells::{self, NONE};
use crate::check::At;
use crate::core::ip;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct IpAddress;

/// upstream: ValidateIPAddressName
fn name_is_address(name: &str, _prefix: bool) -> Vec<String> {
    let value = Value::from(name);
    let mut wrong = ErrorList::new();
    ip::strict(At::root(&value), &mut wrong);
    wrong.iter().map(|error| error.detail.clone()).collect()
}

impl Strategy for IpAddress {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        name_is_address(name, prefix)
    }
    fn validate_create(&self, _cx: &Context, object: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(object, e);
        validate(object, e);
    }
    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_core(object, false, &name_is_address, e);
        validate(object, e);
        metadata::validate_update_core(object, old, e);
        let root = At::root(object);
        root.get("spec.parentRef").immutable_internal(
            e,
            old.at(&["spec", "parentRef"]),
            "io.k8s.api.networking.v1.ParentReference",
            "networking/ParentReference",
        );
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("networking/IPAddress")
    }
    fn row(&self, object: &Value) -> Row {
        let parent = object.at(&["spec", "parentRef"]);
        let [group, resource, namespace, name] =
            ["group", "resource", "namespace", "name"].map(|m| parent.str_at(&[m]));
        let mut text = match group {
            "" => resource.to_lowercase(),
            _ => format!("{resource}.{group}").to_lowercase(),
        };
        if !namespace.is_empty() {
            text.push('/');
            text.push_str(namespace);
        }
        text.push('/');
        text.push_str(name);
        let text = if parent.is_null() { NONE.into() } else { text };
        cells::row([cells::name(object), text.into(), cells::age(object)])
    }
    fn selectable_fields(&self) -> &'static [&'static str] {
        &[]
    }
}

/// upstream: validateIPAddressParentReference
fn validate(object: &Value, e: &mut ErrorList) {
    let root = At::root(object);
    let parent = root.get("spec.parentRef");
    if !parent.is_set() {
        return parent.required(e, "");
    }
    if !parent.get("group").is_empty() {
        parent.get("group").dns_subdomain(e);
    }
    need_segment(parent.get("resource"), e);
    need_segment(parent.get("name"), e);
    let namespace = parent.get("namespace");
    if !namespace.is_empty() {
        namespace.invalid_each(e, names::path_segment(namespace.str()));
    }
}
