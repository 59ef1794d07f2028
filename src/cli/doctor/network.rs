//! Ports, bridge and addresses: whether something else on the machine has them already.

use super::{Finding, Weight};
use crate::layout::Layout;
use crate::nodes;
use crate::settings::{Port, Settings};
use crate::units;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a port may still be held by a process that has just ended.
const PORT_WAIT: Duration = Duration::from_secs(1);

/// A range of addresses, as `10.244.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    base: u32,
    mask: u32,
}

impl Range {
    /// Reads a range. The part behind the prefix must be zero: `10.0.0.1/8` is a typing error more often than not.
    pub fn parse(text: &str) -> Result<Range, String> {
        let wrong = || format!("{text} is not an IPv4 range such as 10.244.0.0/24");
        let (base, bits) = text.split_once('/').ok_or_else(wrong)?;
        let base: Ipv4Addr = base.parse().map_err(|_| wrong())?;
        let bits: u32 = bits.parse().ok().filter(|bits| (1..=32).contains(bits)).ok_or_else(wrong)?;
        let (base, mask) = (u32::from(base), u32::MAX << (32 - bits));
        match base & mask == base {
            true => Ok(Range { base, mask }),
            false => Err(format!(
                "{text} has bits behind its prefix: did you mean {}/{bits}?",
                Ipv4Addr::from(base & mask)
            )),
        }
    }

    /// The address at this place of the range.
    pub fn address(self, place: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base.wrapping_add(place))
    }

    /// Length of the prefix.
    pub fn prefix(self) -> u32 {
        self.mask.leading_ones()
    }

    /// The part with this longer prefix at this place; `None` where there is no such part.
    pub fn part(self, prefix: u32, place: u32) -> Option<Range> {
        let parts = 1u64 << prefix.checked_sub(self.prefix()).filter(|bits| *bits < 32)?;
        let shift = 32u32.checked_sub(prefix).filter(|_| u64::from(place) < parts)?;
        Some(Range { base: self.base + (place << shift), mask: u32::MAX << shift })
    }

    fn overlaps(self, other: Range) -> bool {
        let mask = self.mask & other.mask;
        self.base & mask == other.base & mask
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address(0), self.prefix())
    }
}

/// Whether there is an elsewhere.
pub fn has_default_route() -> bool {
    all_routes(&route_table()).iter().any(|(_, range)| range.mask == 0)
}

/// Routes of the machine other than the default one, with their devices.
fn routes(table: &str) -> Vec<(String, Range)> {
    let mut out = all_routes(table);
    out.retain(|(_, range)| range.mask != 0);
    out
}

fn all_routes(table: &str) -> Vec<(String, Range)> {
    // The kernel writes addresses as hexadecimal numbers in the machine's own byte order.
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(|n| u32::from_be_bytes(n.to_ne_bytes()));
    let read = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let range = Range { base: number(words.get(1)?)?, mask: number(words.get(7)?)? };
        Some(((*words[0]).to_owned(), range))
    };
    table.lines().skip(1).filter_map(read).collect()
}

fn route_table() -> String {
    // Without the table there is no IPv4 at all, and the clashes of ports say what is wrong.
    std::fs::read_to_string("/proc/net/route").unwrap_or_default()
}

fn machine_routes() -> Vec<(String, Range)> {
    routes(&route_table())
}

fn bridge_exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// Whether a first `up` with these settings would meet something of another cluster, or of anybody else.
pub fn taken(settings: &Settings) -> bool {
    let free = |port: &Port| TcpListener::bind(("0.0.0.0", port.number)).is_ok();
    !settings.ports().iter().all(free)
        || bridge_exists(&settings.bridge)
        || ranges(settings)
            .into_iter()
            .filter(|(what, ..)| *what != SERVICES)
            .any(|(.., cidr)| clash(cidr, &settings.bridge).is_none_or(|clash| clash == Clash::Taken))
}

const SERVICES: &str = "services";

/// What takes addresses, the flag that says which, and the range.
fn ranges(settings: &Settings) -> Vec<(&'static str, &'static str, &str)> {
    let mut out = vec![
        ("pods", "--pod-cidr", settings.pod_cidr.as_str()),
        (SERVICES, "--service-cidr", settings.service_cidr.as_str()),
    ];
    if settings.nodes > 0 {
        out.push(("nodes", "--node-cidr", settings.node_cidr.as_str()));
    }
    out
}

pub(super) fn findings(layout: &Layout, settings: &Settings) -> anyhow::Result<Vec<Finding>> {
    let mut out = Vec::new();
    for port in settings.ports() {
        // A unit that runs holds its own port, whatever became of the others.
        if units::running(layout, port.unit)?.is_none() {
            out.push(Finding::new(
                Weight::Needed,
                format!("port {} for {}", port.number, port.unit),
                free(port),
            ));
        }
    }
    out.push(Finding::new(Weight::Needed, format!("bridge {}", settings.bridge), bridge(layout, settings)?));
    for (what, flag, cidr) in ranges(settings) {
        out.push(addresses(what, flag, cidr, &settings.bridge));
    }
    out.push(Finding::new(Weight::Needed, "addresses of pods and services apart", apart(settings)));
    if settings.nodes > 0 {
        let mended = |error| format!("copepod up {error}");
        let planned = nodes::plan_of(settings).map(|plan| plan.nodes.len().to_string()).map_err(mended);
        out.push(Finding::new(Weight::Needed, "nodes on this machine", planned));
    }
    Ok(out)
}

