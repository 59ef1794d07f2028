//! Topology-aware hints: each endpoint gets a zone whose clients should prefer it, so that traffic stays in its zone as
//! long as no endpoint gets much more of it than the others. Pure, but for what is remembered of each service.
//!
//! A zone is thought to send as much as its part of the cluster's cpu; it gets so many endpoints that none has more than
//! a fifth too much. Where that cannot be, nobody gets hints.
//!
//! upstream: k8s.io/endpointslice/topologycache

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use copepod_client::events::EventType;
use copepod_client::object::{Key, MetaExt};
use copepod_meta::quantity::Quantity;

use crate::kinds::{Node, Service};

pub(super) const ZONE: &str = "topology.kubernetes.io/zone";
const MODE: &str = "service.kubernetes.io/topology-mode";
/// The older name of the annotation; it counts more.
const MODE_DEPRECATED: &str = "service.kubernetes.io/topology-aware-hints";
/// Nodes that no pods are expected on.
const EXCLUDED: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// By how much an endpoint may have more than its part. upstream: overloadThreshold
const OVERLOAD: f64 = 0.2;

const ENABLED: &str = "TopologyAwareHintsEnabled";
const DISABLED: &str = "TopologyAwareHintsDisabled";
const NO_NODES: &str =
    "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
const FEW_ENDPOINTS: &str = "Insufficient number of endpoints";
const WOULD_OVERLOAD: &str =
    "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";
const NO_ZONE: &str = "One or more endpoints do not have a zone specified";
const NONE_ALLOCATED: &str = "No hints allocated for zones";

/// The part of the cluster's cpu that each zone has.
pub(super) type Ratios = BTreeMap<String, f64>;
/// How many endpoints are hinted at each zone.
pub(super) type Allocated = BTreeMap<String, i64>;
/// By family of addresses what was allocated, or why nothing was.
pub(super) type Outcomes = Vec<(String, Result<Allocated, String>)>;

/// Whether a service asks for such hints.
pub(super) fn is_asked(service: &Service) -> bool {
    let annotation = |name: &str| service.metadata.annotation(name);
    matches!(annotation(MODE_DEPRECATED).or_else(|| annotation(MODE)), Some("Auto" | "auto"))
}

fn is_ready(node: &Node) -> bool {
    node.status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether a change of a node changes nothing here.
pub(super) fn looks_alike(before: &Node, after: &Node) -> bool {
    is_ready(before) == is_ready(after) && before.metadata.label(ZONE) == after.metadata.label(ZONE)
}

/// The ratios of these nodes; none if one of them does not tell, or if there are not two zones.
pub(super) fn ratios(nodes: &[Arc<Node>]) -> Option<Ratios> {
    let mut milli_by_zone: BTreeMap<String, i64> = BTreeMap::new();
    let counts = |node: &&Arc<Node>| {
        is_ready(node) && !EXCLUDED.iter().any(|label| node.metadata.label(label).is_some())
    };
    for node in nodes.iter().filter(counts) {
        let cpu = node.status.allocatable.get("cpu").and_then(|text| Quantity::parse(text).ok())?;
        let zone = node.metadata.label(ZONE).filter(|zone| !zone.is_empty() && !cpu.is_zero())?;
        let milli = milli_by_zone.entry(zone.to_owned()).or_default();
        *milli = milli.saturating_add(cpu.milli_value());
    }
    let total = milli_by_zone.values().fold(0_i64, |sum, milli| sum.saturating_add(*milli));
    let ratio = |milli: i64| milli as f64 / total as f64;
    (milli_by_zone.len() >= 2 && total > 0)
        .then(|| milli_by_zone.into_iter().map(|(zone, milli)| (zone, ratio(milli))).collect())
}

/// An endpoint as it is seen here.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Slot {
    pub ready: bool,
    pub zone: Option<String>,
    /// Zones that it is hinted at.
    pub hints: Vec<String>,
}

/// The endpoints of a slice.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Slots {
    /// Nothing else of the slice changes: its hints stay as they are, unless they are not good any more.
    pub unchanged: bool,
    pub slots: Vec<Slot>,
}

/// How many endpoints a zone may have.
#[derive(Debug)]
struct Allocation {
    minimum: i64,
    maximum: i64,
    desired: f64,
}

