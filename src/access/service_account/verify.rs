//! Verifying service account tokens.

use super::claims::{Claims, Kubernetes, Reference};
use super::keys::PublicKeys;
use super::{groups, user_name};
use crate::authn::{Authenticated, AuthenticationError, TokenAuthenticator};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use copepod_meta::{BoxFuture, GroupResource, Lister, User, Value, time};
use jsonwebtoken::Validation;
use std::sync::Arc;

/// The issuer of tokens that are kept in Secrets.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// Clocks may differ by this many seconds; also how long a deleted object still counts. upstream: jwt.DefaultLeeway
const LEEWAY_SECONDS: i64 = 60;
const INVALID_SINCE_LABEL: &str = "kubernetes.io/legacy-token-invalid-since";

/// Verifies tokens of the given issuers.
pub struct ServiceAccountTokens {
    /// `--service-account-issuer`, all of them.
    pub issuers: Vec<String>,
    /// What the API server itself is called; tokens without audiences are for it.
    pub api_audiences: Vec<String>,
    /// Keys that tokens may be signed with.
    pub keys: PublicKeys,
    /// Where accounts, pods, secrets and nodes are read.
    pub lister: Arc<dyn Lister>,
    /// `--service-account-lookup`: legacy tokens are checked against their Secret.
    pub lookup: bool,
}

fn refused(text: impl Into<String>) -> AuthenticationError {
    AuthenticationError(text.into())
}

impl ServiceAccountTokens {
    /// The token's claims if it is one of ours by issuer. Not yet verified.
    fn issuer(&self, token: &str) -> Option<String> {
        let mut parts = token.split('.');
        let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        #[derive(serde::Deserialize)]
        struct OnlyIssuer {
            iss: String,
        }
        let bytes = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let issuer = serde_json::from_slice::<OnlyIssuer>(&bytes).ok()?.iss;
        (issuer == LEGACY_ISSUER || self.issuers.contains(&issuer)).then_some(issuer)
    }

    fn verified(&self, token: &str) -> Result<Claims, AuthenticationError> {
        let header = jsonwebtoken::decode_header(token).map_err(|e| refused(e.to_string()))?;
        let kid = header.kid.as_deref().unwrap_or("");
        let mut errors = Vec::new();
        for key in self.keys.candidates(kid).filter(|k| k.algorithm == header.alg) {
            // Times and audiences are checked below with upstream's rules.
            let mut validation = Validation::new(key.algorithm);
            validation.validate_exp = false;
            validation.validate_nbf = false;
            validation.validate_aud = false;
            validation.required_spec_claims.clear();
            match jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(e) => errors.push(e.to_string()),
            }
        }
        Err(refused(if errors.is_empty() {
            "invalid signature, no keys found".into()
        } else {
            errors.join(", ")
        }))
    }

    fn audiences(&self, claims: &Claims, asked: &[String]) -> Result<Vec<String>, AuthenticationError> {
        let own = if claims.aud.is_empty() { &self.api_audiences } else { &claims.aud };
        let wanted = if asked.is_empty() { &self.api_audiences } else { asked };
        let both: Vec<String> = own.iter().filter(|a| wanted.contains(a)).cloned().collect();
        if both.is_empty() && !self.api_audiences.is_empty() {
            let message = format!("token audiences {own:?} is invalid for the target audiences {wanted:?}");
            return Err(refused(message));
        }
        Ok(both)
    }

    async fn object(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Value>, AuthenticationError> {
        let resource = GroupResource::new("", resource);
        let mut found = self.lister.get(&resource, namespace, name).await.map_err(|e| refused(e.message))?;
        if found.is_none() {
            // The cache may not have seen an object that its own token names already.
            found = self
                .lister
                .get_consistent(&resource, namespace, name)
                .await
                .map_err(|e| refused(e.message))?;
        }
        found.map(|o| o.object).ok_or_else(|| refused(format!("{resource} {name:?} not found")))
    }

    /// The object a token is bound to, alive and the same one.
    async fn bound(
        &self,
        resource: &str,
        shown: &str,
        namespace: &str,
        reference: &Reference,
    ) -> Result<(), AuthenticationError> {
        let invalidated = || refused("service account token has been invalidated");
        let object = self.object(resource, namespace, &reference.name).await.map_err(|_| invalidated())?;
        let uid = object.str_at(&["metadata", "uid"]);
        if uid != reference.uid {
            let claim = &reference.uid;
            return Err(refused(format!(
                "{shown} UID ({uid}) does not match service account {shown} ref claim ({claim})"
            )));
        }
        if long_deleted(&object) { Err(invalidated()) } else { Ok(()) }
    }

    async fn check_bound(&self, private: &Kubernetes, jti: &str) -> Result<User, AuthenticationError> {
        let (namespace, account) = (private.namespace.as_str(), &private.serviceaccount);
        let object = self.object("serviceaccounts", namespace, &account.name).await?;
        let uid = object.str_at(&["metadata", "uid"]);
        if uid != account.uid {
            return Err(refused(format!(
                "service account UID ({uid}) does not match claim ({})",
                account.uid
            )));
        }
        if long_deleted(&object) {
            return Err(refused(format!("service account {namespace}/{} has been deleted", account.name)));
        }
        if let Some(secret) = &private.secret {
            self.bound("secrets", "secret", namespace, secret).await?;
        }
        if let Some(pod) = &private.pod {
            self.bound("pods", "pod", namespace, pod).await?;
        } else if let Some(node) = &private.node {
            self.bound("nodes", "node", "", node).await?;
        }
        let mut user = account_user(namespace, &account.name, &account.uid);
        let mut extra = |key: &str, value: &str| {
            if !value.is_empty() {
                user.extra.push((format!("authentication.kubernetes.io/{key}"), vec![value.into()]));
            }
        };
        if !jti.is_empty() {
            extra("credential-id", &format!("JTI={jti}"));
        }
        if let Some(node) = &private.node {
            extra("node-name", &node.name);
            extra("node-uid", &node.uid);
        }
        if let Some(pod) = &private.pod {
            extra("pod-name", &pod.name);
            extra("pod-uid", &pod.uid);
        }
        Ok(user)
    }

    /// upstream: legacy.go Validate
    async fn check_legacy(&self, token: &str, claims: &Claims) -> Result<User, AuthenticationError> {
        let (namespace, name) = (claims.legacy_namespace.as_str(), claims.legacy_name.as_str());
        for (value, claim) in [
            (claims.sub.as_str(), "sub"),
            (namespace, "namespace"),
            (&claims.legacy_secret, "secretName"),
            (name, "serviceAccountName"),
            (&claims.legacy_uid, "serviceAccountUID"),
        ] {
            if value.is_empty() {
                return Err(refused(format!("{claim} claim is missing")));
            }
        }
        if claims.sub != user_name(namespace, name) {
            return Err(refused("sub claim is invalid"));
        }
        if self.lookup {
            self.look_up_legacy(token, claims).await?;
        }
        Ok(account_user(namespace, name, &claims.legacy_uid))
    }

    async fn look_up_legacy(&self, token: &str, claims: &Claims) -> Result<(), AuthenticationError> {
        let (namespace, name) = (claims.legacy_namespace.as_str(), claims.legacy_name.as_str());
        let gone = || refused("Token has been invalidated");
        let secret = self.object("secrets", namespace, &claims.legacy_secret).await.map_err(|_| gone())?;
        if !secret.at(&["metadata", "deletionTimestamp"]).is_null() {
            return Err(gone());
        }
        let same = match secret.at(&["data", "token"]) {
            Value::Bytes(kept) => {
                aws_lc_rs::constant_time::verify_slices_are_equal(kept, token.as_bytes()).is_ok()
            }
            _ => false,
        };
        if !same {
            return Err(refused("Token does not match server's copy"));
        }
        let account = self.object("serviceaccounts", namespace, name).await?;
        if !account.at(&["metadata", "deletionTimestamp"]).is_null() {
            return Err(refused(format!("ServiceAccount {namespace}/{name} has been deleted")));
        }
        let uid = account.str_at(&["metadata", "uid"]);
        if uid != claims.legacy_uid {
            return Err(refused(format!(
                "ServiceAccount UID ({uid}) does not match claim ({})",
                claims.legacy_uid
            )));
        }
        if !secret.str_at(&["metadata", "labels", INVALID_SINCE_LABEL]).is_empty() {
            let secret = &claims.legacy_secret;
            return Err(refused(format!(
                "the token in secret {namespace}/{secret} for service account {namespace}/{name} has been marked invalid. \
                 Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the \
                 '{INVALID_SINCE_LABEL}' label from the secret to temporarily allow use of this token"
            )));
        }
        Ok(())
    }
}

