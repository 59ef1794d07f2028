//! The network between nodes: a bridge of the machine, a cable to each node, and a route to the pods of each, everywhere.
//!
//! Between nodes, and between the machine and pods, nothing is translated: each sees the other's own address. Only what
//! leaves for elsewhere is, by one rule of the machine for nodes and one for pods, and only where there is an elsewhere. The
//! machine forwards nothing between nodes: that is the bridge's work.
//!
//! Everything is made again without harm; [`remove`] takes all of it away.

use super::Place;
use super::plan::Plan;
use crate::doctor::{find_program, network};
use crate::layout::Layout;
use crate::outwards;
use crate::program::must;
use crate::settings::Settings;
use anyhow::{bail, ensure};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a node calls its end of the cable.
const NODE_DEVICE: &str = "eth0";

fn exists(device: &str) -> bool {
    Path::new("/sys/class/net").join(device).exists()
}

fn ip(line: &str) -> anyhow::Result<()> {
    must("ip", &line.split(' ').collect::<Vec<_>>())
}

/// A hardware address that follows from the bridge's: by itself a bridge takes another one whenever a cable is plugged in,
/// and who knew the former would wait for it.
fn hardware_address(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Makes the bridge.
pub fn make_bridge(layout: &Layout, settings: &Settings, plan: &Plan) -> anyhow::Result<()> {
    let bridge = &settings.bridge;
    if !exists(bridge) {
        ip(&format!("link add name {bridge} address {} type bridge", hardware_address(plan.gateway)))?;
    }
    ip(&format!("address replace {}/{} dev {bridge}", plan.gateway, plan.range.prefix()))?;
    ip(&format!("link set {bridge} up"))?;
    if network::has_default_route() { outwards::open(layout, settings) } else { Ok(()) }
}

/// Joins a node, kept by this process, to the bridge, and tells it and the machine the ways.
pub fn connect(settings: &Settings, plan: &Plan, place: &Place, holder: i32) -> anyhow::Result<()> {
    let (bridge, device, node) = (&settings.bridge, &place.node.device, &place.node);
    if !exists(device) {
        ip(&format!("link add name {device} type veth peer name {NODE_DEVICE} netns {holder}"))?;
    }
    ip(&format!("link set {device} master {bridge} up"))?;
    inside(holder, &commands_inside(plan, place))?;
    ip(&format!("route replace {} via {} dev {bridge}", node.pods, node.address))
}

/// What `ip` is told inside of a node.
fn commands_inside(plan: &Plan, place: &Place) -> String {
    let node = &place.node;
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("address replace {}/{} dev {NODE_DEVICE}", node.address, plan.range.prefix()),
        format!("link set {NODE_DEVICE} up"),
        format!("route replace default via {}", plan.gateway),
    ];
    for other in plan.nodes.iter().filter(|other| other.number != node.number) {
        lines.push(format!("route replace {} via {}", other.pods, other.address));
    }
    lines.join("\n") + "\n"
}

fn inside(holder: i32, commands: &str) -> anyhow::Result<()> {
    let (nsenter, ip) = (find_program("nsenter"), find_program("ip"));
    let (Some(nsenter), Some(ip)) = (nsenter, ip) else { bail!("apt-get install util-linux iproute2") };
    let mut child = Command::new(nsenter)
        .arg(format!("--net=/proc/{holder}/ns/net"))
        .arg(ip)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(commands.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "ip, in a node: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Takes a node's cable away at once: the kernel would take its time after the node's end, or has just done it.
pub fn disconnect(place: &Place) -> anyhow::Result<()> {
    let device = &place.node.device;
    if !exists(device) {
        return Ok(());
    }
    match ip(&format!("link delete {device}")) {
        Err(error) if exists(device) => Err(error),
        _ => Ok(()),
    }
}

/// Removes bridge, routes and rules, and puts forwarding back.
pub fn remove(layout: &Layout, settings: &Settings) -> anyhow::Result<()> {
    if exists(&settings.bridge) {
        ip(&format!("link delete {}", settings.bridge))?;
    }
    outwards::close(settings)?;
    outwards::restore_forwarding(layout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes;

    #[test]
    fn a_node_is_told_the_way_to_the_others_and_out() {
        let settings = Settings::fresh(0, 3, "box".into(), [192, 0, 2, 1].into());
        let plan = nodes::plan_of(&settings).expect("a plan");
        let places = nodes::places(&Layout::new("/d".into()), &settings).expect("places");
        assert_eq!(
            commands_inside(&plan, &places[1]),
            "link set lo up\n\
             address replace 10.200.0.12/24 dev eth0\n\
             link set eth0 up\n\
             route replace default via 10.200.0.1\n\
             route replace 10.244.1.0/24 via 10.200.0.11\n\
             route replace 10.244.3.0/24 via 10.200.0.13\n"
        );
        assert_eq!(hardware_address(plan.gateway), "0a:58:0a:c8:00:01");
    }
}
