//! What is behind the server: a pod's HTTP server and a node's kubelet, both played here.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{Api, Patch, PatchParams, PostParams};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::TestServer;
use super::edges::connect;

/// A test on a loaded machine is slow, what never comes is a bug.
const TIME_MAX: Duration = Duration::from_secs(60);

/// The machine's own address beyond loopback: proxies go to no other kind. `None` on a machine without any network.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a socket");
    socket.connect(("192.0.2.1", 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// What the pod's server answers.
fn pod_answers(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let answer = Response::builder().header("content-type", "text/plain");
    let header =
        |name: &str| request.headers().get(name).map_or("-", |v| v.to_str().expect("text")).to_string();
    let own = format!("http://{}", header("x-own"));
    let answer = match request.uri().path() {
        "/page" => Response::builder()
            .header("content-type", "text/html")
            .header("content-length", "29")
            .header("access-control-allow-origin", "*")
            .body(r#"<a href="/rewriteme">test</a>"#.to_string()),
        "/moved" => answer.status(302).header("location", format!("{own}/there?a=b")).body(String::new()),
        "/away" => answer.status(302).header("location", "http://elsewhere/x").body(String::new()),
        path => {
            let (host, uri) = (header("host"), header("x-forwarded-uri"));
            answer.body(format!("{} {path} host={host} uri={uri}", request.method()))
        }
    };
    answer.expect("an answer").map(|text| Full::new(Bytes::from(text)))
}

/// What the kubelet answers: a log that is longer than a message.
fn kubelet_answers(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let text = match request.uri().path() {
        "/containerLogs/default/p/c" => "x".repeat(3000),
        path => panic!("{path}"),
    };
    Response::new(Full::new(Bytes::from(text)))
}

async fn answer<S>(stream: S, answers: fn(&Request<Incoming>) -> Response<Full<Bytes>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(async |request| Ok::<_, std::convert::Infallible>(answers(&request)));
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A client that has what it wants goes.
    let _ = served.await;
}

/// Plays the pod.
async fn pod_server(ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, pod_answers));
        }
    });
    address
}

/// Plays the kubelet, whose certificate nobody knows.
async fn kubelet() -> SocketAddr {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["node".into()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(cert.der().to_vec())], key)
        .expect("a configuration");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                answer(acceptor.accept(stream).await.expect("a handshake"), kubelet_answers).await;
            });
        }
    });
    address
}

/// A pod `p` at this address, on the node `n`.
async fn make_pod(server: &TestServer, at: SocketAddr) {
    let client = server.client().await.expect("a client");
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).expect("an account");
    accounts.create(&PostParams::default(), &account).await.expect("an account");
    let pods: Api<Pod> = Api::default_namespaced(client);
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {
            "nodeName": "n", "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": at.port()}]}],
        },
    });
    let pod = serde_json::from_value(pod).expect("a pod");
    pods.create(&PostParams::default(), &pod).await.expect("a pod");
    let status = json!({"status": {"podIP": at.ip().to_string(), "podIPs": [{"ip": at.ip().to_string()}]}});
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
}

