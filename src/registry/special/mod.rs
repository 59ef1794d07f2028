//! What single resources do beyond the one road: subresources with a type of their own, and hooks on writes that do I/O.
//!
//! A subresource that writes the object itself (`status`, `resize`, ...) is no special: its strategy says what it may change.
//! Everything here is found by the two tables below; generic code never asks for a name.

mod access_review;
mod binding;
mod component_status;
mod event;
mod eviction;
mod job;
mod namespace;
mod pod;
mod rbac;
mod scale;
mod scale_fields;
mod service;
mod token;
mod token_review;

pub(crate) use service::Addresses;
pub use service::Repair;

use std::sync::Arc;

use copepod_meta::{BoxFuture, Gvk, Operation, Reason, Status, Value};
use copepod_schema::{TypeId, Universe};

use crate::api::{
    Answer, Body, Caller, Content, DeleteOptions, GetOptions, Listing, PatchType, Target, WriteOptions,
};
use crate::call::Call;
use crate::collection::{Collection, now};
use crate::delete::{self, Plan};
use crate::managed::{manager_name, track_simple};
use crate::metadata::wipe_system_fields;
use crate::options::WriteKind;
use crate::registry::Registry;
use crate::types::Types;
use crate::wire::{self, Expected};

/// What is asked of a special subresource.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) caller: &'a Caller,
    pub(crate) target: &'a Target,
}

type Answered<'a, T = Answer> = BoxFuture<'a, Result<T, Status>>;

impl Ask<'_> {
    fn unsupported<'b, T: Send + 'b>(&self, verb: &'static str) -> Answered<'b, T> {
        let status = Status::method_not_supported(&self.target.served.group_resource(), verb);
        Box::pin(std::future::ready(Err(status)))
    }
}

impl<'a> Ask<'a> {
    /// Kind and type of the object in the request.
    fn expected(&self) -> Result<(Gvk, TypeId), Status> {
        let version = self.target.served.version();
        if self.target.subresource.is_empty() {
            return Ok((self.target.served.gvk(), version.ty));
        }
        let subresource = version.subresource(&self.target.subresource).ok_or_else(Status::no_such_path)?;
        let gvk = Gvk::new(&subresource.group, &subresource.version, &subresource.kind);
        let ty = subresource.ty.or_else(|| Universe::builtin().by_gvk(&gvk));
        let ty = ty.ok_or_else(|| Status::internal(format!("no type for {gvk}")))?;
        Ok((gvk, ty))
    }

    /// The request's object, its defaults applied.
    fn decode(&self, body: &Body, options: &WriteOptions) -> Result<Value, Status> {
        let (gvk, ty) = self.expected()?;
        let expected = Expected { types: &Types::Builtin, ty, gvk: &gvk, also: &[] };
        let (mut object, _) =
            wire::decode_request(body, &expected, options.directive(), &self.caller.warnings)?;
        copepod_merge::defaults::apply_defaults(&mut object, &Types::Builtin, ty);
        Ok(object)
    }

    /// The request's object, made but never stored: it has an owner all the same.
    fn decode_owned(&self, body: &Body, options: &WriteOptions) -> Result<Value, Status> {
        let mut object = self.decode(body, options)?;
        wipe_system_fields(&mut object);
        self.own(&mut object, options)?;
        Ok(object)
    }

    /// Notes the caller as the owner of the request's object.
    fn own(&self, object: &mut Value, options: &WriteOptions) -> Result<(), Status> {
        let (gvk, ty) = self.expected()?;
        let manager = manager_name(&options.field_manager, &self.caller.user_agent);
        track_simple((&gvk, ty), &self.target.subresource, &manager, &now(), None, object);
        Ok(())
    }

    /// An answer that is not stored.
    fn answer(&self, code: u16, value: Value) -> Result<Answer, Status> {
        let (gvk, ty) = self.expected()?;
        Ok(Answer { code, content: Content::Tree { value, ty, gvk, table: None } })
    }

    /// A call on a stored resource, for admission and writes.
    fn call(
        &self,
        collection: &'a Arc<Collection>,
        options: &WriteOptions,
        kind: WriteKind,
    ) -> Result<Call<'a>, Status> {
        let options_value = options.to_value(kind);
        let mut call = Call::special(
            self.registry,
            self.caller,
            self.target,
            collection,
            options_value,
            options.is_dry_run(),
        );
        call.kind = self.expected()?.0;
        Ok(call)
    }
}

/// Admission of an object that is created, but not stored as such.
async fn admit_create(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    call.admit(Operation::Create, &call.target.name, Some(object), None).await
}

