//! How long the hot ways take: `cargo test --release -p copepod-codec how_long -- --ignored --nocapture`.

use std::hint::black_box;

use copepod_meta::ResourceVersion;

use super::*;

const ROUNDS: u32 = 20_000;

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
    let micros = (cpu_nanos() - start) as f64 / 1e3 / f64::from(ROUNDS);
    println!("{what:<28} {micros:8.2} us");
}

#[test]
#[ignore = "a measurement"]
fn how_long_the_hot_ways_take() {
    let universe = Universe::builtin();
    let gvk = Gvk::new("", "v1", "Pod");
    let ty = universe.by_gvk(&gvk).expect("facts");
    let json = include_bytes!("testdata/pod.json").trim_ascii_end();
    let mut value = decode(json, Media::Json, universe, ty, None).expect("good").value;
    let again = encode(&value, universe, ty, Some(&gvk), Media::Json).expect("encoded");
    assert_eq!(again, json, "the sample is as Go writes it");
    let protobuf = encode(&value, universe, ty, Some(&gvk), Media::Protobuf).expect("encoded");
    let media = copepod_schema::Media::Protobuf;
    let stored = encode_stored(&mut value, universe, ty, &gvk, media).expect("encoded");
    let plan = peek::Plan::new(universe, ty, ["spec.nodeName", "status.phase"]);
    println!("{} bytes of JSON, {} of protobuf", json.len(), protobuf.len());
    measure("decode JSON", || decode(json, Media::Json, universe, ty, None));
    measure("encode JSON", || encode(&value, universe, ty, Some(&gvk), Media::Json));
    measure("decode protobuf", || decode(&protobuf, Media::Protobuf, universe, ty, None));
    measure("encode protobuf", || encode(&value, universe, ty, Some(&gvk), Media::Protobuf));
    let message = stored_body(&stored, ResourceVersion(123_456), false).expect("good");
    measure("protobuf to JSON", || transcode(&message, universe, ty, None));
    measure("splice stored protobuf", || stored_body(&stored, ResourceVersion(123_456), false));
    measure("splice stored JSON", || stored_body(json, ResourceVersion(123_456), false));
    measure("peek meta, protobuf", || peek::Encoded::stored(&stored).and_then(peek::meta));
    measure("peek two fields, protobuf", || {
        peek::Encoded::stored(&stored).and_then(|encoded| plan.read(encoded, universe))
    });
    measure("to a plain tree", || to_untyped(&value, universe, ty, Some(&gvk)));
    measure("clone a tree", || value.clone());
}
