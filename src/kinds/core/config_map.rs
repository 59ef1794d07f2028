//! ConfigMap. upstream: pkg/registry/core/configmap/strategy.go, validation.go ValidateConfigMap

use copepod_meta::{ErrorList, FieldError, Path, Value, names};

use crate::cells;
use crate::check::At;
use crate::strategy::{Column, Context, Row, Strategy};

/// Bytes that all values of a ConfigMap or Secret may have together. upstream: core.MaxSecretSize
pub(crate) const DATA_BYTES_MAX: usize = 1024 * 1024;
/// What a change of an immutable ConfigMap or Secret is told.
pub(crate) const IMMUTABLE_SET: &str = "field is immutable when `immutable` is set";

/// The strategy.
pub struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate_create(&self, _cx: &Context, object: &Value, e: &mut ErrorList) {
        crate::metadata::standard_finalizers(object, e);
        validate_data(object, e);
    }

    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        crate::metadata::validate_update_core(object, old, e);
        let root = At::root(object);
        if old.bool_at(&["immutable"]) {
            if !object.bool_at(&["immutable"]) {
                root.get("immutable").forbidden(e, IMMUTABLE_SET);
            }
            // To the letter: to upstream an empty map is not nil. upstream: reflect.DeepEqual
            for member in ["data", "binaryData"] {
                if object.get(member) != old.get(member) {
                    root.get(member).forbidden(e, IMMUTABLE_SET);
                }
            }
        }
        crate::metadata::validate_core(object, true, &|name, prefix| self.validate_name(name, prefix), e);
        validate_data(object, e);
    }

    fn columns(&self) -> &'static [Column] {
        cells::columns("core/ConfigMap")
    }

    fn row(&self, object: &Value) -> Row {
        let keys = object.map_at(&["data"]).len() + object.map_at(&["binaryData"]).len();
        cells::row([cells::name(object), (keys as i64).into(), cells::age(object)])
    }
}

/// upstream: ValidateConfigMap, less metadata
fn validate_data(object: &Value, e: &mut ErrorList) {
    let root = At::root(object);
    let (data, binary) = (root.get("data"), root.get("binaryData"));
    let mut bytes = 0;
    for (key, value) in data.entries() {
        for message in names::config_map_key(key) {
            value.invalid_str(e, key, message);
        }
        if binary.map().contains_key(key) {
            value.invalid_str(e, key, "duplicate of key present in binaryData");
        }
        bytes += value.len();
    }
    for (key, value) in binary.entries() {
        for message in names::config_map_key(key) {
            value.invalid_str(e, key, message);
        }
        bytes += value.len();
    }
    if bytes > DATA_BYTES_MAX {
        e.push(FieldError::too_long(&Path::nameless(), DATA_BYTES_MAX));
    }
}
