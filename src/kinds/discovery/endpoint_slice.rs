//! EndpointSlice. upstream: pkg/registry/discovery/endpointslice/strategy.go, pkg/apis/discovery/validation

use copepod_meta::{ErrorList, Value, names};
use std::collections::BTreeSet;

use crate::cells;
use crate::check::At;
use crate::core::endpoints::endpoint_ip;
use crate::core::ip;
use crate::core::pod::defaults::{each, fill_nil};
use crate::equality::{same, same_list};
use crate::generic::bump_generation;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20000;
const TOPOLOGY_LABELS_MAX: usize = 16;
const HINTS_MAX: usize = 8;
const ENDPOINT: &str = "io.k8s.api.discovery.v1.Endpoint";
const PORT: &str = "io.k8s.api.discovery.v1.EndpointPort";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// The strategy.
pub struct EndpointSlice;

impl Strategy for EndpointSlice {
    /// upstream: pkg/apis/discovery/v1/defaults.go SetDefaults_EndpointPort
    fn default(&self, _version: &str, slice: &mut Value) {
        for port in each(slice, &["ports"]) {
            fill_nil(port, "name", "");
            fill_nil(port, "protocol", "TCP");
        }
    }
    fn prepare_create(&self, _cx: &Context, slice: &mut Value) {
        slice.set(&["metadata", "generation"], 1);
        drop_topology(slice);
    }
    fn prepare_update(&self, _cx: &Context, slice: &mut Value, old: &Value) {
        let changed = |member, ty| !same_list(slice.get(member), old.get(member), ty);
        let endpoints = changed("endpoints", ENDPOINT);
        if endpoints
            || changed("ports", PORT)
            || !same(slice.get("addressType"), old.get("addressType"))
            || metadata::differs(slice, old, "labels")
        {
            bump_generation(slice, old);
        }
        if endpoints {
            drop_topology(slice);
        }
    }
    fn validate_create(&self, _cx: &Context, slice: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(slice, e);
        validate(slice, None, e);
    }
    fn validate_update(&self, _cx: &Context, slice: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_core(slice, true, &names::dns1123_subdomain_prefixed, e);
        validate(slice, Some(old), e);
        At::root(slice).get("addressType").immutable(e, old.get("addressType"));
    }
    fn warnings(&self, _cx: &Context, slice: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        if old.is_none() && slice.str_at(&["addressType"]) == "FQDN" {
            out.push("spec.addressType: FQDN endpoints are deprecated".into());
        }
        let controllers = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"]
            .map(Value::string);
        if controllers.contains(slice.at(&["metadata", "labels", MANAGED_BY])) {
            return out;
        }
        let root = At::root(slice);
        for endpoint in root.get("endpoints").items() {
            for address in endpoint.get("addresses").items() {
                ip::warnings(address, &mut out);
            }
        }
        out
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("discovery/EndpointSlice")
    }
    fn row(&self, slice: &Value) -> Row {
        let ports = slice.list_at(&["ports"]).iter().map(|p| match p.get("port").as_int() {
            Some(port) => port.to_string(),
            None => p.get("name").as_str().unwrap_or("*").to_string(),
        });
        let endpoints = slice.list_at(&["endpoints"]).iter().flat_map(|e| e.list_at(&["addresses"]));
        let addresses = endpoints.map(|a| a.as_str().unwrap_or("").to_string());
        cells::row([
            cells::name(slice),
            slice.str_at(&["addressType"]).into(),
            some_of(ports.collect()).into(),
            some_of(addresses.collect()).into(),
            cells::age(slice),
        ])
    }
}

