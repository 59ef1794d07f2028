//! Ingress. upstream: pkg/registry/networking/ingress/strategy.go, pkg/apis/networking/validation

use copepod_meta::{ErrorList, Path, Value, names};
use std::collections::BTreeSet;

use super::typed_reference;
use crate::cells::{self, NONE};
use crate::check::At;
use crate::core::ip;
use crate::generic::{bump_generation_if_changed, clear_status, keep};
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct Ingress;
/// `ingresses/status`
pub struct IngressStatus;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// What passes because it was stored already, or by a gate.
#[derive(Clone, Copy)]
struct Options {
    secret_names: bool,
    wildcard_rules: bool,
    relaxed_service_names: bool,
}

impl Options {
    fn new(cx: &Context, old: Option<&Value>) -> Options {
        let mut options = Options {
            secret_names: false,
            wildcard_rules: false,
            relaxed_service_names: (cx.feature)("RelaxedServiceNameValidation"),
        };
        let Some(old) = old else { return options };
        let root = At::root(old);
        let bad_secret = |tls: &Value| {
            let name = tls.str_at(&["secretName"]);
            !name.is_empty() && !names::dns1123_subdomain(name).is_empty()
        };
        options.secret_names = old.list_at(&["spec", "tls"]).iter().any(bad_secret);
        let strict = Options { relaxed_service_names: false, ..options };
        let rules = root.get("spec.rules");
        options.wildcard_rules = rules.items().any(|rule| {
            let mut wrong = ErrorList::new();
            http(rule.get("http"), strict, &mut wrong);
            rule.get("host").str().contains('*') && !wrong.is_empty()
        });
        let relaxed = |backend: &Value| {
            let name = backend.str_at(&["service", "name"]);
            !backend.get("service").is_null()
                && names::dns1123_label(name).is_empty()
                && !names::dns1035_label(name).is_empty()
        };
        options.relaxed_service_names |= relaxed(old.at(&["spec", "defaultBackend"]))
            || old
                .list_at(&["spec", "rules"])
                .iter()
                .any(|rule| rule.list_at(&["http", "paths"]).iter().any(|path| relaxed(path.get("backend"))));
        options
    }
}

impl Strategy for Ingress {
    fn prepare_create(&self, _cx: &Context, ingress: &mut Value) {
        clear_status(ingress);
        ingress.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, _cx: &Context, ingress: &mut Value, old: &Value) {
        keep(ingress, old, "status");
        bump_generation_if_changed(ingress, old, "io.k8s.api.networking.v1.IngressSpec");
    }
    fn validate_create(&self, cx: &Context, ingress: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(ingress, e);
        validate(ingress, Options::new(cx, None), e);
        let annotation = ingress.at(&["metadata", "annotations", CLASS_ANNOTATION]);
        let class = ingress.at(&["spec", "ingressClassName"]);
        if !annotation.is_null() && !class.is_null() && annotation != class {
            let path = Path::new("annotations");
            let at = At::new(annotation, path.child(CLASS_ANNOTATION));
            at.invalid(e, "must match `ingressClassName` when both are specified");
        }
    }
    fn validate_update(&self, cx: &Context, ingress: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(ingress, old, e);
        metadata::validate_core(ingress, true, &names::dns1123_subdomain_prefixed, e);
        validate(ingress, Options::new(cx, Some(old)), e);
    }
    fn warnings(&self, _cx: &Context, ingress: &Value, old: Option<&Value>) -> Vec<String> {
        let annotation = ingress.at(&["metadata", "annotations", CLASS_ANNOTATION]);
        if old.is_none() && !annotation.is_null() && ingress.at(&["spec", "ingressClassName"]).is_null() {
            return vec![format!(
                "annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"
            )];
        }
        Vec::new()
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("networking/Ingress")
    }
    fn row(&self, ingress: &Value) -> Row {
        let balancers = ingress.list_at(&["status", "loadBalancer", "ingress"]).iter();
        let addresses: BTreeSet<&str> = balancers
            .map(|i| if i.str_at(&["ip"]).is_empty() { i.str_at(&["hostname"]) } else { i.str_at(&["ip"]) })
            .filter(|text| !text.is_empty())
            .collect();
        let tls = !ingress.list_at(&["spec", "tls"]).is_empty();
        cells::row([
            cells::name(ingress),
            ingress.at(&["spec", "ingressClassName"]).as_str().unwrap_or(NONE).into(),
            hosts(ingress).into(),
            addresses.into_iter().collect::<Vec<_>>().join(",").into(),
            (if tls { "80, 443" } else { "80" }).into(),
            cells::age(ingress),
        ])
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&IngressStatus as &dyn Strategy)
    }
}

