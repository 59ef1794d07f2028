//! What pods (and nodes, where there are several) send to elsewhere leaves with the machine's own address.
//!
//! One rule a range of addresses, for the life of the cluster, named after its bridge: the CNI plugin's way, a chain for each
//! pod, costs several runs of `iptables` a pod, and what it made stays for ever when it is killed between the pod's device and
//! the chain.
//!
//! Everything is made again without harm.

use crate::layout::Layout;
use crate::program::{must, run};
use crate::settings::Settings;
use anyhow::Context as _;
use copepod_pki::files::{self, Mode};
use std::fs;
use std::path::PathBuf;

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Where it is written down that forwarding was off before.
fn forward_record(layout: &Layout) -> PathBuf {
    layout.join("ip-forward-before")
}

fn rules(settings: &Settings) -> Vec<Vec<String>> {
    let nodes = (settings.nodes > 0).then_some(&settings.node_cidr);
    let ranges = nodes.into_iter().chain([&settings.pod_cidr]);
    let rule = |range: &String| {
        let line = format!(
            "POSTROUTING -s {range} ! -o {0} -m comment --comment copepod:{0} -j MASQUERADE",
            settings.bridge
        );
        line.split(' ').map(str::to_owned).collect()
    };
    ranges.map(rule).collect()
}

fn nat<'a>(action: &'a str, rule: &'a [String]) -> Vec<&'a str> {
    ["-w", "-t", "nat", action].into_iter().chain(rule.iter().map(String::as_str)).collect()
}

/// Lets the machine forward, and makes the rules.
pub fn open(layout: &Layout, settings: &Settings) -> anyhow::Result<()> {
    if fs::read_to_string(FORWARD)?.trim() == "0" {
        files::write(&forward_record(layout), b"0\n", Mode::Public)?;
        fs::write(FORWARD, "1").context("net.ipv4.ip_forward")?;
    }
    for rule in rules(settings) {
        if !run("iptables", &nat("-C", &rule))?.status.success() {
            must("iptables", &nat("-A", &rule))?;
        }
    }
    Ok(())
}

/// Removes the rules.
pub fn close(settings: &Settings) -> anyhow::Result<()> {
    for rule in rules(settings) {
        while run("iptables", &nat("-C", &rule))?.status.success() {
            must("iptables", &nat("-D", &rule))?;
        }
    }
    Ok(())
}

/// Puts forwarding back to what it was before [`open`]. To be called when the cluster's bridge is gone: other bridges of the
/// machine, a second cluster's among them, may have come to rely on it.
pub fn restore_forwarding(layout: &Layout) -> anyhow::Result<()> {
    if files::read(&forward_record(layout))?.is_some() {
        if !other_bridges() {
            fs::write(FORWARD, "0").context("net.ipv4.ip_forward")?;
        }
        fs::remove_file(forward_record(layout))?;
    }
    Ok(())
}

fn other_bridges() -> bool {
    let devices = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    devices.map(|device| device.path().join("bridge")).any(|folder| folder.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_range_has_one_rule_named_after_the_bridge() {
        let rules_of = |nodes| {
            let settings = Settings::fresh(0, nodes, "box".into(), [192, 0, 2, 1].into());
            rules(&settings).into_iter().map(|rule| rule.join(" ")).collect::<Vec<_>>()
        };
        let tail = "! -o copepod0 -m comment --comment copepod:copepod0 -j MASQUERADE";
        assert_eq!(rules_of(0), [format!("POSTROUTING -s 10.244.0.0/24 {tail}")]);
        assert_eq!(
            rules_of(3),
            [format!("POSTROUTING -s 10.200.0.0/24 {tail}"), format!("POSTROUTING -s 10.244.0.0/16 {tail}")]
        );
    }
}
