//! What becomes of a start-up object that exists already.

use copepod_meta::{GroupResource, Map, Reason, Status, Value, time};

use super::Access;

/// How an object is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Made once.
    Create,
    /// Rights that it lacks are added. upstream: component-helpers/auth/rbac/reconciliation/reconcile_role.go
    Role,
    /// Subjects that it lacks are added. upstream: reconcile_rolebindings.go
    Binding,
    /// `spec` is set back as long as the annotation says so. upstream: flowcontrol/ensurer/strategy.go
    AutoUpdate,
    /// Made with a status that says that it is served here.
    ApiService,
}

/// `"false"` on an RBAC object: hands off.
const RBAC_AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// `"true"` on an object of flow control: set back.
const FLOW_AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

impl Policy {
    /// Creates `wanted` or brings what is there to where it has to be.
    pub async fn reconcile(
        self,
        access: &Access,
        resource: &GroupResource,
        wanted: Value,
    ) -> Result<(), Status> {
        let metadata = wanted.get("metadata");
        let (namespace, name) = (metadata.str_at(&["namespace"]), metadata.str_at(&["name"]));
        let Some(existing) = access.lister.get(resource, namespace, name).await? else {
            return self.create(access, resource, namespace, &wanted).await;
        };
        let Some(changed) = self.change(&existing.object, &wanted) else { return Ok(()) };
        match access.writer.update(resource, "", changed).await {
            // Another server of the same cluster was faster; the next start looks again.
            Err(status) if status.reason == Reason::Conflict => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn create(
        self,
        access: &Access,
        resource: &GroupResource,
        namespace: &str,
        wanted: &Value,
    ) -> Result<(), Status> {
        let mut made = match access.writer.create(resource, namespace, wanted.clone()).await {
            Err(status) if status.reason == Reason::AlreadyExists => return Ok(()),
            other => other?,
        };
        if self == Policy::ApiService {
            made.set(&["status", "conditions"], vec![available()]);
            access.writer.update(resource, "status", made).await?;
        }
        Ok(())
    }

    /// The object as it has to be, if it is not so.
    fn change(self, existing: &Value, wanted: &Value) -> Option<Value> {
        let changed = match self {
            Policy::Create | Policy::ApiService => return None,
            Policy::Role => role(existing, wanted)?,
            Policy::Binding => binding(existing, wanted)?,
            Policy::AutoUpdate => {
                if existing.str_at(&["metadata", "annotations", FLOW_AUTO_UPDATE]) != "true" {
                    return None;
                }
                let mut out = existing.clone();
                out.set(&["spec"], merged(existing.get("spec"), wanted.get("spec")));
                out
            }
        };
        (changed != *existing).then_some(changed)
    }
}

fn is_protected(existing: &Value) -> bool {
    existing.str_at(&["metadata", "annotations", RBAC_AUTO_UPDATE]) == "false"
}

fn role(existing: &Value, wanted: &Value) -> Option<Value> {
    if is_protected(existing) {
        return None;
    }
    let mut out = with_metadata(existing, wanted);
    if wanted.get("aggregationRule").is_null() {
        let missing = copepod_access::rbac::uncovered(&rules(existing), &rules(wanted));
        if !missing.is_empty() {
            // Whole rules as they are written down, not the atoms that are missing.
            let lacking = wanted.list_at(&["rules"]).iter().filter(|rule| {
                let rule = copepod_access::rbac::Rule::from_value(rule);
                !copepod_access::rbac::uncovered(&rules(existing), &[rule]).is_empty()
            });
            let all: Vec<Value> = existing.list_at(&["rules"]).iter().chain(lacking).cloned().collect();
            out.set(&["rules"], all);
        }
    } else {
        out.set(&["aggregationRule"], wanted.get("aggregationRule").clone());
    }
    Some(out)
}

fn rules(role: &Value) -> Vec<copepod_access::rbac::Rule> {
    role.list_at(&["rules"]).iter().map(copepod_access::rbac::Rule::from_value).collect()
}

fn binding(existing: &Value, wanted: &Value) -> Option<Value> {
    // Another role under the same name is the user's own work: upstream replaces it, which would take rights away silently.
    if is_protected(existing) || existing.get("roleRef") != wanted.get("roleRef") {
        return None;
    }
    let mut out = with_metadata(existing, wanted);
    let has = existing.list_at(&["subjects"]);
    let missing = wanted.list_at(&["subjects"]).iter().filter(|s| !has.contains(s));
    let all: Vec<Value> = has.iter().chain(missing).cloned().collect();
    if all.len() > has.len() {
        out.set(&["subjects"], all);
    }
    Some(out)
}

/// `existing` with the labels and annotations of `wanted`.
fn with_metadata(existing: &Value, wanted: &Value) -> Value {
    let mut out = existing.clone();
    for kind in ["labels", "annotations"] {
        let add = wanted.map_at(&["metadata", kind]);
        if add.is_empty() {
            continue;
        }
        for (key, value) in add.iter() {
            // What a user set stays.
            if existing.map_at(&["metadata", kind]).get(key).is_none() {
                out.set(&["metadata", kind, key], value.clone());
            }
        }
    }
    out
}

/// `wanted` with the members that only the server's defaults have given `existing`.
fn merged(existing: &Value, wanted: &Value) -> Value {
    match (existing, wanted) {
        (Value::Map(old), Value::Map(new)) => {
            let mut out = Map::default();
            for (key, value) in new.iter() {
                out.insert(key, merged(old.get(key).unwrap_or(&Value::Null), value));
            }
            for (key, value) in old.iter().filter(|(key, _)| new.get(key).is_none()) {
                out.insert(key, value.clone());
            }
            Value::Map(out)
        }
        _ => wanted.clone(),
    }
}

/// upstream: kube-aggregator/pkg/apis/apiregistration/v1/helper NewLocalAvailableAPIServiceCondition
fn available() -> Value {
    let mut condition = Value::map();
    for (key, value) in [
        ("type", "Available"),
        ("status", "True"),
        ("reason", "Local"),
        ("message", "Local APIServices are always available"),
    ] {
        condition.set(&[key], value);
    }
    condition.set(&["lastTransitionTime"], time::rfc3339(time::now()));
    condition
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const ROLE: &str = r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"r","annotations":{"rbac.authorization.kubernetes.io/autoupdate":"true"}},"rules":[{"verbs":["get","list"],"apiGroups":[""],"resources":["pods"]}]}"#;

    #[test]
    fn roles_get_what_they_lack_and_keep_what_they_have() {
        let wanted = parse(ROLE).expect("role");
        let with = |rules: &str, annotation: &str| {
            let text = ROLE
                .replace(r#"{"verbs":["get","list"],"apiGroups":[""],"resources":["pods"]}"#, rules)
                .replace(r#""true""#, annotation);
            parse(&text).expect("role")
        };
        let nodes = r#"{"verbs":["get"],"apiGroups":[""],"resources":["nodes"]}"#;
        for (name, existing, want) in [
            ("the same", wanted.clone(), None),
            (
                "more than wanted",
                with(r#"{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}"#, r#""true""#),
                None,
            ),
            ("protected", with(nodes, r#""false""#), None),
            ("others only", with(nodes, r#""true""#), Some(2)),
        ] {
            let got = Policy::Role.change(&existing, &wanted).map(|v| v.list_at(&["rules"]).len());
            assert_eq!(got, want, "{name}");
        }
    }
}