impl Strategy for IngressStatus {
    fn prepare_update(&self, _cx: &Context, ingress: &mut Value, old: &Value) {
        keep(ingress, old, "spec");
    }
    fn validate_update(&self, _cx: &Context, ingress: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(ingress, old, e);
        let old_list = old.list_at(&["status", "loadBalancer", "ingress"]).iter();
        let known: Vec<&str> = old_list.map(|i| i.str_at(&["ip"])).filter(|ip| !ip.is_empty()).collect();
        let root = At::root(ingress);
        for item in root.get("status.loadBalancer.ingress").items() {
            let (address, host) = (item.get("ip"), item.get("hostname"));
            if !address.is_empty() {
                ip::legacy(address, &known, e);
            }
            if !host.is_empty() {
                host.dns_subdomain(e);
                not_an_address(host, e);
            }
        }
    }
    fn warnings(&self, _cx: &Context, ingress: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        let root = At::root(ingress);
        for item in root.get("status.loadBalancer.ingress").items() {
            let address = item.value.get("ip");
            if !address.is_empty() {
                ip::warnings(item.with(address), &mut out);
            }
        }
        out
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

/// upstream: formatHosts
fn hosts(ingress: &Value) -> String {
    const SHOWN_MAX: usize = 3;
    let rules = ingress.list_at(&["spec", "rules"]);
    let mut shown: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= shown.len() == SHOWN_MAX;
        let host = rule.str_at(&["host"]);
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    match shown.join(",") {
        text if text.is_empty() => "*".into(),
        text if more => format!("{text} + {} more...", rules.len() - SHOWN_MAX),
        text => text,
    }
}

fn not_an_address(host: At, e: &mut ErrorList) {
    if ip::parse(host.str()).is_some() {
        host.invalid(e, "must be a DNS name, not an IP address");
    }
}

fn host_name(host: At, e: &mut ErrorList) {
    match host.str().contains('*') {
        true => host.invalid_each(e, names::wildcard_dns1123_subdomain(host.str())),
        false => host.dns_subdomain(e),
    }
}

/// upstream: ValidateIngressSpec
fn validate(ingress: &Value, options: Options, e: &mut ErrorList) {
    let root = At::root(ingress);
    let spec = root.get("spec");
    let (rules, default) = (spec.get("rules"), spec.get("defaultBackend"));
    if rules.is_empty() && !default.is_set() {
        let message = "either `defaultBackend` or `rules` must be specified";
        spec.with(rules.value).invalid_pointer(e, message);
    }
    if default.is_set() {
        backend(default, options, e);
    }
    for rule in rules.items() {
        let host = rule.get("host");
        if !host.is_empty() {
            not_an_address(host, e);
            host_name(host, e);
        }
        if !(host.str().contains('*') && options.wildcard_rules) {
            http(rule.get("http"), options, e);
        }
    }
    for tls in spec.get("tls").items() {
        for host in tls.get("hosts").items() {
            host_name(host, e);
        }
        let secret = tls.get("secretName");
        if !options.secret_names && !secret.is_empty() {
            secret.dns_subdomain(e);
        }
    }
    let class = spec.get("ingressClassName");
    if class.is_set() {
        class.dns_subdomain(e);
    }
}

fn http(http: At, options: Options, e: &mut ErrorList) {
    if !http.is_set() {
        return;
    }
    let paths = http.get("paths");
    if paths.is_empty() {
        paths.required(e, "");
    }
    for item in paths.items() {
        http_path(item, options, e);
    }
}

/// upstream: validateHTTPIngressPath
fn http_path(item: At, options: Options, e: &mut ErrorList) {
    const SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
    const SUFFIXES: [&str; 2] = ["/..", "/."];
    let (ty, path) = (item.get("pathType"), item.get("path"));
    if !ty.is_set() {
        return ty.required(e, "pathType must be specified");
    }
    let exact = matches!(ty.str(), "Exact" | "Prefix");
    match ty.str() {
        "Exact" | "Prefix" | "ImplementationSpecific" => {
            if !path.str().starts_with('/') && (exact || !path.is_empty()) {
                path.invalid(e, "must be an absolute path");
            }
        }
        _ => ty.not_supported(e, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    if exact {
        for sequence in SEQUENCES.iter().filter(|s| path.str().contains(**s)) {
            path.invalid(e, format!("must not contain '{sequence}'"));
        }
        for suffix in SUFFIXES.iter().filter(|s| path.str().ends_with(**s)) {
            path.invalid(e, format!("cannot end with '{suffix}'"));
        }
    }
    backend(item.get("backend"), options, e);
}

/// upstream: validateIngressBackend
fn backend(at: At, options: Options, e: &mut ErrorList) {
    let (resource, service) = (at.get("resource"), at.get("service"));
    match (resource.is_set(), service.is_set()) {
        (true, true) => return at.invalid_str(e, "", "cannot set both resource and service backends"),
        (true, false) => return typed_reference(resource, e),
        (false, false) => return at.invalid_str(e, "", "resource or service backend is required"),
        (false, true) => {}
    }
    let name = service.get("name");
    if name.need(e) {
        match options.relaxed_service_names {
            true => name.dns_label(e),
            false => name.invalid_each(e, names::dns1035_label(name.str())),
        }
    }
    let (port_name, number) = (service.get("port.name"), service.get("port.number"));
    match (!port_name.is_empty(), number.int() != 0) {
        (true, true) => at.invalid_str(e, "", "cannot set both port name & port number"),
        (true, false) => port_name.invalid_each(e, names::port_name(port_name.str())),
        (false, true) => number.port(e),
        (false, false) => at.required(e, "port name or number is required"),
    }
}
