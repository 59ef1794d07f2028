//! Who asks, for what, and the traits through which the floors that decide (access, admission) are reached.

use crate::{GroupResource, Gvk, Gvr, ResourceVersion, Status, Value};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A boxed future: what the object-safe traits below return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An authenticated user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `system:admin`, `system:serviceaccount:ns:name`, ...
    pub name: String,
    /// Unique over time, if the authenticator knows one.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Anything else, sorted by key.
    pub extra: Vec<(String, Vec<String>)>,
}

impl User {
    /// Whether the user is in `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node whose kubelet this is, "" for a node user without a name; `None` for everybody else.
    /// upstream: pkg/auth/nodeidentifier/default.go
    pub fn node(&self) -> Option<&str> {
        let name = self.name.strip_prefix("system:node:")?;
        self.in_group("system:nodes").then_some(name)
    }
}

/// What an authorizer decides on. upstream: apiserver/pkg/authorization/authorizer/interfaces.go Attributes
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Who.
    pub user: Arc<User>,
    /// `get`, `list`, `watch`, `create`, ...; the lower-case HTTP method for non-resource requests.
    pub verb: String,
    /// Namespace, "" for cluster scope or all.
    pub namespace: String,
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural resource.
    pub resource: String,
    /// Subresource, "" for none.
    pub subresource: String,
    /// Object name, "" for collections.
    pub name: String,
    /// Whether this is about a resource; otherwise only `path` counts.
    pub is_resource: bool,
    /// URL path.
    pub path: String,
    /// The field selector of a list, watch or deletecollection, as sent (for the Node authorizer).
    pub field_selector: String,
    /// The label selector, as sent.
    pub label_selector: String,
}

/// An authorizer's word. `NoOpinion` asks the next one; when nobody allows, the request is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow {
        /// Why, for the audit log and access reviews.
        reason: String,
    },
    /// No, and nobody else is asked.
    Deny {
        /// Why.
        reason: String,
    },
    /// Not mine to say.
    NoOpinion {
        /// What was missing.
        reason: String,
    },
}

/// Decides whether a request may go on. `Err` means that it could not decide: treat as a denial with a 500.
pub trait Authorizer: Send + Sync {
    /// Decides.
    fn authorize<'a>(&'a self, attributes: &'a Attributes) -> BoxFuture<'a, Result<Decision, Status>>;
    /// The rules that apply to a user in a namespace (SelfSubjectRulesReview): `ResourceRule` and `NonResourceRule`
    /// trees, and whether the answer is incomplete.
    fn rules_for<'a>(&'a self, user: &'a User, namespace: &'a str)
    -> BoxFuture<'a, Result<RulesFor, Status>>;
}

/// What an authorizer can say of a user's rules.
#[derive(Clone, Debug, Default)]
pub struct RulesFor {
    /// `authorization.k8s.io/v1 ResourceRule` trees.
    pub resource_rules: Vec<Value>,
    /// `authorization.k8s.io/v1 NonResourceRule` trees.
    pub non_resource_rules: Vec<Value>,
    /// An authorizer in the chain cannot list its rules.
    pub incomplete: bool,
    /// Why.
    pub evaluation_error: String,
}

/// An object read from the cache: its tree in the kind's hub version, shared.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The object.
    pub object: Arc<Value>,
    /// Its resourceVersion.
    pub revision: ResourceVersion,
}

/// Reads for the floors that must not know the store. Served from the watch cache, as fresh as it is.
/// Trees are decoded when first asked for at a revision; a reader that asks often keeps what it derived and compares
/// [`Lister::changed`].
pub trait Lister: Send + Sync {
    /// One object; `None` when it does not exist.
    fn get<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Listed>, Status>>;
    /// One object, read at the store's newest revision: for decisions that a stale read would make wrong.
    fn get_consistent<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Listed>, Status>>;
    /// All objects of a resource, or of one namespace ("" = all).
    fn list<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Listed>, Status>>;
    /// All objects of a resource in which the field at the dotted path has this value, e.g. the pods of a node.
    /// An implementation with an index on the field overrides this walk over everything.
    fn list_by_field<'a>(
        &'a self,
        resource: &'a GroupResource,
        field: &'a str,
        value: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Listed>, Status>> {
        Box::pin(async move {
            let path: Vec<&str> = field.split('.').collect();
            let all = self.list(resource, "").await?;
            Ok(all.into_iter().filter(|o| o.object.str_at(&path) == value).collect())
        })
    }
    /// A number that grows whenever any object of the resource changed: the cache's newest revision for it.
    fn changed(&self, resource: &GroupResource) -> u64;
}

/// Writes for admission (resource quota) and bootstrap: like a client with all rights, in hub trees.
pub trait Writer: Send + Sync {
    /// Creates; 409 if it exists.
    fn create<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, Status>>;
    /// Replaces the object (`subresource` "" or e.g. "status"); optimistic by its resourceVersion.
    fn update<'a>(
        &'a self,
        resource: &'a GroupResource,
        subresource: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, Status>>;
}

/// What a request does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// create
    Create,
    /// update, patch, apply
    Update,
    /// delete, deletecollection (per object)
    Delete,
    /// exec, attach, portforward, proxy
    Connect,
}

impl Operation {
    /// The wire's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// What admission sees of a write. Trees are in the kind's hub version.
/// upstream: apiserver/pkg/admission/interfaces.go Attributes
#[derive(Debug)]
pub struct AdmissionRequest<'a> {
    /// The operation.
    pub operation: Operation,
    /// Kind of the object in the request (its own for subresources: `Scale`, `Binding`).
    pub kind: &'a Gvk,
    /// Resource of the request.
    pub resource: &'a Gvr,
    /// Subresource, "" for none.
    pub subresource: &'a str,
    /// Namespace, "" for cluster scope.
    pub namespace: &'a str,
    /// Name; "" on create with generateName.
    pub name: &'a str,
    /// Who.
    pub user: &'a User,
    /// The object to be written (absent on delete); `admit` may change it.
    pub object: Option<&'a mut Value>,
    /// The stored object (absent on create).
    pub old_object: Option<&'a Value>,
    /// CreateOptions, UpdateOptions, DeleteOptions ... as a tree.
    pub options: &'a Value,
    /// Nothing may be persisted, no side effects.
    pub dry_run: bool,
    /// Warnings for the client.
    pub warnings: &'a mut Vec<String>,
}

/// One admission plugin, or the whole ordered chain.
pub trait Admission: Send + Sync {
    /// Whether the plugin wants this operation; asked before `admit` and `validate`.
    fn handles(&self, operation: Operation) -> bool;
    /// May change the object or refuse.
    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>>;
    /// May refuse.
    fn validate<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>>;
}