/// The first three and how many more. upstream: listWithMoreString
fn some_of(all: Vec<String>) -> String {
    const SHOWN_MAX: usize = 3;
    let shown = all.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(",");
    match all.len().saturating_sub(SHOWN_MAX) {
        // Also what is there may have nothing to show: a port without name and number.
        0 if shown.is_empty() => cells::UNSET.into(),
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

/// The old topology field is only for v1beta1. upstream: dropTopologyOnV1
fn drop_topology(slice: &mut Value) {
    for endpoint in each(slice, &["endpoints"]) {
        endpoint.remove(&["deprecatedTopology"]);
    }
}

/// upstream: ValidateEndpointSlice, less metadata
fn validate(slice: &Value, old: Option<&Value>, e: &mut ErrorList) {
    let root = At::root(slice);
    let ty = root.get("addressType");
    if ty.need(e) {
        ty.one_of(e, &["FQDN", "IPv4", "IPv6"]);
    }
    ports(root.get("ports"), e);
    let unchanged = old.is_some_and(|o| same_list(o.get("endpoints"), slice.get("endpoints"), ENDPOINT));
    if !unchanged {
        endpoints(root.get("endpoints"), ty.str(), e);
    }
}

fn ports(list: At, e: &mut ErrorList) {
    if list.len() > PORTS_MAX {
        return list.too_many(e, list.len(), PORTS_MAX);
    }
    let mut seen = BTreeSet::new();
    for port in list.items() {
        let (name, protocol, app) = (port.get("name"), port.get("protocol"), port.get("appProtocol"));
        if !name.is_empty() {
            name.dns_label(e);
        }
        if !seen.insert(name.str()) {
            name.duplicate(e);
        }
        if protocol.is_set() {
            protocol.one_of(e, &["SCTP", "TCP", "UDP"]);
        } else {
            protocol.required(e, "");
        }
        if app.is_set() {
            app.qualified_name(e);
        }
    }
}

fn endpoints(list: At, ty: &str, e: &mut ErrorList) {
    if list.len() > ENDPOINTS_MAX {
        return list.too_many(e, list.len(), ENDPOINTS_MAX);
    }
    for endpoint in list.items() {
        let addresses = endpoint.get("addresses");
        if addresses.is_empty() {
            addresses.required(e, "must contain at least 1 address");
        } else if addresses.len() > ADDRESSES_MAX {
            addresses.too_many(e, addresses.len(), ADDRESSES_MAX);
        }
        for item in addresses.items() {
            address(item, addresses, ty, e);
        }
        let node = endpoint.get("nodeName");
        if node.is_set() {
            node.dns_subdomain(e);
        }
        let topology = endpoint.get("deprecatedTopology");
        if topology.len() > TOPOLOGY_LABELS_MAX {
            topology.too_many(e, topology.len(), TOPOLOGY_LABELS_MAX);
        }
        metadata::labels(topology, e);
        let hostname = endpoint.get("hostname");
        if hostname.is_set() {
            hostname.dns_label(e);
        }
        hints(endpoint.get("hints"), e);
    }
}

fn address(at: At, list: At, ty: &str, e: &mut ErrorList) {
    let before = e.len();
    match ty {
        "IPv4" => ip::legacy(at, &[], e),
        "IPv6" => ip::strict(at, e),
        "FQDN" => return fully_qualified(at, e),
        _ => return,
    }
    if e.len() != before {
        return;
    }
    let is_v4 = ip::parse(at.str()).is_some_and(|ip| ip.is_ipv4());
    if is_v4 != (ty == "IPv4") {
        list.with(at.value).invalid(e, format!("must be an {ty} address"));
    }
    endpoint_ip(at, e);
}

/// upstream: IsFullyQualifiedDomainName
fn fully_qualified(at: At, e: &mut ErrorList) {
    if at.is_empty() {
        return at.required(e, "");
    }
    let name = at.str().strip_suffix('.').unwrap_or(at.str());
    let wrong = names::dns1123_subdomain(name);
    if !wrong.is_empty() {
        return at.invalid_str(e, name, wrong.join(","));
    }
    if name.split('.').count() < 2 {
        return at.invalid_str(e, name, "should be a domain with at least two segments separated by dots");
    }
    for label in name.split('.') {
        let wrong = names::dns1123_label(label);
        if !wrong.is_empty() {
            at.invalid_str(e, label, wrong.join(","));
        }
    }
}

fn hints(at: At, e: &mut ErrorList) {
    for (list, zone) in [("forZones", true), ("forNodes", false)] {
        let list = at.get(list);
        if list.len() > HINTS_MAX {
            return list.too_many(e, list.len(), HINTS_MAX);
        }
        let mut seen = BTreeSet::new();
        for hint in list.items() {
            let name = hint.get("name");
            if !seen.insert(name.str()) {
                name.duplicate(e);
            }
            if zone {
                name.invalid_each(e, names::label_value(name.str()));
            } else {
                name.dns_subdomain(e);
            }
        }
    }
}
