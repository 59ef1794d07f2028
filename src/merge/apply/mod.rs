//! Server-side apply and `managedFields`, as pure functions on plain JSON trees.
//!
//! | module | what |
//! |---|---|
//! | `path`, `set` | names of fields, sets of them |
//! | `fields_v1` | sets as `fieldsV1` |
//! | `shape` | what the type graph says of granular and atomic |
//! | `check`, `field_set`, `compare`, `merge`, `reconcile` | walks over objects under a shape |
//! | `update` | ownership after a write |
//! | `managed` | `metadata.managedFields` |
//!
//! [`update`] belongs into the road of every create, update and patch, before admission; [`apply`] is the
//! patch of type `application/apply-patch+yaml`. Both take and give plain JSON trees
//! (`copepod_codec::to_untyped`) of the request's version.
//!
//! upstream: apimachinery/pkg/util/managedfields, structured-merge-diff/v6

mod check;
mod compare;
mod field_set;
mod fields_v1;
mod managed;
mod merge;
mod path;
mod reconcile;
mod set;
mod shape;
mod update;

#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use copepod_meta::{Gvk, Value, debug_json};
use copepod_schema::{TypeId, Universe};

pub use fields_v1::ParseJson;
pub use managed::{Manager, Operation};
pub use path::{Path, PathElement, path_text};
pub use set::Set;

use managed::{Managed, Owned};
use shape::Shape;
use update::Updater;

/// kubectl's own record of what it applied on the client's side.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

const MANAGED_FIELDS: [&str; 2] = ["metadata", "managedFields"];

/// Other versions of a kind, for managers who wrote in them.
pub trait Versions {
    /// The type of an `apiVersion` of this kind; none if it is not served any more.
    fn type_of(&self, api_version: &str) -> Option<TypeId>;
    /// A plain JSON tree of one `apiVersion` in another.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value>;
}

/// A kind of one version.
pub struct NoOtherVersions;

impl Versions for NoOtherVersions {
    fn type_of(&self, _: &str) -> Option<TypeId> {
        None
    }
    fn convert(&self, _: &Value, _: &str, _: &str) -> Option<Value> {
        None
    }
}

/// What a write is about.
pub struct Context<'c> {
    /// Types.
    pub universe: &'c Universe,
    /// The type of the request's version.
    pub ty: TypeId,
    /// The kind in the request's version.
    pub gvk: &'c Gvk,
    /// The subresource written through, "" for none.
    pub subresource: &'c str,
    /// Fields that the strategy resets, so that their writer does not come to own them.
    pub reset_fields: Option<&'c Set>,
    /// The kind's other versions.
    pub versions: &'c dyn Versions,
    /// The plain tree of an object of this type with nothing in it.
    pub empty: &'c Value,
    /// RFC 3339 in UTC, seconds.
    pub now: &'c str,
    /// Reads JSON (`copepod_codec::decode_untyped`).
    pub parse_json: ParseJson<'c>,
}

/// A field that somebody else owns.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// Its owner.
    pub manager: Manager,
    /// The field.
    pub path: Path,
}

/// Why a configuration was not applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// Ends as 400.
    #[error("{0}")]
    BadRequest(String),
    /// Ends as 409 with a cause a conflict: [`Conflict::cause`], [`Conflict::field`].
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// Upstream answers 500 with this text, also where it is the client's mistake (an unknown field).
    #[error("{0}")]
    Internal(String),
}

impl Conflict {
    /// The message of the cause. Its type is `FieldManagerConflict`.
    pub fn cause(&self) -> String {
        format!("conflict with {}", self.manager.text())
    }
    /// The field of the cause.
    pub fn field(&self) -> String {
        path_text(&self.path)
    }
}

/// upstream: conflict.go getConflictMessage
fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: {}: {}", one.cause(), one.field());
    }
    let mut lines = Vec::new();
    let mut last = None;
    // Conflicts come manager by manager.
    for conflict in conflicts {
        if last != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", conflict.manager.text()));
            last = Some(&conflict.manager);
        }
        lines.push(format!("- {}", conflict.field()));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// An applied configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The object as it is to be now, without managedFields and before defaulting.
    pub object: Value,
    /// Its `metadata.managedFields`; null for none.
    pub managed_fields: Value,
}

