//! Preemption: pods of lower priority leave a node, as few and as unimportant ones as possible, so that the pod fits.
//!
//! upstream: pkg/scheduler/framework/plugins/defaultpreemption, pkg/scheduler/framework/preemption

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;
use rand::Rng;
use rand::RngExt as _;

use crate::diagnosis::{Diagnosis, Rejection};
use crate::filter::{self, Cycle};
use crate::model::selector::selector_matches;
use crate::model::wire::Budget;
use crate::model::{NodeInfo, PodInfo};
use crate::plugin::PluginSet;

/// Nodes that are tried out: at least so many, or a tenth. upstream: DefaultPreemptionArgs' defaults
const CANDIDATES_MIN: usize = 100;
const CANDIDATES_PERCENT: usize = 10;

/// Room that can be made.
#[derive(Debug, Clone)]
pub struct Preemption {
    /// Where.
    pub node: String,
    /// Who has to go, the most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them are protected by a disruption budget.
    violations: usize,
}

/// Chooses where to make room; the error is the text for users.
pub fn preempt(cycle: &Cycle<'_>, resolvable: &[usize], random: &mut impl Rng) -> Result<Preemption, String> {
    if cycle.waiting.never_preempts {
        return Err("not eligible due to preemptionPolicy=Never.".into());
    }
    if waits_for_victims(cycle, resolvable) {
        return Err("not eligible due to a terminating pod on the nominated node.".into());
    }
    let nodes = cycle.cluster.nodes();
    let mut diagnosis = Diagnosis::default();
    let mut candidates: Vec<Preemption> = Vec::new();
    let enough = (resolvable.len() * CANDIDATES_PERCENT / 100).max(CANDIDATES_MIN);
    let offset = if resolvable.is_empty() { 0 } else { random.random_range(0..resolvable.len()) };
    let mut tried = 0;
    for step in 0..resolvable.len() {
        let at = resolvable[(offset + step) % resolvable.len()];
        tried += 1;
        match victims_on(cycle, &nodes[at]) {
            Ok(candidate) => candidates.push(candidate),
            Err(rejection) => diagnosis.reject(at, rejection),
        }
        let harmless = candidates.iter().any(|candidate| candidate.violations == 0);
        if candidates.len() >= enough && harmless {
            break;
        }
    }
    candidates.into_iter().min_by_key(rank).ok_or_else(|| {
        let unasked = "Preemption is not helpful for scheduling".into();
        diagnosis.reject_unasked(unasked, PluginSet::empty(), nodes.len() - tried);
        diagnosis.message(nodes.len())
    })
}

/// Whether earlier victims are still leaving the nominated node.
fn waits_for_victims(cycle: &Cycle<'_>, resolvable: &[usize]) -> bool {
    let nominated = &cycle.waiting.nominated;
    let Some(at) = cycle.cluster.position(nominated) else { return false };
    // If the node cannot take the pod whatever leaves, other nodes are tried.
    resolvable.contains(&at)
        && cycle.cluster.nodes()[at]
            .pods
            .iter()
            .any(|pod| pod.priority < cycle.pod.priority && pod.preempted && pod.deleting)
}

/// upstream: pkg/scheduler/framework/preemption/preemption.go pickOneNodeForPreemption
fn rank(candidate: &Preemption) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
    let victims = &candidate.victims;
    let highest = victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
    let sum = victims.iter().map(|victim| i64::from(victim.priority) + i64::from(i32::MAX) + 1).sum();
    let earliest = victims
        .iter()
        .filter(|victim| victim.priority == highest)
        .map(|victim| victim.started.unwrap_or(Timestamp::MAX))
        .min()
        .unwrap_or(Timestamp::MIN);
    (candidate.violations, highest, sum, victims.len(), Reverse(earliest))
}

/// The fewest pods that must leave `node`: all of lower priority leave, then as many as possible come back.
///
/// upstream: pkg/scheduler/framework/plugins/defaultpreemption/default_preemption.go SelectVictimsOnNode
fn victims_on(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<Preemption, Rejection> {
    let mut potential: Vec<Arc<PodInfo>> =
        node.pods.iter().filter(|pod| pod.priority < cycle.pod.priority).cloned().collect();
    if potential.is_empty() {
        return Err(Rejection::lasting(PluginSet::empty(), "No preemption victims found for incoming pod"));
    }
    let mut room = node.clone();
    for pod in &potential {
        room.remove_pod(&pod.key);
    }
    let mut state = cycle.without_pods(node, &potential);
    filter::run_with_nominated(&state, &room)?;

    potential.sort_by_key(|pod| importance(pod));
    let (protected, others) = split_by_budget(&potential, cycle.cluster.budgets());
    let mut victims = Vec::new();
    let mut violations = 0;
    for (pod, is_protected) in
        protected.into_iter().map(|p| (p, true)).chain(others.into_iter().map(|p| (p, false)))
    {
        room.add_pod(pod.clone());
        state.count(node, &pod, 1);
        if filter::run_with_nominated(&state, &room).is_err() {
            room.remove_pod(&pod.key);
            state.count(node, &pod, -1);
            violations += usize::from(is_protected);
            victims.push(pod);
        }
    }
    victims.sort_by_key(|pod| importance(pod));
    Ok(Preemption { node: node.name.to_string(), victims, violations })
}

/// Orders the most important pod first: by priority, then by age.
fn importance(pod: &PodInfo) -> (Reverse<i32>, Timestamp) {
    (Reverse(pod.priority), pod.started.unwrap_or(Timestamp::MAX))
}

type Pods = Vec<Arc<PodInfo>>;

/// Parts those whose going would break a disruption budget from the others.
fn split_by_budget<'a>(pods: &[Arc<PodInfo>], budgets: impl Iterator<Item = &'a Budget>) -> (Pods, Pods) {
    let mut left: Vec<(&Budget, i32)> =
        budgets.map(|budget| (budget, budget.status.disruptions_allowed)).collect();
    pods.iter().cloned().partition(|pod| {
        if pod.labels.is_empty() {
            return false;
        }
        left.iter_mut().any(|(budget, allowed)| {
            let empty = budget
                .spec
                .selector
                .as_ref()
                .is_none_or(|s| s.match_labels.is_empty() && s.match_expressions.is_empty());
            let namespace = budget.metadata.namespace.as_deref() == Some(pod.namespace());
            let matches = selector_matches(budget.spec.selector.as_ref(), &pod.labels);
            if empty || !namespace || !matches || budget.status.disrupted_pods.contains_key(pod.name()) {
                return false;
            }
            *allowed -= 1;
            *allowed < 0
        })
    })
}
