//! What controllers of workloads share.

pub mod claim;
pub mod conditions;
pub mod expectations;
pub mod pod_control;
pub mod pods;
pub mod resources;
pub mod revisions;
pub mod selector;
pub mod services;
pub mod slices;
pub mod slow_start;
pub mod template;
pub mod triggers;
pub mod writes;
