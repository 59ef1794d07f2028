//! Clients that act as service accounts: one for each controller, with tokens that are renewed before they expire.
//!
//! A token is asked for (TokenRequest) with the program's own credentials; an account that is missing is made. All clients
//! share one connection, because tokens travel in headers.
//!
//! Invariants: no request leaves with a token that is past four fifths of its life; a token that the server refuses is
//! not used again.
//!
//! When it breaks: a request without a token fails as if the server were away, and its caller tries again.
//!
//! upstream: controller-manager/pkg/clientbuilder/client_builder_dynamic.go

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use kube::client::{Body, ConfigExt as _};
use kube::{Client, Config};
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service, ServiceBuilder};

use super::{ConnectError, SERVER_RETRIES_MAX, ServerAskedRetry, Transport};
use crate::rest::{self, ResourceType};

/// Namespace of the accounts.
const NAMESPACE: &str = "kube-system";
const SERVICE_ACCOUNTS: ResourceType = ResourceType::namespaced("", "v1", "serviceaccounts");
/// What is asked for. upstream: client_builder_dynamic.go defaultExpirationSeconds
const EXPIRATION: Duration = Duration::from_secs(3600);
/// A shorter life than this is taken for a clock that is wrong. upstream: client_builder_dynamic.go Token
const LIFETIME_MIN: Duration = Duration::from_secs(600);
/// Part of its life after which a token is renewed. upstream: client_builder_dynamic.go defaultLeewayPercent
const RENEWED_AFTER: f64 = 0.8;
/// Tries to get a token, and the wait after the first; doubled each time.
const TRIES_MAX: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Why a request has no token. Trying again may help.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The server gave none.
    #[error("could not get a token for {NAMESPACE}/{account}")]
    Request {
        /// Whose.
        account: Arc<str>,
        /// Why not.
        #[source]
        source: kube::Error,
    },
    /// What the server gave is no header value, or no token.
    #[error("the token for {NAMESPACE}/{0} is not usable")]
    Unusable(Arc<str>),
}

/// Makes clients that act as service accounts of `kube-system`.
#[derive(Clone)]
pub struct Accounts {
    root: Client,
    config: Config,
    transport: Transport,
    user_agent: String,
}

impl Accounts {
    /// `root` is a client with the program's own credentials, `config` says where the server is; credentials in it are
    /// not used.
    pub fn new(root: Client, mut config: Config, user_agent: &str) -> Result<Self, ConnectError> {
        super::install_crypto_provider();
        config.auth_info = kube::config::AuthInfo::default();
        let transport = Transport::new(&config)?;
        Ok(Self { root, config, transport, user_agent: user_agent.to_owned() })
    }

    /// A client that acts as this account, which exists by then unless the server did not answer.
    pub async fn client(&self, account: &str) -> Result<Client, ConnectError> {
        let mut config = self.config.clone();
        let user = format!("{}/system:serviceaccount:{NAMESPACE}:{account}", self.user_agent);
        config.headers.push((header::USER_AGENT, super::agent(&user)?));
        let tokens = Arc::new(Tokens::new(self.root.clone(), account));
        if let Err(error) = tokens.get().await {
            tracing::warn!(%error, "will ask again with the first request");
        }
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .layer(tower::retry::RetryLayer::new(ServerAskedRetry { left: SERVER_RETRIES_MAX }))
            .layer(config.extra_headers_layer().map_err(ConnectError::Credentials)?)
            .layer(Bearer(tokens))
            .map_err(BoxError::from)
            .service(self.transport.clone());
        Ok(Client::new(service, config.default_namespace))
    }
}

/// The tokens of one account.
struct Tokens {
    root: Client,
    account: Arc<str>,
    /// Held while a new one is asked for, so that many requests ask once.
    current: Mutex<Option<Token>>,
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    made: Instant,
    renew: Instant,
}

impl Tokens {
    fn new(root: Client, account: &str) -> Self {
        Self { root, account: account.into(), current: Mutex::new(None) }
    }

    async fn get(&self) -> Result<Token, TokenError> {
        let mut current = self.current.lock().await;
        if let Some(token) = current.as_ref().filter(|token| Instant::now() < token.renew) {
            return Ok(token.clone());
        }
        let fresh = self.request().await?;
        Ok(current.insert(fresh).clone())
    }

    /// The server refused a request that was sent with `used`: unless another has taken its place, it goes.
    async fn refuse(&self, used: &Token) {
        self.current.lock().await.take_if(|token| token.made == used.made);
    }

