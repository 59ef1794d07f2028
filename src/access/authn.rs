//! The ordered chain of authenticators.
//!
//! Order as upstream's (pkg/kubeapiserver/authenticator/config.go): front-proxy headers, client certificate, bearer tokens
//! (token file, service accounts, bootstrap tokens), anonymous. The first that knows the credential decides; if nobody
//! knows it and one of them found it bad, the request is refused rather than taken for anonymous.

use crate::x509::{ClientCertificates, FrontProxy};
use copepod_meta::{BoxFuture, User};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Good tokens are believed this long without another look. upstream: TokenSuccessCacheTTL
const TOKEN_CACHE_TTL: Duration = Duration::from_secs(10);
/// Bounds the memory that different good tokens take; about 300 bytes each.
const TOKEN_CACHE_ENTRIES_MAX: usize = 4096;
/// How a browser passes a token with a WebSocket. upstream: request/websocket/protocol.go
const WEBSOCKET_BEARER_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Why a credential was refused; the client sees 401 and nothing of this text, the log does.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthenticationError(pub String);

/// The TLS peer of one connection. Made once a connection, so that its chain is verified once and not for each request.
#[derive(Debug, Default)]
pub struct Peer {
    /// The certificates that the peer sent, leaf first. Not yet verified.
    pub chain: Vec<CertificateDer<'static>>,
    pub(crate) verified: Mutex<Option<crate::x509::Verified>>,
    pub(crate) front_proxy: Mutex<Option<crate::x509::Verified>>,
}

impl Peer {
    /// The peer that sent `chain`.
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Peer {
        Peer { chain, ..Peer::default() }
    }
}

/// What a request offers to prove who it is.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The TLS peer, if the connection has one.
    pub peer: Option<&'a Peer>,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The request's path, for anonymous requests that only some paths allow.
    pub path: &'a str,
}

/// The result of a successful authentication.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// Who.
    pub user: Arc<User>,
    /// The audiences for which the token is good and which were asked for; empty when audiences do not apply.
    pub audiences: Vec<String>,
}

/// Knows one kind of bearer token. `Ok(None)`: not mine.
pub trait TokenAuthenticator: Send + Sync {
    /// Looks at a token; `audiences`: what the caller wants it to be good for, empty for the API server's own.
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Authenticated>, AuthenticationError>>;
}

/// Who may come without any credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// Nobody.
    Disabled,
    /// Anybody, as `system:anonymous`.
    Everywhere,
    /// Anybody, for these paths only.
    Paths(Vec<String>),
}

/// The chain.
pub struct AuthenticatorChain {
    /// `--requestheader-*`
    pub front_proxy: Option<FrontProxy>,
    /// `--client-ca-file`
    pub client_certificates: Option<Arc<ClientCertificates>>,
    /// Bearer tokens, in order.
    pub tokens: Vec<Arc<dyn TokenAuthenticator>>,
    /// `--anonymous-auth`
    pub anonymous: Anonymous,
    cache: Mutex<HashMap<[u8; 32], (Instant, Authenticated)>>,
}

impl AuthenticatorChain {
    /// A chain that knows nobody yet.
    pub fn new(anonymous: Anonymous) -> AuthenticatorChain {
        let cache = Mutex::default();
        AuthenticatorChain {
            front_proxy: None,
            client_certificates: None,
            tokens: Vec::new(),
            anonymous,
            cache,
        }
    }

