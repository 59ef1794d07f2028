//! Pods that wait for a node: ready ones, ones that back off, ones that nothing has changed for. No I/O, no clock.
//!
//! Invariants:
//! * a pod is in exactly one of the three places, or under way (popped and not yet given back);
//! * a pod leaves `unschedulable` when an event may help a plugin that rejected it, when it changed itself, or after
//!   [`UNSCHEDULABLE_MAX`];
//! * the more important pod is tried first, then the one that waits longer.
//!
//! upstream: pkg/scheduler/backend/queue/scheduling_queue.go

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use copepod_client::object::Key;
use tokio::time::Instant;

use crate::filter::{node_affinity, node_ports, node_resources_fit, node_unschedulable, taint_toleration};
use crate::model::{NodeInfo, PodInfo};
use crate::plugin::PluginSet;

/// First back-off of a pod. upstream: podInitialBackoffSeconds
const BACKOFF_INITIAL: Duration = Duration::from_secs(1);
/// Longest back-off. upstream: podMaxBackoffSeconds
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// After this an unschedulable pod is tried again whatever happened. upstream: DefaultPodMaxInUnschedulablePodsDuration
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(5 * 60);

/// A pod that waits.
#[derive(Debug, Clone)]
pub struct Queued {
    /// The pod as it is now.
    pub pod: Arc<PodInfo>,
    /// Since when it waits to be tried.
    since: Instant,
    /// When it came into the queue at first: orders pods of equal priority.
    arrival: u64,
    /// Tries that failed.
    pub failures: u32,
    /// Who rejected it; empty after an error.
    plugins: PluginSet,
}

/// Something that may let a rejected pod fit.
#[derive(Debug, Clone, Copy)]
pub enum ClusterEvent<'a> {
    /// A node came, or changed from the first to the second.
    Node(Option<&'a NodeInfo>, &'a NodeInfo),
    /// A pod got a node, or changed there.
    PodPlaced,
    /// A pod left its node.
    PodGone(&'a PodInfo),
    /// Labels of a namespace changed.
    Namespace,
}

type Order = (std::cmp::Reverse<i32>, u64);

/// The queue.
#[derive(Default)]
pub struct SchedulingQueue {
    active: BTreeMap<Order, Queued>,
    backing_off: BTreeMap<(Instant, u64), Queued>,
    unschedulable: HashMap<Key, Queued>,
    place: HashMap<Key, Place>,
    arrivals: u64,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Active(Order),
    BackingOff((Instant, u64)),
    Unschedulable,
    UnderWay,
}

impl SchedulingQueue {
    /// How many pods are ready, back off, wait for a change.
    pub fn lengths(&self) -> (usize, usize, usize) {
        (self.active.len(), self.backing_off.len(), self.unschedulable.len())
    }

    /// Adds a new pod, or takes note of a change of a known one.
    pub fn update(&mut self, pod: Arc<PodInfo>, now: Instant) {
        match self.place.get(&pod.key) {
            Some(Place::UnderWay) => {}
            None => self.insert_new(pod, now),
            Some(_) => {
                let Some(mut queued) = self.take(&pod.key) else { return };
                let replaced = queued.pod.uid != pod.uid;
                let helps = replaced || spec_changed(&queued.pod, &pod);
                let was_unschedulable = matches!(self.place.get(&pod.key), Some(Place::Unschedulable));
                queued.pod = pod;
                if replaced {
                    queued.failures = 0;
                }
                if was_unschedulable && !helps {
                    self.put_unschedulable(queued);
                } else {
                    self.put_ready(queued, now);
                }
            }
        }
    }

    fn insert_new(&mut self, pod: Arc<PodInfo>, now: Instant) {
        self.arrivals += 1;
        let queued =
            Queued { pod, since: now, arrival: self.arrivals, failures: 0, plugins: PluginSet::empty() };
        self.put_ready(queued, now);
    }