impl Context<'_> {
    fn version(&self) -> String {
        self.gvk.api_version()
    }

    fn updater(&self) -> Updater<'_> {
        Updater { context: self, version: self.version() }
    }

    fn manager(&self, name: &str, operation: Operation) -> Manager {
        Manager {
            name: if name.is_empty() { "unknown".into() } else { name.into() },
            operation,
            api_version: if operation == Operation::Apply { String::new() } else { self.version() },
            subresource: self.subresource.into(),
        }
    }

    /// `namespace/name; group/version, Kind=kind`, as errors name an object.
    fn name_of(&self, object: &Value) -> String {
        let (namespace, name) =
            (object.str_at(&["metadata", "namespace"]), object.str_at(&["metadata", "name"]));
        format!("{namespace}/{name}; {}", self.gvk)
    }
}

/// The `metadata.managedFields` after a create, an update or a patch: null for none.
///
/// `live` is the stored object (an empty one on create), `new` what is to be stored, with whatever
/// managedFields the client sent. What is the same in both may be left out of both, if it [`has_names`] and the
/// kind has one version; but `live` has its uid. Where ownership cannot be worked out there is none, as
/// upstream's `UpdateNoErrors`.
pub fn update(context: &Context, mut live: Value, mut new: Value, manager: &str) -> Value {
    let managed = live_or_new(context, &live, &new);
    for object in [&mut live, &mut new] {
        object.remove(&MANAGED_FIELDS);
    }
    update_managed(context, &live, &new, managed, manager).map_or(Value::Null, |m| managed::write(&m))
}

/// Whether all items of granular lists in a value of this type have names: those of which the comparison of two objects
/// would not tell otherwise that there is none. The value may be a typed tree's or a plain one's.
pub fn has_names(universe: &Universe, ty: TypeId, value: &Value) -> bool {
    shape::has_names(value, Shape::root(universe, ty))
}

fn update_managed(
    context: &Context,
    live: &Value,
    new: &Value,
    mut managed: Managed,
    manager: &str,
) -> Result<Managed, ApplyError> {
    // Nobody manages an object that was left unmanaged.
    if managed.is_empty() && !live.str_at(&["metadata", "uid"]).is_empty() {
        return Ok(managed);
    }
    for object in [live, new] {
        check_typed(context, object).map_err(|e| {
            let name = context.name_of(object);
            ApplyError::Internal(format!("failed to convert new object ({name}) to smd typed: {e}"))
        })?;
    }
    let writer = context.manager(manager, Operation::Update);
    // Under a name of its own first: only if it gains something does the writer's entry change, and get a new
    // time.
    let operation =
        Manager { name: "current-operation".into(), subresource: String::new(), ..writer.clone() };
    context.updater().update(live, new, &mut managed, &operation)?;
    strip(&mut managed, &operation);
    if let Some(gained) = managed.remove(&operation) {
        let mut set = gained.set;
        if let Some(before) = managed.remove(&writer) {
            set.absorb(before.set);
        }
        let time = Value::string(context.now);
        managed.insert(writer, Owned { set, api_version: gained.api_version, time });
    }
    managed::cap(&mut managed);
    Ok(managed)
}

/// Checks an object that has been decoded as its type. Built-in ones fit by that; what list items lack in
/// keys, comparing tells.
fn check_typed(context: &Context, object: &Value) -> Result<(), String> {
    if !context.universe.is_unstructured() {
        return Ok(());
    }
    check::check(object, Shape::root(context.universe, context.ty), true)
}

/// upstream: fieldmanager.go decodeLiveOrNew
fn live_or_new(context: &Context, live: &Value, new: &Value) -> Managed {
    let read = |object: &Value| managed::read(object.at(&MANAGED_FIELDS), context.parse_json);
    let sent = new.at(&MANAGED_FIELDS);
    if context.subresource.is_empty() {
        if let Some([]) = sent.as_list() {
            return Managed::new();
        }
        if let Some([only]) = sent.as_list()
            && only.as_map().is_some_and(|entry| entry.iter().all(|(_, value)| value.is_empty()))
        {
            return Managed::new();
        }
        if let Ok(managed) = read(new)
            && !managed.is_empty()
        {
            return managed;
        }
    }
    read(live).unwrap_or_default()
}

/// Takes what every object has, and what the server sets, out of a manager's fields.
/// upstream: stripmeta.go
fn strip(managed: &mut Managed, manager: &Manager) {
    static NEVER_OWNED: LazyLock<Set> = LazyLock::new(|| {
        let paths: [&[&str]; 12] = [
            &["apiVersion"],
            &["kind"],
            &["metadata"],
            &["metadata", "name"],
            &["metadata", "namespace"],
            &["metadata", "creationTimestamp"],
            &["metadata", "selfLink"],
            &["metadata", "uid"],
            &["metadata", "clusterName"],
            &["metadata", "generation"],
            &["metadata", "managedFields"],
            &["metadata", "resourceVersion"],
        ];
        Set::of_fields(paths)
    });
    if let Some(owned) = managed.get_mut(manager) {
        owned.set.subtract(&NEVER_OWNED);
        if owned.set.is_empty() {
            managed.remove(manager);
        }
    }
}

