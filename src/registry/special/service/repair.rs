//! Repair of what services hold: a crash between taking an address and storing its service leaks it, and hands on objects and
//! bits make them lie.
//!
//! Owns: one pass over all services, IPAddress objects and node ports. Whoever calls it decides when. Does not: record events on
//! services, as upstream's does; what it finds is in the log.
//!
//! Invariants: what a stored service holds is taken afterwards; nothing is given back that a write under way may have taken: an
//! address has to be a minute old, a port has to be found without its service by several passes. Services are never changed.
//!
//! upstream: pkg/registry/core/service/ipallocator/controller/repairip.go,
//! pkg/registry/core/service/portallocator/controller/repair.go

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use copepod_meta::{GroupResource, Reason, Status, Value, time};
use copepod_store::cache::ReadAt;
use ipnet::IpNet;

use super::addresses::{Bits, MANAGED_BY, PortError, addresses};
use super::families::Family;
use super::{NONE, cluster_ip, cluster_ips, health_port, is_external_name};
use crate::registry::Registry;

/// An address whose service is not there yet may be about to get it: requests last no longer. upstream: syncIPAddress
const GRACE_SECONDS: i64 = 60;
/// An address younger than its service may be that of a creation that is about to fail. upstream: syncIPAddress
const UNDO_SECONDS: i64 = 5;
/// So many passes have to find a port without its service. upstream: numRepairsBeforeLeakCleanup
const PASSES_BEFORE_RELEASE: u8 = 3;

/// What one pass has to remember for the next: ports that seem leaked, and how many more passes they are kept.
#[derive(Debug, Default)]
pub struct Repair {
    leaks: BTreeMap<u16, u8>,
}

/// What makes addresses and services agree.
#[derive(Debug, Clone, PartialEq)]
enum Action {
    /// Deletes this IPAddress.
    Delete(Arc<Value>),
    /// Makes the IPAddress of a service.
    Claim(Arc<Value>, IpAddr),
}

impl Registry {
    /// One pass over the addresses and ports of all services.
    pub async fn repair_services(&self, repair: &mut Repair) -> Result<(), Status> {
        // Addresses come first: one that is seen without its service is as old as it says.
        let held = self.newest(&addresses()).await?;
        let services = self.newest(&GroupResource::new("", "services")).await?;
        let mut ranges = Vec::new();
        for family in [Family::V4, Family::V6] {
            ranges.extend(self.addresses.ranges(self, family).await?);
        }
        for action in plan(&services, &held, &ranges, time::now()) {
            let done = match &action {
                Action::Delete(address) => self.delete_seen(&addresses(), address).await,
                Action::Claim(service, ip) => self.addresses.claim_for(self, service, *ip).await,
            };
            match done {
                // Somebody else was faster: another server repairs too.
                Err(status) if status.reason == Reason::AlreadyExists => {}
                done => done?,
            }
        }
        self.repair_ports(repair, &services).await
    }

    async fn newest(&self, resource: &GroupResource) -> Result<Vec<Arc<Value>>, Status> {
        let listed = self.list_hub(resource, "", ReadAt::Latest).await?;
        Ok(listed.into_iter().map(|l| l.object).collect())
    }

    async fn repair_ports(&self, repair: &mut Repair, services: &[Arc<Value>]) -> Result<(), Status> {
        let range = self.addresses.ports();
        let (low, high) = (*range.start(), *range.end());
        let ports: Vec<u16> = services.iter().flat_map(|service| held_ports(service, (low, high))).collect();
        let mut leaks = BTreeMap::new();
        let changed = self.addresses.change_ports(self, false, |bits| {
            // Again from the start when somebody came between.
            leaks = repair.leaks.clone();
            rebuild(bits, &ports, &mut leaks, (low, high));
            Ok(())
        });
        changed.await.map_err(|error| match error {
            PortError::Failed(status) => status,
            other => Status::internal(other),
        })?;
        repair.leaks = leaks;
        Ok(())
    }
}

/// Names a service, for logs and look-ups.
fn key(service: &Value) -> (&str, &str) {
    (service.str_at(&["metadata", "namespace"]), service.str_at(&["metadata", "name"]))
}

/// Whom an address belongs to; `None`: to no service.
fn parent(address: &Value) -> Option<(&str, &str)> {
    let parent = address.at(&["spec", "parentRef"]);
    let is_service = parent.str_at(&["group"]).is_empty() && parent.str_at(&["resource"]) == "services";
    is_service.then(|| (parent.str_at(&["namespace"]), parent.str_at(&["name"])))
}

