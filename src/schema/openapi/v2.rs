//! The OpenAPI v2 document: all paths and types in one, for clients older than v3.
//!
//! Made from the same paths and schemas as v3, one v3 document after the other, and rewritten: bodies and
//! answers become `consumes`, `produces` and parameters, defaults go, a reference keeps what stands beside
//! it, and parameters that say nothing of one kind are shared.
//!
//! upstream: kube-openapi/pkg/builder/parameters.go, kube-openapi/pkg/handler/default_pruning.go

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::paths::META;
use super::schemas::Schemas;
use super::{INFO_VERSION, REFERENCE, paths_of, references, v3_paths};
use crate::packed;

/// Media types in the order in which upstream's handlers state them.
const PRODUCES: [&str; 9] = [
    "text/plain",
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
    "application/jwk-set+json",
    "application/cbor",
    "*/*",
];
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// The whole document as JSON.
pub fn v2_document() -> String {
    let mut schemas = Schemas::default();
    let mut shared = BTreeMap::new();
    let mut out =
        format!(r#"{{"swagger":"2.0","info":{{"title":"Kubernetes","version":"{INFO_VERSION}"}},"paths":{{"#);
    let mut all = BTreeMap::new();
    for part in v3_paths() {
        for (path, item) in paths_of(&mut schemas, &part).unwrap_or_default() {
            all.insert(path, path_item(&item, &mut shared).to_string());
        }
    }
    let mut wanted = BTreeSet::new();
    for (i, (path, item)) in all.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let _ = write!(out, "{comma}\"{path}\":{item}");
        wanted.extend(definitions_in(item));
    }
    drop(all);
    for parameter in shared.values() {
        wanted.extend(definitions_in(&Value::to_string(parameter)));
    }
    out += r#"},"definitions":{"#;
    definitions(&mut schemas, wanted, &mut out);
    let _ = write!(
        out,
        r#"}},"parameters":{},"securityDefinitions":{{"BearerToken":{{"description":"Bearer Token authentication","type":"apiKey","name":"authorization","in":"header"}}}},"security":[{{"BearerToken":[]}}]}}"#,
        json!(shared)
    );
    out
}

const DEFINITION: &str = "#/definitions/";

fn definitions_in(text: &str) -> Vec<String> {
    let rest = |at: usize| text[at + DEFINITION.len()..].split('"').next().unwrap_or("").to_owned();
    text.match_indices(DEFINITION).map(|(at, _)| rest(at)).collect()
}

/// Writes the wanted types and all that they reach.
fn definitions(schemas: &mut Schemas, wanted: BTreeSet<String>, out: &mut String) {
    let mut queue: Vec<String> = wanted.into_iter().collect();
    let mut reached = BTreeSet::new();
    while let Some(name) = queue.pop() {
        if reached.insert(name.clone()) {
            queue.extend(schemas.get(&name).into_iter().flat_map(references).map(str::to_owned));
        }
    }
    for (i, name) in reached.iter().enumerate() {
        let text = schemas.get(name).unwrap_or(r#"{"type":"object"}"#);
        let mut schema: Value = serde_json::from_str(text).unwrap_or_default();
        rewrite_schema(&mut schema);
        if let Some(kind @ ("DeleteOptions" | "WatchEvent")) =
            name.strip_prefix(META).and_then(|rest| rest.strip_prefix('.'))
        {
            schema["x-kubernetes-group-version-kind"] = everywhere(kind);
        }
        let comma = if i > 0 { "," } else { "" };
        let _ = write!(out, "{comma}\"{name}\":{schema}");
    }
}

/// The kind in every group-version.
fn everywhere(kind: &str) -> Value {
    let all = packed::registered_group_versions();
    let rows = all.iter().filter_map(|gv| gv.split_once('/'));
    rows.map(|(group, version)| json!({"group": group, "kind": kind, "version": version})).collect()
}

/// v2 knows no defaults beside references, no `oneOf`, no wrapped references.
fn rewrite_schema(schema: &mut Value) {
    let Some(node) = schema.as_object_mut() else { return };
    node.remove("default");
    if let Some(Value::Array(all)) = node.remove("allOf")
        && let Some(reference) = all.into_iter().next().and_then(|r| r.get("$ref").cloned())
    {
        node.insert("$ref".into(), reference);
    }
    if node.remove("oneOf").is_some() {
        node.insert("type".into(), json!("string"));
    }
    if let Some(Value::String(reference)) = node.get_mut("$ref") {
        *reference = reference.replace(REFERENCE, DEFINITION);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = node.get_mut(key) {
            rewrite_schema(inner);
        }
    }
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        properties.values_mut().for_each(rewrite_schema);
    }
}

fn path_item(item: &Value, shared: &mut BTreeMap<String, Value>) -> Value {
    let mut out = Map::new();
    for (key, value) in item.as_object().into_iter().flatten() {
        let rewritten = if key == "parameters" {
            value.as_array().into_iter().flatten().map(|p| parameter(p, shared)).collect()
        } else {
            operation(value, shared)
        };
        out.insert(key.clone(), rewritten);
    }
    Value::Object(out)
}

