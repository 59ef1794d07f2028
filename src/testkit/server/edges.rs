//! What happens at the edges of a server's life and of its connections: watches over WebSocket, certificates that change or are
//! no good, several servers on one store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use copepod_apiserver::bootstrap::{Access, Kubernetes};
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::TestServer;

/// A test on a loaded machine is slow, what never comes is a bug.
const TIME_MAX: Duration = Duration::from_secs(60);

type Tls = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

/// Connects, with a client certificate if there is one.
pub(super) async fn connect(server: &TestServer, identity: Option<(&Path, &Path)>) -> std::io::Result<Tls> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(server.folder().join("ca.crt")).expect("PEM") {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain =
                CertificateDer::pem_file_iter(certificate).expect("PEM").map(|c| c.expect("a certificate"));
            let key = PrivateKeyDer::from_pem_file(key).expect("a key");
            builder.with_client_auth_cert(chain.collect(), key).expect("an identity")
        }
    };
    let tcp = tokio::net::TcpStream::connect(server.address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// The code and the body of a GET.
async fn get(stream: Tls, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    let connection = tokio::spawn(connection);
    let mut request = http::Request::get(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let answer = tokio::time::timeout(TIME_MAX, sender.send_request(request))
        .await
        .expect("in time")
        .expect("an answer");
    let code = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    connection.abort();
    (code, String::from_utf8_lossy(&body).into_owned())
}

/// A watch of config maps as WebSocket messages: text or binary, as rendered by `render`, until the server closes.
async fn watch(server: &TestServer, accept: &str) -> Vec<Message> {
    let folder = server.folder();
    let identity = (folder.join("admin.crt"), folder.join("admin.key"));
    let stream = connect(server, Some((&identity.0, &identity.1))).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection.with_upgrades());
    let path = "/api/v1/namespaces/default/services?watch=1&timeoutSeconds=1";
    let request = http::Request::get(path)
        .header("host", "localhost")
        .header("accept", accept)
        .header("origin", "https://localhost")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "binary.k8s.io")
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 101);
    assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(answer.headers()["sec-websocket-protocol"], "binary.k8s.io");
    let upgraded = hyper::upgrade::on(answer).await.expect("an upgrade");
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
    let mut messages = Vec::new();
    while let Some(message) = tokio::time::timeout(TIME_MAX, socket.next()).await.expect("in time") {
        messages.push(message.expect("a message"));
    }
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_over_websocket_sends_an_event_a_message_and_closes_in_order() {
    let server = TestServer::start().await.expect("a server");

    let messages = watch(&server, "application/json").await;
    let [Message::Text(event), Message::Close(Some(close))] = messages.as_slice() else {
        panic!("{messages:?}")
    };
    assert!(event.starts_with(
        r#"{"type":"ADDED","object":{"kind":"Service","apiVersion":"v1","metadata":{"name":"kubernetes""#
    ));
    assert!(event.ends_with("}\n"), "a line, as in a stream");
    assert_eq!(u16::from(close.code), 1000);

    let messages = watch(&server, "application/vnd.kubernetes.protobuf").await;
    let [Message::Binary(event), Message::Close(Some(_))] = messages.as_slice() else {
        panic!("{messages:?}")
    };
    // WatchEvent.type, then .object with the envelope in it: no length before them, the message has its own.
    assert!(event.starts_with(b"\n\x05ADDED\x12"), "{event:?}");
    assert!(event.windows(6).any(|w| w == b"\nk8s\x00\n" || w.ends_with(b"k8s\x00\n")), "{event:?}");
}

/// Writes a client certificate that `change` has made special, signed by the server's own authority unless `own_ca`.
fn certificate(folder: &Path, file: &str, own_ca: bool, change: impl FnOnce(&mut CertificateParams)) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let signed = if own_ca {
        let key_pem = std::fs::read_to_string(folder.join("ca.key")).expect("the authority's key");
        let ca_pem = std::fs::read_to_string(folder.join("ca.crt")).expect("the authority");
        let issuer = rcgen::Issuer::from_ca_cert_pem(&ca_pem, KeyPair::from_pem(&key_pem).expect("a key"));
        params.signed_by(&key, &issuer.expect("an issuer"))
    } else {
        params.self_signed(&key)
    };
    std::fs::write(folder.join(format!("{file}.crt")), signed.expect("signed").pem()).expect("written");
    std::fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).expect("written");
}