    /// The pod is gone or has a node.
    pub fn remove(&mut self, key: &str) {
        self.take(key);
        self.place.remove(key);
    }

    /// Whether a pod is known here.
    pub fn contains(&self, key: &str) -> bool {
        self.place.contains_key(key)
    }

    /// Keys of all pods that wait.
    pub fn keys(&self) -> Vec<Key> {
        self.place.keys().cloned().collect()
    }

    /// The next pod to try. When none is ready, one that backs off is tried early, unless its last try was an error.
    pub fn pop(&mut self, now: Instant) -> Option<Queued> {
        while let Some(entry) = self.backing_off.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let queued = entry.remove();
            self.put_active(queued);
        }
        let queued = match self.active.pop_first() {
            Some((_, queued)) => queued,
            None => {
                let (at, _) = self.backing_off.iter().find(|(_, queued)| !queued.plugins.is_empty())?;
                let at = *at;
                self.backing_off.remove(&at)?
            }
        };
        self.place.insert(queued.pod.key.clone(), Place::UnderWay);
        Some(queued)
    }

    /// When the next pod becomes ready by itself.
    pub fn next_due(&self) -> Option<Instant> {
        let backoff = self.backing_off.first_key_value().map(|((at, _), _)| *at);
        let longest = self.unschedulable.values().map(|queued| queued.since).min();
        backoff.into_iter().chain(longest.map(|since| since + UNSCHEDULABLE_MAX)).min()
    }

    /// Moves pods that have waited too long.
    pub fn flush(&mut self, now: Instant) {
        self.move_if(now, |queued| now.duration_since(queued.since) >= UNSCHEDULABLE_MAX);
    }

    /// Gives back a pod that fits nowhere (`plugins` say who rejected it) or failed with an error (no plugins).
    pub fn give_back(&mut self, mut queued: Queued, plugins: PluginSet, now: Instant) {
        if !matches!(self.place.get(&queued.pod.key), Some(Place::UnderWay)) {
            return;
        }
        queued.failures += 1;
        queued.plugins = plugins;
        queued.since = now;
        if plugins.is_empty() {
            self.put_ready(queued, now);
        } else {
            self.put_unschedulable(queued);
        }
    }

    /// The pod was assumed on a node: it is no longer waiting.
    pub fn done(&mut self, key: &str) {
        self.place.remove(key);
    }

    /// Takes a pod back whose binding failed: it backs off like after an error.
    pub fn restore(&mut self, mut queued: Queued, now: Instant) {
        if self.place.contains_key(&queued.pod.key) {
            return;
        }
        queued.failures += 1;
        queued.plugins = PluginSet::empty();
        queued.since = now;
        self.put_ready(queued, now);
    }

    /// Something changed: pods that it may help become ready.
    pub fn on_event(&mut self, event: ClusterEvent<'_>, now: Instant) {
        self.move_if(now, |queued| may_help(queued, event));
    }

    fn move_if(&mut self, now: Instant, which: impl Fn(&Queued) -> bool) {
        let keys: Vec<Key> = self
            .unschedulable
            .iter()
            .filter(|(_, queued)| which(queued))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            if let Some(queued) = self.unschedulable.remove(&key) {
                self.put_ready(queued, now);
            }
        }
    }

    fn take(&mut self, key: &str) -> Option<Queued> {
        match self.place.get(key)? {
            Place::Active(order) => self.active.remove(order),
            Place::BackingOff(at) => self.backing_off.remove(at),
            Place::Unschedulable => self.unschedulable.remove(key),
            Place::UnderWay => None,
        }
    }

    /// Gated pods wait for their gates, others for the end of their back-off.
    fn put_ready(&mut self, mut queued: Queued, now: Instant) {
        if queued.pod.waiting.as_ref().is_some_and(|waiting| !waiting.gates.is_empty()) {
            queued.plugins = PluginSet::SCHEDULING_GATES;
            queued.since = now;
            return self.put_unschedulable(queued);
        }
        let until = queued.since + backoff(queued.failures);
        if queued.failures == 0 || until <= now {
            return self.put_active(queued);
        }
        let at = (until, queued.arrival);
        self.place.insert(queued.pod.key.clone(), Place::BackingOff(at));
        self.backing_off.insert(at, queued);
    }

    fn put_active(&mut self, queued: Queued) {
        let order = (std::cmp::Reverse(queued.pod.priority), queued.arrival);
        self.place.insert(queued.pod.key.clone(), Place::Active(order));
        self.active.insert(order, queued);
    }

    fn put_unschedulable(&mut self, queued: Queued) {
        self.place.insert(queued.pod.key.clone(), Place::Unschedulable);
        self.unschedulable.insert(queued.pod.key.clone(), queued);
    }
}

