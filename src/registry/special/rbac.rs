//! Roles and bindings: nobody grants what they do not hold.
//!
//! upstream: pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased/storage.go, escalation_check.go

use copepod_meta::field::quote;
use copepod_meta::{Attributes, BoxFuture, Decision, GroupResource, Map, Status, Value};

use super::{Hooks, RBAC, Taken};
use crate::call::Call;

/// Members of this group are the server itself. upstream: user.SystemPrivilegedGroup
const MASTERS: &str = "system:masters";

/// Role, ClusterRole.
pub(super) struct Role {
    pub(super) all_namespaces: bool,
}

/// RoleBinding, ClusterRoleBinding.
pub(super) struct Binding {
    pub(super) all_namespaces: bool,
}

impl Hooks for Role {
    fn begin_create<'a>(
        &'a self,
        call: &'a Call<'_>,
        object: &'a mut Value,
    ) -> BoxFuture<'a, Result<Taken, Status>> {
        Box::pin(async move { self.check(call, object, None).await.map(|()| Taken::default()) })
    }
    fn begin_update<'a>(
        &'a self,
        call: &'a Call<'_>,
        object: &'a mut Value,
        old: &'a Value,
    ) -> BoxFuture<'a, Result<Taken, Status>> {
        Box::pin(async move { self.check(call, object, Some(old)).await.map(|()| Taken::default()) })
    }
}

impl Hooks for Binding {
    fn begin_create<'a>(
        &'a self,
        call: &'a Call<'_>,
        object: &'a mut Value,
    ) -> BoxFuture<'a, Result<Taken, Status>> {
        Box::pin(async move { self.check(call, object, None).await.map(|()| Taken::default()) })
    }
    fn begin_update<'a>(
        &'a self,
        call: &'a Call<'_>,
        object: &'a mut Value,
        old: &'a Value,
    ) -> BoxFuture<'a, Result<Taken, Status>> {
        Box::pin(async move { self.check(call, object, Some(old)).await.map(|()| Taken::default()) })
    }
}

impl Role {
    async fn check(&self, call: &Call<'_>, object: &Value, old: Option<&Value>) -> Result<(), Status> {
        if is_privileged(call) || old.is_some_and(|old| changes_only_gc_fields(object, old)) {
            return Ok(());
        }
        let name = object.str_at(&["metadata", "name"]);
        if may(call, "escalate", &call.resource.resource, &call.target.namespace, &call.target.name).await? {
            return Ok(());
        }
        let namespace = if self.all_namespaces { "" } else { call.target.namespace.as_str() };
        confirm(call, namespace, name, object.list_at(&["rules"])).await?;
        let aggregates = |v: &Value| !v.list_at(&["aggregationRule", "clusterRoleSelectors"]).is_empty();
        if aggregates(object) || old.is_some_and(aggregates) {
            let all = full_authority();
            if !missing(call, namespace, &all).await?.is_empty() {
                let why = "must have cluster-admin privileges to use the aggregationRule";
                return Err(Status::forbidden(&call.target.served.group_resource(), name, why));
            }
        }
        Ok(())
    }
}

impl Binding {
    async fn check(&self, call: &Call<'_>, object: &Value, old: Option<&Value>) -> Result<(), Status> {
        if is_privileged(call) || old.is_some_and(|old| changes_only_gc_fields(object, old)) {
            return Ok(());
        }
        let namespace = if self.all_namespaces { "" } else { call.target.namespace.as_str() };
        let role = object.get("roleRef");
        let (kind, role_name) = (role.str_at(&["kind"]), role.str_at(&["name"]));
        let plural = match kind {
            "Role" => "roles",
            "ClusterRole" => "clusterroles",
            // Validation has the word on kinds that do not exist; nothing is granted by them.
            _ => return Ok(()),
        };
        if may(call, "bind", plural, namespace, role_name).await? {
            return Ok(());
        }
        let resource = GroupResource::new(RBAC, plural);
        let at = if plural == "roles" { namespace } else { "" };
        let found = call.registry.read_hub(&resource, at, role_name).await?;
        let role = found.ok_or_else(|| Status::not_found(&resource, role_name))?;
        let name = object.str_at(&["metadata", "name"]);
        confirm(call, namespace, name, role.object.list_at(&["rules"])).await
    }
}

/// upstream: EscalationAllowed
fn is_privileged(call: &Call<'_>) -> bool {
    call.internal || call.caller.user.in_group(MASTERS)
}

/// upstream: RoleEscalationAuthorized, BindingAuthorized
async fn may(call: &Call<'_>, verb: &str, plural: &str, namespace: &str, name: &str) -> Result<bool, Status> {
    let attributes = Attributes {
        user: call.caller.user.clone(),
        verb: verb.into(),
        group: RBAC.into(),
        version: "*".into(),
        resource: plural.into(),
        name: name.into(),
        namespace: namespace.into(),
        is_resource: true,
        ..Attributes::default()
    };
    let decision = call.registry.deciders().authorizer.authorize(&attributes).await?;
    Ok(matches!(decision, Decision::Allow { .. }))
}

async fn missing(call: &Call<'_>, namespace: &str, rules: &[Value]) -> Result<Vec<String>, Status> {
    call.registry.deciders().rules.missing(&call.caller.user, namespace, rules).await
}

/// upstream: ConfirmNoEscalation
async fn confirm(call: &Call<'_>, namespace: &str, name: &str, rules: &[Value]) -> Result<(), Status> {
    let missing = missing(call, namespace, rules).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let user = &call.caller.user;
    let groups: Vec<String> = user.groups.iter().map(|g| quote(g)).collect();
    let why = format!(
        "user {} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        quote(&user.name),
        groups.join(" "),
        missing.join("\n")
    );
    Err(Status::forbidden(&call.target.served.group_resource(), name, &why))
}

/// `*` on everything.
fn full_authority() -> [Value; 2] {
    let all = || Value::List(vec![Value::string("*")]);
    let resources = Map::from_iter([("verbs", all()), ("apiGroups", all()), ("resources", all())]);
    let urls = Map::from_iter([("verbs", all()), ("nonResourceURLs", all())]);
    [resources.into(), urls.into()]
}

/// The garbage collector may always do its work. upstream: IsOnlyMutatingGCFields
fn changes_only_gc_fields(object: &Value, old: &Value) -> bool {
    let mut copy = object.clone();
    for member in ["ownerReferences", "finalizers", "selfLink", "managedFields"] {
        match old.at(&["metadata", member]) {
            Value::Null => {
                copy.remove(&["metadata", member]);
            }
            kept => copy.set(&["metadata", member], kept.clone()),
        }
    }
    copepod_kinds::equality::same(&copy, old)
}
