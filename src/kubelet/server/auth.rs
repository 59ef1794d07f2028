//! Who asks, and whether they may.
//!
//! Verdicts of the API server are kept for a short while, as upstream keeps them: reviewed tokens and permissions.
//!
//! upstream: kubelet/server/auth.go, apiserver/pkg/authentication/token/cache, authorizer webhook caches

use std::collections::HashMap;
use std::time::{Duration, Instant};

use copepod_client::rest;
use copepod_serve::{ConnectionInfo, tls::ClientCa};
use http::{Method, Request, Response, StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use parking_lot::Mutex;
use rustls_pki_types::UnixTime;

use super::{Body, text};
use crate::{context::Context, text::go_list};

const TOKEN_REVIEWS: rest::ResourceType =
    rest::ResourceType::cluster("authentication.k8s.io", "v1", "tokenreviews");
const ACCESS_REVIEWS: rest::ResourceType =
    rest::ResourceType::cluster("authorization.k8s.io", "v1", "subjectaccessreviews");

/// upstream: KubeletConfiguration authentication.webhook.cacheTTL
const TOKEN_TTL: Duration = Duration::from_secs(120);
/// upstream: KubeletConfiguration authorization.webhook.cacheAuthorizedTTL
const ALLOWED_TTL: Duration = Duration::from_secs(300);
/// upstream: KubeletConfiguration authorization.webhook.cacheUnauthorizedTTL
const DENIED_TTL: Duration = Duration::from_secs(30);
/// Verdicts kept; beyond it the cache is emptied, which only costs questions.
const CACHE_MAX: usize = 1000;

/// Somebody.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct User {
    name: String,
    uid: String,
    groups: Vec<String>,
}

struct Cache<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K: std::hash::Hash + Eq, V: Clone> Cache<K, V> {
    fn new() -> Self {
        Cache(Mutex::new(HashMap::new()))
    }

    fn get(&self, key: &K) -> Option<V> {
        self.0.lock().get(key).filter(|(until, _)| Instant::now() < *until).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V, life: Duration) {
        let mut map = self.0.lock();
        if map.len() >= CACHE_MAX {
            map.clear();
        }
        map.insert(key, (Instant::now() + life, value));
    }
}

/// Authenticates and authorizes.
pub struct Authenticator {
    client_ca: Option<ClientCa>,
    tokens: Cache<String, User>,
    verdicts: Cache<(User, String, String), bool>,
}

impl Authenticator {
    /// `client_ca`: authorities of client certificates, if certificates are taken at all.
    pub fn new(client_ca: Option<ClientCa>) -> Self {
        Authenticator { client_ca, tokens: Cache::new(), verdicts: Cache::new() }
    }

