//! OpenAPI documents of the built-in API, rendered when asked for and not kept.
//!
//! Owns: OpenAPI v3, one document per group-version and per discovery root, and the one v2 document, equal to
//! upstream's (`tests.rs` compares with a running server's, without exceptions). Schemas come compressed out
//! of the build; paths are made from the resource table. Does not: cache, negotiate, compute ETags over
//! rendered bytes (documents change only with the build: see [`version_hash`]).

mod custom;
mod gnostic;
mod paths;
mod schemas;
mod target;
#[cfg(test)]
mod tests;
mod v2;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::packed;
use crate::resources::{Resource, ServedVersion};
use crate::types::TypeId;
use crate::universe::Universe;
use paths::{META, Paths, TypeNames, camel_group, capital, reference};
use schemas::Schemas;

/// `info.version` of upstream's documents.
const INFO_VERSION: &str = "1.36";

/// Published names of the built-in types.
struct BuiltinNames;

impl TypeNames for BuiltinNames {
    fn type_name(&self, group: &str, version: &str, kind: &str) -> Option<String> {
        let id = packed::find_gvk(group, version, kind)?;
        name_of(id)
    }
}

fn name_of(id: TypeId) -> Option<String> {
    Universe::builtin().get_struct(id).map(|s| s.name.to_string())
}

/// The documents that the v3 index lists: `api/v1`, `apis/apps/v1`, `apis/apps`, `version` ...
pub fn v3_paths() -> Vec<String> {
    let mut all: Vec<String> =
        [".well-known/openid-configuration", "api", "apis", "openid/v1/jwks", "version"]
            .map(str::to_owned)
            .into();
    for group in packed::groups() {
        if !group.name.is_empty() {
            all.push(format!("apis/{}", group.name));
        }
        all.extend(group.versions.iter().map(|version| paths::root(&group.name, version)[1..].to_owned()));
    }
    all.sort();
    all
}

pub use custom::{Custom, v3_custom_document};
pub use gnostic::{GnosticError, encode as v2_protobuf};
pub use v2::v2_document;

/// One document of the v3 index as JSON; `None` for a path that is not in it.
pub fn v3_document(path: &str) -> Option<String> {
    let mut schemas = Schemas::default();
    let paths = paths_of(&mut schemas, path)?;
    Some(document(&mut schemas, &paths, &builtin_frame(path), &BTreeMap::new()))
}

/// The paths that one document of the v3 index shows.
fn paths_of(schemas: &mut Schemas, path: &str) -> Option<BTreeMap<String, Value>> {
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => group_version(schemas, "", version),
        ["apis", group, version] => group_version(schemas, group, version),
        ["apis", group] if packed::groups().iter().any(|g| g.name == *group) => Some(group_root(group)),
        _ => fixed(path),
    }
}

/// A name for the present state of all built-in documents, for the `hash` of the v3 index and for ETags: they
/// change only with the build.
pub fn version_hash() -> &'static str {
    packed::FACTS_HASH
}

fn group_version(schemas: &mut Schemas, group: &str, version: &str) -> Option<BTreeMap<String, Value>> {
    let known = packed::groups().iter().find(|g| g.name == group)?;
    known.versions.iter().find(|v| *v == version)?;
    let rows = packed::resources()
        .iter()
        .filter(|r| r.group == group)
        .filter_map(|r: &Resource| r.version(version).map(|served: &ServedVersion| (r, served)));
    let mut paths = Paths { group, version, names: &BuiltinNames, schemas, custom: false };
    Some(paths.render(rows))
}

fn get(tag: &str, description: &str, id: &str, media: &[&str], schema: Value) -> Value {
    let content: BTreeMap<&str, Value> =
        media.iter().map(|media| (*media, json!({"schema": schema}))).collect();
    json!({"get": {
        "tags": [tag],
        "description": description,
        "operationId": id,
        "responses": {"200": {"description": "OK", "content": content}, "401": {"description": "Unauthorized"}},
    }})
}

const DISCOVERY_MEDIA: [&str; 3] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// `/apis/apps/`
fn group_root(group: &str) -> BTreeMap<String, Value> {
    let camel = camel_group(group);
    let id = format!("get{}APIGroup", capital(&camel));
    let schema = reference(&format!("{META}.APIGroup"));
    BTreeMap::from([(
        format!("/apis/{group}/"),
        get(&camel, "get information of a group", &id, &DISCOVERY_MEDIA, schema),
    )])
}

