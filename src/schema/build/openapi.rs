//! Renders every type as upstream's OpenAPI v3 documents show it, and packs the texts, compressed, one chunk
//! per package.
//!
//! Layout: `u32` count; per package `u16` name length, name, `u32` offset, `u32` length; then the chunks,
//! offsets from their start. A chunk is deflated; inflated it is, per type, `u16` name length, name, `u32`
//! length, JSON.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use serde_json::{Map, Value, json};

use crate::facts::{Facts, FieldFacts};
use crate::texts::Fields;

type Texts = BTreeMap<String, Fields>;

/// The chunks of all packages behind an index of their names.
pub fn pack(facts: &Facts, texts: &Texts) -> Vec<u8> {
    let mut packages: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (name, schema) in schemas(facts, texts) {
        let package = name.rsplit_once('.').expect("type names have a package").0.to_owned();
        let chunk = packages.entry(package).or_default();
        let text = schema.to_string();
        chunk.extend((name.len() as u16).to_le_bytes());
        chunk.extend(name.as_bytes());
        chunk.extend((text.len() as u32).to_le_bytes());
        chunk.extend(text.as_bytes());
    }
    let mut index = u32::try_from(packages.len()).expect("a few dozen packages").to_le_bytes().to_vec();
    let mut chunks = Vec::new();
    for (package, text) in &packages {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).expect("memory takes it");
        let chunk = encoder.finish().expect("memory takes it");
        index.extend((package.len() as u16).to_le_bytes());
        index.extend(package.as_bytes());
        index.extend((chunks.len() as u32).to_le_bytes());
        index.extend((chunk.len() as u32).to_le_bytes());
        chunks.extend(chunk);
    }
    index.extend(chunks);
    index
}

/// Types whose schema is written by hand upstream, and the schema.
fn special_schemas() -> Vec<(&'static str, Value)> {
    let any = json!({});
    let number_or_string = |format: Option<&str>| {
        let mut node = json!({ "oneOf": [{"type": "integer"}, {"type": "string"}] });
        if let Some(format) = format {
            node["format"] = json!(format);
        }
        node
    };
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.";
    let extensions = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.";
    let names = |prefix: &'static str, rest: &'static str| -> &'static str {
        Box::leak(format!("{prefix}{rest}").into())
    };
    vec![
        (names(meta, "Time"), json!({"type": "string", "format": "date-time"})),
        (names(meta, "MicroTime"), json!({"type": "string", "format": "date-time"})),
        (names(meta, "Duration"), json!({"type": "string"})),
        (names(meta, "FieldsV1"), json!({"type": "object"})),
        (names(meta, "Patch"), json!({"type": "object"})),
        ("io.k8s.apimachinery.pkg.runtime.RawExtension", json!({"type": "object"})),
        ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", number_or_string(Some("int-or-string"))),
        (
            "io.k8s.apimachinery.pkg.api.resource.Quantity",
            json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        ),
        (names(extensions, "JSON"), any.clone()),
        (names(extensions, "JSONSchemaPropsOrBool"), any.clone()),
        (names(extensions, "JSONSchemaPropsOrArray"), any.clone()),
        (names(extensions, "JSONSchemaPropsOrStringArray"), any),
    ]
}

fn schemas(facts: &Facts, texts: &Texts) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let render = Renderer { facts, texts };
    for (name, ty) in &facts.types {
        if ty.list.is_none() {
            all.insert(name.clone(), render.object(name));
        }
    }
    for (name, mut schema) in special_schemas() {
        if let Some(text) = texts.get(name).and_then(|fields| fields.get("")) {
            schema["description"] = json!(text);
        }
        all.insert(name.to_owned(), schema);
    }
    let version = "io.k8s.apimachinery.pkg.version.Info";
    all.insert(version.to_owned(), version_info(texts.get(version).expect("texts.json has version.Info")));
    all
}

