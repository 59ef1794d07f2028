//! Tables over the whole crate. What upstream's fuzzers make is in `corpus_tests`.

use super::*;
use copepod_meta::ResourceVersion;

fn builtin(kind: &str) -> (&'static Universe, TypeId, Gvk) {
    let universe = Universe::builtin();
    let (group, version) = match kind {
        "Deployment" | "ControllerRevision" => ("apps", "v1"),
        "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1"),
        "Lease" => ("coordination.k8s.io", "v1"),
        _ => ("", "v1"),
    };
    let gvk = Gvk::new(group, version, kind);
    let ty = universe.by_gvk(&gvk).unwrap_or_else(|| panic!("no facts for {gvk}"));
    (universe, ty, gvk)
}

fn decode_json_as(kind: &str, text: &str) -> Result<Decoded, DecodeFailure> {
    let (universe, ty, gvk) = builtin(kind);
    decode(text.as_bytes(), Media::Json, universe, ty, Some(&gvk))
}

/// What a JSON text of a kind is after a way through the tree.
fn round(kind: &str, text: &str) -> String {
    let (universe, ty, gvk) = builtin(kind);
    let decoded = decode_json_as(kind, text).expect(text);
    let out = encode(&decoded.value, universe, ty, Some(&gvk), Media::Json).expect("has JSON");
    String::from_utf8(out.to_vec()).expect("UTF-8")
}

/// Expected texts are what upstream's json serializer makes of the same input.
#[test]
fn objects_are_written_as_go_writes_them() {
    for (kind, text, want) in [
        (
            "Pod",
            r#"{"spec":{"containers":[{"image":"a<b","name":"c"}]},"kind":"Pod","apiVersion":"v1"}"#,
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{},"spec":{"containers":[{"name":"c","image":"a\u003cb","resources":{}}]},"status":{}}"#,
        ),
        (
            "Pod",
            r#"{"metadata":{"creationTimestamp":"2024-01-01T01:00:00+01:00"},"spec":{"containers":null,"terminationGracePeriodSeconds":0,"hostNetwork":false}}"#,
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"creationTimestamp":"2024-01-01T00:00:00Z"},"spec":{"containers":null,"terminationGracePeriodSeconds":0},"status":{}}"#,
        ),
        (
            "Pod",
            r#"{"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":0.5,"memory":"1024Ki"}},"livenessProbe":{"httpGet":{"port":"http"}}}]}}"#,
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"500m","memory":"1Mi"}},"livenessProbe":{"httpGet":{"port":"http"}}}]},"status":{}}"#,
        ),
        (
            "Service",
            r#"{"spec":{"ports":[{"port":80}]}}"#,
            r#"{"kind":"Service","apiVersion":"v1","metadata":{},"spec":{"ports":[{"port":80,"targetPort":0}]},"status":{"loadBalancer":{}}}"#,
        ),
        (
            "Secret",
            r#"{"data":{"b":"aGk=","a":"","n":null}}"#,
            r#"{"kind":"Secret","apiVersion":"v1","metadata":{},"data":{"a":"","b":"aGk=","n":null}}"#,
        ),
        (
            "ControllerRevision",
            r#"{"data":{"b": [1, "<"], "a":null},"revision":3}"#,
            r#"{"kind":"ControllerRevision","apiVersion":"apps/v1","metadata":{},"data":{"b":[1,"\u003c"],"a":null},"revision":3}"#,
        ),
        (
            "Deployment",
            r#"{"spec":{"selector":null,"template":{"spec":{"containers":[]}}}}"#,
            r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{},"spec":{"selector":null,"template":{"metadata":{},"spec":{"containers":[]}},"strategy":{}},"status":{}}"#,
        ),
        (
            "CustomResourceDefinition",
            r#"{"spec":{"versions":[{"name":"v1","schema":{"openAPIV3Schema":{"type":"object","properties":{"a":{"TYPE":"string","maximum":1.0,"items":{"unknown":1,"type":"x"},"additionalProperties":true}},"default":{ "x" : 1 }}}}]}}"#,
            r#"{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1","metadata":{},"spec":{"group":"","names":{"plural":"","kind":""},"scope":"","versions":[{"name":"v1","served":false,"storage":false,"schema":{"openAPIV3Schema":{"type":"object","default":{"x":1},"properties":{"a":{"maximum":1,"items":{"type":"x"},"additionalProperties":true}}}}}]},"status":{"conditions":null,"acceptedNames":{"plural":"","kind":""},"storedVersions":null}}"#,
        ),
    ] {
        assert_eq!(round(kind, text), want, "{text}");
        // What upstream wrote, it reads and writes again.
        assert_eq!(round(kind, want), want);
    }
}

