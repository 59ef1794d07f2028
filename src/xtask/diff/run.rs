//! Runs a script on two servers and compares what they say, what their watches show, and what they store.

use anyhow::{Context as _, bail};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::compare::{self, Difference, Seen};
use super::etcd::Etcd;
use super::normal::Names;
use super::script::{Known, Request, Script, Step};
use super::server::{Answer, Server, Stream};
use super::wire;

/// So long both sides may take to show the same number of events.
const EVENTS_TIME_MAX: Duration = Duration::from_secs(3);
/// So long nothing more may come before the events are counted as complete.
const EVENTS_QUIET: Duration = Duration::from_millis(60);

/// One of the two.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Answers.
    pub server: &'a dyn Server,
    /// Stores; without it the store is not compared.
    pub etcd: Option<&'a Etcd>,
}

/// What one side showed.
struct Lane<'a> {
    target: Target<'a>,
    names: Names,
    known: Known,
    watches: Vec<Watch>,
    created: Vec<String>,
    revision: i64,
}

struct Watch {
    step: usize,
    content_type: String,
    stream: Stream,
    buffer: Vec<u8>,
    events: Vec<String>,
}

/// Runs `script` in the namespace `ns`, which must be new.
pub async fn run(
    upstream: Target<'_>,
    ours: Target<'_>,
    script: &Script,
    ns: &str,
) -> anyhow::Result<Vec<Difference>> {
    let text = serde_json::to_string(script)?;
    let mut lanes = [Lane::new(upstream, text.clone()), Lane::new(ours, text)];
    for lane in &mut lanes {
        lane.prepare(ns).await?;
    }
    let mut differences = Vec::new();
    for (index, step) in script.steps.iter().enumerate() {
        let [left, right] = &mut lanes;
        let (theirs, own) = tokio::try_join!(left.step(index, step, ns), right.step(index, step, ns))?;
        let found = {
            let (verb, resource) = what(step);
            compare::answers(index, (&verb, &resource), &theirs, &own)
        };
        let hard = found.iter().any(|d| d.hard);
        differences.extend(found);
        if hard {
            // What follows would differ because of this.
            clean_up(&mut lanes).await?;
            return Ok(differences);
        }
    }
    differences.extend(watches(&mut lanes, script).await);
    differences.extend(stored(&mut lanes, script.steps.len()).await?);
    clean_up(&mut lanes).await?;
    Ok(differences)
}

/// A step in general terms: (`create`, `pods`), (`apply`, `deployments/status`).
pub fn what(step: &Step) -> (String, String) {
    let (method, path) = step.ask.split_once(' ').unwrap_or(("", ""));
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let group_parts = if parts.first() == Some(&"api") { 2 } else { 3 };
    parts.drain(..group_parts.min(parts.len()));
    if parts.len() > 2 && parts[0] == "namespaces" && !matches!(parts[2], "status" | "finalize") {
        parts.drain(..2);
    }
    let named = parts.len() > 1;
    let resource = match parts.as_slice() {
        [resource, _, sub] => format!("{resource}/{sub}"),
        [resource, ..] => (*resource).to_string(),
        [] => path.to_string(),
    };
    let verb = match method {
        _ if query.contains("watch=") => "watch",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => match step.content_type.as_str() {
            t if t.contains("apply") => "apply",
            t if t.contains("strategic") => "strategic patch",
            t if t.contains("merge") => "merge patch",
            _ => "json patch",
        },
        "DELETE" if named => "delete",
        "DELETE" => "deletecollection",
        _ if named => "get",
        _ => "list",
    };
    // Other forms of an answer come out of other code.
    let form = match step.accept.as_str() {
        a if a.contains("as=Table") => " as table",
        a if a.contains("as=PartialObjectMetadata") => " as metadata",
        _ => "",
    };
    (format!("{verb}{form}"), resource)
}

