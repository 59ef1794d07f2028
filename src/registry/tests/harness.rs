//! A server without HTTP, and the interpreter of the steps.

use std::sync::Arc;
use std::time::Duration;

use copepod_codec as codec;
use copepod_meta::{
    Admission, AdmissionRequest, Attributes, Authorizer, BoxFuture, Decision, Operation, RulesFor, Status,
    User, Value, debug_json,
};
use copepod_schema::Media;
use copepod_store::embedded::EmbeddedStore;

use crate::api::*;
use crate::registry::{
    Config, Deciders, IssuedToken, Registry, RuleResolver, TokenClaims, TokenIssuer, TokenReviewer,
};

/// Everybody but `nobody` may do everything; `limited` holds no RBAC rules and may not escalate or bind.
struct Allow;

impl Authorizer for Allow {
    fn authorize<'a>(&'a self, a: &'a Attributes) -> BoxFuture<'a, Result<Decision, Status>> {
        let limited = a.user.name == "limited" && matches!(a.verb.as_str(), "escalate" | "bind");
        let decision = if a.user.name == "nobody" || limited {
            Decision::NoOpinion { reason: "not in this test".into() }
        } else {
            Decision::Allow { reason: "tests".into() }
        };
        Box::pin(std::future::ready(Ok(decision)))
    }
    fn rules_for<'a>(&'a self, _: &'a User, _: &'a str) -> BoxFuture<'a, Result<RulesFor, Status>> {
        Box::pin(std::future::ready(Ok(RulesFor::default())))
    }
}

impl RuleResolver for Allow {
    fn missing<'a>(
        &'a self,
        user: &'a User,
        _: &'a str,
        wanted: &'a [Value],
    ) -> BoxFuture<'a, Result<Vec<String>, Status>> {
        let missing =
            if user.name == "limited" { wanted.iter().map(debug_json::to_string).collect() } else { vec![] };
        Box::pin(std::future::ready(Ok(missing)))
    }
}

impl TokenReviewer for Allow {
    fn review<'a>(
        &'a self,
        token: &'a str,
        _: &'a [String],
    ) -> BoxFuture<'a, Result<Option<(User, Vec<String>)>, Status>> {
        let user = User { name: token.into(), ..User::default() };
        Box::pin(std::future::ready(Ok((token != "bad").then_some((user, vec!["api".into()])))))
    }
}

impl TokenIssuer for Allow {
    fn issue<'a>(&'a self, claims: TokenClaims<'a>) -> BoxFuture<'a, Result<IssuedToken, Status>> {
        let token = format!(
            "{}/{}",
            claims.service_account.str_at(&["metadata", "name"]),
            claims.bound.map_or("-", |(kind, _)| kind)
        );
        let audiences =
            if claims.audiences.is_empty() { vec!["api".into()] } else { claims.audiences.to_vec() };
        let issued = IssuedToken { token, expires_unix_seconds: 1_700_000_000, audiences };
        Box::pin(std::future::ready(Ok(issued)))
    }
}

/// Labels what it admits with `admitted`, refuses what is labelled `refuse`.
struct Plugin;

impl Admission for Plugin {
    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Connect)
    }
    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        if let Some(object) = &mut request.object
            && !object.at(&["metadata", "annotations", "admit"]).is_null()
        {
            object.set(&["metadata", "annotations", "admit"], request.operation.as_str());
            request.warnings.push("admitted".into());
        }
        Box::pin(std::future::ready(Ok(())))
    }
    fn validate<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        if request.operation == Operation::Connect {
            let asked = request.object.as_ref().map(|o| debug_json::to_string(o)).unwrap_or_default();
            let why = format!(
                "no {} of {asked} by {}/{}",
                request.kind.kind, request.resource.resource, request.subresource
            );
            let answer = if request.name == "open" {
                Ok(())
            } else {
                Err(Status::forbidden(&request.resource.group_resource(), request.name, &why))
            };
            return Box::pin(std::future::ready(answer));
        }
        let refuse = request
            .object
            .as_ref()
            .is_some_and(|o| !o.str_at(&["metadata", "annotations", "refuse"]).is_empty());
        let answer = if refuse {
            Err(Status::forbidden(&request.resource.group_resource(), request.name, "the plugin says no"))
        } else {
            Ok(())
        };
        Box::pin(std::future::ready(answer))
    }
}

