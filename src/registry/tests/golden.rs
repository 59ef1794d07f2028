//! The same requests to upstream's server and to ours: `golden/steps.tsv` (verb, path, media type, body, and why an answer is
//! known to differ), `golden/answers.tsv` (upstream's code and body). Renew the answers with `golden/record`.
//!
//! Compared as trees, after what differs by nature (uids, times, revisions, random names, addresses and ports) is levelled.
//! A step with a reason must differ: the list of reasons only shrinks.

use copepod_codec as codec;
use copepod_meta::{CompactString, Map, Status, Value, debug_json};

use super::harness::{Answered, Server};

#[tokio::test]
async fn answers_are_upstreams() {
    let server = Server::new().await;
    let steps = include_str!("golden/steps.tsv").lines();
    let answers = include_str!("golden/answers.tsv").lines();
    let mut wrong = Vec::new();
    let mut count = 0;
    for (i, (step, answer)) in steps.zip(answers).enumerate() {
        let mut parts = step.split('\t');
        let mut part = || parts.next().unwrap_or("");
        let (verb, path, media, body, reason) = (part(), part(), part(), part(), part());
        let (code, theirs) = answer.split_once('\t').expect("a code and a body");
        let theirs = codec::decode_untyped(theirs.as_bytes()).expect("upstream's JSON").0;
        let ours = answered(&server, verb, path, media, body).await;
        let same = ours.0.to_string() == code && level(&ours.1) == level(&theirs);
        count += 1;
        if same != reason.is_empty() {
            let (a, b) = (debug_json::to_string(&level(&ours.1)), debug_json::to_string(&level(&theirs)));
            wrong.push(format!(
                "step {} {verb} {path} {body}\n  ours   {} {a}\n  theirs {code} {b}",
                i + 1,
                ours.0
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {count} answers:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 100, "the goldens are there");
}

/// Our answer as the edge would give it: code and tree.
async fn answered(server: &Server, verb: &str, path: &str, media: &str, body: &str) -> (u16, Value) {
    let body = if body == "-" { "" } else { body };
    let is_collection = server.is_collection(path);
    let verb = match (verb, media) {
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("DELETE", _) if is_collection => "deletecollection",
        ("DELETE", _) => "delete",
        ("GET", _) if is_collection => "list",
        ("GET", _) => "get",
        (_, "application/merge-patch+json") => "patch:merge",
        (_, "application/json-patch+json") => "patch:json",
        (_, "application/strategic-merge-patch+json") => "patch:strategic",
        _ => "patch:apply",
    };
    match server.send(verb, path, body, "admin").await {
        Ok(Answered { code, mut tree, .. }) => {
            if is_collection && matches!(verb, "list" | "deletecollection") {
                let gvk = server.list_gvk(path);
                type_meta(&mut tree, &gvk.kind, &gvk.api_version());
            } else if tree.get("kind").is_null() {
                // A Status of success; it says no code where upstream's says none.
                type_meta(&mut tree, "Status", "v1");
                if tree.int_at(&["code"]) == 0 {
                    tree.remove(&["code"]);
                }
            }
            (code, tree)
        }
        Err(status) => (status.code, refusal(&status)),
    }
}

fn refusal(status: &Status) -> Value {
    let mut tree = status.to_value();
    type_meta(&mut tree, "Status", "v1");
    tree
}

fn type_meta(tree: &mut Value, kind: &str, api_version: &str) {
    tree.set(&["kind"], kind);
    tree.set(&["apiVersion"], api_version);
}

/// Without what differs by nature.
fn level(value: &Value) -> Value {
    match value {
        Value::Map(map) => {
            let entries = map.iter().map(|(key, value)| (CompactString::from(key), level_member(key, value)));
            Value::Map(entries.collect::<Map>())
        }
        Value::List(items) => Value::List(items.iter().map(level).collect()),
        Value::Raw(json) => codec::decode_untyped(json).map_or(Value::Null, |(tree, _)| level(&tree)),
        other => other.clone(),
    }
}

fn level_member(key: &str, value: &Value) -> Value {
    let text = value.as_str().unwrap_or("");
    let is_given = matches!(text, "" | "None");
    match key {
        "uid" | "resourceVersion" | "creationTimestamp" | "deletionTimestamp" | "time"
            if !text.is_empty() =>
        {
            Value::string("*")
        }
        "lastTransitionTime" if !text.is_empty() => Value::string("*"),
        "batch.kubernetes.io/controller-uid" | "controller-uid" => Value::string("*"),
        "clusterIP" if !is_given => Value::string("*"),
        "clusterIPs" if !value.list_at(&[]).contains(&Value::string("None")) => {
            Value::List(value.list_at(&[]).iter().map(|_| Value::string("*")).collect())
        }
        "nodePort" | "healthCheckNodePort" if value.as_int().is_some_and(|p| p >= 30000) => {
            Value::string("*")
        }
        "name" if text.starts_with("gen-") => Value::string("gen-*"),
        "message" => Value::string(level_text(text)),
        _ => level(value),
    }
}

/// A message without the uids in it.
fn level_text(text: &str) -> String {
    let is_uid = |word: &str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_hexdigit());
        word.len() == 36 && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
    };
    let words: Vec<&str> = text.split(' ').map(|word| if is_uid(word) { "*" } else { word }).collect();
    words.join(" ")
}
