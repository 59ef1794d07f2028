//! Deletion: graceful, held up by finalizers, or at once.
//!
//! What is to happen to an object is decided by [`plan`], which only looks; the rest of this file does it, again after each
//! conflict.
//!
//! upstream: apiserver/pkg/registry/generic/registry/store.go Delete, updateForGracefulDeletionAndFinalizers;
//! apiserver/pkg/registry/rest/delete.go BeforeDelete

use copepod_kinds::Graceful;
use copepod_meta::{Details, GroupResource, Operation, Reason, Status, Value, time};
use copepod_store::{KeyValue, TxnResult};

use crate::api::{Content, DeleteOptions, Object};
use crate::call::Call;
use crate::metadata::{FOREGROUND, ORPHAN, finalizers, is_deleting, set_finalizers};

/// How often a deletion starts anew because the object changed meanwhile.
const CONFLICTS_MAX: usize = 256;

const GRACE: [&str; 2] = ["metadata", "deletionGracePeriodSeconds"];
const TIMESTAMP: [&str; 2] = ["metadata", "deletionTimestamp"];
const GENERATION: [&str; 2] = ["metadata", "generation"];

/// What a deletion does to an object.
#[derive(Debug)]
pub(crate) enum Plan {
    /// It is being deleted already, and not slower than asked.
    Nothing,
    /// It goes.
    Remove,
    /// It is marked; and then it goes, if `remove`.
    Mark {
        /// The marked object.
        object: Box<Value>,
        /// Nobody has to be waited for.
        remove: bool,
    },
}

/// What a deletion did.
pub(crate) struct Deleted {
    pub(crate) content: Content,
    /// The object is gone.
    pub(crate) gone: bool,
}

/// Decides on one object. upstream: rest.BeforeDelete and what follows it
pub(crate) fn plan(call: &Call, old: &Value, options: &DeleteOptions) -> Result<Plan, Status> {
    check_preconditions(call, old, options)?;
    call.strategy.check_delete(&call.context(), old)?;
    // Negative periods mean one second.
    let asked = options.grace_period_seconds.map(|s| if s < 0 { 1 } else { s });
    let mut object = old.clone();
    let graceful = if is_deleting(old) {
        match shorten(&mut object, asked) {
            Shortened::NotGraceful => None,
            Shortened::NotShorter => return Ok(Plan::Nothing),
            Shortened::To(seconds) => Some(seconds),
        }
    } else {
        match call.strategy.graceful_delete(old, asked) {
            Graceful::Immediate => None,
            Graceful::After(seconds) => {
                let at = time::plus_seconds(time::now(), seconds);
                object.set(&TIMESTAMP, time::rfc3339(at));
                object.set(&GRACE, seconds);
                bump_generation(&mut object);
                Some(seconds)
            }
        }
    };
    if call.collection.hooks.is_garbage_collected() {
        let wanted = finalizers_for(call, old, options);
        if !same_set(&wanted, &finalizers(old)) {
            set_finalizers(&mut object, &wanted);
        }
    }
    let pending = !finalizers(&object).is_empty();
    Ok(match graceful {
        None if pending => {
            mark(&mut object);
            Plan::Mark { object: Box::new(object), remove: false }
        }
        None => Plan::Remove,
        Some(seconds) => Plan::Mark { object: Box::new(object), remove: !pending && seconds <= 0 },
    })
}

/// upstream: BeforeDelete; the kind stands where the resource should
fn check_preconditions(call: &Call, old: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let gvk = call.collection.gvk();
    let kind = GroupResource::new(&gvk.group, &gvk.kind);
    let name = old.str_at(&["metadata", "name"]);
    let uid = old.str_at(&["metadata", "uid"]);
    if let Some(asked) = options.preconditions.uid.as_deref().filter(|asked| *asked != uid) {
        let why = format!(
            "the UID in the precondition ({asked}) does not match the UID in record ({uid}). The object might have \
             been deleted and then recreated"
        );
        return Err(Status::conflict(&kind, name, &why));
    }
    let version = old.str_at(&["metadata", "resourceVersion"]);
    if let Some(asked) = options.preconditions.resource_version.as_deref().filter(|asked| *asked != version) {
        let why = format!(
            "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record \
             ({version}). The object might have been modified"
        );
        return Err(Status::conflict(&kind, name, &why));
    }
    Ok(())
}

