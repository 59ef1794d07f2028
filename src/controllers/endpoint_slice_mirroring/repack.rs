//! Subsets of Endpoints in one canonical form: each port belongs to one group of addresses, each group has all its ports.
//! Pure.
//!
//! upstream: pkg/api/v1/endpoints/util.go RepackSubsets

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};

/// A port, in an order: name, number, protocol, application protocol.
pub(super) type Port = (String, i32, String, Option<String>);

/// Addresses that have the same ports; each once, the ready ones first.
#[derive(Debug, PartialEq)]
pub(super) struct Group<'a> {
    pub ports: Vec<Port>,
    pub addresses: Vec<(&'a EndpointAddress, bool)>,
}

/// What tells addresses apart: two pods of a node's network have one IP.
type Identity<'a> = (&'a str, &'a str);

fn identity(address: &EndpointAddress) -> Identity<'_> {
    let uid = address.target_ref.as_ref().and_then(|target| target.uid.as_deref());
    (&address.ip, uid.unwrap_or_default())
}

fn port(port: &EndpointPort) -> Port {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    (text(&port.name), port.port, text(&port.protocol), port.app_protocol.clone())
}

/// The groups of `subsets`.
pub(super) fn repack(subsets: &[EndpointSubset]) -> Vec<Group<'_>> {
    let mut known: BTreeMap<Identity<'_>, &EndpointAddress> = BTreeMap::new();
    let mut by_port: BTreeMap<Option<Port>, BTreeMap<Identity<'_>, bool>> = BTreeMap::new();
    for subset in subsets {
        let ports = subset.ports.iter().flatten().map(|p| Some(port(p)));
        let ports: Vec<Option<Port>> = ports.collect();
        // Addresses without ports are a group, too.
        let ports = if ports.is_empty() { vec![None] } else { ports };
        for (addresses, ready) in [(&subset.addresses, true), (&subset.not_ready_addresses, false)] {
            for address in addresses.iter().flatten() {
                let identity = identity(address);
                known.entry(identity).or_insert(address);
                for port in &ports {
                    // Of an address that is said to be both, that it is not ready counts.
                    let entry = by_port.entry(port.clone()).or_default().entry(identity).or_insert(ready);
                    *entry &= ready;
                }
            }
        }
    }
    let mut by_addresses: BTreeMap<Vec<(Identity<'_>, bool)>, Vec<Port>> = BTreeMap::new();
    for (port, addresses) in by_port {
        by_addresses.entry(addresses.into_iter().collect()).or_default().extend(port);
    }
    let groups = by_addresses.into_iter().map(|(addresses, ports)| {
        let (ready, not_ready): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|(_, ready)| *ready);
        let of = |(identity, ready): (Identity<'_>, bool)| Some((*known.get(&identity)?, ready));
        Group { ports, addresses: ready.into_iter().chain(not_ready).filter_map(of).collect() }
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// `PORTS: ADDRESSES`, a not ready address in brackets.
    fn render(subsets: Value) -> Vec<String> {
        let subsets: Vec<EndpointSubset> = serde_json::from_value(subsets).expect("subsets");
        let group = |group: &Group<'_>| {
            let ports: Vec<String> = group.ports.iter().map(|port| port.1.to_string()).collect();
            let address = |(address, ready): &(&EndpointAddress, bool)| match ready {
                true => address.ip.clone(),
                false => format!("[{}]", address.ip),
            };
            let addresses: Vec<String> = group.addresses.iter().map(address).collect();
            format!("{}: {}", ports.join(" "), addresses.join(" "))
        };
        repack(&subsets).iter().map(group).collect()
    }

    #[test]
    fn subsets_are_brought_to_one_form() {
        let [a, b] = [json!({"ip": "10.0.0.1"}), json!({"ip": "10.0.0.2"})];
        let [http, https] = [json!({"port": 80, "protocol": "TCP"}), json!({"port": 443, "protocol": "TCP"})];
        for (name, subsets, want) in [
            ("nothing", json!([]), vec![]),
            ("one", json!([{"addresses": [a], "ports": [http]}]), vec!["80: 10.0.0.1"]),
            ("no ports", json!([{"addresses": [a]}]), vec![": 10.0.0.1"]),
            (
                "the same addresses with two ports",
                json!([{"addresses": [a], "ports": [http]}, {"addresses": [a], "ports": [https]}]),
                vec!["80 443: 10.0.0.1"],
            ),
            (
                "one port in two subsets",
                json!([{"addresses": [b], "ports": [http]}, {"addresses": [a], "ports": [http]}]),
                vec!["80: 10.0.0.1 10.0.0.2"],
            ),
            (
                "other addresses for another port",
                json!([{"addresses": [a, b], "ports": [http]}, {"addresses": [a], "ports": [https]}]),
                vec!["443: 10.0.0.1", "80: 10.0.0.1 10.0.0.2"],
            ),
            (
                "the ready ones first",
                json!([{"notReadyAddresses": [a], "addresses": [b], "ports": [http]}]),
                vec!["80: 10.0.0.2 [10.0.0.1]"],
            ),
            (
                "ready and not",
                json!([{"notReadyAddresses": [a], "addresses": [a], "ports": [http]}]),
                vec!["80: [10.0.0.1]"],
            ),
            (
                "two pods of one address",
                json!([{"addresses": [{"ip": "10.0.0.1", "targetRef": {"uid": "x"}},
                    {"ip": "10.0.0.1", "targetRef": {"uid": "y"}}], "ports": [http]}]),
                vec!["80: 10.0.0.1 10.0.0.1"],
            ),
        ] {
            assert_eq!(render(subsets), want, "{name}");
        }
    }
}
