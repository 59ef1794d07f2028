//! Event, in the core group and in events.k8s.io: one object under two names of its fields. The hub is core/v1.
//!
//! upstream: pkg/registry/core/event/strategy.go, pkg/apis/core/validation/events.go, pkg/apis/events/v1/conversion.go
//!
//! upstream, too: AddFieldLabelConversionsForEvent, Convert_core_Event_To_v1_Event, Convert_v1_Event_To_core_Event

use copepod_meta::{ErrorList, FieldError, Path, Value, names};

use crate::cells;
use crate::check::At;
use crate::equality::same;
use crate::strategy::{Cell, Column, Context, Row, Strategy};
use crate::{metadata, print};

/// The core group's.
pub struct Event;
/// events.k8s.io's: other field names, stricter rules.
pub struct NewEvent;

/// (events.k8s.io, core)
const RENAMED: [(&str, &str); 7] = [
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

impl Strategy for Event {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        metadata::path_segment_name(name, prefix)
    }
    fn metadata_first(&self) -> bool {
        false
    }
    fn validate_create(&self, _cx: &Context, event: &Value, e: &mut ErrorList) {
        legacy(event, "reportingComponent", e);
    }
    fn validate_update(&self, _cx: &Context, event: &Value, _old: &Value, e: &mut ErrorList) {
        legacy(event, "reportingComponent", e);
    }
    fn allow_create_on_update(&self) -> bool {
        true
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("core/Event")
    }
    fn row(&self, event: &Value) -> Row {
        row(event)
    }
    fn selectable_fields(&self) -> &'static [&'static str] {
        FIELDS
    }
    fn field(&self, event: &Value, name: &str) -> String {
        field(event, name)
    }
}

impl Strategy for NewEvent {
    fn to_hub(&self, _version: &str, event: &mut Value) {
        for (new, core) in RENAMED {
            if let Some(value) = event.remove(&[new]) {
                event.set(&[core], value);
            }
        }
    }
    fn from_hub(&self, _version: &str, event: &mut Value) {
        for (new, core) in RENAMED {
            if let Some(value) = event.remove(&[core]) {
                event.set(&[new], value);
            }
        }
    }
    fn validate_create(&self, _cx: &Context, event: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(event, e);
        legacy(event, "reportingController", e);
        strict(event, e);
    }
    fn validate_update(&self, _cx: &Context, event: &Value, old: &Value, e: &mut ErrorList) {
        legacy(event, "reportingController", e);
        metadata::validate_update_core(event, old, e);
        if !same(event.get("series"), old.get("series")) {
            series(event, e);
        }
        immutable(event, old, e);
    }
    fn allow_create_on_update(&self) -> bool {
        true
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("core/Event")
    }
    fn row(&self, event: &Value) -> Row {
        row(event)
    }
    fn selectable_fields(&self) -> &'static [&'static str] {
        NEW_FIELDS
    }
    fn hub_field(&self, name: &str) -> String {
        let first = name.split('.').next().unwrap_or(name);
        let core = RENAMED.iter().find(|(new, _)| *new == first).map_or(first, |(_, core)| core);
        format!("{core}{}", &name[first.len()..])
    }
    fn field(&self, event: &Value, name: &str) -> String {
        field(event, &self.hub_field(name))
    }
}

const FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

/// upstream: pkg/apis/events/v1/conversion.go AddFieldLabelConversionsForEvent
const NEW_FIELDS: &[&str] = &[
    "reason",
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reportingController",
    "type",
];

/// upstream: ToSelectableFields
fn field(event: &Value, name: &str) -> String {
    match name {
        "source" => match event.str_at(&["source", "component"]) {
            "" => event.str_at(&["reportingComponent"]).into(),
            component => component.into(),
        },
        _ => event.str_at(&name.split('.').collect::<Vec<_>>()).into(),
    }
}

/// upstream: legacyValidateEvent
fn legacy(event: &Value, controller: &str, e: &mut ErrorList) {
    const NAMESPACE: &str = "does not match event.namespace";
    let root = At::root(event);
    let namespace = event.str_at(&["metadata", "namespace"]);
    let involved = root.get("involvedObject.namespace");
    if event.get("eventTime").is_null() {
        let agrees = match involved.str() {
            "" => matches!(namespace, "" | "default"),
            other => other == namespace,
        };
        if !agrees {
            involved.invalid(e, NAMESPACE);
        }
    } else {
        if involved.is_empty() && !matches!(namespace, "default" | "kube-system") {
            involved.invalid(e, NAMESPACE);
        }
        let at = root.get(controller);
        let at = at.with(event.get("reportingComponent"));
        at.need(e);
        at.qualified_name(e);
        for (member, printed, max) in [
            ("reportingInstance", "reportingInstance", 128),
            ("action", "action", 128),
            ("reason", "reason", 128),
            ("message", "message", 1024),
        ] {
            let at = root.get(printed);
            let value = at.with(event.get(member));
            if member != "message" {
                value.need(e);
            }
            if value.len() > max {
                value.invalid_str(e, "", format!("can have at most {max} characters"));
            }
        }
    }
    for message in names::dns1123_subdomain(namespace) {
        e.push(FieldError::invalid_str(&Path::new("namespace"), namespace, message));
    }
}

