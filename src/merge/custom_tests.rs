//! Custom resources: decoding, pruning, defaulting, patching and applying under a universe made by hand.

use std::collections::HashMap;
use std::sync::OnceLock;

use copepod_codec::{Media, decode, encode};
use copepod_meta::{Gvk, Map, Value};
use copepod_schema::{
    Field, ListKind, ListType, MapType, Name, NameIndex, Omit, PatchStrategy, Scalar, StructType, Type,
    TypeId, Universe,
};

use crate::apply::{Context, NoOtherVersions, apply};
use crate::defaults::apply_defaults;
use crate::prune::prune;
use crate::strategic::{StrategicPatchError, strategic_merge_patch};

fn field(json: &'static str, ty: u32, default: Option<Value>, nullable: bool) -> Field {
    Field {
        json: Name::Borrowed(json),
        go_name: Name::default(),
        ty: TypeId(ty),
        pointer: false,
        omit: Omit::Never,
        proto: None,
        patch_strategy: PatchStrategy::default(),
        patch_merge_key: None,
        atomic: false,
        required: false,
        nullable,
        default,
        enum_values: None,
        embedded: None,
        empty_default: false,
        go_type: None,
        format: None,
    }
}

fn structure(fields: Vec<Field>, preserve_unknown: bool) -> Type {
    let by_json = NameIndex::of(&fields);
    Type::Struct(StructType {
        name: Name::default(),
        fields: fields.into(),
        by_json,
        proto: Box::default(),
        gvk: None,
        atomic: false,
        preserve_unknown,
        embedded_resource: false,
        always_written: OnceLock::new(),
    })
}

/// `spec: {size: number = 1, note: string (nullable), parts: [{id, color = "red"}] by id, bag: any, tags:
/// {string: string}}`
fn universe() -> (Universe, TypeId, Gvk) {
    let gvk = Gvk::new("example.com", "v1", "Widget");
    let types = vec![
        structure(vec![field("spec", 1, None, false)], false),
        structure(
            vec![
                field("size", 2, Some(Value::Int(1)), false),
                field("note", 3, Some(Value::string("none")), true),
                field("parts", 4, None, false),
                field("bag", 6, None, false),
                field("tags", 7, None, false),
                field("loose", 8, None, false),
            ],
            false,
        ),
        Type::Scalar(Scalar::Number),
        Type::Scalar(Scalar::String),
        Type::List(ListType {
            elem: TypeId(5),
            elem_pointer: false,
            kind: ListKind::Map { keys: [Name::Borrowed("id")].into() },
            proto_message: false,
        }),
        structure(
            vec![field("id", 3, None, false), field("color", 3, Some(Value::string("red")), false)],
            false,
        ),
        Type::Any,
        Type::Map(MapType { value: TypeId(3), atomic: false }),
        structure(vec![field("known", 5, None, false)], true),
    ];
    let by_gvk = HashMap::from([(gvk.clone(), TypeId(0))]);
    (Universe::from_types(types, by_gvk), TypeId(0), gvk)
}

fn read(text: &str) -> (Value, Vec<String>) {
    let (universe, ty, gvk) = universe();
    let decoded = decode(text.as_bytes(), Media::Json, &universe, ty, Some(&gvk)).expect(text);
    (decoded.value, decoded.strict_errors)
}