/// A registry and nothing else.
pub struct Server {
    pub registry: Arc<Registry>,
}

/// An answer as a tree.
#[derive(Debug)]
pub struct Answered {
    pub code: u16,
    pub tree: Value,
    pub warnings: Vec<String>,
}

/// A path of the API, taken apart.
struct Parts {
    target: Target,
    query: Vec<(String, String)>,
}

impl Server {
    pub async fn new() -> Server {
        let store = EmbeddedStore::ephemeral().expect("a store in memory");
        let config = Config {
            store: Arc::new(store),
            prefix: "/registry".into(),
            feature: |_| true,
            service_cidrs: vec!["10.0.0.0/24".parse().expect("a range")],
            node_ports: 30000..=30099,
            event_ttl: Duration::from_secs(3600),
            // As the server's.
            body_cache_bytes_max: 32 << 20,
        };
        let registry = Registry::open(config, |_, _| Deciders {
            admission: Arc::new(Plugin),
            authorizer: Arc::new(Allow),
            rules: Arc::new(Allow),
            tokens: Arc::new(Allow),
            issuer: Some(Arc::new(Allow)),
        });
        Server { registry: registry.await.expect("opens") }
    }

    fn parts(&self, url: &str) -> Parts {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let mut steps = path.trim_start_matches('/').split('/').collect::<Vec<_>>().into_iter();
        let root = steps.next().expect("a root");
        let group = if root == "apis" { steps.next().expect("a group") } else { "" };
        let version = steps.next().expect("a version");
        let mut rest: Vec<&str> = steps.collect();
        let mut namespace = "";
        if rest.len() > 2 && rest[0] == "namespaces" && !matches!(rest[2], "status" | "finalize") {
            namespace = rest[1];
            rest.drain(..2);
        }
        let served =
            self.registry.lookup(group, version, rest[0]).unwrap_or_else(|| panic!("{url} is not served"));
        let step = |i: usize| rest.get(i).copied().unwrap_or("").to_string();
        let target = Target { served, namespace: namespace.into(), name: step(1), subresource: step(2) };
        let pairs = query.split('&').filter_map(|p| p.split_once('='));
        let decode = |s: &str| s.replace("%3D", "=").replace("%21", "!").replace('+', " ");
        Parts { target, query: pairs.map(|(k, v)| (k.into(), decode(v))).collect() }
    }

    /// Whether a path names no object.
    pub fn is_collection(&self, url: &str) -> bool {
        self.parts(url).target.name.is_empty()
    }

    /// The kind of a path's collection.
    pub fn list_gvk(&self, url: &str) -> copepod_meta::Gvk {
        self.parts(url).target.served.list_gvk()
    }

