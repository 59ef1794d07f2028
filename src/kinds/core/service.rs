//! Service. Cluster addresses and node ports are allocated by the registry; here is what is pure.
//!
//! upstream: pkg/registry/core/service/strategy.go, validation.go validateService, pkg/api/service/warnings.go
//!
//! upstream, too: AddFieldLabelConversionsForService

use copepod_meta::{ErrorList, Value, names};
use std::collections::BTreeSet;

use super::endpoints::endpoint_ip;
use super::pod::defaults::{each, fill, fill_nil};
use super::pod::probes::port_or_name;
use super::service_status::ServiceStatus;
use super::{ip, service_ips};
use crate::cells::{self, NONE};
use crate::check::At;
use crate::equality::same;
use crate::generic::keep;
use crate::strategy::{Column, Context, Row, Strategy};
use crate::{metadata, print};

/// The strategy.
pub struct Service;

const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const LOAD_BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
/// upstream: core.MaxClientIPServiceAffinitySeconds
const AFFINITY_SECONDS_MAX: i64 = 86400;

/// spec.type
pub fn ty(service: &Value) -> &str {
    service.str_at(&["spec", "type"])
}

/// Clients may reach it from outside the cluster. upstream: pkg/api/service ExternallyAccessible
pub fn is_external(service: &Value) -> bool {
    match ty(service) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !service.list_at(&["spec", "externalIPs"]).is_empty(),
        _ => false,
    }
}

/// A load balancer asks each node whether it has endpoints. upstream: NeedsHealthCheck
pub fn needs_health_check(service: &Value) -> bool {
    ty(service) == "LoadBalancer" && service.str_at(&["spec", "externalTrafficPolicy"]) == "Local"
}

/// `clusterIPs: [None]`
pub fn is_headless(service: &Value) -> bool {
    matches!(service.list_at(&["spec", "clusterIPs"]), [only] if only.as_str() == Some("None"))
}

/// upstream: SetDefaults_Service
fn default(service: &mut Value) {
    let spec = service.make(&["spec"]);
    fill(spec, "sessionAffinity", "None");
    match spec.str_at(&["sessionAffinity"]) {
        "None" => {
            spec.remove(&["sessionAffinityConfig"]);
        }
        "ClientIP" => {
            let path = ["sessionAffinityConfig", "clientIP", "timeoutSeconds"];
            if spec.at(&path).is_null() {
                spec.set(&["sessionAffinityConfig"], Value::map());
                spec.set(&path, 10800);
            }
        }
        _ => {}
    }
    fill(spec, "type", "ClusterIP");
    for port in each(spec, &["ports"]) {
        fill(port, "protocol", "TCP");
        let own = port.int_at(&["port"]);
        fill(port, "targetPort", own);
    }
    if is_external(service) {
        fill(service.make(&["spec"]), "externalTrafficPolicy", "Cluster");
    }
    let kind = ty(service).to_string();
    let spec = service.make(&["spec"]);
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        fill_nil(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill_nil(spec, "allocateLoadBalancerNodePorts", true);
        for ingress in each(service, &["status", "loadBalancer", "ingress"]) {
            if !ingress.str_at(&["ip"]).is_empty() {
                fill_nil(ingress, "ipMode", "VIP");
            }
        }
    }
}

impl Strategy for Service {
    fn default(&self, _version: &str, service: &mut Value) {
        default(service);
    }
    fn prepare_create(&self, _cx: &Context, service: &mut Value) {
        service.remove(&["status"]);
    }
    fn prepare_update(&self, _cx: &Context, service: &mut Value, old: &Value) {
        keep(service, old, "status");
        drop_type_dependent(service, old);
    }
    /// Upstream keeps a policy that says nothing and hides it from whoever reads; here it is not kept.
    /// upstream: defaultOnReadInternalTrafficPolicy
    fn canonicalize(&self, service: &mut Value) {
        if ty(service) == "ExternalName" {
            service.remove(&["spec", "internalTrafficPolicy"]);
        }
    }
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::dns1123_label_prefixed(name, prefix)
    }
    fn validate_create(&self, _cx: &Context, service: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(service, e);
        validate(service, None, e);
    }
    fn validate_update(&self, _cx: &Context, service: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(service, old, e);
        service_ips::validate_change(service, old, e);
        load_balancer_class(service, Some(old), e);
        let port = ["spec", "healthCheckNodePort"];
        if needs_health_check(old)
            && needs_health_check(service)
            && service.int_at(&port) != old.int_at(&port)
        {
            At::root(service).get("spec.healthCheckNodePort").forbidden(e, "field is immutable");
        }
        validate(service, Some(old), e);
    }
    fn warnings(&self, _cx: &Context, service: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings(service)
    }
    fn allow_create_on_update(&self) -> bool {
        true
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("core/Service")
    }
    fn row(&self, service: &Value) -> Row {
        row(service)
    }
    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }
    fn field(&self, service: &Value, name: &str) -> String {
        match name {
            "spec.clusterIP" => service.str_at(&["spec", "clusterIP"]).into(),
            "spec.type" => ty(service).into(),
            _ => String::new(),
        }
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&ServiceStatus as &dyn Strategy)
    }
}

