//! The status of Services: what a load balancer tells of itself.
//!
//! upstream: pkg/registry/core/service/strategy.go serviceStatusStrategy

use copepod_meta::{ErrorList, Value};

use super::ip;
use super::service::ty;
use crate::check::At;
use crate::generic::keep;
use crate::metadata;
use crate::strategy::{Context, Strategy};

/// The strategy of `services/status`.
pub struct ServiceStatus;

impl Strategy for ServiceStatus {
    fn prepare_update(&self, _cx: &Context, service: &mut Value, old: &Value) {
        keep(service, old, "spec");
    }
    fn validate_update(&self, _cx: &Context, service: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(service, old, e);
        let root = At::root(service);
        let was = old.at(&["status", "loadBalancer"]);
        load_balancer_status(root.get("status.loadBalancer"), was, ty(service) == "LoadBalancer", e);
    }
    fn warnings(&self, _cx: &Context, service: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        let root = At::root(service);
        for ingress in root.get("status.loadBalancer.ingress").items() {
            let ip = ingress.value.get("ip");
            if !ip.is_empty() {
                ip::warnings(ingress.with(ip), &mut out);
            }
        }
        out
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

/// upstream: ValidateLoadBalancerStatus
fn load_balancer_status(at: At, was: &Value, allowed: bool, e: &mut ErrorList) {
    let list = at.get("ingress");
    if !allowed {
        if !list.is_empty() {
            list.forbidden(e, "may only be used when `spec.type` is 'LoadBalancer'");
        }
        return;
    }
    let known: Vec<&str> =
        was.list_at(&["ingress"]).iter().map(|i| i.str_at(&["ip"])).filter(|i| !i.is_empty()).collect();
    for ingress in list.items() {
        let (own, mode, hostname) = (ingress.get("ip"), ingress.get("ipMode"), ingress.get("hostname"));
        if !own.is_empty() {
            ip::legacy(own, &known, e);
        }
        match (mode.is_set(), own.is_empty()) {
            (false, false) => mode.required(e, "must be specified when `ip` is set"),
            (true, true) => mode.forbidden(e, "may not be specified when `ip` is not set"),
            (true, false) => mode.one_of(e, &["Proxy", "VIP"]),
            (false, true) => {}
        }
        if !hostname.is_empty() {
            hostname.dns_subdomain(e);
            if ip::parse(hostname.str()).is_some() {
                hostname.invalid(e, "must be a DNS name, not an IP address");
            }
        }
    }
}
