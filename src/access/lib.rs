//! Who asks (authenticators) and whether they may (authorizers). Deny by default.
//!
//! Reads objects through [`copepod_meta::Lister`] only; knows no store and no registry, opens no sockets.
//!
//! | module | what |
//! |---|---|
//! | [`authn`] | the ordered chain of authenticators over one request's credentials |
//! | [`x509`] | client certificates, front-proxy headers |
//! | [`token_file`] | `--token-auth-file` |
//! | [`bootstrap_token`] | `<id>.<secret>` tokens kept as Secrets in kube-system |
//! | [`service_account`] | signing and verifying service account tokens |
//! | [`authz`] | the ordered chain of authorizers, `--authorization-mode` |
//! | [`rbac`] | roles and bindings; what a user's rules are; escalation checks |
//! | [`node`] | what a kubelet may touch |
//!
//! Invariants: a bad credential is an error (401), never anonymous; a decision that cannot be made is not an allowance; a
//! token is compared in constant time and never logged.

pub mod authn;
pub mod authz;
pub mod bootstrap_token;
pub mod node;
pub mod rbac;
pub mod service_account;
pub mod token_file;
pub mod x509;

pub use authn::{
    Authenticated, AuthenticationError, AuthenticatorChain, Credentials, Peer, TokenAuthenticator,
};
pub use authz::AuthorizerChain;