    /// Who sent the request. `Ok(None)`: nobody that is known, and anonymous requests are not allowed.
    pub async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Option<Authenticated>, AuthenticationError> {
        let mut errors = Vec::new();
        if let (Some(proxy), Some(peer)) = (&self.front_proxy, credentials.peer) {
            match proxy.authenticate(peer, credentials.headers) {
                Ok(Some(user)) => return Ok(Some(known(user))),
                Ok(None) => {}
                Err(e) => errors.push(e.0),
            }
        }
        if let (Some(certificates), Some(peer)) = (&self.client_certificates, credentials.peer) {
            match certificates.authenticate(peer) {
                Ok(Some(user)) => return Ok(Some(known(user))),
                Ok(None) => {}
                Err(e) => errors.push(e.0),
            }
        }
        if !self.tokens.is_empty() {
            for offered in [Ok(bearer_token(credentials.headers)), websocket_token(credentials.headers)] {
                let token = match offered {
                    Ok(Some(token)) => token,
                    Ok(None) => continue,
                    Err(e) => {
                        errors.push(e.0);
                        continue;
                    }
                };
                match self.token(&token, &[]).await {
                    Ok(Some(found)) => return Ok(Some(found)),
                    // upstream: bearertoken.go invalidToken, so that a stale token is not taken for "nobody"
                    Ok(None) => errors.push("invalid bearer token".into()),
                    Err(e) => errors.push(e.0),
                }
            }
        }
        if !errors.is_empty() {
            return Err(AuthenticationError(errors.join(", ")));
        }
        let anonymous = match &self.anonymous {
            Anonymous::Disabled => false,
            Anonymous::Everywhere => true,
            Anonymous::Paths(paths) => paths.iter().any(|p| p == credentials.path),
        };
        Ok(anonymous.then(|| Authenticated {
            user: Arc::new(User {
                name: "system:anonymous".into(),
                groups: vec!["system:unauthenticated".into()],
                ..User::default()
            }),
            audiences: Vec::new(),
        }))
    }

    /// Who a bearer token stands for; also what TokenReview asks. Good answers are cached for ten seconds.
    pub async fn token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authenticated>, AuthenticationError> {
        let key = cache_key(token, audiences);
        if let Some((until, found)) = self.cache.lock().get(&key)
            && *until > Instant::now()
        {
            return Ok(Some(found.clone()));
        }
        let mut errors = Vec::new();
        for authenticator in &self.tokens {
            match authenticator.authenticate(token, audiences).await {
                Ok(Some(mut found)) => {
                    add_authenticated_group(&mut found.user);
                    self.remember(key, &found);
                    return Ok(Some(found));
                }
                Ok(None) => {}
                Err(e) => errors.push(e.0),
            }
        }
        if errors.is_empty() { Ok(None) } else { Err(AuthenticationError(errors.join(", "))) }
    }

    fn remember(&self, key: [u8; 32], found: &Authenticated) {
        let now = Instant::now();
        let mut cache = self.cache.lock();
        if cache.len() >= TOKEN_CACHE_ENTRIES_MAX {
            cache.retain(|_, (until, _)| *until > now);
        }
        // Still full of fresh ones: this token is looked at again next time, which is only slower.
        if cache.len() < TOKEN_CACHE_ENTRIES_MAX {
            cache.insert(key, (now + TOKEN_CACHE_TTL, found.clone()));
        }
    }
}

/// A digest, so that no token is kept in memory longer than its request.
fn cache_key(token: &str, audiences: &[String]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(token.len().to_le_bytes());
    hash.update(token);
    for audience in audiences {
        hash.update(audience.len().to_le_bytes());
        hash.update(audience);
    }
    hash.finalize().into()
}

fn known(mut user: Arc<User>) -> Authenticated {
    add_authenticated_group(&mut user);
    Authenticated { user, audiences: Vec::new() }
}

/// upstream: authentication/group/authenticated_group_adder.go
fn add_authenticated_group(user: &mut Arc<User>) {
    let group = "system:authenticated";
    if user.name != "system:anonymous" && !user.in_group(group) && !user.in_group("system:unauthenticated") {
        Arc::make_mut(user).groups.push(group.into());
    }
}

/// The token of `Authorization: Bearer`. upstream: request/bearertoken/bearertoken.go
pub fn bearer_token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_string())
}

const WEBSOCKET_PROTOCOL: HeaderName = http::header::SEC_WEBSOCKET_PROTOCOL;

