//! Deployments: one ReplicaSet for each state of the template, exchanged by the strategy.
//!
//! [`plan`] decides one step from what is observed; each step changes a ReplicaSet, whose own change brings the next
//! turn. Names of ReplicaSets follow from the template, so that a step repeated after a crash finds what it made.
//!
//! upstream: pkg/controller/deployment

pub(crate) mod annotations;
mod plan;
mod progress;
mod rollout;
mod shell;
#[cfg(test)]
mod tests;

pub use shell::start;

pub(crate) use plan::scaled_value;
