//! The tool against two servers of our own in this process: it finds nothing where nothing is, and each of many planted
//! bugs where one is.

use async_trait::async_trait;
use bytes::Bytes;
use copepod_testkit::TestServer;
use parking_lot::Mutex;
use std::collections::HashMap;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::compare::{self, Difference};
use super::run::{self, Target};
use super::script::{Request, Script, Step};
use super::server::{Answer, Http, Server, Stream};
use super::{generate, object};

const TOKEN: &str = "of-a-test";
/// Generated scripts beside those of `conformance/diff/scripts`.
const GENERATED: u64 = 25;

/// A server and what keeps it.
struct Own {
    http: Http,
    _server: TestServer,
    _folder: TempDir,
}

async fn own() -> Own {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("tokens.csv");
    std::fs::write(&file, format!("{TOKEN},admin,1,system:masters\n")).expect("written");
    let flag = format!("--token-auth-file={}", file.display());
    let server = TestServer::start_with(&[flag.as_str()]).await.expect("a server");
    let ca = server.folder().join("ca.crt");
    let http = Http::connect(server.address, &ca, TOKEN).await.expect("a client");
    Own { http, _server: server, _folder: folder }
}

fn written() -> Vec<Script> {
    let folder = crate::root().join("conformance/diff/scripts");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("scripts").map(|f| f.expect("a file").path()).collect();
    files.sort();
    let read = |file| Script::parse(&std::fs::read_to_string(file).expect("text")).expect("a script");
    files.into_iter().map(read).collect()
}

async fn differences(
    left: &dyn Server,
    right: &dyn Server,
    scripts: &[Script],
    name: &str,
) -> Vec<Difference> {
    let mut out = Vec::new();
    for (index, script) in scripts.iter().enumerate() {
        let target = |server| Target { server, etcd: None };
        let ns = format!("{name}-{index}");
        out.extend(run::run(target(left), target(right), script, &ns).await.expect("runs"));
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_the_same_do_not_differ() {
    let (left, right) = (Box::pin(own()).await, Box::pin(own()).await);
    let subjects = object::subjects(&crate::root()).expect("the facts and the manifests");
    let subjects: Vec<_> = subjects.iter().collect();
    let mut scripts = written();
    scripts.extend((0..GENERATED).map(|number| generate::script(&subjects, 7, number)));
    let found = differences(&left.http, &right.http, &scripts, "same").await;
    assert_eq!(found, Vec::<Difference>::new());
}

/// A bug in a proxy before the right server.
struct Bug {
    name: &'static str,
    request: fn(&mut Request),
    answer: fn(&Request, &mut Answer, &mut Memory),
    /// The event's number from 0 and its line.
    event: fn(usize, String) -> Option<String>,
}

/// First answers by path.
type Memory = HashMap<String, Answer>;

const NONE: Bug = Bug { name: "", request: |_| {}, answer: |_, _, _| {}, event: |_, line| Some(line) };

struct Planted<'a> {
    inner: &'a Http,
    bug: &'a Bug,
    memory: Mutex<Memory>,
}

#[async_trait]
impl Server for Planted<'_> {
    async fn ask(&self, request: &Request, watch: bool) -> anyhow::Result<(Answer, Option<Stream>)> {
        let mut request = request.clone();
        // What prepares a script is not its subject.
        if request.headers.iter().any(|(_, value)| value == "prepare/1") {
            return self.inner.ask(&request, watch).await;
        }
        (self.bug.request)(&mut request);
        let (mut answer, stream) = self.inner.ask(&request, watch).await?;
        (self.bug.answer)(&request, &mut answer, &mut self.memory.lock());
        let event = self.bug.event;
        Ok((answer, stream.map(|stream| through(stream, event))))
    }
}

fn through(mut stream: Stream, event: fn(usize, String) -> Option<String>) -> Stream {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let (mut buffer, mut count) = (Vec::new(), 0);
        while let Some(piece) = stream.recv().await {
            buffer.extend_from_slice(&piece);
            for line in super::wire::take_events(&mut buffer, "application/json") {
                let shown = event(count, line);
                count += 1;
                if let Some(line) = shown
                    && sender.send(Bytes::from(format!("{line}\n"))).await.is_err()
                {
                    return;
                }
            }
        }
    });
    receiver
}

fn without(request: &mut Request, parameter: &str) {
    let Some((path, query)) = request.path.split_once('?') else { return };
    let rest: Vec<&str> = query.split('&').filter(|p| !p.starts_with(parameter)).collect();
    request.path = format!("{path}?{}", rest.join("&"));
}

fn replace(answer: &mut Answer, from: &str, to: &str) {
    answer.body = String::from_utf8_lossy(&answer.body).replace(from, to).into();
}

