//! VolumeAttributesClass. upstream: pkg/registry/storage/volumeattributesclass/strategy.go, pkg/apis/storage/validation

use copepod_meta::{ErrorList, Value, names};

use super::storage_class;
use crate::cells;
use crate::check::At;
use crate::equality::same;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn validate_create(&self, _cx: &Context, class: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(class, e);
        validate(class, e);
    }
    fn validate_update(&self, _cx: &Context, class: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(class, old, e);
        let root = At::root(class);
        for member in ["driverName", "parameters"] {
            let (new, old) = (class.get(member), old.get(member));
            // Upstream tells no parameters from an empty map of them.
            if !same(new, old) || (member == "parameters" && new.is_null() != old.is_null()) {
                root.get(member).forbidden(e, format!("updates to {member} are forbidden."));
            }
        }
        metadata::validate_core(class, false, &names::dns1123_subdomain_prefixed, e);
        validate(class, e);
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("storage/VolumeAttributesClass")
    }
    fn row(&self, class: &Value) -> Row {
        cells::row([cells::name(class), class.str_at(&["driverName"]).into(), cells::age(class)])
    }
}

/// upstream: ValidateVolumeAttributesClass
fn validate(class: &Value, e: &mut ErrorList) {
    let root = At::root(class);
    storage_class::provisioner(root.get("driverName"), e);
    let parameters = root.get("parameters");
    storage_class::parameters(parameters, e);
    if parameters.is_empty() {
        parameters.required(e, "must contain at least one key/value pair");
    }
}