/// `/version`'s answer is no API type; its fields are these.
fn version_info(texts: &Fields) -> Value {
    let required = [
        "major",
        "minor",
        "gitVersion",
        "gitCommit",
        "gitTreeState",
        "buildDate",
        "goVersion",
        "compiler",
        "platform",
    ];
    let optional = ["emulationMajor", "emulationMinor", "minCompatibilityMajor", "minCompatibilityMinor"];
    let mut properties = Map::new();
    for name in required.iter().chain(&optional) {
        let mut node = json!({"type": "string"});
        if required.contains(name) {
            node["default"] = json!("");
        }
        if let Some(text) = texts.get(*name) {
            node["description"] = json!(text);
        }
        properties.insert((*name).to_owned(), node);
    }
    json!({"description": texts.get(""), "type": "object", "required": required, "properties": properties})
}

struct Renderer<'a> {
    facts: &'a Facts,
    texts: &'a Texts,
}

/// Where the special types are published.
fn published(name: &str) -> Option<&'static str> {
    Some(match name {
        "Time" => "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
        "MicroTime" => "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
        "Duration" => "io.k8s.apimachinery.pkg.apis.meta.v1.Duration",
        "FieldsV1" => "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
        "Quantity" => "io.k8s.apimachinery.pkg.api.resource.Quantity",
        "IntOrString" => "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        "RawExtension" => "io.k8s.apimachinery.pkg.runtime.RawExtension",
        "JSON" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
        "JSONSchemaPropsOrBool" => {
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool"
        }
        "JSONSchemaPropsOrArray" => {
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray"
        }
        "JSONSchemaPropsOrStringArray" => {
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray"
        }
        _ => return None,
    })
}

