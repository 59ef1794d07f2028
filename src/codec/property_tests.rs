//! Properties over random input: nothing panics, and a tree survives every text form.

use copepod_meta::{CompactString, Map, Value};
use proptest::prelude::*;

use super::*;

/// A plain JSON tree.
fn tree() -> impl Strategy<Value = copepod_meta::Value> {
    let text = prop_oneof![
        "[a-z]{0,8}",
        "[ -~]{0,40}",
        "\\PC{0,12}",
        "[a-z ]{90,120}",
        "[ \n\ta:#'\"-]{0,12}",
        Just("yes".to_string()),
        Just("010".to_string()),
        Just("1e3".to_string()),
        Just("2024-01-01".to_string()),
        Just("12:30".to_string()),
        Just("~".to_string()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-1e9..1e9f64).prop_map(|f| Value::Float(f + 0.5)),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
            prop::collection::vec((text.clone(), inner), 0..5).prop_map(|entries| {
                let named = entries.into_iter().map(|(k, v)| (CompactString::from(k), v));
                Value::Map(Map::from_entries(named.collect()))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn trees_survive_json(value in tree()) {
        let json = encode_untyped(&value);
        prop_assert_eq!(decode_untyped(&json).expect("own text"), (value.clone(), vec![]));
        prop_assert_eq!(decode_untyped(&pretty(&json)).expect("own text").0, value);
    }

    #[test]
    fn trees_survive_yaml(value in tree()) {
        let json = encode_untyped(&value);
        let yaml = json_to_yaml(&json);
        let back = yaml_to_json(&yaml);
        let shown = String::from_utf8_lossy(&yaml).into_owned();
        prop_assert!(back.is_ok(), "{:?}\n{}", back, shown);
        prop_assert_eq!(decode_untyped(&back.expect("checked").0).expect("JSON").0, value, "{}", shown);
    }

    /// Whatever is done to a message: JSON written from it is the JSON that its tree makes, or it has to be decoded.
    #[test]
    fn damaged_messages_are_written_as_their_trees(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let universe = Universe::builtin();
        let gvk = Gvk::new("", "v1", "Pod");
        let ty = universe.by_gvk(&gvk).expect("facts");
        let json = include_bytes!("testdata/pod.json").trim_ascii_end();
        let pod = decode(json, Media::Json, universe, ty, None).expect("good").value;
        let mut message = encode_body(&pod, universe, ty, &gvk, Media::Protobuf).expect("encoded").bytes.to_vec();
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        let written = transcode(&Body { bytes: message.clone().into(), form: Form::Protobuf }, universe, ty, Some(&gvk));
        let mut enveloped = Vec::new();
        proto::envelope::head_into(&gvk, message.len(), &mut enveloped);
        enveloped.extend_from_slice(&message);
        enveloped.extend_from_slice(proto::envelope::TAIL);
        let version = copepod_meta::ResourceVersion(1234);
        if let Ok(body) = stored_body(&enveloped, version, false) {
            prop_assert_eq!(stored_message_len(&enveloped, version).expect("as its body"), Some(body.bytes.len()));
        }
        if let Some(written) = written {
            let tree = decode(&enveloped, Media::Protobuf, universe, ty, None).expect("as usual").value;
            let want = encode(&tree, universe, ty, Some(&gvk), Media::Json).expect("has JSON");
            prop_assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&want));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let universe = Universe::builtin();
        let ty = universe.by_gvk(&Gvk::new("", "v1", "Pod")).expect("facts");
        let mut enveloped = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12".to_vec();
        enveloped.push(bytes.len().min(127) as u8);
        enveloped.extend_from_slice(&bytes);
        for media in [Media::Json, Media::Yaml, Media::Protobuf] {
            let _either = decode(&bytes, media, universe, ty, None);
            let _either = decode(&enveloped, media, universe, ty, None);
        }
    }
}
