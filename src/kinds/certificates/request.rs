//! CertificateSigningRequest. upstream: pkg/registry/certificates/certificates/strategy.go, pkg/apis/certificates/validation
//!
//! Requests are looked at as far as their PEM block goes: neither the ASN.1 inside nor its signature is.
//!
//! upstream, too: addConversionFuncs

use copepod_meta::{ErrorList, Value, time};
use std::collections::BTreeSet;

use super::signer_name;
use crate::cells::{self, NONE};
use crate::check::At;
use crate::generic::{clear_status, keep};
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct Request;
/// `certificatesigningrequests/status`
pub struct RequestStatus;
/// `certificatesigningrequests/approval`
pub struct RequestApproval;

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const CONDITIONS: [&str; 2] = ["status", "conditions"];
const CERTIFICATE: [&str; 2] = ["status", "certificate"];
/// Conditions that are True or absent.
const LASTING: [&str; 3] = ["Approved", "Denied", "Failed"];

fn any_name(_name: &str, _prefix: bool) -> Vec<String> {
    Vec::new()
}

fn of_type<'v>(request: &'v Value, ty: &str) -> Vec<&'v Value> {
    request.list_at(&CONDITIONS).iter().filter(|c| c.str_at(&["type"]) == ty).collect()
}

impl Strategy for Request {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        any_name(name, prefix)
    }
    fn prepare_create(&self, cx: &Context, request: &mut Value) {
        let spec = request.make(&["spec"]);
        for member in ["username", "uid", "groups", "extra"] {
            spec.remove(&[member]);
        }
        let texts = |list: &[String]| list.iter().map(|s| Value::from(s.as_str())).collect::<Vec<_>>();
        if !cx.user.name.is_empty() {
            spec.set(&["username"], cx.user.name.as_str());
        }
        if !cx.user.uid.is_empty() {
            spec.set(&["uid"], cx.user.uid.as_str());
        }
        if !cx.user.groups.is_empty() {
            spec.set(&["groups"], texts(&cx.user.groups));
        }
        for (key, values) in &cx.user.extra {
            spec.set(&["extra", key], texts(values));
        }
        clear_status(request);
    }
    fn prepare_update(&self, _cx: &Context, request: &mut Value, old: &Value) {
        keep(request, old, "spec");
        keep(request, old, "status");
    }
    fn validate_create(&self, _cx: &Context, request: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(request, e);
        validate(request, None, e);
    }
    fn validate_update(&self, _cx: &Context, request: &Value, old: &Value, e: &mut ErrorList) {
        update(request, old, Path::Main, e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"], &["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("certificates/CertificateSigningRequest")
    }
    fn row(&self, request: &Value) -> Row {
        let spec = request.get("spec");
        let signer = spec.str_at(&["signerName"]);
        let duration = spec.get("expirationSeconds").as_int().map(time::human_duration);
        cells::row([
            cells::name(request),
            cells::age(request),
            (if signer.is_empty() { NONE } else { signer }).into(),
            spec.str_at(&["username"]).into(),
            duration.unwrap_or_else(|| NONE.into()).into(),
            state(request).into(),
        ])
    }
    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }
    fn field(&self, request: &Value, _name: &str) -> String {
        request.str_at(&["spec", "signerName"]).into()
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        match name {
            "status" => Some(&RequestStatus),
            "approval" => Some(&RequestApproval),
            _ => None,
        }
    }
}

impl Strategy for RequestStatus {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        any_name(name, prefix)
    }
    fn prepare_update(&self, cx: &Context, request: &mut Value, old: &Value) {
        keep(request, old, "spec");
        for ty in ["Approved", "Denied"] {
            let stored: Vec<Value> = of_type(old, ty).into_iter().cloned().collect();
            if stored.len() != of_type(request, ty).len() {
                continue;
            }
            let list = request.at_mut(&CONDITIONS).and_then(Value::as_list_mut).into_iter().flatten();
            for (condition, stored) in list.filter(|c| c.str_at(&["type"]) == ty).zip(stored) {
                *condition = stored;
            }
        }
        times(cx, request, old);
    }
    fn validate_update(&self, _cx: &Context, request: &Value, old: &Value, e: &mut ErrorList) {
        update(request, old, Path::Status, e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"], &["status", "conditions"]]
    }
}

