//! Names, addresses and pod networks of several nodes on one machine: a pure function of the settings, so that every
//! command finds the same nodes.

use crate::doctor::network::Range;
use std::net::Ipv4Addr;

/// Most nodes of one machine: that many have names of devices, addresses and a useful share of the pods' range.
pub const NODES_MAX: u8 = 16;
/// The first node has the address behind this place; those before it are for people.
const FIRST_PLACE: u32 = 10;
/// The kernel's names of devices have 15 characters; a node's takes three more than the bridge's: `-16`.
pub const BRIDGE_NAME_MAX: usize = 12;
/// Prefix of a node's pod network, where the cluster's leaves room for it: that of upstream's node IPAM controller.
const POD_PREFIX: u32 = 24;
/// A smaller network of pods is of no use.
const POD_PREFIX_MAX: u32 = 28;

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Counted from 1.
    pub number: u8,
    /// Name of the node object, and host name.
    pub name: String,
    /// Its address on the bridge.
    pub address: Ipv4Addr,
    /// Addresses of its pods.
    pub pods: Range,
    /// Its cgroup.
    pub cgroup: String,
    /// The bridge's end of its cable.
    pub device: String,
}

/// All nodes, and what joins them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The machine's address on the bridge.
    pub gateway: Ipv4Addr,
    /// Addresses of the bridge.
    pub range: Range,
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// What the plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// How many nodes.
    pub nodes: u8,
    /// What their names begin with.
    pub stem: &'a str,
    /// Name of the bridge.
    pub bridge: &'a str,
    /// Addresses of nodes.
    pub node_cidr: &'a str,
    /// Addresses of all pods.
    pub pod_cidr: &'a str,
}

/// The plan, or which flag makes it impossible.
pub fn plan(wanted: Wanted<'_>) -> Result<Plan, String> {
    let Wanted { nodes, stem, bridge, node_cidr, pod_cidr } = wanted;
    if nodes > NODES_MAX {
        return Err(format!("--nodes: at most {NODES_MAX}"));
    }
    if nodes > 0 && bridge.len() > BRIDGE_NAME_MAX {
        return Err(format!(
            "--bridge: {bridge} has more than {BRIDGE_NAME_MAX} characters, which leaves none for its nodes"
        ));
    }
    let range = Range::parse(node_cidr).map_err(|error| format!("--node-cidr: {error}"))?;
    let pods = Range::parse(pod_cidr).map_err(|error| format!("--pod-cidr: {error}"))?;
    // The broadcast address is the last of the range.
    if 1u64 << (32 - range.prefix()) <= u64::from(FIRST_PLACE + u32::from(nodes)) + 1 {
        return Err(format!("--node-cidr: {node_cidr} has no room for {nodes} nodes"));
    }
    let prefix = pod_prefix(pods, nodes)
        .ok_or_else(|| format!("--pod-cidr: {pod_cidr} has no room for the pods of {nodes} nodes"))?;
    let node = |number: u8| Node {
        number,
        name: format!("{stem}-{number}"),
        address: range.address(FIRST_PLACE + u32::from(number)),
        // There is such a part: the prefix was chosen so.
        pods: pods.part(prefix, u32::from(number)).unwrap_or(pods),
        cgroup: format!("/{bridge}/{number}"),
        device: format!("{bridge}-{number}"),
    };
    Ok(Plan { gateway: range.address(1), range, nodes: (1..=nodes).map(node).collect() })
}

/// The prefix of a node's part. The part at place 0 stays free, so that a node's number is seen in its pods' addresses.
fn pod_prefix(pods: Range, nodes: u8) -> Option<u32> {
    let bits = u8::BITS - nodes.leading_zeros();
    let prefix = POD_PREFIX.max(pods.prefix() + bits);
    (prefix <= POD_PREFIX_MAX).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(nodes: u8) -> Wanted<'static> {
        let (node_cidr, pod_cidr) = ("10.200.0.0/24", "10.244.0.0/16");
        Wanted { nodes, stem: "box", bridge: "copepod0", node_cidr, pod_cidr }
    }

    #[test]
    fn two_nodes_have_all_of_their_own() {
        let plan = plan(wanted(2)).expect("a plan");
        let shown: Vec<String> = plan
            .nodes
            .iter()
            .map(|n| format!("{} {} {} {} {}", n.name, n.address, n.pods, n.cgroup, n.device))
            .collect();
        assert_eq!(plan.gateway.to_string(), "10.200.0.1");
        assert_eq!(
            shown,
            [
                "box-1 10.200.0.11 10.244.1.0/24 /copepod0/1 copepod0-1",
                "box-2 10.200.0.12 10.244.2.0/24 /copepod0/2 copepod0-2",
            ]
        );
    }

    /// Both sides of each bound.
    #[test]
    fn what_does_not_fit_is_refused_by_its_flag() {
        let check = |wanted: Wanted<'_>, want: &str| match plan(wanted) {
            Ok(plan) => {
                let last = plan.nodes.last().expect("a node");
                assert_eq!(format!("{} {}", last.address, last.pods), want, "{wanted:?}");
                assert!(last.device.len() <= 15, "{last:?}");
            }
            Err(error) => assert_eq!(error.split(':').next(), Some(want), "{error}"),
        };
        check(wanted(16), "10.200.0.26 10.244.16.0/24");
        check(wanted(17), "--nodes");
        check(Wanted { bridge: "abcdefghijkl", ..wanted(16) }, "10.200.0.26 10.244.16.0/24");
        check(Wanted { bridge: "abcdefghijklm", ..wanted(1) }, "--bridge");
        check(Wanted { node_cidr: "10.200.0.0/27", ..wanted(16) }, "10.200.0.26 10.244.16.0/24");
        check(Wanted { node_cidr: "10.200.0.0/28", ..wanted(4) }, "10.200.0.14 10.244.4.0/24");
        check(Wanted { node_cidr: "10.200.0.0/28", ..wanted(5) }, "--node-cidr");
        check(Wanted { node_cidr: "10.200.0.1/24", ..wanted(1) }, "--node-cidr");
        check(Wanted { pod_cidr: "10.244.0.0/24", ..wanted(2) }, "10.200.0.12 10.244.0.128/26");
        check(Wanted { pod_cidr: "10.244.0.0/24", ..wanted(15) }, "10.200.0.25 10.244.0.240/28");
        check(Wanted { pod_cidr: "10.244.0.0/24", ..wanted(16) }, "--pod-cidr");
        check(Wanted { pod_cidr: "none", ..wanted(1) }, "--pod-cidr");
    }

    /// No address of a pod belongs to two nodes.
    #[test]
    fn pod_networks_are_apart() {
        for nodes in 1..=NODES_MAX {
            let plan = plan(wanted(nodes)).expect("a plan");
            let mut parts: Vec<String> = plan.nodes.iter().map(|n| n.pods.to_string()).collect();
            parts.dedup();
            assert_eq!(parts.len(), usize::from(nodes));
        }
    }
}
