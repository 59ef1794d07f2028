//! How long a write's merges take: `cargo test --release -p copepod-merge how_long -- --ignored --nocapture`.

use std::hint::black_box;

use copepod_codec::{Media, decode, from_untyped, to_untyped};
use copepod_meta::{Gvk, Value};
use copepod_schema::Universe;

use crate::apply::{Context, NoOtherVersions, apply, update};
use crate::defaults::apply_defaults;
use crate::strategic::strategic_merge_patch;

const ROUNDS: u32 = 3_000;

/// Time that this thread has been on a processor, so that a busy machine does not count.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number")
}

fn measure<T>(what: &str, mut work: impl FnMut() -> T) {
    for _ in 0..ROUNDS / 10 {
        black_box(work());
    }
    let start = cpu_nanos();
    for _ in 0..ROUNDS {
        black_box(work());
    }
    println!("{what:<44} {:8.2} us", (cpu_nanos() - start) as f64 / 1e3 / f64::from(ROUNDS));
}

#[test]
#[ignore = "a measurement"]
fn how_long_merges_take() {
    let universe = Universe::builtin();
    let gvk = Gvk::new("", "v1", "Pod");
    let ty = universe.by_gvk(&gvk).expect("facts");
    let pod = include_bytes!("../codec/testdata/pod.json").trim_ascii_end();
    let value = decode(pod, Media::Json, universe, ty, None).expect("good").value;
    let live = to_untyped(&value, universe, ty, Some(&gvk));
    let empty = to_untyped(&Value::map(), universe, ty, Some(&gvk));
    let parse = |text: &[u8]| copepod_codec::decode_untyped(text).ok().map(|(value, _)| value);
    let context = Context {
        universe,
        ty,
        gvk: &gvk,
        subresource: "",
        reset_fields: None,
        versions: &NoOtherVersions,
        empty: &empty,
        now: "2026-11-21T00:00:00Z",
        parse_json: &parse,
    };
    let mut changed = live.clone();
    changed.set(&["metadata", "annotations", "x"], "y");
    let patch = parse(br#"{"status":{"$setElementOrder/conditions":[{"type":"Ready"}],"conditions":[{"type":"Ready","status":"False","lastTransitionTime":"2026-11-21T03:00:00Z"}]}}"#).expect("JSON");
    let config = parse(br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-6f7d8b9c5d-abcde","namespace":"default","labels":{"app":"web"}},"spec":{"containers":[{"name":"web","image":"registry.example.com/team/web:1.2.3"}]}}"#).expect("JSON");
    let mut unmanaged = live.clone();
    unmanaged.remove(&["metadata", "managedFields"]);
    unmanaged.remove(&["metadata", "uid"]);
    measure("defaults of a defaulted pod", || apply_defaults(&mut value.clone(), universe, ty));
    measure("managedFields of a create", || {
        update(&context, empty.clone(), unmanaged.clone(), "kubectl-create")
    });
    measure("managedFields of an update", || update(&context, live.clone(), changed.clone(), "manager"));
    measure("apply of two fields", || apply(&context, live.clone(), &config, "manager", true));
    measure("strategic patch of a condition", || {
        strategic_merge_patch(live.clone(), patch.clone(), universe, ty)
    });
    measure("plain tree and back", || {
        let plain = to_untyped(&value, universe, ty, Some(&gvk));
        from_untyped(&plain, universe, ty, None)
    });
}
