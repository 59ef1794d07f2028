//! admissionregistration: whom to ask before objects are stored.

pub(crate) mod policy;
pub(crate) mod policy_binding;
mod rules;
pub(crate) mod webhook_client;
pub(crate) mod webhook_configuration;
