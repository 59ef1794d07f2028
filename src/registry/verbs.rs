//! The verbs that write: what stands between a client's bytes and the road of a write.
//!
//! upstream: apiserver/pkg/endpoints/handlers/{create,update,patch,delete}.go

use std::sync::Arc;

use copepod_meta::{Gvk, Status, Value};

use crate::api::*;
use crate::call::Call;
use crate::collection::Collection;
use crate::metadata::{check_name, dedup_owners, ensure_namespace, wipe_system_fields};
use crate::options::WriteKind;
use crate::patch::{Configuration, Patch};
use crate::registry::Registry;
use crate::selection::{Selection, check_selectors};
use crate::served::Served;
use crate::special::{self, Ask};
use crate::wire::{self, Expected};
use crate::write::Update;

impl Registry {
    /// POST to a collection or a subresource.
    pub async fn create(
        &self,
        caller: &Caller,
        target: &Target,
        body: Body,
        options: &WriteOptions,
    ) -> Result<Answer, Status> {
        options.validate(WriteKind::Create)?;
        if let Some(special) = special::find(target) {
            return special.create(Ask { registry: self, caller, target }, body, options).await;
        }
        let collection = target.collection("create")?;
        if !target.subresource.is_empty() {
            return Err(Status::method_not_supported(&target.served.group_resource(), "create"));
        }
        let mut object = decode_hub(caller, &target.served, &body, options)?;
        wipe_system_fields(&mut object);
        ensure_namespace(&mut object, namespace_of(target, collection))?;
        let call = Call::new(
            self,
            caller,
            target,
            collection,
            options.to_value(WriteKind::Create),
            options.is_dry_run(),
        )?;
        let object = call.create(object).await?;
        Ok(Answer::created(Content::Stored(object)))
    }

    /// PUT.
    pub async fn update(
        &self,
        caller: &Caller,
        target: &Target,
        body: Body,
        options: &WriteOptions,
    ) -> Result<Answer, Status> {
        options.validate(WriteKind::Update)?;
        if let Some(special) = special::find(target) {
            return special.update(Ask { registry: self, caller, target }, body, options).await;
        }
        let collection = target.collection("update")?;
        let mut object = decode_hub(caller, &target.served, &body, options)?;
        ensure_namespace(&mut object, namespace_of(target, collection))?;
        check_name(&object, &target.name)?;
        dedup_owners(&mut object, &caller.warnings, false);
        let call = Call::new(
            self,
            caller,
            target,
            collection,
            options.to_value(WriteKind::Update),
            options.is_dry_run(),
        )?;
        let change = |old: Option<&Value>| {
            let mut object = object.clone();
            call.writer().track(old, &mut object);
            Ok(object)
        };
        let uid = Some(object.str_at(&["metadata", "uid"])).filter(|uid| !uid.is_empty());
        let update = Update { change: &change, uid, revision: None, force_create: false };
        let updated = call.update(&update).await?;
        let code = if updated.created { 201 } else { 200 };
        Ok(Answer { code, content: Content::Stored(updated.object) })
    }

    /// PATCH. `body.media` says how an apply patch is written; other patches are JSON.
    pub async fn patch(
        &self,
        caller: &Caller,
        target: &Target,
        kind: PatchType,
        body: Body,
        options: &WriteOptions,
    ) -> Result<Answer, Status> {
        options.validate(WriteKind::Patch(kind))?;
        if let Some(special) = special::find(target) {
            return special.patch(Ask { registry: self, caller, target }, kind, body, options).await;
        }
        let collection = target.collection("patch")?;
        let call = Call::new(
            self,
            caller,
            target,
            collection,
            options.to_value(WriteKind::Update),
            options.is_dry_run(),
        )?;
        let patch = match kind {
            PatchType::Apply => Changing::Apply(Configuration::parse(&body, options)?),
            kind => Changing::Patch(Patch::parse(kind, &body, options.directive())?),
        };
        let change = |old: Option<&Value>| {
            let mut object = match &patch {
                Changing::Apply(configuration) => configuration.apply(&call, old)?,
                Changing::Patch(patch) => patched(&call, patch, old)?,
            };
            ensure_namespace(&mut object, namespace_of(target, collection))?;
            check_name(&object, &target.name)?;
            Ok(object)
        };
        let force_create = kind == PatchType::Apply;
        let update = Update { change: &change, uid: None, revision: None, force_create };
        let updated = call.update(&update).await?;
        let code = if updated.created { 201 } else { 200 };
        Ok(Answer { code, content: Content::Stored(updated.object) })
    }

