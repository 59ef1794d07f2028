//! Every kind against upstream's own answers: `testdata/goldens/*.json`, renewed by
//! `cd hack/upstream && go run ./cmd/validation-goldens ../../src/kinds`.
//!
//! A golden is a base manifest, what upstream makes of it (defaults, preparation, warnings, table row), and for each of
//! hundreds of wrong values, one at a time, upstream's errors on create, update and status update. `KINDS_GOLDEN=pod-full`
//! runs one.

use copepod_meta::{ErrorList, GroupResource, Gvk, Value, debug_json};
use copepod_schema::{Scalar, Special, Type, TypeId, Universe};
use serde_json::Value as Json;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::equality::same;
use crate::strategy::Context;
use crate::testing::{self, context, tree};
use crate::{Kind, metadata};

const SHOWN_MAX: usize = 25;
/// Longer texts are cut: a diff may be very long.
const SHOWN_BYTES_MAX: usize = 700;

struct Golden<'a> {
    name: String,
    json: &'a Json,
    kind: Kind,
    namespaced: bool,
}

/// Differences found so far, as text for people.
#[derive(Default)]
struct Report {
    text: String,
    cases: usize,
    wrong: usize,
}

impl Report {
    fn wrong(&mut self, golden: &Golden, what: &str, detail: &str) {
        self.wrong += 1;
        if self.wrong <= SHOWN_MAX {
            let detail: String = detail
                .lines()
                .map(|l| l.chars().take(SHOWN_BYTES_MAX).chain("\n".chars()).collect::<String>())
                .collect();
            let _infallible = writeln!(self.text, "--- {}: {what}\n{detail}", golden.name);
        }
    }
}

#[test]
fn kinds_answer_as_upstream() {
    let only = std::env::var("KINDS_GOLDEN").unwrap_or_default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/goldens");
    let mut report = Report::default();
    let mut files: Vec<_> = fs::read_dir(folder).expect("goldens are checked in").flatten().collect();
    files.sort_by_key(fs::DirEntry::path);
    for file in files {
        let path = file.path();
        let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        if !only.is_empty() && name != only {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a golden can be read");
        let json: Json = serde_json::from_str(&text).expect("a golden is JSON");
        let (group, resource) = (field(&json, "group"), field(&json, "resource"));
        let kind =
            crate::kind(group, resource).unwrap_or_else(|| panic!("{name}: {resource}.{group} has no row"));
        let namespaced = !json["base"]["metadata"]["namespace"].is_null();
        check(&Golden { name, json: &json, kind, namespaced }, &mut report);
    }
    assert!(report.cases > 0, "no golden named {only:?}");
    assert!(report.wrong == 0, "{}{} of {} answers differ", report.text, report.wrong, report.cases);
}

fn field<'a>(json: &'a Json, name: &str) -> &'a str {
    json[name].as_str().unwrap_or("")
}