fn has_our_labels(address: &Value, ip: IpAddr) -> bool {
    let label = |name: &str| address.str_at(&["metadata", "labels", name]);
    label("ipaddress.kubernetes.io/ip-family") == Family::of(ip).as_str() && is_ours(address)
}

fn is_ours(address: &Value) -> bool {
    address.str_at(&["metadata", "labels", "ipaddress.kubernetes.io/managed-by"]) == MANAGED_BY
}

/// What has to be done so that every address of a service is an IPAddress that names it, and no other is left.
fn plan(services: &[Arc<Value>], held: &[Arc<Value>], ranges: &[IpNet], now: time::Timestamp) -> Vec<Action> {
    let by_key: HashMap<(&str, &str), &Arc<Value>> = services.iter().map(|s| (key(s), s)).collect();
    let mut by_ip: HashMap<&str, &Arc<Value>> =
        held.iter().map(|a| (a.str_at(&["metadata", "name"]), a)).collect();
    let mut actions = Vec::new();
    for service in services.iter().filter(|s| !matches!(cluster_ip(s), "" | NONE)) {
        let (namespace, name) = key(service);
        for text in cluster_ips(service) {
            let Ok(ip) = text.parse::<IpAddr>() else {
                tracing::error!(
                    ip = text,
                    namespace,
                    name,
                    "Cluster IP is not a valid IP; please recreate Service"
                );
                continue;
            };
            if !ranges.iter().any(|range| range.contains(&ip)) {
                tracing::error!(
                    %ip,
                    namespace,
                    name,
                    "Cluster IP is not within any configured Service CIDR; please recreate service"
                );
                continue;
            }
            let address = ip.to_string();
            match by_ip.get(address.as_str()) {
                None => {
                    tracing::error!(%ip, namespace, name, "Cluster IP is not allocated; repairing");
                    actions.push(Action::Claim(Arc::clone(service), ip));
                }
                Some(known) if !is_right(known, service, ip, &by_key) => {
                    actions.push(Action::Delete(Arc::clone(known)));
                    actions.push(Action::Claim(Arc::clone(service), ip));
                    by_ip.remove(address.as_str());
                }
                Some(_) => {}
            }
        }
    }
    let left = by_ip.into_values().filter(|address| is_orphan(address, &by_key, now));
    actions.extend(left.cloned().map(Action::Delete));
    actions
}

/// Whether the address names the service, or another one that holds it too: then there is nothing to be done here.
fn is_right(
    address: &Value,
    service: &Value,
    ip: IpAddr,
    services: &HashMap<(&str, &str), &Arc<Value>>,
) -> bool {
    let (namespace, name) = key(service);
    let named = parent(address);
    if named == Some((namespace, name)) {
        return has_our_labels(address, ip);
    }
    let other = named.and_then(|named| services.get(&named));
    if other.is_some_and(|other| holds(other, ip)) {
        tracing::error!(%ip, namespace, name, "Cluster IP was assigned to multiple services; please recreate service");
        return true;
    }
    tracing::error!(%ip, namespace, name, "the ClusterIP has a wrong reference; repairing");
    false
}

fn holds(service: &Value, ip: IpAddr) -> bool {
    cluster_ips(service).iter().any(|text| text.parse() == Ok(ip))
}

/// Whether an address that this allocator made belongs to nobody, and nobody is about to take it.
fn is_orphan(address: &Value, services: &HashMap<(&str, &str), &Arc<Value>>, now: time::Timestamp) -> bool {
    if !is_ours(address) {
        return false;
    }
    let ip = address.str_at(&["metadata", "name"]);
    let Some(named) = parent(address) else {
        tracing::error!(
            ip,
            "IPAddress appears to have been modified, not referencing a Service: cleaning up"
        );
        return true;
    };
    let made = time::parse(address.str_at(&["metadata", "creationTimestamp"])).unwrap_or(now);
    let age = time::seconds_between(made, now);
    let Some(service) = services.get(&named) else {
        if age > GRACE_SECONDS {
            tracing::error!(ip, "IPAddress appears to have leaked: cleaning up");
        }
        return age > GRACE_SECONDS;
    };
    if ip.parse().is_ok_and(|ip| holds(service, ip)) {
        return false;
    }
    let service_made = time::parse(service.str_at(&["metadata", "creationTimestamp"])).unwrap_or(now);
    let is_coming =
        (is_external_name(service) && age < GRACE_SECONDS) || (made > service_made && age < UNDO_SECONDS);
    if !is_coming {
        tracing::error!(ip, "the IPAddress has a wrong reference; cleaning up");
    }
    !is_coming
}