fn websocket_protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(WEBSOCKET_PROTOCOL).into_iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim)
}

/// The token that a browser smuggles in as a subprotocol of its WebSocket, which cannot carry other headers.
/// upstream: request/websocket/protocol.go
fn websocket_token(headers: &HeaderMap) -> Result<Option<String>, AuthenticationError> {
    let refuse = |text: &str| Err(AuthenticationError(text.into()));
    let is_websocket =
        headers.get(http::header::UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let mut tokens = websocket_protocols(headers).filter_map(|p| p.strip_prefix(WEBSOCKET_BEARER_PREFIX));
    let Some(encoded) = tokens.next().filter(|_| is_websocket) else { return Ok(None) };
    if tokens.next().is_some() {
        return refuse("multiple base64.bearer.authorization tokens specified");
    }
    use base64::Engine as _;
    let Ok(bytes) = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded) else {
        return refuse("invalid base64.bearer.authorization token encoding");
    };
    let Ok(token) = String::from_utf8(bytes) else {
        return refuse("invalid base64.bearer.authorization token");
    };
    if token.is_empty() {
        return Ok(None);
    }
    // One has to be left to be answered with: the token itself is no answer.
    if !websocket_protocols(headers).any(|p| !p.starts_with(WEBSOCKET_BEARER_PREFIX)) {
        return refuse("missing additional subprotocol");
    }
    Ok(Some(token))
}

/// Takes credentials out of a request that has been authenticated: nobody behind may see them.
pub fn remove_credentials(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    if websocket_protocols(headers).any(|p| p.starts_with(WEBSOCKET_BEARER_PREFIX)) {
        let others: Vec<&str> =
            websocket_protocols(headers).filter(|p| !p.starts_with(WEBSOCKET_BEARER_PREFIX)).collect();
        let others = http::HeaderValue::from_str(&others.join(","));
        headers.remove(WEBSOCKET_PROTOCOL);
        // A part of a header's value is a header's value.
        if let Ok(others) = others {
            headers.insert(WEBSOCKET_PROTOCOL, others);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(&'static str);
    impl TokenAuthenticator for Fixed {
        fn authenticate<'a>(
            &'a self,
            token: &'a str,
            _audiences: &'a [String],
        ) -> BoxFuture<'a, Result<Option<Authenticated>, AuthenticationError>> {
            Box::pin(async move {
                match token {
                    "broken" => Err(AuthenticationError("broken".into())),
                    t if t == self.0 => {
                        let user = Arc::new(User { name: "bob".into(), ..User::default() });
                        Ok(Some(Authenticated { user, audiences: Vec::new() }))
                    }
                    _ => Ok(None),
                }
            })
        }
    }

    /// What each kind of Authorization header becomes.
    #[tokio::test]
    async fn a_bad_credential_is_never_anonymous() {
        let mut chain = AuthenticatorChain::new(Anonymous::Everywhere);
        chain.tokens.push(Arc::new(Fixed("good")));
        for (header, want) in [
            (None, "system:anonymous in system:unauthenticated"),
            (Some("Bearer good"), "bob in system:authenticated"),
            (Some("bearer  good"), "bob in system:authenticated"),
            (Some("Bearer bad"), "error: invalid bearer token"),
            (Some("Bearer broken"), "error: broken"),
            (Some("Basic eDp5"), "system:anonymous in system:unauthenticated"),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(h) = header {
                headers.insert(AUTHORIZATION, h.parse().expect("a header value"));
            }
            let got = match chain.authenticate(Credentials { peer: None, headers: &headers, path: "/" }).await
            {
                Ok(Some(a)) => format!("{} in {}", a.user.name, a.user.groups.join(",")),
                Ok(None) => "nobody".into(),
                Err(e) => format!("error: {e}"),
            };
            assert_eq!(got, want, "{header:?}");
        }
    }
}