/// What events.k8s.io asks of new events. upstream: ValidateEventCreate
fn strict(event: &Value, e: &mut ErrorList) {
    const UNSET: &str = "needs to be unset";
    series(event, e);
    let root = At::root(event);
    if event.get("eventTime").is_null() {
        root.get("eventTime").required(e, "");
    }
    let ty = root.get("type");
    if !matches!(ty.str(), "Normal" | "Warning") {
        ty.invalid_str(e, "", format!("has invalid value: {}", ty.str()));
    }
    for member in ["firstTimestamp", "lastTimestamp"] {
        if root.get(member).is_set() {
            root.get(member).invalid_str(e, "", UNSET);
        }
    }
    if root.get("count").int() != 0 {
        root.get("count").invalid_str(e, "", UNSET);
    }
    let source = root.get("source");
    if !source.get("component").is_empty() || !source.get("host").is_empty() {
        source.invalid_str(e, "", UNSET);
    }
}

/// upstream: validateV1EventSeries
fn series(event: &Value, e: &mut ErrorList) {
    let root = At::root(event);
    let series = root.get("series");
    if !series.is_set() {
        return;
    }
    if series.get("count").int() < 2 {
        series.get("count").invalid_str(e, "", "should be at least 2");
    }
    if !series.get("lastObservedTime").is_set() {
        series.get("lastObservedTime").required(e, "");
    }
}

/// upstream: ValidateEventUpdate
fn immutable(event: &Value, old: &Value, e: &mut ErrorList) {
    let root = At::root(event);
    for (member, printed) in [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("reason", "reason"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        let value = event.get(member);
        if same(value, old.get(member)) {
            continue;
        }
        let at = root.get(printed);
        match member {
            "involvedObject" => {
                at.invalid_printed(
                    e,
                    print::internal(value, "core/ObjectReference"),
                    crate::check::IMMUTABLE,
                );
            }
            "related" if value.is_null() => at.invalid_printed(e, "null".into(), crate::check::IMMUTABLE),
            "related" => {
                at.invalid_printed(
                    e,
                    print::internal(value, "core/ObjectReference"),
                    crate::check::IMMUTABLE,
                );
            }
            "source" => {
                at.invalid_printed(e, print::internal(value, "core/EventSource"), crate::check::IMMUTABLE)
            }
            "count" => at.with(value).invalid_int(e, crate::check::IMMUTABLE),
            "firstTimestamp" | "lastTimestamp" | "eventTime" if value.is_null() => {
                at.invalid_printed(e, "null".into(), crate::check::IMMUTABLE);
            }
            _ => at.with(value).invalid(e, crate::check::IMMUTABLE),
        }
    }
}

/// upstream: printEvent
fn row(event: &Value) -> Row {
    let since = |path: &[&str]| cells::since(event.str_at(path));
    let or = |path: &[&str], other: &dyn Fn() -> Cell| {
        if event.at(path).is_null() { other() } else { since(path) }
    };
    let first = or(&["firstTimestamp"], &|| since(&["eventTime"]));
    let mut last = or(&["lastTimestamp"], &|| first.clone());
    let mut count = event.int_at(&["count"]);
    if !event.get("series").is_null() {
        last = since(&["series", "lastObservedTime"]);
        count = event.int_at(&["series", "count"]);
    } else if count == 0 {
        count = 1;
    }
    let kind = event.str_at(&["involvedObject", "kind"]).to_lowercase();
    let target = match event.str_at(&["involvedObject", "name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let either = |a: &[&str], b: &str| match event.str_at(a) {
        "" => event.str_at(&[b]).to_string(),
        text => text.to_string(),
    };
    let component = either(&["source", "component"], "reportingComponent");
    let instance = either(&["source", "host"], "reportingInstance");
    let source = if instance.is_empty() { component } else { format!("{component}, {instance}") };
    cells::row([
        last,
        event.str_at(&["type"]).into(),
        event.str_at(&["reason"]).into(),
        target.into(),
        event.str_at(&["involvedObject", "fieldPath"]).into(),
        source.into(),
        event.str_at(&["message"]).trim().into(),
        first,
        count.into(),
        cells::name(event),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A selector on events.k8s.io names its own fields; what is selected from is the hub.
    #[test]
    fn fields_of_the_new_group_are_read_from_the_core_object() {
        let mut event = Value::map();
        event.set(&["involvedObject", "name"], "web");
        event.set(&["reportingComponent"], "kubelet");
        event.set(&["type"], "Normal");
        for (name, want) in [
            ("regarding.name", "web"),
            ("regarding.uid", ""),
            ("reportingController", "kubelet"),
            ("type", "Normal"),
        ] {
            assert!(NewEvent.selectable_fields().contains(&name), "{name}");
            assert!(Event.selectable_fields().contains(&&*NewEvent.hub_field(name)), "{name}");
            assert_eq!(NewEvent.field(&event, name), want, "{name}");
        }
        for name in ["involvedObject.name", "reportingComponent", "source"] {
            assert!(
                Event.selectable_fields().contains(&name) && !NewEvent.selectable_fields().contains(&name)
            );
        }
    }
}
