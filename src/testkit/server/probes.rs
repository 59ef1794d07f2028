//! Good and bad requests with the answers of an upstream kube-apiserver (`hack/upstream/http-probes` renews them): ours has to give the
//! same code, type, warnings and body, except for what is different in every server.

use http_body_util::BodyExt as _;
use kube::client::Body;
use serde::Deserialize;
use serde_json::Value;

use super::TestServer;

#[derive(Deserialize)]
struct Probe {
    method: String,
    path: String,
    headers: std::collections::BTreeMap<String, String>,
    body: Option<String>,
    code: u16,
    r#type: String,
    warnings: Vec<String>,
    answer: String,
}

/// Where we differ and know it, with the reason. May only shrink.
const DIFFERENT: &[(&str, &str)] = &[];

/// A test on a loaded machine is slow, an answer that never comes is a bug.
const ANSWER_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(20);

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

async fn ask(client: &kube::Client, probe: &Probe) -> (u16, String, Vec<String>, Value) {
    let mut request = http::Request::builder()
        .method(probe.method.as_str())
        .uri(&probe.path)
        .header("user-agent", "probe/1");
    for (name, value) in &probe.headers {
        request = request.header(name, value);
    }
    let body = probe.body.clone().unwrap_or_default().into_bytes();
    let request = request.body(Body::from(body)).expect("a request");
    let answer = tokio::time::timeout(ANSWER_TIME_MAX, client.send(request)).await;
    let Ok(answer) = answer else { return (0, "no answer".into(), Vec::new(), Value::Null) };
    let (head, body) = answer.expect("an answer").into_parts();
    let text = |name: &str| head.headers.get_all(name).iter().map(|v| v.to_str().expect("text").to_string());
    let warnings = text("warning").collect();
    let ty = text("content-type").next().unwrap_or_default();
    let Ok(bytes) = tokio::time::timeout(ANSWER_TIME_MAX, body.collect()).await else {
        return (head.status.as_u16(), "no end".into(), warnings, Value::Null);
    };
    let bytes = bytes.expect("a body").to_bytes();
    (head.status.as_u16(), ty, warnings, shown(&String::from_utf8_lossy(&bytes)))
}

fn print((code, ty, warnings, body): &(u16, String, Vec<String>, Value)) -> String {
    format!("{code} {ty} {warnings:?} {body}")
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_upstreams() {
    let server = TestServer::start().await.expect("a server");
    let client =
        super::client_that_asks_once(&server.kubeconfig().expect("a kubeconfig")).await.expect("a client");
    let (mut count, mut wrong) = (0, Vec::new());
    for line in include_str!("../testdata/probes.jsonl").lines() {
        let probe: Probe = serde_json::from_str(line).expect("a probe");
        let name = format!("{} {} {:?} {:?}", probe.method, probe.path, probe.headers, probe.body);
        let want = (probe.code, probe.r#type.clone(), probe.warnings.clone(), shown(&probe.answer));
        let got = ask(&client, &probe).await;
        let known = DIFFERENT.iter().any(|(prefix, _)| name.starts_with(prefix));
        if (got != want) != known {
            wrong.push(format!("{name}\n  want {}\n  got  {}", print(&want), print(&got)));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
}
