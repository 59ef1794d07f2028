//! The facts as written in `api/`, read with serde. Their meaning is described in `api/README.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// Everything in `api/` that the engine interprets.
pub struct Facts {
    /// By name, over all files of `api/types`.
    pub types: BTreeMap<String, TypeFacts>,
    pub resources: ResourceFacts,
    pub gates: Vec<GateFacts>,
    pub texts: Vec<TextFacts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TypeFacts {
    /// Kinds under which the type is registered, `group/version/kind` (`/v1/Pod`).
    #[serde(default)]
    pub gvk: Vec<String>,
    #[serde(default)]
    pub atomic: bool,
    /// A named list that is a protobuf message of its own: the type of its elements.
    pub list: Option<String>,
    #[serde(default)]
    pub fields: Vec<FieldFacts>,
    #[serde(default, rename = "declared")]
    pub _declared: Option<Value>,
    #[serde(default)]
    pub unions: Option<Value>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FieldFacts {
    /// JSON name; empty for an inlined struct.
    #[serde(default)]
    pub json: String,
    pub go: String,
    /// Type expression: `*int32`, `[]io.k8s.api.core.v1.Container`, `map[string]string`, `Time`.
    #[serde(rename = "type")]
    pub ty: String,
    #[serde(default)]
    pub inline: bool,
    /// Of a member of inlined structs, when they are resolved: their Go names.
    #[serde(skip)]
    pub embedded: String,
    #[serde(default)]
    pub omit: String,
    /// `varint,3` or `bytes,4,packed`.
    pub proto: Option<String>,
    /// `set` or `map`.
    pub list: Option<String>,
    #[serde(default)]
    pub keys: Vec<String>,
    #[serde(default)]
    pub atomic: bool,
    /// `x-kubernetes-map-type: granular`, the default, stated.
    #[serde(default)]
    pub granular: bool,
    /// `merge`, `replace`, `retainKeys`, joined by commas.
    pub patch: Option<String>,
    pub merge_key: Option<String>,
    #[serde(default)]
    pub required: bool,
    #[serde(default, rename = "enum")]
    pub enum_values: Vec<String>,
    pub format: Option<String>,
    /// Unconditional default.
    pub default: Option<Value>,
    /// Facts kept for the reader and for tests; the engine does not look at them.
    #[serde(default, rename = "declared")]
    pub _declared: Option<Value>,
    /// What OpenAPI says; the engine asks only whether it is "".
    #[serde(default)]
    pub openapi_default: Option<Value>,
    /// See [`FieldFacts::go_type`].
    named: Option<String>,
}

impl FieldFacts {
    /// See `Field::empty_default`.
    pub fn has_empty_default(&self) -> bool {
        !self.omit.is_empty() && self.openapi_default.as_ref().is_some_and(|default| default == "")
    }

    /// The type as Go prints it, where `ty` does not tell it. Facts that were written before the package was a part of
    /// the name have none: the name alone is not what Go prints.
    pub fn go_type(&self) -> Option<&str> {
        self.named.as_deref().filter(|name| name.contains('.'))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceFacts {
    pub groups: Vec<GroupFacts>,
    pub resources: Vec<OneResource>,
    /// All group-versions that upstream's servers know, served or not.
    pub registered: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupFacts {
    pub name: String,
    pub versions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OneResource {
    pub group: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    #[serde(default)]
    pub list_kind: String,
    #[serde(default)]
    pub namespaced: bool,
    #[serde(default)]
    pub short_names: Vec<String>,
    #[serde(default)]
    pub categories: Vec<String>,
    pub versions: Vec<VersionFacts>,
    #[serde(default)]
    pub returns_deleted: bool,
    pub storage: Option<StorageFacts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VersionFacts {
    pub version: String,
    #[serde(default)]
    pub verbs: Vec<String>,
    #[serde(default)]
    pub storage_version_hash: String,
    #[serde(default)]
    pub subresources: Vec<SubresourceFacts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SubresourceFacts {
    pub name: String,
    pub kind: String,
    /// As stated in discovery; absent means the parent's.
    pub group: Option<String>,
    pub version: Option<String>,
    pub verbs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct StorageFacts {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub prefix: String,
    #[serde(default)]
    pub json: bool,
    #[serde(default)]
    pub ttl_seconds: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateFacts {
    pub name: String,
    #[serde(default)]
    pub default: bool,
    #[serde(default)]
    pub locked: bool,
    pub stage: String,
}

/// Descriptions that `k8s-openapi` lacks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextFacts {
    #[serde(rename = "type")]
    pub ty: String,
    pub text: Option<String>,
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
    /// Appended to the field's description.
    #[serde(default)]
    pub enums: BTreeMap<String, String>,
}

impl Facts {
    /// Reads `api/types/*.json`, `api/resources.json`, `api/feature-gates.json` and `api/texts.json`.
    pub fn load(api: &Path) -> Result<Facts, String> {
        let mut types = BTreeMap::new();
        let dir = fs::read_dir(api.join("types")).map_err(|e| format!("types: {e}"))?;
        let mut files: Vec<_> = dir.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        for file in files {
            let part: BTreeMap<String, TypeFacts> = read(&file)?;
            for (name, facts) in part {
                if types.insert(name.clone(), facts).is_some() {
                    return Err(format!("{}: {name} is described twice", file.display()));
                }
            }
        }
        let resources = read(&api.join("resources.json"))?;
        let gates = read(&api.join("feature-gates.json"))?;
        let texts = read(&api.join("texts.json"))?;
        Ok(Facts { types, resources, gates, texts })
    }
}

fn read<T: for<'a> Deserialize<'a>>(file: &Path) -> Result<T, String> {
    let text = fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", file.display()))
}
