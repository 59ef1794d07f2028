//! The core group.

pub(crate) mod config_map;
pub(crate) mod endpoints;
pub(crate) mod event;
pub(crate) mod ip;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod node_labels;
pub(crate) mod persistent_volume_claim;
pub(crate) mod pod;
pub(crate) mod resources;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod service_account;
pub(crate) mod service_ips;
