//! Objects of every kind, filled by upstream's fuzzers and encoded by upstream's encoders: each form goes
//! into the tree and out in every form, byte for byte.
//!
//! Made by `cd hack/upstream && go run ./cmd/corpus -out ../../target/corpus -n 20`; `COPEPOD_CORPUS` names
//! another place.

use std::path::{Path, PathBuf};

use super::*;

fn directory() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/corpus");
    std::env::var_os("COPEPOD_CORPUS").map_or_else(default, PathBuf::from)
}

/// One object in all its forms.
struct Sample {
    name: String,
    gvk: Gvk,
    json: Vec<u8>,
    yaml: Option<Vec<u8>>,
    protobuf: Option<Vec<u8>>,
}

fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for kind in std::fs::read_dir(directory()).expect("the corpus has been made") {
        let kind = kind.expect("readable").path();
        for file in std::fs::read_dir(&kind).expect("readable") {
            let path = file.expect("readable").path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_string();
            if !name.ends_with(".json") || name.ends_with(".defaulted.json") {
                continue;
            }
            let json = std::fs::read(&path).expect("readable").trim_ascii_end().to_vec();
            let gvk = type_meta(&json, Media::Json).expect("type meta");
            // Watch events have no type meta and never stand alone.
            if gvk.kind.is_empty() {
                continue;
            }
            samples.push(Sample {
                name: path.display().to_string(),
                gvk,
                json,
                yaml: std::fs::read(path.with_extension("yaml")).ok(),
                protobuf: std::fs::read(path.with_extension("pb")).ok(),
            });
        }
    }
    samples
}

/// The place where two byte strings part, with something round it.
fn difference(got: &[u8], want: &[u8]) -> Option<String> {
    if got == want {
        return None;
    }
    let at = got.iter().zip(want).position(|(a, b)| a != b).unwrap_or(got.len().min(want.len()));
    let show = |bytes: &[u8]| {
        let end = bytes.len().min(at + 80);
        String::from_utf8_lossy(&bytes[at.saturating_sub(80).min(end)..end]).into_owned()
    };
    Some(format!("at {at} of {}/{}:\n got  {}\n want {}", got.len(), want.len(), show(got), show(want)))
}

/// What is in the envelope.
fn message_of(enveloped: &[u8]) -> Bytes {
    match peek::Encoded::stored(enveloped).expect("an envelope") {
        peek::Encoded::Message(message) => Bytes::copy_from_slice(message),
        peek::Encoded::Json(_) => panic!("JSON"),
    }
}

/// Whether some value in the tree is so.
fn holds(value: &Value, test: fn(&Value) -> bool) -> bool {
    test(value)
        || match value {
            Value::List(items) => items.iter().any(|item| holds(item, test)),
            Value::Map(map) => map.iter().any(|(_, item)| holds(item, test)),
            _ => false,
        }
}

/// What a form cannot say, and so cannot be asked to keep: JSON leaves out empty bytes that protobuf has;
/// YAML brings the members of verbatim JSON into another order.
fn lost_on_the_way(from: Media, to: Media, truth: &Value) -> bool {
    let empty_bytes = |v: &Value| matches!(v, Value::Bytes(b) if b.is_empty());
    match (from, to) {
        (Media::Json | Media::Yaml, Media::Protobuf) if holds(truth, empty_bytes) => true,
        (Media::Yaml, Media::Json | Media::Protobuf) => holds(truth, |v| matches!(v, Value::Raw(_))),
        _ => false,
    }
}

#[test]
#[ignore = "needs the corpus that hack/upstream/cmd/corpus makes"]
fn every_form_becomes_every_form() {
    let universe = Universe::builtin();
    let samples = samples();
    let mut failures = Vec::new();
    let (mut checked, mut transcoded) = (0, 0);
    for sample in &samples {
        let Some(ty) = universe.by_gvk(&sample.gvk) else {
            failures.push(format!("{}: no facts for {}", sample.name, sample.gvk));
            continue;
        };
        let inputs = [
            (Media::Json, Some(&sample.json)),
            (Media::Yaml, sample.yaml.as_ref()),
            (Media::Protobuf, sample.protobuf.as_ref()),
        ];
        let (truth_media, truth) =
            sample.protobuf.as_ref().map_or((Media::Json, &sample.json), |p| (Media::Protobuf, p));
        let truth = decode(truth, truth_media, universe, ty, None).map(|d| d.value).unwrap_or_default();
        for (from, input) in inputs.iter().filter_map(|(m, i)| i.map(|i| (*m, i))) {
            let decoded = match decode(input, from, universe, ty, None) {
                Ok(decoded) => decoded,
                Err(error) => {
                    failures.push(format!("{} {from:?}: {error}", sample.name));
                    continue;
                }
            };
            if !decoded.strict_errors.is_empty() {
                failures.push(format!("{} {from:?}: {:?}", sample.name, decoded.strict_errors));
            }
            let text =
                encode(&decoded.value, universe, ty, Some(&decoded.gvk), Media::Json).expect("has JSON");
            if from == Media::Protobuf {
                transcoded += 1;
                let message = Body { bytes: message_of(input), form: Form::Protobuf };
                match transcode(&message, universe, ty, Some(&decoded.gvk)) {
                    Some(json) => failures
                        .extend(difference(&json, &text).map(|d| format!("{} transcoded {d}", sample.name))),
                    None => failures.push(format!("{} transcoded: is unusual", sample.name)),
                }
            }
            let plain = decode_untyped(&text).expect("own text").0;
            if to_untyped(&decoded.value, universe, ty, Some(&decoded.gvk)) != plain {
                failures.push(format!("{} {from:?}: the plain tree is not the JSON's", sample.name));
            }
            for (to, want) in inputs.iter().filter_map(|(m, i)| i.map(|i| (*m, i))) {
                if lost_on_the_way(from, to, &truth) {
                    continue;
                }
                checked += 1;
                match encode(&decoded.value, universe, ty, Some(&decoded.gvk), to) {
                    Ok(got) => {
                        if let Some(where_) = difference(&got, want) {
                            failures.push(format!("{} {from:?} -> {to:?} {where_}", sample.name));
                        }
                    }
                    Err(error) => failures.push(format!("{} {from:?} -> {to:?}: {error}", sample.name)),
                }
            }
        }
    }
    println!("{} objects, {checked} ways, {} failures", samples.len(), failures.len());
    // A few of each kind of failure say more than many of one.
    for way in [
        "Json ->",
        "Yaml ->",
        "Protobuf ->",
        "-> Yaml",
        "Json:",
        "Yaml:",
        "Protobuf:",
        "no facts",
        "plain tree",
        "transcoded",
    ] {
        failures.iter().filter(|f| f.contains(way)).take(8).for_each(|f| println!("{f}\n"));
    }
    assert!(failures.is_empty() && checked > 0 && transcoded > 0);
}
