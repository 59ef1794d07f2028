//! Scripts from a seed: every verb, every patch type, selectors, field validation, dry runs, tables, on objects good
//! and bad. Script `n` of a seed is always the same.

mod patches;

use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

use super::chance::Chance;
use super::object::{Mutation, Subject};
use super::script::{Edit, Script, Step, pointer_parts, set};

/// Requests of one script.
const STEPS_MIN: usize = 6;
const STEPS_MORE: usize = 9;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

const SELECTORS: [&str; 10] = [
    "labelSelector=app%3Dweb",
    "labelSelector=app%21%3Dweb",
    "labelSelector=app+in+%28web%2Cdb%29",
    "labelSelector=app+notin+%28web%29",
    "labelSelector=%21app",
    "labelSelector=app%3Dweb%2Cscript",
    "fieldSelector=metadata.name%3Da",
    "fieldSelector=metadata.name%21%3Da",
    "labelSelector=app%3D%3D%3Dweb",
    "fieldSelector=spec.nonsense%3Da",
];

#[derive(Clone, Copy)]
enum Verb {
    Create,
    Get,
    List,
    Watch,
    Update,
    JsonPatch,
    MergePatch,
    StrategicPatch,
    Apply,
    Delete,
    DeleteCollection,
    Subresource,
    Odd,
}

const VERBS: [(usize, Verb); 13] = [
    (24, Verb::Create),
    (9, Verb::Get),
    (11, Verb::List),
    (4, Verb::Watch),
    (12, Verb::Update),
    (6, Verb::JsonPatch),
    (6, Verb::MergePatch),
    (7, Verb::StrategicPatch),
    (10, Verb::Apply),
    (8, Verb::Delete),
    (2, Verb::DeleteCollection),
    (8, Verb::Subresource),
    (2, Verb::Odd),
];

/// Makes script `number` of `seed`.
pub fn script(subjects: &[&Subject], seed: u64, number: u64) -> Script {
    let mut chance = Chance::new(seed, number);
    let subject = *chance.pick(subjects);
    let mut maker = Maker {
        chance,
        subject,
        objects: BTreeMap::new(),
        last: BTreeMap::new(),
        steps: Vec::new(),
        lists: 0,
        generated: false,
    };
    maker.create(true);
    let wanted = STEPS_MIN + maker.chance.below(STEPS_MORE);
    while maker.steps.len() < wanted {
        maker.step();
    }
    Script { name: format!("seed {seed} script {number}: {}", subject.plural), steps: maker.steps }
}

struct Maker<'a> {
    chance: Chance,
    subject: &'a Subject,
    /// What the script thinks is there, by name.
    objects: BTreeMap<String, Json>,
    /// The newest step that shows the object of a name.
    last: BTreeMap<String, String>,
    steps: Vec<Step>,
    lists: usize,
    generated: bool,
}