impl<'a> Lane<'a> {
    fn new(target: Target<'a>, script: String) -> Lane<'a> {
        Lane {
            target,
            names: Names::new(script),
            known: Known::new(),
            watches: Vec::new(),
            created: Vec::new(),
            revision: 0,
        }
    }

    /// Makes the namespace and what a controller would put there.
    async fn prepare(&mut self, ns: &str) -> anyhow::Result<()> {
        for (path, body) in [
            (
                "/api/v1/namespaces".to_string(),
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns}}),
            ),
            (
                format!("/api/v1/namespaces/{ns}/serviceaccounts"),
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
            ),
        ] {
            let answer = self.own("POST", &path, Some(body)).await?;
            if answer.code != 201 {
                bail!("{path}: {} {}", answer.code, String::from_utf8_lossy(&answer.body));
            }
        }
        if let Some(etcd) = self.target.etcd {
            self.revision = etcd.revision().await?;
        }
        Ok(())
    }

    /// A request of the tool's own.
    async fn own(&self, method: &str, path: &str, body: Option<Json>) -> anyhow::Result<Answer> {
        let ty = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let headers = vec![
            ("accept".into(), "application/json".into()),
            ("content-type".into(), ty.into()),
            ("user-agent".into(), "prepare/1".into()),
        ];
        let body = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
        let request = Request { method: method.into(), path: path.into(), headers, body };
        Ok(self.target.server.ask(&request, false).await?.0)
    }

    async fn step(&mut self, index: usize, step: &Step, ns: &str) -> anyhow::Result<Seen> {
        let request = step.request(ns, &self.known)?;
        let (answer, stream) =
            self.target.server.ask(&request, step.watches()).await.with_context(|| step.ask.clone())?;
        if let Some(stream) = stream {
            self.watches.push(Watch {
                step: index,
                content_type: answer.content_type().into(),
                stream,
                buffer: Vec::new(),
                events: Vec::new(),
            });
        }
        let text = wire::to_json_text(&answer.body, answer.content_type());
        let tree: Json = serde_json::from_str(text.trim()).unwrap_or_default();
        self.remember(&request, &answer, &tree);
        if !step.id.is_empty() {
            self.known.insert(step.id.clone(), tree);
        }
        let body = self.names.text(&text);
        Ok(Seen { code: answer.code, headers: Seen::headers(&answer, |v| self.names.text(v)), body })
    }

    fn remember(&mut self, request: &Request, answer: &Answer, tree: &Json) {
        let text = |name: &str| tree["metadata"][name].as_str().unwrap_or("");
        // What no namespace holds, and what holds something of the whole cluster, is taken away in the end.
        let path = request.path.split('?').next().unwrap_or("");
        let shared = !path.contains("/namespaces/") || path.ends_with("/services");
        let made = matches!(answer.code, 201) && !request.path.contains("dryRun");
        if made && shared && !text("name").is_empty() {
            let name = text("name");
            let path = if request.method == "POST" { format!("{path}/{name}") } else { path.to_string() };
            self.created.push(path);
        }
    }

    /// Puts what has come into events. True if something has.
    fn drain(&mut self) -> bool {
        let mut news = false;
        for watch in &mut self.watches {
            while let Ok(piece) = watch.stream.try_recv() {
                watch.buffer.extend_from_slice(&piece);
                let events = wire::take_events(&mut watch.buffer, &watch.content_type);
                // Bookmarks come when they like, but for the one after the first state.
                let events = events
                    .into_iter()
                    .filter(|e| !e.contains("\"type\":\"BOOKMARK\"") || e.contains("initial-events-end"));
                watch.events.extend(events);
                news = true;
            }
        }
        news
    }

    fn counts(&self) -> Vec<usize> {
        self.watches.iter().map(|w| w.events.len()).collect()
    }
}