impl Renderer<'_> {
    fn object(&self, name: &str) -> Value {
        let facts = &self.facts.types[name];
        let none = Fields::new();
        let texts = self.texts.get(name).unwrap_or(&none);
        let mut schema = Map::new();
        if let Some(text) = texts.get("") {
            schema.insert("description".into(), json!(text));
        }
        schema.insert("type".into(), json!("object"));
        let mut fields = Vec::new();
        self.flatten(name, &mut fields);
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in fields {
            let type_meta = match field.json.as_str() {
                "kind" | "apiVersion" => {
                    self.texts.get(LIST_META_SAMPLE).and_then(|sample| sample.get(&field.json))
                }
                _ => None,
            };
            let text = texts.get(&field.json).or(type_meta.filter(|_| !facts.gvk.is_empty()));
            properties.insert(field.json.clone(), self.property(field, text.map(String::as_str)));
            if field.required {
                required.push(field.json.as_str());
            }
        }
        if !required.is_empty() {
            schema.insert("required".into(), json!(required));
        }
        if !properties.is_empty() {
            schema.insert("properties".into(), Value::Object(properties));
        }
        if facts.atomic {
            schema.insert("x-kubernetes-map-type".into(), json!("atomic"));
        }
        if let Some(unions) = &facts.unions {
            schema.insert("x-kubernetes-unions".into(), unions.clone());
        }
        // Types of several kinds get theirs from the document that shows them.
        let kinds: Vec<&String> = facts.gvk.iter().filter(|gvk| !gvk.starts_with("meta.k8s.io/")).collect();
        if let [gvk] = kinds.as_slice() {
            let parts: Vec<&str> = gvk.split('/').collect();
            let one = json!({"group": parts[0], "version": parts[1], "kind": parts[2]});
            schema.insert("x-kubernetes-group-version-kind".into(), json!([one]));
        }
        Value::Object(schema)
    }

    fn flatten<'b>(&'b self, name: &str, into: &mut Vec<&'b FieldFacts>) {
        for field in &self.facts.types[name].fields {
            if field.inline {
                self.flatten(field.ty.trim_start_matches('*'), into);
            } else {
                into.push(field);
            }
        }
    }

    fn property(&self, field: &FieldFacts, text: Option<&str>) -> Value {
        let mut node = self.node(field.ty.trim_start_matches('*'), &field.enum_values);
        if let Some(default) = &field.openapi_default {
            node.insert("default".into(), default.clone());
        } else if self.is_struct(&field.ty) {
            node.insert("default".into(), json!({}));
        }
        if let Some(text) = text {
            node.insert("description".into(), json!(text));
        }
        let is_list = node.get("type") == Some(&json!("array")) || field.ty == "bytes";
        match field.list.as_deref() {
            Some(list) => {
                node.insert("x-kubernetes-list-type".into(), json!(list));
            }
            None if field.atomic && is_list => {
                node.insert("x-kubernetes-list-type".into(), json!("atomic"));
            }
            None if field.atomic => {
                node.insert("x-kubernetes-map-type".into(), json!("atomic"));
            }
            None if field.granular => {
                node.insert("x-kubernetes-map-type".into(), json!("granular"));
            }
            None => {}
        }
        if !field.keys.is_empty() {
            node.insert("x-kubernetes-list-map-keys".into(), json!(field.keys));
        }
        if let Some(patch) = &field.patch {
            node.insert("x-kubernetes-patch-strategy".into(), json!(patch));
        }
        if let Some(key) = &field.merge_key {
            node.insert("x-kubernetes-patch-merge-key".into(), json!(key));
        }
        wrap(node)
    }

    /// A struct by value: its schema has the default `{}`.
    fn is_struct(&self, ty: &str) -> bool {
        self.facts.types.get(ty).is_some_and(|facts| facts.list.is_none())
    }

    /// A value's own schema; `enum_values` go to the innermost element.
    fn node(&self, ty: &str, enum_values: &[String]) -> Map<String, Value> {
        let mut node = Map::new();
        let mut plain = |kind: &str, format: &str| {
            node.insert("type".into(), json!(kind));
            if !format.is_empty() {
                node.insert("format".into(), json!(format));
            }
        };
        match ty {
            "string" => plain("string", ""),
            "bool" => plain("boolean", ""),
            "bytes" => plain("string", "byte"),
            "int32" => plain("integer", "int32"),
            "int64" | "uint32" | "uint64" => plain("integer", "int64"),
            "float64" => plain("number", "double"),
            "any" | "Object" => plain("object", ""),
            _ => return self.compound(ty, enum_values),
        }
        if !enum_values.is_empty() {
            node.insert("enum".into(), json!(enum_values));
        }
        node
    }

    fn compound(&self, ty: &str, enum_values: &[String]) -> Map<String, Value> {
        let mut node = Map::new();
        let (name, _) = ty.split_once('(').unwrap_or((ty, ""));
        if let Some(elem) = ty.strip_prefix("[]") {
            node.insert("type".into(), json!("array"));
            node.insert("items".into(), self.element(elem, enum_values));
        } else if let Some(value) = ty.strip_prefix("map[string]") {
            node.insert("type".into(), json!("object"));
            node.insert("additionalProperties".into(), self.element(value, enum_values));
        } else if let Some(name) = published(name) {
            node.insert("$ref".into(), reference(name));
        } else if let Some(elem) = &self.facts.types[ty].list {
            node.insert("type".into(), json!("array"));
            node.insert("items".into(), self.element(elem, enum_values));
        } else {
            node.insert("$ref".into(), reference(ty));
        }
        node
    }

    /// An element of a list or map: by value it has its zero as default.
    fn element(&self, ty: &str, enum_values: &[String]) -> Value {
        let mut node = self.node(ty.trim_start_matches('*'), enum_values);
        let default = match ty {
            "string" => Some(json!("")),
            "bool" => Some(json!(false)),
            "int32" | "int64" | "uint32" | "uint64" | "float64" => Some(json!(0)),
            _ if self.is_struct(ty) => Some(json!({})),
            _ => None,
        };
        if let Some(default) = default {
            node.insert("default".into(), default);
        }
        wrap(node)
    }
}

/// A type whose `kind` and `apiVersion` are described in the words used everywhere.
const LIST_META_SAMPLE: &str = "io.k8s.api.core.v1.Pod";

fn reference(name: &str) -> Value {
    json!(format!("#/components/schemas/{name}"))
}

/// A reference with anything beside it is wrapped, as OpenAPI v3 asks.
fn wrap(mut node: Map<String, Value>) -> Value {
    if node.len() > 1
        && let Some(reference) = node.remove("$ref")
    {
        node.insert("allOf".into(), json!([{ "$ref": reference }]));
    }
    Value::Object(node)
}