/// Gives hints to all ready endpoints of a family. After a failure nobody may have hints.
pub(super) fn assign(ratios: Option<&Ratios>, slices: &mut [Slots]) -> Result<Allocated, String> {
    let ready = slices.iter().flat_map(|slice| &slice.slots).filter(|slot| slot.ready).count();
    let allocations = allocations(ratios, i64::try_from(ready).unwrap_or(i64::MAX))?;
    let mut allocated = Allocated::new();
    for slice in slices.iter_mut().filter(|slice| slice.unchanged) {
        match hints_of(&slice.slots, &allocated, &allocations) {
            None => slice.unchanged = false,
            Some(hints) => hints.into_iter().for_each(|(zone, n)| *allocated.entry(zone).or_default() += n),
        }
    }
    // First everybody stays at home, then those move that others need more.
    for slot in slices.iter_mut().filter(|slice| !slice.unchanged).flat_map(|slice| &mut slice.slots) {
        slot.hints.clear();
        if slot.ready {
            let zone = slot.zone.clone().filter(|zone| !zone.is_empty()).ok_or(NO_ZONE)?;
            *allocated.entry(zone.clone()).or_default() += 1;
            slot.hints.push(zone);
        }
    }
    let (mut giving, mut receiving) = moves(&allocations, &allocated);
    for slot in slices.iter_mut().filter(|slice| !slice.unchanged).flat_map(|slice| &mut slice.slots) {
        let Some(home) = slot.zone.as_ref().filter(|home| slot.ready && take_one(&mut giving, home)) else {
            continue;
        };
        let Some(zone) = receiving.keys().next().cloned() else { break };
        take_one(&mut receiving, &zone);
        *allocated.entry(home.clone()).or_default() -= 1;
        *allocated.entry(zone.clone()).or_default() += 1;
        slot.hints = vec![zone];
    }
    if allocated.is_empty() { Err(NONE_ALLOCATED.into()) } else { Ok(allocated) }
}

fn allocations(ratios: Option<&Ratios>, endpoints: i64) -> Result<BTreeMap<&str, Allocation>, String> {
    let ratios = ratios.ok_or(NO_NODES)?;
    let zones = ratios.len();
    if i64::try_from(zones).unwrap_or(i64::MAX) > endpoints {
        return Err(format!("{FEW_ENDPOINTS} ({endpoints} endpoints, {zones} zones)"));
    }
    let mut left = endpoints;
    let mut allocations = BTreeMap::new();
    for (zone, ratio) in ratios {
        let desired = ratio * endpoints as f64;
        let minimum = least(desired);
        left -= minimum;
        if left < 0 {
            return Err(format!("{WOULD_OVERLOAD} ({endpoints} endpoints, {zones} zones)"));
        }
        let allocation = Allocation { minimum, maximum: 0, desired: desired.max(minimum as f64) };
        allocations.insert(zone.as_str(), allocation);
    }
    for allocation in allocations.values_mut() {
        allocation.maximum = allocation.minimum + left;
    }
    Ok(allocations)
}

/// The least whole number of endpoints that can bear what `desired` should.
fn least(desired: f64) -> i64 {
    (desired * (1.0 / (1.0 + OVERLOAD))).ceil() as i64
}

/// The hints that a slice has, if they may stay: every ready endpoint has one, of zones that still count, and none has
/// more than its maximum.
///
/// upstream: topologycache/utils.go getHintsByZone
fn hints_of(
    slots: &[Slot],
    allocated: &Allocated,
    allocations: &BTreeMap<&str, Allocation>,
) -> Option<Allocated> {
    let mut hints = Allocated::new();
    for slot in slots.iter().filter(|slot| slot.ready) {
        if slot.hints.is_empty() {
            return None;
        }
        slot.hints.iter().for_each(|zone| *hints.entry(zone.clone()).or_default() += 1);
    }
    let fits = |(zone, count): (&String, &i64)| {
        let already = allocated.get(zone).copied().unwrap_or_default();
        allocations.get(zone.as_str()).is_some_and(|allocation| count + already <= allocation.maximum)
    };
    hints.iter().all(fits).then_some(hints)
}