fn check(golden: &Golden, report: &mut Report) {
    let resource = GroupResource::new(&golden.kind.group, &golden.kind.plural);
    let cx = Context { resource: &resource, ..context() };
    let version = field(golden.json, "version");
    let strategy = golden.kind.strategy;
    let base = &golden.json["base"];

    report.cases += 1;
    let mut prepared = decode(golden, base, strategy);
    strategy.prepare_create(&cx, &mut prepared);
    let warnings = strategy.warnings(&cx, &prepared, None);
    strategy.canonicalize(&mut prepared);
    strategy.from_hub(version, &mut prepared);
    let mut want = tree(&golden.json["prepared"]);
    prune(golden, &mut want);
    // Times of conditions are made of the clock. A client sees what reading from the store defaults.
    for tree in [&mut prepared, &mut want] {
        default(golden, tree);
        tree.remove(&["status", "lastPhaseTransitionTime"]);
        for condition in
            tree.at_mut(&["status", "conditions"]).and_then(Value::as_list_mut).into_iter().flatten()
        {
            condition.remove(&["lastTransitionTime"]);
        }
    }
    if !same(&prepared, &want) {
        report.wrong(golden, "prepared", &difference("", &prepared, &want));
    }
    let want: Vec<&str> = texts(&golden.json["warnings"]);
    if warnings != want {
        report.wrong(golden, "warnings", &format!("ours {warnings:#?}\nwant {want:#?}"));
    }
    for (what, ours) in [
        ("createOnUpdate", strategy.allow_create_on_update()),
        ("unconditionalUpdate", strategy.allow_unconditional_update()),
    ] {
        if golden.json[what].as_bool() != Some(ours) {
            report.wrong(golden, what, &format!("ours {ours}"));
        }
    }
    let row = strategy.row(&decode(golden, base, strategy));
    let now = copepod_meta::time::parse(cx.now).expect("a time");
    let cells: Vec<Value> = row.cells.iter().map(|cell| cell.at(now)).collect();
    let ours = debug_json::to_string(&cells.into());
    let want = debug_json::to_string(&tree(&golden.json["row"]));
    if !golden.json["row"].is_null() && ours != want {
        report.wrong(golden, "row", &format!("ours {ours}\nwant {want}"));
    }
    let ours: Value = row.conditions.into();
    if !same(&ours, &tree(&golden.json["rowConditions"])) {
        report.wrong(golden, "row conditions", &debug_json::to_string(&ours));
    }
    for case in golden.json["cases"].as_array().into_iter().flatten() {
        // Neither CEL nor JSONPath is compiled here.
        let compiler = ["compilation failed", "must evaluate to", "invalid JSONPath"];
        if texts(&case["errors"]).iter().any(|text| compiler.iter().any(|c| text.contains(c))) {
            continue;
        }
        report.cases += 1;
        run(golden, &cx, case, report);
    }
}

/// What the engine does before the strategy prepares: defaults of the version, conversion to the hub.
fn decode(golden: &Golden, json: &Json, strategy: &dyn crate::Strategy) -> Value {
    let version = field(golden.json, "version");
    let mut object = tree(json);
    prune(golden, &mut object);
    default(golden, &mut object);
    strategy.to_hub(version, &mut object);
    object
}

/// The engine's defaulting.
fn default(golden: &Golden, object: &mut Value) {
    let (version, universe) = (field(golden.json, "version"), Universe::builtin());
    match universe.by_gvk(&gvk(golden)) {
        Some(ty) => golden.kind.default(version, universe, ty, object),
        None => golden.kind.strategy.default(version, object),
    }
}

fn gvk(golden: &Golden) -> Gvk {
    let (group, version) = (field(golden.json, "group"), field(golden.json, "version"));
    Gvk::new(group, version, field(&golden.json["base"], "kind"))
}

/// Drops what the type does not know, as a typed decoder does.
fn prune(golden: &Golden, object: &mut Value) {
    let universe = Universe::builtin();
    if let Some(id) = universe.by_gvk(&gvk(golden)) {
        prune_as(universe, object, id);
    }
}

fn prune_as(universe: &Universe, value: &mut Value, id: TypeId) {
    match (universe.get(id), value) {
        (Type::Struct(ty), Value::Map(map)) => {
            map.retain(|name, member| match ty.field(name) {
                Some(field) => {
                    prune_as(universe, member, field.ty);
                    true
                }
                None => false,
            });
        }
        (Type::List(list), Value::List(items)) => {
            items.iter_mut().for_each(|v| prune_as(universe, v, list.elem))
        }
        (Type::Map(ty), Value::Map(map)) => map.iter_mut().for_each(|(_, v)| prune_as(universe, v, ty.value)),
        (Type::Special(Special::Quantity), value) => {
            if let Ok(quantity) = copepod_meta::Quantity::parse(value.as_str().unwrap_or("")) {
                *value = quantity.to_string().into();
            }
        }
        (Type::Scalar(Scalar::Bytes), value) => {
            *value = Value::Bytes(testing::base64(value.as_str().unwrap_or("")).into());
        }
        _ => {}
    }
}

