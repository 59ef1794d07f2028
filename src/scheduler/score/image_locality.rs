//! Nodes that have the pod's images already are better, weighed by size and by how many nodes have them.

use super::SCORE_MAX;
use crate::filter::Cycle;
use crate::model::NodeInfo;

const MIB: i64 = 1024 * 1024;
/// Less than this is pulled quickly anyway. upstream: image_locality.go minThreshold
const THRESHOLD_MIN: i64 = 23 * MIB;
/// More than this for each container counts no further. upstream: image_locality.go maxContainerThreshold
const THRESHOLD_MAX: i64 = 1000 * MIB;

/// upstream: pkg/scheduler/framework/plugins/imagelocality/image_locality.go Score
pub fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
    let all = cycle.cluster.nodes().len() as f64;
    let spread: Vec<(&str, f64)> = cycle
        .waiting
        .images
        .iter()
        .map(|image| (image.as_str(), cycle.cluster.image_spread(image) as f64 / all))
        .filter(|(_, spread)| *spread > 0.0)
        .collect();
    if spread.is_empty() {
        return None;
    }
    let greatest = THRESHOLD_MAX * cycle.waiting.containers as i64;
    let of_node = |node: &&NodeInfo| {
        let sizes = spread.iter().filter_map(|(image, spread)| Some((node.image_size(image)?, spread)));
        let sum: i64 = sizes.map(|(size, spread)| (size as f64 * spread) as i64).sum();
        let counted = sum.max(THRESHOLD_MIN).min(greatest.max(THRESHOLD_MIN));
        SCORE_MAX * (counted - THRESHOLD_MIN) / (greatest - THRESHOLD_MIN)
    };
    Some(nodes.iter().map(of_node).collect())
}
