//! managedFields in the road of a write: who owns which field, worked out before admission, so that what admission adds is
//! owned by nobody.
//!
//! Ownership is reckoned on plain JSON trees of the request's version; the trees of the road are the hub's. This module goes
//! to and fro between them. Of an update only what it changes becomes plain; managedFields never do: they are most of a small
//! object.
//!
//! upstream: apiserver/pkg/endpoints/handlers/fieldmanager, apimachinery/pkg/util/managedfields

use copepod_codec as codec;
use copepod_kinds::Strategy;
use copepod_merge::apply::{self, ApplyError, Context, Set, Versions};
use copepod_meta::{Cause, CompactString, Gvk, Reason, Status, Value};
use copepod_schema::TypeId;

use crate::options::{FIELD_MANAGER_BYTES_MAX, is_print};
use crate::served::Served;
use crate::verbs::to_hub;

const MANAGED: [&str; 2] = ["metadata", "managedFields"];

/// Who writes which version through which door.
pub(crate) struct Writer<'a> {
    pub(crate) served: &'a Served,
    pub(crate) subresource: &'a str,
    pub(crate) strategy: &'static dyn Strategy,
    pub(crate) manager: &'a str,
    pub(crate) now: &'a CompactString,
}

/// The manager's name: what the client says, else what its user agent begins with.
/// upstream: apiserver/pkg/endpoints/handlers/create.go managerOrUserAgent, prefixFromUserAgent
pub(crate) fn manager_name(said: &str, user_agent: &str) -> String {
    if !said.is_empty() {
        return said.into();
    }
    let mut name = String::new();
    for c in user_agent.split('/').next().unwrap_or("").chars().filter(|c| is_print(*c)) {
        if name.len() + c.len_utf8() > FIELD_MANAGER_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    name
}

impl Writer<'_> {
    /// Writes `metadata.managedFields` of a hub tree that is to replace `live` (`None`: nothing).
    pub(crate) fn track(&self, live: Option<&Value>, object: &mut Value) {
        let gvk = self.served.gvk();
        let empty = self.empty(&gvk);
        let (live, new) = match live {
            Some(live) => self.changes(live, object, &gvk),
            None => (empty.clone(), self.plain(object, &gvk)),
        };
        let owned = self.context(&gvk, empty, |context| apply::update(context, live, new, self.manager));
        set_managed(object, owned);
    }

    /// The hub tree that a configuration makes of `live` (`None`: of nothing).
    pub(crate) fn apply(&self, live: Option<&Value>, config: &Value, force: bool) -> Result<Value, Status> {
        let gvk = self.served.gvk();
        let empty = self.empty(&gvk);
        let live = live.map_or_else(|| empty.clone(), |live| self.plain(live, &gvk));
        let applied =
            self.context(&gvk, empty, |context| apply::apply(context, live, config, self.manager, force));
        let applied = applied.map_err(apply_status)?;
        let types = &self.served.types;
        // A built-in type's object is made as upstream does it, not through JSON: what is too large is cut.
        let decoded = if types.is_unstructured() {
            codec::from_untyped(&applied.object, types, self.served.ty(), Some(&gvk))
        } else {
            codec::from_unstructured(applied.object, types, self.served.ty(), Some(&gvk))
        };
        let decoded = decoded.map_err(|failure| {
            let meta = |member| config.str_at(&["metadata", member]);
            Status::new(
                500,
                Reason::Unknown,
                format!(
                    "failed to convert new object ({}/{}; {gvk}) to proper version: unable to convert unstructured object \
                     to {gvk}: {failure}",
                    meta("namespace"),
                    meta("name"),
                ),
            )
        })?;
        let mut object = decoded.value;
        to_hub(self.served, &mut object);
        set_managed(&mut object, applied.managed_fields);
        Ok(object)
    }

    fn context<T>(&self, gvk: &Gvk, empty: &Value, use_it: impl FnOnce(&Context) -> T) -> T {
        let reset = self.strategy.reset_fields();
        let reset = (!reset.is_empty()).then(|| Set::of_fields(reset.iter().copied()));
        let versions = ServedVersions(self.served);
        let parse = |json: &[u8]| codec::decode_untyped(json).ok().map(|(value, _)| value);
        use_it(&Context {
            universe: &self.served.types,
            ty: self.served.ty(),
            gvk,
            subresource: self.subresource,
            reset_fields: reset.as_ref(),
            versions: &versions,
            empty,
            now: self.now,
            parse_json: &parse,
        })
    }

    /// A hub tree as the plain tree of the request's version, managedFields as they are.
    fn plain(&self, hub: &Value, gvk: &Gvk) -> Value {
        let (object, managed) = self.shown(hub, gvk);
        let mut plain = codec::to_untyped(&object, &self.served.types, self.served.ty(), Some(gvk));
        put_back(&mut plain, &MANAGED, managed);
        plain
    }

    /// The same of a stored object and of what replaces it, as far as they differ.
    fn changes(&self, live: &Value, new: &Value, gvk: &Gvk) -> (Value, Value) {
        // Ownership in another version is reckoned there: all of the object is converted for it.
        if self.served.types.is_unstructured() || self.served.resource.versions.len() > 1 {
            return (self.plain(live, gvk), self.plain(new, gvk));
        }
        let ((live, live_managed), (new, new_managed)) = (self.shown(live, gvk), self.shown(new, gvk));
        let types = &*self.served.types;
        let same = |value: &Value, ty| apply::has_names(types, ty, value);
        let (mut before, mut after) =
            codec::to_untyped_changes((&live, &new), types, self.served.ty(), &same);
        const UID: [&str; 2] = ["metadata", "uid"];
        for (plain, object, managed) in [(&mut before, live, live_managed), (&mut after, new, new_managed)] {
            // Nobody is to gain or lose the metadata as such.
            plain.make(&["metadata"]).make_map();
            put_back(plain, &MANAGED, managed);
            let uid = object.at(&UID);
            put_back(plain, &UID, (!uid.is_null()).then(|| uid.clone()));
        }
        (before, after)
    }

    /// A hub tree in the request's version, and its managedFields beside it.
    fn shown(&self, hub: &Value, gvk: &Gvk) -> (Value, Option<Value>) {
        let mut object = hub.clone();
        let managed = object.remove(&MANAGED);
        self.served.kind.strategy.from_hub(&gvk.version, &mut object);
        (object, managed)
    }

    fn empty(&self, gvk: &Gvk) -> &Value {
        let make = || codec::to_untyped(&Value::map(), &self.served.types, self.served.ty(), Some(gvk));
        self.served.empty.get_or_init(make)
    }
}

