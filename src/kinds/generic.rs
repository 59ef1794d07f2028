//! The strategy of a kind without a row of its own: status and generation, driven by facts.
//!
//! upstream: what the strategies of most kinds have in common, and
//! apiextensions-apiserver/pkg/registry/customresource/strategy.go for custom resources

use copepod_meta::Value;
use copepod_schema::{Resource, Type, Universe};

use crate::equality::same;
use crate::strategy::{Context, Strategy};
use crate::{Kind, metadata};

/// Behaviour by two facts.
pub struct Generic {
    /// Has a `status` subresource: writes of the object itself do not touch status.
    status: bool,
    /// Generation counts changes: of `spec` for built-in kinds, of all but metadata and status for custom ones.
    generation: bool,
}

static STRATEGIES: [Generic; 4] = [
    Generic { status: false, generation: false },
    Generic { status: false, generation: true },
    Generic { status: true, generation: false },
    Generic { status: true, generation: true },
];

/// The strategy for a resource about which only facts are known.
pub fn strategy(status: bool, generation: bool) -> &'static dyn Strategy {
    &STRATEGIES[usize::from(status) * 2 + usize::from(generation)]
}

/// The kind of such a resource. The hub is the stored version (upstream's internal types follow it closely enough for what
/// the generic strategy does), else the preferred one.
pub fn kind(resource: &Resource) -> Kind {
    let status = resource.versions.iter().any(|v| v.subresource("status").is_some());
    let custom =
        !copepod_schema::resources().iter().any(|r| r.group == resource.group && r.plural == resource.plural);
    let generation = custom || resource.storage.as_ref().is_some_and(|s| has_spec(s.ty));
    let hub = resource.storage.as_ref().filter(|s| s.group == resource.group).map(|s| s.version.clone());
    Kind {
        group: resource.group.clone(),
        plural: resource.plural.clone(),
        hub: hub.or_else(|| resource.versions.first().map(|v| v.version.clone())).unwrap_or_default(),
        fully_validated: false,
        strategy: strategy(status, generation),
    }
}

fn has_spec(ty: copepod_schema::TypeId) -> bool {
    matches!(Universe::builtin().get(ty), Type::Struct(s) if s.field("spec").is_some())
}

impl Strategy for Generic {
    fn prepare_create(&self, _cx: &Context, object: &mut Value) {
        if self.status {
            clear_status(object);
        }
        if self.generation {
            object.set(&["metadata", "generation"], 1);
        }
    }

    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        if self.status {
            keep(object, old, "status");
        }
        if self.generation && !same_but(object, old, &["metadata", "status", "apiVersion", "kind"]) {
            bump_generation(object, old);
        }
    }

    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        if self.status { &[&["status"]] } else { &[] }
    }

    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status" && self.status).then_some(&STATUS as &'static dyn Strategy)
    }
}

/// The status subresource of such a kind: everything but status stays as it is stored.
pub struct GenericStatus;

static STATUS: GenericStatus = GenericStatus;

impl Strategy for GenericStatus {
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        keep_all_but_status(object, old);
        metadata::reset_for_status(object, old);
    }

    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

/// Takes `member` from the stored object.
pub fn keep(object: &mut Value, old: &Value, member: &str) {
    match old.get(member) {
        Value::Null => {
            object.remove(&[member]);
        }
        kept => *object.make(&[member]) = kept.clone(),
    }
}

/// Takes every member but status, metadata and the type from the stored object.
pub fn keep_all_but_status(object: &mut Value, old: &Value) {
    let own = ["status", "metadata", "apiVersion", "kind"];
    object.make_map().retain(|name, _| own.contains(&name));
    for (name, value) in old.map_at(&[]).iter().filter(|(name, _)| !own.contains(name)) {
        *object.make(&[name]) = value.clone();
    }
}

/// Empties status: the type keeps a struct there, so that encoders write `{}`.
pub fn clear_status(object: &mut Value) {
    object.remove(&["status"]);
}

/// Generation of the stored object plus one.
pub fn bump_generation(object: &mut Value, old: &Value) {
    object.set(&["metadata", "generation"], old.int_at(&["metadata", "generation"]) + 1);
}

/// Generation plus one if spec changed: what most kinds do on update.
pub fn bump_generation_if_spec_changed(object: &mut Value, old: &Value) {
    if !same(object.get("spec"), old.get("spec")) {
        bump_generation(object, old);
    }
}

/// The same by the facts of the spec's type.
pub fn bump_generation_if_changed(object: &mut Value, old: &Value, spec_type: &str) {
    if !crate::equality::same_as(object.get("spec"), old.get("spec"), spec_type) {
        bump_generation(object, old);
    }
}

/// Whether two objects are the same apart from some members.
fn same_but(a: &Value, b: &Value, members: &[&str]) -> bool {
    let rest = |x: &Value, y: &Value| {
        x.map_at(&[]).iter().filter(|(k, _)| !members.contains(k)).all(|(k, v)| same(v, y.get(k)))
    };
    rest(a, b) && rest(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{context, json};

    #[test]
    fn status_is_kept_and_generation_counts_changes_of_spec() {
        let old = json(r#"{"metadata":{"generation":4},"spec":{"a":1},"status":{"x":1}}"#);
        for (status, new, want) in [
            (true, r#"{"spec":{"a":1},"status":{"x":2}}"#, r#"{"spec":{"a":1},"status":{"x":1}}"#),
            (true, r#"{"spec":{"a":2}}"#, r#"{"metadata":{"generation":5},"spec":{"a":2},"status":{"x":1}}"#),
            (
                false,
                r#"{"spec":{"a":2},"status":{"x":2}}"#,
                r#"{"metadata":{"generation":5},"spec":{"a":2},"status":{"x":2}}"#,
            ),
        ] {
            let mut object = json(new);
            strategy(status, true).prepare_update(&context(), &mut object, &old);
            assert_eq!(object, json(want), "{new}");
        }
    }

    #[test]
    fn the_status_subresource_writes_status_alone() {
        let old = json(r#"{"metadata":{"labels":{"a":"b"}},"spec":{"a":1},"status":{"x":1}}"#);
        let mut object =
            json(r#"{"metadata":{"labels":{"c":"d"}},"spec":{"a":2},"data":1,"status":{"x":2}}"#);
        let status = strategy(true, true).subresource("status").expect("has a status subresource");
        status.prepare_update(&context(), &mut object, &old);
        assert_eq!(object, json(r#"{"metadata":{"labels":{"a":"b"}},"spec":{"a":1},"status":{"x":2}}"#));
    }
}