fn account_user(namespace: &str, name: &str, uid: &str) -> User {
    User { name: user_name(namespace, name), uid: uid.into(), groups: groups(namespace), extra: Vec::new() }
}

/// Deleted longer ago than the leeway.
fn long_deleted(object: &Value) -> bool {
    let deleted = object.at(&["metadata", "deletionTimestamp"]).as_str().and_then(time::parse);
    deleted.is_some_and(|d| time::seconds_between(d, time::now()) > LEEWAY_SECONDS)
}

/// upstream: go-jose jwt.Claims.Validate with the default leeway
fn check_times(claims: &Claims) -> Result<(), AuthenticationError> {
    let now = time::now().as_second();
    if claims.nbf.is_some_and(|t| now + LEEWAY_SECONDS < t) {
        return Err(refused("service account token is not valid yet"));
    }
    if claims.exp.is_some_and(|t| now - LEEWAY_SECONDS > t) {
        return Err(refused("service account token has expired"));
    }
    if claims.iat.is_some_and(|t| now + LEEWAY_SECONDS < t) {
        return Err(refused("service account token is issued in the future"));
    }
    Ok(())
}

impl TokenAuthenticator for ServiceAccountTokens {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Authenticated>, AuthenticationError>> {
        Box::pin(async move {
            let Some(issuer) = self.issuer(token) else { return Ok(None) };
            let claims = self.verified(token)?;
            // Parsed once before the signature was known to be good.
            if claims.iss != issuer {
                return Err(refused(format!("token issuer {:?} is invalid", claims.iss)));
            }
            let audiences = self.audiences(&claims, audiences)?;
            let user = if issuer == LEGACY_ISSUER {
                self.check_legacy(token, &claims).await?
            } else {
                check_times(&claims)?;
                let Some(private) = &claims.kubernetes else {
                    return Err(refused("service account token has no kubernetes.io claim"));
                };
                self.check_bound(private, &claims.jti).await?
            };
            Ok(Some(Authenticated { user: Arc::new(user), audiences }))
        })
    }
}