/// Sends a request as the administrator: code, headers, body.
async fn ask(server: &TestServer, method: Method, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    let identity = (server.folder().join("admin.crt"), server.folder().join("admin.key"));
    let stream = connect(server, Some((&identity.0, &identity.1))).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", "api.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<Bytes>::default()).expect("a request");
    let answered = tokio::time::timeout(TIME_MAX, sender.send_request(request)).await.expect("in time");
    let (head, body) = answered.expect("an answer").into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    connection.abort();
    Response::from_parts(head, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_reaches_a_pod_and_its_links_lead_back() {
    // Without an address that a proxy may go to there is nothing to be seen.
    let Some(ip) = own_address() else { return };
    let server = TestServer::start().await.expect("a server");
    let pod = pod_server(ip).await;
    make_pod(&server, pod).await;
    let proxy = "/api/v1/namespaces/default/pods/p/proxy";
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let method: Method = method.parse().expect("a method");
        let got = ask(&server, method.clone(), &format!("{proxy}/a//b/?c=d"), &[]).await;
        let want = format!("{method} /a/b/ host=api.example uri={proxy}/a/b/");
        assert_eq!((got.status().as_u16(), got.body().as_ref()), (200, want.as_bytes()), "{method}");
    }
    assert_eq!(ask(&server, Method::HEAD, &format!("{proxy}/a"), &[]).await.status(), 200);
    assert_eq!(ask(&server, Method::TRACE, &format!("{proxy}/a"), &[]).await.status(), 405);

    let page = ask(&server, Method::GET, &format!("{proxy}/page"), &[]).await;
    assert_eq!(page.body(), &Bytes::from(format!(r#"<a href="{proxy}/rewriteme">test</a>"#)));
    assert!(!page.headers().contains_key("access-control-allow-origin"));
    let at = pod.to_string();
    for (path, want) in [("moved", format!("{proxy}/there?a=b")), ("away", "http://elsewhere/x".into())] {
        let got = ask(&server, Method::GET, &format!("{proxy}/{path}"), &[("x-own", &at)]).await;
        assert_eq!((got.status().as_u16(), got.headers()["location"].to_str().expect("text")), (302, &*want));
    }
}

/// The log over WebSocket, with these sub-protocols; the code if there is none.
async fn log(server: &TestServer, protocols: &str) -> Result<Vec<Message>, u16> {
    let identity = (server.folder().join("admin.crt"), server.folder().join("admin.key"));
    let stream = connect(server, Some((&identity.0, &identity.1))).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::get("/api/v1/namespaces/default/pods/p/log?container=c")
        .header("host", "localhost")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    if !protocols.is_empty() {
        request = request.header("sec-websocket-protocol", protocols);
    }
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    if answer.status() != 101 {
        return Err(answer.status().as_u16());
    }
    let upgraded = hyper::upgrade::on(answer).await.expect("an upgrade");
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
    let mut messages = Vec::new();
    while let Some(message) = tokio::time::timeout(TIME_MAX, socket.next()).await.expect("in time") {
        messages.push(message.expect("a message"));
    }
    Ok(messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_over_websocket_comes_in_messages_after_an_empty_one() {
    let server = TestServer::start().await.expect("a server");
    let nodes: Api<Node> = Api::all(server.client().await.expect("a client"));
    let node = serde_json::from_value(json!({"metadata": {"name": "n"}})).expect("a node");
    nodes.create(&PostParams::default(), &node).await.expect("a node");
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet().await.port()}},
    }});
    nodes.patch_status("n", &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
    make_pod(&server, SocketAddr::from(([192, 0, 2, 9], 80))).await;

    for protocols in ["binary.k8s.io", ""] {
        let messages = log(&server, protocols).await.expect("messages");
        let Some((Message::Close(Some(close)), data)) = messages.split_last() else { panic!("{messages:?}") };
        assert_eq!(u16::from(close.code), 1000);
        let data: Vec<usize> =
            data.iter().map(|m| if m.is_binary() { m.len() } else { usize::MAX }).collect();
        assert_eq!((data[0], data[1..].iter().sum::<usize>()), (0, 3000), "{protocols}");
        assert!(data.iter().all(|len| *len <= 2048), "{data:?}");
    }
    let messages = log(&server, "base64.binary.k8s.io, binary.k8s.io").await.expect("messages");
    let mut text = Vec::new();
    for message in messages.iter().filter(|m| !m.is_close()) {
        let Message::Text(message) = message else { panic!("{message:?}") };
        let decoded = base64::engine::general_purpose::STANDARD.decode(message.as_str()).expect("base64");
        text.extend_from_slice(&decoded);
    }
    assert_eq!(text, "x".repeat(3000).as_bytes());
    assert_eq!(log(&server, "channel.k8s.io").await, Err(403));
}

/// Upstream's conformance test of it asks so; a kind that is kept has a Table.
#[tokio::test(flavor = "multi_thread")]
async fn a_review_is_not_shown_as_a_table() {
    let server = TestServer::start().await.expect("a server");
    let table = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let got = ask(&server, Method::POST, reviews, &[table, ("content-type", "application/json")]).await;
    assert_eq!(got.status(), 406);
    let status: Value = serde_json::from_slice(got.body()).expect("a Status");
    assert_eq!(status["reason"], "NotAcceptable");
    let got = ask(&server, Method::GET, "/api/v1/componentstatuses", &[table]).await;
    assert_eq!(got.status(), 200);
}
