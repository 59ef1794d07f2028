//! One write on its way: who, what, how, and the questions it asks of admission and authorization.

use std::sync::Arc;

use copepod_kinds::Strategy;
use copepod_meta::{
    Admission, AdmissionRequest, Attributes, CompactString, Decision, Gvk, Gvr, Operation, Status, Value,
};

use crate::api::{Caller, Target};
use crate::collection::{Collection, now};
use crate::managed::{Writer, manager_name};
use crate::registry::Registry;

/// A write of one object of a collection.
pub(crate) struct Call<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) caller: &'a Caller,
    pub(crate) target: &'a Target,
    pub(crate) collection: &'a Arc<Collection>,
    /// Of the resource, or of the subresource.
    pub(crate) strategy: &'static dyn Strategy,
    /// Kind of the object in the request: its own for subresources with a type of theirs.
    pub(crate) kind: Gvk,
    pub(crate) resource: Gvr,
    /// Namespace as admission and authorization see it.
    pub(crate) namespace: String,
    /// `CreateOptions`, ... as admission sees them.
    pub(crate) options: Value,
    pub(crate) dry_run: bool,
    /// Now, in metadata's form.
    pub(crate) now: CompactString,
    /// Who comes to own what is written.
    pub(crate) manager: String,
    /// Asked by the server itself: no admission.
    pub(crate) internal: bool,
    /// What clients and admission see instead of the object.
    pub(crate) projection: Option<&'a dyn Projection>,
}

