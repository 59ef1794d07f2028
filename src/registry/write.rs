//! The road of a create and of an update: from an object in the hub version to the stored bytes.
//!
//! One order for every kind: admission that may change, hooks that take (addresses, ports), preparation, validation,
//! admission that may only refuse, the transaction. Whatever a hook took is given back when a later step refuses.
//!
//! upstream: apiserver/pkg/registry/generic/registry/store.go Create, Update; registry/rest/{create,update}.go

use std::sync::Arc;

use bytes::Bytes;
use copepod_kinds::metadata as common;
use copepod_meta::{ErrorList, FieldError, GroupResource, Operation, Path, Status, Value};
use copepod_store::{KeyValue, Op, StoreError, TxnResult};

use crate::api::Object;
use crate::call::Call;
use crate::collection::{revision_of, set_revision};
use crate::errors::{self, MODIFIED};
use crate::managed;
use crate::metadata::{
    dedup_owners, ensure_namespace, fill_system_fields, finalizers, generate_name, is_deleting, needs_name,
};

/// How often a generated name is tried: at a million names a prefix, one create in a thousand fails.
/// upstream: maxNameGenerationCreateAttempts
const GENERATED_NAMES_MAX: usize = 8;
/// How often an update starts anew because somebody else was faster. Upstream goes on until the request's time is over;
/// so many losses in a row are a fault, not bad luck.
const CONFLICTS_MAX: usize = 256;

/// Makes the new object of an update from the stored one (`None`: there is none). Called again after each conflict.
pub(crate) type Change<'a> = dyn Fn(Option<&Value>) -> Result<Value, Status> + Send + Sync + 'a;

/// What an update did.
pub(crate) struct Updated {
    pub(crate) object: Object,
    pub(crate) created: bool,
    /// The store has confirmed it; otherwise nothing was to be written.
    pub(crate) written: bool,
}

/// What an update shall do.
pub(crate) struct Update<'a> {
    pub(crate) change: &'a Change<'a>,
    /// The object must have this uid.
    pub(crate) uid: Option<&'a str>,
    /// The object must be at this revision.
    pub(crate) revision: Option<&'a str>,
    /// An absent object is made, whatever the kind says (apply).
    pub(crate) force_create: bool,
}