/// How many endpoints each zone should give, and how many get.
///
/// upstream: topologycache/utils.go getGivingAndReceivingZones
fn moves(allocations: &BTreeMap<&str, Allocation>, allocated: &Allocated) -> (Allocated, Allocated) {
    let surplus = allocations.iter().map(|(zone, allocation)| {
        (*zone, allocated.get(*zone).copied().unwrap_or_default() as f64 - allocation.desired)
    });
    let (mut more, mut fewer): (BTreeMap<&str, f64>, BTreeMap<&str, f64>) =
        surplus.partition(|(_, surplus)| *surplus > 0.0);
    fewer.values_mut().for_each(|missing| *missing = -*missing);
    let (mut giving, mut receiving) = (Allocated::new(), Allocated::new());
    while let (Some((from, give)), Some((to, get))) = (most(&more), most(&fewer)) {
        if (give < 1.0 && get < 1.0) || give < 0.5 || get < 0.5 {
            break;
        }
        for (zone, rest, moved) in [(from, &mut more, &mut giving), (to, &mut fewer, &mut receiving)] {
            *moved.entry(zone.to_owned()).or_default() += 1;
            rest.entry(zone).and_modify(|count| *count -= 1.0);
        }
    }
    (giving, receiving)
}

fn most<'a>(zones: &BTreeMap<&'a str, f64>) -> Option<(&'a str, f64)> {
    let positive = zones.iter().filter(|(_, count)| **count > 0.0);
    positive.max_by(|a, b| a.1.total_cmp(b.1)).map(|(zone, count)| (*zone, *count))
}

fn take_one(counts: &mut Allocated, zone: &str) -> bool {
    let Some(count) = counts.get_mut(zone) else { return false };
    *count -= 1;
    if *count == 0 {
        counts.remove(zone);
    }
    true
}

/// Whether some zone has fewer endpoints than can bear what it sends.
///
/// upstream: topologycache/utils.go serviceOverloaded
fn is_overloaded(allocated: &Allocated, ratios: Option<&Ratios>) -> bool {
    let Some(ratios) = ratios else { return true };
    let total = allocated.values().sum::<i64>() as f64;
    ratios.iter().any(|(zone, ratio)| allocated.get(zone).is_none_or(|count| *count < least(total * ratio)))
}

/// What is told about a service.
#[derive(Debug, PartialEq)]
pub(super) struct Note {
    pub kind: EventType,
    pub reason: &'static str,
    pub message: String,
}

/// What is remembered: the zones' ratios, and of each service by family of addresses how its hints are shared out.
#[derive(Debug, Default)]
pub(super) struct Topology {
    ratios: Option<Arc<Ratios>>,
    allocated: HashMap<Key, BTreeMap<String, Allocated>>,
}

impl Topology {
    pub fn ratios(&self) -> Option<Arc<Ratios>> {
        self.ratios.clone()
    }

    /// Nodes have changed: the services whose hints are not good any more.
    pub fn set_ratios(&mut self, ratios: Option<Ratios>) -> Vec<Key> {
        self.ratios = ratios.map(Arc::new);
        let ratios = self.ratios.as_deref();
        let concerned = self.allocated.iter();
        let concerned = concerned.filter(|(_, families)| families.values().any(|a| is_overloaded(a, ratios)));
        concerned.map(|(key, _)| key.clone()).collect()
    }

    pub fn forget(&mut self, key: &Key) {
        self.allocated.remove(key);
    }

    /// A service was planned; `None` if it asks for no hints. What is to be told of it.
    pub fn update(&mut self, key: &Key, outcomes: Option<Outcomes>) -> Vec<Note> {
        let before = self.allocated.remove(key).unwrap_or_default();
        let note = |kind, reason, what: &str, family: &str| {
            let message = format!("{what}, addressType: {family}");
            Note { kind, reason, message }
        };
        let Some(outcomes) = outcomes else {
            let ended = "Topology Aware Hints has been disabled";
            return before.keys().map(|family| note(EventType::Warning, DISABLED, ended, family)).collect();
        };
        let (mut now, mut notes) = (BTreeMap::new(), Vec::new());
        for (family, outcome) in outcomes {
            match outcome {
                Err(why) => notes.push(note(EventType::Warning, DISABLED, &why, &family)),
                Ok(allocated) => {
                    if before.is_empty() && now.is_empty() {
                        let begun = "Topology Aware Hints has been enabled";
                        notes.push(note(EventType::Normal, ENABLED, begun, &family));
                    }
                    now.insert(family, allocated);
                }
            }
        }
        if !now.is_empty() {
            self.allocated.insert(key.clone(), now);
        }
        notes
    }
}

#[cfg(test)]
mod tests;