enum Shortened {
    NotGraceful,
    NotShorter,
    To(i64),
}

/// A grace period that runs already may only become shorter.
fn shorten(object: &mut Value, asked: Option<i64>) -> Shortened {
    let running = match object.int_at(&GRACE) {
        0 => return Shortened::NotGraceful,
        negative if negative < 0 => 1,
        seconds => seconds,
    };
    let Some(asked) = asked.filter(|asked| *asked < running) else { return Shortened::NotShorter };
    let now = time::now();
    let since = time::parse(object.str_at(&TIMESTAMP)).unwrap_or(now);
    let mut end = time::plus_seconds(since, asked - running);
    let mut period = asked;
    if end < now {
        end = now;
        // Somebody else still has to see that this was graceful.
        period = if asked == 0 { 0 } else { 1 };
    }
    object.set(&TIMESTAMP, time::rfc3339(end));
    object.set(&GRACE, period);
    Shortened::To(asked)
}

/// upstream: markAsDeleting
fn mark(object: &mut Value) {
    let now = time::now();
    if !is_deleting(object) {
        bump_generation(object);
    }
    let later = time::parse(object.str_at(&TIMESTAMP)).is_none_or(|at| at > now);
    if later {
        object.set(&TIMESTAMP, time::rfc3339(now));
    }
    object.set(&GRACE, 0);
}

fn bump_generation(object: &mut Value) {
    let generation = object.int_at(&GENERATION);
    if generation > 0 {
        object.set(&GENERATION, generation + 1);
    }
}

/// The finalizers that the garbage collector is to find. upstream: deletionFinalizersForGarbageCollection
fn finalizers_for(call: &Call, old: &Value, options: &DeleteOptions) -> Vec<String> {
    let own = finalizers(old);
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation_policy.as_deref()) {
        (Some(orphan), _) => (orphan, false),
        (None, Some("Orphan")) => (true, false),
        (None, Some("Foreground")) => (false, true),
        (None, Some("Background")) => (false, false),
        _ => match own.iter().find(|f| matches!(**f, ORPHAN | FOREGROUND)) {
            Some(&ORPHAN) => (true, false),
            Some(_) => (false, true),
            None => {
                let default = call.strategy.default_propagation();
                (default == copepod_kinds::DefaultPropagation::Orphan, false)
            }
        },
    };
    let mut wanted: Vec<String> =
        own.iter().filter(|f| !matches!(**f, ORPHAN | FOREGROUND)).map(ToString::to_string).collect();
    if orphan {
        wanted.push(ORPHAN.into());
    }
    if foreground {
        wanted.push(FOREGROUND.into());
    }
    wanted
}

fn same_set(a: &[String], b: &[&str]) -> bool {
    a.iter().all(|x| b.contains(&x.as_str())) && b.iter().all(|x| a.iter().any(|y| y == x))
}

