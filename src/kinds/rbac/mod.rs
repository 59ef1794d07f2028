//! rbac.authorization.k8s.io: roles and bindings. Whether the writer holds what he grants is asked by the registry, which
//! has the authorizer.
//!
//! upstream: pkg/apis/rbac/validation, pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/strategy.go

pub mod binding;
pub mod role;

pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";