/// The documents beside the resource APIs.
fn fixed(path: &str) -> Option<BTreeMap<String, Value>> {
    let text = json!({"type": "string"});
    let item = match path {
        "api" => get(
            "core",
            "get available API versions",
            "getCoreAPIVersions",
            &DISCOVERY_MEDIA,
            reference(&format!("{META}.APIVersions")),
        ),
        "apis" => get(
            "apis",
            "get available API versions",
            "getAPIVersions",
            &DISCOVERY_MEDIA,
            reference(&format!("{META}.APIGroupList")),
        ),
        "version" => get(
            "version",
            "get the version information for this server",
            "getCodeVersion",
            &["application/json"],
            reference("io.k8s.apimachinery.pkg.version.Info"),
        ),
        "openid/v1/jwks" => get(
            "openid",
            "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            "getServiceAccountIssuerOpenIDKeyset",
            &["application/jwk-set+json"],
            text,
        ),
        ".well-known/openid-configuration" => get(
            "WellKnown",
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            "getServiceAccountIssuerOpenIDConfiguration",
            &["application/json"],
            text,
        ),
        _ => return None,
    };
    Some(BTreeMap::from([(format!("/{path}/"), item)]))
}

const REFERENCE: &str = "#/components/schemas/";

/// Names of the types to which a piece of JSON refers.
fn references(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices(REFERENCE).filter_map(|(at, _)| text[at + REFERENCE.len()..].split('"').next())
}

/// What differs between documents besides paths and schemas.
struct Frame {
    title: &'static str,
    version: &'static str,
    /// The document says how clients prove who they are.
    security: bool,
    /// Group-versions stated for the types that are registered in each.
    registered: Vec<(String, String)>,
}

/// Frame of the built-in documents: the core group-version and the document's own.
fn builtin_frame(path: &str) -> Frame {
    let mut registered = vec![(String::new(), "v1".to_owned())];
    if let ["apis", group, version] = path.split('/').collect::<Vec<_>>().as_slice() {
        registered.push(((*group).to_owned(), (*version).to_owned()));
    }
    Frame { title: "Kubernetes", version: INFO_VERSION, security: true, registered }
}

/// Puts paths and the schemas that they reach into one document; `own` are schemas beside the built-in ones.
fn document(
    schemas: &mut Schemas,
    paths: &BTreeMap<String, Value>,
    frame: &Frame,
    own: &BTreeMap<String, String>,
) -> String {
    let Frame { title, version, .. } = frame;
    let mut out =
        format!(r#"{{"openapi":"3.0.0","info":{{"title":"{title}","version":"{version}"}},"paths":{{"#);
    for (i, (path, item)) in paths.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let _ = write!(out, "{comma}\"{path}\":{item}");
    }
    let mut wanted: Vec<String> = references(&out).map(str::to_owned).collect();
    let mut reached = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if reached.contains(&name) {
            continue;
        }
        if let Some(text) = own.get(&name).map(String::as_str).or_else(|| schemas.get(&name)) {
            wanted.extend(references(text).map(str::to_owned));
        }
        reached.insert(name);
    }
    let mut parts = Vec::new();
    if !reached.is_empty() {
        let mut part = r#""schemas":{"#.to_owned();
        for (i, name) in reached.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let text = own.get(name).map(String::as_str).or_else(|| schemas.get(name));
            let text = with_kinds(name, text.unwrap_or(r#"{"type":"object"}"#), frame);
            let _ = write!(part, "{comma}\"{name}\":{text}");
        }
        part.push('}');
        parts.push(part);
    }
    if frame.security {
        parts.push(SECURITY.to_owned());
    }
    let _ = write!(out, r#"}},"components":{{{}}}}}"#, parts.join(","));
    out
}

const SECURITY: &str = r#""securitySchemes":{"BearerToken":{"type":"apiKey","description":"Bearer Token authentication","name":"authorization","in":"header"}}"#;

/// Types that are registered in every group-version name those of the frame.
fn with_kinds(name: &str, text: &str, frame: &Frame) -> String {
    let kind = name.strip_prefix(META).and_then(|rest| rest.strip_prefix('.'));
    let Some(kind @ ("DeleteOptions" | "WatchEvent")) = kind else {
        return text.to_owned();
    };
    let kinds: Value = frame
        .registered
        .iter()
        .map(|(group, version)| json!({"group": group, "kind": kind, "version": version}))
        .collect();
    let open = text.strip_suffix('}').unwrap_or(text);
    format!(r#"{open},"x-kubernetes-group-version-kind":{kinds}}}"#)
}
