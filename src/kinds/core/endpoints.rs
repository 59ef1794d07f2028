//! Endpoints. upstream: pkg/registry/core/endpoint/strategy.go, validation.go ValidateEndpoints

use copepod_meta::{ErrorList, Value, names};
use std::net::IpAddr;

use super::ip;
use crate::cells::{self, NONE};
use crate::check::At;
use crate::equality::same;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, _version: &str, endpoints: &mut Value) {
        for subset in crate::core::pod::defaults::each(endpoints, &["subsets"]) {
            for port in crate::core::pod::defaults::each(subset, &["ports"]) {
                crate::core::pod::defaults::fill(port, "protocol", "TCP");
            }
        }
    }
    fn validate_create(&self, _cx: &Context, endpoints: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(endpoints, e);
        subsets(endpoints, e);
    }
    fn validate_update(&self, _cx: &Context, endpoints: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(endpoints, old, e);
        metadata::validate_core(endpoints, true, &names::dns1123_subdomain_prefixed, e);
        // What was taken once stays.
        if !same(endpoints.get("subsets"), old.get("subsets")) {
            subsets(endpoints, e);
        }
    }
    fn warnings(&self, _cx: &Context, endpoints: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings(endpoints)
    }
    fn allow_create_on_update(&self) -> bool {
        true
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("core/Endpoints")
    }
    fn row(&self, endpoints: &Value) -> Row {
        cells::row([cells::name(endpoints), format_subsets(endpoints).into(), cells::age(endpoints)])
    }
}

/// upstream: endpointsWarnings
fn warnings(endpoints: &Value) -> Vec<String> {
    let managed =
        endpoints.map_at(&["metadata", "labels"]).contains_key("endpoints.kubernetes.io/managed-by");
    let mut out = Vec::new();
    if managed {
        return out;
    }
    let root = At::root(endpoints);
    for subset in root.get("subsets").items() {
        for list in ["addresses", "notReadyAddresses"] {
            for address in subset.get(list).items() {
                ip::warnings(address.get("ip"), &mut out);
            }
        }
    }
    out
}

/// upstream: validateEndpointSubsets
fn subsets(endpoints: &Value, e: &mut ErrorList) {
    let root = At::root(endpoints);
    for subset in root.get("subsets").items() {
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|list| subset.get(list).is_empty()) {
            subset.required(e, "must specify `addresses` or `notReadyAddresses`");
        }
        for list in lists {
            for address in subset.get(list).items() {
                validate_address(address, e);
            }
        }
        let ports = subset.get("ports");
        for port in ports.items() {
            validate_port(port, ports.len() > 1, e);
        }
    }
}

fn validate_address(address: At, e: &mut ErrorList) {
    let (own, hostname, node) = (address.get("ip"), address.get("hostname"), address.get("nodeName"));
    ip::legacy(own, &[], e);
    if !hostname.is_empty() {
        hostname.dns_label(e);
    }
    if node.is_set() {
        node.dns_subdomain(e);
    }
    endpoint_ip(own, e);
}

/// An address that traffic may be sent to. upstream: ValidateEndpointIP
pub fn endpoint_ip(at: At, e: &mut ErrorList) {
    let Some(parsed) = ip::parse(at.str()) else { return at.invalid(e, "must be a valid IP address") };
    if parsed.is_unspecified() {
        at.invalid(e, format!("may not be unspecified ({})", at.str()));
    }
    if parsed.is_loopback() {
        at.invalid(e, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, multicast) = match parsed {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.segments()[0] & 0xffc0 == 0xfe80, ip.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        at.invalid(e, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        at.invalid(e, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn validate_port(port: At, named: bool, e: &mut ErrorList) {
    let (name, protocol, app) = (port.get("name"), port.get("protocol"), port.get("appProtocol"));
    if name.is_empty() {
        if named {
            name.required(e, "");
        }
    } else {
        name.dns_label(e);
    }
    port.get("port").port(e);
    if protocol.need(e) {
        protocol.one_of(e, &["SCTP", "TCP", "UDP"]);
    }
    if app.is_set() {
        app.qualified_name(e);
    }
}

/// upstream: formatEndpoints
fn format_subsets(endpoints: &Value) -> String {
    const SHOWN_MAX: usize = 3;
    let mut all = Vec::new();
    for subset in endpoints.list_at(&["subsets"]) {
        let addresses = || subset.list_at(&["addresses"]).iter().map(|a| a.str_at(&["ip"]));
        let ports = subset.list_at(&["ports"]);
        if ports.is_empty() {
            all.extend(addresses().map(str::to_string));
        }
        for port in ports {
            all.extend(addresses().map(|ip| join_host_port(ip, port.int_at(&["port"]))));
        }
    }
    if endpoints.list_at(&["subsets"]).is_empty() {
        return NONE.into();
    }
    let shown = all.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(",");
    match all.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

/// Go's net.JoinHostPort.
pub fn join_host_port(host: &str, port: i64) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
