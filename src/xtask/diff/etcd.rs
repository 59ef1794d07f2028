//! What is in etcd, through its JSON gateway, so that nothing but HTTP is needed.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// Keys that each server writes of its own accord, or in a form that holds what it chose by chance.
const OWN: [&str; 11] = [
    "/registry/ipaddresses/10.96.0.1",
    "/registry/services/specs/default/",
    "/registry/masterleases/",
    "/registry/leases/kube-system/",
    "/registry/leases/kube-node-lease/",
    "/registry/ranges/",
    "/registry/peerserverleases/",
    "/registry/events/default/",
    "/registry/apiregistration.k8s.io/",
    "/registry/services/endpoints/default/kubernetes",
    "/registry/endpointslices/default/kubernetes",
];

/// One key's value.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The bytes.
    pub value: Vec<u8>,
    /// Whether it vanishes by itself.
    pub leased: bool,
}

/// An etcd.
pub struct Etcd {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
}

impl Etcd {
    /// The etcd whose clients come to this port of the loopback.
    pub fn new(port: u16) -> Etcd {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Etcd { client, url: format!("http://127.0.0.1:{port}/v3/kv/range") }
    }

    /// The newest revision.
    pub async fn revision(&self) -> anyhow::Result<i64> {
        number(&self.range(json!({ "key": STANDARD.encode("none") })).await?["header"]["revision"])
    }

    /// What was written after `revision` and is there.
    pub async fn since(&self, revision: i64) -> anyhow::Result<BTreeMap<String, Stored>> {
        let answer = self
            .range(json!({
                "key": STANDARD.encode("/registry/"),
                "range_end": STANDARD.encode("/registry0"),
                "min_mod_revision": (revision + 1).to_string(),
            }))
            .await?;
        let mut out = BTreeMap::new();
        for pair in answer["kvs"].as_array().into_iter().flatten() {
            let bytes = |name: &str| STANDARD.decode(pair[name].as_str().unwrap_or(""));
            let key = String::from_utf8(bytes("key")?)?;
            if !OWN.iter().any(|own| key.starts_with(own)) {
                let leased = pair["lease"].as_str().is_some_and(|l| l != "0");
                out.insert(key, Stored { value: bytes("value")?, leased });
            }
        }
        Ok(out)
    }

    async fn range(&self, request: Json) -> anyhow::Result<Json> {
        let request = http::Request::post(&self.url).body(Full::new(Bytes::from(request.to_string())))?;
        let answer = self.client.request(request).await.context("etcd")?;
        Ok(serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?)
    }
}

/// The gateway writes 64-bit integers as text.
fn number(value: &Json) -> anyhow::Result<i64> {
    value.as_str().context("no revision")?.parse().context("no revision")
}
