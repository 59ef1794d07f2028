//! OpenAPI documents of the built-in API, rendered when asked for and not kept.
//!
//! Owns: OpenAPI v3, one document per group-version and per discovery root, and the one v2 document, equal to upstream's
//! (`tests.rs` compares with a running server's, without exceptions). Schemas come compressed out of the build; paths are made from the resource table.
//! Does not: cache, negotiate, compute ETags over rendered bytes (documents change only with the build: see [`version_hash`]).

mod paths;
mod schemas;
#[cfg(test)]
mod tests;
mod v2;

use std::collections::{BTreeMap, BTreeSet};

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

pub use v2::v2_document;

/// One document of the v3 index as JSON; `None` for a path that is not in it.
pub fn v3_document(path: &str) -> Option<String> {
    let mut schemas = Schemas::default();
    let paths = paths_of(&mut schemas, path)?;
    let gv = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => Some(("", *version)),
        ["apis", group, version] => Some((*group, *version)),
        _ => None,
    };
    Some(document(&mut schemas, &paths, gv))
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

/// A name for the present state of all built-in documents, for the `hash` of the v3 index and for ETags: they change only
/// with the build.
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
    let mut paths = Paths { group, version, names: &BuiltinNames, schemas, strategic: true, protobuf: true };
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

/// Puts paths and the schemas that they reach into one document.
fn document(schemas: &mut Schemas, paths: &BTreeMap<String, Value>, gv: Option<(&str, &str)>) -> String {
    let mut out = format!(
        r#"{{"openapi":"3.0.0","info":{{"title":"Kubernetes","version":"{INFO_VERSION}"}},"paths":{{"#
    );
    for (i, (path, item)) in paths.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        out += &format!("{comma}\"{path}\":{item}");
    }
    let mut wanted: Vec<String> = references(&out).map(str::to_owned).collect();
    let mut reached = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if reached.contains(&name) {
            continue;
        }
        if let Some(text) = schemas.get(&name) {
            wanted.extend(references(text).map(str::to_owned));
        }
        reached.insert(name);
    }
    out += r#"},"components":{"#;
    if !reached.is_empty() {
        out += r#""schemas":{"#;
        for (i, name) in reached.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let text = schemas.get(name).unwrap_or(r#"{"type":"object"}"#);
            let text = with_kinds(name, text, gv);
            out += &format!("{comma}\"{name}\":{text}");
        }
        out += "},";
    }
    out += r#""securitySchemes":{"BearerToken":{"type":"apiKey","description":"Bearer Token authentication","name":"authorization","in":"header"}}}}"#;
    out
}

/// Types that are registered in every group-version name, in a document, the core group's and the document's own.
fn with_kinds(name: &str, text: &str, gv: Option<(&str, &str)>) -> String {
    let Some(kind) = name.strip_prefix(META).and_then(|rest| rest.strip_prefix('.')) else {
        return text.to_owned();
    };
    if !matches!(kind, "DeleteOptions" | "WatchEvent") {
        return text.to_owned();
    }
    let mut kinds = vec![json!({"group": "", "kind": kind, "version": "v1"})];
    if let Some((group, version)) = gv
        && !group.is_empty()
    {
        kinds.push(json!({"group": group, "kind": kind, "version": version}));
    }
    let open = text.strip_suffix('}').unwrap_or(text);
    format!(r#"{open},"x-kubernetes-group-version-kind":{}}}"#, json!(kinds))
}
