//! Unconditional defaults against upstream's defaulting of fuzzed objects of every kind: what is added here,
//! upstream adds too.
//!
//! Made by `cd hack/upstream && go run ./cmd/corpus -out ../../target/corpus -n 20`; `COPEPOD_CORPUS` names
//! another place.

use std::path::{Path, PathBuf};

use copepod_codec::{Media, decode, type_meta};
use copepod_meta::{Value, debug_json};
use copepod_schema::Universe;

use crate::defaults::apply_defaults;

fn directory() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/corpus");
    std::env::var_os("COPEPOD_CORPUS").map_or_else(default, PathBuf::from)
}

/// Paths where `ours` has something that `before` had not and `theirs` has not.
fn invented(before: &Value, ours: &Value, theirs: &Value, path: &str, out: &mut Vec<String>) {
    match ours {
        Value::Map(map) => {
            for (name, value) in map.iter() {
                invented(before.get(name), value, theirs.get(name), &format!("{path}.{name}"), out);
            }
        }
        Value::List(items) => {
            let at = |list: &Value, index: usize| {
                list.as_list().and_then(|items| items.get(index)).cloned().unwrap_or_default()
            };
            for (index, item) in items.iter().enumerate() {
                invented(&at(before, index), item, &at(theirs, index), &format!("{path}[{index}]"), out);
            }
        }
        scalar if scalar != before && scalar != theirs => {
            out.push(format!(
                "{path}: {} instead of {}",
                debug_json::to_string(scalar),
                debug_json::to_string(theirs)
            ));
        }
        _ => {}
    }
}

#[test]
#[ignore = "needs the corpus that hack/upstream/cmd/corpus makes"]
fn every_default_is_upstreams() {
    let universe = Universe::builtin();
    let (mut failures, mut objects, mut changed) = (Vec::new(), 0, 0);
    for kind in std::fs::read_dir(directory()).expect("the corpus has been made") {
        for file in std::fs::read_dir(kind.expect("readable").path()).expect("readable") {
            let path = file.expect("readable").path();
            let name = path.display().to_string();
            let Some(stem) = name.strip_suffix(".defaulted.json") else { continue };
            let read = |path: &str| std::fs::read(path).expect("readable");
            let (before, after) = (read(&format!("{stem}.json")), read(&name));
            let gvk = type_meta(&before, Media::Json).expect("type meta");
            let Some(ty) = universe.by_gvk(&gvk) else { continue };
            let object = |text: &[u8]| decode(text, Media::Json, universe, ty, None).expect("good").value;
            let (before, theirs) = (object(&before), object(&after));
            let mut ours = before.clone();
            apply_defaults(&mut ours, universe, ty);
            objects += 1;
            changed += usize::from(ours != before);
            let mut wrong = Vec::new();
            invented(&before, &ours, &theirs, "", &mut wrong);
            failures.extend(wrong.into_iter().map(|wrong| format!("{stem}{wrong}")));
        }
    }
    println!("{objects} objects, {changed} with defaults, {} differences", failures.len());
    failures.iter().take(40).for_each(|failure| println!("{failure}"));
    assert!(failures.is_empty() && changed > 0);
}
