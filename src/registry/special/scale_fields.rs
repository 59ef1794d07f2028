//! Who owns the number of replicas, seen from a Scale and from its workload.
//!
//! upstream: apimachinery/pkg/util/managedfields/scalehandler.go

use bytes::Bytes;
use copepod_meta::{Map, Value};

use crate::wire;

const SCALE: &str = "autoscaling/v1";
/// `spec.replicas`, in the workload and in the Scale.
const REPLICAS: [&str; 2] = ["f:spec", "f:replicas"];

/// The entries that upstream reads: of those of one writer only the last one. That is how the owner of the replicas that
/// [`of_workload`] gives an entry of its own is lost when somebody writes next.
fn read(workload: &[Value]) -> Vec<&Value> {
    let writer = |entry: &Value| {
        let member = |name| entry.str_at(&[name]).to_string();
        let applies = member("operation") == "Apply";
        let version = if applies { String::new() } else { member("apiVersion") };
        (member("manager"), member("operation"), version, member("subresource"))
    };
    let is_last = |at: usize| workload[at + 1..].iter().all(|later| writer(later) != writer(&workload[at]));
    (0..workload.len()).filter(|at| is_last(*at)).map(|at| &workload[at]).collect()
}

/// The entries of a Scale: those of the workload's managers that own its replicas.
pub(super) fn of_scale(workload: &[Value]) -> Vec<Value> {
    let owners = read(workload).into_iter().filter(|entry| !fields(entry).at(&REPLICAS).is_null());
    owners
        .map(|entry| {
            let mut entry = entry.clone();
            entry.set(&["apiVersion"], SCALE);
            set_fields(&mut entry, &only_replicas());
            entry
        })
        .collect()
}

/// The entries of the workload after a write of its Scale: owners that are none any more lose the replicas, new ones get an
/// entry (without a time, as upstream's).
///
/// Upstream tells writers apart by their version too, and that of a Scale is another: whoever owns the replicas by an update
/// loses them and gets an entry for them alone, even when nothing was changed. Appliers have no version, and stay.
pub(super) fn of_workload(workload: &[Value], scale: &[Value], api_version: &str) -> Vec<Value> {
    let owners: Vec<&Value> = scale.iter().filter(|entry| !fields(entry).at(&REPLICAS).is_null()).collect();
    let mut kept = Vec::new();
    let mut out = Vec::new();
    for entry in read(workload) {
        let mut owned = fields(entry);
        let stays = owners.iter().any(|owner| same_applier(owner, entry));
        if owned.at(&REPLICAS).is_null() || stays {
            if stays {
                kept.push(entry);
            }
            out.push(entry.clone());
            continue;
        }
        owned.remove(&REPLICAS);
        if owned.get("f:spec").is_empty() {
            owned.remove(&["f:spec"]);
        }
        if !owned.is_empty() {
            let mut entry = entry.clone();
            set_fields(&mut entry, &owned);
            out.push(entry);
        }
    }
    for owner in owners {
        if kept.iter().any(|entry| same_applier(owner, entry)) {
            continue;
        }
        let mut entry = owner.clone();
        entry.remove(&["time"]);
        entry.set(&["apiVersion"], api_version);
        set_fields(&mut entry, &only_replicas());
        out.push(entry);
    }
    out.sort_by_key(|entry| {
        let text = |member| entry.str_at(&[member]).to_string();
        // Appliers first, then by time: what has none was there before all others.
        (text("operation"), text("time"), text("manager"))
    });
    out
}

/// Whether two entries are of one applier.
fn same_applier(a: &Value, b: &Value) -> bool {
    a.str_at(&["operation"]) == "Apply"
        && ["manager", "operation", "subresource"].iter().all(|member| a.get(member) == b.get(member))
}

fn only_replicas() -> Value {
    let mut fields = Value::map();
    fields.set(&REPLICAS, Map::default());
    fields
}

/// The field set of an entry; empty where it cannot be read.
fn fields(entry: &Value) -> Value {
    match entry.get("fieldsV1") {
        Value::Raw(json) => wire::decode_untyped(json).unwrap_or_default(),
        tree => tree.clone(),
    }
}

fn set_fields(entry: &mut Value, fields: &Value) {
    let mut json = Vec::new();
    wire::encode_untyped(fields, &mut json);
    *entry.make(&["fieldsV1"]) = Value::Raw(Bytes::from(json));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(json: &str) -> Vec<Value> {
        let tree = wire::decode_untyped(json.as_bytes()).expect("JSON");
        tree.as_list().expect("a list").to_vec()
    }

    fn show(entries: &[Value]) -> Vec<String> {
        let show = |e: &Value| {
            let mut json = Vec::new();
            wire::encode_untyped(&fields(e), &mut json);
            let fields = String::from_utf8_lossy(&json).into_owned();
            format!("{} {} {fields}", e.str_at(&["manager"]), e.str_at(&["apiVersion"]))
        };
        entries.iter().map(show).collect()
    }

    #[test]
    fn replicas_change_hands() {
        let workload = entries(
            r#"[{"manager":"a","operation":"Update","apiVersion":"apps/v1","time":"1","fieldsV1":{"f:spec":{"f:replicas":{},"f:paused":{}}}},
                {"manager":"b","operation":"Update","apiVersion":"apps/v1","time":"2","fieldsV1":{"f:spec":{"f:paused":{}}}}]"#,
        );
        assert_eq!(show(&of_scale(&workload)), [r#"a autoscaling/v1 {"f:spec":{"f:replicas":{}}}"#]);
        let scale = entries(
            r#"[{"manager":"hpa","operation":"Update","apiVersion":"autoscaling/v1","subresource":"scale","time":"3","fieldsV1":{"f:spec":{"f:replicas":{}}}}]"#,
        );
        assert_eq!(
            show(&of_workload(&workload, &scale, "apps/v1")),
            [
                r#"hpa apps/v1 {"f:spec":{"f:replicas":{}}}"#,
                r#"a apps/v1 {"f:spec":{"f:paused":{}}}"#,
                r#"b apps/v1 {"f:spec":{"f:paused":{}}}"#,
            ]
        );
        // Who wrote the same number again still owns it, in an entry of its own, until the next write.
        let same = of_workload(&workload, &of_scale(&workload), "apps/v1");
        let want = [
            r#"a apps/v1 {"f:spec":{"f:replicas":{}}}"#,
            r#"a apps/v1 {"f:spec":{"f:paused":{}}}"#,
            r#"b apps/v1 {"f:spec":{"f:paused":{}}}"#,
        ];
        assert_eq!(show(&same), want);
        assert!(same[0].get("time").is_null());
        assert_eq!(show(&of_workload(&same, &of_scale(&same), "apps/v1")), want[1..]);
    }

    /// upstream: an applier's entry is found again, whatever the version.
    #[test]
    fn appliers_keep_their_replicas() {
        let workload = entries(
            r#"[{"manager":"a","operation":"Apply","apiVersion":"apps/v1","time":"1","fieldsV1":{"f:spec":{"f:replicas":{},"f:paused":{}}}}]"#,
        );
        assert_eq!(of_workload(&workload, &of_scale(&workload), "apps/v1"), workload);
    }
}
