//! Objects: a base that upstream takes, more fields, and then what makes it wrong.

use anyhow::Context as _;
use copepod_schema::{Type, TypeId, Universe};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::Path;

use super::chance::Chance;
use super::script::{self, pointer_of};
use super::values;

/// What upstream makes of each is known to the tests of `kinds`.
const BASES: &str = "src/kinds/testdata/bases";

/// A kind that scripts are made of.
#[derive(Clone, Debug)]
pub struct Subject {
    /// `apps`
    pub group: String,
    /// `v1`
    pub version: String,
    /// `deployments`
    pub plural: String,
    /// In a namespace.
    pub namespaced: bool,
    /// Verbs of the resource.
    pub verbs: Vec<String>,
    /// Subresources and their verbs.
    pub subresources: Vec<(String, Vec<String>)>,
    /// The object's type.
    pub ty: TypeId,
    /// Manifests.
    pub bases: Vec<Json>,
}

/// Everything that is stored and has a manifest, less what changes the server for all others (its APIs, webhooks,
/// policies, flow control).
pub fn subjects(root: &Path) -> anyhow::Result<Vec<Subject>> {
    let mut bases: BTreeMap<(String, String), Vec<Json>> = BTreeMap::new();
    let dir = root.join(BASES);
    let mut files: Vec<_> = std::fs::read_dir(&dir)?.collect::<Result<Vec<_>, _>>()?;
    files.sort_by_key(|f| f.file_name());
    for file in files {
        let path = file.path();
        let base: Json =
            serde_json::from_slice(&std::fs::read(&path)?).with_context(|| path.display().to_string())?;
        let text = |name: &str| base[name].as_str().unwrap_or("").to_string();
        bases.entry((text("apiVersion"), text("kind"))).or_default().push(base);
    }
    let excluded = [
        "apiextensions.k8s.io",
        "apiregistration.k8s.io",
        "admissionregistration.k8s.io",
        "flowcontrol.apiserver.k8s.io",
    ];
    let mut out = Vec::new();
    for resource in copepod_schema::resources() {
        if resource.storage.is_none() || excluded.contains(&resource.group.as_ref()) {
            continue;
        }
        for served in &resource.versions {
            let group_version = copepod_meta::GroupVersion::new(&resource.group, &served.version);
            let api_version = group_version.kind("").api_version();
            let Some(bases) = bases.get(&(api_version, resource.kind.to_string())) else { continue };
            let names = |names: &[copepod_schema::Name]| names.iter().map(|n| n.to_string()).collect();
            out.push(Subject {
                group: resource.group.to_string(),
                version: served.version.to_string(),
                plural: resource.plural.to_string(),
                namespaced: resource.namespaced,
                verbs: names(&served.verbs),
                subresources: served
                    .subresources
                    .iter()
                    .map(|s| (s.name.to_string(), names(&s.verbs)))
                    .collect(),
                ty: served.ty,
                bases: bases.clone(),
            });
        }
    }
    Ok(out)
}

impl Subject {
    /// `/apis/apps/v1/namespaces/$ns/deployments`
    pub fn path(&self) -> String {
        let root = if self.group.is_empty() { "/api/".into() } else { format!("/apis/{}/", self.group) };
        let namespace = if self.namespaced { "/namespaces/$ns" } else { "" };
        format!("{root}{}{namespace}/{}", self.version, self.plural)
    }

