//! Service-account tokens of pods, kept until they are due for renewal.
//!
//! upstream: kubelet/token/token_manager.go

use std::collections::HashMap;

use copepod_client::{Client, rest};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::pod::{
    backoff::later,
    model::{names, uid},
};

const SERVICE_ACCOUNTS: rest::ResourceType = rest::ResourceType::namespaced("", "v1", "serviceaccounts");

/// A token is renewed after this much of its life, in percent.
const RENEW_AFTER_PERCENT: u64 = 80;
/// And after a day at the latest.
const AGE_MAX_SECONDS: u64 = 24 * 3600;

/// A token and the time to ask for another.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token.
    pub token: String,
    /// When to renew it.
    pub refresh_at: Timestamp,
}

/// Tokens by pod, account, audience and life time.
#[derive(Default)]
pub struct TokenCache {
    tokens: Mutex<HashMap<(String, String, String, i64), Token>>,
}

impl TokenCache {
    /// A token that is good for a while.
    pub async fn get(
        &self,
        client: &Client,
        pod: &Pod,
        account: &str,
        audience: &str,
        seconds: i64,
    ) -> Result<Token, String> {
        let (namespace, name) = names(pod);
        let key = (uid(pod).to_owned(), account.to_owned(), audience.to_owned(), seconds);
        if let Some(token) = self.tokens.lock().get(&key).filter(|token| Timestamp::now() < token.refresh_at)
        {
            return Ok(token.clone());
        }
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(if audience.is_empty() { Vec::new() } else { vec![audience.to_owned()] }),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(name.into()),
                    uid: Some(uid(pod).into()),
                }),
            }),
            ..TokenRequest::default()
        };
        let answer: TokenRequest =
            rest::create_subresource(client, &SERVICE_ACCOUNTS, namespace, account, "token", &request)
                .await
                .map_err(|error| format!("failed to fetch token: {}", rest::message(&error)))?;
        let status = answer.status.ok_or_else(|| "failed to fetch token: no status".to_owned())?;
        let now = Timestamp::now();
        let life = status.expiration_timestamp.map_or(0, |end| end.0.duration_since(now).as_secs());
        let life = u64::try_from(life).unwrap_or(0);
        let due = (life * RENEW_AFTER_PERCENT / 100).min(AGE_MAX_SECONDS);
        let token = Token {
            token: status.token.unwrap_or_default(),
            refresh_at: later(now, std::time::Duration::from_secs(due)),
        };
        self.tokens.lock().insert(key, token.clone());
        Ok(token)
    }

    /// Forgets the tokens of a pod.
    pub fn forget(&self, uid: &str) {
        self.tokens.lock().retain(|(owner, ..), _| owner != uid);
    }
}
