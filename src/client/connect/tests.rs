//! The transport against a real server.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use copepod_serve::tls::{TlsFiles, TlsSettings};
use copepod_serve::{ConnectionInfo, Limits, Transport};
use http_body_util::Full;
use kube::config::{AuthInfo, Cluster, Context as NamedContext, Kubeconfig, NamedAuthInfo, NamedCluster};
use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::Shutdown;

/// What the server saw: from where, by which protocol, with which credentials.
#[derive(Default)]
struct Seen {
    peers: Mutex<BTreeSet<SocketAddr>>,
    versions: Mutex<BTreeSet<String>>,
    authorization: Mutex<BTreeSet<String>>,
    /// Requests to be answered with 429 before one is answered well.
    refuse: AtomicU32,
}

fn answer(request: &Request<Incoming>, seen: &Seen) -> Response<Full<Bytes>> {
    if let Some(info) = request.extensions().get::<ConnectionInfo>() {
        seen.peers.lock().insert(info.peer);
    }
    seen.versions.lock().insert(format!("{:?}", request.version()));
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    seen.authorization.lock().insert(authorization.unwrap_or_default().to_owned());
    let mut response = Response::new(Full::new(Bytes::from_static(b"{\"fine\":true}")));
    if seen.refuse.load(Ordering::Relaxed) > 0 {
        seen.refuse.fetch_sub(1, Ordering::Relaxed);
        *response.body_mut() =
            Full::new(Bytes::from_static(b"{\"status\":\"Failure\",\"code\":429,\"message\":\"wait\"}"));
        *response.status_mut() = http::StatusCode::TOO_MANY_REQUESTS;
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("0"));
    }
    response
}

/// A TLS server on a free port, and a kubeconfig for it.
async fn server(seen: Arc<Seen>, stop: Shutdown) -> Kubeconfig {
    install_crypto_provider();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let directory = tempfile::tempdir().expect("a directory");
    let pair = (directory.path().join("crt"), directory.path().join("key"));
    std::fs::write(&pair.0, made.cert.pem()).expect("written");
    std::fs::write(&pair.1, made.signing_key.serialize_pem()).expect("written");
    let files = TlsFiles { default: pair, http2: true, ..TlsFiles::default() };
    let settings = TlsSettings::load(files).expect("usable");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &seen);
        async move { Ok::<_, Infallible>(response) }
    });
    tokio::spawn(copepod_serve::serve(
        listener,
        Transport::Tls(Arc::new(settings)),
        service,
        Limits::default(),
        stop,
    ));
    kubeconfig(&url, &made.cert.pem())
}

fn kubeconfig(url: &str, authority: &str) -> Kubeconfig {
    let user: AuthInfo = serde_json::from_value(json!({"token": "secret"})).expect("a user");
    let mut cluster: Cluster = serde_json::from_value(json!({"server": url})).expect("a cluster");
    let directory = tempfile::tempdir().expect("a directory").keep();
    let path = directory.join("ca.crt");
    std::fs::write(&path, authority).expect("written");
    cluster.certificate_authority = Some(path.display().to_string());
    let context: NamedContext =
        serde_json::from_value(json!({"cluster": "c", "user": "u"})).expect("a context");
    Kubeconfig {
        current_context: Some("x".into()),
        clusters: vec![NamedCluster { name: "c".into(), cluster: Some(cluster), other: BTreeMap::new() }],
        auth_infos: vec![NamedAuthInfo { name: "u".into(), auth_info: Some(user), other: BTreeMap::new() }],
        contexts: vec![kube::config::NamedContext {
            name: "x".into(),
            context: Some(context),
            other: BTreeMap::new(),
        }],
        ..Kubeconfig::default()
    }
}

#[tokio::test]
async fn all_requests_share_one_http2_connection() {
    let (seen, stop) = (Arc::new(Seen::default()), Shutdown::new());
    let config = server(seen.clone(), stop.clone()).await;
    let client = from_kubeconfig_value(config, "test").await.expect("a client");
    let get = || crate::rest::send::<serde_json::Value>(&client, "GET", "/api", "", &());
    get().await.expect("an answer");
    let answers = futures::future::join_all((0..50).map(|_| get())).await;
    assert!(answers.into_iter().all(|answer| answer.is_ok_and(|body| body["fine"] == true)));
    assert_eq!(seen.peers.lock().len(), 1, "one connection");
    assert_eq!(seen.versions.lock().iter().collect::<Vec<_>>(), ["HTTP/2.0"]);
    assert_eq!(seen.authorization.lock().iter().collect::<Vec<_>>(), ["Bearer secret"]);

    let (name, value) = (header::UPGRADE, HeaderValue::from_static("websocket"));
    let request = Request::get("/api").header(name, value).body(Body::empty()).expect("a request");
    client.send(request).await.expect("an answer");
    assert_eq!(seen.peers.lock().len(), 2, "an upgrade has a connection of its own");
    assert!(seen.versions.lock().contains("HTTP/1.1"));
    stop.cancel();
}

#[tokio::test]
async fn a_request_is_repeated_when_the_server_asks_for_it() {
    let (seen, stop) = (Arc::new(Seen::default()), Shutdown::new());
    let config = server(seen.clone(), stop.clone()).await;
    let client = from_kubeconfig_value(config, "test").await.expect("a client");
    let get = || crate::rest::send::<serde_json::Value>(&client, "GET", "/api", "", &());
    seen.refuse.store(3, Ordering::Relaxed);
    assert!(get().await.is_ok(), "three refusals are waited for");
    seen.refuse.store(100, Ordering::Relaxed);
    assert_eq!(get().await.err().as_ref().and_then(crate::rest::code), Some(429), "but not any number");
    assert_eq!(seen.refuse.load(Ordering::Relaxed), 100 - 1 - SERVER_RETRIES_MAX);
    stop.cancel();
}