fn written(value: &Value) -> String {
    let (universe, ty, gvk) = universe();
    let bytes = encode(value, &universe, ty, Some(&gvk), Media::Json).expect("has JSON");
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn everything_is_kept_and_sorted_but_metadata_is_typed() {
    let (value, strict) = read(
        r#"{"kind":"Widget","spec":{"size":1.0,"a":null,"note":""},"zeta":0,"apiVersion":"example.com/v1","alpha":[],"metadata":{"name":"w","creationTimestamp":null,"labels":{"b":"c"},"nope":1,"uid":""},"spec":{"size":2.50,"x":1}}"#,
    );
    assert_eq!(strict, ["duplicate field \"spec\"", "unknown field \"metadata.nope\""]);
    assert_eq!(
        written(&value),
        r#"{"alpha":[],"apiVersion":"example.com/v1","kind":"Widget","metadata":{"labels":{"b":"c"},"name":"w"},"spec":{"size":2.5,"x":1},"zeta":0}"#
    );
}

#[test]
fn unknown_fields_are_pruned_by_path() {
    let (universe, ty, _) = universe();
    let (mut value, _) = read(
        r#"{"metadata":{"name":"w"},"spec":{"size":1,"x":1,"parts":[{"id":"a","y":2}],"bag":{"any":{"thing":1}},"tags":{"k":"v"},"loose":{"more":1,"known":{"id":"1","z":3}}},"status":{"a":1}}"#,
    );
    let unknown = prune(&mut value, &universe, ty);
    assert_eq!(
        unknown,
        [
            "unknown field \"spec.loose.known.z\"",
            "unknown field \"spec.parts[0].y\"",
            "unknown field \"spec.x\"",
            "unknown field \"status\"",
        ]
    );
    assert_eq!(
        written(&value),
        r#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w"},"spec":{"bag":{"any":{"thing":1}},"loose":{"known":{"id":"1"},"more":1},"parts":[{"id":"a"}],"size":1,"tags":{"k":"v"}}}"#
    );
}

#[test]
fn defaults_fill_what_is_absent_or_wrongly_null() {
    let (universe, ty, _) = universe();
    let (mut value, _) = read(
        r#"{"metadata":{},"spec":{"size":null,"note":null,"parts":[{"id":"a"},{"color":null}],"bag":null}}"#,
    );
    apply_defaults(&mut value, &universe, ty);
    assert_eq!(
        written(&value),
        r#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{},"spec":{"note":null,"parts":[{"color":"red","id":"a"},{"color":"red"}],"size":1}}"#
    );
}

#[test]
fn there_is_no_strategic_patch() {
    let (universe, ty, _) = universe();
    let patched = strategic_merge_patch(Value::map(), Value::map(), &universe, ty);
    assert_eq!(patched, Err(StrategicPatchError::Unsupported));
}

/// Lists with map keys are granular, unknown types are deduced, and metadata is owned as a built-in type's.
#[test]
fn configurations_are_applied_field_by_field() {
    let (universe, ty, gvk) = universe();
    let parse = |text: &[u8]| copepod_codec::decode_untyped(text).ok().map(|(value, _)| value);
    let empty = Value::Map(Map::default());
    let context = Context {
        universe: &universe,
        ty,
        gvk: &gvk,
        subresource: "",
        reset_fields: None,
        versions: &NoOtherVersions,
        empty: &empty,
        now: "2026-11-21T00:00:00Z",
        parse_json: &parse,
    };
    let config = |text: &str| {
        let mut config = parse(text.as_bytes()).expect("JSON");
        config.set(&["apiVersion"], "example.com/v1");
        config.set(&["kind"], "Widget");
        config
    };
    let first = config(
        r#"{"metadata":{"name":"w","labels":{"l":"1"}},"spec":{"parts":[{"id":"a","color":"blue"}],"bag":{"x":{"y":1},"l":[1]}}}"#,
    );
    let applied = apply(&context, empty.clone(), &first, "one", false).expect("nobody is in the way");
    let entry = &applied.managed_fields.as_list().expect("one manager")[0];
    let Value::Raw(fields) = entry.get("fieldsV1") else { unreachable!("written as text") };
    assert_eq!(
        String::from_utf8_lossy(fields),
        r#"{"f:metadata":{"f:labels":{"f:l":{}}},"f:spec":{"f:bag":{"f:l":{},"f:x":{".":{},"f:y":{}}},"f:parts":{"k:{\"id\":\"a\"}":{".":{},"f:color":{},"f:id":{}}}}}"#
    );
    let mut live = applied.object;
    live.set(&["metadata", "managedFields"], applied.managed_fields);
    let second = config(
        r#"{"metadata":{"name":"w"},"spec":{"parts":[{"id":"a","color":"green"},{"id":"b"}],"bag":{"x":{"z":2}}}}"#,
    );
    let conflict = apply(&context, live.clone(), &second, "two", false).expect_err("a conflict");
    assert_eq!(
        conflict.to_string(),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.parts[id=\"a\"].color"
    );
    let applied = apply(&context, live.clone(), &second, "two", true).expect("forced");
    assert_eq!(
        copepod_meta::debug_json::to_string(applied.object.get("spec")),
        r#"{"bag":{"l":[1],"x":{"y":1,"z":2}},"parts":[{"color":"green","id":"a"},{"id":"b"}]}"#
    );
    let wrong = config(r#"{"metadata":{"name":"w"},"spec":{"foo":1}}"#);
    assert_eq!(
        apply(&context, live.clone(), &wrong, "two", true).expect_err("unknown").to_string(),
        "failed to create typed patch object (/w; example.com/v1, Kind=Widget): .spec.foo: field not declared in schema"
    );
}
