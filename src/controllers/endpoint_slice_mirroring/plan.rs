//! Which slices the addresses of an Endpoints object need. Pure.
//!
//! One slice for each group of ports and each family of addresses; what does not fit into one is left out.
//!
//! upstream: pkg/controller/endpointslicemirroring/{reconciler,reconciler_helpers,utils}.go

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use copepod_client::object::{MetaExt, controller_reference};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use serde::Deserialize;
use serde_json::{Value, json};

use super::MANAGER;
use super::repack::{Port, repack};
use crate::common::slices::{Action, MANAGED_BY, SERVICE_NAME};
use crate::common::triggers::LAST_CHANGE;
use crate::deployment::annotations::LAST_APPLIED;
use crate::kinds::{EndpointSlice, Endpoints};

const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that were used as a lock. upstream: client-go resourcelock LeaderElectionRecordAnnotationKey
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Reasons and messages of warnings on the Endpoints object.
type Warnings = Vec<(&'static str, String)>;

/// What is to be written and told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub actions: Vec<Action>,
    pub warnings: Warnings,
}

/// Whether an Endpoints object wants to be mirrored.
pub(super) fn is_mirrored(endpoints: &Endpoints) -> bool {
    endpoints.metadata.label(SKIP_MIRROR) != Some("true") && endpoints.metadata.annotation(LEADER).is_none()
}

/// A slice is of one family and one set of ports.
type SliceKey = (&'static str, Vec<Port>);

/// What tells endpoints apart: address, host name, namespace and name of what is behind them.
type Identity = (Vec<String>, String, String, String);

type Wanted = BTreeMap<Identity, Endpoint>;

/// The writes that make `slices`, those that mirror `endpoints` already, what they should be.
pub(super) fn plan(
    endpoints: &Endpoints,
    slices: &[Arc<EndpointSlice>],
    addresses_max: usize,
) -> Result<Plan, serde_json::Error> {
    let (mut wanted, warnings) = wanted(endpoints, addresses_max)?;
    let mut known: BTreeMap<SliceKey, Vec<&EndpointSlice>> = BTreeMap::new();
    let (mut create, mut update, mut delete) = (Vec::new(), Vec::new(), Vec::new());
    for slice in slices {
        match key_of(slice)? {
            Some(key) if wanted.contains_key(&key) => known.entry(key).or_default().push(slice),
            _ => delete.push(&**slice),
        }
    }
    while let Some((key, content)) = wanted.pop_first() {
        let mut same = known.remove(&key).unwrap_or_default().into_iter();
        match same.next() {
            None => create.push((key, content)),
            Some(slice) if is_settled(slice, endpoints, &content)? => {}
            Some(slice) => update.push((slice.metadata.name(), key, content)),
        }
        delete.extend(same);
    }
    // A slice that is not needed any more becomes one that is: readers see one change instead of two.
    create.retain_mut(|(key, content)| {
        let Some(at) = delete.iter().position(|slice| slice.address_type == key.0) else { return true };
        update.push((delete.remove(at).metadata.name(), std::mem::take(key), std::mem::take(content)));
        false
    });
    if endpoints.metadata.deleting() {
        create.clear();
    }
    let creations =
        create.into_iter().map(|(key, content)| Action::Create(slice(endpoints, None, key, content)));
    let updates = update
        .into_iter()
        .map(|(name, key, content)| Action::Update(slice(endpoints, Some(name), key, content)));
    let deletions = delete.into_iter().map(|slice| Action::Delete(slice.metadata.name().to_owned()));
    Ok(Plan { actions: creations.chain(updates).chain(deletions).collect(), warnings })
}

/// What slices should hold, and what could not be put into them.
fn wanted(
    endpoints: &Endpoints,
    addresses_max: usize,
) -> Result<(BTreeMap<SliceKey, Wanted>, Warnings), serde_json::Error> {
    let subsets: Vec<EndpointSubset> = list(&endpoints.subsets)?;
    let mut wanted: BTreeMap<SliceKey, Wanted> = BTreeMap::new();
    let (mut invalid, mut skipped) = (0, 0);
    for group in repack(&subsets) {
        let mut added = 0;
        for (address, ready) in &group.addresses {
            if added >= addresses_max {
                break;
            }
            let Some(ip) = parse_ip(&address.ip) else {
                invalid += 1;
                continue;
            };
            added += 1;
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let endpoint = endpoint(address, ip, *ready);
            wanted.entry((family, group.ports.clone())).or_default().insert(identity(&endpoint), endpoint);
        }
        skipped += group.addresses.len() - added;
    }
    let mut warnings = Vec::new();
    if invalid > 0 {
        let message = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        warnings.push(("InvalidIPAddress", message));
    }
    if skipped > invalid {
        let message = format!(
            "A max of {addresses_max} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} \
             addresses were skipped"
        );
        warnings.push(("TooManyAddressesToMirror", message));
    }
    Ok((wanted, warnings))
}

fn list<T: for<'de> Deserialize<'de>>(value: &Value) -> Result<Vec<T>, serde_json::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// An address as Endpoints may hold it: with leading zeros, which stand for nothing.
///
/// upstream: k8s.io/utils/net ParseIPSloppy
fn parse_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        let address: Ipv6Addr = text.parse().ok()?;
        return Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4));
    }
    let number = |part: &str| {
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse::<u8>().ok()).flatten()
    };
    let parts: Vec<u8> = text.split('.').map(number).collect::<Option<_>>()?;
    let octets: [u8; 4] = parts.try_into().ok()?;
    Some(Ipv4Addr::from(octets).into())
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn identity(endpoint: &Endpoint) -> Identity {
    let mut addresses = endpoint.addresses.clone();
    addresses.sort_unstable();
    let target = endpoint.target_ref.as_ref();
    (
        addresses,
        endpoint.hostname.clone().unwrap_or_default(),
        target.and_then(|target| target.namespace.clone()).unwrap_or_default(),
        target.and_then(|target| target.name.clone()).unwrap_or_default(),
    )
}