impl Strategy for RequestApproval {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        any_name(name, prefix)
    }
    fn prepare_update(&self, cx: &Context, request: &mut Value, old: &Value) {
        times(cx, request, old);
        let conditions = request.at(&CONDITIONS).clone();
        keep(request, old, "spec");
        keep(request, old, "status");
        match conditions {
            Value::Null => drop(request.remove(&CONDITIONS)),
            conditions => request.set(&CONDITIONS, conditions),
        }
    }
    fn validate_update(&self, _cx: &Context, request: &Value, old: &Value, e: &mut ErrorList) {
        update(request, old, Path::Approval, e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"], &["status", "certificate"]]
    }
}

/// upstream: populateConditionTimestamps
fn times(cx: &Context, request: &mut Value, old: &Value) {
    let list = request.at_mut(&CONDITIONS).and_then(Value::as_list_mut).into_iter().flatten();
    for condition in list {
        if condition.str_at(&["lastUpdateTime"]).is_empty() {
            condition.set(&["lastUpdateTime"], cx.now);
        }
        if condition.str_at(&["lastTransitionTime"]).is_empty() {
            let time = |c: &Value| c.str_at(&["lastTransitionTime"]).to_string();
            let same = |c: &&Value| {
                c.get("status") == condition.get("status") && !c.str_at(&["lastTransitionTime"]).is_empty()
            };
            let stored = of_type(old, condition.str_at(&["type"])).into_iter().find(same).map(time);
            condition.set(&["lastTransitionTime"], stored.unwrap_or_else(|| cx.now.into()));
        }
    }
}

/// upstream: extractCSRStatus
fn state(request: &Value) -> String {
    let has = |ty| !of_type(request, ty).is_empty();
    let mut text = String::from(match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    });
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !request.at(&CERTIFICATE).is_empty() {
        text.push_str(",Issued");
    }
    text
}

/// Through what an update comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    Main,
    Status,
    Approval,
}

fn is_known_usage(usage: &Value) -> bool {
    USAGES.contains(&usage.as_str().unwrap_or(""))
}

fn bytes(value: &Value) -> &[u8] {
    match value {
        Value::Bytes(bytes) | Value::Raw(bytes) => bytes,
        _ => &[],
    }
}

/// upstream: validateCertificateSigningRequest
fn validate(request: &Value, old: Option<&Value>, e: &mut ErrorList) {
    const SECONDS_MIN: i64 = 600;
    let root = At::root(request);
    let spec = root.get("spec");
    let pem = spec.get("request");
    if pem_type(bytes(pem.value)) != Some("CERTIFICATE REQUEST") {
        pem.invalid_pointer(e, "PEM block type must be CERTIFICATE REQUEST");
    }
    let usages = spec.get("usages");
    usages.need(e);
    let old_usages = old.map_or(&[][..], |o| o.list_at(&["spec", "usages"]));
    if old_usages.iter().all(is_known_usage) {
        for usage in usages.items() {
            usage.one_of(e, &USAGES);
        }
    }
    let mut seen = BTreeSet::new();
    let repeated_before = !old_usages.iter().all(|u| seen.insert(u.as_str()));
    seen.clear();
    for usage in usages.items().filter(|_| !repeated_before) {
        if !seen.insert(Some(usage.str())) {
            usage.duplicate(e);
        }
    }
    const LEGACY: &str = "kubernetes.io/legacy-unknown";
    let signer = spec.get("signerName");
    let legacy_before = old.is_some_and(|o| o.str_at(&["spec", "signerName"]) == LEGACY);
    if signer.str() == LEGACY && !legacy_before {
        signer.invalid(e, "the legacy signerName is not allowed via this API version");
    } else {
        signer_name(signer, e);
    }
    let seconds = spec.get("expirationSeconds");
    if seconds.opt_int().is_some_and(|n| n < SECONDS_MIN) {
        seconds.invalid(e, "may not specify a duration less than 600 seconds (10 minutes)");
    }
    conditions(root.get("status.conditions"), old, e);
    let certificate = root.get("status.certificate");
    let touched = old.is_none_or(|o| o.at(&CERTIFICATE) != certificate.value);
    let bad_before = old.is_some_and(|o| bad_certificate(bytes(o.at(&CERTIFICATE))).is_some());
    if touched
        && !bad_before
        && let Some(message) = bad_certificate(bytes(certificate.value))
    {
        certificate.invalid_str(e, "<certificate data>", message);
    }
}

