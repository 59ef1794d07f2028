//! The core group.

pub(crate) mod config_map;
pub(crate) mod ip;
pub(crate) mod node_labels;
pub(crate) mod persistent_volume_claim;
pub(crate) mod pod;
pub(crate) mod resources;