/// What each certificate and token get; the codes are those that kube-apiserver v1.36.3 answered with, flag by flag and case by case.
#[tokio::test(flavor = "multi_thread")]
async fn bad_credentials_are_refused_by_an_answer_and_not_by_the_handshake() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "good,admin,1,system:masters\n").expect("written");
    let flag = format!("--token-auth-file={}", tokens.display());
    let server = TestServer::start_with(&[&flag]).await.expect("a server");
    let at = server.folder();
    let year = |year| rcgen::date_time_ymd(year, 1, 1);
    certificate(at, "good", true, |_| {});
    certificate(at, "expired", true, |p| (p.not_before, p.not_after) = (year(2020), year(2021)));
    certificate(at, "early", true, |p| (p.not_before, p.not_after) = (year(2090), year(2091)));
    certificate(at, "stranger", false, |_| {});
    certificate(at, "serving", true, |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    certificate(at, "nameless", true, |p| {
        p.distinguished_name.remove(DnType::CommonName);
    });
    let (list, bearer) = ("/api/v1/namespaces/default/configmaps", ("authorization", "Bearer good"));
    for (file, path, headers, want) in [
        ("good", list, &[][..], 200),
        ("expired", list, &[], 401),
        ("expired", "/version", &[], 401),
        ("expired", "/healthz", &[], 401),
        ("expired", list, &[bearer], 200),
        ("early", list, &[], 401),
        ("stranger", list, &[], 401),
        ("stranger", list, &[bearer], 200),
        ("serving", list, &[], 401),
        ("nameless", list, &[], 403),
        ("nameless", "/healthz", &[], 200),
        ("good", list, &[("authorization", "Bearer bad")], 200),
        ("stranger", list, &[("authorization", "Bearer bad")], 401),
        ("", list, &[], 403),
        ("", "/healthz", &[], 200),
        ("", "/healthz", &[("authorization", "Bearer bad")], 401),
    ] {
        let files = (at.join(format!("{file}.crt")), at.join(format!("{file}.key")));
        let identity = (!file.is_empty()).then_some((files.0.as_path(), files.1.as_path()));
        let stream = connect(&server, identity).await.expect("a handshake");
        let (code, body) = get(stream, path, headers).await;
        assert_eq!(code, want, "{file:?} {path} {headers:?}: {body}");
    }
}