/// The last word of admission on it.
async fn validate_create(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    call.validate(Operation::Create, &call.target.name, Some(object), None).await
}

/// `Status` of something that was done by a create.
fn success() -> Status {
    Status::new(201, Reason::Unknown, "")
}

/// A subresource (or a resource that is not stored) with a road of its own. What it does not do is 405.
pub(crate) trait Special: Send + Sync {
    /// GET.
    fn get<'a>(&'a self, ask: Ask<'a>, _options: &'a GetOptions) -> Answered<'a> {
        ask.unsupported("get")
    }
    /// GET of the collection.
    fn list<'a>(&'a self, ask: Ask<'a>) -> Answered<'a, Listing> {
        ask.unsupported("list")
    }
    /// POST.
    fn create<'a>(&'a self, ask: Ask<'a>, _body: Body, _options: &'a WriteOptions) -> Answered<'a> {
        ask.unsupported("create")
    }
    /// PUT.
    fn update<'a>(&'a self, ask: Ask<'a>, _body: Body, _options: &'a WriteOptions) -> Answered<'a> {
        ask.unsupported("update")
    }
    /// PATCH.
    fn patch<'a>(
        &'a self,
        ask: Ask<'a>,
        _kind: PatchType,
        _body: Body,
        _options: &'a WriteOptions,
    ) -> Answered<'a> {
        ask.unsupported("patch")
    }
}

/// What has been taken for a write that may still be refused.
#[must_use = "what was taken has to be kept or given back"]
#[derive(Default)]
pub(crate) struct Taken(Option<Box<dyn FnOnce(bool) -> BoxFuture<'static, ()> + Send>>);

impl Taken {
    /// Something that has to hear whether the write was done.
    pub(crate) fn new(finish: impl FnOnce(bool) -> BoxFuture<'static, ()> + Send + 'static) -> Taken {
        Taken(Some(Box::new(finish)))
    }
    /// Keeps what was taken, or gives it back.
    pub(crate) async fn finish(self, done: bool) {
        if let Some(finish) = self.0 {
            finish(done).await;
        }
    }
}

/// What the writes of a resource do beyond themselves.
pub(crate) trait Hooks: Send + Sync {
    /// Its objects are namespaces: admission sees them in themselves.
    fn is_its_own_namespace(&self) -> bool {
        false
    }
    /// A deletion answers the object though its documentation says Status.
    fn returns_deleted(&self) -> bool {
        false
    }
    /// Deletion may leave finalizers to the garbage collector. upstream: GarbageCollectionPolicy Unsupported
    fn is_garbage_collected(&self) -> bool {
        true
    }
    /// Many and seldom read: the cache keeps no second copy.
    fn is_read_seldom(&self) -> bool {
        false
    }
    /// Before a new object is prepared and validated.
    fn begin_create<'a>(
        &'a self,
        _call: &'a Call<'_>,
        _object: &'a mut Value,
    ) -> BoxFuture<'a, Result<Taken, Status>> {
        Box::pin(std::future::ready(Ok(Taken::default())))
    }
    /// Before a changed object is prepared and validated.
    fn begin_update<'a>(
        &'a self,
        _call: &'a Call<'_>,
        _object: &'a mut Value,
        _old: &'a Value,
    ) -> BoxFuture<'a, Result<Taken, Status>> {
        Box::pin(std::future::ready(Ok(Taken::default())))
    }
    /// An object was made.
    fn after_create<'a>(&'a self, _call: &'a Call<'_>, _object: &'a Value) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
    /// An object was changed.
    fn after_update<'a>(
        &'a self,
        _call: &'a Call<'_>,
        _object: &'a Value,
        _old: &'a Value,
    ) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
    /// An object is gone.
    fn after_delete<'a>(&'a self, _call: &'a Call<'_>, _object: &'a Value) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
    /// Whether an update that leaves no finalizer on an object that is being deleted deletes it.
    fn deletes_on_update(&self, _object: &Value) -> bool {
        true
    }
    /// Warns of a deletion, whether or not there is something to delete.
    fn warn_of_delete(&self, _caller: &Caller, _options: &DeleteOptions) {}
    /// What a deletion does.
    fn plan_delete(&self, call: &Call, old: &Value, options: &DeleteOptions) -> Result<Plan, Status> {
        delete::plan(call, old, options)
    }
}

/// Of resources that have none.
struct NoHooks;
impl Hooks for NoHooks {}

/// A row of the table of specials.
struct Row {
    group: &'static str,
    plural: &'static str,
    subresource: &'static str,
    special: &'static dyn Special,
}

const fn row(
    group: &'static str,
    plural: &'static str,
    subresource: &'static str,
    special: &'static dyn Special,
) -> Row {
    Row { group, plural, subresource, special }
}