impl Call<'_> {
    fn object(&self, stored: Bytes, revision: u64) -> Object {
        Object::of_bytes(&self.target.served, self.collection, stored, revision)
    }

    /// What a dry run answers: `bytes`, which are `tree` as it would be stored, and what only storing takes away.
    /// upstream: registry/generic/registry/dryrun.go copyInto, against storage.Versioner PrepareObjectForStorage
    fn unstored(&self, bytes: Bytes, revision: u64, tree: &Value) -> Result<Object, Status> {
        let object = self.object(bytes, revision);
        let said = |member| tree.at(&["metadata", member]);
        if said("selfLink").is_null() && (revision != 0 || said("resourceVersion").is_null()) {
            return Ok(object);
        }
        let mut shown = object.tree()?;
        for member in ["selfLink", "resourceVersion"] {
            if !said(member).is_null() {
                shown.set(&["metadata", member], said(member).clone());
            }
        }
        Ok(Object::of_tree(&self.target.served, Arc::new(shown)))
    }

    /// Creates an object that was decoded, defaulted and converted.
    pub(crate) async fn create(&self, mut object: Value) -> Result<Object, Status> {
        dedup_owners(&mut object, &self.caller.warnings, false);
        self.writer().track(None, &mut object);
        let name = object.str_at(&["metadata", "name"]).to_string();
        self.admit(Operation::Create, &name, Some(&mut object), None).await?;
        dedup_owners(&mut object, &self.caller.warnings, true);
        if !needs_name(&object) {
            return self.create_once(object).await;
        }
        let mut attempt = 1;
        loop {
            match self.create_once(object.clone()).await {
                Err(status) if status.reason == copepod_meta::Reason::AlreadyExists => {
                    if attempt == GENERATED_NAMES_MAX {
                        return Err(status);
                    }
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    async fn create_once(&self, mut object: Value) -> Result<Object, Status> {
        fill_system_fields(&mut object, &self.now);
        if needs_name(&object) {
            let name = generate_name(object.str_at(&["metadata", "generateName"]));
            object.set(&["metadata", "name"], name);
        }
        let undo = self.collection.hooks.begin_create(self, &mut object).await?;
        let done = self.store_new(object).await;
        undo.finish(done.is_ok()).await;
        let (object, tree) = done?;
        if !self.dry_run {
            self.collection.hooks.after_create(self, &tree).await;
        }
        Ok(object)
    }

    /// Prepares, validates and stores a new object.
    async fn store_new(&self, mut object: Value) -> Result<(Object, Value), Status> {
        self.before_create(&mut object)?;
        let name = object.str_at(&["metadata", "name"]).to_string();
        self.validate(Operation::Create, &name, Some(&mut object), None).await?;
        let key = self.collection.key(self.object_namespace(), &name)?;
        // A dry run looks for the object before its revision. upstream: registry/generic/registry/dryrun.go Create
        if self.dry_run
            && let Some((kv, _)) = self.collection.read(&key).await?
        {
            return Err(self.exists(&object, Some(&kv)));
        }
        // What is no revision is none, for a new object. upstream: storage/etcd3/store.go Create
        if revision_of(&object).is_ok_and(|revision| revision != 0) {
            let why = "resourceVersion should not be set on objects to be created";
            return Err(Status::new(500, copepod_meta::Reason::Unknown, why));
        }
        let bytes = self.collection.encode(&mut object)?;
        if self.dry_run {
            return Ok((self.unstored(bytes, 0, &object)?, object));
        }
        match self.put(&key, 0, bytes.clone()).await? {
            TxnResult::Done { revision } => Ok((self.object(bytes, revision), object)),
            TxnResult::Conflict { current, .. } => Err(self.exists(&object, current.as_ref())),
        }
    }

    /// upstream: InterpretCreateError, CheckGeneratedNameError
    fn exists(&self, object: &Value, current: Option<&KeyValue>) -> Status {
        let resource = self.target.served.group_resource();
        let name = object.str_at(&["metadata", "name"]);
        let generated = !object.str_at(&["metadata", "generateName"]).is_empty();
        let mut status = if generated {
            // The group of the type it is kept as, whichever was asked: a generated name's refusal tells of the object.
            let group = self.collection.storage.group.to_string();
            Status::generate_name_conflict(&GroupResource { group, ..resource }, name)
        } else {
            Status::already_exists(&resource, name)
        };
        let deleting = |kv: &KeyValue| {
            // What cannot be read is not known to be deleted; the refusal stands either way.
            self.collection.decode(&kv.value, kv.mod_revision).is_ok_and(|tree| is_deleting(&tree))
        };
        if current.is_some_and(deleting) {
            status.message = format!("object is being deleted: {}", status.message);
        }
        status
    }

    /// upstream: rest.BeforeCreate
    fn before_create(&self, object: &mut Value) -> Result<(), Status> {
        ensure_namespace(object, self.object_namespace())?;
        let cx = self.context();
        self.strategy.prepare_create(&cx, object);
        let namespaced = self.collection.resource.namespaced;
        let mut errors = ErrorList::new();
        if self.strategy.metadata_first() {
            common::validate(object, namespaced, &|n, p| self.strategy.validate_name(n, p), &mut errors);
        }
        self.strategy.validate_create(&cx, object, &mut errors);
        if errors.is_empty() {
            common::validate(object, namespaced, &common::path_segment_name, &mut errors);
        }
        self.refuse(object, errors)?;
        self.warn(self.strategy.warnings(&cx, object, None));
        self.strategy.canonicalize(object);
        Ok(())
    }

    fn refuse(&self, object: &Value, errors: ErrorList) -> Result<(), Status> {
        if errors.is_empty() {
            return Ok(());
        }
        let gvk = self.collection.gvk();
        Err(Status::invalid(&gvk.group, &gvk.kind, object.str_at(&["metadata", "name"]), &errors))
    }

    fn warn(&self, warnings: Vec<String>) {
        warnings.into_iter().for_each(|w| self.caller.warnings.add(w));
    }

    /// Updates the object of the target, again and again until nobody came between.
    pub(crate) async fn update(&self, update: &Update<'_>) -> Result<Updated, Status> {
        let key = self.collection.key(self.object_namespace(), &self.target.name)?;
        let mut current = None;
        if !self.dry_run {
            current = self.collection.read_cached(&key).await;
        }
        // The cache may be behind. What a write makes of an old state counts only if the store's transaction confirms it.
        let mut may_be_old = current.is_some();
        if !may_be_old {
            current = self.collection.read(&key).await?;
        }
        for _ in 0..CONFLICTS_MAX {
            let step = match &current {
                Some((kv, old)) => self.update_once(&key, kv, old, update).await,
                None => self.create_by_update(update).await,
            };
            let again = match step {
                Ok(Step::Done(updated)) if updated.written || !may_be_old => return Ok(updated),
                Ok(Step::Again(kv)) => kv,
                Err(status) if !may_be_old => return Err(status),
                Ok(Step::Done(_)) | Err(_) => None,
            };
            may_be_old = false;
            current = match again {
                Some(kv) => {
                    let tree = self.collection.decode(&kv.value, kv.mod_revision)?;
                    Some((kv, tree))
                }
                None => self.collection.read(&key).await?,
            };
            if self.caller.deadline.is_some_and(|d| d <= std::time::Instant::now()) {
                return Err(Status::timeout("request did not complete within requested timeout", 0));
            }
        }
        Err(Status::conflict(&self.target.served.group_resource(), &self.target.name, MODIFIED))
    }

    /// An update of what does not exist.
    async fn create_by_update(&self, update: &Update<'_>) -> Result<Step, Status> {
        let resource = self.target.served.group_resource();
        let name = &self.target.name;
        let may_create = self.collection.kind.strategy.allow_create_on_update() || update.force_create;
        // What is not there has no uid; asked first where it could be made, through a subresource, too.
        // upstream: storage/etcd3/store.go GuaranteedUpdate, its ignoreNotFound
        if let Some(uid) = update.uid.filter(|_| may_create) {
            return Err(self.failed_precondition("UID", uid, ""));
        }
        if !may_create || !self.target.subresource.is_empty() {
            return Err(Status::not_found(&resource, name));
        }
        let mut object = (update.change)(None)?;
        // Unlike a plain creation, an update minds what is no revision.
        revision_of(&object)?;
        ensure_namespace(&mut object, self.object_namespace())?;
        self.admit(Operation::Create, name, Some(&mut object), None).await?;
        dedup_owners(&mut object, &self.caller.warnings, true);
        self.may_create().await?;
        set_revision(&mut object, 0);
        match self.create_once(object).await {
            Ok(object) => Ok(Step::Done(Updated { object, created: true, written: true })),
            // Somebody else made it meanwhile: then this is an update.
            Err(status) if status.reason == copepod_meta::Reason::AlreadyExists && !self.dry_run => {
                Ok(Step::Again(None))
            }
            Err(status) => Err(status),
        }
    }

    async fn update_once(
        &self,
        key: &[u8],
        kv: &KeyValue,
        old: &Value,
        update: &Update<'_>,
    ) -> Result<Step, Status> {
        self.check_preconditions(kv, old, update)?;
        let mut object = (update.change)(Some(old))?;
        self.admit(Operation::Update, &self.target.name, Some(&mut object), Some(old)).await?;
        dedup_owners(&mut object, &self.caller.warnings, true);
        self.check_revision(&mut object, kv)?;
        let undo = self.collection.hooks.begin_update(self, &mut object, old).await?;
        let done = self.store_changed(key, kv, old, object).await;
        undo.finish(matches!(done, Ok(Step::Done(_)))).await;
        done
    }

    fn check_preconditions(&self, kv: &KeyValue, old: &Value, update: &Update<'_>) -> Result<(), Status> {
        let uid = old.str_at(&["metadata", "uid"]);
        if let Some(asked) = update.uid.filter(|asked| *asked != uid) {
            return Err(self.failed_precondition("UID", asked, uid));
        }
        let revision = kv.mod_revision.to_string();
        if let Some(asked) = update.revision.filter(|asked| *asked != revision) {
            return Err(self.failed_precondition("ResourceVersion", asked, &revision));
        }
        Ok(())
    }

    /// upstream: apiserver/pkg/storage/interfaces.go Preconditions.Check, as InterpretUpdateError shows it
    pub(crate) fn failed_precondition(&self, what: &str, asked: &str, found: &str) -> Status {
        let folder = self.collection.folder(self.object_namespace());
        let mut folder = String::from_utf8_lossy(&folder);
        // A dry run checks before the store puts its prefix in front. upstream: registry/generic/registry/dryrun.go
        if self.dry_run {
            folder = self.collection.without_prefix(&folder).to_string().into();
        }
        let key = format!("{folder}{}", self.target.name);
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: \
             Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}"
        );
        Status::conflict(&self.target.served.group_resource(), &self.target.name, &why)
    }

    /// The revision that the client saw must be the stored one; none is taken as "whatever it is" where the kind allows.
    fn check_revision(&self, object: &mut Value, kv: &KeyValue) -> Result<(), Status> {
        let resource = self.target.served.group_resource();
        let asked = revision_of(object)?;
        if asked == 0 {
            if !self.strategy.allow_unconditional_update() {
                let path = Path::new("metadata");
                let why = "must be specified for an update";
                let error = FieldError::invalid_int(&path.child("resourceVersion"), 0, why);
                return Err(Status::invalid(
                    &resource.group,
                    &resource.resource,
                    &self.target.name,
                    &vec![error],
                ));
            }
            set_revision(object, kv.mod_revision);
        } else if asked != kv.mod_revision {
            return Err(Status::conflict(&resource, &self.target.name, MODIFIED));
        }
        Ok(())
    }

    /// Prepares, validates and stores a changed object.
    async fn store_changed(
        &self,
        key: &[u8],
        kv: &KeyValue,
        old: &Value,
        mut object: Value,
    ) -> Result<Step, Status> {
        self.before_update(&mut object, old)?;
        managed::ignore_timestamps(&mut object, old);
        self.validate(Operation::Update, &self.target.name, Some(&mut object), Some(old)).await?;
        let is_last = finalizers(&object).is_empty()
            && is_deleting(old)
            && old.int_at(&["metadata", "deletionGracePeriodSeconds"]) == 0
            && self.collection.hooks.deletes_on_update(&object);
        if is_last {
            return self.delete_by_update(key, kv, object).await;
        }
        let bytes = self.collection.encode(&mut object)?;
        let done = |bytes, revision, written| {
            Ok(Step::Done(Updated { object: self.object(bytes, revision), created: false, written }))
        };
        if self.dry_run {
            let object = self.unstored(bytes, kv.mod_revision, &object)?;
            return Ok(Step::Done(Updated { object, created: false, written: false }));
        }
        if bytes == kv.value {
            return done(bytes, kv.mod_revision, false);
        }
        match self.put(key, kv.mod_revision, bytes.clone()).await? {
            TxnResult::Done { revision } => {
                self.collection.hooks.after_update(self, &object, old).await;
                done(bytes, revision, true)
            }
            TxnResult::Conflict { current: Some(current), .. } => Ok(Step::Again(Some(current))),
            // Deleted meanwhile.
            TxnResult::Conflict { current: None, .. } => Ok(Step::Again(None)),
        }
    }

    /// upstream: rest.BeforeUpdate
    fn before_update(&self, object: &mut Value, old: &Value) -> Result<(), Status> {
        ensure_namespace(object, self.object_namespace())?;
        let cx = self.context();
        common::reset_generation(object, old);
        self.strategy.prepare_update(&cx, object, old);
        common::prepare_update(object, old);
        let mut errors = ErrorList::new();
        let namespaced = self.collection.resource.namespaced;
        common::validate(object, namespaced, &common::path_segment_name, &mut errors);
        common::validate_update(object, old, &mut errors);
        self.strategy.validate_update(&cx, object, old, &mut errors);
        self.refuse(object, errors)?;
        self.warn(self.strategy.warnings(&cx, object, Some(old)));
        self.strategy.canonicalize(object);
        Ok(())
    }

    /// The last finalizer went with this update: so does the object. upstream: deleteWithoutFinalizers
    async fn delete_by_update(&self, key: &[u8], kv: &KeyValue, mut object: Value) -> Result<Step, Status> {
        let bytes = self.collection.encode(&mut object)?;
        if !self.dry_run {
            let deleted = self.remove(key, kv.mod_revision).await?;
            if let TxnResult::Conflict { current: Some(current), .. } = deleted {
                return Ok(Step::Again(Some(current)));
            }
            self.collection.hooks.after_delete(self, &object).await;
        }
        // Clients of a PUT expect the object that they put.
        Ok(Step::Done(Updated {
            object: self.object(bytes, kv.mod_revision),
            created: false,
            written: !self.dry_run,
        }))
    }

    /// Changes the stored object as it is: no admission, no strategy. For subresources that set single fields.
    pub(crate) async fn mutate(&self, update: &Update<'_>) -> Result<Object, Status> {
        let resource = &self.collection.group_resource;
        let key = self.collection.key(self.object_namespace(), &self.target.name)?;
        for _ in 0..CONFLICTS_MAX {
            let Some((kv, old)) = self.collection.read(&key).await? else {
                return Err(Status::not_found(resource, &self.target.name));
            };
            self.check_preconditions(&kv, &old, update)?;
            let bytes = self.collection.encode(&mut (update.change)(Some(&old))?)?;
            if bytes == kv.value || self.dry_run {
                return Ok(self.object(bytes, kv.mod_revision));
            }
            if let TxnResult::Done { revision } = self.put(&key, kv.mod_revision, bytes.clone()).await? {
                return Ok(self.object(bytes, revision));
            }
        }
        Err(Status::conflict(resource, &self.target.name, MODIFIED))
    }

    /// Writes a key, and finds out what became of a write whose answer was lost.
    pub(crate) async fn put(&self, key: &[u8], expect: u64, value: Bytes) -> Result<TxnResult, Status> {
        let resource = &self.collection.group_resource;
        let verb = if expect == 0 { "create" } else { "update" };
        let op = Op::Put { value: value.clone(), ttl_seconds: self.collection.ttl_seconds };
        match self.collection.store.txn(key, expect, op).await {
            Err(StoreError::UnknownOutcome(why)) => {
                let got =
                    self.collection.store.get(key).await.map_err(|e| errors::store(e, resource, verb))?;
                match got.kv {
                    // Uids and timestamps make an equal value by somebody else all but impossible.
                    Some(kv) if kv.mod_revision > expect && kv.value == value => {
                        Ok(TxnResult::Done { revision: kv.mod_revision })
                    }
                    _ => Err(errors::store(StoreError::UnknownOutcome(why), resource, verb)),
                }
            }
            answer => answer.map_err(|e| errors::store(e, resource, verb)),
        }
    }

    /// Removes a key.
    pub(crate) async fn remove(&self, key: &[u8], expect: u64) -> Result<TxnResult, Status> {
        let answer = self.collection.store.txn(key, expect, Op::Delete).await;
        answer.map_err(|e| errors::store(e, &self.collection.group_resource, "delete"))
    }
}

/// Where one attempt of an update has led.
enum Step {
    /// To the end.
    Done(Updated),
    /// Somebody was faster: again, from this state if it is known.
    Again(Option<KeyValue>),
}
