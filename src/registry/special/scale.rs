//! `scale`: the number of replicas of a workload, seen as one kind of object.
//!
//! upstream: pkg/registry/apps/*/storage/storage.go ScaleREST, pkg/registry/core/replicationcontroller/storage

use copepod_meta::selector::LabelSelector;
use copepod_meta::{ErrorList, FieldError, Path, Status, Value, names};

use super::{Answered, Ask, Special, scale_fields};
use crate::api::{Answer, Body, Content, GetOptions, PatchType, WriteOptions};
use crate::call::Projection;
use crate::collection::now;
use crate::managed::{manager_name, track_simple};
use crate::metadata::{check_name, ensure_namespace};
use crate::options::WriteKind;
use crate::patch::Patch;
use crate::types::Types;
use crate::write::{Change, Update};

const MANAGED: [&str; 2] = ["metadata", "managedFields"];

/// How the workload writes its selector.
pub(super) enum Selector {
    /// A `LabelSelector`.
    Label,
    /// A map of labels.
    Map,
}

pub(super) struct Scale {
    pub(super) selector: Selector,
}

impl Projection for Scale {
    fn project(&self, object: &Value) -> Result<Value, Status> {
        let selector = object.at(&["spec", "selector"]);
        let selector = match self.selector {
            Selector::Label => {
                LabelSelector::from_value(selector).map_err(|e| Status::bad_request(e.to_string()))?
            }
            Selector::Map => LabelSelector::from_labels(selector.map_at(&[])),
        };
        let mut scale = Value::map();
        for member in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            let value = object.at(&["metadata", member]);
            if !value.is_null() {
                scale.set(&["metadata", member], value.clone());
            }
        }
        // Zero is left out by a tree of a built-in type.
        for (part, member) in [("spec", "replicas"), ("status", "replicas")] {
            let replicas = object.int_at(&[part, member]);
            if replicas != 0 {
                scale.set(&[part, member], replicas);
            }
        }
        let selector = selector.to_string();
        if !selector.is_empty() {
            scale.set(&["status", "selector"], selector);
        }
        Ok(scale)
    }

    fn inject(&self, scale: &Value, object: &mut Value) -> Result<(), Status> {
        object.set(&["spec", "replicas"], scale.int_at(&["spec", "replicas"]));
        match scale.at(&["metadata", "resourceVersion"]) {
            Value::Null => {
                object.remove(&["metadata", "resourceVersion"]);
            }
            version => object.set(&["metadata", "resourceVersion"], version.clone()),
        }
        Ok(())
    }
}

impl Special for Scale {
    fn get<'a>(&'a self, ask: Ask<'a>, options: &'a GetOptions) -> Answered<'a> {
        Box::pin(async move {
            let collection = ask.target.collection("get")?;
            let object = ask.registry.get_object(collection, ask.target, options).await?;
            scale_answer(ask, self.project(&object.hub()?)?)
        })
    }

    fn update<'a>(&'a self, ask: Ask<'a>, body: Body, options: &'a WriteOptions) -> Answered<'a> {
        Box::pin(async move {
            let mut scale = ask.decode(&body, options)?;
            ensure_namespace(&mut scale, &ask.target.namespace)?;
            check_name(&scale, &ask.target.name)?;
            let manager = manager_name(&options.field_manager, &ask.caller.user_agent);
            let change = |old: Option<&Value>| self.changed(ask, old, &manager, |_| Ok(scale.clone()));
            let uid = Some(scale.str_at(&["metadata", "uid"])).filter(|uid| !uid.is_empty());
            self.write(ask, &change, uid, options).await
        })
    }

    fn patch<'a>(
        &'a self,
        ask: Ask<'a>,
        kind: PatchType,
        body: Body,
        options: &'a WriteOptions,
    ) -> Answered<'a> {
        Box::pin(async move {
            let patch = Patch::parse(kind, &body, options.directive())?;
            let (gvk, ty) = ask.expected()?;
            let manager = manager_name(&options.field_manager, &ask.caller.user_agent);
            let patched = |scale: &Value| {
                let mut scale =
                    patch.apply(&Types::Builtin, ty, &gvk, scale.clone(), &ask.caller.warnings)?;
                ensure_namespace(&mut scale, &ask.target.namespace)?;
                check_name(&scale, &ask.target.name)?;
                Ok(scale)
            };
            let change = |old: Option<&Value>| self.changed(ask, old, &manager, patched);
            self.write(ask, &change, None, options).await
        })
    }
}

impl Scale {
    /// The workload with the replicas of a changed Scale.
    fn changed(
        &self,
        ask: Ask<'_>,
        old: Option<&Value>,
        manager: &str,
        change: impl Fn(&Value) -> Result<Value, Status>,
    ) -> Result<Value, Status> {
        let Some(old) = old else {
            return Err(Status::not_found(&ask.target.served.group_resource(), &ask.target.name));
        };
        let mut before = self.project(old)?;
        let owned = scale_fields::of_scale(old.list_at(&MANAGED));
        if !owned.is_empty() {
            before.set(&MANAGED, owned);
        }
        let mut after = change(&before)?;
        let (gvk, ty) = ask.expected()?;
        track_simple((&gvk, ty), &ask.target.subresource, manager, &now(), Some(&before), &mut after);
        validate(&after)?;
        let uid = after.str_at(&["metadata", "uid"]);
        if !uid.is_empty() && uid != before.str_at(&["metadata", "uid"]) {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                before.str_at(&["metadata", "uid"])
            );
            return Err(Status::conflict(&ask.target.served.group_resource(), &ask.target.name, &why));
        }
        let mut object = old.clone();
        self.inject(&after, &mut object)?;
        let owned = scale_fields::of_workload(
            old.list_at(&MANAGED),
            after.list_at(&MANAGED),
            &ask.target.served.gvk().api_version(),
        );
        object.set(&MANAGED, owned);
        Ok(object)
    }

    async fn write(
        &self,
        ask: Ask<'_>,
        change: &Change<'_>,
        uid: Option<&str>,
        options: &WriteOptions,
    ) -> Result<Answer, Status> {
        let collection = ask.target.collection("update")?;
        let mut call = ask.call(collection, options, WriteKind::Update)?;
        call.projection = Some(self);
        let update = Update { change, uid, revision: None, force_create: false };
        let updated = call.update(&update).await?;
        scale_answer(ask, self.project(&updated.object.hub()?)?)
    }
}

fn scale_answer(ask: Ask<'_>, value: Value) -> Result<Answer, Status> {
    let (gvk, ty) = ask.expected()?;
    Ok(Answer::ok(Content::Tree { value, ty, gvk, table: Some(table) }))
}

fn table(scale: &Value) -> (bytes::Bytes, bytes::Bytes) {
    crate::view::tree_row(&copepod_kinds::Scale, scale)
}

/// upstream: pkg/apis/autoscaling/validation ValidateScale
fn validate(scale: &Value) -> Result<(), Status> {
    let mut errors = ErrorList::new();
    let rule = |name: &str, prefix| names::dns1123_subdomain_prefixed(name, prefix);
    copepod_kinds::metadata::validate(scale, true, &rule, &mut errors);
    let replicas = scale.int_at(&["spec", "replicas"]);
    if replicas < 0 {
        let spec = Path::new("spec");
        let why = copepod_kinds::check::NEGATIVE;
        errors.push(FieldError::invalid_int(&spec.child("replicas"), replicas, why));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("autoscaling", "Scale", scale.str_at(&["metadata", "name"]), &errors))
}