/// Replaces the first value of a string member in writes' answers.
fn other_value(answer: &mut Answer, member: &str, change: impl Fn(&str) -> String) {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let start = format!("\"{member}\":\"");
    if let Some((before, rest)) = text.split_once(&start)
        && let Some((value, after)) = rest.split_once('"')
    {
        answer.body = format!("{before}{start}{}\"{after}", change(value)).into();
    }
}

#[rustfmt::skip]
const BUGS: &[Bug] = &[
    Bug { name: "a watch event is dropped", event: |n, line| (n != 1).then_some(line), ..NONE },
    Bug { name: "a deletion is shown as a change", event: |_, line| Some(line.replace("\"DELETED\"", "\"MODIFIED\"")), ..NONE },
    Bug { name: "an event is shown twice", event: |n, line| Some(if n == 1 { format!("{line}\n{line}") } else { line }), ..NONE },
    Bug { name: "the end of the first state is not told", event: |_, line| (!line.contains("BOOKMARK")).then_some(line), ..NONE },
    Bug { name: "a default is wrong", answer: |_, a, _| replace(a, "\"terminationMessagePath\":\"/dev/termination-log\"", "\"terminationMessagePath\":\"/dev/log\""), ..NONE },
    Bug { name: "a default is missing", answer: |_, a, _| replace(a, "\"restartPolicy\":\"Always\",", ""), ..NONE },
    Bug { name: "a list ignores its label selector", request: |r| if !r.path.contains("watch") { without(r, "labelSelector") }, ..NONE },
    Bug { name: "a watch ignores its label selector", request: |r| if r.path.contains("watch") { without(r, "labelSelector") }, ..NONE },
    Bug { name: "the limit of a list is ignored", request: |r| without(r, "limit"), ..NONE },
    Bug { name: "a page starts at the beginning", request: |r| without(r, "continue"), ..NONE },
    Bug {
        name: "a list after a write is stale",
        answer: |r, a, memory| {
            if r.method == "GET" && r.path.ends_with("/configmaps") && a.code == 200 {
                *a = memory.entry(r.path.clone()).or_insert_with(|| a.clone()).clone();
            }
        },
        ..NONE
    },
    Bug { name: "a status code is wrong", answer: |_, a, _| if a.code == 201 { a.code = 200 }, ..NONE },
    Bug { name: "a conflict is let pass", request: |r| if r.path.contains("fieldManager") { r.path.push_str("&force=true") }, ..NONE },
    Bug {
        name: "finalizers are lost",
        request: |r| r.body = String::from_utf8_lossy(&r.body).replace("\"finalizers\"", "\"annotations_\"").into_bytes(),
        ..NONE
    },
    Bug { name: "an update gives another uid", answer: |r, a, _| if r.method == "PUT" { other_value(a, "uid", |v| format!("00000000{}", &v[8..])) }, ..NONE },
    Bug { name: "an update that changes nothing writes", answer: |r, a, _| if r.method == "PUT" { other_value(a, "resourceVersion", |v| format!("{v}0")) }, ..NONE },
    Bug { name: "a dry run is none", request: |r| without(r, "dryRun"), ..NONE },
    Bug { name: "unknown fields are let pass", request: |r| without(r, "fieldValidation"), ..NONE },
    Bug { name: "preconditions are ignored", request: |r| if r.method == "DELETE" { r.body.clear() }, ..NONE },
    Bug { name: "the field manager is not the client", answer: |_, a, _| replace(a, "\"manager\":\"m1\"", "\"manager\":\"unknown\""), ..NONE },
    Bug { name: "a generation is not counted", answer: |_, a, _| replace(a, "\"generation\":2", "\"generation\":1"), ..NONE },
    Bug { name: "warnings are not sent", answer: |_, a, _| a.headers.retain(|(n, _)| n != "warning"), ..NONE },
    Bug { name: "requests are not told in the audit", answer: |_, a, _| a.headers.retain(|(n, _)| n != "audit-id"), ..NONE },
    Bug { name: "a media type is wrong", answer: |_, a, _| a.headers.iter_mut().filter(|(n, _)| n == "content-type").for_each(|(_, v)| *v = "text/plain".into()), ..NONE },
    Bug { name: "members stand in another order", answer: |_, a, _| replace(a, "\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\"", "\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\""), ..NONE },
    Bug { name: "an answer never ends in a newline", answer: |_, a, _| a.body = Bytes::copy_from_slice(a.body.trim_ascii_end()), ..NONE },
];

#[tokio::test(flavor = "multi_thread")]
async fn planted_bugs_are_caught() {
    let (left, right) = (Box::pin(own()).await, Box::pin(own()).await);
    let scripts = written();
    let mut missed = Vec::new();
    for (number, bug) in BUGS.iter().enumerate() {
        let planted = Planted { inner: &right.http, bug, memory: Mutex::default() };
        let found = differences(&left.http, &planted, &scripts, &format!("bug-{number}")).await;
        if found.is_empty() {
            missed.push(bug.name);
        }
    }
    assert_eq!(missed, Vec::<&str>::new(), "not caught, of {}", BUGS.len());
}