    async fn request(&self) -> Result<Token, TokenError> {
        let mut wait = FIRST_WAIT;
        for left in (0..TRIES_MAX).rev() {
            match self.try_request().await {
                Ok(answer) => return self.token(answer),
                Err(source) if left == 0 => {
                    return Err(TokenError::Request { account: self.account.clone(), source });
                }
                Err(error) => {
                    let why = rest::message(&error);
                    tracing::warn!(account = %self.account, why, "no token, will try again");
                }
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Err(TokenError::Unusable(self.account.clone()))
    }

    async fn try_request(&self) -> Result<TokenRequest, kube::Error> {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": EXPIRATION.as_secs()}});
        let ask = async || {
            let (client, name) = (&self.root, &*self.account);
            rest::create_subresource(client, &SERVICE_ACCOUNTS, NAMESPACE, name, "token", &body).await
        };
        match ask().await {
            Err(error) if rest::is_not_found(&error) => {}
            other => return other,
        }
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": &*self.account, "namespace": NAMESPACE}});
        match rest::create::<IgnoredAny>(&self.root, &SERVICE_ACCOUNTS, NAMESPACE, &account).await {
            Err(error) if rest::is_already_exists(&error) => {}
            other => other.map(drop)?,
        }
        ask().await
    }

    fn token(&self, answer: TokenRequest) -> Result<Token, TokenError> {
        let unusable = || TokenError::Unusable(self.account.clone());
        let status = answer.status.ok_or_else(unusable)?;
        let (token, expires) = status.token.zip(status.expiration_timestamp).ok_or_else(unusable)?;
        let mut header = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| unusable())?;
        header.set_sensitive(true);
        let left = expires.0.duration_since(Timestamp::now());
        let life = Duration::try_from(left).unwrap_or_default().max(LIFETIME_MIN);
        let made = Instant::now();
        Ok(Token { header, made, renew: made + life.mul_f64(RENEWED_AFTER) })
    }
}

/// Puts a token on each request.
#[derive(Clone)]
struct Bearer(Arc<Tokens>);

impl<S> Layer<S> for Bearer {
    type Service = BearerService<S>;

    fn layer(&self, inner: S) -> BearerService<S> {
        BearerService { tokens: self.0.clone(), inner }
    }
}

#[derive(Clone)]
struct BearerService<S> {
    tokens: Arc<Tokens>,
    inner: S,
}

impl<S, B> Service<Request<Body>> for BearerService<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Send,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (tokens, waiting) = (self.tokens.clone(), self.inner.clone());
        // The one that was asked whether it is ready is the one to be called.
        let mut ready = std::mem::replace(&mut self.inner, waiting);
        Box::pin(async move {
            let token = tokens.get().await?;
            request.headers_mut().insert(header::AUTHORIZATION, token.header.clone());
            let response = ready.call(request).await.map_err(Into::into)?;
            if response.status() == StatusCode::UNAUTHORIZED {
                tokens.refuse(&token).await;
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex as StdMutex;

    use super::*;

    /// A server of tokens: knows which accounts there are, numbers the tokens, and notes what it was asked.
    #[derive(Default)]
    struct Server {
        accounts: StdMutex<BTreeSet<String>>,
        log: StdMutex<Vec<String>>,
        refused: StdMutex<BTreeSet<String>>,
    }

    impl Server {
        fn answer(&self, request: &Request<Body>) -> (u16, serde_json::Value) {
            let path = request.uri().path();
            let name = path.split('/').nth(6).unwrap_or_default();
            let mut log = self.log.lock().expect("a lock");
            match (path.ends_with("/token"), path.ends_with("/serviceaccounts")) {
                (true, _) if !self.accounts.lock().expect("a lock").contains(name) => {
                    log.push("token: no such account".into());
                    (
                        404,
                        json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "no"}),
                    )
                }
                (true, _) => {
                    let token = format!("t{}", log.len());
                    log.push(format!("token {token}"));
                    let expires = Timestamp::now() + EXPIRATION;
                    (
                        201,
                        json!({"spec": {"audiences": []}, "status": {"token": token, "expirationTimestamp": expires}}),
                    )
                }
                (_, true) => {
                    self.accounts.lock().expect("a lock").insert("a".into());
                    log.push("account made".into());
                    (201, json!({}))
                }
                _ => {
                    let token = request.headers()[header::AUTHORIZATION].to_str().expect("text").to_owned();
                    let refused = self.refused.lock().expect("a lock").contains(&token);
                    log.push(format!("{} {}", token, if refused { 401 } else { 200 }));
                    let status = json!({"kind": "Status", "status": "Failure", "code": 401,
                        "reason": "Unauthorized", "message": "no"});
                    if refused { (401, status) } else { (200, json!({})) }
                }
            }
        }
    }

    fn service(
        server: Arc<Server>,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send> + Clone {
        tower::service_fn(move |request: Request<Body>| {
            let (code, body) = server.answer(&request);
            let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            async move { response.map_err(BoxError::from) }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_made_once_renewed_in_time_and_dropped_when_refused() {
        let server = Arc::new(Server::default());
        let root = Client::new(service(server.clone()), "default");
        let acting = Bearer(Arc::new(Tokens::new(root, "a"))).layer(service(server.clone()));
        let client = Client::new(acting, "default");
        let get = || rest::send::<IgnoredAny>(&client, "GET", "/api", "", &());
        let heard = || std::mem::take(&mut *server.log.lock().expect("a lock")).join(", ");

        let both = futures::future::join(get(), get()).await;
        assert!(both.0.is_ok() && both.1.is_ok());
        assert_eq!(heard(), "token: no such account, account made, token t2, Bearer t2 200, Bearer t2 200");
        tokio::time::advance(Duration::from_secs(47 * 60)).await;
        get().await.expect("an answer");
        assert_eq!(heard(), "Bearer t2 200", "within four fifths of an hour");
        tokio::time::advance(Duration::from_secs(2 * 60)).await;
        get().await.expect("an answer");
        assert_eq!(heard(), "token t0, Bearer t0 200", "renewed before it expires");
        server.refused.lock().expect("a lock").insert("Bearer t0".into());
        assert_eq!(rest::code(&get().await.expect_err("a refusal")), Some(401));
        assert_eq!(heard(), "Bearer t0 401");
        server.refused.lock().expect("a lock").clear();
        get().await.expect("an answer");
        assert_eq!(heard(), "token t0, Bearer t0 200", "a refused token is not used again");
    }
}