/// Messages of sigs.k8s.io/json and the serializer on the same texts.
#[test]
fn wrong_values_are_refused_in_upstreams_words() {
    for (kind, text, want) in [
        (
            "Pod",
            r#"{"spec":{"containers":[{"image":1}]}}"#,
            "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string",
        ),
        (
            "Deployment",
            r#"{"spec":{"replicas":"x","template":{"spec":{"containers":{}}}}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "Deployment",
            r#"{"spec":{"template":{"spec":{"containers":{}}}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            "Deployment",
            r#"{"spec":{"replicas":99999999999}}"#,
            "json: cannot unmarshal number 99999999999 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "Pod",
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            "Pod",
            r#"{"spec":{"containers":[{"image":1,"resources":{"limits":{"cpu":"x"}}}]}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            "Pod",
            r#"{"metadata":{"creationTimestamp":1}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
        ),
        ("Secret", r#"{"data":{"a":"?"}}"#, "illegal base64 data at input byte 0"),
        (
            "Pod",
            r#"{"kind":1}"#,
            "couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of type string",
        ),
        (
            "Pod",
            r#"{"spec":{"containers":1},"x":}"#,
            "couldn't get version/kind; json parse error: invalid character '}' looking for beginning of value",
        ),
        (
            "Pod",
            "[]",
            "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }",
        ),
        ("Pod", r#"{"apiVersion":"a/b/c"}"#, "unexpected GroupVersion string: a/b/c"),
    ] {
        let failure = decode_json_as(kind, text).expect_err(text);
        assert_eq!(failure.to_string(), want, "{text}");
    }
    let failure = decode_json_as("Pod", r#"{"kind":"Pod","spec":1}"#).expect_err("a number");
    assert_eq!(
        failure.status("Pod", b"").message,
        "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field Pod.spec of type v1.PodSpec"
    );
    let failure = decode_json_as("Pod", "{\"kind\":\"Pod\",\"apiVersion\":\"v1\"").expect_err("cut off");
    assert_eq!(
        failure.status("Pod", b"{\"kind\":\"Pod\",\"apiVersion\":\"v1\"").message,
        "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input ({\"kind\":\"Pod\",\"apiVersion\":\"v1 ...)"
    );
}

#[test]
fn strict_errors_name_unknown_and_duplicate_fields_by_path() {
    let decoded = decode_json_as(
        "Pod",
        r#"{"metadata":{"name":"a","name":"b","labels":{"z":"1","z":"2","a.b":"3"}},"spec":{"foo":{"a":1},"containers":[{"name":"x"},{"Image":"y","ports":[{"containerport":1}]}]},"extra":1}"#,
    )
    .expect("usable");
    assert_eq!(
        decoded.strict_errors,
        [
            "duplicate field \"metadata.name\"",
            "duplicate field \"metadata.labels.z\"",
            "unknown field \"spec.foo\"",
            "unknown field \"spec.containers[1].Image\"",
            "unknown field \"spec.containers[1].ports[0].containerport\"",
            "unknown field \"extra\"",
        ]
    );
    assert_eq!(decoded.value.str_at(&["metadata", "name"]), "b");
    assert_eq!(decoded.value.str_at(&["metadata", "labels", "z"]), "2");
    let status = decoded.strict_status("Pod").expect("complaints");
    assert!(status.message.starts_with(
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: duplicate field \"metadata.name\", "
    ));
}

#[test]
fn a_struct_that_occurs_twice_is_merged_as_go_merges_it() {
    let text = r#"{"metadata":{"name":"a","labels":{"x":"1"}},"metadata":{"namespace":"b","labels":{"y":"2"},"name":null}}"#;
    assert_eq!(
        round("ConfigMap", text),
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"b","labels":{"x":"1","y":"2"}}}"#
    );
}

#[test]
fn pretty_json_is_laid_out_as_gos() {
    assert_eq!(
        String::from_utf8_lossy(&pretty(br#"{"a":{},"b":[],"c":[1,{"d":"x,{}"}],"e":"\"["}"#)),
        "{\n  \"a\": {},\n  \"b\": [],\n  \"c\": [\n    1,\n    {\n      \"d\": \"x,{}\"\n    }\n  ],\n  \"e\": \"\\\"[\"\n}"
    );
}

/// Bytes that upstream's protobuf serializer writes for the same object.
#[test]
fn protobuf_has_gogos_bytes() {
    let (universe, ty, gvk) = builtin("ConfigMap");
    let decoded =
        decode_json_as("ConfigMap", r#"{"metadata":{"name":"x"},"data":{"b":"2","a":""}}"#).expect("good");
    let bytes = encode(&decoded.value, universe, ty, Some(&gvk), Media::Protobuf).expect("has protobuf");
    let meta = b"\x0a\x01x\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00";
    let mut want = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12".to_vec();
    let mut message = vec![0x0a, meta.len() as u8];
    message.extend_from_slice(meta);
    message.extend_from_slice(b"\x12\x05\x0a\x01a\x12\x00\x12\x06\x0a\x01b\x12\x012");
    want.push(message.len() as u8);
    want.extend_from_slice(&message);
    want.extend_from_slice(b"\x1a\x00\x22\x00");
    assert_eq!(bytes, want);
    let back = decode(&bytes, Media::Protobuf, universe, ty, None).expect("its own bytes");
    assert_eq!((back.value, back.gvk), (decoded.value, gvk));
}

#[test]
fn bodies_are_the_stored_bytes_with_the_revision() {
    for kind in ["Pod", "ConfigMap", "Lease"] {
        let (universe, ty, gvk) = builtin(kind);
        let text = r#"{"metadata":{"name":"x","namespace":"n","uid":"u","selfLink":"s","resourceVersion":"5","labels":{"a":"b"},"finalizers":["f"]}}"#;
        let mut value = decode_json_as(kind, text).expect("good").value;
        let before = value.clone();
        for media in [copepod_schema::Media::Protobuf, copepod_schema::Media::Json] {
            let stored = encode_stored(&mut value, universe, ty, &gvk, media).expect("stored");
            assert_eq!(value, before);
            let body = stored_body(&stored, ResourceVersion(1234), false).expect("spliced");
            let mut with_version = value.clone();
            with_version.set(&["metadata", "resourceVersion"], "1234");
            with_version.remove(&["metadata", "selfLink"]);
            let want = encode_body(&with_version, universe, ty, &gvk, media.into()).expect("body");
            assert_eq!(body, want, "{kind} {media:?}");
            let answer = frame::object(&gvk, &body).join(&body);
            let plain = encode(&with_version, universe, ty, Some(&gvk), media.into()).expect("encoded");
            assert_eq!(answer, plain);
            for encoded in [peek::Encoded::stored(&stored).expect("ours"), peek::Encoded::body(&body)] {
                let meta = peek::meta(encoded).expect("meta");
                assert_eq!((&*meta.name, &*meta.namespace, &*meta.uid), ("x", "n", "u"));
                assert_eq!((meta.labels.str("a"), meta.finalizers.len(), meta.deleting), ("b", 1, false));
            }
        }
    }
}

#[test]
fn selectable_fields_are_read_without_a_tree() {
    let (universe, ty, gvk) = builtin("Pod");
    let text = r#"{"metadata":{"name":"x"},"spec":{"nodeName":"n1","hostNetwork":true},"status":{"phase":"Running","podIPs":[{"ip":"1.2.3.4"}]}}"#;
    let value = decode_json_as("Pod", text).expect("good").value;
    let plan = peek::Plan::new(
        universe,
        ty,
        [
            "spec.nodeName",
            "status.phase",
            "spec.hostNetwork",
            "metadata.name",
            "spec.nope",
            "spec.schedulerName",
        ],
    );
    for media in [Media::Json, Media::Protobuf] {
        let body = encode_body(&value, universe, ty, &gvk, media).expect("body");
        let got = plan.read(peek::Encoded::body(&body), universe).expect("read");
        let want = [
            Value::string("n1"),
            Value::string("Running"),
            Value::Bool(true),
            Value::string("x"),
            Value::Null,
            Value::Null,
        ];
        assert_eq!(got, want, "{media:?}");
    }
}

#[test]
fn lists_and_events_frame_bodies() {
    let (universe, ty, gvk) = builtin("ConfigMap");
    let list_gvk = Gvk::new("", "v1", "ConfigMapList");
    let list_ty = universe.by_gvk(&list_gvk).expect("facts");
    let items: Vec<Value> = ["a", "b"]
        .iter()
        .map(|name| {
            decode_json_as("ConfigMap", &format!("{{\"metadata\":{{\"name\":\"{name}\"}}}}"))
                .expect("good")
                .value
        })
        .collect();
    let meta = frame::ListMeta {
        resource_version: "7".into(),
        continue_token: "c".into(),
        remaining_item_count: Some(3),
    };
    let mut list = Value::map();
    list.set(&["metadata", "resourceVersion"], "7");
    list.set(&["metadata", "continue"], "c");
    list.set(&["metadata", "remainingItemCount"], 3);
    list.set(&["items"], items.clone());
    for media in [Media::Json, Media::Protobuf] {
        let bodies: Vec<Body> =
            items.iter().map(|v| encode_body(v, universe, ty, &gvk, media).expect("body")).collect();
        let len = bodies.iter().enumerate().map(|(i, b)| frame::item_len(b.form, b.bytes.len(), i)).sum();
        let framed = frame::list(bodies[0].form, &list_gvk, &meta, len);
        let mut bytes = framed.head.to_vec();
        for (index, body) in bodies.iter().enumerate() {
            bytes.extend_from_slice(&frame::item_head(body, index));
            bytes.extend_from_slice(&body.bytes);
        }
        assert_eq!(bytes.len(), framed.head.len() + len);
        bytes.extend_from_slice(&framed.tail);
        let want = encode(&list, universe, list_ty, Some(&list_gvk), media).expect("list");
        assert_eq!(bytes, want, "{media:?}");
    }
    let body = encode_body(&items[0], universe, ty, &gvk, Media::Json).expect("body");
    assert_eq!(
        frame::event("ADDED", &gvk, &body).join(&body),
        "{\"type\":\"ADDED\",\"object\":{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"a\"}}}\n"
    );
    let body = encode_body(&items[0], universe, ty, &gvk, Media::Protobuf).expect("body");
    let event = frame::event("ADDED", &gvk, &body).join(&body);
    assert_eq!(event[..4], ((event.len() - 4) as u32).to_be_bytes());
    assert_eq!(&event[4..11], b"\x0a\x05ADDED");
    let object = encode(&items[0], universe, ty, Some(&gvk), Media::Protobuf).expect("object");
    assert!(event.ends_with(&object));
}

#[test]
fn yaml_is_json_in_other_clothes() {
    for (yaml, json) in [
        ("a: yes\nb: 010\nc: 'no'\nd: ~\n", r#"{"a":true,"b":8,"c":"no","d":null}"#),
        (
            "a: &x {k: v}\nb: *x\nc:\n  <<: *x\n  z: 1\n",
            r#"{"a":{"k":"v"},"b":{"k":"v"},"c":{"k":"v","z":1}}"#,
        ),
        ("1: a\ntrue: b\n", r#"{"1":"a","true":"b"}"#),
        ("a: 1\n---\nb: 2\n", r#"{"a":1}"#),
        ("a: 2024-01-01\nb: 1.50\nc: !!str 12\n", r#"{"a":"2024-01-01","b":1.5,"c":"12"}"#),
        ("", "null"),
        ("a: |\n  x\n  y\n", r#"{"a":"x\ny\n"}"#),
    ] {
        let (got, duplicates) = yaml_to_json(yaml.as_bytes()).expect(yaml);
        assert_eq!(String::from_utf8_lossy(&got), json, "{yaml}");
        assert_eq!(duplicates, None);
    }
    let (_, duplicates) = yaml_to_json(b"a: 1\nb:\n  c: 1\n  c: 2\na: 3\n").expect("usable");
    assert_eq!(
        duplicates.as_deref(),
        Some(
            "yaml: unmarshal errors:\n  line 4: key \"c\" already set in map\n  line 5: key \"a\" already set in map"
        )
    );
    for (yaml, want) in [
        ("a: *b\n", "yaml: line 1"),
        ("a: .nan\n", "json: unsupported value: NaN"),
        ("? [a]\n: 1\n", "yaml: invalid map key"),
        ("a: [", "yaml: line "),
    ] {
        let error = yaml_to_json(yaml.as_bytes()).expect_err(yaml).to_string();
        assert!(error.starts_with(want), "{yaml}: {error}");
    }
    let bomb = (0..30).fold("a0: &a0 [x,x]\n".to_string(), |text, i| {
        format!("{text}a{}: &a{} [*a{i},*a{i}]\n", i + 1, i + 1)
    });
    let error = yaml_to_json(bomb.as_bytes()).expect_err("a bomb").to_string();
    assert_eq!(error, "yaml: document contains excessive aliasing");
}

/// Hostile bytes end as errors: every prefix of good bytes, every byte flipped, deep nesting.
#[test]
fn nothing_panics_on_bad_bytes() {
    let (universe, ty, gvk) = builtin("Pod");
    let text = r#"{"metadata":{"name":"x","labels":{"a":"b"},"managedFields":[{"fieldsV1":{"f:a":{}}}]},"spec":{"containers":[{"name":"c","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"1"}},"env":[{"name":"\u00e9\ud83d\ude00"}]}],"terminationGracePeriodSeconds":30}}"#;
    let value = decode_json_as("Pod", text).expect("good").value;
    for media in [Media::Json, Media::Protobuf, Media::Yaml] {
        let good = encode(&value, universe, ty, Some(&gvk), media).expect("encoded");
        for end in 0..good.len() {
            let _either = decode(&good[..end], media, universe, ty, None);
        }
        for at in 0..good.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = good.to_vec();
                bad[at] ^= flip;
                if let Ok(decoded) = decode(&bad, media, universe, ty, None) {
                    let _either = encode(&decoded.value, universe, ty, Some(&gvk), media);
                }
                let _either = stored_body(&bad, ResourceVersion(1), false);
                let _either = stored_body(&bad, ResourceVersion(1), true);
                let _either = peek::Encoded::stored(&bad).and_then(peek::meta);
            }
        }
    }
}

#[test]
fn depth_is_bounded_everywhere() {
    let (universe, ty, _) = builtin("CustomResourceDefinition");
    let schema = |n: usize| {
        let (open, close) = ("{\"not\":".repeat(n), "}".repeat(n));
        format!("{{\"spec\":{{\"versions\":[{{\"schema\":{{\"openAPIV3Schema\":{open}{{}}{close}}}}}]}}}}")
    };
    let default = Gvk::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let decode_deep = |n| decode(schema(n).as_bytes(), Media::Json, universe, ty, Some(&default));
    let deep = decode_deep(240).expect("within bounds").value;
    let bytes = encode(&deep, universe, ty, Some(&default), Media::Protobuf).expect("encoded");
    assert_eq!(decode(&bytes, Media::Protobuf, universe, ty, None).expect("back").value, deep);
    let items = |n: usize| schema(n).replace("\"not\"", "\"items\"");
    let deep =
        decode(items(240).as_bytes(), Media::Json, universe, ty, Some(&default)).expect("within bounds");
    let bytes = encode(&deep.value, universe, ty, Some(&default), Media::Protobuf).expect("encoded");
    assert_eq!(decode(&bytes, Media::Protobuf, universe, ty, None).expect("back").value, deep.value);
    assert!(decode_deep(9_000).expect_err("too deep").to_string().contains("exceeded max depth"));
    assert!(decode_deep(20_000).expect_err("too deep").to_string().contains("exceeded max depth"));
    let props = universe.by_name("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps");
    let props = props.expect("facts");
    let fields = universe.get_struct(props).expect("a struct");
    let not = fields.field("not").and_then(|f| f.proto).expect("has protobuf").number;
    let mut message = Vec::new();
    for _ in 0..5_000 {
        let mut outer = Vec::new();
        proto::write::bytes_into(not, &message, &mut outer);
        message = outer;
    }
    assert_eq!(decode_message(&message, universe, props), Err(Malformed::TooDeep.into()));
    assert!(decode_untyped("[".repeat(100_000).as_bytes()).is_err());
    assert!(yaml_to_json("[".repeat(100_000).as_bytes()).is_err());
    assert!(yaml_to_json("- ".repeat(100_000).as_bytes()).is_err());
}
