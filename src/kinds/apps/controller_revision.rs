//! ControllerRevision. upstream: pkg/registry/apps/controllerrevision/strategy.go, pkg/apis/apps/validation

use copepod_meta::{ErrorList, Value, debug_json, names};

use crate::cells;
use crate::check::At;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn validate_create(&self, _cx: &Context, object: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(object, e);
        let root = At::root(object);
        root.get("revision").not_negative(e);
        let data = root.get("data");
        let text = match data.value {
            Value::Null => return data.required(e, "data is mandatory"),
            Value::Raw(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => debug_json::to_string(other),
        };
        match text.trim_start().as_bytes().first() {
            Some(b'{') => {}
            Some(b'n') => data.required(e, "data is mandatory"),
            _ => data.required(e, "data must be a valid JSON object"),
        }
    }
    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(object, old, e);
        metadata::validate_core(object, true, &names::dns1123_subdomain_prefixed, e);
        let root = At::root(object);
        root.get("revision").not_negative(e);
        let data = root.get("data");
        if data.value != old.get("data") {
            data.invalid_printed(e, debug_json::to_string(data.value), crate::check::IMMUTABLE);
        }
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("apps/ControllerRevision")
    }
    fn row(&self, object: &Value) -> Row {
        let owner =
            object.list_at(&["metadata", "ownerReferences"]).iter().find(|o| o.bool_at(&["controller"]));
        let owner = owner.map_or(cells::NONE.to_string(), |o| {
            let kind = o.str_at(&["kind"]).to_lowercase();
            let kind = match o.str_at(&["apiVersion"]).split_once('/') {
                Some((group, _)) => format!("{kind}.{group}"),
                None => kind,
            };
            format!("{kind}/{}", o.str_at(&["name"]))
        });
        let revision = object.int_at(&["revision"]);
        cells::row([cells::name(object), owner.into(), revision.into(), cells::age(object)])
    }
}