/// The key of a slice; none of a family that is not mirrored.
fn key_of(slice: &EndpointSlice) -> Result<Option<SliceKey>, serde_json::Error> {
    let Some(family) = ["IPv4", "IPv6"].into_iter().find(|family| *family == slice.address_type) else {
        return Ok(None);
    };
    let ports: Vec<EndpointPort> = list(&slice.ports)?;
    let text = |value: Option<String>| value.unwrap_or_default();
    let mut ports: Vec<Port> = ports
        .into_iter()
        .map(|port| (text(port.name), port.port.unwrap_or_default(), text(port.protocol), port.app_protocol))
        .collect();
    ports.sort_unstable();
    Ok(Some((family, ports)))
}

/// Whether a slice is as it should be, whatever the order of its endpoints.
fn is_settled(
    slice: &EndpointSlice,
    endpoints: &Endpoints,
    content: &Wanted,
) -> Result<bool, serde_json::Error> {
    let known: Vec<Endpoint> = list(&slice.endpoints)?;
    // The version of what is behind an endpoint is nobody's business, nor is what others have added.
    let plain = |endpoint: &Endpoint| {
        let mut endpoint = Endpoint { hints: None, deprecated_topology: None, ..endpoint.clone() };
        if let Some(target) = &mut endpoint.target_ref {
            target.resource_version = None;
        }
        endpoint
    };
    let same =
        |known: &Endpoint| content.get(&identity(known)).is_some_and(|wanted| plain(wanted) == plain(known));
    let owners = slice.metadata.owner_references.iter().flatten();
    // Slices of an earlier object of the same name would go with it.
    let of_an_earlier = |owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| {
        owner.kind == "Endpoints"
            && owner.name == endpoints.metadata.name()
            && owner.uid != MetaExt::uid(&endpoints.metadata)
    };
    Ok(known.len() == content.len()
        && known.iter().all(same)
        && slice.metadata.labels.as_ref() == Some(&labels(endpoints))
        && slice.metadata.annotations.clone().unwrap_or_default() == annotations(endpoints)
        && !owners.into_iter().any(of_an_earlier))
}

fn labels(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), endpoints.metadata.name().into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

fn annotations(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| key != LAST_CHANGE && key != LAST_APPLIED);
    annotations
}

/// upstream: endpointslicemirroring/utils.go newEndpointSlice
fn slice(endpoints: &Endpoints, name: Option<&str>, (family, ports): SliceKey, content: Wanted) -> Value {
    let port = |(name, port, protocol, app_protocol): Port| EndpointPort {
        name: Some(name),
        port: Some(port),
        protocol: Some(protocol),
        app_protocol,
    };
    let mut metadata = json!({
        "namespace": MetaExt::namespace(&endpoints.metadata), "labels": labels(endpoints),
        "annotations": annotations(endpoints), "ownerReferences": [controller_reference(endpoints)],
    });
    match name {
        Some(name) => metadata["name"] = json!(name),
        None => metadata["generateName"] = json!(format!("{}-", endpoints.metadata.name())),
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": family,
        "ports": ports.into_iter().map(port).collect::<Vec<_>>(),
        "endpoints": content.into_values().collect::<Vec<_>>(),
    })
}
