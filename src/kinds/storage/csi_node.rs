//! CSINode. upstream: pkg/registry/storage/csinode/strategy.go, pkg/apis/storage/validation

use copepod_meta::{ErrorList, Value, names};
use std::collections::BTreeSet;

use crate::cells;
use crate::check::At;
use crate::core::pod::legacy_volumes::csi_driver_name;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct CsiNode;

impl Strategy for CsiNode {
    fn validate_create(&self, _cx: &Context, node: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(node, e);
        validate(node, e);
    }
    fn validate_update(&self, cx: &Context, node: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_core(node, false, &names::dns1123_subdomain_prefixed, e);
        validate(node, e);
        let root = At::root(node);
        let drivers = root.get("spec.drivers");
        let mutable_count = (cx.feature)("MutableCSINodeAllocatableCount");
        let fixed = |driver: &Value| {
            let mut driver = driver.clone();
            if mutable_count {
                driver.remove(&["allocatable"]);
            }
            driver
        };
        for old in old.list_at(&["spec", "drivers"]) {
            let same_name = |d: &&Value| d.str_at(&["name"]) == old.str_at(&["name"]);
            for new in drivers.value.list_at(&[]).iter().filter(same_name) {
                let ty = "io.k8s.api.storage.v1.CSINodeDriver";
                let new = fixed(new);
                drivers.with(&new).immutable_internal(e, &fixed(old), ty, "storage/CSINodeDriver");
            }
        }
    }
    fn allow_unconditional_update(&self) -> bool {
        false
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("storage/CSINode")
    }
    fn row(&self, node: &Value) -> Row {
        let drivers = node.list_at(&["spec", "drivers"]).len() as i64;
        cells::row([cells::name(node), drivers.into(), cells::age(node)])
    }
}

/// upstream: validateCSINodeDrivers
fn validate(node: &Value, e: &mut ErrorList) {
    const NODE_ID_MAX: usize = 256;
    let root = At::root(node);
    let mut seen = BTreeSet::new();
    for driver in root.get("spec.drivers").items() {
        let (name, id) = (driver.get("name"), driver.get("nodeID"));
        csi_driver_name(name, e);
        id.need(e);
        if id.len() > NODE_ID_MAX {
            id.invalid(e, format!("must be {NODE_ID_MAX} characters or less"));
        }
        driver.get("allocatable.count").not_negative(e);
        if !seen.insert(name.str()) {
            name.duplicate(e);
        }
        let mut keys = BTreeSet::new();
        for key in driver.value.list_at(&["topologyKeys"]).iter().map(|k| k.as_str().unwrap_or("")) {
            if key.is_empty() {
                driver.required(e, "");
            }
            if !keys.insert(key) {
                driver.duplicate_str(e, key);
            }
            for message in names::qualified_name(key) {
                driver.invalid_str(e, key, message);
            }
        }
    }
}
