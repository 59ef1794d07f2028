//! Containers: from their definition to the runtime's configuration, their images, hooks and logs.

pub mod config;
pub mod dns;
pub mod downward;
pub mod env;
pub mod expand;
pub mod hash;
pub mod hook;
pub mod image;
pub mod labels;
pub mod log;
pub mod log_rotate;
pub mod mounts;
pub mod resources;
pub mod sandbox;
pub mod security;
