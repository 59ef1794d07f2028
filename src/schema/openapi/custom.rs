//! OpenAPI v3 documents of custom resources: the schemas of their definitions with what every object has.
//!
//! upstream: apiextensions-apiserver/pkg/controller/openapi/builder/builder.go

use std::collections::BTreeMap;

use copepod_meta::Value as Tree;
use serde_json::{Map, Value, json};

use super::paths::{META, Paths, TypeNames, reference};
use super::schemas::Schemas;
use super::{Frame, document};
use crate::packed;
use crate::resources::{Resource, ServedVersion};

/// A custom resource in one version.
pub struct Custom<'a> {
    /// Its names, scope and subresources.
    pub resource: &'a Resource,
    /// The version that is published.
    pub served: &'a ServedVersion,
    /// `openAPIV3Schema`; null publishes an object of unknown fields.
    pub schema: &'a Tree,
}

const CONVENTIONS: &str =
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";

/// Published names: custom kinds by their reversed group, others as they are.
struct CustomNames<'a> {
    group: &'a str,
    version: &'a str,
}

impl TypeNames for CustomNames<'_> {
    fn type_name(&self, group: &str, version: &str, kind: &str) -> Option<String> {
        if (group, version) == (self.group, self.version) {
            return Some(model_name(group, version, kind));
        }
        super::name_of(packed::find_gvk(group, version, kind)?)
    }
}

/// `com.example.stable.v1.CronTab` for `stable.example.com/v1` CronTab.
fn model_name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

/// The document `apis/<group>/<version>` of custom resources.
pub fn v3_custom_document(group: &str, version: &str, customs: &[Custom<'_>]) -> String {
    let mut schemas = Schemas::default();
    let names = CustomNames { group, version };
    let mut paths = Paths { group, version, names: &names, schemas: &mut schemas, custom: true };
    let paths = paths.render(customs.iter().map(|c| (c.resource, c.served)));
    let mut own = BTreeMap::new();
    for custom in customs {
        let resource = custom.resource;
        let (kind, list) = (&*resource.kind, &*resource.list_kind);
        let name = model_name(group, version, kind);
        own.insert(
            model_name(group, version, list),
            list_schema(group, version, resource, &name).to_string(),
        );
        own.insert(name, object_schema(group, version, kind, custom.schema).to_string());
    }
    document(&mut schemas, &paths, &frame(), &own)
}

/// Groups that upstream's document of custom resources does not know: it is made with client-go's scheme.
const NOT_IN_CLIENTS: [&str; 4] =
    ["admission.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "imagepolicy.k8s.io"];

fn frame() -> Frame {
    let all = packed::registered_group_versions();
    let registered = all
        .iter()
        .filter_map(|gv| gv.split_once('/'))
        .filter(|(group, _)| !NOT_IN_CLIENTS.contains(group))
        .map(|(group, version)| (group.to_owned(), version.to_owned()))
        .collect();
    Frame { title: "Kubernetes CRD Swagger", version: "v0.1.0", security: false, registered }
}

fn kinds(group: &str, version: &str, kind: &str) -> Value {
    json!([{"group": group, "kind": kind, "version": version}])
}

fn described(text: &str) -> Value {
    json!({"type": "string", "description": text})
}

fn meta(kind: &str, text: &str) -> Value {
    json!({"description": text, "allOf": [reference(&format!("{META}.{kind}"))]})
}

/// What every object says of its type.
fn type_meta(properties: &mut Map<String, Value>) {
    properties.insert(
        "apiVersion".into(),
        described(&format!(
            "APIVersion defines the versioned schema of this representation of an object. Servers should convert \
             recognized schemas to the latest internal value, and may reject unrecognized values. More info: \
             {CONVENTIONS}#resources"
        )),
    );
    properties.insert(
        "kind".into(),
        described(&format!(
            "Kind is a string value representing the REST resource this object represents. Servers may infer this from \
             the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
             {CONVENTIONS}#types-kinds"
        )),
    );
}

fn object_meta() -> Value {
    meta("ObjectMeta", &format!("Standard object's metadata. More info: {CONVENTIONS}#metadata"))
}

fn object_schema(group: &str, version: &str, kind: &str, schema: &Tree) -> Value {
    let mut node = match to_json(schema) {
        Value::Object(node) => node,
        _ => Map::from_iter([("type".to_owned(), json!("object"))]),
    };
    if !schema.is_null() {
        complete(&mut node);
        let properties = node.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            type_meta(properties);
            properties.insert("metadata".into(), object_meta());
        }
    }
    node.insert("x-kubernetes-group-version-kind".into(), kinds(group, version, kind));
    Value::Object(node)
}

/// Adds what short forms imply: the types of an int-or-string, the fields of an embedded object.
fn complete(node: &mut Map<String, Value>) {
    let on = |node: &Map<String, Value>, key: &str| node.get(key) == Some(&json!(true));
    if on(node, "x-kubernetes-int-or-string") && !node.contains_key("anyOf") && !node.contains_key("allOf") {
        node.insert("anyOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(Value::Object(inner)) = node.get_mut(key) {
            complete(inner);
        }
    }
    for property in node.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        if let Value::Object(inner) = property.1 {
            complete(inner);
        }
    }
    if on(node, "x-kubernetes-embedded-resource") {
        let properties = node.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            let version = format!(
                "apiVersion defines the versioned schema of this representation of an object. More info: \
                 {CONVENTIONS}#resources"
            );
            let kind = format!(
                "kind is a string value representing the type of this object. In CamelCase. More info: \
                 {CONVENTIONS}#types-kinds"
            );
            properties.insert("apiVersion".into(), described(&version));
            properties.insert("kind".into(), described(&kind));
            properties.insert("metadata".into(), object_meta());
        }
        let required = node.entry("required").or_insert_with(|| json!([]));
        for name in ["kind", "apiVersion"] {
            if let Some(list) = required.as_array_mut()
                && !list.contains(&json!(name))
            {
                list.push(json!(name));
            }
        }
    }
}

fn list_schema(group: &str, version: &str, resource: &Resource, object: &str) -> Value {
    let mut properties = Map::new();
    type_meta(&mut properties);
    let items = json!({
        "description": format!("List of {}. More info: {CONVENTIONS}", resource.plural),
        "type": "array",
        "items": reference(object),
    });
    properties.insert("items".into(), items);
    let text = format!("Standard list metadata. More info: {CONVENTIONS}#types-kinds");
    properties.insert("metadata".into(), meta("ListMeta", &text));
    json!({
        "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": properties,
        "x-kubernetes-group-version-kind": kinds(group, version, &resource.list_kind),
    })
}

/// A decoded schema as JSON; raw JSON in it is parsed, and was checked when the definition was accepted.
fn to_json(value: &Tree) -> Value {
    match value {
        Tree::Null => Value::Null,
        Tree::Bool(b) => json!(b),
        Tree::Int(i) => json!(i),
        Tree::Float(f) => json!(f),
        Tree::String(s) => json!(s.as_str()),
        Tree::Bytes(b) | Tree::Raw(b) => serde_json::from_slice(b).unwrap_or(Value::Null),
        Tree::List(items) => items.iter().map(to_json).collect(),
        Tree::Map(map) => Value::Object(map.iter().map(|(k, v)| (k.to_owned(), to_json(v))).collect()),
    }
}