    /// DELETE of an object.
    pub async fn delete(
        &self,
        caller: &Caller,
        target: &Target,
        options: &DeleteOptions,
    ) -> Result<Answer, Status> {
        options.validate()?;
        let collection = target.collection("delete")?;
        if !target.subresource.is_empty() {
            return Err(Status::method_not_supported(&target.served.group_resource(), "delete"));
        }
        collection.hooks.warn_of_delete(caller, options);
        let call = Call::new(self, caller, target, collection, options.to_value(), options.is_dry_run())?;
        let deleted = call.delete(options, &target.name).await?;
        let accepted = !deleted.gone && options.orphan_dependents == Some(false);
        Ok(Answer { code: if accepted { 202 } else { 200 }, content: deleted.content })
    }

    /// DELETE of a collection: the objects that were selected, as they were.
    pub async fn delete_collection(
        &self,
        caller: &Caller,
        target: &Target,
        mut list: ListOptions,
        options: &DeleteOptions,
    ) -> Result<Listing, Status> {
        let collection = target.collection("deletecollection")?;
        list.set_defaults();
        check_selectors(&list)?;
        list.validate()?;
        options.validate()?;
        // What cannot be selected is refused before anybody is warned.
        Selection::of(collection, target, &list)?;
        collection.hooks.warn_of_delete(caller, options);
        let listing = self.list_objects(collection, target, &list).await?;
        for object in &listing.objects {
            let (namespace, name) = object.names()?;
            let one = Target { namespace, name, ..target.clone() };
            let call = Call::new(self, caller, &one, collection, options.to_value(), options.is_dry_run())?;
            match call.delete(options, "").await {
                // Somebody else deleted it meanwhile.
                Err(status) if status.reason == copepod_meta::Reason::NotFound => {}
                Err(status) => return Err(status),
                Ok(_) => {}
            }
        }
        Ok(listing)
    }

    /// `DeleteOptions` from a body, of whichever group the client says.
    pub fn decode_delete_options(&self, body: &Body) -> Result<DeleteOptions, Status> {
        let gvk = Gvk::new("meta.k8s.io", "v1", "DeleteOptions");
        let types = copepod_schema::Universe::builtin();
        let ty = types
            .by_name("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")
            .ok_or_else(|| Status::internal("no type for DeleteOptions"))?;
        let decoded = copepod_codec::decode(&body.bytes, body.media, types, ty, Some(&gvk))
            .map_err(|failure| Status::bad_request(failure.error.to_string()))?;
        if decoded.gvk.kind != gvk.kind {
            return Err(Status::bad_request(wire::not_registered(&decoded.gvk)));
        }
        Ok(DeleteOptions::from_value(&decoded.value))
    }
}

/// What a PATCH does.
enum Changing {
    Patch(Patch),
    Apply(Configuration),
}

/// The hub tree that a patch makes of the stored one.
fn patched(call: &Call<'_>, patch: &Patch, old: Option<&Value>) -> Result<Value, Status> {
    let served = &call.target.served;
    let Some(old) = old else {
        return Err(Status::not_found(&served.group_resource(), &call.target.name));
    };
    let mut current = old.clone();
    served.kind.strategy.from_hub(&served.version().version, &mut current);
    let warnings = &call.caller.warnings;
    let mut object = patch.apply(&served.types, served.ty(), &served.gvk(), current, warnings)?;
    to_hub(served, &mut object);
    call.writer().track(Some(old), &mut object);
    Ok(object)
}

/// The namespace that an object of the request is in.
pub(crate) fn namespace_of<'a>(target: &'a Target, collection: &Collection) -> &'a str {
    if collection.resource.namespaced { &target.namespace } else { "" }
}

/// A request body of the target's own kind as a hub tree, defaulted.
fn decode_hub(
    caller: &Caller,
    served: &Arc<Served>,
    body: &Body,
    options: &WriteOptions,
) -> Result<Value, Status> {
    let gvk = served.gvk();
    let expected = Expected { types: &served.types, ty: served.ty(), gvk: &gvk, also: &[] };
    let (mut object, _) = wire::decode_request(body, &expected, options.directive(), &caller.warnings)?;
    to_hub(served, &mut object);
    Ok(object)
}

/// Defaults of the served version, then the hub.
pub(crate) fn to_hub(served: &Served, object: &mut Value) {
    let version = served.version().version.as_ref();
    served.kind.default(version, &served.types, served.ty(), object);
    served.kind.strategy.to_hub(version, object);
}
