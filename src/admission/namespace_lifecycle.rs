//! Nothing is made in a namespace that does not exist or is going away; three namespaces stay.
//!
//! upstream: apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go. Where upstream waits 50 ms for its cache, the
//! namespace is read at the store's newest revision at once.

use crate::helpers::{forbidden, is};
use copepod_meta::{
    Admission, AdmissionRequest, BoxFuture, Cause, GroupResource, Listed, Lister, Operation, Status,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// So long after a namespace's deletion the cache is not believed when it says that it is active.
const LIVE_LOOKUP_TTL: Duration = Duration::from_secs(30);
/// Deletions of more namespaces than this within the time above make the oldest be believed again.
const LIVE_LOOKUPS_MAX: usize = 100;

pub struct NamespaceLifecycle {
    lister: Arc<dyn Lister>,
    deleted: Mutex<HashMap<String, Instant>>,
}

impl NamespaceLifecycle {
    pub fn new(lister: Arc<dyn Lister>) -> NamespaceLifecycle {
        NamespaceLifecycle { lister, deleted: Mutex::default() }
    }

    fn remember_deletion(&self, name: &str) {
        let now = Instant::now();
        let mut deleted = self.deleted.lock();
        deleted.retain(|_, at| now.duration_since(*at) < LIVE_LOOKUP_TTL);
        if deleted.len() >= LIVE_LOOKUPS_MAX {
            let oldest = deleted.iter().min_by_key(|(_, at)| **at).map(|(name, _)| name.clone());
            oldest.and_then(|name| deleted.remove(&name));
        }
        deleted.insert(name.into(), now);
    }

    fn just_deleted(&self, name: &str) -> bool {
        self.deleted.lock().get(name).is_some_and(|at| at.elapsed() < LIVE_LOOKUP_TTL)
    }

    async fn namespace(&self, name: &str) -> Result<Listed, Status> {
        let namespaces = GroupResource::new("", "namespaces");
        if let Some(found) = self.lister.get(&namespaces, "", name).await?
            && !(self.just_deleted(name) && found.object.str_at(&["status", "phase"]) == "Active")
        {
            return Ok(found);
        }
        let live = self.lister.get_consistent(&namespaces, "", name).await?;
        live.ok_or_else(|| Status::not_found(&namespaces, name))
    }
}

impl Admission for NamespaceLifecycle {
    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let of_namespace = request.kind.group.is_empty() && request.kind.kind == "Namespace";
            if of_namespace {
                if request.operation == Operation::Delete {
                    if IMMORTAL.contains(&request.name) {
                        return Err(forbidden(request, "this namespace may not be deleted"));
                    }
                    self.remember_deletion(request.name);
                }
                return Ok(());
            }
            // Whether a namespace exists is none of the business of somebody who asks about access.
            let review = is(request, "authorization.k8s.io", "localsubjectaccessreviews");
            if request.namespace.is_empty() || request.operation == Operation::Delete || review {
                return Ok(());
            }
            let namespace = self.namespace(request.namespace).await?;
            if request.operation == Operation::Create
                && namespace.object.str_at(&["status", "phase"]) == "Terminating"
            {
                let name = request.namespace;
                let why = format!(
                    "unable to create new content in namespace {name} because it is being terminated"
                );
                let mut status = forbidden(request, why);
                status.details.get_or_insert_default().causes.push(Cause {
                    reason: "NamespaceTerminating".into(),
                    message: format!("namespace {name} is being terminated"),
                    field: "metadata.namespace".into(),
                });
                return Err(status);
            }
            Ok(())
        })
    }

    fn validate<'a>(&'a self, _request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async { Ok(()) })
    }
}
