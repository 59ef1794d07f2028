//! Patches of members alone against patches of all of the object.

use super::*;

const POD: &str = r#"{"metadata":{"name":"a","namespace":"n","uid":"u","labels":{"x":"1"},"creationTimestamp":"2026-11-30T00:00:00Z",
    "managedFields":[{"manager":"m","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1",
        "fieldsV1":{"f:spec":{"f:restartPolicy":{}}}}]},
  "spec":{"containers":[{"name":"c","image":"i","resources":{}},{"name":"d","image":"j","resources":{"limits":{"cpu":"1"}}}],
    "restartPolicy":"Always","securityContext":{},"tolerations":[{"key":"k","operator":"Exists"}]},
  "status":{"phase":"Pending","conditions":[{"type":"Ready","status":"False","lastProbeTime":null,
    "lastTransitionTime":"2026-11-30T00:00:00Z"}]}}"#;

/// Patches of members alone come to what patches of all of the object come to: kind of patch, document, and whether members
/// alone are enough.
#[test]
fn members_alone_come_to_the_same() {
    use PatchType::{Merge, Strategic};
    let (types, gvk) = (Universe::builtin(), Gvk::new("", "v1", "Pod"));
    let ty = types.by_gvk(&gvk).expect("Pod is among the facts");
    let pod = codec::decode(POD.as_bytes(), codec::Media::Json, types, ty, Some(&gvk)).expect("a pod").value;
    let mut failures = Vec::new();
    for (kind, document, alone) in [
        (Strategic, r#"{"status":{"phase":"Running"}}"#, true),
        (
            Strategic,
            r#"{"metadata":{"uid":"u"},"status":{"startTime":"2026-11-30T00:00:01Z","podIPs":[{"ip":"1.2.3.4"}]}}"#,
            true,
        ),
        (
            Strategic,
            r#"{"status":{"$setElementOrder/conditions":[{"type":"Ready"}],"conditions":[{"type":"Ready","status":"True"}]}}"#,
            true,
        ),
        (
            Strategic,
            r#"{"status":{"conditions":[{"$patch":"delete","type":"Ready"},{"type":"X","status":"True"}]}}"#,
            true,
        ),
        (Strategic, r#"{"spec":{"containers":[{"name":"d","image":"k"},{"name":"e","image":"l"}]}}"#, true),
        (Strategic, r#"{"spec":{"$patch":"replace","containers":[{"name":"e","image":"l"}]}}"#, true),
        (Strategic, r#"{"spec":{"securityContext":{"runAsUser":7},"affinity":{"nodeAffinity":null}}}"#, true),
        (Strategic, r#"{"spec":{"activeDeadlineSeconds":7.0,"os":{"name":"linux"}}}"#, true),
        (Strategic, r#"{"spec":{"tolerations":null}}"#, true),
        (Strategic, r#"{"metadata":{"labels":{"x":null,"y":"2"},"finalizers":["f"]}}"#, true),
        (Strategic, r#"{"metadata":{"managedFields":null}}"#, true),
        (Strategic, r#"{"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{"a":"b"}}}"#, true),
        (Strategic, r#"{"$patch":"replace","metadata":{"name":"a"}}"#, false),
        (Strategic, r#"{"status":{"phase":null,"conditions":null}}"#, false),
        (Strategic, r#"{"kind":"Node","status":{"phase":"Running"}}"#, false),
        (Strategic, r#"{"spec":{"unknown":1}}"#, false),
        (Strategic, r#"{"spec":{"containers":7}}"#, false),
        (Strategic, r#"{"spec":7}"#, false),
        (Strategic, "{}", false),
        (Merge, r#"{"status":{"phase":"Running","message":"m"}}"#, true),
        (Merge, r#"{"spec":{"containers":[{"name":"e","image":"l"}]}}"#, true),
        (Merge, r#"{"spec":{"affinity":{"nodeAffinity":null},"terminationGracePeriodSeconds":3}}"#, true),
        (Merge, r#"{"metadata":{"labels":null,"annotations":{"$patch":"delete"}}}"#, true),
        (Merge, r#"{"status":null}"#, true),
        (Merge, r#"{"kind":"Node"}"#, false),
        (Merge, r#"{"spec":{"priority":"high"}}"#, false),
        (Merge, r#"{"spec":{"unknown":1}}"#, false),
        (Merge, "[]", false),
    ] {
        let body = Body { media: codec::Media::Json, bytes: document.as_bytes().to_vec().into() };
        let Ok(patch) = Patch::parse(kind, &body, FieldValidation::Strict) else { continue };
        let warnings = Warnings::default();
        let members = patch.members(types, ty, &gvk, &pod);
        if members.is_some() != alone {
            failures.push(format!("{document}: members alone: {}", members.is_some()));
        }
        let all = patch.apply_to_all(types, ty, &gvk, &pod, &warnings);
        let got = patch.apply(types, ty, &gvk, pod.clone(), &warnings);
        let json = |object: &Value| codec::encode(object, types, ty, Some(&gvk), codec::Media::Json);
        match (got, all) {
            (Ok(got), Ok(all)) if got == all || json(&got) == json(&all) => {}
            (Err(got), Err(all)) if got == all => {}
            (got, all) => failures.push(format!("{document}\n got  {got:?}\n want {all:?}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