/// The type of the first PEM block.
fn pem_type(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text).ok()?;
    let begin = text.find("-----BEGIN ")?;
    let rest = &text[begin + "-----BEGIN ".len()..];
    let ty = rest.split("-----").next()?;
    rest.contains(&format!("-----END {ty}-----")).then_some(ty)
}

/// upstream: validateCertificate, less the ASN.1
fn bad_certificate(text: &[u8]) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    match pem_type(text) {
        None => Some("must contain at least one CERTIFICATE PEM block".into()),
        Some("CERTIFICATE") => None,
        Some(ty) => {
            Some(format!("only CERTIFICATE PEM blocks are allowed, found {}", copepod_meta::field::quote(ty)))
        }
    }
}

/// upstream: validateConditions
fn conditions(list: At, old: Option<&Value>, e: &mut ErrorList) {
    const EXCLUSIVE: &str = "Approved and Denied conditions are mutually exclusive";
    let had = |ty: &str| old.is_some_and(|o| !of_type(o, ty).is_empty());
    let both_before = had("Approved") && had("Denied");
    let empty_before = had("");
    let mut seen = BTreeSet::new();
    let stored = old.map_or(&[][..], |o| o.list_at(&CONDITIONS));
    let repeated_before = !stored.iter().all(|c| seen.insert(c.str_at(&["type"])));
    seen.clear();
    for condition in list.items() {
        let (ty, status) = (condition.get("type"), condition.get("status"));
        if !empty_before {
            ty.need(e);
        }
        if status.need(e) {
            let all = ["False", "True", "Unknown"];
            status.one_of(e, if LASTING.contains(&ty.str()) { &all[1..2] } else { &all });
        }
        let other = match ty.str() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "-",
        };
        if !both_before && seen.contains(other) {
            list.invalid_str(e, ty.str(), EXCLUSIVE);
        }
        if !seen.insert(ty.str()) && !repeated_before {
            ty.duplicate(e);
        }
    }
}

/// upstream: validateCertificateSigningRequestUpdate
fn update(request: &Value, old: &Value, path: Path, e: &mut ErrorList) {
    metadata::validate_core(request, false, &any_name, e);
    validate(request, Some(old), e);
    let root = At::root(request);
    let list = root.get("status.conditions");
    for ty in LASTING {
        if of_type(request, ty).len() < of_type(old, ty).len() {
            list.forbidden(e, format!("updates may not remove a condition of type \"{ty}\""));
        }
    }
    if path != Path::Approval {
        for ty in ["Approved", "Denied"] {
            // Those that were there cannot differ: preparing the update restored them.
            if of_type(request, ty).len() > of_type(old, ty).len() {
                list.forbidden(e, format!("updates may not add a condition of type \"{ty}\""));
            }
        }
    }
    let certificate = root.get("status.certificate");
    let stored = bytes(old.at(&CERTIFICATE));
    if bytes(certificate.value) != stored {
        if path != Path::Status {
            certificate.forbidden(e, "updates may not set certificate content");
        } else if !stored.is_empty() {
            certificate.forbidden(e, "updates may not modify existing certificate content");
        }
    }
    metadata::validate_update_core(request, old, e);
}
