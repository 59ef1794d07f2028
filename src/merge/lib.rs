//! One object out of two: unconditional defaults, pruning, and the patches of the API, as pure functions on
//! trees.
//!
//! | module | what | works on |
//! |---|---|---|
//! | [`defaults`] | what defaulting always gives | objects (trees as `copepod-codec` decodes them) |
//! | [`prune`] | fields that a custom resource's schema does not have | objects |
//! | [`json_patch`] | RFC 6902, as upstream's library reads it | plain JSON trees |
//! | [`merge_patch`] | RFC 7386 | plain JSON trees |
//! | [`strategic`] | strategic merge patch | plain JSON trees under a type |
//! | [`apply`] | server-side apply, `managedFields` | plain JSON trees under a type |
//! | [`go_format`] | values as Go's `%v` prints them in messages | anything |
//!
//! A plain JSON tree is what `copepod_codec::to_untyped` makes of an object, `from_untyped` is the way back.
//! Nothing here does I/O, knows a kind by name, or panics on input; how a failure ends is said by each
//! module's error.

pub mod apply;
pub mod defaults;
pub mod go_format;
pub mod json_patch;
pub mod merge_patch;
pub mod prune;
pub mod strategic;

#[cfg(test)]
mod bench_tests;
#[cfg(test)]
mod corpus_tests;
#[cfg(test)]
mod custom_tests;
#[cfg(test)]
mod tests;
