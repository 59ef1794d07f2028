//! Service account tokens: keys, signing, verifying.
//!
//! A token names its service account and may be bound to a pod, a secret or a node; verifying it looks all of them up, so
//! that a deleted one ends the token at once.
//!
//! upstream: pkg/serviceaccount/{jwt,claims,legacy}.go

mod claims;
mod keys;
mod verify;

pub use claims::{Bound, Claims, Reference};
pub use keys::{KeyError, PublicKeys, SigningKey};
pub use verify::ServiceAccountTokens;

use jsonwebtoken::Header;

/// Signs tokens for one issuer.
pub struct Issuer {
    /// `--service-account-issuer`, the first one.
    pub url: String,
    /// `--service-account-signing-key-file`
    pub key: SigningKey,
}

/// A token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("failed to sign the token")]
pub struct SignError(#[source] jsonwebtoken::errors::Error);

impl Issuer {
    /// A signed token with these claims; the issuer is filled in.
    pub fn sign(&self, mut claims: Claims) -> Result<String, SignError> {
        claims.iss = self.url.clone();
        let mut header = Header::new(self.key.algorithm());
        // Upstream's tokens carry no `typ`.
        header.typ = None;
        header.kid = Some(self.key.id().into());
        jsonwebtoken::encode(&header, &claims, self.key.encoding()).map_err(SignError)
    }
}

/// The user name of a service account.
pub fn user_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// The groups of a service account.
pub fn groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]
}

#[cfg(test)]
mod tests;
