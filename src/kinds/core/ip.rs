//! IP addresses and networks as fields of the API hold them. upstream: apimachinery/pkg/util/validation/ip.go

use copepod_meta::ErrorList;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::check::At;

/// Parses an address as upstream does for old fields: leading zeros in IPv4 parts are taken.
/// upstream: k8s.io/utils/net ParseIPSloppy
pub fn parse(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        let ip: Ipv6Addr = text.parse().ok()?;
        return Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4));
    }
    let mut parts = [0u8; 4];
    let mut split = text.split('.');
    for part in &mut parts {
        let digits = split.next()?;
        if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let significant = digits.trim_start_matches('0');
        *part = if significant.is_empty() { 0 } else { significant.parse().ok()? };
    }
    split.next().is_none().then_some(IpAddr::V4(Ipv4Addr::from(parts)))
}

fn has_leading_zero(text: &str) -> bool {
    !text.contains(':') && text.split('.').any(|part| part.len() > 1 && part.starts_with('0'))
}

fn is_mapped(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok_and(|ip| ip.to_ipv4_mapped().is_some())
}

/// Go's text of an address.
pub fn canonical(ip: IpAddr) -> String {
    ip.to_string()
}

/// A field that predates strict checks; `known`: values of the stored object, which pass.
/// upstream: IsValidIPForLegacyField
pub fn legacy(at: At, known: &[&str], e: &mut ErrorList) {
    if !known.contains(&at.str()) {
        syntax(at, e);
    }
}

/// False if the text is no address at all.
fn syntax(at: At, e: &mut ErrorList) -> bool {
    let text = at.str();
    if parse(text).is_none() {
        at.invalid(e, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        return false;
    }
    let before = e.len();
    if has_leading_zero(text) {
        at.invalid(e, "must not have leading 0s");
    }
    if is_mapped(text) {
        at.invalid(e, "must not be an IPv4-mapped IPv6 address");
    }
    e.len() == before
}

/// A field of the newer sort: canonical. upstream: IsValidIP
pub fn strict(at: At, e: &mut ErrorList) {
    if !syntax(at, e) {
        return;
    }
    if let Some(ip) = parse(at.str()).map(canonical).filter(|ip| ip != at.str()) {
        at.invalid(e, format!("must be in canonical form (\"{ip}\")"));
    }
}

/// A network: address and prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address as given.
    pub ip: IpAddr,
    /// Prefix length.
    pub bits: u8,
}

impl Cidr {
    /// Parses, leading zeros taken. upstream: k8s.io/utils/net ParseCIDRSloppy
    pub fn parse(text: &str) -> Option<Cidr> {
        let (ip, bits) = text.split_once('/')?;
        let mapped = is_mapped(ip);
        let ip = parse(ip)?;
        if bits.is_empty() || !bits.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let bits: u8 = bits.parse().ok()?;
        // Go measures the length of a mapped address as one of IPv6.
        let bits = if mapped { bits.checked_sub(96)? } else { bits };
        let max = if ip.is_ipv4() { 32 } else { 128 };
        (bits <= max).then_some(Cidr { ip, bits })
    }
    /// The network's own address.
    pub fn network(&self) -> IpAddr {
        match self.ip {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(ip) & mask))
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask))
            }
        }
    }
    /// Whether the network holds an address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.ip.is_ipv4() && Cidr { ip, bits: self.bits }.network() == self.network()
    }
    /// `10.0.0.0/8`
    pub fn network_text(&self) -> String {
        format!("{}/{}", canonical(self.network()), self.bits)
    }
}

/// upstream: IsValidCIDRForLegacyField
pub fn legacy_cidr(at: At, known: &[&str], e: &mut ErrorList) {
    if !known.contains(&at.str()) {
        cidr_syntax(at, e);
    }
}

fn cidr_syntax(at: At, e: &mut ErrorList) -> Option<Cidr> {
    let text = at.str();
    let Some(cidr) = Cidr::parse(text) else {
        at.invalid(e, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
        return None;
    };
    let (ip, bits) = text.split_once('/').unwrap_or((text, ""));
    if has_leading_zero(ip) || (bits.len() > 1 && bits.starts_with('0')) {
        at.invalid(e, "must not have leading 0s in IP or prefix length");
        return None;
    }
    if is_mapped(ip) {
        at.invalid(e, "must not have an IPv4-mapped IPv6 address");
        return None;
    }
    if cidr.ip != cidr.network() {
        at.invalid(e, "must not have bits set beyond the prefix length");
        return None;
    }
    Some(cidr)
}

/// upstream: IsValidCIDR
pub fn strict_cidr(at: At, e: &mut ErrorList) {
    if let Some(text) = cidr_syntax(at, e).map(|c| c.network_text()).filter(|t| t != at.str()) {
        at.invalid(e, format!("must be in canonical form (\"{text}\")"));
    }
}

/// Warnings about addresses in forms that others may read differently. upstream: GetWarningsForIP
pub fn warnings(at: At, out: &mut Vec<String>) {
    let text = at.str();
    let Some(ip) = parse(text) else { return };
    let (path, ip) = (at.path, canonical(ip));
    if has_leading_zero(text) || is_mapped(text) {
        out.push(format!("{path}: non-standard IP address \"{text}\" is invalid: use \"{ip}\""));
    } else if text.contains(':') && ip != text {
        out.push(format!(
            "{path}: IPv6 address \"{text}\" should be in RFC 5952 canonical format (\"{ip}\")"
        ));
    }
}

/// upstream: GetWarningsForCIDR
pub fn cidr_warnings(at: At, out: &mut Vec<String>) {
    let text = at.str();
    let Some(cidr) = Cidr::parse(text) else { return };
    let (ip, bits) = text.split_once('/').unwrap_or((text, ""));
    let (path, network, before) = (at.path, cidr.network_text(), out.len());
    if cidr.ip != cidr.network() {
        let single = format!("{}/{}", canonical(cidr.ip), if cidr.ip.is_ipv4() { 32 } else { 128 });
        out.push(format!(
            "{path}: CIDR value \"{text}\" is ambiguous in this context (should be \"{network}\" or \"{single}\"?)"
        ));
    }
    if has_leading_zero(ip) || is_mapped(ip) || (bits.len() > 1 && bits.starts_with('0')) {
        out.push(format!("{path}: non-standard CIDR value \"{text}\" is invalid: use \"{network}\""));
    }
    let own = format!("{}/{}", canonical(cidr.ip), cidr.bits);
    if out.len() == before && ip.contains(':') && own != text {
        out.push(format!(
            "{path}: IPv6 CIDR value \"{text}\" should be in RFC 5952 canonical format (\"{own}\")"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::{Cidr, parse};

    #[test]
    fn old_fields_take_leading_zeros() {
        assert_eq!(parse("010.2.3.4").map(|i| i.to_string()).as_deref(), Some("10.2.3.4"));
        assert_eq!(parse("0.0.0.0").map(|i| i.to_string()).as_deref(), Some("0.0.0.0"));
        assert_eq!(parse("::ffff:1.2.3.4").map(|i| i.to_string()).as_deref(), Some("1.2.3.4"));
        for bad in ["", "1.2.3", "10.0.0.300", "1.2.3.4.5", "256.1.1.1", "a.b.c.d", "1..2.3"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let net = Cidr::parse("10.1.2.3/8").expect("a network");
        assert_eq!(net.network_text(), "10.0.0.0/8");
        assert_eq!(Cidr::parse("10.0.0.0/33"), None);
    }
}