/// A subresource that shows an object as another kind of object.
pub(crate) trait Projection: Send + Sync {
    /// What is shown.
    fn project(&self, object: &Value) -> Result<Value, Status>;
    /// Takes over what was changed in what is shown.
    fn inject(&self, shown: &Value, object: &mut Value) -> Result<(), Status>;
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        registry: &'a Registry,
        caller: &'a Caller,
        target: &'a Target,
        collection: &'a Arc<Collection>,
        options: Value,
        dry_run: bool,
    ) -> Result<Call<'a>, Status> {
        let own = target.served.kind.strategy;
        let strategy = match target.subresource.as_str() {
            "" => own,
            name => own.subresource(name).ok_or_else(|| without_road(target))?,
        };
        let mut call = Call::special(registry, caller, target, collection, options, dry_run);
        call.strategy = strategy;
        Ok(call)
    }

    /// A call of a subresource that uses the resource's own strategy, or none.
    pub(crate) fn special(
        registry: &'a Registry,
        caller: &'a Caller,
        target: &'a Target,
        collection: &'a Arc<Collection>,
        options: Value,
        dry_run: bool,
    ) -> Call<'a> {
        let manager = manager_name(options.str_at(&["fieldManager"]), &caller.user_agent);
        let namespace =
            if collection.hooks.is_its_own_namespace() { &target.name } else { &target.namespace };
        Call {
            registry,
            caller,
            target,
            collection,
            strategy: collection.kind.strategy,
            kind: target.served.gvk(),
            resource: target.served.gvr(),
            namespace: namespace.clone(),
            options,
            dry_run,
            now: now(),
            manager,
            internal: false,
            projection: None,
        }
    }

    /// Who writes, for managedFields.
    pub(crate) fn writer(&self) -> Writer<'_> {
        Writer {
            served: &self.target.served,
            subresource: &self.target.subresource,
            strategy: self.strategy,
            manager: &self.manager,
            now: &self.now,
        }
    }

    /// The namespace in which the object must be.
    pub(crate) fn object_namespace(&self) -> &str {
        if self.collection.resource.namespaced { &self.target.namespace } else { "" }
    }

    /// What strategies may know.
    pub(crate) fn context(&self) -> copepod_kinds::Context<'_> {
        self.collection.context(&self.caller.user, self.object_namespace(), &self.now)
    }

    /// Mutating admission.
    pub(crate) async fn admit(
        &self,
        operation: Operation,
        name: &str,
        object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        self.ask_admission(false, operation, name, object, old).await
    }

    /// Validating admission.
    pub(crate) async fn validate(
        &self,
        operation: Operation,
        name: &str,
        object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        self.ask_admission(true, operation, name, object, old).await
    }

    async fn ask_admission(
        &self,
        validate: bool,
        operation: Operation,
        name: &str,
        object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let admission: &dyn Admission = &*self.registry.deciders().admission;
        if self.internal || !admission.handles(operation) {
            return Ok(());
        }
        let Some(projection) = self.projection else {
            return self.ask_about(validate, operation, name, object, old).await;
        };
        let Some(object) = object else { return Ok(()) };
        let mut shown = projection.project(object)?;
        let old = old.map(|old| projection.project(old)).transpose()?;
        self.ask_about(validate, operation, name, Some(&mut shown), old.as_ref()).await?;
        if validate { Ok(()) } else { projection.inject(&shown, object) }
    }

    async fn ask_about(
        &self,
        validate: bool,
        operation: Operation,
        name: &str,
        object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let admission: &dyn Admission = &*self.registry.deciders().admission;
        let mut warnings = Vec::new();
        // The namespace of a Namespace that is being made is only known from the object.
        let namespace = match self.namespace.as_str() {
            "" if self.collection.hooks.is_its_own_namespace() => name,
            namespace => namespace,
        };
        let mut request = AdmissionRequest {
            operation,
            kind: &self.kind,
            resource: &self.resource,
            subresource: &self.target.subresource,
            namespace,
            name,
            user: &self.caller.user,
            object,
            old_object: old,
            options: &self.options,
            dry_run: self.dry_run,
            warnings: &mut warnings,
        };
        let answer = if validate {
            admission.validate(&mut request).await
        } else {
            admission.admit(&mut request).await
        };
        warnings.into_iter().for_each(|w| self.caller.warnings.add(w));
        answer
    }

    /// Whether the caller may also create, where an update would.
    /// upstream: apiserver/pkg/endpoints/handlers/update.go withAuthorization
    pub(crate) async fn may_create(&self) -> Result<(), Status> {
        if self.internal {
            return Ok(());
        }
        let attributes = Attributes {
            user: self.caller.user.clone(),
            verb: "create".into(),
            namespace: self.namespace.clone(),
            group: self.resource.group.clone(),
            version: self.resource.version.clone(),
            resource: self.resource.resource.clone(),
            subresource: self.target.subresource.clone(),
            name: self.target.name.clone(),
            is_resource: true,
            path: self.caller.path.clone(),
            ..Attributes::default()
        };
        match self.registry.deciders().authorizer.authorize(&attributes).await? {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } | Decision::NoOpinion { reason } => {
                Err(forbidden(&attributes, &reason))
            }
        }
    }
}

/// upstream: apiserver/pkg/endpoints/handlers/responsewriters/errors.go ForbiddenStatusError, forbiddenMessage
pub(crate) fn forbidden(attributes: &Attributes, reason: &str) -> Status {
    let quote = copepod_meta::field::quote;
    let mut resource = attributes.resource.clone();
    if !attributes.subresource.is_empty() {
        resource = format!("{resource}/{}", attributes.subresource);
    }
    let who = quote(&attributes.user.name);
    let group = quote(&attributes.group);
    let place = match attributes.namespace.as_str() {
        "" => "at the cluster scope".to_string(),
        namespace => format!("in the namespace {}", quote(namespace)),
    };
    let mut why = format!(
        "User {who} cannot {} resource {} in API group {group} {place}",
        attributes.verb,
        quote(&resource)
    );
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    let about = copepod_meta::GroupResource::new(&attributes.group, &attributes.resource);
    Status::forbidden(&about, &attributes.name, &why)
}

/// A subresource that no strategy writes: 501 by name if it is served at all.
fn without_road(target: &Target) -> Status {
    if target.served.version().subresource(&target.subresource).is_none() {
        return Status::no_such_path();
    }
    Status::not_implemented(&format!("{}/{}", target.served.group_resource(), target.subresource))
}
