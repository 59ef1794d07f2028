//! Admission: what may change or refuse a write after it was authorized and before it is stored.
//!
//! One file a plugin; [`PLUGINS`] is the one ordered list, in upstream's order of calling. Plugins see trees in the kind's
//! hub version, read through [`Lister`] and write (quota usage) through [`Writer`]; they know no store and no registry.
//!
//! `admit` of all plugins runs first, in order, then `validate` of all, in order; resource quota comes last because it
//! charges.
//!
//! Not here yet: the other plugins that upstream enables by default (PodSecurity, StorageObjectInUseProtection,
//! DefaultStorageClass, DefaultIngressClass, PersistentVolumeClaimResize, certificate plugins, webhooks,
//! admission policies). Naming one in `--enable-admission-plugins` is refused by name.

mod chain;
mod default_toleration_seconds;
mod helpers;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod quota;
mod resource_quota;
mod runtime_class;
mod service_account;
mod taint_nodes;

pub use chain::{AdmissionChain, AdmissionError, Config, PLUGINS};
pub use quota::{ResourceList, pod_limits, pod_requests};

#[cfg(test)]
mod testing;