fn free(port: Port) -> Result<String, String> {
    let number = port.number;
    let mut bound = TcpListener::bind(("0.0.0.0", number));
    // A process that was killed a moment ago still holds its ports while the kernel takes it apart.
    let until = Instant::now() + PORT_WAIT;
    while bound.is_err() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
        bound = TcpListener::bind(("0.0.0.0", number));
    }
    match bound {
        Ok(_) => Ok("free".into()),
        Err(_) => Err(format!(
            "ss -ltnp 'sport = :{number}'   # shows who has it; stop that, or 'copepod up {} PORT'",
            port.flag
        )),
    }
}

/// Our own bridge, once made, has the first address of the pods' range; a bridge with another one is somebody else's.
fn bridge(layout: &Layout, settings: &Settings) -> anyhow::Result<Result<String, String>> {
    let name = &settings.bridge;
    if name.len() > 15 {
        return Ok(Err(format!(
            "copepod up --bridge NAME   # {name} has more than the kernel's 15 characters"
        )));
    }
    if !bridge_exists(name) {
        return Ok(Ok("free".into()));
    }
    if Settings::read(layout)?.is_some_and(|before| before.bridge == *name) {
        return Ok(Ok("made before".into()));
    }
    Ok(Err(format!(
        "copepod up --bridge NAME   # {name} belongs to something else; 'ip link delete {name}' if nobody needs it"
    )))
}

/// What the machine's routes say of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Clash {
    /// Nobody has it.
    Free,
    /// A route for more than the range, by this device: the cluster hides that part of the network from this machine.
    Wider(String),
    /// A route for the range or a part of it: packets for the cluster would go elsewhere.
    Taken,
}

/// `None`: it is no range.
fn clash(cidr: &str, bridge: &str) -> Option<Clash> {
    let range = Range::parse(cidr).ok()?;
    let mut found = Clash::Free;
    for (device, route) in machine_routes() {
        if device == bridge || !route.overlaps(range) {
            continue;
        }
        if route.mask >= range.mask {
            return Some(Clash::Taken);
        }
        found = Clash::Wider(device);
    }
    Some(found)
}

fn addresses(what: &str, flag: &str, cidr: &str, bridge: &str) -> Finding {
    let (weight, state) = match clash(cidr, bridge) {
        Some(Clash::Free) => (Weight::Needed, Ok(format!("{cidr} is free"))),
        Some(Clash::Wider(device)) => (
            Weight::Warned,
            Err(format!(
                "copepod up {flag} RANGE   # {cidr} is a part of the network behind {device}: see 'ip route'"
            )),
        ),
        Some(Clash::Taken) => (
            Weight::Needed,
            Err(format!(
                "copepod up {flag} RANGE   # the machine has a route for some of {cidr}: see 'ip route'"
            )),
        ),
        None => {
            let why = Range::parse(cidr).err().unwrap_or_default();
            (Weight::Needed, Err(format!("copepod up {flag} RANGE   # {why}")))
        }
    };
    Finding::new(weight, format!("addresses of {what}"), state)
}

fn apart(settings: &Settings) -> Result<String, String> {
    // What cannot be read was told above.
    let known: Vec<(&str, &str, Range)> = ranges(settings)
        .into_iter()
        .filter_map(|(_, flag, cidr)| Some((flag, cidr, Range::parse(cidr).ok()?)))
        .collect();
    for (place, (flag, cidr, range)) in known.iter().enumerate() {
        if let Some((_, other, _)) = known[place + 1..].iter().find(|(.., other)| other.overlaps(*range)) {
            return Err(format!("copepod up {flag} RANGE   # {cidr} and {other} overlap"));
        }
    }
    Ok("yes".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_overlap_or_not() {
        let range = |text| Range::parse(text).expect(text);
        for (left, right, want) in [
            ("10.244.0.0/24", "10.244.0.0/24", true),
            ("10.244.0.0/24", "10.244.1.0/24", false),
            ("10.0.0.0/8", "10.244.1.0/24", true),
            ("10.96.0.0/12", "10.112.0.0/24", false),
            ("10.96.0.0/12", "10.111.255.0/24", true),
        ] {
            assert_eq!(range(left).overlaps(range(right)), want, "{left} {right}");
            assert_eq!(range(right).overlaps(range(left)), want, "{right} {left}");
        }
        assert_eq!(range("10.96.0.0/12").address(1), Ipv4Addr::new(10, 96, 0, 1));
        assert_eq!(range("10.96.0.0/12").to_string(), "10.96.0.0/12");
        for (whole, prefix, place, want) in [
            ("10.244.0.0/16", 24, 255, Some("10.244.255.0/24")),
            ("10.244.0.0/16", 24, 256, None),
            ("10.244.0.0/16", 16, 0, Some("10.244.0.0/16")),
            ("10.244.0.0/16", 15, 0, None),
            ("10.244.0.0/16", 33, 0, None),
            ("128.0.0.0/1", 32, 1, Some("128.0.0.1/32")),
        ] {
            let part = range(whole).part(prefix, place).map(|part| part.to_string());
            assert_eq!(part.as_deref(), want, "{whole} {prefix} {place}");
        }
        for wrong in ["10.96.0.0", "10.96.0.0/0", "10.96.0.0/33", "fd00::/64", "10.96.0.1/12", ""] {
            assert!(Range::parse(wrong).is_err(), "{wrong}");
        }
    }

    /// A table as a little-endian kernel prints it: the default route, one network, one host.
    #[cfg(target_endian = "little")]
    #[test]
    fn the_kernels_routes_are_read() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            cni0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let want = Range::parse("10.244.0.0/24").expect("a range");
        assert_eq!(routes(table), [("cni0".to_owned(), want)]);
    }
}
