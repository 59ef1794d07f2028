//! Our documents against those of a running upstream server.
//!
//! The goldens are 11 MB and not kept here: `hack/upstream/openapi-goldens DIR` asks an upstream server for
//! them. Without `COPEPOD_OPENAPI_GOLDENS` the comparison is skipped, and says so.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::path::PathBuf;

use serde_json::Value;

use super::*;

fn goldens() -> Option<PathBuf> {
    let dir = std::env::var_os("COPEPOD_OPENAPI_GOLDENS").map(PathBuf::from);
    if dir.is_none() {
        eprintln!("skipped: COPEPOD_OPENAPI_GOLDENS is not set");
    }
    dir
}

/// Every difference as `path: ours, theirs`.
fn differences(at: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
                differences(
                    &format!("{at}/{key}"),
                    a.get(key).unwrap_or(&Value::Null),
                    b.get(key).unwrap_or(&Value::Null),
                    found,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{at}[{i}]"), a, b, found);
            }
        }
        _ if ours == theirs => {}
        _ => {
            let short = |v: &Value| v.to_string().chars().take(160).collect::<String>();
            found.push(format!("{at}: ours {} theirs {}", short(ours), short(theirs)));
        }
    }
}

#[test]
fn v3_documents_are_upstreams() {
    let Some(dir) = goldens() else { return };
    let mut found = Vec::new();
    for path in v3_paths() {
        let file = dir.join("v3").join(path.replace('/', "__") + ".json");
        let theirs = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let theirs: Value = serde_json::from_slice(&theirs).expect("a golden is JSON");
        let ours: Value = serde_json::from_str(&v3_document(&path).expect("listed")).expect("ours is JSON");
        differences(&path, &ours, &theirs, &mut found);
    }
    for line in found.iter().take(60) {
        println!("{line}");
    }
    assert!(found.is_empty(), "{} differences", found.len());
}

#[test]
fn unknown_documents_are_refused() {
    for path in ["", "api/v2", "apis/nothing", "apis/apps/v9", "logs"] {
        assert!(v3_document(path).is_none(), "{path}");
    }
}

#[test]
fn the_v2_document_is_upstreams() {
    let Some(dir) = goldens() else { return };
    let theirs = std::fs::read(dir.join("v2.json")).expect("the goldens have v2.json");
    let theirs: Value = serde_json::from_slice(&theirs).expect("a golden is JSON");
    let ours: Value = serde_json::from_str(&v2_document()).expect("ours is JSON");
    let mut found = Vec::new();
    differences("", &ours, &theirs, &mut found);
    for line in found.iter().take(60) {
        println!("{line}");
    }
    assert!(found.is_empty(), "{} differences", found.len());
}

fn verbs(words: &str) -> Box<[crate::types::Name]> {
    words.split(' ').map(|w| w.to_owned().into()).collect()
}

fn subresource(name: &str, group: &str, version: &str, kind: &str) -> crate::Subresource {
    crate::Subresource {
        name: name.to_owned().into(),
        group: group.to_owned().into(),
        version: version.to_owned().into(),
        kind: kind.to_owned().into(),
        states_group_version: kind == "Scale",
        ty: None,
        verbs: verbs("get patch update"),
    }
}

#[test]
fn a_custom_resources_document_is_upstreams() {
    let Some(dir) = goldens() else { return };
    let crd: Value = serde_json::from_str(include_str!("../testdata/crontab-crd.json")).expect("JSON");
    let schema = crate::crd::from_json(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone());
    let served = ServedVersion {
        version: "v1".into(),
        ty: TypeId(0),
        list_ty: None,
        verbs: verbs("create delete deletecollection get list patch update watch"),
        subresources: Box::new([
            subresource("scale", "autoscaling", "v1", "Scale"),
            subresource("status", "stable.example.com", "v1", "CronTab"),
        ]),
        storage_version_hash: "".into(),
    };
    let resource = Resource {
        group: "stable.example.com".into(),
        plural: "crontabs".into(),
        singular: "crontab".into(),
        kind: "CronTab".into(),
        list_kind: "CronTabList".into(),
        namespaced: true,
        short_names: Box::default(),
        categories: Box::default(),
        versions: Box::default(),
        returns_deleted: false,
        storage: None,
    };
    let customs = [Custom { resource: &resource, served: &served, schema: &schema }];
    let ours = v3_custom_document("stable.example.com", "v1", &customs);
    let ours: Value = serde_json::from_str(&ours).expect("ours is JSON");
    let theirs = std::fs::read(dir.join("crontab.json")).expect("the goldens have crontab.json");
    let theirs: Value = serde_json::from_slice(&theirs).expect("a golden is JSON");
    let mut found = Vec::new();
    differences("", &ours, &theirs, &mut found);
    for line in found.iter().take(60) {
        println!("{line}");
    }
    assert!(found.is_empty(), "{} differences", found.len());
}

/// `cargo test --release -p copepod-schema measure -- --ignored --nocapture`
#[test]
#[ignore = "prints measurements"]
fn measure() {
    let time = |what: &str, work: &dyn Fn() -> usize| {
        let start = std::time::Instant::now();
        let got = work();
        println!("{what}: {:?}, {got}", start.elapsed());
    };
    time("resource table, first use", &|| packed::resources().len());
    time("Pod and its closure, first use", &|| {
        let universe = Universe::builtin();
        let mut wanted = vec![packed::find_gvk("", "v1", "Pod").expect("Pod")];
        let mut seen = BTreeSet::new();
        while let Some(id) = wanted.pop() {
            if seen.insert(id) {
                match universe.get(id) {
                    crate::Type::Struct(s) => wanted.extend(s.fields.iter().map(|f| f.ty)),
                    crate::Type::List(l) => wanted.push(l.elem),
                    crate::Type::Map(m) => wanted.push(m.value),
                    _ => {}
                }
            }
        }
        seen.len()
    });
    time("all types", &|| {
        let universe = Universe::builtin();
        (0..universe.len() as u32).for_each(|i| _ = universe.get(TypeId(i)));
        universe.len()
    });
    time("v3 api/v1", &|| v3_document("api/v1").map_or(0, |d| d.len()));
    time("v3 apis/apps/v1", &|| v3_document("apis/apps/v1").map_or(0, |d| d.len()));
    time("v3, all documents", &|| v3_paths().iter().filter_map(|p| v3_document(p)).map(|d| d.len()).sum());
    time("v2", &|| v2_document().len());
}