fn put_back(object: &mut Value, path: &[&str], value: Option<Value>) {
    if let Some(value) = value {
        object.set(path, value);
    }
}

fn set_managed(object: &mut Value, owned: Value) {
    if owned.is_null() {
        object.remove(&MANAGED);
    } else {
        object.set(&MANAGED, owned);
    }
}

fn apply_status(error: ApplyError) -> Status {
    let text = error.to_string();
    match error {
        ApplyError::BadRequest(_) => Status::bad_request(text),
        ApplyError::Internal(_) => Status::new(500, Reason::Unknown, text),
        ApplyError::Conflicts(conflicts) => {
            let cause = |c: &apply::Conflict| Cause {
                reason: "FieldManagerConflict".into(),
                message: c.cause(),
                field: c.field(),
            };
            Status::apply_conflict(conflicts.iter().map(cause).collect(), text)
        }
    }
}

/// The versions in which a resource is served.
struct ServedVersions<'a>(&'a Served);

impl ServedVersions<'_> {
    fn version<'v>(&self, api_version: &'v str) -> Option<(&'v str, TypeId)> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let served = self.0.resource.version(version).filter(|_| group == self.0.resource.group)?;
        Some((version, served.ty))
    }
}

impl Versions for ServedVersions<'_> {
    fn type_of(&self, api_version: &str) -> Option<TypeId> {
        self.version(api_version).map(|(_, ty)| ty)
    }
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        let ((from, from_ty), (to, to_ty)) = (self.version(from)?, self.version(to)?);
        let resource = &self.0.resource;
        let gvk = |version: &str| Gvk::new(&resource.group, version, &resource.kind);
        let mut tree = codec::from_untyped(object, &self.0.types, from_ty, Some(&gvk(from))).ok()?.value;
        self.0.kind.strategy.to_hub(from, &mut tree);
        self.0.kind.strategy.from_hub(to, &mut tree);
        Some(codec::to_untyped(&tree, &self.0.types, to_ty, Some(&gvk(to))))
    }
}

/// Writes `metadata.managedFields` of an object of one version, whose fields no strategy resets.
pub(crate) fn track_simple(
    (gvk, ty): (&Gvk, TypeId),
    subresource: &str,
    manager: &str,
    now: &str,
    live: Option<&Value>,
    object: &mut Value,
) {
    let types = copepod_schema::Universe::builtin();
    let plain = |object: &Value| codec::to_untyped(object, types, ty, Some(gvk));
    let empty = plain(&Value::map());
    let parse = |json: &[u8]| codec::decode_untyped(json).ok().map(|(value, _)| value);
    let context = Context {
        universe: types,
        ty,
        gvk,
        subresource,
        reset_fields: None,
        versions: &apply::NoOtherVersions,
        empty: &empty,
        now,
        parse_json: &parse,
    };
    let live = live.map_or_else(|| empty.clone(), plain);
    let owned = apply::update(&context, live, plain(object), manager);
    set_managed(object, owned);
}

/// A write that changes nothing but the times of managedFields changes nothing.
/// upstream: apimachinery/pkg/util/managedfields/internal IgnoreManagedFieldsTimestampsTransformer
pub(crate) fn ignore_timestamps(object: &mut Value, old: &Value) {
    let (new, before) = (object.list_at(&MANAGED), old.list_at(&MANAGED));
    let same_but_time = |a: &Value, b: &Value| {
        a.map_at(&[])
            .iter()
            .filter(|(k, _)| *k != "time")
            .eq(b.map_at(&[]).iter().filter(|(k, _)| *k != "time"))
    };
    if new == before
        || new.len() != before.len()
        || !new.iter().zip(before).all(|(a, b)| same_but_time(a, b))
        || !same_but_managed(object, old)
    {
        return;
    }
    set_managed(object, old.at(&MANAGED).clone());
}

fn same_but_managed(a: &Value, b: &Value) -> bool {
    let (a, b) = (a.map_at(&[]), b.map_at(&[]));
    let rest = |name: &&str| *name != "metadata";
    if !a.keys().filter(rest).eq(b.keys().filter(rest)) {
        return false;
    }
    let same = |name: &str| a.get(name) == b.get(name);
    let meta = |m: &copepod_meta::Map| {
        let entries = m.get("metadata").map(|v| v.map_at(&[]).clone()).unwrap_or_default();
        entries.into_iter().filter(|(k, _)| k != "managedFields").collect::<Vec<_>>()
    };
    a.keys().filter(rest).all(same) && meta(a) == meta(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_are_named_after_what_the_client_says_or_is() {
        for (said, agent, want) in [
            ("me", "kubectl/v1.36.0 (linux)", "me"),
            ("", "kubectl/v1.36.0 (linux)", "kubectl"),
            ("", "no\u{7}ise", "noise"),
            ("", "", ""),
        ] {
            assert_eq!(manager_name(said, agent), want);
        }
    }
}
