//! Pods: what is wanted, what is there, what to do about it, and what the API is told.
//!
//! | module | what |
//! |---|---|
//! | [`model`] | the words |
//! | [`observe`] | from the runtime's answers to [`model::Observed`] |
//! | [`plan`] | the decision, pure |
//! | [`status`], [`conditions`] | the API's status, pure |
//! | [`admit`] | whether a new pod fits, pure |
//! | [`resize`] | limits of running containers that change, pure |
//! | [`act`], [`kill`] | starting and ending sandboxes and containers |
//! | [`worker`] | one task a pod: observe, plan, act, tell |
//! | [`manager`] | workers and the sources that feed them |
//! | [`patch`], `tell` | status patches, their sending, and final deletion |
//! | [`manifest`] | static pods from files, and their mirrors |

pub mod act;
pub mod admit;
pub mod backoff;
mod conditions;
pub mod kill;
#[cfg(test)]
#[allow(clippy::panic)] // A test's way to fail.
mod life_tests;
pub mod manager;
pub mod manifest;
pub mod model;
pub mod observe;
pub mod patch;
pub mod plan;
pub mod qos;
pub mod resize;
pub mod status;
mod tell;
pub mod worker;
