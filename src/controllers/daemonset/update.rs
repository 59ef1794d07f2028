//! A rolling update of a DaemonSet: which old pods go, which nodes get a second pod. Pure.
//!
//! upstream: pkg/controller/daemon/update.go rollingUpdate

use std::sync::Arc;

use copepod_client::object::MetaExt as _;
use jiff::Timestamp;

use super::plan::{ByNode, Turn, judge};
use crate::common::{pods, revisions};
use crate::deployment::scaled_value;
use crate::kinds::{DaemonSet, Node, Pod};

/// How many nodes may be without a pod, and how many may have two. upstream: updatedDesiredNodeCounts
struct Bounds {
    unavailable: i32,
    surge: i32,
}

/// Whether an update puts the new pod beside the old one. upstream: daemonset_util.go AllowsSurge
pub(super) fn surges(set: &DaemonSet) -> bool {
    bounds(set, 100).surge > 0
}

fn bounds(set: &DaemonSet, wanted: i32) -> Bounds {
    let rolling = set.spec.update_strategy.rolling_update.clone().unwrap_or_default();
    let is_rolling = set.spec.update_strategy.kind == "RollingUpdate";
    let scaled = |value: Option<&_>| value.map_or(0, |value| scaled_value(Some(value), wanted, true));
    let surge = if is_rolling { scaled(rolling.max_surge.as_ref()) } else { 0 };
    let unavailable = scaled(rolling.max_unavailable.as_ref());
    // Without either nothing would ever move.
    Bounds { unavailable: if surge == 0 { unavailable.max(1) } else { unavailable }, surge }
}

/// The pods of a node, as an update sees them.
enum Place<'a> {
    /// More than an update deals with.
    Crowded,
    Empty,
    New(&'a Pod),
    Old(&'a Pod),
    Both {
        new: &'a Pod,
        old: &'a Pod,
    },
}

/// upstream: update.go findUpdatedPodsOnNode
fn place<'a>(here: &[&'a Arc<Pod>], hash: &str) -> Place<'a> {
    let is_new = |pod: &&Pod| pod.metadata.label(revisions::HASH_LABEL) == Some(hash);
    let alive = here.iter().map(|pod| &***pod).filter(|pod| !pod.metadata.deleting());
    let (new, old): (Vec<&Pod>, Vec<&Pod>) = alive.partition(is_new);
    match (new.as_slice(), old.as_slice()) {
        ([], []) => Place::Empty,
        ([new], []) => Place::New(new),
        ([], [old]) => Place::Old(old),
        ([new], [old]) => Place::Both { new, old },
        _ => Place::Crowded,
    }
}

/// Adds to the turn what the update does.
pub(super) fn plan(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    there: &ByNode<'_>,
    hash: &str,
    now: Timestamp,
    turn: &mut Turn,
) {
    let fits = |node: &Node| judge(set, node).should_run;
    let wanted = nodes.iter().filter(|node| fits(node)).count() as i32;
    let bounds = bounds(set, wanted);
    let available = |pod: &Pod| pods::is_available(pod, set.spec.min_ready_seconds, now);
    let places: Vec<(&Node, Place<'_>)> = nodes
        .iter()
        .filter_map(|node| Some((&**node, place(there.get(node.metadata.name())?, hash))))
        .collect();
    if bounds.surge > 0 {
        beside(&places, bounds.surge, wanted, &fits, &available, turn);
    } else {
        instead(&places, bounds.unavailable, &available, turn);
    }
}

type Test<'a, T> = &'a dyn Fn(&T) -> bool;

/// Old pods go first; the next turn makes the new ones.
fn instead(places: &[(&Node, Place<'_>)], most: i32, available: Test<'_, Pod>, turn: &mut Turn) {
    let mut unavailable = 0;
    let (mut broken, mut working) = (Vec::new(), Vec::new());
    for (_, place) in places {
        match place {
            Place::Crowded | Place::Empty | Place::Both { .. } => unavailable += 1,
            Place::New(new) => unavailable += i32::from(!available(new)),
            Place::Old(old) if available(old) => working.push(old.metadata.name().to_owned()),
            Place::Old(old) => {
                unavailable += 1;
                broken.push(old.metadata.name().to_owned());
            }
        }
    }
    let room = usize::try_from(most - unavailable).unwrap_or(0);
    // What does not work anyway is exchanged at once.
    turn.delete.extend(broken.into_iter().chain(working.into_iter().take(room)));
}

/// New pods come first; an old one goes when its successor is available.
fn beside(
    places: &[(&Node, Place<'_>)],
    most: i32,
    wanted: i32,
    fits: Test<'_, Node>,
    available: Test<'_, Pod>,
    turn: &mut Turn,
) {
    let (mut surging, mut all_available) = (0, 0);
    let (mut broken, mut working, mut misplaced) = (Vec::new(), Vec::new(), Vec::new());
    for (node, place) in places {
        let (name, fits) = (node.metadata.name().to_owned(), fits(node));
        match place {
            Place::Crowded => surging += 1,
            Place::Empty => {}
            Place::New(new) => all_available += i32::from(available(new)),
            Place::Old(old) => {
                let works = available(old);
                all_available += i32::from(works);
                match (works, fits) {
                    (false, false) => turn.delete.push(old.metadata.name().to_owned()),
                    (true, false) => misplaced.push(old.metadata.name().to_owned()),
                    (false, true) => broken.push(name),
                    (true, true) => working.push(name),
                }
            }
            Place::Both { new, old } => {
                all_available += i32::from(available(old));
                if available(new) {
                    turn.delete.push(old.metadata.name().to_owned());
                } else {
                    surging += 1;
                }
            }
        }
    }
    // A pod on a node that does not fit any more stays until there are enough elsewhere.
    let spare = usize::try_from(all_available - wanted).unwrap_or(0);
    turn.delete.extend(misplaced.into_iter().take(spare));
    let room = usize::try_from(most - surging).unwrap_or(0);
    turn.create.extend(broken.into_iter().chain(working.into_iter().take(room)));
}