    /// Lets a request in, or makes the answer that refuses it.
    pub async fn admit<B>(
        &self,
        context: &Context,
        connection: Option<&ConnectionInfo>,
        request: &Request<B>,
    ) -> Result<(), Box<Response<Body>>> {
        let Some(user) = self.who(context, connection, request).await else {
            return Err(Box::new(text(StatusCode::UNAUTHORIZED, "Unauthorized")));
        };
        let (verb, subresources) = attributes(request.method(), request.uri().path());
        for subresource in &subresources {
            match self.allowed(context, &user, verb, subresource).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    let message = format!(
                        "Authorization error (user={}, verb={verb}, resource=nodes, subresource(s)={}): {error}",
                        user.name,
                        go_list(&subresources)
                    );
                    return Err(Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, message)));
                }
            }
        }
        let message = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)={})\n",
            user.name,
            go_list(&subresources)
        );
        Err(Box::new(text(StatusCode::FORBIDDEN, message)))
    }

    async fn who<B>(
        &self,
        context: &Context,
        connection: Option<&ConnectionInfo>,
        request: &Request<B>,
    ) -> Option<User> {
        if let (Some(ca), Some(connection)) = (&self.client_ca, connection)
            && !connection.peer_certificates.is_empty()
        {
            match ca.verify(&connection.peer_certificates, UnixTime::now()) {
                Ok(()) => return certificate_user(&connection.peer_certificates[0]),
                Err(error) => tracing::info!(%error, peer = %connection.peer, "client certificate"),
            }
        }
        let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        self.token_user(context, token.trim()).await
    }

    async fn token_user(&self, context: &Context, token: &str) -> Option<User> {
        let token = token.to_owned();
        if let Some(user) = self.tokens.get(&token) {
            return Some(user);
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.clone(), audiences: None },
            ..TokenReview::default()
        };
        let answer = match rest::create::<TokenReview>(&context.client, &TOKEN_REVIEWS, "", &review).await {
            Ok(answer) => answer.status.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(error = rest::message(&error), "token review");
                return None;
            }
        };
        if answer.authenticated != Some(true) {
            return None;
        }
        let info = answer.user.unwrap_or_default();
        let user = User {
            name: info.username.unwrap_or_default(),
            uid: info.uid.unwrap_or_default(),
            groups: info.groups.unwrap_or_default(),
        };
        self.tokens.put(token, user.clone(), TOKEN_TTL);
        Some(user)
    }

    async fn allowed(
        &self,
        context: &Context,
        user: &User,
        verb: &str,
        subresource: &str,
    ) -> Result<bool, String> {
        let key = (user.clone(), verb.to_owned(), subresource.to_owned());
        if let Some(verdict) = self.verdicts.get(&key) {
            return Ok(verdict);
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: (!user.uid.is_empty()).then(|| user.uid.clone()),
                groups: Some(user.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(context.config.node_name.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = rest::create::<SubjectAccessReview>(&context.client, &ACCESS_REVIEWS, "", &review)
            .await
            .map_err(|error| rest::message(&error))?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        self.verdicts.put(key, allowed, if allowed { ALLOWED_TTL } else { DENIED_TTL });
        Ok(allowed)
    }
}

/// Common name and organizations of a certificate.
fn certificate_user(certificate: &[u8]) -> Option<User> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|group| group.as_str().ok().map(str::to_owned)).collect();
    groups.push("system:authenticated".into());
    Some(User { name, uid: String::new(), groups })
}

/// Verb and subresources of `nodes` by which a request is judged; any one suffices.
// upstream: kubelet/server/auth.go GetRequestAttributes
fn attributes(method: &Method, path: &str) -> (&'static str, Vec<&'static str>) {
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let below =
        |base: &str| path == base || path.strip_prefix(base).is_some_and(|rest| rest.starts_with('/'));
    let mut subresources = Vec::new();
    if below("/pods") || below("/runningpods") {
        subresources.push("pods");
    } else if below("/healthz") {
        subresources.push("healthz");
    } else if below("/configz") {
        subresources.push("configz");
    }
    subresources.push(if below("/stats") {
        "stats"
    } else if below("/metrics") {
        "metrics"
    } else if below("/logs") {
        "log"
    } else if below("/checkpoint") {
        "checkpoint"
    } else {
        "proxy"
    });
    (verb, subresources)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of upstream's auth_test.go.
    #[test]
    fn requests_are_judged_as_upstreams() {
        for (method, path, verb, subresources) in [
            (Method::GET, "/pods", "get", "pods proxy"),
            (Method::GET, "/healthz/ping", "get", "healthz proxy"),
            (Method::GET, "/stats/summary", "get", "stats"),
            (Method::GET, "/metrics/cadvisor", "get", "metrics"),
            (Method::GET, "/containerLogs/a/b/c", "get", "proxy"),
            (Method::POST, "/exec/a/b/c", "create", "proxy"),
            (Method::GET, "/podsx", "get", "proxy"),
            (Method::GET, "/configz", "get", "configz proxy"),
        ] {
            let (got_verb, got) = attributes(&method, path);
            assert_eq!((got_verb, got.join(" ").as_str()), (verb, subresources), "{path}");
        }
    }
}