/// Every metric of ours is one of upstream's: name, type, labels and help (`hack/upstream/metric-names` renews the list).
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_upstreams() {
    let server = TestServer::start().await.expect("a server");
    let admin = (server.folder().join("admin.crt"), server.folder().join("admin.key"));
    let ask = async |path: &str| {
        let stream = connect(&server, Some((&admin.0, &admin.1))).await.expect("a handshake");
        get(stream, path, &[]).await.1
    };
    ask("/api/v1/services?watch=1&timeoutSeconds=1").await;
    let text = ask("/metrics").await;
    let upstream: Vec<Vec<&str>> =
        include_str!("../testdata/upstream-metrics.tsv").lines().map(|l| l.split('\t').collect()).collect();
    let label = regex::Regex::new(r#"[{,]([a-z_]+)=""#).expect("a pattern");
    let (mut seen, mut wrong) = (0, Vec::new());
    for line in text.lines().filter_map(|l| l.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').expect("a name and a help");
        let kind = text.lines().find_map(|l| l.strip_prefix(&format!("# TYPE {name} "))).expect("a type");
        let samples = text.lines().filter(|l| {
            let rest = l.strip_prefix(name).unwrap_or("-");
            ["{", " ", "_bucket{", "_sum", "_count"].iter().any(|start| rest.starts_with(start))
        });
        let mut labels: Vec<&str> = samples
            .flat_map(|l| {
                label.captures_iter(l).filter_map(|c| c.get(1)).map(|m| m.as_str()).collect::<Vec<_>>()
            })
            .filter(|l| *l != "le")
            .collect();
        labels.sort_unstable();
        labels.dedup();
        let got = [name, kind, &labels.join(","), help].join("\t");
        seen += 1;
        if !upstream.iter().any(|family| family.join("\t") == got) {
            wrong.push(got);
        }
    }
    assert!(wrong.is_empty(), "not upstream's: {wrong:#?}");
    assert!(seen >= 12, "only {seen}");
}

/// Asks until the answer has this code: a file's change is seen soon, not at once.
async fn until(server: &TestServer, file: &str, want: u16) {
    let files = (server.folder().join(format!("{file}.crt")), server.folder().join(format!("{file}.key")));
    let asked = async {
        loop {
            let stream = connect(server, Some((&files.0, &files.1))).await.expect("a handshake");
            if get(stream, "/api/v1/namespaces/default/configmaps", &[]).await.0 == want {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIME_MAX / 2, asked).await.unwrap_or_else(|_| panic!("{file} never got {want}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_authorities_are_exchanged_while_the_server_runs() {
    // Files of their own: the testkit's authority also signed the serving certificate, which the clients here check.
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let bundle = |from: &Path| std::fs::copy(from, file("clients.crt")).expect("copied");
    let first = TestServer::start().await.expect("a server to take an authority from");
    bundle(&first.folder().join("ca.crt"));
    let flags = [
        format!("--client-ca-file={}", file("clients.crt").display()),
        format!("--tls-cert-file={}", file("serving.crt").display()),
        format!("--tls-private-key-file={}", file("serving.key").display()),
    ];
    for name in ["crt", "key"] {
        let from = first.folder().join(format!("apiserver.{name}"));
        std::fs::copy(from, file(&format!("serving.{name}"))).expect("copied");
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = TestServer::start_with(&flags).await.expect("a server");
    // Whom the client trusts: at first the first server's authority, which signed the serving certificate.
    let own_ca = std::fs::read(server.folder().join("ca.crt")).expect("read");
    std::fs::copy(first.folder().join("ca.crt"), server.folder().join("ca.crt")).expect("copied");
    for name in ["crt", "key"] {
        let from = first.folder().join(format!("admin.{name}"));
        std::fs::copy(from, server.folder().join(format!("first.{name}"))).expect("copied");
    }
    until(&server, "first", 200).await;
    until(&server, "admin", 401).await;

    // An open connection, with its certificate already verified: it is verified again after the exchange.
    let files = (server.folder().join("first.crt"), server.folder().join("first.key"));
    let stream = connect(&server, Some((&files.0, &files.1))).await.expect("a handshake");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let mut ask = async || {
        let request =
            http::Request::get("/api/v1/namespaces").header("host", "x").body(Empty::<Bytes>::new());
        let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
        let code = answer.status().as_u16();
        answer.into_body().collect().await.expect("a body");
        code
    };
    assert_eq!(ask().await, 200);

    std::fs::write(file("clients.crt"), &own_ca).expect("written");
    until(&server, "admin", 200).await;
    until(&server, "first", 401).await;
    assert_eq!(
        ask().await,
        401,
        "the open connection's certificate is of an authority that is trusted no more"
    );

    // What other servers are told follows.
    let admin = (server.folder().join("admin.crt"), server.folder().join("admin.key"));
    let told = async {
        loop {
            let stream = connect(&server, Some((&admin.0, &admin.1)));
            let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
            let (_, body) = get(stream.await.expect("a handshake"), path, &[]).await;
            let map: ConfigMap = serde_json::from_str(&body).expect("a ConfigMap");
            if map.data.expect("data")["client-ca-file"].as_bytes() == own_ca {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIME_MAX / 2, told).await.expect("the ConfigMap follows the file");

    // Garbage is not taken over.
    std::fs::write(file("clients.crt"), "garbage").expect("written");
    tokio::time::sleep(Duration::from_millis(300)).await;
    until(&server, "admin", 200).await;

    // The serving certificate, key and chain in two steps; in between the old pair is served.
    let second = TestServer::start().await.expect("another server to take a certificate from");
    for name in ["crt", "key"] {
        let from = second.folder().join(format!("apiserver.{name}"));
        std::fs::copy(from, file(&format!("serving.{name}"))).expect("copied");
    }
    let served = async {
        loop {
            std::fs::copy(second.folder().join("ca.crt"), server.folder().join("ca.crt")).expect("copied");
            if connect(&server, None).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIME_MAX / 2, served).await.expect("the new certificate is served");
}

/// The addresses that Endpoints and EndpointSlice show.
async fn addresses(client: &kube::Client) -> (String, String) {
    let endpoints =
        Api::<Endpoints>::default_namespaced(client.clone()).get("kubernetes").await.expect("endpoints");
    let subsets = endpoints.subsets.unwrap_or_default();
    let addresses = subsets.iter().flat_map(|s| s.addresses.iter().flatten()).map(|a| a.ip.clone());
    let slices = Api::<EndpointSlice>::default_namespaced(client.clone());
    let slice = slices.get("kubernetes").await.expect("a slice");
    let shown = slice.endpoints.into_iter().flatten().flat_map(|e| e.addresses);
    (addresses.collect::<Vec<_>>().join(" "), shown.collect::<Vec<_>>().join(" "))
}

async fn until_addresses(client: &kube::Client, want: &str) {
    let asked = async {
        loop {
            let slices = Api::<EndpointSlice>::default_namespaced(client.clone());
            if slices.list(&ListParams::default()).await.expect("slices").items.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            let (endpoints, slice) = addresses(client).await;
            if endpoints == want && slice == want {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(TIME_MAX, asked)
        .await
        .unwrap_or_else(|_| panic!("the endpoints never were {want:?}"));
}

/// A real etcd, ended with the test.
struct Etcd {
    process: std::process::Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

/// Starts the etcd that `hack/tools etcd` built, or the one that the environment names.
fn etcd() -> Etcd {
    let built =
        || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/copepod/bin/etcd-3.6.16");
    let program = std::env::var_os("COPEPOD_ETCD_36").map_or_else(built, std::path::PathBuf::from);
    assert!(program.exists(), "{} is not there; `hack/tools etcd` builds it", program.display());
    let folder = tempfile::tempdir().expect("a folder");
    let port = || {
        std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address").port()
    };
    let (client, peer) = (format!("http://127.0.0.1:{}", port()), format!("http://127.0.0.1:{}", port()));
    #[allow(clippy::disallowed_methods)] // The one place that starts a program here.
    let process = std::process::Command::new(program)
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error", "--unsafe-no-fsync"])
        .spawn()
        .expect("started");
    Etcd { process, url: client, _folder: folder }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_servers_share_the_endpoints_of_kubernetes() {
    let etcd = etcd();
    let servers = format!("--etcd-servers={}", etcd.url);
    let start = async |address: &str| {
        let advertise = format!("--advertise-address={address}");
        TestServer::start_with(&[&servers, &advertise]).await.expect("a server")
    };
    let one = start("192.0.2.1").await;
    let client = one.client().await.expect("a client");
    until_addresses(&client, "192.0.2.1").await;
    let two = start("192.0.2.2").await;
    until_addresses(&client, "192.0.2.1 192.0.2.2").await;
    // A server that is killed: it has joined once and does not renew. Gone when its key is, by another's hand.
    let server = one.server().expect("a server");
    let access = Access { lister: server.registry.lister(), writer: server.registry.writer() };
    let killed = Kubernetes {
        store: Arc::clone(&server.store),
        prefix: "/registry".into(),
        address: std::net::IpAddr::from([192, 0, 2, 3]),
        port: one.address.port(),
    };
    killed.join(&access, false).await.expect("joined");
    until_addresses(&client, "192.0.2.1 192.0.2.2 192.0.2.3").await;
    // Orderly: gone when the server has ended, by its own hand.
    two.stop().await;
    let (endpoints, slice) = addresses(&client).await;
    assert_eq!((endpoints.as_str(), slice.as_str()), ("192.0.2.1 192.0.2.3", "192.0.2.1 192.0.2.3"));
    until_addresses(&client, "192.0.2.1").await;
    one.stop().await;
}
