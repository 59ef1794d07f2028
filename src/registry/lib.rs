//! The registry: ONE create, get, list, update, patch, delete, deletecollection and watch over every kind of object.
//!
//! Owns: the table of what is served, the road of a write from bytes to the store, reads from the watch cache, optimistic
//! concurrency, graceful deletion and finalizers, views (Table rows, PartialObjectMetadata), the subresources and hooks that do
//! I/O (`special/`). Does not: speak HTTP, authenticate, decide admission or rights (it asks), know a kind's rules (`kinds`
//! does).
//!
//! | module | what |
//! |---|---|
//! | [`api`] | callers, targets, bodies, answers: what the HTTP edge speaks |
//! | [`options`] | options of requests, validated |
//! | [`served`] | the table of what is served |
//! | `registry`, `lister` | the whole; reader and writer for the floors that decide |
//! | `collection`, `forms`, `object`, `view` | a stored resource; its bytes, trees, bodies, rows |
//! | `read`, `selection`, `watch` | get, list, watch |
//! | `verbs`, `call`, `write`, `patch`, `delete`, `metadata`, `managed` | the road of a write |
//! | `special` | subresources with types of their own, hooks that do I/O |
//!
//! Invariants:
//! * generic code never compares a resource's name: what one resource does alone is a row in `special` or its `kinds` strategy;
//! * an answer to a write shows the stored bytes at the revision of their transaction;
//! * whatever a hook took for a write that was refused is given back;
//! * nothing is written by a dry run.
//!
//! How it fails: every refusal is a [`copepod_meta::Status`] with upstream's code, reason, message and details.

// A test fails by panicking.
#![cfg_attr(test, allow(clippy::panic))]
pub mod api;
mod call;
mod collection;
mod connect;
mod delete;
mod errors;
mod forms;
mod lister;
mod managed;
mod metadata;
mod object;
pub mod options;
mod patch;
mod read;
mod registry;
mod selection;
pub mod served;
mod special;
#[cfg(test)]
mod tests;
mod types;
mod verbs;
mod view;
mod watch;
mod wire;
mod write;

pub use api::*;
pub use registry::{
    Config, Deciders, IssuedToken, Registry, Reviewed, RuleResolver, TokenClaims, TokenIssuer, TokenReviewer,
};
pub use served::{Served, Table};
pub use special::Repair;
pub use types::Types;
pub use view::{column_definitions, columns};