fn run(golden: &Golden, cx: &Context, case: &Json, report: &mut Report) {
    let strategy = golden.kind.strategy;
    let mut errors = ErrorList::new();
    let op = field(case, "op");
    if op == "create" {
        let mut object = decode(golden, &mutate(&golden.json["base"], case), strategy);
        strategy.prepare_create(cx, &mut object);
        let rule = |name: &str, prefix: bool| strategy.validate_name(name, prefix);
        if strategy.metadata_first() {
            metadata::validate(&object, golden.namespaced, &rule, &mut errors);
        }
        strategy.validate_create(cx, &object, &mut errors);
        if errors.is_empty() {
            metadata::validate(&object, golden.namespaced, &metadata::path_segment_name, &mut errors);
        }
    } else {
        let mut stored = golden.json["prepared"].clone();
        if op == "status" {
            stored["status"] = golden.json["base"]["status"].clone();
        }
        stored["metadata"]["resourceVersion"] = "7".into();
        stored["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555".into();
        stored["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z".into();
        let part = match op {
            "status" => strategy.subresource("status").expect("the golden has a status subresource"),
            _ => strategy,
        };
        let old = decode(golden, &stored, strategy);
        let mut object = decode(golden, &mutate(&stored, case), strategy);
        metadata::reset_generation(&mut object, &old);
        part.prepare_update(cx, &mut object, &old);
        metadata::prepare_update(&mut object, &old);
        metadata::validate(&object, golden.namespaced, &metadata::path_segment_name, &mut errors);
        metadata::validate_update(&object, &old, &mut errors);
        part.validate_update(cx, &object, &old, &mut errors);
    }
    let mut ours: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let mut want: Vec<&str> = texts(&case["errors"]);
    // Upstream walks maps in random order.
    ours.sort_unstable();
    want.sort_unstable();
    if ours != want {
        let what = format!(
            "{op} {} = {}{}",
            case["path"],
            case["value"],
            if case["delete"].is_null() { "" } else { " (deleted)" }
        );
        let missing: Vec<_> = want.iter().filter(|w| !ours.iter().any(|o| o == *w)).collect();
        let extra: Vec<_> = ours.iter().filter(|o| !want.iter().any(|w| w == o)).collect();
        let counts = format!("{} errors, want {}", ours.len(), want.len());
        report.wrong(golden, &what, &format!("missing {missing:#?}\nextra {extra:#?}\n{counts}"));
    }
}

fn texts(list: &Json) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Json::as_str).collect()
}

/// The object with one place changed.
fn mutate(object: &Json, case: &Json) -> Json {
    let mut out = object.clone();
    let path: Vec<&Json> = case["path"].as_array().into_iter().flatten().collect();
    let Some((last, parents)) = path.split_last() else { return case["value"].clone() };
    let mut at = &mut out;
    for step in parents {
        at = match step.as_u64() {
            Some(i) => &mut at[i as usize],
            None => &mut at[step.as_str().unwrap_or("")],
        };
    }
    let deleted = case["delete"].as_bool() == Some(true);
    match last.as_u64() {
        // Go decodes null as the zero value of the list's elements.
        Some(i) if deleted => {
            let element = &mut at[i as usize];
            *element = match element {
                Json::String(_) => "".into(),
                Json::Number(_) => 0.into(),
                _ => Json::Object(serde_json::Map::new()),
            };
        }
        Some(i) => at[i as usize] = case["value"].clone(),
        None => {
            let key = last.as_str().unwrap_or("");
            if let Some(map) = at.as_object_mut() {
                if deleted {
                    map.remove(key);
                } else {
                    map.insert(key.into(), case["value"].clone());
                }
            }
        }
    }
    out
}

/// The first places where two trees differ.
fn difference(path: &str, ours: &Value, want: &Value) -> String {
    match (ours, want) {
        _ if same(ours, want) => String::new(),
        (Value::Map(a), Value::Map(b)) => {
            let mut keys: Vec<&str> = a.keys().chain(b.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            keys.iter().map(|k| difference(&format!("{path}.{k}"), ours.get(k), want.get(k))).collect()
        }
        (Value::List(a), Value::List(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().map(|(i, (x, y))| difference(&format!("{path}[{i}]"), x, y)).collect()
        }
        _ => format!("{path}: ours {} want {}\n", debug_json::to_string(ours), debug_json::to_string(want)),
    }
}
