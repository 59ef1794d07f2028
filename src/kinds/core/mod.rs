//! The core group.

pub(crate) mod config_map;
