//! Garbage collection by owner references, for every kind that the server serves.
//!
//! * background: an object whose owners are all gone goes;
//! * foreground: an object with the finalizer `foregroundDeletion` waits until its blocking dependents are gone;
//! * orphan: an object with the finalizer `orphan` lets its dependents go free first.
//!
//! [`graph`] knows who owns whom, by metadata alone; [`plan`] decides about one object; the shell watches, asks the server
//! itself before it deletes anything, and acts.
//!
//! Invariants: nothing is deleted on the word of a cache: object and owners are read live first, and every deletion
//! carries the uid; work begins when all kinds are listed, because an incomplete graph would end a foreground deletion
//! too early.
//!
//! upstream: pkg/controller/garbagecollector

pub mod graph;
mod monitors;
mod plan;
mod shell;

pub use shell::start;

/// Finalizer of a foreground deletion.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an orphaning deletion.
pub const ORPHAN: &str = "orphan";