/// Applies a configuration to the stored object (an empty one if there is none).
pub fn apply(
    context: &Context,
    mut live: Value,
    config: &Value,
    manager: &str,
    force: bool,
) -> Result<Applied, ApplyError> {
    let gvk = config_gvk(config);
    if gvk != *context.gvk {
        return Err(ApplyError::BadRequest(format!("invalid object type: {gvk}")));
    }
    if !config.at(&MANAGED_FIELDS).is_null() {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()));
    }
    let managed = live.remove(&MANAGED_FIELDS).unwrap_or_default();
    let managed = managed::read(&managed, context.parse_json)
        .map_err(|e| ApplyError::Internal(format!("failed to decode managed fields: {e}")))?;
    let mut applied = match apply_once(context, &live, config, managed.clone(), manager, force) {
        Err(ApplyError::Conflicts(conflicts)) if manager == "kubectl" => {
            let left = conflicts_beyond_last_applied(context, &live, conflicts);
            if !left.is_empty() {
                return Err(ApplyError::Conflicts(left));
            }
            apply_once(context, &live, config, managed, manager, true)?
        }
        other => other?,
    };
    if manager == "kubectl" {
        renew_last_applied(&mut applied.object, config);
    }
    Ok(applied)
}

fn config_gvk(config: &Value) -> Gvk {
    let version = copepod_meta::GroupVersion::parse(config.str_at(&["apiVersion"])).unwrap_or_default();
    version.kind(config.str_at(&["kind"]))
}

fn apply_once(
    context: &Context,
    live: &Value,
    config: &Value,
    mut managed: Managed,
    manager: &str,
    force: bool,
) -> Result<Applied, ApplyError> {
    if managed.is_empty() {
        // What was there before the first apply gets an owner, so that it can be in the way.
        managed =
            update_managed(context, context.empty, live, managed, "before-first-apply").map_err(|e| {
                ApplyError::Internal(format!("failed to create manager for existing fields: {e}"))
            })?;
    }
    let shape = Shape::root(context.universe, context.ty);
    check::check(config, shape, false).map_err(|e| {
        let name = context.name_of(config);
        ApplyError::Internal(format!("failed to create typed patch object ({name}): {e}"))
    })?;
    check_typed(context, live).map_err(|e| {
        let name = context.name_of(live);
        ApplyError::Internal(format!("failed to create typed live object ({name}): {e}"))
    })?;
    let writer = context.manager(manager, Operation::Apply);
    let object = context.updater().apply(live, config, &mut managed, &writer, force)?;
    strip(&mut managed, &writer);
    if object.is_some()
        && let Some(owned) = managed.get_mut(&writer)
    {
        owned.time = Value::string(context.now);
    }
    Ok(Applied { object: object.unwrap_or_else(|| live.clone()), managed_fields: managed::write(&managed) })
}

/// The conflicts that are none: fields that kubectl applied on the client's side and that still are as it
/// applied them.
/// upstream: lastappliedmanager.go
fn conflicts_beyond_last_applied(context: &Context, live: &Value, conflicts: Vec<Conflict>) -> Vec<Conflict> {
    let text = live.str_at(&["metadata", "annotations", LAST_APPLIED]);
    let shape = Shape::root(context.universe, context.ty);
    let last = (!text.is_empty()).then(|| (context.parse_json)(text.as_bytes())).flatten();
    let Some(last) = last.filter(|last| last.str_at(&["apiVersion"]) == context.version()) else {
        return conflicts;
    };
    let fits = |object: &Value| check::check(object, shape, false).is_ok();
    let Ok(comparison) = compare::compare(&last, live, shape) else { return conflicts };
    if !fits(&last) || !fits(live) {
        return conflicts;
    }
    let same = field_set::field_set(&last, shape)
        .difference(&comparison.modified)
        .difference(&comparison.added)
        .difference(&comparison.removed);
    conflicts.into_iter().filter(|conflict| !same.has(&conflict.path)).collect()
}

/// Keeps kubectl's client-side record in step, if there is one.
/// upstream: lastappliedupdater.go
fn renew_last_applied(object: &mut Value, config: &Value) {
    if object.str_at(&["metadata", "annotations", LAST_APPLIED]).is_empty() {
        return;
    }
    let mut config = config.clone();
    config.remove(&["metadata", "annotations", LAST_APPLIED]);
    let text = format!("{}\n", debug_json::to_string(&config));
    object.set(&["metadata", "annotations", LAST_APPLIED], text);
}