#[test]
fn what_is_accepted_is_named_by_its_cause() {
    let list =
        super::report::AcceptedList::parse("- cause: ^create pods\n  reason: known\n").expect("a list");
    assert_eq!(list.reason("create pods: code 201 but 500"), Some("known"));
    assert_eq!(list.reason("get pods: code 201 but 500"), None);
}

/// The order in which upstream looks at a Go map says nothing; any other order does.
#[test]
fn causes_of_maps_come_in_any_order() {
    let status = |fields: &[&str]| {
        let causes: Vec<_> = fields.iter().map(|f| serde_json::json!({"field": f, "message": "m"})).collect();
        let message = fields.join(" ");
        serde_json::json!({"kind": "Status", "message": message, "details": {"causes": causes}}).to_string()
    };
    let [a, b] = ["spec.containers[0].resources.requests[pods]", "spec.containers[0].resources.requests"];
    assert_eq!(compare::bodies(&status(&[a, b, "x"]), &status(&[b, a, "x"])), Vec::<String>::new());
    assert_eq!(
        compare::bodies(&status(&["x", "y", a]), &status(&["y", "x", a])),
        ["causes in another order"]
    );
}

#[test]
fn what_is_missing_is_told_with_the_type_beside_it() {
    let missing = |theirs: &str, ours: &str| compare::bodies(theirs, ours);
    assert_eq!(missing(r#"{"type":"A","x":1}"#, r#"{"type":"A"}"#), ["/x is missing (N, type A)"]);
    assert_eq!(missing(r#"{"x":1}"#, "{}"), ["/x is missing (N)"]);
}

/// The results are for reading and for a repository: no example of what is accepted, a short one of what is open.
#[test]
fn results_keep_short_examples_of_open_causes_only() {
    let long = "x".repeat(100_000);
    let step = Step { ask: "POST /api/v1/namespaces".into(), text: Some(long.clone()), ..Step::default() };
    let script = Script { name: "seed 1 script 0: namespaces".into(), steps: vec![step] };
    let difference = |cause: &str| Difference {
        step: 0,
        cause: cause.into(),
        resource: "namespaces".into(),
        upstream: format!("200\nx-kubernetes-pf-flowschema-uid: present\n{long}a"),
        ours: format!("200\n{long}b"),
        hard: false,
    };
    let mut causes = super::report::Causes::default();
    causes.add(&script, &[difference("known"), difference("open")]);
    let list = super::report::AcceptedList::parse("- cause: ^known\n  reason: why\n").expect("a list");
    let run = super::report::Run {
        seed: 1,
        requests: 1,
        scripts: 1,
        kinds: Vec::new(),
        upstream: "v1".into(),
        commit: "c".into(),
    };
    let text = super::report::results(&run, &causes, &list).expect("results");
    assert!(text.len() < 3000, "{} bytes", text.len());
    let tree: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let row = |name: &str| {
        let rows = tree["causes"].as_array().expect("rows");
        rows.iter().find(|r| r["cause"] == name).expect(name).clone()
    };
    assert!(row("known").get("example").is_none() && row("known")["accepted"] == "why");
    let example = &row("open")["example"];
    let line = |side: &str| example[side][0].as_str().expect("a line").to_string();
    assert!(line("upstream").ends_with("xa") && line("ours").ends_with("xb"), "{example}");
    assert!(example["request"].as_str().expect("text").contains("POST /api/v1/namespaces"));
}

#[test]
fn a_seed_gives_the_same_scripts_and_all_verbs() {
    let subjects = object::subjects(&crate::root()).expect("the facts and the manifests");
    let subjects: Vec<_> = subjects.iter().collect();
    let scripts = |seed| (0..400).map(|n| generate::script(&subjects, seed, n)).collect::<Vec<_>>();
    let first = scripts(1);
    assert_eq!(first, scripts(1));
    assert_ne!(first, scripts(2));
    let seen: std::collections::BTreeSet<String> = first
        .iter()
        .flat_map(|s| &s.steps)
        .map(|step| run::what(step).0.split(' ').next().unwrap_or("").to_string())
        .collect();
    for verb in [
        "create",
        "get",
        "list",
        "watch",
        "update",
        "json",
        "merge",
        "strategic",
        "apply",
        "delete",
        "deletecollection",
    ] {
        assert!(seen.contains(verb), "{verb} is in none of the scripts: {seen:?}");
    }
    for script in &first {
        let yaml = script.to_yaml().expect("YAML");
        assert_eq!(&Script::parse(&yaml).expect(&yaml), script, "{yaml}");
    }
}
