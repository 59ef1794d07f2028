//! The registry: ONE create, get, list, update, patch, delete, deletecollection and watch over every kind of object.
//!
//! Owns: the table of what is served, the road of a write from bytes to the store, reads from the watch cache, optimistic
//! concurrency, graceful deletion and finalizers, views (Table rows, PartialObjectMetadata), the subresources and hooks that do
//! I/O (`special`). Does not: speak HTTP, authenticate, decide admission or rights (it asks), know a kind's rules (`kinds`
//! does).
//!
//! Invariants: generic code never compares a resource's name; what a client reads back is what is stored.
//!
//! How it fails: every refusal is a [`copepod_meta::Status`] with upstream's code, reason, message and details.

pub mod api;
mod collection;
mod object;
pub mod options;
mod registry;
pub mod served;
mod watch;

pub use api::*;
pub use registry::{Config, Deciders, IssuedToken, Registry, TokenClaims, TokenIssuer, TokenReviewer};
pub use served::{Served, Table};
