//! admissionregistration: whom to ask before objects are stored.

pub(crate) mod webhook_client;
pub(crate) mod webhook_configuration;
