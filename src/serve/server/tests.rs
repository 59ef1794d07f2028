//! Real sockets on loopback: limits, TLS, client certificates, drain.

use super::*;
use crate::tls::{ClientCa, TlsFiles};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use std::time::Instant;
use tokio::io::AsyncWriteExt as _;

/// Starts a server that answers with what it sees of the connection.
async fn start(
    transport: Transport,
    limits: Limits,
) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let shutdown = CancellationToken::new();
    let service = tower::service_fn(|request: Request<Incoming>| async move {
        let info = request.extensions().get::<ConnectionInfo>().expect("set by the server").clone();
        if request.uri().path() == "/slow" {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let text =
            format!("{:?} tls={} certificates={}", request.version(), info.tls, info.peer_certificates.len());
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
    });
    let token = shutdown.clone();
    let task = tokio::spawn(async move {
        serve(listener, transport, service, limits, token).await.expect("listener has an address")
    });
    (address, shutdown, task)
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.expect("body").to_bytes().to_vec()).expect("text")
}

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

#[tokio::test]
async fn plain_speaks_both_versions() {
    let (address, _shutdown, _task) = start(Transport::Plain, Limits::default()).await;
    let uri: http::Uri = format!("http://{address}/").parse().expect("uri");
    let answer = client().get(uri.clone()).await.expect("answer");
    assert_eq!(text(answer).await, "HTTP/1.1 tls=false certificates=0");
    let client2: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    assert_eq!(text(client2.get(uri).await.expect("answer")).await, "HTTP/2.0 tls=false certificates=0");
}

#[tokio::test]
async fn a_silent_client_and_a_slow_head_are_closed() {
    let limits = Limits {
        first_byte_timeout: Duration::from_millis(100),
        head_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let (address, _shutdown, _task) = start(Transport::Plain, limits).await;
    for sent in ["", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        let began = Instant::now();
        let mut stream = TcpStream::connect(address).await.expect("connect");
        stream.write_all(sent.as_bytes()).await.expect("write");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("closed by the server");
        assert!(began.elapsed() < Duration::from_secs(2), "{sent:?}");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{sent:?}");
    }
}

#[tokio::test]
async fn drain_finishes_what_is_under_way_and_cuts_the_rest() {
    let limits = Limits { drain_timeout: Duration::from_millis(800), ..Limits::default() };
    let (address, shutdown, task) = start(Transport::Plain, limits).await;
    let slow = tokio::spawn(client().get(format!("http://{address}/slow").parse().expect("uri")));
    // A connection in the middle of a head stays until it is cut.
    let mut half = TcpStream::connect(address).await.expect("connect");
    half.write_all(b"GET / HTTP/1.1\r\n").await.expect("write");
    tokio::time::sleep(Duration::from_millis(100)).await;
    shutdown.cancel();
    let answer = slow.await.expect("task").expect("the answer comes although the server is stopping");
    assert_eq!(answer.headers().get("connection").and_then(|v| v.to_str().ok()), Some("close"));
    let cut = tokio::time::timeout(Duration::from_secs(5), task).await.expect("drained").expect("task");
    assert!(cut <= 1, "{cut}");
    assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
}

struct Files {
    folder: std::path::PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        // A leftover folder in the temporary directory harms nobody.
        let _ignored = std::fs::remove_dir_all(&self.folder);
    }
}

/// Certificates made on the spot: an authority, a server, a client of the authority, a client of nobody.
fn certificates(name: &str) -> (Files, TlsFiles, Vec<(Vec<CertificateDer<'static>>, rcgen::KeyPair)>) {
    let folder = std::env::temp_dir().join(format!("copepod-serve-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("temporary directory");
    let ca_key = rcgen::KeyPair::generate().expect("key");
    let mut ca_params = rcgen::CertificateParams::new(Vec::new()).expect("params");
    ca_params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = ca_params.self_signed(&ca_key).expect("self-signed");
    let issuer = rcgen::Issuer::new(ca_params, ca_key);
    let leaf = |names: Vec<String>, usage| {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::new(names).expect("params");
        params.extended_key_usages = vec![usage];
        (params, key)
    };
    let (params, key) = leaf(vec!["localhost".into()], rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    let server = params.signed_by(&key, &issuer).expect("signed");
    let write = |file: &str, text: String| {
        let path = folder.join(file);
        std::fs::write(&path, text).expect("write");
        path
    };
    let files = TlsFiles {
        default: (write("server.crt", server.pem()), write("server.key", key.serialize_pem())),
        client_ca: vec![write("ca.crt", ca.pem())],
        http2: true,
        ..TlsFiles::default()
    };
    let mut clients = Vec::new();
    let (params, key) = leaf(vec!["jane".into()], rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    clients.push((vec![params.signed_by(&key, &issuer).expect("signed").der().clone()], key));
    let (params, key) = leaf(vec!["mallory".into()], rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    clients.push((vec![params.self_signed(&key).expect("signed").der().clone()], key));
    (Files { folder }, files, clients)
}

#[tokio::test]
async fn a_wrong_client_certificate_reaches_the_handler() {
    let (_files, files, clients) = certificates("wrong");
    let ca = ClientCa::load(&files.client_ca[0]).expect("authority");
    let roots = crate::tls::certificates(&files.client_ca[0]).expect("authority");
    let settings = Arc::new(TlsSettings::load(files).expect("settings"));
    let (address, _shutdown, _task) = start(Transport::Tls(Arc::clone(&settings)), Limits::default()).await;
    for (i, (chain, key)) in clients.into_iter().enumerate() {
        assert_eq!(
            ca.verify(&chain, UnixTime::now()).is_ok(),
            i == 0,
            "only the authority's client is trusted"
        );
        for (alpn, version) in [("h2", "HTTP/2.0"), ("http/1.1", "HTTP/1.1")] {
            let stream = connect(address, &roots, (chain.clone(), &key), alpn).await;
            let got = request(stream, alpn == "h2").await;
            assert_eq!(got, format!("{version} tls=true certificates=1"), "client {i}");
        }
    }
    settings.reload().expect("the same files again");
}

use rustls_pki_types::{PrivateKeyDer, ServerName, UnixTime};

async fn connect(
    address: SocketAddr,
    roots: &[CertificateDer<'static>],
    (chain, key): (Vec<CertificateDer<'static>>, &rcgen::KeyPair),
    alpn: &str,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut store = rustls::RootCertStore::empty();
    store.add_parsable_certificates(roots.to_vec());
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(store)
        .with_client_auth_cert(chain, key)
        .expect("client certificate");
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await.expect("connect");
    let name = ServerName::try_from("localhost").expect("name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("handshake")
}

async fn request(stream: tokio_rustls::client::TlsStream<TcpStream>, version2: bool) -> String {
    let io = TokioIo::new(stream);
    let request = Request::get("https://localhost/").body(Full::<Bytes>::default()).expect("request");
    if version2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("http2");
        tokio::spawn(connection);
        text(sender.send_request(request).await.expect("answer")).await
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("http1");
        tokio::spawn(connection);
        text(sender.send_request(request).await.expect("answer")).await
    }
}