    /// A manifest under a name; names of the whole cluster hold the script's namespace.
    pub fn object(&self, chance: &mut Chance, name: &str) -> Json {
        let mut object = chance.pick(&self.bases).clone();
        object["metadata"]["name"] = Json::from(name);
        if let Json::Object(metadata) = &mut object["metadata"] {
            metadata.remove("namespace");
            metadata.remove("uid");
            metadata.remove("resourceVersion");
            let labels = metadata.entry("labels").or_insert_with(|| json!({}));
            labels["script"] = json!("$ns");
            labels["app"] = Json::from(*chance.pick(&["web", "db"]));
        }
        if self.plural == "events" {
            let mut involved = object.clone();
            for field in ["involvedObject", "regarding"] {
                if involved.get(field).is_some() {
                    involved[field]["namespace"] = json!("$ns");
                }
            }
            object = involved;
        }
        for field in ["subjects"] {
            for subject in object[field].as_array_mut().into_iter().flatten() {
                if subject.get("namespace").is_some() {
                    subject["namespace"] = json!("$ns");
                }
            }
        }
        if object["subjects"].is_null()
            && let Json::Object(members) = &mut object
        {
            members.remove("subjects");
        }
        // Fixed addresses and ports of the whole cluster would be taken after the first script.
        if self.plural == "services" && chance.percent(70) {
            for pointer in ["/spec/clusterIP", "/spec/clusterIPs", "/spec/healthCheckNodePort"] {
                if object.pointer(pointer).is_some_and(|v| v != "None" && v != &json!(["None"])) {
                    script::remove(&mut object, pointer);
                }
            }
            for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
                script::remove(port, "/nodePort");
            }
        }
        object
    }

    /// With a few more plausible fields.
    pub fn enrich(&self, chance: &mut Chance, object: &mut Json, under: &str) {
        for _ in 0..1 + chance.below(2) {
            if let Some((pointer, value)) = self.addition(chance, object, under) {
                script::set(object, &pointer, value);
            }
        }
    }

    /// A plausible field that is not there yet, below the member `under` (or anywhere).
    pub fn addition(&self, chance: &mut Chance, object: &Json, under: &str) -> Option<(String, Json)> {
        let mut structs = Vec::new();
        collect(self.ty, object, &mut Vec::new(), &mut structs);
        structs.retain(|(parts, _)| {
            let top = parts.first().map(String::as_str);
            if under.is_empty() { top != Some("metadata") } else { top == Some(under) }
        });
        let (mut parts, ty) =
            if structs.is_empty() { (Vec::new(), self.ty) } else { chance.pick(&structs).clone() };
        let fields = &Universe::builtin().get_struct(ty)?.fields;
        let at = object.pointer(&pointer_of(&parts))?;
        let free: Vec<_> = fields
            .iter()
            .filter(|f| {
                at.get(f.json.as_ref()).is_none()
                    && !matches!(f.json.as_ref(), "kind" | "apiVersion" | "metadata")
            })
            .collect();
        if free.is_empty() {
            return None;
        }
        let field = *chance.pick(&free);
        let value = values::plausible(chance, field, 1);
        parts.push(field.json.to_string());
        Some((pointer_of(&parts), value))
    }

    /// Something that is there, and what to put in its place to make it wrong.
    pub fn mutation(&self, chance: &mut Chance, object: &Json) -> Mutation {
        let mut places = Vec::new();
        leaves(object, &mut Vec::new(), &mut places);
        places.retain(|p| {
            !matches!(p.first().map(String::as_str), Some("apiVersion" | "kind"))
                && p.last().is_some_and(|l| l != "script")
        });
        if places.is_empty() {
            return Mutation::Set("/noSuchField".into(), json!(1));
        }
        let place = chance.pick(&places).clone();
        let pointer = pointer_of(&place);
        match chance.below(10) {
            0..=2 => Mutation::Remove(pointer),
            3 => {
                let parent = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
                Mutation::Set(format!("{parent}/noSuchField"), json!("x"))
            }
            _ => {
                let old = object.pointer(&pointer).cloned().unwrap_or_default();
                Mutation::Set(pointer, values::bad(chance, &old))
            }
        }
    }
}

/// A change by JSON pointer.
#[derive(Clone, Debug)]
pub enum Mutation {
    /// Put there.
    Set(String, Json),
    /// Take away.
    Remove(String),
}

impl Mutation {
    /// Changes the object.
    pub fn apply(&self, object: &mut Json) {
        match self {
            Mutation::Set(pointer, value) => script::set(object, pointer, value.clone()),
            Mutation::Remove(pointer) => script::remove(object, pointer),
        }
    }
}

/// All structs that the object holds, with their places.
fn collect(ty: TypeId, value: &Json, at: &mut Vec<String>, out: &mut Vec<(Vec<String>, TypeId)>) {
    match (Universe::builtin().get(ty), value) {
        (Type::Struct(s), Json::Object(members)) => {
            out.push((at.clone(), ty));
            for (key, member) in members {
                if let Some(field) = s.field(key) {
                    at.push(key.clone());
                    collect(field.ty, member, at, out);
                    at.pop();
                }
            }
        }
        (Type::List(list), Json::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                at.push(index.to_string());
                collect(list.elem, item, at, out);
                at.pop();
            }
        }
        _ => {}
    }
}

/// All places of a tree, inner ones too.
pub fn leaves(value: &Json, at: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    if !at.is_empty() {
        out.push(at.clone());
    }
    let mut visit = |key: String, member: &Json| {
        at.push(key);
        leaves(member, at, out);
        at.pop();
    };
    match value {
        Json::Object(members) => members.iter().for_each(|(k, v)| visit(k.clone(), v)),
        Json::Array(items) => items.iter().enumerate().for_each(|(i, v)| visit(i.to_string(), v)),
        _ => {}
    }
}
