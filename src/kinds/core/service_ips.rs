//! Cluster addresses and address families of a Service. upstream: validation.go ValidateServiceClusterIPsRelatedFields

use copepod_meta::{ErrorList, Value};
use std::collections::BTreeSet;

use super::ip;
use super::service::{is_headless, ty};
use crate::check::At;

const ONCE: &str = "may not change once set";

/// A list as upstream prints it: an absent one is `null`.
fn invalid_list(at: At, list: &Value, e: &mut ErrorList, detail: &str) {
    let printed = if list.is_null() { "null".into() } else { copepod_meta::debug_json::to_string(list) };
    at.invalid_printed(e, printed, detail);
}

/// upstream: ValidateServiceClusterIPsRelatedFields
pub fn validate(service: &Value, old: Option<&Value>, e: &mut ErrorList) {
    if ty(service) == "ExternalName" {
        return;
    }
    let root = At::root(service);
    let (ips, families) = (root.get("spec.clusterIPs"), root.get("spec.ipFamilies"));
    let all: Vec<&str> = ips.value.list_at(&[]).iter().map(|i| i.as_str().unwrap_or("")).collect();
    match (root.get("spec.clusterIP").str(), all.first()) {
        ("", None) => {}
        ("", Some(_)) => ips.invalid(e, "must be empty when `clusterIP` is not specified"),
        (_, None) => ips.required(e, ""),
        (single, Some(first)) if single != *first => ips.invalid(e, "first value must match `clusterIP`"),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for family in families.items() {
        family.one_of(e, &["IPv4", "IPv6"]);
        if !seen.insert(family.str()) {
            family.duplicate(e);
        }
    }
    let policy = root.get("spec.ipFamilyPolicy");
    if policy.is_set() {
        policy.one_of(e, &["PreferDualStack", "RequireDualStack", "SingleStack"]);
    }
    if !addresses(ips, &all, old, e) {
        return;
    }
    if all.len() > 1 {
        let kinds: BTreeSet<bool> = all.iter().filter_map(|i| ip::parse(i)).map(|i| i.is_ipv4()).collect();
        if kinds.len() != 2 {
            ips.invalid(e, "may specify no more than one IP for each IP family");
        }
    }
    if is_headless(service) {
        return;
    }
    for (i, (address, family)) in ips.items().zip(families.value.list_at(&[])).enumerate() {
        let is_v6 = ip::parse(address.str()).is_some_and(|ip| ip.is_ipv6());
        match (family.as_str(), is_v6) {
            (Some(family @ "IPv4"), true) | (Some(family @ "IPv6"), false) => {
                address.invalid(e, format!("expected an {family} value as indicated by `ipFamilies[{i}]`"));
            }
            _ => {}
        }
    }
}

/// Syntax of the addresses; false if one is bad.
fn addresses(ips: At, all: &[&str], old: Option<&Value>, e: &mut ErrorList) -> bool {
    let known: Vec<&str> = old
        .map_or(&[][..], |o| o.list_at(&["spec", "clusterIPs"]))
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut valid = true;
    for (i, address) in ips.items().enumerate() {
        if i == 0 && address.str() == "None" {
            if all.len() > 1 {
                valid = false;
                ips.invalid(e, "'None' must be the first and only value");
            }
            continue;
        }
        let before = e.len();
        ip::legacy(address, &known, e);
        valid &= e.len() == before;
    }
    if all.len() > 2 {
        ips.invalid(e, "may only hold up to 2 values");
    }
    valid
}

/// What an update may do to addresses and families: gain or release the second one.
/// upstream: validateUpgradeDowngradeClusterIPs, validateUpgradeDowngradeIPFamilies
pub fn validate_change(service: &Value, old: &Value, e: &mut ErrorList) {
    if ty(service) == "ExternalName" || ty(old) == "ExternalName" {
        return;
    }
    let (was, now) = (is_headless(old), is_headless(service));
    if !(was && now) {
        cluster_ips(service, old, e);
    }
    if was == now && !now {
        families(service, old, e);
    }
}

fn released(service: &Value, what: &str, e: &mut ErrorList) {
    let root = At::root(service);
    let policy = root.get("spec.ipFamilyPolicy");
    if policy.str() != "SingleStack" {
        let printed = copepod_meta::field::print_value(policy.value);
        policy.invalid_printed(
            e,
            printed,
            format!("must be set to 'SingleStack' when releasing the secondary {what}"),
        );
    }
}

fn cluster_ips(service: &Value, old: &Value, e: &mut ErrorList) {
    let root = At::root(service);
    let at = root.get("spec.clusterIPs");
    let (was, now) = (old.list_at(&["spec", "clusterIPs"]), at.value.list_at(&[]));
    if was.len() == now.len() {
        for i in (0..was.len()).filter(|i| was[*i] != now[*i]) {
            invalid_list(at.index(i), at.value, e, ONCE);
        }
        return;
    }
    if now.is_empty() {
        invalid_list(at.index(0), at.value, e, "primary clusterIP can not be unset");
    } else if !was.is_empty() && was[0] != now[0] {
        invalid_list(at.index(0), at.value, e, ONCE);
    }
    if was.len() > now.len() && now.len() == 1 {
        released(service, "clusterIP", e);
    }
}

fn families(service: &Value, old: &Value, e: &mut ErrorList) {
    let root = At::root(service);
    let at = root.get("spec.ipFamilies");
    let ips = service.at(&["spec", "clusterIPs"]);
    let (was, now) = (old.list_at(&["spec", "ipFamilies"]), at.value.list_at(&[]));
    if was.len() == now.len() {
        for _each in was.iter().zip(now).filter(|(a, b)| a != b) {
            invalid_list(at.index(0), at.value, e, ONCE);
        }
        return;
    }
    if was.len() > now.len() && ips.list_at(&[]).is_empty() {
        invalid_list(at.index(0), at.value, e, "primary ipFamily can not be unset");
    }
    // Upstream prints the addresses here.
    if let (Some(a), Some(b)) = (was.first(), now.first())
        && a != b
    {
        invalid_list(at.index(0), ips, e, ONCE);
    }
    if was.len() > now.len() && now.len() == 1 {
        released(service, "ipFamily", e);
    }
}
