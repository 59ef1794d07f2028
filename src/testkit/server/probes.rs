//! Good and bad requests with the answers of an upstream kube-apiserver (`hack/upstream/http-probes` renews them): ours has to give the
//! same code, type, warnings and body, except for what is different in every server.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use regex::Regex;
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

/// Where we differ and know it: a part of the answer wanted, or of the probe, and the reason. May only shrink.
const DIFFERENT: &[(&str, &str)] = &[
    (
        r#"Invalid value: {\"name\":\"x\",\"managedFields\""#,
        "an object quoted in a message: members in order of their names, not of Go's fields",
    ),
    (r#"Invalid value: {\"Path\":"#, "the same, and the names are those of Go's fields"),
    (
        r#"}]}}\": converting (v1.Pod)"#,
        "a patch that makes another kind of an object: the words of upstream's conversion between Go types",
    ),
    (r#"}]}}\": no kind \"ConfigMap\""#, "the same for a version that there is not"),
    ("%!s(int64=1)", "a slip of upstream's formatting"),
    (
        "map: map[x:z] does not contain declared merge key: name",
        "an order without its merge key is left alone",
    ),
    (
        "message larger than max",
        "the limit of upstream's etcd client: ours is etcd's, and says so in etcd's words",
    ),
    ("yaml: mapping values are not allowed", "broken YAML, in another parser's words"),
    ("yaml: unknown anchor", "the same"),
    ("did not find expected", "the same"),
    ("yaml: found unexpected end of stream", "the same"),
    ("yaml: exceeded max depth of 10000", "the same"),
    ("yaml: invalid map key: []interface", "the same"),
    ("found character that cannot start any token", "our YAML parser takes a tab before a key"),
    (r#"no kind \"x\" is registered"#, "kind is read whatever the case of its letters; ours is not"),
    (r#"GET /openapi/v3 {"accept""#, "sent as JSON, without Last-Modified and ranges"),
    ("GET /debug/pprof/nope", "no profiles of Go"),
    ("GET /index.html", "the list of paths: those that are served here"),
];

/// Checks of parts that this server does not have. May only shrink.
const UNCHECKED: &[&str] = &[
    "loopback-serving-certificate",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/peer-endpoint-reconciler-controller",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/apiservice-openapi-controller",
    "poststarthook/apiservice-openapiv3-controller",
];

/// The token that the probes were recorded with; a second user, jane, may nothing.
const TOKENS: &str = "probe-token,admin,1,system:masters\njane-token,jane,2,devs\n";

/// What belongs to the connection or is different in every answer.
const UNRECORDED: &[&str] = &["date", "audit-id", "content-length", "transfer-encoding", "connection"];

/// A test on a loaded machine is slow, an answer that never comes is a bug.
const ANSWER_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(60);

/// Members that no two servers share.
const OWN: &[&str] = &[
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "time",
    "serverAddress",
    "continue",
    "client-ca-file",
    "buildDate",
    "compiler",
    "gitCommit",
    "gitVersion",
    "goVersion",
    "etag",
    "hash",
];

/// Texts that no two servers share, and what stands for them.
fn patterns() -> Vec<(Regex, &'static str)> {
    [
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
        // The day of the server's first start, in a ConfigMap of its own.
        (r"^\d{4}-\d\d-\d\d$", "DAY"),
        (r#"(current: |resourceVersion(?:\\?"|):\s?\\?")\d+"#, "${1}REVISION"),
        (r"\?hash=[0-9A-F]{128}", "?hash=HASH"),
        // A generated name.
        (r"(A_|g{50,58})[0-9a-z]{5}\b", "${1}RANDOM"),
        // The age in a Table's row.
        (r"^\d+s$", "AGE"),
        // The name of the program that made the start-up objects.
        (r"^kube-apiserver.*$", "kube-apiserver"),
    ]
    .into_iter()
    .map(|(pattern, to)| (Regex::new(pattern).expect("a pattern"), to))
    .collect()
}

fn normalise(value: &mut Value, patterns: &[(Regex, &str)]) {
    match value {
        Value::Object(members) => {
            for (key, member) in members.iter_mut() {
                if OWN.contains(&key.as_str()) && member.is_string() {
                    *member = Value::String("...".into());
                } else {
                    normalise(member, patterns);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| normalise(item, patterns)),
        Value::String(text) => {
            for (pattern, to) in patterns {
                if let std::borrow::Cow::Owned(replaced) = pattern.replace_all(text, *to) {
                    *text = replaced;
                }
            }
        }
        _ => {}
    }
}

fn shown(text: &str, patterns: &[(Regex, &str)]) -> Value {
    let mut value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.into()));
    normalise(&mut value, patterns);
    value
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
async fn ask(
    server: &TestServer,
    tls: &tokio_rustls::TlsConnector,
    patterns: &[(Regex, &str)],
    probe: &Probe,
) -> Shown {
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
        Shown { code: head.status.as_u16(), headers, body: shown(&String::from_utf8_lossy(&bytes), patterns) }
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
    let patterns = patterns();
    let (mut count, mut wrong, mut used) = (0, Vec::new(), vec![false; DIFFERENT.len()]);
    for line in include_str!("../testdata/probes.jsonl").lines() {
        let probe: Probe = serde_json::from_str(line).expect("a probe");
        if probe.method == "COMPACT" {
            server.forget_history().await.expect("compacted");
            continue;
        }
        let mut body = format!("{:?}", probe.body);
        body.truncate(300);
        let name = format!("{} {} {:?} {body}", probe.method, probe.path, probe.headers);
        let mut want = Shown {
            code: probe.code,
            headers: probe.answer_headers.clone(),
            body: shown(&probe.answer, &patterns),
        };
        let got = ask(&server, &tls, &patterns, &probe).await;
        if let Value::String(text) = &mut want.body {
            let missing = |line: &&str| UNCHECKED.iter().any(|name| *line == format!("[+]{name} ok"));
            *text = text.split('\n').filter(|line| !missing(line)).collect::<Vec<_>>().join("\n");
        }
        let described = format!("{name} {want}");
        let known = DIFFERENT.iter().position(|(part, _)| described.contains(part));
        if let Some(known) = known {
            used[known] = true;
        }
        if (got != want) != known.is_some() {
            wrong.push(format!("{name}\n  want {want}\n  got  {got}"));
        }
        count += 1;
    }
    let unused: Vec<_> = DIFFERENT.iter().zip(used).filter(|(_, used)| !used).map(|(d, _)| d.0).collect();
    assert!(unused.is_empty(), "no probe is so: {unused:?}");
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
}