    pub async fn send(&self, verb: &str, url: &str, body: &str, user: &str) -> Result<Answered, Status> {
        let caller = caller(user);
        let parts = self.parts(url);
        let get = |name: &str| parts.query.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v.as_str());
        if verb == "list" {
            let listing = self.registry.list(&caller, &parts.target, list_options(&parts.query)).await?;
            return Ok(Answered { code: 200, tree: list_tree(&listing)?, warnings: caller.warnings.take() });
        }
        if verb == "deletecollection" {
            let list = list_options(&parts.query);
            let options = DeleteOptions::default();
            let listing = self.registry.delete_collection(&caller, &parts.target, list, &options).await?;
            return Ok(Answered { code: 200, tree: list_tree(&listing)?, warnings: caller.warnings.take() });
        }
        let answer = self.call(verb, &caller, &parts, body).await?;
        let mut tree = match &answer.content {
            Content::Stored(object) if !get("table").is_empty() => {
                let form = Form { media: Media::Json, view: View::Row(Include::Metadata) };
                codec::decode_untyped(&object.body(form)?.bytes).expect("a row").0
            }
            Content::Stored(object) => {
                let body = object.body(Form { media: Media::Json, view: View::Object })?;
                let whole = codec::frame::object(&object.served.gvk(), &body).join(&body);
                codec::decode_untyped(&whole).expect("an object").0
            }
            Content::Tree { value, ty, gvk, .. } => {
                codec::to_untyped(value, copepod_schema::Universe::builtin(), *ty, Some(gvk))
            }
            Content::Status(status) => status.to_value(),
        };
        tree.make_map();
        Ok(Answered { code: answer.code, tree, warnings: caller.warnings.take() })
    }

    async fn call(&self, verb: &str, caller: &Caller, parts: &Parts, body: &str) -> Result<Answer, Status> {
        let get = |name: &str| parts.query.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v.as_str());
        let options = WriteOptions {
            dry_run: parts.query.iter().filter(|(k, _)| k == "dryRun").map(|(_, v)| v.clone()).collect(),
            field_manager: get("fieldManager").into(),
            field_validation: get("fieldValidation").into(),
            force: (get("force") == "true").then_some(true),
        };
        let sent = || Body { media: BodyMedia::Json, bytes: body.as_bytes().to_vec().into() };
        let target = &parts.target;
        match verb {
            "get" => {
                let options = GetOptions { resource_version: get("resourceVersion").into() };
                self.registry.get(caller, target, &options).await
            }
            "create" => self.registry.create(caller, target, sent(), &options).await,
            "update" => self.registry.update(caller, target, sent(), &options).await,
            "delete" => {
                let mut asked = match body {
                    "" => DeleteOptions::default(),
                    _ => self.registry.decode_delete_options(&sent())?,
                };
                asked.dry_run.extend(options.dry_run);
                self.registry.delete(caller, target, &asked).await
            }
            patch => {
                let kind = match patch.strip_prefix("patch:").unwrap_or_else(|| panic!("no verb: {verb}")) {
                    "json" => PatchType::Json,
                    "merge" => PatchType::Merge,
                    "strategic" => PatchType::Strategic,
                    "apply" => PatchType::Apply,
                    other => panic!("no patch: {other}"),
                };
                self.registry.patch(caller, target, kind, sent(), &options).await
            }
        }
    }

    /// As the edge would: the bytes of the answer, no tree.
    pub async fn send_only(&self, verb: &str, url: &str, body: String) -> Result<usize, Status> {
        let (caller, parts) = (caller("admin"), self.parts(url));
        match self.call(verb, &caller, &parts, &body).await?.content {
            Content::Stored(object) => {
                Ok(object.body(Form { media: Media::Json, view: View::Object })?.bytes.len())
            }
            _ => Ok(0),
        }
    }

    pub async fn list(&self, url: &str, query: &str) -> Result<Listing, Status> {
        let parts = self.parts(&format!("{url}?{query}"));
        self.registry.list(&caller("admin"), &parts.target, list_options(&parts.query)).await
    }

    pub async fn list_revision(&self, url: &str) -> u64 {
        self.list(url, "").await.expect("a list").revision
    }

    pub async fn watch(&self, url: &str, query: &str) -> Events {
        let parts = self.parts(&format!("{url}?{query}"));
        let watch = self.registry.watch(&caller("admin"), &parts.target, list_options(&parts.query)).await;
        Events(watch.expect("a watch"))
    }
}

/// A watch, read as short texts.
pub struct Events(Watch);