impl Call<'_> {
    /// Deletes the object of the target. `admission_name` is the name that admission hears ("" for deletecollection).
    pub(crate) async fn delete(
        &self,
        options: &DeleteOptions,
        admission_name: &str,
    ) -> Result<Deleted, Status> {
        let key = self.collection.key(self.object_namespace(), &self.target.name)?;
        let resource = self.target.served.group_resource();
        let mut options = options.clone();
        for _ in 0..CONFLICTS_MAX {
            let Some((kv, old)) = self.collection.read(&key).await? else {
                return Err(Status::not_found(&resource, &self.target.name));
            };
            let plan = self.collection.hooks.plan_delete(self, &old, &options)?;
            if !matches!(plan, Plan::Nothing) {
                self.ask_delete(admission_name, &old).await?;
            }
            match self.carry_out(&key, kv, old, plan, &mut options).await? {
                Some(deleted) => return Ok(deleted),
                None => continue,
            }
        }
        Err(Status::conflict(&resource, &self.target.name, crate::errors::MODIFIED))
    }

    async fn ask_delete(&self, name: &str, old: &Value) -> Result<(), Status> {
        self.admit(Operation::Delete, name, None, Some(old)).await?;
        self.validate(Operation::Delete, name, None, Some(old)).await
    }

    /// `None`: somebody was faster.
    async fn carry_out(
        &self,
        key: &[u8],
        kv: KeyValue,
        old: Value,
        plan: Plan,
        options: &mut DeleteOptions,
    ) -> Result<Option<Deleted>, Status> {
        let object =
            |bytes, revision| Object::of_bytes(&self.target.served, self.collection, bytes, revision);
        match plan {
            Plan::Nothing => {
                let content = self.finished(&old, object(kv.value, kv.mod_revision));
                Ok(Some(Deleted { content, gone: false }))
            }
            Plan::Remove => self.take_away(key, kv, old).await,
            Plan::Mark { object: mut marked, remove } => {
                let bytes = self.collection.encode(&mut marked)?;
                let mut revision = kv.mod_revision;
                if !self.dry_run && bytes != kv.value {
                    match self.put(key, kv.mod_revision, bytes.clone()).await? {
                        TxnResult::Done { revision: now } => revision = now,
                        TxnResult::Conflict { .. } => return Ok(None),
                    }
                }
                if !remove || self.dry_run {
                    let content = Content::Stored(object(bytes, revision));
                    return Ok(Some(Deleted { content, gone: remove }));
                }
                let kv = KeyValue { value: bytes.clone(), mod_revision: revision, ..kv };
                if options.preconditions.resource_version.is_some() {
                    // It was us who changed the object.
                    options.preconditions.resource_version = Some(revision.to_string());
                }
                let status = self.take_away(key, kv, *marked).await;
                match status {
                    // Another part of the cluster has finished the deletion that it saw: fine. The answer is what was marked.
                    Err(status) if status.reason == Reason::NotFound => {
                        let content = self.finished(&old, object(bytes, revision));
                        Ok(Some(Deleted { content, gone: true }))
                    }
                    done => done,
                }
            }
        }
    }

    /// Removes the key; `None`: the object was changed meanwhile.
    async fn take_away(&self, key: &[u8], kv: KeyValue, old: Value) -> Result<Option<Deleted>, Status> {
        let mut revision = kv.mod_revision;
        if !self.dry_run {
            match self.remove(key, kv.mod_revision).await? {
                TxnResult::Done { revision: now } => revision = now,
                TxnResult::Conflict { current: Some(_), .. } => return Ok(None),
                TxnResult::Conflict { current: None, .. } => {
                    return Err(Status::not_found(&self.target.served.group_resource(), &self.target.name));
                }
            }
            self.collection.hooks.after_delete(self, &old).await;
        }
        let object = Object::of_bytes(&self.target.served, self.collection, kv.value, revision);
        Ok(Some(Deleted { content: self.finished(&old, object), gone: true }))
    }

    /// The object, for the kinds that answer it; else who it was. upstream: finalizeDelete
    fn finished(&self, old: &Value, object: Object) -> Content {
        if self.collection.returns_deleted {
            return Content::Stored(object);
        }
        let resource = self.target.served.group_resource();
        let mut status = Status::new(0, Reason::Unknown, "");
        status.details = Some(Box::new(Details {
            name: old.str_at(&["metadata", "name"]).into(),
            group: resource.group,
            kind: resource.resource,
            uid: old.str_at(&["metadata", "uid"]).into(),
            ..Details::default()
        }));
        Content::Status(status)
    }
}
