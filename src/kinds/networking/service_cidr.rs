//! ServiceCIDR. upstream: pkg/registry/networking/servicecidr/strategy.go, pkg/apis/networking/validation

use copepod_meta::{ErrorList, Value};

use crate::cells;
use crate::check::{At, IMMUTABLE};
use crate::core::ip::{self, Cidr};
use crate::generic::{clear_status, keep};
use crate::strategy::{Column, Context, Row, Strategy};
use crate::{metadata, print};

/// The strategy.
pub struct ServiceCidr;
/// `servicecidrs/status`
pub struct ServiceCidrStatus;

impl Strategy for ServiceCidr {
    fn prepare_create(&self, _cx: &Context, object: &mut Value) {
        clear_status(object);
    }
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        keep(object, old, "status");
    }
    fn validate_create(&self, _cx: &Context, object: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(object, e);
        validate(object, e);
    }
    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(object, old, e);
        let root = At::root(object);
        let cidrs = root.get("spec.cidrs");
        let stored = old.list_at(&["spec", "cidrs"]);
        let unchanged = |count: usize, e: &mut ErrorList| {
            for (at, old) in cidrs.items().zip(stored).take(count) {
                at.immutable(e, old);
            }
        };
        match (stored.len(), cidrs.len()) {
            (old, new) if old == new => unchanged(new, e),
            // A second family may come.
            (1, 2) => {
                unchanged(1, e);
                validate(object, e);
            }
            _ => cidrs.invalid_pointer(e, IMMUTABLE),
        }
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("networking/ServiceCIDR")
    }
    fn row(&self, object: &Value) -> Row {
        let cidrs: Vec<&str> = object.list_at(&["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
        cells::row([cells::name(object), cidrs.join(",").into(), cells::age(object)])
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&ServiceCidrStatus as &dyn Strategy)
    }
}

impl Strategy for ServiceCidrStatus {
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        keep(object, old, "spec");
        metadata::reset_for_status(object, old);
    }
    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(object, old, e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["metadata"], &["spec"]]
    }
}

/// upstream: validateServiceCIDRSpec
fn validate(object: &Value, e: &mut ErrorList) {
    let root = At::root(object);
    let cidrs = root.get("spec.cidrs");
    match cidrs.len() {
        0 => return cidrs.required(e, "at least one CIDR required"),
        1 | 2 => {}
        _ => {
            let printed = print::internal(object.get("spec"), "networking/ServiceCIDRSpec");
            return cidrs.invalid_printed(e, printed, "may only hold up to 2 values");
        }
    }
    for cidr in cidrs.items() {
        ip::strict_cidr(cidr, e);
    }
    let families: Vec<_> = cidrs.items().map(|c| Cidr::parse(c.str()).map(|c| c.ip.is_ipv4())).collect();
    if let [Some(a), Some(b)] = families[..]
        && a == b
    {
        cidrs.invalid(
            e,
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        );
    }
}