/// upstream: validateService, less metadata
fn validate(service: &Value, old: Option<&Value>, e: &mut ErrorList) {
    let root = At::root(service);
    let annotations = root.get("metadata.annotations");
    let (hints, mode) = (annotations.key(TOPOLOGY_HINTS), annotations.key(TOPOLOGY_MODE));
    if hints.is_set() && mode.is_set() && hints.str() != mode.str() {
        mode.invalid(e, format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified"));
    }
    let spec = root.get("spec");
    let ports = spec.get("ports");
    if ports.is_empty() && !is_headless(service) && ty(service) != "ExternalName" {
        ports.required(e, "");
    }
    by_type(service, spec, e);
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        validate_port(port, ports.len() > 1, &mut seen, e);
    }
    metadata::labels(spec.get("selector"), e);
    session_affinity(spec, e);
    service_ips::validate(service, old, e);
    let known = strings(old, &["spec", "externalIPs"]);
    for external in spec.get("externalIPs").items() {
        let before = e.len();
        ip::legacy(external, &known, e);
        if e.len() == before {
            endpoint_ip(external, e);
        }
    }
    let kind = spec.get("type");
    if kind.need(e) {
        kind.one_of(e, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    }
    port_conflicts(ports, kind.str(), e);
    source_ranges(service, old, e);
    let allocate = spec.get("allocateLoadBalancerNodePorts");
    if allocate.is_set() && kind.str() != "LoadBalancer" {
        allocate.forbidden(e, LOAD_BALANCER_ONLY);
    }
    if !allocate.is_set() && kind.str() == "LoadBalancer" {
        root.get("allocateLoadBalancerNodePorts").required(e, "");
    }
    load_balancer_class(service, None, e);
    traffic_policies(service, spec, e);
}

/// The strings of a list of the stored object, none on create.
fn strings<'a>(old: Option<&'a Value>, path: &[&str]) -> Vec<&'a str> {
    old.map_or(Vec::new(), |o| o.list_at(path).iter().filter_map(Value::as_str).collect())
}

fn by_type(service: &Value, spec: At, e: &mut ErrorList) {
    let kind = ty(service);
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(service) => {
            let ips = spec.get("clusterIPs");
            ips.index(0).invalid(e, format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => {
            for member in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                let at = spec.get(member);
                let set = if member == "ipFamilyPolicy" { at.is_set() } else { !at.is_empty() };
                if set {
                    at.forbidden(e, "may not be set for ExternalName services");
                }
            }
            let name = spec.get("externalName");
            let cname = name.str().strip_suffix('.').unwrap_or(name.str());
            if cname.is_empty() {
                name.required(e, "");
            } else {
                name.with(&cname.into()).dns_subdomain(e);
            }
        }
        _ => {}
    }
}

/// upstream: validateServicePort
fn validate_port<'v>(port: At<'v, '_>, named: bool, seen: &mut BTreeSet<&'v str>, e: &mut ErrorList) {
    let (name, number, protocol) = (port.get("name"), port.get("port"), port.get("protocol"));
    if !name.is_empty() {
        name.dns_label(e);
        if !seen.insert(name.str()) {
            name.duplicate(e);
        }
    } else if named {
        name.required(e, "");
    }
    number.port(e);
    if protocol.need(e) {
        protocol.one_of(e, &["SCTP", "TCP", "UDP"]);
    }
    port_or_name(port.get("targetPort"), e);
    let app = port.get("appProtocol");
    if app.is_set() {
        app.qualified_name(e);
    }
}

fn session_affinity(spec: At, e: &mut ErrorList) {
    let (affinity, config) = (spec.get("sessionAffinity"), spec.get("sessionAffinityConfig"));
    if affinity.need(e) {
        affinity.one_of(e, &["ClientIP", "None"]);
    }
    match affinity.str() {
        "ClientIP" => {
            for step in ["", "clientIP", "clientIP.timeoutSeconds"] {
                let at = if step.is_empty() { config } else { config.get(step) };
                if !at.is_set() {
                    return at.required(e, "when session affinity type is ClientIP");
                }
            }
            let seconds = config.get("clientIP.timeoutSeconds");
            if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds.int()) {
                seconds
                    .invalid_int(e, format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"));
            }
        }
        "None" if config.is_set() => config.forbidden(e, "must not be set when session affinity is None"),
        _ => {}
    }
}

