//! Which address families a service has. Pure.
//!
//! upstream: pkg/registry/core/service/storage/alloc.go initIPFamilyFields

use std::net::IpAddr;

use copepod_meta::{ErrorList, FieldError, Path, Status, Value};

use super::{NONE, cluster_ip, cluster_ips, is_external_name, set_cluster_ips};

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
    pub(super) fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }
    fn parse(text: &str) -> Option<Family> {
        [Family::V4, Family::V6].into_iter().find(|f| f.as_str() == text)
    }
    fn other(self) -> Family {
        if self == Family::V4 { Family::V6 } else { Family::V4 }
    }
}

/// The families that a service names; what is none is for validation to refuse.
pub(super) fn of(service: &Value) -> Vec<Family> {
    names(service).iter().filter_map(|f| Family::parse(f)).collect()
}

fn names(service: &Value) -> Vec<String> {
    let list = service.list_at(&["spec", "ipFamilies"]);
    list.iter().filter_map(|f| f.as_str().map(str::to_string)).collect()
}

fn set_names(service: &mut Value, names: &[String]) {
    if names.is_empty() {
        service.remove(&["spec", "ipFamilies"]);
    } else {
        service.set(&["spec", "ipFamilies"], names.iter().map(Value::string).collect::<Vec<_>>());
    }
}

fn policy(service: &Value) -> &str {
    service.str_at(&["spec", "ipFamilyPolicy"])
}

/// A PreferDualStack service is neither widened nor narrowed because the cluster changed.
/// upstream: isMatchingPreferDualStackClusterIPFields
pub(super) fn is_settled_dual_stack(service: &Value, old: &Value) -> bool {
    let ty = service.str_at(&["spec", "type"]);
    ty == old.str_at(&["spec", "type"])
        && matches!(ty, "ClusterIP" | "NodePort" | "LoadBalancer")
        && policy(service) == PREFER
        && matches!(policy(old), "" | PREFER)
        && cluster_ips(service) == cluster_ips(old)
        && names(service) == names(old)
}

/// Fills in policy and families from what is given, what was, and what the cluster has (its first family is the default).
pub(super) fn initialize(service: &mut Value, old: Option<&Value>, cluster: &[Family]) -> Result<(), Status> {
    if is_external_name(service) || old.is_some_and(|old| is_settled_dual_stack(service, old)) {
        return Ok(());
    }
    let bare = cluster_ip(service) == NONE && service.map_at(&["spec", "selector"]).is_empty();
    if policy(service).is_empty() {
        let inherited = old.map(policy).filter(|p| !p.is_empty());
        let policy = inherited.unwrap_or(if bare { REQUIRE } else { SINGLE }).to_string();
        service.set(&["spec", "ipFamilyPolicy"], policy);
    }
    let mut errors = ErrorList::new();
    copepod_kinds::cluster_ips(service, old, &mut errors);
    refuse(service, std::mem::take(&mut errors))?;
    if let Some(old) = old {
        narrow(service, old, &mut errors);
    }
    check_single(service, &mut errors);
    infer(service, cluster, &mut errors);
    refuse(service, errors)?;

    let mut families = names(service);
    let Some(default) = cluster.first() else { return Ok(()) };
    if bare {
        if families.is_empty() {
            families.push(default.as_str().into());
        }
        if families.len() < 2 && policy(service) != SINGLE {
            families.extend(Family::parse(&families[0]).map(|f| f.other().as_str().into()));
        }
        set_names(service, &families);
        return Ok(());
    }
    let errors = check_cluster(service, &families, cluster);
    refuse(service, errors)?;
    if families.is_empty() {
        families.push(default.as_str().into());
    }
    if policy(service) != SINGLE && families.len() == 1 && cluster.len() == 2 {
        families.extend(Family::parse(&families[0]).map(|f| f.other().as_str().into()));
    }
    set_names(service, &families);
    Ok(())
}

fn refuse(service: &Value, errors: ErrorList) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("", "Service", service.str_at(&["metadata", "name"]), &errors))
}

/// An update may give up the second address, if it says so.
fn narrow(service: &mut Value, old: &Value, errors: &mut ErrorList) {
    let (ips, old_ips) = (cluster_ips(service), cluster_ips(old));
    let (families, old_families) = (names(service), names(old));
    if policy(service) == SINGLE {
        if ips == old_ips && ips.len() > 1 {
            set_cluster_ips(service, &ips[..1]);
        }
        if families == old_families && families.len() > 1 {
            set_names(service, &families[..1]);
        }
        return;
    }
    let spec = Path::new("spec");
    let path = spec.child("ipFamilyPolicy");
    // upstream: reducedClusterIPs, reducedIPFamilies: none at all is not fewer.
    let fewer = |new: &[String], old: &[String]| {
        !new.is_empty() && old.len() == 2 && new.len() == 1 && old[0] == new[0]
    };
    for (is_fewer, what) in
        [(fewer(&ips, &old_ips), "cluster IP"), (fewer(&families, &old_families), "IP family")]
    {
        if is_fewer {
            let why = format!("must be 'SingleStack' to release the secondary {what}");
            errors.push(FieldError::invalid_str(&path, policy(service), why));
        }
    }
}

