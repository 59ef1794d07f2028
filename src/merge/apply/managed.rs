//! `metadata.managedFields`: who owns what, as a map from manager to field set, and back.
//! upstream: apimachinery/pkg/util/managedfields/internal/{managedfields,capmanagers}.go

use std::collections::BTreeMap;

use copepod_meta::{Map, Value};

use super::fields_v1::{self, ParseJson};
use super::set::Set;

/// Updaters an object may have; the oldest ones are thrown together. upstream: DefaultMaxUpdateManagers
const UPDATE_MANAGERS_MAX: usize = 10;

/// How a manager came to own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By applying them.
    Apply,
    /// By create, update or another patch.
    Update,
}

/// Who owns fields: one entry of `managedFields`. Ordered as upstream's identifiers are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// The name that the client gave.
    pub name: String,
    /// How it came to own.
    pub operation: Operation,
    /// Of an updater; an applier is the same whatever version it applied last.
    pub api_version: String,
    /// The subresource written through, "" for none.
    pub subresource: String,
}

impl Manager {
    /// As conflict messages name it. upstream: conflict.go printManager
    pub(super) fn text(&self) -> String {
        let mut text = copepod_meta::field::quote(&self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {}", copepod_meta::field::quote(&self.subresource)));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// What a manager owns, in terms of one version.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Owned {
    pub(super) set: Set,
    pub(super) api_version: String,
    pub(super) time: Value,
}

/// All of an object's managers.
pub(super) type Managed = BTreeMap<Manager, Owned>;

/// Reads `managedFields`.
pub(super) fn read(entries: &Value, parse: ParseJson) -> Result<Managed, String> {
    let mut managed = Managed::new();
    for (index, entry) in entries.as_list().unwrap_or_default().iter().enumerate() {
        let operation = match entry.str_at(&["operation"]) {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".into()),
        };
        let api_version = entry.str_at(&["apiVersion"]);
        if api_version.is_empty() {
            return Err("apiVersion must not be empty".into());
        }
        match entry.str_at(&["fieldsType"]) {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}")),
        }
        let set = fields_v1::read(entry.get("fieldsV1"), parse)
            .map_err(|e| format!("error decoding versioned set: error decoding set: {e}"))?;
        let manager = Manager {
            name: entry.str_at(&["manager"]).into(),
            operation,
            api_version: if operation == Operation::Apply { String::new() } else { api_version.into() },
            subresource: entry.str_at(&["subresource"]).into(),
        };
        let owned = Owned { set, api_version: api_version.into(), time: entry.get("time").clone() };
        managed.insert(manager, owned);
    }
    Ok(managed)
}

/// Writes `managedFields`; null when there are none.
pub(super) fn write(managed: &Managed) -> Value {
    if managed.is_empty() {
        return Value::Null;
    }
    let mut entries: Vec<(&Manager, &Owned)> = managed.iter().collect();
    // Times are RFC 3339 in UTC: their text sorts as they do.
    entries.sort_by(|(a, x), (b, y)| {
        let time = |owned: &Owned| owned.time.as_str().unwrap_or_default().to_string();
        a.operation
            .cmp(&b.operation)
            .then_with(|| time(x).cmp(&time(y)))
            .then_with(|| a.name.cmp(&b.name))
            .then_with(|| x.api_version.cmp(&y.api_version))
            .then_with(|| a.subresource.cmp(&b.subresource))
    });
    Value::List(entries.into_iter().map(|(manager, owned)| entry(manager, owned)).collect())
}

fn entry(manager: &Manager, owned: &Owned) -> Value {
    let mut entry = Map::default();
    let texts = [("manager", manager.name.as_str()), ("subresource", &manager.subresource)];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        entry.insert(name, text);
    }
    entry.insert(
        "operation",
        match manager.operation {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        },
    );
    entry.insert("apiVersion", owned.api_version.as_str());
    if !owned.time.is_null() {
        entry.insert("time", owned.time.clone());
    }
    entry.insert("fieldsType", "FieldsV1");
    entry.insert("fieldsV1", fields_v1::write(&owned.set));
    Value::Map(entry)
}

/// Throws the oldest updaters together, by version, until there are few enough.
/// upstream: capmanagers.go capUpdateManagers
pub(super) fn cap(managed: &mut Managed) {
    let mut updaters: Vec<(String, Manager)> = managed
        .iter()
        .filter(|(manager, _)| manager.operation == Operation::Update)
        .map(|(manager, owned)| (owned.time.as_str().unwrap_or_default().into(), manager.clone()))
        .collect();
    let mut count = updaters.len();
    if count <= UPDATE_MANAGERS_MAX {
        return;
    }
    updaters.sort();
    let mut first_of_version: BTreeMap<String, Manager> = BTreeMap::new();
    for (_, manager) in updaters {
        if count <= UPDATE_MANAGERS_MAX {
            return;
        }
        let Some(owned) = managed.get(&manager).cloned() else { continue };
        let bucket = Manager {
            name: "ancient-changes".into(),
            operation: Operation::Update,
            api_version: owned.api_version.clone(),
            subresource: String::new(),
        };
        let Some(first) = first_of_version.get(&owned.api_version) else {
            first_of_version.insert(owned.api_version, manager);
            continue;
        };
        if !managed.contains_key(&bucket)
            && let Some(moved) = managed.remove(first)
        {
            managed.insert(bucket.clone(), moved);
        }
        managed.remove(&manager);
        if let Some(target) = managed.get_mut(&bucket) {
            target.set = owned.set.union(&target.set);
            target.time = owned.time;
        }
        count -= 1;
    }
}