async fn watches(lanes: &mut [Lane<'_>; 2], script: &Script) -> Vec<Difference> {
    if lanes[0].watches.is_empty() {
        return Vec::new();
    }
    let start = Instant::now();
    let mut quiet = Instant::now();
    while start.elapsed() < EVENTS_TIME_MAX {
        let news = [lanes[0].drain(), lanes[1].drain()];
        if news.contains(&true) {
            quiet = Instant::now();
        }
        if quiet.elapsed() > EVENTS_QUIET && lanes[0].counts() == lanes[1].counts() {
            break;
        }
        // The two streams have nothing that both could be awaited by; a few milliseconds cost nothing here.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let [theirs, own] = lanes;
    let mut out = Vec::new();
    for (their_watch, own_watch) in theirs.watches.iter().zip(&own.watches) {
        let step = their_watch.step;
        let (verb, resource) = script.steps.get(step).map(what).unwrap_or_default();
        let their_events: Vec<String> = their_watch.events.iter().map(|e| theirs.names.text(e)).collect();
        let own_events: Vec<String> = own_watch.events.iter().map(|e| own.names.text(e)).collect();
        out.extend(events(step, (&verb, &resource), &their_events, &own_events));
    }
    out
}

/// Compares two streams event by event; what follows a difference in kind or number is not looked at.
pub fn events(
    step: usize,
    (verb, resource): (&str, &str),
    upstream: &[String],
    ours: &[String],
) -> Vec<Difference> {
    let kind = |event: Option<&String>| -> String {
        let tree = event.map(|e| serde_json::from_str::<Json>(e).unwrap_or_default());
        tree.map_or("nothing".into(), |t| t["type"].as_str().unwrap_or("garbage").to_string())
    };
    for index in 0..upstream.len().max(ours.len()) {
        let (their, own) = (upstream.get(index), ours.get(index));
        let difference = |cause: String| Difference {
            step,
            cause: format!("{verb}: event {cause}"),
            resource: resource.into(),
            upstream: upstream.join("\n"),
            ours: ours.join("\n"),
            hard: false,
        };
        if kind(their) != kind(own) {
            return vec![difference(format!("{} but {}", kind(their), kind(own)))];
        }
        let found = compare::bodies(their.map_or("", |e| e), own.map_or("", |e| e));
        if !found.is_empty() {
            return found.into_iter().map(|c| difference(format!("{}: {c}", kind(their)))).collect();
        }
    }
    Vec::new()
}

async fn stored(lanes: &mut [Lane<'_>; 2], step: usize) -> anyhow::Result<Vec<Difference>> {
    let (Some(their_etcd), Some(own_etcd)) = (lanes[0].target.etcd, lanes[1].target.etcd) else {
        return Ok(Vec::new());
    };
    let theirs = their_etcd.since(lanes[0].revision).await?;
    let own = own_etcd.since(lanes[1].revision).await?;
    let text = |names: &mut Names, (key, stored): (&String, &super::etcd::Stored)| {
        let body = names.text(&wire::to_json_text(&stored.value, ""));
        let leased = if stored.leased { "with a lease" } else { "" };
        (names.text(key), format!("{leased}{body}"))
    };
    // Some keys are of the servers' choice (an address), so that their order is none: names are given in the order of what the
    // pairs look like one by one.
    let named = |names: &mut Names, stored: &BTreeMap<String, super::etcd::Stored>| -> BTreeMap<_, _> {
        let mut pairs: Vec<_> = stored.iter().collect();
        pairs.sort_by_cached_key(|pair| text(&mut names.clone(), *pair));
        pairs.into_iter().map(|pair| text(names, pair)).collect()
    };
    let [left, right] = lanes;
    let theirs = named(&mut left.names, &theirs);
    let own = named(&mut right.names, &own);
    let mut out = Vec::new();
    let nothing = String::new();
    let keys: BTreeSet<&String> = theirs.keys().chain(own.keys()).collect();
    for key in keys {
        let (t, o) = (theirs.get(key), own.get(key));
        let causes = match (t, o) {
            (Some(t), Some(o)) => compare::bodies(t, o),
            (Some(_), None) => vec!["is not written".into()],
            (None, _) => vec!["is written by us only".into()],
        };
        let place: String = key.split('/').take(4).collect::<Vec<_>>().join("/");
        out.extend(causes.into_iter().map(|cause| Difference {
            step,
            cause: format!("etcd: {cause}"),
            resource: place.trim_start_matches("/registry/").split('/').next().unwrap_or("").into(),
            upstream: format!("{key}\n{}", t.unwrap_or(&nothing)),
            ours: format!("{key}\n{}", o.unwrap_or(&nothing)),
            hard: false,
        }));
    }
    Ok(out)
}

/// Takes away what would be seen by other scripts.
async fn clean_up(lanes: &mut [Lane<'_>; 2]) -> anyhow::Result<()> {
    for lane in lanes {
        lane.watches.clear();
        for path in std::mem::take(&mut lane.created).into_iter().rev() {
            let free = json!({"metadata": {"finalizers": null}});
            // What is gone already is as good.
            lane.own("PATCH", &path, Some(free)).await?;
            lane.own("DELETE", &format!("{path}?gracePeriodSeconds=0"), None).await?;
            if path.starts_with("/api/v1/namespaces/")
                && !path.trim_start_matches("/api/v1/namespaces/").contains('/')
            {
                let answer = lane.own("GET", &path, None).await?;
                if answer.code == 200 {
                    let mut namespace: Json = serde_json::from_slice(&answer.body)?;
                    namespace["spec"]["finalizers"] = json!([]);
                    lane.own("PUT", &format!("{path}/finalize"), Some(namespace)).await?;
                }
            }
        }
    }
    Ok(())
}
