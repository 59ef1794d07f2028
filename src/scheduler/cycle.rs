//! One scheduling cycle: filter, score, choose; or say why not, and whether preemption helps. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use rand::Rng;
use rand::RngExt as _;

use crate::cluster::Cluster;
use crate::diagnosis::Diagnosis;
use crate::filter::{self, Cycle, node_affinity};
use crate::model::{NodeInfo, PodInfo};
use crate::plugin::PluginSet;
use crate::post_filter::default_preemption::{self, Preemption};
use crate::score;

/// Up to so many nodes all are looked at. upstream: pkg/scheduler/schedule_one.go minFeasibleNodesToFind
const FEASIBLE_MIN: usize = 100;
/// At least this percentage of a large cluster is looked for. upstream: minFeasibleNodesPercentageToFind
const FEASIBLE_PERCENT_MIN: usize = 5;

/// What a cycle found.
#[derive(Debug)]
pub enum Outcome {
    /// The pod goes to this node.
    Node(String),
    /// It fits nowhere now.
    Unfit(Box<Unfit>),
    /// There is no node at all.
    NoNodes,
}

/// Why a pod fits nowhere, and what may be done about it.
#[derive(Debug)]
pub struct Unfit {
    /// The text for users.
    pub message: String,
    /// Who rejected the pod: what has to change before another try makes sense.
    pub plugins: PluginSet,
    /// Room that can be made.
    pub preemption: Option<Preemption>,
}

/// Where the search begins, so that all nodes get their turn.
#[derive(Debug, Default)]
pub struct Cursor(usize);

/// Looks for a node for `pod`.
///
/// upstream: pkg/scheduler/schedule_one.go schedulePod, findNodesThatFitPod
pub fn schedule(
    cluster: &Cluster,
    pod: &Arc<PodInfo>,
    cursor: &mut Cursor,
    random: &mut impl Rng,
) -> Outcome {
    let nodes = cluster.nodes();
    let (false, Some(cycle)) = (nodes.is_empty(), Cycle::new(cluster, pod)) else { return Outcome::NoNodes };

    // Room was made on the nominated node: it is probably the only one that fits.
    if let Some(node) = cluster.node(&cycle.waiting.nominated)
        && filter::run_with_nominated(&cycle, node).is_ok()
    {
        return Outcome::Node(node.name.to_string());
    }
    let mut diagnosis = Diagnosis::default();
    let feasible = match node_affinity::named_nodes(pod) {
        Some(names) => {
            let named: Vec<usize> = names.iter().filter_map(|name| cluster.position(name)).collect();
            let reason = format!("node(s) didn't satisfy plugin(s) [{}]", "NodeAffinity");
            let unasked = nodes.len() - named.len();
            diagnosis.reject_unasked(Cow::Owned(reason), PluginSet::NODE_AFFINITY, unasked);
            feasible(&cycle, named.into_iter(), usize::MAX, &mut diagnosis).0
        }
        None => {
            let order = (0..nodes.len()).map(|at| (cursor.0 + at) % nodes.len());
            let (feasible, asked) = feasible(&cycle, order, wanted(nodes.len()), &mut diagnosis);
            cursor.0 = (cursor.0 + asked) % nodes.len();
            feasible
        }
    };
    match feasible.as_slice() {
        [] => Outcome::Unfit(Box::new(unfit(&cycle, diagnosis, random))),
        [only] => Outcome::Node(only.name.to_string()),
        _ => Outcome::Node(best(&cycle, &feasible, random).name.to_string()),
    }
}

fn feasible<'a>(
    cycle: &Cycle<'a>,
    order: impl Iterator<Item = usize>,
    wanted: usize,
    diagnosis: &mut Diagnosis,
) -> (Vec<&'a NodeInfo>, usize) {
    let nodes = cycle.cluster.nodes();
    let (mut found, mut asked) = (Vec::new(), 0);
    for at in order {
        asked += 1;
        match filter::run_with_nominated(cycle, &nodes[at]) {
            Ok(()) => found.push(&nodes[at]),
            Err(rejection) => diagnosis.reject(at, rejection),
        }
        if found.len() >= wanted {
            break;
        }
    }
    (found, asked)
}

/// How many feasible nodes are enough. upstream: pkg/scheduler/schedule_one.go numFeasibleNodesToFind
fn wanted(nodes: usize) -> usize {
    if nodes < FEASIBLE_MIN {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(FEASIBLE_PERCENT_MIN);
    (nodes * percent / 100).max(FEASIBLE_MIN)
}

fn best<'a>(cycle: &Cycle<'a>, feasible: &[&'a NodeInfo], random: &mut impl Rng) -> &'a NodeInfo {
    let scores = score::run(cycle, feasible);
    let greatest = scores.iter().copied().max().unwrap_or(0);
    let ties: Vec<&NodeInfo> = feasible
        .iter()
        .zip(&scores)
        .filter(|(_, score)| **score == greatest)
        .map(|(node, _)| *node)
        .collect();
    ties[random.random_range(0..ties.len())]
}

fn unfit(cycle: &Cycle<'_>, mut diagnosis: Diagnosis, random: &mut impl Rng) -> Unfit {
    let preemption = match default_preemption::preempt(cycle, &diagnosis.resolvable, random) {
        Ok(preemption) => Some(preemption),
        Err(reason) => {
            // The claims' plugin runs first and has nothing to give back.
            diagnosis.post_filter = format!("no new claims to deallocate, preemption: {reason}");
            None
        }
    };
    Unfit { message: diagnosis.message(cycle.cluster.nodes().len()), plugins: diagnosis.plugins, preemption }
}
