//! apiextensions: kinds that users define.

pub(crate) mod custom_resource_definition;