impl Events {
    pub async fn events(&mut self, count: usize) -> Vec<String> {
        let mut seen = Vec::new();
        while seen.len() < count {
            let next = tokio::time::timeout(Duration::from_secs(5), self.0.next());
            seen.push(match next.await.expect("an event in time").expect("the watch goes on") {
                WatchEvent::Change { kind, object } => {
                    format!("{} {}", kind.as_str(), object.names().expect("names").1)
                }
                WatchEvent::Bookmark { initial_events_end, .. } => {
                    format!("BOOKMARK{}", if initial_events_end { " end" } else { "" })
                }
                WatchEvent::Error(status) => format!("ERROR {}", status.message),
            });
        }
        seen
    }
    pub async fn is_over(&mut self) -> bool {
        tokio::time::timeout(Duration::from_secs(5), self.0.next()).await.expect("an end in time").is_none()
    }
}

fn caller(user: &str) -> Caller {
    let user = User { name: user.into(), groups: vec!["testers".into()], ..User::default() };
    Caller { user: Arc::new(user), user_agent: "tester/v1".into(), ..Caller::default() }
}

fn list_options(query: &[(String, String)]) -> ListOptions {
    let get = |name: &str| query.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
    let text = |name: &str| get(name).unwrap_or("").to_string();
    ListOptions {
        label_selector: text("labelSelector"),
        field_selector: text("fieldSelector"),
        allow_watch_bookmarks: get("allowWatchBookmarks") == Some("true"),
        resource_version: text("resourceVersion"),
        resource_version_match: text("resourceVersionMatch"),
        limit: get("limit").and_then(|l| l.parse().ok()).unwrap_or(0),
        continue_token: text("continue"),
        send_initial_events: get("sendInitialEvents").map(|v| v == "true"),
        ..ListOptions::default()
    }
}

pub fn names(listing: &Listing) -> Vec<String> {
    listing.objects.iter().map(|o| o.names().expect("names").1).collect()
}

fn list_tree(listing: &Listing) -> Result<Value, Status> {
    let item = |object: &Object| {
        let served = &object.served;
        Ok::<Value, Status>(codec::to_untyped(&object.tree()?, &served.types, served.ty(), None))
    };
    let items = listing.objects.iter().map(item).collect::<Result<Vec<_>, _>>()?;
    let mut tree = Value::map();
    tree.set(&["items"], items);
    tree.set(&["metadata", "resourceVersion"], listing.revision.to_string());
    if !listing.continue_token.is_empty() {
        tree.set(&["metadata", "continue"], listing.continue_token.as_str());
    }
    Ok(tree)
}

