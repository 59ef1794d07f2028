//! Our documents against those of a running upstream server.
//!
//! The goldens are 11 MB, so only their digests are kept: `testdata/openapi-digests.tsv`, of the documents as JSON with sorted
//! keys. To see where a document differs, or to renew the digests after a new upstream version:
//!
//! ```text
//! hack/upstream/openapi-goldens DIR
//! COPEPOD_OPENAPI_GOLDENS=DIR cargo test -p copepod-schema openapi
//! COPEPOD_OPENAPI_GOLDENS=DIR cargo test -p copepod-schema renew_digests -- --ignored
//! ```

#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::*;

const DIGESTS: &str = "testdata/openapi-digests.tsv";

/// Upstream's documents, where somebody has asked an upstream server for them.
fn goldens() -> Option<PathBuf> {
    std::env::var_os("COPEPOD_OPENAPI_GOLDENS").map(PathBuf::from)
}

/// The file of a document below the goldens: `v2`, `crontab` or the path of a v3 document.
fn golden(dir: &Path, name: &str) -> Value {
    let file = match name {
        "v2" | "crontab" => dir.join(format!("{name}.json")),
        path => dir.join("v3").join(path.replace('/', "__") + ".json"),
    };
    let text = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    serde_json::from_slice(&text).expect("a golden is JSON")
}

fn digest(document: &Value) -> String {
    Sha256::digest(document.to_string()).iter().map(|b| format!("{b:02x}")).collect()
}

/// Fails unless `ours` is upstream's document `name`, and says where it is not when the goldens are at hand.
fn check(name: &str, ours: &str) {
    let ours: Value = serde_json::from_str(ours).expect("ours is JSON");
    if let Some(dir) = goldens() {
        let mut found = Vec::new();
        differences("", &ours, &golden(&dir, name), &mut found);
        assert!(
            found.is_empty(),
            "{name}: {} differences\n{}",
            found.len(),
            found[..found.len().min(60)].join("\n")
        );
    }
    let kept = include_str!("../testdata/openapi-digests.tsv")
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix('\t'));
    let kept = kept.unwrap_or_else(|| panic!("{DIGESTS} has no {name}"));
    assert_eq!(digest(&ours), kept, "{name} is not upstream's; the head of this file tells how to see where");
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
    for path in v3_paths() {
        check(&path, &v3_document(&path).expect("listed"));
    }
}

/// Upstream lists no document that we lack.
#[test]
fn every_v3_document_of_upstream_is_there() {
    let listed = include_str!("../testdata/openapi-digests.tsv").lines().filter_map(|l| l.split('\t').next());
    let mut theirs: Vec<&str> = listed.filter(|name| !["v2", "crontab"].contains(name)).collect();
    let mut ours = v3_paths();
    theirs.sort_unstable();
    ours.sort_unstable();
    assert_eq!(ours, theirs);
}

/// From upstream's documents, never from ours.
#[test]
#[ignore = "renews testdata/openapi-digests.tsv"]
fn renew_digests() {
    let dir = goldens().expect("COPEPOD_OPENAPI_GOLDENS names upstream's documents");
    let files = std::fs::read_dir(dir.join("v3")).expect("the goldens have v3");
    let names = files.map(|f| {
        f.expect("a file").file_name().to_string_lossy().trim_end_matches(".json").replace("__", "/")
    });
    let mut names: Vec<String> = names.chain(["v2".into(), "crontab".into()]).collect();
    names.sort_unstable();
    let lines = names.iter().map(|name| format!("{name}\t{}\n", digest(&golden(&dir, name))));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(DIGESTS);
    std::fs::write(file, lines.collect::<String>()).expect("the digests are written");
}

#[test]
fn unknown_documents_are_refused() {
    for path in ["", "api/v2", "apis/nothing", "apis/apps/v9", "logs"] {
        assert!(v3_document(path).is_none(), "{path}");
    }
}

#[test]
fn the_v2_document_is_upstreams() {
    check("v2", &v2_document());
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
    check("crontab", &ours);
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
