//! What upstream's libraries make of the same patches: `testdata/goldens.json`, renewed from `cases.json` and
//! `documents.json` by `cd hack/upstream && go run ./cmd/patch-goldens -dir ../../src/merge/testdata`.

use copepod_meta::{Gvk, Value, debug_json};
use copepod_schema::{TypeId, Universe};

use crate::defaults::apply_defaults;
use crate::json_patch::{JsonPatch, JsonPatchError, OPERATIONS_MAX};
use crate::merge_patch::{MergePatchError, merge_patch};
use crate::strategic::strategic_merge_patch;

fn json(text: &str) -> Value {
    copepod_codec::decode_untyped(text.as_bytes()).expect(text).0
}

fn builtin(group: &str, kind: &str) -> (&'static Universe, TypeId) {
    let universe = Universe::builtin();
    (universe, universe.by_gvk(&Gvk::new(group, "v1", kind)).expect("facts"))
}

fn apply(case: &Value) -> Result<Value, String> {
    let (document, patch) = (case.get("document").clone(), case.get("patch").clone());
    match case.str_at(&["type"]) {
        "strategic" => {
            let kind = case.str_at(&["kind"]);
            let (universe, ty) = builtin(if kind == "Deployment" { "apps" } else { "" }, kind);
            strategic_merge_patch(document, patch, universe, ty).map_err(|e| e.to_string())
        }
        "merge" => merge_patch(document, patch).map_err(|e| e.to_string()),
        "json" => {
            let (patch, _) = JsonPatch::parse(patch).map_err(|e| e.to_string())?;
            patch.apply(document).map_err(|e| e.to_string())
        }
        other => Err(format!("no such type {other}")),
    }
}

#[test]
fn patches_end_as_upstreams() {
    let goldens = json(include_str!("testdata/goldens.json"));
    let cases = goldens.as_list().expect("a list");
    let mut failures = Vec::new();
    for case in cases {
        let want = match case.str_at(&["error"]) {
            "" => Ok(debug_json::to_string(case.get("result"))),
            error => Err(error.to_string()),
        };
        let got = apply(case).map(|value| debug_json::to_string(&value));
        if got != want {
            failures.push(format!(
                "{}\n patch {}\n on    {}\n got   {got:?}\n want  {want:?}",
                case.str_at(&["name"]),
                debug_json::to_string(case.get("patch")),
                debug_json::to_string(case.get("document"))
            ));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn what_is_no_patch_is_refused() {
    for (patch, want) in [
        (
            "{}",
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
        (
            "[1]",
            "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
        ),
        (
            r#"[{"op":1}]"#,
            "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
        ),
    ] {
        let error = JsonPatch::parse(json(patch)).expect_err(patch);
        assert_eq!(error.to_string(), want);
    }
    let many = Value::List(vec![json(r#"{"op":"test","path":""}"#); OPERATIONS_MAX + 1]);
    assert_eq!(JsonPatch::parse(many), Err(JsonPatchError::TooManyOperations(OPERATIONS_MAX + 1)));
    let (_, unknown) = JsonPatch::parse(json(r#"[{"op":"add","path":"/a","x":1}]"#)).expect("a patch");
    assert_eq!(unknown, ["json patch unknown field \"[0].x\""]);
    assert_eq!(merge_patch(Value::map(), Value::Null), Err(MergePatchError::Null));
    let error = merge_patch(Value::map(), json("[1]")).expect_err("a list").to_string();
    assert_eq!(
        error,
        "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
    );
}

/// Copies that double the document end at the limit, not at the machine's.
#[test]
fn copies_are_limited() {
    let copies: Vec<String> = (0..100).map(|_| r#"{"op":"copy","from":"/a","path":"/a/-"}"#.into()).collect();
    let (patch, _) = JsonPatch::parse(json(&format!("[{}]", copies.join(",")))).expect("a patch");
    let error = patch.apply(json(r#"{"a":["x"]}"#)).expect_err("too much").to_string();
    assert!(
        error.starts_with("Unable to complete the copy, the accumulated size increase of copy is "),
        "{error}"
    );
}

/// Operations cannot nest a document deeper than trees may be.
#[test]
fn depth_is_limited() {
    let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
    let path = |n: usize| format!("/a{}", "/0".repeat(n));
    let add = |path: &str, value: &str| format!(r#"{{"op":"add","path":"{path}","value":{value}}}"#);
    let apply = |operations: &[String]| {
        let (patch, _) = JsonPatch::parse(json(&format!("[{}]", operations.join(",")))).expect("a patch");
        patch.apply(json("{}")).map(|_| ())
    };
    assert_eq!(apply(&[add("/a", &nested(200)), add(&path(200), &nested(50))]), Ok(()));
    let copy = format!(r#"{{"op":"copy","from":"/a","path":"{}"}}"#, path(200));
    for operations in
        [[add("/a", &nested(200)), add(&path(200), &nested(100))], [add("/a", &nested(200)), copy]]
    {
        let error = apply(&operations).expect_err("too deep").to_string();
        assert!(error.starts_with("exceeded max depth"), "{error}");
    }
}

#[test]
fn absent_fields_get_their_defaults() {
    let (universe, ty) = builtin("", "Pod");
    let text = r#"{"metadata":{"name":"x"},"spec":{"containers":[{"name":"c","livenessProbe":{"httpGet":{"port":1}},"ports":[{"containerPort":1}]}],"volumes":[{"name":"v","configMap":{}}],"restartPolicy":"Never"}}"#;
    let mut value = copepod_codec::decode(
        text.as_bytes(),
        copepod_codec::Media::Json,
        universe,
        ty,
        Some(&Gvk::new("", "v1", "Pod")),
    )
    .expect("good")
    .value;
    apply_defaults(&mut value, universe, ty);
    for (path, want) in [
        (&["spec", "restartPolicy"][..], Value::string("Never")),
        (&["spec", "dnsPolicy"], Value::string("ClusterFirst")),
        (&["spec", "terminationGracePeriodSeconds"], Value::Int(30)),
        (&["spec", "schedulerName"], Value::string("default-scheduler")),
    ] {
        assert_eq!(*value.at(path), want, "{path:?}");
    }
    let container = &value.list_at(&["spec", "containers"])[0];
    assert_eq!(container.str_at(&["terminationMessagePath"]), "/dev/termination-log");
    assert_eq!(container.list_at(&["ports"])[0].str_at(&["protocol"]), "TCP");
    assert_eq!(container.int_at(&["livenessProbe", "periodSeconds"]), 10);
    assert_eq!(value.list_at(&["spec", "volumes"])[0].int_at(&["configMap", "defaultMode"]), 0o644);
    let once = value.clone();
    apply_defaults(&mut value, universe, ty);
    assert_eq!(value, once, "defaulting twice changes nothing");
}
