//! Good and bad requests with the answers of an upstream kube-apiserver (`hack/upstream/http-probes` renews them): ours has to give the
//! same code, type, warnings and body, except for what is different in every server.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Deserialize;
use serde_json::Value;

use super::TestServer;

#[derive(Deserialize)]
struct Probe {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Option<Content>,
    #[serde(default)]
    code: u16,
    #[serde(default)]
    answer_headers: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    answer: String,
}

/// What a request carries.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    /// Texts, each with how often it comes: megabytes in a line.
    Repeated(Vec<(String, usize)>),
    Binary {
        base64: String,
    },
}

impl Content {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Content::Text(text) => text.clone().into_bytes(),
            Content::Repeated(parts) => {
                parts.iter().map(|(text, times)| text.repeat(*times)).collect::<String>().into()
            }
            Content::Binary { base64 } => {
                base64::engine::general_purpose::STANDARD.decode(base64).expect("base64")
            }
        }
    }
}

/// Where we differ and know it, with the reason. May only shrink.
const DIFFERENT: &[(&str, &str)] = &[];

/// The token that the probes were recorded with; a second user, jane, may nothing.
const TOKENS: &str = "probe-token,admin,1,system:masters\njane-token,jane,2,devs\n";

/// What belongs to the connection or is different in every answer.
const UNRECORDED: &[&str] = &["date", "audit-id", "content-length", "transfer-encoding", "connection"];

/// A test on a loaded machine is slow, an answer that never comes is a bug.
const ANSWER_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(60);

/// Members that no two servers share.
fn normalise(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, member) in members.iter_mut() {
                let own = matches!(
                    key.as_str(),
                    "uid" | "resourceVersion" | "creationTimestamp" | "time" | "serverAddress" | "continue"
                );
                if own && member.is_string() {
                    *member = Value::String("...".into());
                } else {
                    normalise(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalise),
        // The name of the program that made the start-up objects.
        Value::String(text) if text.starts_with("kube-apiserver") => *text = "kube-apiserver".into(),
        Value::String(text) if text.contains("the UID in record") => without_uid(text),
        // The age in a Table's row.
        Value::String(text) if text.ends_with('s') && text.trim_end_matches('s').parse::<u32>().is_ok() => {
            *text = "...".into();
        }
        _ => {}
    }
}

/// A message that quotes the object's own uid.
fn without_uid(text: &mut String) {
    if let (Some(from), Some(to)) = (text.find("record ("), text.rfind(')')) {
        text.replace_range(from..to, "record (...");
    }
}

fn shown(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(mut value) => {
            normalise(&mut value);
            value
        }
        Err(_) => Value::String(text.into()),
    }
}

/// What is compared of an answer.
#[derive(PartialEq)]
struct Shown {
    code: u16,
    headers: BTreeMap<String, Vec<String>>,
    body: Value,
}

impl Shown {
    fn failed(error: &dyn std::fmt::Display) -> Shown {
        Shown { code: 0, headers: BTreeMap::new(), body: Value::String(error.to_string()) }
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.code, self.headers, self.body)
    }
}

/// Sends a probe as it is, on a connection of its own: no client library may mend or refuse it.
async fn ask(server: &TestServer, tls: &tokio_rustls::TlsConnector, probe: &Probe) -> Shown {
    let tcp = tokio::net::TcpStream::connect(server.address).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = tls.connect(name, tcp).await.expect("a handshake");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    let connection = tokio::spawn(connection);
    let path = if probe.path.is_empty() { "/" } else { &probe.path };
    let uri = http::Uri::builder().path_and_query(path).build().expect("a path");
    let mut request = http::Request::builder()
        .method(probe.method.as_str())
        .uri(uri)
        .header("host", server.address.to_string())
        .header("user-agent", "probe/1")
        .header("accept-encoding", "identity");
    if !probe.headers.contains_key("authorization") {
        request = request.header("authorization", "Bearer probe-token");
    }
    for (name, value) in
        probe.headers.iter().filter(|(name, value)| *name != "authorization" || !value.is_empty())
    {
        request = request.header(name, value);
    }
    let body = probe.body.as_ref().map(Content::bytes).unwrap_or_default();
    let request = request.body(Full::new(Bytes::from(body))).expect("a request");
    let answer = async {
        let answer = match sender.send_request(request).await {
            Ok(answer) => answer,
            Err(error) => return Shown::failed(&error),
        };
        let (head, body) = answer.into_parts();
        let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in head.headers.iter().filter(|(name, _)| !UNRECORDED.contains(&name.as_str())) {
            headers.entry(name.to_string()).or_default().push(value.to_str().expect("text").into());
        }
        let bytes = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Shown::failed(&error),
        };
        Shown { code: head.status.as_u16(), headers, body: shown(&String::from_utf8_lossy(&bytes)) }
    };
    let answer = tokio::time::timeout(ANSWER_TIME_MAX, answer).await;
    let answer = answer.unwrap_or_else(|late| Shown::failed(&late));
    connection.abort();
    answer
}

fn connector(server: &TestServer) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(server.folder().join("ca.crt")).expect("PEM") {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_upstreams() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, TOKENS).expect("written");
    let flag = format!("--token-auth-file={}", tokens.display());
    let server = TestServer::start_with(&[&flag]).await.expect("a server");
    let tls = connector(&server);
    let (mut count, mut wrong) = (0, Vec::new());
    for line in include_str!("../testdata/probes.jsonl").lines() {
        let probe: Probe = serde_json::from_str(line).expect("a probe");
        if probe.method == "COMPACT" {
            server.forget_history().await.expect("compacted");
            continue;
        }
        let mut body = format!("{:?}", probe.body);
        body.truncate(300);
        let name = format!("{} {} {:?} {body}", probe.method, probe.path, probe.headers);
        let want =
            Shown { code: probe.code, headers: probe.answer_headers.clone(), body: shown(&probe.answer) };
        let got = ask(&server, &tls, &probe).await;
        let known = DIFFERENT.iter().any(|(prefix, _)| name.starts_with(prefix));
        if (got != want) != known {
            wrong.push(format!("{name}\n  want {want}\n  got  {got}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
}
