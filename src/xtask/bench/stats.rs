//! Figures of several rounds. Pure.

use serde::{Deserialize, Serialize};

/// What was seen of one row on one side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    /// One a round, in the order of the rounds.
    pub rounds: Vec<f64>,
}

impl Summary {
    /// `None` without any figure.
    pub fn of(rounds: &[f64]) -> Option<Summary> {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Summary { median: (low + high) / 2.0, least, most, rounds: rounds.to_vec() })
    }
}

/// The median of what each round says, since both of a round ran on the same machine in the same minutes. Sides that were
/// not measured equally often are compared by their medians. `None`: nothing to divide by.
pub fn ratio(of: &Summary, to: &Summary) -> Option<f64> {
    if of.rounds.len() != to.rounds.len() {
        return (to.median > 0.0).then(|| of.median / to.median);
    }
    let each: Vec<f64> =
        of.rounds.iter().zip(&to.rounds).filter(|(_, to)| **to > 0.0).map(|(of, to)| of / to).collect();
    Summary::of(&each).map(|s| s.median)
}