fn backoff(failures: u32) -> Duration {
    let doubled = BACKOFF_INITIAL.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(BACKOFF_MAX)
}

/// Whether what a user may change of a waiting pod changed. Its condition is the scheduler's own and does not count.
fn spec_changed(before: &PodInfo, after: &PodInfo) -> bool {
    let (Some(old), Some(new)) = (&before.waiting, &after.waiting) else { return true };
    before.labels != after.labels
        || before.requests != after.requests
        || before.affinity != after.affinity
        || old.gates != new.gates
        || old.node_selector != new.node_selector
        || old.tolerations != new.tolerations
        || old.spread != new.spread
}

/// Whether an event may change the mind of a plugin that rejected the pod.
///
/// upstream: EventsToRegister and the queueing hints of each plugin
fn may_help(queued: &Queued, event: ClusterEvent<'_>) -> bool {
    let pod = &queued.pod;
    let Some(waiting) = pod.waiting.as_deref() else { return false };
    let rejected_by = |plugin: PluginSet| queued.plugins.contains(plugin);
    if rejected_by(PluginSet::SCHEDULING_GATES) {
        return false;
    }
    let neighbours =
        rejected_by(PluginSet::INTER_POD_AFFINITY) || rejected_by(PluginSet::POD_TOPOLOGY_SPREAD);
    match event {
        ClusterEvent::PodPlaced => neighbours,
        ClusterEvent::Namespace => rejected_by(PluginSet::INTER_POD_AFFINITY),
        ClusterEvent::PodGone(gone) => {
            neighbours
                || rejected_by(PluginSet::NODE_RESOURCES_FIT)
                || (rejected_by(PluginSet::NODE_PORTS) && node_ports::conflict(&pod.ports, &gone.ports))
        }
        ClusterEvent::Node(before, after) => {
            // Each plugin that said no must have a reason to think again about this node.
            let new = before.is_none();
            let changed =
                |plugin, different: bool, good: bool| rejected_by(plugin) && (new || different) && good;
            let tolerates = |node: &NodeInfo| taint_toleration::tolerates(&waiting.tolerations, node);
            let open =
                |node: &NodeInfo| !node.unschedulable || node_unschedulable::tolerates(&waiting.tolerations);
            let wanted = |node: &NodeInfo| node_affinity::matches(pod, waiting, node);
            changed(PluginSet::NODE_UNSCHEDULABLE, before.is_some_and(|n| !open(n)), open(after))
                || changed(
                    PluginSet::TAINT_TOLERATION,
                    before.is_some_and(|n| !tolerates(n)),
                    tolerates(after),
                )
                || changed(PluginSet::NODE_AFFINITY, before.is_some_and(|n| !wanted(n)), wanted(after))
                || changed(
                    PluginSet::NODE_RESOURCES_FIT,
                    before
                        .is_some_and(|n| n.allocatable != after.allocatable || n.pods_max != after.pods_max),
                    node_resources_fit::could_fit(&pod.requests, after),
                )
                || (rejected_by(PluginSet::NODE_PORTS) && new)
                || (neighbours && before.is_none_or(|n| n.labels != after.labels || n.taints != after.taints))
        }
    }
}

#[cfg(test)]
mod tests;