fn operation(operation: &Value, shared: &mut BTreeMap<String, Value>) -> Value {
    let mut out = Map::new();
    let mut parameters: Vec<Value> = Vec::new();
    let mut produces: Vec<&str> = Vec::new();
    for (key, value) in operation.as_object().into_iter().flatten() {
        match key.as_str() {
            "requestBody" => parameters.insert(0, body(value, shared)),
            "parameters" => {
                parameters.extend(value.as_array().into_iter().flatten().map(|p| parameter(p, shared)));
            }
            "responses" => {
                let (answers, media) = responses(value);
                produces = media;
                out.insert(key.clone(), answers);
            }
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    let consumes: Vec<&str> = match operation["requestBody"]["content"].as_object() {
        Some(content) if content.contains_key(PATCHES[0]) => {
            PATCHES.into_iter().filter(|media| content.contains_key(*media)).collect()
        }
        // As upstream's document says: the keys of service accounts take nothing, discovery takes what it
        // gives.
        None if out["responses"]["200"]["schema"]["type"] == "string" && !is_action(operation) => Vec::new(),
        None if !is_action(operation) => produces.clone(),
        _ => vec!["*/*"],
    };
    if !consumes.is_empty() {
        out.insert("consumes".into(), json!(consumes));
    }
    out.insert("produces".into(), json!(produces));
    out.insert("schemes".into(), json!(["https"]));
    if !parameters.is_empty() {
        out.insert("parameters".into(), json!(parameters));
    }
    Value::Object(out)
}

/// An operation of a resource.
fn is_action(operation: &Value) -> bool {
    operation.get("x-kubernetes-action").is_some()
}

fn responses(responses: &Value) -> (Value, Vec<&'static str>) {
    let mut out = Map::new();
    let mut media = Vec::new();
    for (code, answer) in responses.as_object().into_iter().flatten() {
        let mut one = Map::new();
        one.insert("description".into(), answer["description"].clone());
        if let Some(content) = answer["content"].as_object() {
            media = PRODUCES.into_iter().filter(|m| content.contains_key(*m)).collect();
            if let Some(mut schema) = content.values().next().map(|c| c["schema"].clone()) {
                rewrite_schema(&mut schema);
                one.insert("schema".into(), schema);
            }
        }
        out.insert(code.clone(), Value::Object(one));
    }
    (Value::Object(out), media)
}

/// The body as a parameter; generic ones are shared, those of one kind are not.
fn body(body: &Value, shared: &mut BTreeMap<String, Value>) -> Value {
    let content = body["content"].as_object().and_then(|content| content.values().next());
    let mut schema = content.map(|c| c["schema"].clone()).unwrap_or_default();
    rewrite_schema(&mut schema);
    let required = body["required"] == json!(true);
    let mut out = json!({"name": "body", "in": "body", "schema": schema});
    if required {
        out["required"] = json!(true);
    }
    let generic = schema["$ref"].as_str().is_some_and(|r| r.starts_with("#/definitions/io.k8s.apimachinery"));
    if !generic {
        return out;
    }
    let required = if required { r#""required":true,"# } else { "" };
    let text = format!(r#"{{"name":"body","in":"body",{required}"schema":{schema}}}"#);
    share("body", &text, out, shared)
}

/// A query or path parameter: what says nothing of one kind is shared, but for two that old clients look for
/// in place.
fn parameter(parameter: &Value, shared: &mut BTreeMap<String, Value>) -> Value {
    let text = |key: &str| parameter[key].as_str().unwrap_or("");
    let (name, place, kind) =
        (text("name"), text("in"), parameter["schema"]["type"].as_str().unwrap_or("string"));
    let mut out = json!({"uniqueItems": true, "type": kind, "name": name, "in": place});
    let mut order = format!(r#"{{"uniqueItems":true,"type":"{kind}","#);
    if let Some(description) = parameter.get("description") {
        out["description"] = description.clone();
        let _ = write!(order, r#""description":{},"#, go_escaped(description));
    }
    let _ = write!(order, r#""name":"{name}","in":"{place}""#);
    if parameter["required"] == json!(true) {
        out["required"] = json!(true);
        order += r#","required":true"#;
    }
    order.push('}');
    if name == "name" || (place == "query" && matches!(name, "fieldValidation" | "dryRun")) {
        return out;
    }
    share(name, &order, out, shared)
}

/// Go's encoder writes these characters escaped, and the names of shared parameters are hashes of its output.
fn go_escaped(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn share(name: &str, encoded: &str, parameter: Value, shared: &mut BTreeMap<String, Value>) -> Value {
    let key = format!("{name}-{}", short_hash(encoded));
    let reference = json!({"$ref": format!("#/parameters/{key}")});
    shared.insert(key, parameter);
    reference
}

/// The first 48 bits of FNV-1 in base64 for URLs.
/// upstream: kube-openapi/pkg/builder/parameters.go base64Hash
fn short_hash(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in text.bytes() {
        state = state.wrapping_mul(0x0000_0100_0000_01b3) ^ u64::from(byte);
    }
    (0..8).map(|i| char::from(ALPHABET[(state >> (58 - 6 * i)) as usize & 63])).collect()
}
