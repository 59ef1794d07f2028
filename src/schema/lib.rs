//! The type graph: what every kind of object looks like, as data.
//!
//! Owns: the model ([`types`]), the built-in types and resources packed from `api/` at build time
//! ([`Universe::builtin`], [`resources`], [`groups`], [`feature_gates`]), and the way from a custom
//! resource's OpenAPI schema to the same model. Does not: decode, default, merge or validate objects (the
//! floors above do, guided by these facts).
//!
//! Nothing here fails at run time on the built-in facts: they are checked when they are packed.

pub mod crd;
pub mod openapi;
mod packed;
pub mod resources;
#[cfg(test)]
mod tests;
pub mod types;
mod universe;

pub use packed::{feature_gates, groups, resource, resources};
pub use resources::{FeatureGate, Group, Media, Resource, ServedVersion, Stage, Storage, Subresource};
pub use types::{
    Field, ListKind, ListType, MapType, Name, NameIndex, Omit, PatchStrategy, ProtoEntry, ProtoMember,
    ProtoTag, Scalar, Special, StructType, Type, TypeId, Wire,
};
pub use universe::Universe;