/// Ports and node ports must be unique by protocol.
fn port_conflicts(ports: At, kind: &str, e: &mut ErrorList) {
    if kind == "ClusterIP" {
        for port in ports.items().filter(|p| p.value.int_at(&["nodePort"]) != 0) {
            port.get("nodePort").forbidden(e, "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let node = port.get("nodePort");
        if node.int() != 0 && !seen.insert((port.get("protocol").str(), node.int())) {
            node.duplicate(e);
        }
    }
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let (protocol, number) = (port.get("protocol").str(), port.get("port").int());
        if !seen.insert((protocol, number)) {
            let mut key = Value::map();
            key.set(&["protocol"], protocol);
            key.set(&["port"], number);
            port.duplicate_printed(e, print::internal(&key, "core/ServicePort"), "");
        }
    }
}

fn source_ranges(service: &Value, old: Option<&Value>, e: &mut ErrorList) {
    let root = At::root(service);
    let balanced = ty(service) == "LoadBalancer";
    let ranges = service.list_at(&["spec", "loadBalancerSourceRanges"]);
    if !ranges.is_empty() {
        let at = root.get("spec.LoadBalancerSourceRanges");
        if !balanced {
            at.forbidden(e, LOAD_BALANCER_ONLY);
        }
        let known = strings(old, &["spec", "loadBalancerSourceRanges"]);
        let known: Vec<&str> = known.into_iter().map(str::trim).collect();
        for (i, range) in ranges.iter().enumerate() {
            let trimmed = Value::string(range.as_str().unwrap_or("").trim());
            ip::legacy_cidr(at.index(i).with(&trimmed), &known, e);
        }
        return;
    }
    let annotations = root.get("metadata.annotations");
    let at = annotations.key(SOURCE_RANGES);
    if !at.is_set() {
        return;
    }
    if !balanced {
        at.forbidden(e, LOAD_BALANCER_ONLY);
    }
    let was = old.map(|o| o.at(&["metadata", "annotations", SOURCE_RANGES]));
    if was == Some(at.value) || at.str().trim().is_empty() {
        return;
    }
    for range in at.str().trim().split(',') {
        ip::legacy_cidr(at.with(&range.trim().into()), &[], e);
    }
}

/// upstream: validateLoadBalancerClassField
fn load_balancer_class(service: &Value, old: Option<&Value>, e: &mut ErrorList) {
    let root = At::root(service);
    let at = root.get("spec.loadBalancerClass");
    let balanced = ty(service) == "LoadBalancer";
    if let Some(old) = old
        && balanced
        && ty(old) == "LoadBalancer"
        && at.value != old.at(&["spec", "loadBalancerClass"])
    {
        let printed = copepod_meta::field::print_value(at.value);
        at.invalid_printed(e, printed, "may not change once set");
    }
    if at.is_set() {
        if balanced {
            at.qualified_name(e);
        } else {
            at.forbidden(e, LOAD_BALANCER_ONLY);
        }
    }
}

/// External and internal traffic policies, health checks, distribution.
fn traffic_policies(service: &Value, spec: At, e: &mut ErrorList) {
    let external = spec.get("externalTrafficPolicy");
    if !is_external(service) {
        if !external.is_empty() {
            external.invalid(e, "may only be set for externally-accessible services");
        }
    } else if external.need(e) {
        external.one_of(e, &["Cluster", "Local"]);
    }
    let check = spec.get("healthCheckNodePort");
    if needs_health_check(service) {
        if check.need(e) {
            check.port(e);
        }
    } else if check.int() != 0 {
        check.invalid_int(
            e,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        );
    }
    let internal = spec.get("internalTrafficPolicy");
    if internal.is_set() {
        internal.one_of(e, &["Cluster", "Local"]);
    } else if matches!(ty(service), "NodePort" | "LoadBalancer" | "ClusterIP") {
        internal.required(e, "");
    }
    let distribution = spec.get("trafficDistribution");
    if distribution.is_set() {
        distribution.one_of(e, &["PreferClose", "PreferSameZone", "PreferSameNode"]);
    }
}

/// A change of type drops what the new type cannot have, if the client left it as it was.
/// upstream: dropTypeDependentFields
fn drop_type_dependent(service: &mut Value, old: &Value) {
    let unchanged =
        |service: &Value, member: &str| same(service.at(&["spec", member]), old.at(&["spec", member]));
    let external_name = |s: &Value| ty(s) == "ExternalName";
    let drop = |service: &mut Value, member: &str| {
        service.remove(&["spec", member]);
    };
    if !external_name(old) && external_name(service) {
        if unchanged(service, "clusterIP") && unchanged(service, "clusterIPs") {
            drop(service, "clusterIP");
            drop(service, "clusterIPs");
        }
        for member in ["ipFamilies", "ipFamilyPolicy"] {
            if unchanged(service, member) {
                drop(service, member);
            }
        }
    }
    let node_ports = |s: &Value| matches!(ty(s), "NodePort" | "LoadBalancer");
    let numbers = |s: &Value| -> BTreeSet<i64> {
        s.list_at(&["spec", "ports"]).iter().map(|p| p.int_at(&["nodePort"])).filter(|p| *p != 0).collect()
    };
    if node_ports(old) && !node_ports(service) && numbers(old).is_superset(&numbers(service)) {
        for port in each(service, &["spec", "ports"]) {
            port.remove(&["nodePort"]);
        }
    }
    if needs_health_check(old) && !needs_health_check(service) && unchanged(service, "healthCheckNodePort") {
        drop(service, "healthCheckNodePort");
    }
    if ty(old) == "LoadBalancer" && ty(service) != "LoadBalancer" {
        for member in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if unchanged(service, member) {
                drop(service, member);
            }
        }
    }
    if is_external(old) && !is_external(service) && unchanged(service, "externalTrafficPolicy") {
        drop(service, "externalTrafficPolicy");
    }
    if ty(service) != "LoadBalancer" {
        service.remove(&["status", "loadBalancer"]);
    }
}

