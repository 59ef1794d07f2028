//! A script: requests as data, the same for both servers. What differs between servers (a uid, a revision, a token) is
//! taken out of each server's own earlier answers.

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Requests in order. `$ns` is a namespace of the script's own, with a service account `default`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Told in reports.
    #[serde(default)]
    pub name: String,
    /// The requests.
    pub steps: Vec<Step>,
}

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// `GET /api/v1/namespaces/$ns/pods?limit=1`; `${id/metadata/uid}` is taken from the answer to the step `id`. A path
    /// with `watch=` stays open until the script ends.
    pub ask: String,
    /// Names the answer for later steps.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// `Accept`; default JSON.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub accept: String,
    /// `Content-Type`; default JSON. An object goes out as YAML or protobuf when this says so.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub content_type: String,
    /// More headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body as a tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Json>,
    /// The body as text, to the letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The body is an earlier answer of the same server, changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit: Option<Edit>,
}

/// An earlier answer, changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The step's id.
    pub of: String,
    /// JSON pointers and what is put there; objects are made on the way.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Json>,
    /// JSON pointers of what is taken away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// A request as one server gets it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The verb.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// All headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What one server answered to the steps that have an id.
pub type Known = BTreeMap<String, Json>;

impl Script {
    /// Out of YAML.
    pub fn parse(yaml: &str) -> anyhow::Result<Script> {
        let (json, duplicates) = copepod_codec::yaml_to_json(yaml.as_bytes())?;
        if let Some(duplicate) = duplicates {
            bail!("{duplicate}");
        }
        Ok(serde_json::from_slice(&json)?)
    }

    /// As YAML that [`Script::parse`] takes.
    pub fn to_yaml(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8(copepod_codec::json_to_yaml(&serde_json::to_vec(self)?))?)
    }
}

impl Step {
    /// Whether the answer is a stream that stays open.
    pub fn watches(&self) -> bool {
        self.ask.contains("watch=")
    }

    /// The request that the server with these answers gets.
    pub fn request(&self, ns: &str, known: &Known) -> anyhow::Result<Request> {
        let ask = fill(&self.ask, ns, known);
        let (method, path) = ask.split_once(' ').with_context(|| format!("no verb in {ask:?}"))?;
        let accept = if self.accept.is_empty() { "application/json" } else { &self.accept };
        let mut headers = vec![
            ("accept".to_string(), accept.to_string()),
            ("user-agent".to_string(), "diff/1".to_string()),
        ];
        headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), fill(value, ns, known))));
        let tree = match (&self.edit, &self.body) {
            (Some(edit), _) => Some(edit.apply(ns, known)),
            (None, Some(body)) => Some(filled(body, ns, known)),
            (None, None) => None,
        };
        let body = match (&self.text, tree) {
            (Some(text), _) => fill(text, ns, known).into_bytes(),
            (None, Some(tree)) => encode(&tree, &self.content_type)?,
            (None, None) => Vec::new(),
        };
        if !body.is_empty() {
            let ty = if self.content_type.is_empty() { "application/json" } else { &self.content_type };
            headers.push(("content-type".into(), ty.into()));
        }
        Ok(Request { method: method.into(), path: path.into(), headers, body })
    }
}

impl Edit {
    fn apply(&self, ns: &str, known: &Known) -> Json {
        // The step was refused or is not there any more: both servers get the same useless body.
        let mut tree = known.get(&self.of).cloned().unwrap_or_else(|| Json::Object(Default::default()));
        for pointer in &self.remove {
            remove(&mut tree, pointer);
        }
        for (pointer, value) in &self.set {
            set(&mut tree, pointer, filled(value, ns, known));
        }
        tree
    }
}

/// Encodes for the wire; what cannot be protobuf (a mutated object) goes out as JSON under protobuf's name.
fn encode(tree: &Json, content_type: &str) -> anyhow::Result<Vec<u8>> {
    let json = serde_json::to_vec(tree)?;
    if content_type.contains("protobuf") {
        return Ok(super::wire::json_to_protobuf(&json).unwrap_or(json));
    }
    // A patch document in YAML is what clients send for apply; JSON is YAML, but not what they send.
    Ok(if content_type.contains("yaml") { copepod_codec::json_to_yaml(&json) } else { json })
}

fn filled(tree: &Json, ns: &str, known: &Known) -> Json {
    match tree {
        Json::String(text) => Json::String(fill(text, ns, known)),
        Json::Array(items) => Json::Array(items.iter().map(|i| filled(i, ns, known)).collect()),
        Json::Object(members) => {
            Json::Object(members.iter().map(|(k, v)| (fill(k, ns, known), filled(v, ns, known))).collect())
        }
        other => other.clone(),
    }
}

/// Fills in `$ns` and `${id/pointer}`; what is not known becomes `unknown`.
fn fill(text: &str, ns: &str, known: &Known) -> String {
    if !text.contains('$') {
        return text.to_string();
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let Some(end) = rest[at..].find('}') else { break };
        out.push_str(&rest[..at]);
        let name = &rest[at + 2..at + end];
        let (id, pointer) = name.split_at(name.find('/').unwrap_or(name.len()));
        match known.get(id).and_then(|answer| answer.pointer(pointer)) {
            Some(Json::String(text)) => out.push_str(text),
            Some(other) => out.push_str(&other.to_string()),
            None => out.push_str("unknown"),
        }
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    out.replace("$ns", ns)
}

/// The members of a JSON pointer.
pub fn pointer_parts(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|p| p.replace("~1", "/").replace("~0", "~")).collect()
}

/// A JSON pointer out of its members.
pub fn pointer_of(parts: &[String]) -> String {
    parts.iter().map(|p| format!("/{}", p.replace('~', "~0").replace('/', "~1"))).collect()
}

/// Puts `value` at `pointer`, making objects on the way; `-` and an index at the end append to a list.
pub fn set(tree: &mut Json, pointer: &str, value: Json) {
    let parts = pointer_parts(pointer);
    let mut at = tree;
    for part in &parts {
        if let Json::Array(items) = at {
            let index = part.parse::<usize>().unwrap_or(items.len()).min(items.len());
            if index == items.len() {
                items.push(Json::Null);
            }
            at = &mut items[index];
            continue;
        }
        if !at.is_object() {
            *at = Json::Object(Default::default());
        }
        let Json::Object(members) = at else { return };
        at = members.entry(part.clone()).or_insert(Json::Null);
    }
    *at = value;
}

/// Takes away what is at `pointer`, if it is there.
pub fn remove(tree: &mut Json, pointer: &str) {
    let Some((parent, last)) = pointer.rsplit_once('/') else { return };
    let last = last.replace("~1", "/").replace("~0", "~");
    match tree.pointer_mut(parent) {
        Some(Json::Object(members)) => {
            members.remove(&last);
        }
        Some(Json::Array(items)) => {
            if let Some(index) = last.parse::<usize>().ok().filter(|i| *i < items.len()) {
                items.remove(index);
            }
        }
        _ => {}
    }
}