impl Maker<'_> {
    fn step(&mut self) {
        let verb = self.chance.weighted(&VERBS);
        let served = |verb: &str| self.subject.verbs.iter().any(|v| v == verb);
        match verb {
            Verb::Create => self.create(false),
            Verb::Get => self.get(),
            Verb::List => self.list(),
            Verb::Watch if served("watch") && self.steps.iter().filter(|s| s.watches()).count() < 2 => {
                self.watch()
            }
            Verb::Update => self.update(),
            Verb::JsonPatch => self.json_patch(),
            Verb::MergePatch => self.merge_patch("application/merge-patch+json"),
            Verb::StrategicPatch => self.merge_patch("application/strategic-merge-patch+json"),
            Verb::Apply => self.apply(),
            Verb::Delete => self.delete(),
            Verb::DeleteCollection if served("deletecollection") => self.delete_collection(),
            Verb::Subresource => self.subresource(),
            Verb::Odd => self.odd(),
            _ => self.get(),
        }
    }

    fn name(&mut self) -> String {
        let name = *self.chance.pick(&["a", "b", "c"]);
        if self.subject.namespaced { name.into() } else { format!("$ns-{name}") }
    }

    /// The path of an object, mostly one that is there.
    fn target(&mut self) -> (String, String) {
        let known: Vec<String> = self.objects.keys().cloned().collect();
        let name = if known.is_empty() || self.chance.percent(6) {
            self.name()
        } else {
            self.chance.pick(&known).clone()
        };
        (format!("{}/{name}", self.subject.path()), name)
    }

    fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    fn id(&self) -> String {
        format!("s{}", self.steps.len())
    }

    /// Query parameters of writes.
    fn write_query(&mut self, more: &[&str]) -> String {
        let mut query: Vec<String> = more.iter().map(|m| (*m).to_string()).collect();
        if self.chance.percent(25) {
            let mode = *self.chance.pick(&["Strict", "Warn", "Ignore", "Strict", "Bad"]);
            query.push(format!("fieldValidation={mode}"));
        }
        if self.chance.percent(10) {
            query.push((*self.chance.pick(&["dryRun=All", "dryRun=All", "dryRun=Some"])).into());
        }
        if self.chance.percent(12) && !query.iter().any(|q| q.starts_with("fieldManager")) {
            query.push(
                (*self.chance.pick(&["fieldManager=m1", "fieldManager=m2", "fieldManager=bad%0Aname"]))
                    .into(),
            );
        }
        if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) }
    }

    fn write_accept(&mut self) -> String {
        (*self.chance.pick(&["", "", "", "", "", "", PROTOBUF, METADATA, TABLE, "application/yaml"])).into()
    }

    fn fresh(&mut self, name: &str) -> Json {
        let mut object = self.subject.object(&mut self.chance, name);
        if self.chance.percent(45) {
            let subject = self.subject;
            subject.enrich(&mut self.chance, &mut object, "");
        }
        if self.chance.percent(12)
            && let Some((pointer, value)) = self.subject.addition(&mut self.chance, &object, "metadata")
        {
            set(&mut object, &pointer, value);
        }
        object
    }

    fn create(&mut self, good: bool) {
        let name = self.name();
        let mut object = self.fresh(&name);
        let mutated = !good && self.chance.percent(45);
        if mutated {
            self.subject.mutation(&mut self.chance, &object).apply(&mut object);
        }
        // Lists are in the order of names: one chosen name a script has the same place on both sides.
        if !good && self.chance.percent(8) && !self.generated {
            self.generated = true;
            script_generate_name(&mut object);
        }
        let mut step = Step { id: self.id(), accept: self.write_accept(), ..Step::default() };
        step.ask = format!("POST {}{}", self.subject.path(), self.write_query(&[]));
        step.content_type = (*self.chance.pick(&["", "", "", "", PROTOBUF, "application/yaml"])).into();
        if mutated && step.content_type == PROTOBUF {
            step.content_type = String::new();
        }
        if !step.ask.contains("dryRun") && step.accept.is_empty() && !mutated {
            self.last.insert(name.clone(), step.id.clone());
            self.objects.insert(name, object.clone());
        }
        step.body = Some(object);
        self.push(step);
    }

    fn get(&mut self) {
        let (path, name) = self.target();
        let accept = *self.chance.pick(&[
            "",
            "",
            "",
            PROTOBUF,
            TABLE,
            METADATA,
            "application/yaml",
            "application/cbor",
            "*/*",
        ]);
        let query =
            *self.chance.pick(&["", "", "", "?resourceVersion=0", "?pretty=true", "?resourceVersion=x"]);
        let id = self.id();
        if accept.is_empty() {
            self.last.insert(name, id.clone());
        }
        self.push(Step { ask: format!("GET {path}{query}"), id, accept: accept.into(), ..Step::default() });
    }

    fn selector(&mut self) -> Vec<String> {
        let mut query = Vec::new();
        // Objects of the whole cluster have to be told from those of others.
        if !self.subject.namespaced {
            query.push("labelSelector=script%3D$ns".to_string());
        } else if self.chance.percent(45) {
            query.push((*self.chance.pick(&SELECTORS)).to_string());
        }
        query
    }

    fn list(&mut self) {
        let accept = *self.chance.pick(&["", "", "", PROTOBUF, TABLE, METADATA_LIST, "application/yaml"]);
        let mut query = self.selector();
        let choice = self.chance.below(12);
        match choice {
            0 | 1 => query.push("limit=1".into()),
            2 if self.lists > 0 => {
                // The page after the newest one; when there was none, the token is nonsense.
                let of = format!("list{}", self.lists);
                query.push("limit=1".into());
                query.push(format!("continue=${{{of}/metadata/continue}}"));
            }
            3 => query.push("resourceVersion=0".into()),
            4 => query.push("resourceVersionMatch=Exact".into()),
            5 => {
                query.push("resourceVersion=0".into());
                query.push("resourceVersionMatch=NotOlderThan".into());
            }
            6 if !self.last.is_empty() => {
                let ids: Vec<&String> = self.last.values().collect();
                let id = *self.chance.pick(&ids);
                query.push(format!("resourceVersion=${{{id}/metadata/resourceVersion}}"));
                let matching = *self.chance.pick(&["Exact", "NotOlderThan", "Bad"]);
                query.push(format!("resourceVersionMatch={matching}"));
            }
            7 => query.push("limit=-1".into()),
            _ => {}
        }
        let mut step = Step { accept: accept.into(), ..Step::default() };
        if choice < 2 && accept.is_empty() {
            self.lists += 1;
            step.id = format!("list{}", self.lists);
        }
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        step.ask = format!("GET {}{query}", self.subject.path());
        self.push(step);
    }

    fn watch(&mut self) {
        let mut query = vec!["watch=true".to_string(), "timeoutSeconds=60".to_string()];
        query.extend(self.selector());
        let from = self.chance.below(4);
        let ids: Vec<String> = self.last.values().cloned().collect();
        if from == 0 {
            query.push("sendInitialEvents=true".into());
            query.push("resourceVersionMatch=NotOlderThan".into());
            query.push("allowWatchBookmarks=true".into());
        } else if from < 3 && !ids.is_empty() {
            query.push(format!("resourceVersion=${{{}/metadata/resourceVersion}}", self.chance.pick(&ids)));
        }
        let accept = *self.chance.pick(&[
            "",
            "",
            "",
            "application/vnd.kubernetes.protobuf;stream=watch",
            TABLE,
            METADATA,
        ]);
        self.push(Step {
            ask: format!("GET {}?{}", self.subject.path(), query.join("&")),
            accept: accept.into(),
            ..Step::default()
        });
    }

    /// A few changes, good or bad, of what is thought to be there.
    fn changes(&mut self, name: &str, under: &str) -> Vec<Mutation> {
        let object = self.objects.get(name).cloned().unwrap_or_else(|| json!({"metadata": {}}));
        let mut out = Vec::new();
        for _ in 0..1 + self.chance.below(2) {
            let change = match self.chance.below(4) {
                0 => self.subject.mutation(&mut self.chance, &object),
                1 => Mutation::Set(
                    format!(
                        "/metadata/{}",
                        self.chance.pick(&["labels/app", "annotations/note", "labels/new"])
                    ),
                    json!(*self.chance.pick(&["web", "db", "v2"])),
                ),
                _ => match self.subject.addition(&mut self.chance, &object, under) {
                    Some((pointer, value)) => Mutation::Set(pointer, value),
                    None => self.subject.mutation(&mut self.chance, &object),
                },
            };
            out.push(change);
        }
        out
    }

    fn update(&mut self) {
        let (path, name) = self.target();
        self.edit(&path, &name, "");
    }

    fn edit(&mut self, path: &str, name: &str, under: &str) {
        let of = self.last.get(name).cloned().unwrap_or_else(|| "s0".into());
        let mut edit = Edit { of, ..Edit::default() };
        if !self.chance.percent(15) {
            for change in self.changes(name, under) {
                match change {
                    Mutation::Set(pointer, value) => drop(edit.set.insert(pointer, value)),
                    Mutation::Remove(pointer) => edit.remove.push(pointer),
                }
            }
        }
        match self.chance.below(8) {
            0 => edit.remove.push("/metadata/resourceVersion".into()),
            1 => edit.remove.push("/metadata/managedFields".into()),
            2 => edit.remove.push("/metadata/uid".into()),
            _ => {}
        }
        let mut step =
            Step { id: self.id(), accept: self.write_accept(), edit: Some(edit), ..Step::default() };
        step.ask = format!("PUT {path}{}", self.write_query(&[]));
        if step.accept.is_empty() && !step.ask.contains("dryRun") {
            self.last.insert(name.into(), step.id.clone());
        }
        self.push(step);
    }

    fn delete(&mut self) {
        let (path, name) = self.target();
        let mut step = Step { accept: self.write_accept(), ..Step::default() };
        let query = *self.chance.pick(&[
            "",
            "",
            "?gracePeriodSeconds=0",
            "?propagationPolicy=Foreground",
            "?dryRun=All",
            "?propagationPolicy=Bad",
            "?orphanDependents=true",
        ]);
        step.ask = format!("DELETE {path}{query}");
        let of = self.last.get(&name).cloned().unwrap_or_default();
        let options = |more: Json| {
            let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
            if let (Json::Object(options), Json::Object(more)) = (&mut options, more) {
                options.extend(more);
            }
            Some(options)
        };
        step.body = match self.chance.below(9) {
            0 => options(json!({"preconditions": {"uid": "6f1b3a52-1111-4222-8333-944444444444"}})),
            1 => options(json!({"preconditions": {"uid": format!("${{{of}/metadata/uid}}")}})),
            2 => options(
                json!({"preconditions": {"resourceVersion": format!("${{{of}/metadata/resourceVersion}}")}}),
            ),
            3 => options(json!({"propagationPolicy": "Orphan"})),
            4 => options(json!({"gracePeriodSeconds": 5})),
            5 => options(json!({"gracePeriodSeconds": -1, "dryRun": ["All"]})),
            _ => None,
        };
        self.push(step);
    }

    fn delete_collection(&mut self) {
        let mut query = self.selector();
        // Never without a limit to what is the script's own.
        if !self.subject.namespaced {
            query = vec!["labelSelector=script%3D$ns".into()];
        }
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        self.push(Step { ask: format!("DELETE {}{query}", self.subject.path()), ..Step::default() });
    }

    fn subresource(&mut self) {
        let usable: Vec<(String, Vec<String>)> = self
            .subject
            .subresources
            .iter()
            .filter(|(name, _)| {
                matches!(
                    name.as_str(),
                    "status"
                        | "scale"
                        | "eviction"
                        | "binding"
                        | "finalize"
                        | "ephemeralcontainers"
                        | "resize"
                )
            })
            .cloned()
            .collect();
        if usable.is_empty() {
            return self.get();
        }
        let (sub, verbs) = self.chance.pick(&usable).clone();
        let (path, name) = self.target();
        let path = format!("{path}/{sub}");
        let verb = self.chance.pick(&verbs).clone();
        match (verb.as_str(), sub.as_str()) {
            ("get", _) => self.push(Step { ask: format!("GET {path}"), ..Step::default() }),
            ("create", "eviction") => {
                let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
                let ask = format!("POST {path}{}", self.write_query(&[]));
                self.push(Step { ask, body: Some(body), ..Step::default() });
            }
            ("create", _) => {
                let body = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "node-a"}});
                let ask = format!("POST {path}{}", self.write_query(&[]));
                self.push(Step { ask, body: Some(body), ..Step::default() });
            }
            ("update", "scale") => {
                let get = self.id();
                self.push(Step { ask: format!("GET {path}"), id: get.clone(), ..Step::default() });
                let replicas = *self.chance.pick(&[0, 1, 3, -1]);
                let edit = Edit {
                    of: get,
                    set: [("/spec/replicas".to_string(), json!(replicas))].into(),
                    remove: Vec::new(),
                };
                self.push(Step { ask: format!("PUT {path}"), edit: Some(edit), ..Step::default() });
            }
            ("patch", "scale") => {
                let patch = json!({"spec": {"replicas": *self.chance.pick(&[0, 2, -5])}});
                self.patch(&path, "application/merge-patch+json", patch, &[]);
            }
            ("patch", _) => {
                let ty = *self
                    .chance
                    .pick(&["application/merge-patch+json", "application/strategic-merge-patch+json"]);
                let patch = self.difference(&name, if sub == "status" { "status" } else { "spec" });
                self.patch(&path, ty, patch, &[]);
            }
            _ => self.edit(&path, &name, if sub == "status" { "status" } else { "spec" }),
        }
    }

    /// What no client should send.
    fn odd(&mut self) {
        let (path, _) = self.target();
        let collection = self.subject.path();
        let text = |ask: String, ty: &str, text: &str| Step {
            ask,
            content_type: ty.into(),
            text: Some(text.into()),
            ..Step::default()
        };
        let step = match self.chance.below(9) {
            0 => text(format!("POST {collection}"), "", "{"),
            1 => text(format!("POST {collection}"), "", "[]"),
            2 => text(format!("POST {collection}"), "text/plain", "hello"),
            3 => text(format!("PATCH {path}"), "application/json", "{}"),
            4 => text(format!("PUT {collection}"), "", "{}"),
            5 => Step { ask: format!("GET {path}/nonsense"), ..Step::default() },
            6 => Step { ask: format!("POST {collection}"), ..Step::default() },
            7 => text(format!("PATCH {path}"), "application/merge-patch+json", "[1]"),
            _ => text(
                format!("POST {collection}?fieldValidation=Strict"),
                "",
                "{\"a\":1,\"a\":2,\"kind\":\"X\"}",
            ),
        };
        self.push(step);
    }
}

fn script_generate_name(object: &mut Json) {
    if let Json::Object(metadata) = &mut object["metadata"] {
        let name = metadata.remove("name").unwrap_or_else(|| json!("x"));
        metadata.insert("generateName".into(), json!(format!("{}-gen-", name.as_str().unwrap_or("x"))));
    }
}
