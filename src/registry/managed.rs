//! The place of managedFields in the road of a write: before admission, so that what admission adds is owned by nobody.
//!
//! Owners are not tracked yet: objects are stored without managedFields, and what a client sends as such is not taken over.
//! The three functions are where tracking comes in; their callers stay.
//!
//! upstream: apiserver/pkg/endpoints/handlers/fieldmanager, apimachinery/pkg/util/managedfields

use copepod_meta::Value;

/// A new object.
pub(crate) fn on_create(object: &mut Value) {
    object.remove(&["metadata", "managedFields"]);
}

/// An object that is to replace `old`.
pub(crate) fn on_update(object: &mut Value, old: &Value) {
    match old.at(&["metadata", "managedFields"]) {
        Value::Null => {
            object.remove(&["metadata", "managedFields"]);
        }
        kept => object.set(&["metadata", "managedFields"], kept.clone()),
    }
}

/// Times of managedFields do not make a change by themselves. upstream: IgnoreManagedFieldsTimestampsTransformer
pub(crate) fn ignore_timestamps(_object: &mut Value, _old: &Value) {}