/// upstream: GetWarningsForService
fn warnings(service: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let root = At::root(service);
    let spec = root.get("spec");
    let has = |member: &str| !spec.get(member).is_empty();
    if root.get("metadata.annotations").map().contains_key(TOPOLOGY_HINTS) {
        out.push(format!("annotation {TOPOLOGY_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"));
    }
    if !matches!(spec.get("clusterIP").str(), "" | "None") {
        for cluster in spec.get("clusterIPs").items() {
            ip::warnings(cluster, &mut out);
        }
    }
    let headless = ty(service) == "ClusterIP" && spec.get("clusterIP").str() == "None";
    if headless {
        if has("loadBalancerIP") {
            out.push("spec.loadBalancerIP is ignored for headless services".into());
        }
        if has("externalIPs") {
            out.push("spec.externalIPs is ignored for headless services".into());
        }
        if spec.get("sessionAffinity").str() != "None" {
            out.push("spec.SessionAffinity is ignored for headless services".into());
        }
    }
    for external in spec.get("externalIPs").items() {
        ip::warnings(external, &mut out);
    }
    let external_name = ty(service) == "ExternalName";
    if has("externalIPs") && !headless && !external_name {
        out.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".into());
    }
    if has("loadBalancerIP") {
        ip::warnings(spec.get("loadBalancerIP"), &mut out);
    }
    for range in spec.get("loadBalancerSourceRanges").items() {
        ip::cidr_warnings(range, &mut out);
    }
    if external_name && has("externalIPs") {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if !external_name && has("externalName") {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
    if spec.get("trafficDistribution").str() == "PreferClose" {
        out.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into());
    }
    out
}

/// upstream: printService
fn row(service: &Value) -> Row {
    let cluster = service.list_at(&["spec", "clusterIPs"]).first().and_then(Value::as_str).unwrap_or(NONE);
    let ports: Vec<String> = service.list_at(&["spec", "ports"]).iter().map(port_text).collect();
    let ports = if ports.is_empty() { NONE.into() } else { ports.join(",") };
    cells::row([
        cells::name(service),
        ty(service).into(),
        cluster.into(),
        external_ip(service).into(),
        ports.into(),
        cells::age(service),
        cells::labels(service.at(&["spec", "selector"])).into(),
    ])
}

fn port_text(port: &Value) -> String {
    let (number, node, protocol) =
        (port.int_at(&["port"]), port.int_at(&["nodePort"]), port.str_at(&["protocol"]));
    if node > 0 { format!("{number}:{node}/{protocol}") } else { format!("{number}/{protocol}") }
}

/// upstream: getServiceExternalIP
fn external_ip(service: &Value) -> String {
    let external: Vec<&str> =
        service.list_at(&["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect();
    match ty(service) {
        "ClusterIP" | "NodePort" if external.is_empty() => NONE.into(),
        "ClusterIP" | "NodePort" => external.join(","),
        "LoadBalancer" => {
            let ingress = service.list_at(&["status", "loadBalancer", "ingress"]).iter();
            let balanced: BTreeSet<&str> =
                ingress
                    .map(|i| {
                        if i.str_at(&["ip"]).is_empty() { i.str_at(&["hostname"]) } else { i.str_at(&["ip"]) }
                    })
                    .filter(|text| !text.is_empty())
                    .collect();
            let all: Vec<&str> = balanced.into_iter().chain(external).collect();
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        "ExternalName" => service.str_at(&["spec", "externalName"]).into(),
        _ => cells::UNKNOWN.into(),
    }
}