fn check_single(service: &Value, errors: &mut ErrorList) {
    if policy(service) != SINGLE {
        return;
    }
    let spec = Path::new("spec");
    let counts = [(cluster_ips(service).len(), "cluster IPs"), (names(service).len(), "IP families")];
    for (_, what) in counts.into_iter().filter(|(count, _)| *count == 2) {
        let why =
            format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
        errors.push(FieldError::invalid_str(&spec.child("ipFamilyPolicy"), SINGLE, why));
    }
}

/// Families of addresses that were given without.
fn infer(service: &mut Value, cluster: &[Family], errors: &mut ErrorList) {
    let (ips, mut families) = (cluster_ips(service), names(service));
    for (i, ip) in ips.iter().enumerate() {
        let Ok(address) = ip.parse::<IpAddr>() else { break };
        let family = Family::of(address);
        if i < families.len() {
            continue;
        }
        if cluster.contains(&family) {
            families.push(family.as_str().into());
        } else {
            let spec = Path::new("spec");
            let path = spec.child("clusterIPs");
            let why = format!("{} is not configured on this cluster", family.as_str());
            let value = service.at(&["spec", "clusterIPs"]);
            errors.push(FieldError::invalid(&path.index(i), value, why));
        }
    }
    set_names(service, &families);
}

fn check_cluster(service: &Value, families: &[String], cluster: &[Family]) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = Path::new("spec");
    if policy(service) == REQUIRE && cluster.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid_str(&spec.child("ipFamilyPolicy"), REQUIRE, why));
    }
    let path = spec.child("ipFamilies");
    for (i, family) in families.iter().enumerate() {
        if !Family::parse(family).is_some_and(|f| cluster.contains(&f)) {
            let at = path.index(i);
            errors.push(FieldError::invalid_str(&at, family, "not configured on this cluster"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(json: &str) -> Value {
        copepod_codec::decode_untyped(json.as_bytes()).expect("JSON").0
    }

    #[test]
    fn families_follow_policy_addresses_and_cluster() {
        use Family::{V4, V6};
        for (name, spec, cluster, want) in [
            ("nothing given", r#"{"type":"ClusterIP"}"#, &[V4][..], "SingleStack IPv4"),
            ("the cluster's first is the default", r#"{}"#, &[V6, V4], "SingleStack IPv6"),
            (
                "prefer on one family",
                r#"{"ipFamilyPolicy":"PreferDualStack"}"#,
                &[V4],
                "PreferDualStack IPv4",
            ),
            (
                "prefer on two",
                r#"{"ipFamilyPolicy":"PreferDualStack"}"#,
                &[V4, V6],
                "PreferDualStack IPv4,IPv6",
            ),
            (
                "headless without selector",
                r#"{"clusterIP":"None","clusterIPs":["None"]}"#,
                &[V4],
                "RequireDualStack IPv4,IPv6",
            ),
            (
                "headless with selector",
                r#"{"clusterIP":"None","clusterIPs":["None"],"selector":{"a":"b"}}"#,
                &[V4],
                "SingleStack IPv4",
            ),
            (
                "inferred",
                r#"{"clusterIP":"fd00::1","clusterIPs":["fd00::1"]}"#,
                &[V4, V6],
                "SingleStack IPv6",
            ),
            (
                "families are checked before all else",
                r#"{"ipFamilies":["IPv4","IPv4"]}"#,
                &[V4],
                "Service \"a\" is invalid: spec.ipFamilies[1]: Duplicate value: \"IPv4\"",
            ),
            (
                "require on one family",
                r#"{"ipFamilyPolicy":"RequireDualStack"}"#,
                &[V4],
                "Service \"a\" is invalid: spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
            ),
            (
                "a family that is not there",
                r#"{"ipFamilies":["IPv6"]}"#,
                &[V4],
                "Service \"a\" is invalid: spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
            ),
        ] {
            let mut service = service(&format!(r#"{{"metadata":{{"name":"a"}},"spec":{spec}}}"#));
            let got = match initialize(&mut service, None, cluster) {
                Ok(()) => format!("{} {}", policy(&service), names(&service).join(",")),
                Err(status) => status.message,
            };
            assert_eq!(got, want, "{name}");
        }
    }
}