/// The ports that a service holds, a port of several protocols once. upstream: collectServiceNodePorts
fn held_ports(service: &Value, (low, high): (u16, u16)) -> Vec<u16> {
    let mut seen: Vec<(i64, &str)> = Vec::new();
    let mut held = Vec::new();
    let health = health_port(service).map(|port| (port, "TCP"));
    let ports = service.list_at(&["spec", "ports"]).iter();
    let ports = ports.map(|p| (p.int_at(&["nodePort"]), p.str_at(&["protocol"])));
    for (port, protocol) in ports.filter(|(port, _)| *port != 0).chain(health) {
        let is_known = seen.iter().any(|(known, _)| *known == port);
        // The same protocol twice is taken twice, which is told as a conflict.
        if !is_known || seen.contains(&(port, protocol)) {
            held.push(port);
        }
        seen.push((port, protocol));
    }
    let (namespace, name) = key(service);
    let within = |port: i64| match u16::try_from(port).ok().filter(|port| (low..=high).contains(port)) {
        Some(port) => Some(port),
        None => {
            tracing::error!(
                port,
                namespace,
                name,
                "the node port is not within the port range; please recreate"
            );
            None
        }
    };
    held.into_iter().filter_map(within).collect()
}

/// Sets the bits of what services hold. Other bits are kept until enough passes have found them so.
fn rebuild(bits: &mut Bits, ports: &[u16], leaks: &mut BTreeMap<u16, u8>, (low, high): (u16, u16)) {
    let mut rebuilt = Bits::default();
    for port in ports {
        if rebuilt.is_set(port - low) {
            tracing::error!(port, "the node port was assigned to multiple services; please recreate");
        } else if !bits.is_set(port - low) {
            tracing::error!(port, "the node port is not allocated; repairing");
        }
        rebuilt.set(port - low);
        leaks.remove(port);
    }
    leaks.retain(|port, _| bits.is_set(port - low));
    for port in (low..=high).filter(|port| bits.is_set(port - low)) {
        if rebuilt.is_set(port - low) {
            continue;
        }
        match leaks.get(&port).copied() {
            Some(0) => {
                tracing::error!(port, "the node port appears to have leaked: cleaning up");
                leaks.remove(&port);
                continue;
            }
            None => {
                tracing::warn!(port, "the node port may have leaked: flagging for later clean up");
                leaks.insert(port, PASSES_BEFORE_RELEASE - 2);
            }
            Some(passes) => drop(leaks.insert(port, passes - 1)),
        }
        rebuilt.set(port - low);
    }
    *bits = rebuilt;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Arc<Value> {
        Arc::new(copepod_codec::decode_untyped(text.as_bytes()).expect("JSON").0)
    }

    fn service(name: &str, made: &str, ips: &str) -> Arc<Value> {
        let first = ips.split(',').next().unwrap_or("");
        let list = ips.split(',').map(|ip| format!("{ip:?}")).collect::<Vec<_>>().join(",");
        json(&format!(
            r#"{{"metadata":{{"namespace":"a","name":"{name}","creationTimestamp":"{made}"}},"spec":{{"type":"ClusterIP","clusterIP":"{first}","clusterIPs":[{list}]}}}}"#
        ))
    }

    fn address(ip: &str, made: &str, parent: &str) -> Arc<Value> {
        let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
        json(&format!(
            r#"{{"metadata":{{"name":"{ip}","creationTimestamp":"{made}","labels":{{"ipaddress.kubernetes.io/ip-family":"{family}","ipaddress.kubernetes.io/managed-by":"ipallocator.k8s.io"}}}},"spec":{{"parentRef":{{"resource":"services","namespace":"a","name":"{parent}"}}}}}}"#
        ))
    }

    #[test]
    fn addresses_and_services_are_made_to_agree() {
        const OLD: &str = "2026-01-01T00:00:00Z";
        const NEW: &str = "2026-01-01T01:00:00Z";
        let now = time::parse("2026-01-01T01:00:03Z").expect("a time");
        let ranges: Vec<IpNet> = vec!["10.0.0.0/24".parse().expect("a range")];
        let mut unlabelled = (*address("10.0.0.1", OLD, "s")).clone();
        unlabelled.remove(&["metadata", "labels", "ipaddress.kubernetes.io/ip-family"]);
        let mut foreign = (*address("10.0.0.1", OLD, "s")).clone();
        foreign.remove(&["metadata", "labels", "ipaddress.kubernetes.io/managed-by"]);
        let mut moved = (*address("10.0.0.1", OLD, "s")).clone();
        moved.set(&["spec", "parentRef", "resource"], "gateways");
        for (name, services, addresses, want) in [
            ("agreement", vec![service("s", OLD, "10.0.0.1")], vec![address("10.0.0.1", OLD, "s")], ""),
            ("headless", vec![service("s", OLD, "None")], vec![], ""),
            ("no address", vec![service("s", OLD, "10.0.0.1")], vec![], "claim 10.0.0.1 s"),
            ("out of range", vec![service("s", OLD, "10.9.0.1")], vec![], ""),
            (
                "another's name",
                vec![service("s", OLD, "10.0.0.1")],
                vec![address("10.0.0.1", OLD, "gone")],
                "delete 10.0.0.1, claim 10.0.0.1 s",
            ),
            (
                "held twice",
                vec![service("s", OLD, "10.0.0.1"), service("t", OLD, "10.0.0.1")],
                vec![address("10.0.0.1", OLD, "s")],
                "",
            ),
            (
                "labels gone",
                vec![service("s", OLD, "10.0.0.1")],
                vec![Arc::new(unlabelled)],
                "delete 10.0.0.1, claim 10.0.0.1 s",
            ),
            (
                "no service's any more",
                vec![service("s", OLD, "10.0.0.1")],
                vec![Arc::new(moved.clone())],
                "delete 10.0.0.1, claim 10.0.0.1 s",
            ),
            ("modified, and no service", vec![], vec![Arc::new(moved)], "delete 10.0.0.1"),
            ("leaked", vec![], vec![address("10.0.0.1", OLD, "s")], "delete 10.0.0.1"),
            ("its service is coming", vec![], vec![address("10.0.0.1", NEW, "s")], ""),
            ("another controller's", vec![], vec![Arc::new(foreign)], ""),
            (
                "the service holds another one",
                vec![service("s", OLD, "10.0.0.2")],
                vec![address("10.0.0.2", OLD, "s"), address("10.0.0.1", OLD, "s")],
                "delete 10.0.0.1",
            ),
            (
                "a creation about to fail",
                vec![service("s", OLD, "10.0.0.2")],
                vec![address("10.0.0.2", OLD, "s"), address("10.0.0.1", NEW, "s")],
                "",
            ),
        ] {
            let shown: Vec<String> = plan(&services, &addresses, &ranges, now)
                .iter()
                .map(|action| match action {
                    Action::Delete(address) => format!("delete {}", address.str_at(&["metadata", "name"])),
                    Action::Claim(service, ip) => format!("claim {ip} {}", key(service).1),
                })
                .collect();
            assert_eq!(shown.join(", "), want, "{name}");
        }
    }

    #[test]
    fn a_port_of_two_protocols_is_held_once() {
        let service = json(
            r#"{"metadata":{"name":"s"},"spec":{"healthCheckNodePort":30002,"ports":[
                {"nodePort":30000,"protocol":"TCP"},{"nodePort":30000,"protocol":"UDP"},{"port":1},
                {"nodePort":99,"protocol":"TCP"}]}}"#,
        );
        assert_eq!(held_ports(&service, (30000, 30010)), [30000, 30002]);
    }

    /// Bits before, ports of services, and the bits after each of several passes.
    #[test]
    fn ports_without_a_service_are_given_back_late() {
        let range = (30000, 30007);
        let show = |bits: &Bits| {
            (range.0..=range.1)
                .filter(|p| bits.is_set(p - range.0))
                .map(|p| p.to_string())
                .collect::<Vec<_>>()
        };
        let (mut bits, mut leaks) = (Bits::default(), BTreeMap::new());
        bits.set(1);
        bits.set(2);
        for want in [&["30001", "30002", "30003"][..], &["30001", "30002", "30003"], &["30001", "30003"]] {
            rebuild(&mut bits, &[30001, 30003], &mut leaks, range);
            assert_eq!(show(&bits), want);
        }
        assert!(leaks.is_empty());
    }
}