/// Runs a file of steps; all failures of the file are shown at once.
pub async fn run(file: &str, yaml: &str) {
    let (json, _) = codec::yaml_to_json(yaml.as_bytes()).unwrap_or_else(|e| panic!("{file}: {e}"));
    let (steps, _) = codec::decode_untyped(&json).expect("our own JSON");
    let server = Server::new().await;
    let mut failures = Vec::new();
    for (i, step) in steps.as_list().expect("a list of steps").iter().enumerate() {
        let wrong = one(&server, step).await;
        failures.extend(
            wrong.into_iter().map(|w| format!("{file}, step {}: {}\n    {w}", i + 1, step.str_at(&["do"]))),
        );
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

async fn one(server: &Server, step: &Value) -> Vec<String> {
    let (verb, url) = step.str_at(&["do"]).split_once(' ').expect("a verb and a path");
    let body = match step.get("body") {
        Value::Null => String::new(),
        body => String::from_utf8(codec::encode_untyped(body)).expect("JSON"),
    };
    let user = Some(step.str_at(&["as"])).filter(|u| !u.is_empty()).unwrap_or("admin");
    let answered = server.send(verb, url, &body, user).await;
    let refused = step.get("refused");
    let mut wrong = Vec::new();
    match answered {
        Err(status) => {
            if !matches_text(refused.as_str().unwrap_or(""), &status.message) {
                wrong.push(format!("refused: {} ({})", status.message, status.code));
            }
            let code = step.int_at(&["code"]);
            if code != 0 && code != i64::from(status.code) {
                wrong.push(format!("code {}", status.code));
            }
            subset(&status.to_value(), step.get("want"), "", &mut wrong);
        }
        Ok(answered) if !refused.is_null() => {
            wrong.push(format!("was not refused: {}", debug_json::to_string(&answered.tree)));
        }
        Ok(answered) => check(&answered, step, &mut wrong),
    }
    wrong
}

fn check(answered: &Answered, step: &Value, wrong: &mut Vec<String>) {
    let code = step.int_at(&["code"]);
    if code != 0 && code != i64::from(answered.code) {
        wrong.push(format!("code {}", answered.code));
    }
    subset(&answered.tree, step.get("want"), "", wrong);
    for path in step.list_at(&["absent"]) {
        let path = path.as_str().expect("a path");
        let steps: Vec<&str> = path.split('.').collect();
        if !answered.tree.at(&steps).is_null() {
            wrong.push(format!("{path} is there: {}", debug_json::to_string(answered.tree.at(&steps))));
        }
    }
    if !step.get("warnings").is_null() {
        let got = Value::List(answered.warnings.iter().map(Value::string).collect());
        if got != *step.get("warnings") {
            wrong.push(format!("warnings {}", debug_json::to_string(&got)));
        }
    }
}

fn subset(got: &Value, want: &Value, path: &str, wrong: &mut Vec<String>) {
    match (got, want) {
        (_, Value::Null) => {}
        (Value::Map(got), Value::Map(want)) => {
            for (key, want) in want.iter() {
                let at = format!("{path}.{key}");
                match got.get(key) {
                    Some(got) => subset(got, want, &at, wrong),
                    None => wrong.push(format!("{at} is missing")),
                }
            }
        }
        (Value::List(got), Value::List(want)) => {
            if got.len() != want.len() {
                wrong.push(format!("{path} has {} items, not {}", got.len(), want.len()));
            }
            for (i, (got, want)) in got.iter().zip(want).enumerate() {
                subset(got, want, &format!("{path}[{i}]"), wrong);
            }
        }
        (Value::Null, Value::String(any)) if any == "<any>" => wrong.push(format!("{path} is missing")),
        (_, Value::String(any)) if any == "<any>" => {}
        (got, want) if got == want => {}
        (got, want) => {
            let (got, want) = (debug_json::to_string(got), debug_json::to_string(want));
            wrong.push(format!("{path} is {got}, not {want}"));
        }
    }
}

/// Equal, but for `<any>`, which stands for one word.
fn matches_text(want: &str, got: &str) -> bool {
    let (want, got): (Vec<&str>, Vec<&str>) = (want.split(' ').collect(), got.split(' ').collect());
    want.len() == got.len() && want.iter().zip(&got).all(|(w, g)| *w == "<any>" || w == g)
}

/// A pod of about 4.5 KB, as a Deployment makes them.
pub fn big_pod() -> String {
    let env: Vec<String> = (0..30)
        .map(|i| format!(r#"{{"name":"SETTING_{i:02}","value":"a value of some length, as they are {i}"}}"#))
        .collect();
    let container = |name: &str| {
        format!(
            r#"{{"name":"{name}","image":"registry.example.com/team/{name}:1.2.3","imagePullPolicy":"IfNotPresent",
            "ports":[{{"containerPort":8080,"name":"http","protocol":"TCP"}}],"env":[{}],
            "resources":{{"limits":{{"cpu":"500m","memory":"256Mi"}},"requests":{{"cpu":"100m","memory":"128Mi"}}}},
            "readinessProbe":{{"httpGet":{{"path":"/ready","port":8080,"scheme":"HTTP"}},"periodSeconds":5}},
            "volumeMounts":[{{"name":"data","mountPath":"/data"}}]}}"#,
            env.join(",")
        )
    };
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"NAME","labels":{{"app":"web","tier":"front"}},
        "annotations":{{"example.com/a":"{}"}}}},
        "spec":{{"containers":[{}],"volumes":[{{"name":"data","emptyDir":{{}}}}],"restartPolicy":"Always",
        "terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"default"}}}}"#,
        "x".repeat(900),
        container("web"),
    )
}
