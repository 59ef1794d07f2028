//! Namespaces: deletion is a phase in which a controller empties them.
//!
//! upstream: pkg/registry/core/namespace/storage/storage.go Delete

use copepod_meta::{GroupResource, Status, Value, time};

use super::Hooks;
use crate::api::DeleteOptions;
use crate::call::Call;
use crate::delete::{self, Plan};
use crate::metadata::{FOREGROUND, ORPHAN, finalizers, is_deleting, set_finalizers};

pub(super) struct Namespace;

impl Hooks for Namespace {
    fn is_its_own_namespace(&self) -> bool {
        true
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn deletes_on_update(&self, object: &Value) -> bool {
        object.list_at(&["spec", "finalizers"]).is_empty()
    }

    fn plan_delete(&self, call: &Call, old: &Value, options: &DeleteOptions) -> Result<Plan, Status> {
        check_preconditions(old, options)?;
        if !is_deleting(old) {
            return Ok(Plan::Mark { object: Box::new(terminating(old, options)), remove: false });
        }
        if !old.list_at(&["spec", "finalizers"]).is_empty() {
            return Ok(Plan::Nothing);
        }
        delete::plan(call, old, options)
    }
}

fn check_preconditions(old: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let wanted = &options.preconditions;
    let facts =
        [("UID", "uid", &wanted.uid), ("ResourceVersion", "resourceVersion", &wanted.resource_version)];
    for (what, member, asked) in facts {
        let found = old.str_at(&["metadata", member]);
        if let Some(asked) = asked.as_deref().filter(|asked| *asked != found) {
            let why = format!(
                "Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}"
            );
            let namespaces = GroupResource::new("", "namespaces");
            return Err(Status::conflict(&namespaces, old.str_at(&["metadata", "name"]), &why));
        }
    }
    Ok(())
}

/// The namespace with its end begun.
fn terminating(old: &Value, options: &DeleteOptions) -> Value {
    let mut object = old.clone();
    object.set(&["metadata", "deletionTimestamp"], time::rfc3339(time::now()));
    object.set(&["status", "phase"], "Terminating");
    let own = finalizers(old);
    let policy = options.propagation_policy.as_deref();
    let should_have = |finalizer: &str, by_orphan: bool, by_policy: &str| match options.orphan_dependents {
        Some(orphan) => orphan == by_orphan,
        None => policy.map_or(own.contains(&finalizer), |p| p == by_policy),
    };
    let mut wanted: Vec<String> =
        own.iter().filter(|f| !matches!(**f, ORPHAN | FOREGROUND)).map(ToString::to_string).collect();
    for (finalizer, by_orphan, by_policy) in [(ORPHAN, true, "Orphan"), (FOREGROUND, false, "Foreground")] {
        if should_have(finalizer, by_orphan, by_policy) {
            wanted.push(finalizer.into());
        }
    }
    set_finalizers(&mut object, &wanted);
    object
}
