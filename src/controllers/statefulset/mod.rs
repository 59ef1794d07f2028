//! StatefulSets: pods with a number, a name and claims of their own, made and unmade in order.
//!
//! upstream: pkg/controller/statefulset

mod identity;
mod plan;
mod retention;
mod shell;

pub use shell::start;
