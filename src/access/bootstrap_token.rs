//! Bootstrap tokens: `<id>.<secret>`, kept as Secrets `bootstrap-token-<id>` in kube-system.
//!
//! upstream: plugin/pkg/auth/authenticator/token/bootstrap/bootstrap.go

use crate::authn::{Authenticated, AuthenticationError, TokenAuthenticator};
use copepod_meta::{BoxFuture, GroupResource, Lister, Timestamp, User, Value, time};
use std::sync::Arc;

const NAMESPACE: &str = "kube-system";
const DEFAULT_GROUP: &str = "system:bootstrappers";

/// Looks tokens up through the lister.
pub struct BootstrapTokens {
    /// Where Secrets are read.
    pub lister: Arc<dyn Lister>,
}

/// `[a-z0-9]{6}.[a-z0-9]{16}`, cut in two.
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let ok = |s: &str, n| s.len() == n && s.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    (ok(id, 6) && ok(secret, 16)).then_some((id, secret))
}

/// Who the token in `secret` stands for; `None` when it does not match, is expired or not for authentication.
fn check(secret: &Value, id: &str, token_secret: &str, now: Timestamp) -> Option<User> {
    let data = |key: &str| match secret.at(&["data", key]) {
        Value::Bytes(b) => String::from_utf8_lossy(b).into_owned(),
        _ => String::new(),
    };
    let same = aws_lc_rs::constant_time::verify_slices_are_equal(
        data("token-secret").as_bytes(),
        token_secret.as_bytes(),
    );
    let alive = secret.at(&["metadata", "deletionTimestamp"]).is_null()
        && secret.str_at(&["type"]) == "bootstrap.kubernetes.io/token";
    let expiration = data("expiration");
    // A time that does not parse counts as expired, as upstream's.
    let fresh = expiration.is_empty() || time::parse(&expiration).is_some_and(|t| t > now);
    if !alive
        || same.is_err()
        || data("token-id") != id
        || !fresh
        || data("usage-bootstrap-authentication") != "true"
    {
        return None;
    }
    let mut groups = vec![DEFAULT_GROUP.to_string()];
    for group in data("auth-extra-groups").split(',').filter(|g| !g.is_empty()) {
        let rest = group.strip_prefix("system:bootstrappers:")?;
        let ok = !rest.is_empty()
            && rest.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b':' | b'-'))
            && !rest.ends_with([':', '-']);
        if !ok {
            return None;
        }
        groups.push(group.to_string());
    }
    groups.sort();
    groups.dedup();
    Some(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
}

impl TokenAuthenticator for BootstrapTokens {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
        _audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Authenticated>, AuthenticationError>> {
        Box::pin(async move {
            let Some((id, token_secret)) = parse(token) else { return Ok(None) };
            let secrets = GroupResource::new("", "secrets");
            let name = format!("bootstrap-token-{id}");
            let found = self.lister.get(&secrets, NAMESPACE, &name).await;
            let Some(secret) = found.map_err(|e| AuthenticationError(e.message))? else { return Ok(None) };
            let user = check(&secret.object, id, token_secret, time::now());
            Ok(user.map(|u| Authenticated { user: Arc::new(u), audiences: Vec::new() }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use copepod_meta::{Bytes, Map};

    fn secret(entries: &[(&str, &str)]) -> Value {
        let data: Map =
            entries.iter().map(|(k, v)| (*k, Value::Bytes(Bytes::copy_from_slice(v.as_bytes())))).collect();
        let mut out = Value::map();
        out.set(&["type"], "bootstrap.kubernetes.io/token");
        out.set(&["data"], data);
        out
    }

    #[test]
    fn each_condition_counts() {
        let good =
            [("token-id", "abcdef"), ("token-secret", "s"), ("usage-bootstrap-authentication", "true")];
        let with = |k: &'static str, v: &'static str| [good.as_slice(), &[(k, v)]].concat();
        for (name, entries, want) in [
            ("good", good.to_vec(), Some("system:bootstrappers")),
            ("no usage", good[..2].to_vec(), None),
            ("wrong secret", with("token-secret", "x"), None),
            ("expired", with("expiration", "2001-01-01T00:00:00Z"), None),
            ("fresh", with("expiration", "2999-01-01T00:00:00Z"), Some("system:bootstrappers")),
            ("bad time", with("expiration", "soon"), None),
            (
                "groups",
                with("auth-extra-groups", "system:bootstrappers:a"),
                Some("system:bootstrappers,system:bootstrappers:a"),
            ),
            ("bad group", with("auth-extra-groups", "system:masters"), None),
        ] {
            let got = check(&secret(&entries), "abcdef", "s", time::now()).map(|u| u.groups.join(","));
            assert_eq!(got.as_deref(), want, "{name}");
        }
        assert!(parse("abcdef.0123456789abcdef").is_some());
        assert!(parse("ABCDEF.0123456789abcdef").is_none());
    }
}
