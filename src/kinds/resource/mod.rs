//! resource.k8s.io: devices for pods. Defaults, what may not change, and tables; the insides of specs are not validated.
//!
//! upstream: pkg/registry/resource/*/strategy.go, pkg/apis/resource

use copepod_meta::{ErrorList, Value, names};

use crate::cells;
use crate::check::At;
use crate::core::pod::defaults::{each, fill};
use crate::equality::same;
use crate::generic::{bump_generation_if_spec_changed, clear_status, keep};
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// ResourceClaim.
pub struct Claim;
/// `resourceclaims/status`
pub struct ClaimStatus;
/// ResourceClaimTemplate.
pub struct ClaimTemplate;
/// DeviceClass.
pub struct Class;
/// ResourceSlice.
pub struct Slice;

/// upstream: SetDefaults_ExactDeviceRequest, SetDefaults_DeviceSubRequest
fn default_request(request: &mut Value) {
    fill(request, "allocationMode", "ExactCount");
    if request.str_at(&["allocationMode"]) == "ExactCount" {
        fill(request, "count", 1);
    }
}

/// Defaults of a claim's spec.
fn default_claim(object: &mut Value, spec: &[&str]) {
    let Some(spec) = object.at_mut(spec) else { return };
    for request in each(spec, &["devices", "requests"]) {
        if let Some(exactly) = request.at_mut(&["exactly"]).filter(|r| !r.is_null()) {
            default_request(exactly);
        }
        each(request, &["firstAvailable"]).for_each(default_request);
    }
}

/// The spec as it was, or an error at it.
fn immutable_spec(object: &Value, old: &Value, e: &mut ErrorList) {
    if !same(object.get("spec"), old.get("spec")) {
        let root = At::root(object);
        root.get("spec").invalid_pointer(e, crate::check::IMMUTABLE);
    }
}

impl Strategy for Claim {
    fn default(&self, _version: &str, claim: &mut Value) {
        default_claim(claim, &["spec"]);
    }
    fn prepare_create(&self, _cx: &Context, claim: &mut Value) {
        clear_status(claim);
    }
    fn prepare_update(&self, _cx: &Context, claim: &mut Value, old: &Value) {
        keep(claim, old, "status");
    }
    fn validate_create(&self, _cx: &Context, claim: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(claim, e);
    }
    fn validate_update(&self, _cx: &Context, claim: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_core(claim, true, &names::dns1123_subdomain_prefixed, e);
        metadata::validate_update_core(claim, old, e);
        immutable_spec(claim, old, e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("resource/ResourceClaim")
    }
    fn row(&self, claim: &Value) -> Row {
        let deleted = !claim.at(&["metadata", "deletionTimestamp"]).is_null();
        let allocated = !claim.at(&["status", "allocation"]).is_null();
        let reserved = allocated && !claim.list_at(&["status", "reservedFor"]).is_empty();
        let states = [
            (deleted, "deleted"),
            (!allocated && !deleted, "pending"),
            (allocated, "allocated"),
            (reserved, "reserved"),
        ];
        let states: Vec<&str> = states.iter().filter(|(is, _)| *is).map(|(_, text)| *text).collect();
        cells::row([cells::name(claim), states.join(",").into(), cells::age(claim)])
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&ClaimStatus as &dyn Strategy)
    }
}

impl Strategy for ClaimStatus {
    fn prepare_update(&self, _cx: &Context, claim: &mut Value, old: &Value) {
        keep(claim, old, "spec");
        metadata::reset_for_status(claim, old);
    }
    fn validate_update(&self, _cx: &Context, claim: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(claim, old, e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["metadata"], &["spec"]]
    }
}

impl Strategy for ClaimTemplate {
    fn default(&self, _version: &str, template: &mut Value) {
        default_claim(template, &["spec", "spec"]);
    }
    fn validate_create(&self, _cx: &Context, template: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(template, e);
    }
    fn validate_update(&self, _cx: &Context, template: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(template, old, e);
        immutable_spec(template, old, e);
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("resource/ResourceClaimTemplate")
    }
    fn row(&self, template: &Value) -> Row {
        cells::row([cells::name(template), cells::age(template)])
    }
}

impl Strategy for Class {
    fn prepare_create(&self, _cx: &Context, class: &mut Value) {
        class.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, _cx: &Context, class: &mut Value, old: &Value) {
        bump_generation_if_spec_changed(class, old);
    }
    fn validate_create(&self, _cx: &Context, class: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(class, e);
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("resource/DeviceClass")
    }
    fn row(&self, class: &Value) -> Row {
        cells::row([cells::name(class), cells::age(class)])
    }
}

/// A taint without a time begins now. upstream: SetDefaults_DeviceTaint
fn stamp_taints(cx: &Context, slice: &mut Value) {
    for device in each(slice, &["spec", "devices"]) {
        for taint in each(device, &["taints"]) {
            fill(taint, "timeAdded", cx.now);
        }
    }
}

impl Strategy for Slice {
    fn prepare_create(&self, cx: &Context, slice: &mut Value) {
        stamp_taints(cx, slice);
        slice.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, cx: &Context, slice: &mut Value, old: &Value) {
        stamp_taints(cx, slice);
        bump_generation_if_spec_changed(slice, old);
    }
    fn validate_create(&self, _cx: &Context, slice: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(slice, e);
    }
    fn validate_update(&self, _cx: &Context, slice: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(slice, old, e);
        let root = At::root(slice);
        root.get("spec.pool.name").immutable(e, old.at(&["spec", "pool", "name"]));
        root.get("spec.driver").immutable(e, old.at(&["spec", "driver"]));
        root.get("spec.nodeName").immutable_pointer(e, old.at(&["spec", "nodeName"]));
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("resource/ResourceSlice")
    }
    fn row(&self, slice: &Value) -> Row {
        cells::row([
            cells::name(slice),
            slice.str_at(&["spec", "nodeName"]).into(),
            slice.str_at(&["spec", "driver"]).into(),
            slice.str_at(&["spec", "pool", "name"]).into(),
            cells::age(slice),
        ])
    }
    /// upstream: addConversionFuncs of resource/v1
    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.nodeName", "spec.driver"]
    }
    fn field(&self, slice: &Value, name: &str) -> String {
        match name {
            "spec.nodeName" => slice.str_at(&["spec", "nodeName"]).into(),
            "spec.driver" => slice.str_at(&["spec", "driver"]).into(),
            _ => String::new(),
        }
    }
}
