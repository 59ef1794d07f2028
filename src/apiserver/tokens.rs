//! Service account tokens: the registry's questions put to `copepod-access`.

use std::sync::Arc;

use copepod_access::AuthenticatorChain;
use copepod_access::rbac::{Rbac, Rule, uncovered};
use copepod_access::service_account::{Bound, Claims, Issuer, Reference};
use copepod_meta::{BoxFuture, Status, User, Value, time};
use copepod_registry::{IssuedToken, RuleResolver, TokenClaims, TokenIssuer, TokenReviewer};

/// A pod that asks for this life gets a token that lives a year and is reported when used after this time.
/// upstream: pkg/serviceaccount/claims.go WarnOnlyBoundTokenExpirationPeriod
const WARN_SECONDS: i64 = 60 * 60 + 7;
/// upstream: ExpirationExtensionSeconds
const EXTENDED_SECONDS: i64 = 24 * 365 * 60 * 60;

/// Signs tokens.
pub struct Signer {
    /// Key and name.
    pub issuer: Issuer,
    /// What this server is called.
    pub audiences: Vec<String>,
    /// `--service-account-extend-token-expiration`
    pub extend: bool,
    /// `--service-account-max-token-expiration` in seconds, 0: no limit.
    pub expiration_seconds_max: i64,
}

impl TokenIssuer for Signer {
    fn issue<'a>(&'a self, claims: TokenClaims<'a>) -> BoxFuture<'a, Result<IssuedToken, Status>> {
        Box::pin(std::future::ready(self.sign(&claims)))
    }
}

fn reference(object: &Value) -> Reference {
    let metadata = object.get("metadata");
    Reference { name: metadata.str_at(&["name"]).into(), uid: metadata.str_at(&["uid"]).into() }
}

impl Signer {
    /// upstream: pkg/registry/core/serviceaccount/storage/token.go Create
    fn sign(&self, asked: &TokenClaims<'_>) -> Result<IssuedToken, Status> {
        let mut bound = Bound::default();
        match asked.bound {
            Some(("Pod", pod)) => {
                bound.pod = Some(reference(pod));
                bound.node = asked.node.map(reference);
            }
            Some(("Secret", secret)) => bound.secret = Some(reference(secret)),
            Some(("Node", node)) => bound.node = Some(reference(node)),
            Some((kind, _)) => return Err(Status::internal(format!("cannot bind a token to a {kind}"))),
            None => {}
        }
        let audiences =
            if asked.audiences.is_empty() { self.audiences.clone() } else { asked.audiences.to_vec() };
        let mut reported = asked.expiration_seconds;
        if self.expiration_seconds_max > 0 {
            reported = reported.min(self.expiration_seconds_max);
        }
        let for_us = audiences.iter().all(|a| self.audiences.contains(a));
        let extended =
            self.extend && bound.pod.is_some() && asked.expiration_seconds == WARN_SECONDS && for_us;
        let (life, warn) = if extended { (EXTENDED_SECONDS, WARN_SECONDS) } else { (reported, 0) };
        let account = asked.service_account;
        let namespace = account.str_at(&["metadata", "namespace"]);
        let now = time::now();
        let claims = Claims::new(namespace, reference(account), bound, audiences.clone(), life, warn, now);
        let token = self.issuer.sign(claims).map_err(Status::internal)?;
        Ok(IssuedToken { token, expires_unix_seconds: now.as_second() + reported, audiences })
    }
}

/// Reviews tokens.
pub struct Reviewer(pub Arc<AuthenticatorChain>);

impl TokenReviewer for Reviewer {
    fn review<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<(User, Vec<String>)>, Status>> {
        Box::pin(async move {
            match self.0.token(token, audiences).await {
                Ok(found) => Ok(found.map(|f| ((*f.user).clone(), f.audiences))),
                // A bad token is an answer, not a failure; upstream tells the reviewer why.
                Err(error) => {
                    tracing::debug!(%error, "a reviewed token is bad");
                    Ok(None)
                }
            }
        })
    }
}

/// Which rules a user holds.
pub struct Rules(pub Rbac);

impl RuleResolver for Rules {
    fn missing<'a>(
        &'a self,
        user: &'a User,
        namespace: &'a str,
        wanted: &'a [Value],
    ) -> BoxFuture<'a, Result<Vec<String>, Status>> {
        Box::pin(async move {
            let (owned, _) = self.0.rules(user, namespace).await?;
            let wanted: Vec<Rule> = wanted.iter().map(Rule::from_value).collect();
            let mut missing: Vec<String> = uncovered(&owned, &wanted).iter().map(Rule::compact).collect();
            missing.sort();
            Ok(missing)
        })
    }
}