const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";

static SPECIALS: &[Row] = &[
    row("", "bindings", "", &binding::Binding),
    row("", "pods", "binding", &binding::Binding),
    row("", "pods", "eviction", &eviction::Eviction),
    row("", "componentstatuses", "", &component_status::ComponentStatus),
    row("", "replicationcontrollers", "scale", &scale::Scale { selector: scale::Selector::Map }),
    row("", "serviceaccounts", "token", &token::Token),
    row("apps", "deployments", "scale", &scale::Scale { selector: scale::Selector::Label }),
    row("apps", "replicasets", "scale", &scale::Scale { selector: scale::Selector::Label }),
    row("apps", "statefulsets", "scale", &scale::Scale { selector: scale::Selector::Label }),
    row(AUTHENTICATION, "selfsubjectreviews", "", &token_review::SelfSubjectReview),
    row(AUTHENTICATION, "tokenreviews", "", &token_review::TokenReview),
    row(AUTHORIZATION, "localsubjectaccessreviews", "", &access_review::LocalSubjectAccessReview),
    row(AUTHORIZATION, "selfsubjectaccessreviews", "", &access_review::SelfSubjectAccessReview),
    row(AUTHORIZATION, "selfsubjectrulesreviews", "", &access_review::SelfSubjectRulesReview),
    row(AUTHORIZATION, "subjectaccessreviews", "", &access_review::SubjectAccessReview),
];

static HOOKS: &[(&str, &str, &dyn Hooks)] = &[
    ("", "events", &event::Event),
    ("", "namespaces", &namespace::Namespace),
    ("", "services", &service::Service),
    ("batch", "jobs", &job::Job),
    (RBAC, "clusterroles", &rbac::Role { all_namespaces: true }),
    (RBAC, "roles", &rbac::Role { all_namespaces: false }),
    (RBAC, "clusterrolebindings", &rbac::Binding { all_namespaces: true }),
    (RBAC, "rolebindings", &rbac::Binding { all_namespaces: false }),
];

/// The special road of a target, if it has one.
pub(crate) fn find(target: &Target) -> Option<&'static dyn Special> {
    let resource = &target.served.resource;
    let found = SPECIALS.iter().find(|row| {
        row.subresource == target.subresource && row.plural == resource.plural && row.group == resource.group
    });
    found.map(|row| row.special)
}

/// The hooks of a resource.
pub(crate) fn hooks(group: &str, plural: &str) -> &'static dyn Hooks {
    HOOKS.iter().find(|(g, p, _)| *g == group && *p == plural).map_or(&NoHooks, |(_, _, hooks)| *hooks)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row that names nothing is a typing error that would silently switch off a subresource or a hook.
    #[test]
    fn every_row_names_something_that_exists() {
        let resources = copepod_schema::resources();
        let find =
            |group: &str, plural: &str| resources.iter().find(|r| r.group == group && r.plural == plural);
        for row in SPECIALS {
            let resource =
                find(row.group, row.plural).unwrap_or_else(|| panic!("{}/{}", row.group, row.plural));
            let known = row.subresource.is_empty()
                || resource.versions.iter().any(|v| v.subresource(row.subresource).is_some());
            assert!(known, "{}/{}/{}", row.group, row.plural, row.subresource);
        }
        for (group, plural, _) in HOOKS {
            assert!(find(group, plural).is_some(), "{group}/{plural}");
        }
    }

    /// A subresource that discovery promises and that nothing here serves would be a 404 at run time.
    #[test]
    fn every_subresource_that_writes_has_a_road() {
        let mut without = Vec::new();
        for resource in copepod_schema::resources() {
            let strategy = copepod_kinds::kind_of(resource).strategy;
            let writes = |s: &&copepod_schema::Subresource| {
                s.verbs.iter().any(|v| matches!(v.as_ref(), "create" | "update" | "patch"))
            };
            // Streams and proxies are the HTTP edge's.
            let edge = |name: &str| matches!(name, "attach" | "exec" | "portforward" | "proxy" | "log");
            let preferred = resource.versions.iter().take(1);
            for subresource in preferred.flat_map(|v| v.subresources.iter()).filter(writes) {
                let special = SPECIALS.iter().any(|row| {
                    row.group == resource.group
                        && row.plural == resource.plural
                        && row.subresource == subresource.name
                });
                if !special && !edge(&subresource.name) && strategy.subresource(&subresource.name).is_none() {
                    without.push(format!("{}.{}/{}", resource.plural, resource.group, subresource.name));
                }
            }
        }
        assert_eq!(without, Vec::<String>::new());
    }
}
