//! The Node authorizer: what a kubelet (`system:node:<name>` in `system:nodes`) may touch.
//!
//! A node reads the secrets, config maps, claims, volumes and service accounts that pods bound to it refer to; its own
//! Node, Lease, CSINode; and what the static rules give to all nodes. That the *content* of a write is its own business is
//! checked by the NodeRestriction admission plugin.
//!
//! upstream: plugin/pkg/auth/authorizer/node/{node_authorizer,graph}.go. Upstream keeps a graph fed by events; here the
//! relation is looked up when asked, over the pods of that one node.

use crate::rbac::Rule;
use copepod_meta::pod_references;
use copepod_meta::{
    Attributes, Authorizer, BoxFuture, Decision, FieldSelector, GroupResource, Lister, RulesFor, Status,
    User, Value,
};
use std::sync::Arc;

/// Verbs, groups, resources. upstream: bootstrappolicy/policy.go NodeRules, with 1.36's default gates
const RULES: &[(&[&str], &[&str], &[&str])] = &[
    (&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
    (&["create"], &["authorization.k8s.io"], &["subjectaccessreviews", "localsubjectaccessreviews"]),
    (&["get", "list", "watch"], &[""], &["services"]),
    (&["create", "get", "list", "watch"], &[""], &["nodes"]),
    (&["update", "patch"], &[""], &["nodes/status"]),
    (&["update", "patch"], &[""], &["nodes"]),
    (&["create", "update", "patch"], &["", "events.k8s.io"], &["events"]),
    (&["get", "list", "watch"], &[""], &["pods"]),
    (&["create", "delete"], &[""], &["pods"]),
    (&["update", "patch"], &[""], &["pods/status"]),
    (&["create"], &[""], &["pods/eviction"]),
    (&["get", "list", "watch"], &[""], &["secrets", "configmaps"]),
    (&["get"], &[""], &["persistentvolumeclaims", "persistentvolumes"]),
    (&["get"], &[""], &["endpoints"]),
    (&["create", "get", "list", "watch"], &["certificates.k8s.io"], &["certificatesigningrequests"]),
    (&["get", "create", "update", "patch", "delete"], &["coordination.k8s.io"], &["leases"]),
    (&["get"], &["storage.k8s.io"], &["volumeattachments"]),
    (&["create"], &[""], &["serviceaccounts/token"]),
    (&["get", "update", "patch"], &[""], &["persistentvolumeclaims/status"]),
    (&["get", "watch", "list"], &["storage.k8s.io"], &["csidrivers"]),
    (&["get", "create", "update", "patch", "delete"], &["storage.k8s.io"], &["csinodes"]),
    (&["get", "list", "watch"], &["node.k8s.io"], &["runtimeclasses"]),
    (&["get"], &["resource.k8s.io"], &["resourceclaims"]),
    (&["deletecollection"], &["resource.k8s.io"], &["resourceslices"]),
    (&["get"], &[""], &["serviceaccounts"]),
];

/// The authorizer.
pub struct NodeAuthorizer {
    lister: Arc<dyn Lister>,
    rules: Vec<Rule>,
}

/// What a decision needs to look up.
enum Ask {
    Allow,
    No(String),
    /// Allowed if the node has something to do with the named object.
    Related,
    /// Allowed by the static rules.
    Rules,
}

fn no(text: impl Into<String>) -> Ask {
    Ask::No(text.into())
}

impl NodeAuthorizer {
    /// Over the objects that `lister` shows.
    pub fn new(lister: Arc<dyn Lister>) -> NodeAuthorizer {
        let texts = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
        let rules = RULES.iter().map(|(verbs, groups, resources)| Rule {
            verbs: texts(verbs),
            api_groups: texts(groups),
            resources: texts(resources),
            ..Rule::default()
        });
        NodeAuthorizer { lister, rules: rules.collect() }
    }

    async fn related(&self, node: &str, a: &Attributes) -> Result<bool, Status> {
        let here = |field: &'static str| async move {
            let resource = GroupResource::new(&a.group, &a.resource);
            let found = self.lister.get(&resource, &a.namespace, &a.name).await?;
            let path: Vec<&str> = field.split('.').collect();
            Ok(found.is_some_and(|o| o.object.str_at(&path) == node))
        };
        match (a.group.as_str(), a.resource.as_str()) {
            ("", "pods") => here("spec.nodeName").await,
            ("storage.k8s.io", "volumeattachments") | ("resource.k8s.io", "resourceslices") => {
                here("spec.nodeName").await
            }
            ("", "persistentvolumes") => self.volume_related(node, a).await,
            ("", "secrets") => {
                let pods = self.pods(node).await?;
                if pods.iter().any(|p| in_namespace(p, a) && pod_refers(p, "secrets", &a.name)) {
                    return Ok(true);
                }
                self.secret_of_volume(&pods, a).await
            }
            _ => Ok(self
                .pods(node)
                .await?
                .iter()
                .any(|p| in_namespace(p, a) && pod_refers(p, &a.resource, &a.name))),
        }
    }

    /// Pods bound to the node; mirror pods give no access. upstream: graph.go AddPod
    async fn pods(&self, node: &str) -> Result<Vec<Arc<Value>>, Status> {
        let pods = GroupResource::new("", "pods");
        let list = self.lister.list_by_field(&pods, "spec.nodeName", node).await?;
        let own = list.into_iter().map(|p| p.object);
        Ok(own
            .filter(|p| p.at(&["metadata", "annotations", "kubernetes.io/config.mirror"]).is_null())
            .collect())
    }

    /// A volume is the node's business through a claim of one of its pods.
    async fn volume_related(&self, node: &str, a: &Attributes) -> Result<bool, Status> {
        let volumes = GroupResource::new("", "persistentvolumes");
        let Some(volume) = self.lister.get(&volumes, "", &a.name).await? else { return Ok(false) };
        let claim = volume.object.at(&["spec", "claimRef"]);
        let (namespace, name) = (claim.str_at(&["namespace"]), claim.str_at(&["name"]));
        let pods = self.pods(node).await?;
        Ok(!name.is_empty()
            && pods.iter().any(|p| {
                p.str_at(&["metadata", "namespace"]) == namespace
                    && pod_refers(p, "persistentvolumeclaims", name)
            }))
    }

    /// A secret that a volume names (CSI, flex, iSCSI ...) whose claim a pod of the node uses.
    async fn secret_of_volume(&self, pods: &[Arc<Value>], a: &Attributes) -> Result<bool, Status> {
        if pods.iter().all(|p| p.list_at(&["spec", "volumes"]).iter().all(|v| claim_name(p, v).is_none())) {
            return Ok(false);
        }
        let volumes = self.lister.list(&GroupResource::new("", "persistentvolumes"), "").await?;
        Ok(volumes.iter().any(|v| {
            let claim = v.object.at(&["spec", "claimRef"]);
            let used = || {
                pods.iter().any(|p| {
                    p.str_at(&["metadata", "namespace"]) == claim.str_at(&["namespace"])
                        && pod_refers(p, "persistentvolumeclaims", claim.str_at(&["name"]))
                })
            };
            volume_names_secret(v.object.get("spec"), claim.str_at(&["namespace"]), a) && used()
        }))
    }
}

fn in_namespace(pod: &Value, a: &Attributes) -> bool {
    pod.str_at(&["metadata", "namespace"]) == a.namespace
}

fn claim_name(pod: &Value, volume: &Value) -> Option<String> {
    let direct = volume.str_at(&["persistentVolumeClaim", "claimName"]);
    if !direct.is_empty() {
        return Some(direct.into());
    }
    let generic = !volume.get("ephemeral").is_null();
    generic.then(|| format!("{}-{}", pod.str_at(&["metadata", "name"]), volume.str_at(&["name"])))
}

/// Whether a pod refers to the object of that resource and name. upstream: pkg/api/pod VisitPodSecretNames and friends
fn pod_refers(pod: &Value, resource: &str, name: &str) -> bool {
    let spec = pod.get("spec");
    let volumes = spec.list_at(&["volumes"]);
    match resource {
        "serviceaccounts" => spec.str_at(&["serviceAccountName"]) == name,
        "persistentvolumeclaims" => volumes.iter().any(|v| claim_name(pod, v).as_deref() == Some(name)),
        "resourceclaims" => {
            let direct =
                spec.list_at(&["resourceClaims"]).iter().any(|c| c.str_at(&["resourceClaimName"]) == name);
            let made = pod.list_at(&["status", "resourceClaimStatuses"]);
            direct || made.iter().any(|c| c.str_at(&["resourceClaimName"]) == name)
        }
        "secrets" => pod_references::secret_names(spec).any(|known| known == name),
        "configmaps" => pod_references::config_map_names(spec).any(|known| known == name),
        _ => false,
    }
}

/// upstream: pkg/api/persistentvolume/util.go VisitPVSecretNames
fn volume_names_secret(spec: &Value, claim_namespace: &str, a: &Attributes) -> bool {
    let same = |r: &Value| {
        let own = r.str_at(&["namespace"]);
        r.str_at(&["name"]) == a.name && (if own.is_empty() { claim_namespace } else { own }) == a.namespace
    };
    const REFS: &[&[&str]] = &[
        &["cephfs", "secretRef"],
        &["cinder", "secretRef"],
        &["flexVolume", "secretRef"],
        &["rbd", "secretRef"],
        &["scaleIO", "secretRef"],
        &["iscsi", "secretRef"],
        &["storageos", "secretRef"],
        &["csi", "controllerPublishSecretRef"],
        &["csi", "nodePublishSecretRef"],
        &["csi", "nodeStageSecretRef"],
        &["csi", "controllerExpandSecretRef"],
        &["csi", "nodeExpandSecretRef"],
    ];
    let azure = spec.get("azureFile");
    let azure_namespace = match azure.str_at(&["secretNamespace"]) {
        "" => claim_namespace,
        own => own,
    };
    REFS.iter().any(|p| same(spec.at(p)))
        || (azure.str_at(&["secretName"]) == a.name && azure_namespace == a.namespace)
}

/// Whether a list or watch names this node in its field selector.
fn selects_node(a: &Attributes, node: &str) -> bool {
    FieldSelector::parse(&a.field_selector).is_ok_and(|s| s.exact("spec.nodeName") == Some(node))
}

/// What to do with a request of node `node`.
fn ask(node: &str, a: &Attributes) -> Ask {
    if !a.is_resource {
        return Ask::Rules;
    }
    let (verb, sub) = (a.verb.as_str(), a.subresource.as_str());
    let read = matches!(verb, "get" | "list" | "watch");
    let own_write = matches!(verb, "get" | "create" | "update" | "patch" | "delete");
    match (a.group.as_str(), a.resource.as_str()) {
        ("", "secrets" | "configmaps") => read_namespaced(a, read),
        ("", "persistentvolumeclaims") if sub == "status" => match verb {
            "update" | "patch" => related(a),
            _ => no("can only get/update/patch this type"),
        },
        ("", "persistentvolumeclaims" | "persistentvolumes")
        | ("resource.k8s.io", "resourceclaims")
        | ("storage.k8s.io", "volumeattachments") => get_only(a),
        ("", "serviceaccounts") if verb == "get" && sub.is_empty() => read_namespaced(a, true),
        ("", "serviceaccounts") if verb != "create" || a.name.is_empty() => {
            no("can only create tokens for individual service accounts")
        }
        ("", "serviceaccounts") if sub != "token" => {
            no("can only create token subresource of serviceaccount")
        }
        ("", "serviceaccounts") => Ask::Related,
        ("coordination.k8s.io", "leases") if !own_write => {
            no("can only get, create, update, patch, or delete a node lease")
        }
        ("coordination.k8s.io", "leases") if a.namespace != "kube-node-lease" => {
            no("can only access leases in the \"kube-node-lease\" system namespace")
        }
        ("coordination.k8s.io", "leases") if verb != "create" && a.name != node => {
            no("can only access node lease with the same name as the requesting node")
        }
        ("storage.k8s.io", "csinodes") if !own_write => {
            no("can only get, create, update, patch, or delete a CSINode")
        }
        ("storage.k8s.io", "csinodes") if !sub.is_empty() => no("cannot authorize CSINode subresources"),
        ("storage.k8s.io", "csinodes") if verb != "create" && a.name != node => {
            no("can only access CSINode with the same name as the requesting node")
        }
        ("coordination.k8s.io", "leases") | ("storage.k8s.io", "csinodes") => Ask::Allow,
        ("resource.k8s.io", "resourceslices") => resource_slice(node, a),
        ("", "nodes") => own_node(node, a),
        ("", "pods") => own_pod(node, a),
        _ => Ask::Rules,
    }
}

fn read_namespaced(a: &Attributes, read: bool) -> Ask {
    match () {
        () if !read => no("can only read resources of this type"),
        () if !a.subresource.is_empty() => no("cannot read subresource"),
        () if a.namespace.is_empty() => no("can only read namespaced object of this type"),
        () => related(a),
    }
}

fn get_only(a: &Attributes) -> Ask {
    match () {
        () if a.verb != "get" => no("can only get individual resources of this type"),
        () if !a.subresource.is_empty() => no("cannot get subresource"),
        () => related(a),
    }
}

fn related(a: &Attributes) -> Ask {
    if a.name.is_empty() { no("No Object name found") } else { Ask::Related }
}

fn resource_slice(node: &str, a: &Attributes) -> Ask {
    if !a.subresource.is_empty() {
        return no("cannot authorize ResourceSlice subresources");
    }
    match a.verb.as_str() {
        "create" => Ask::Allow,
        "get" | "update" | "patch" | "delete" => related(a),
        "watch" | "list" | "deletecollection" if selects_node(a, node) => Ask::Allow,
        "watch" | "list" | "deletecollection" => {
            no("can only list/watch/deletecollection resourceslices with nodeName field selector")
        }
        _ => no(
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
        ),
    }
}

fn own_node(node: &str, a: &Attributes) -> Ask {
    match (a.subresource.as_str(), a.verb.as_str()) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ask::Allow,
        ("", "get" | "list" | "watch") if a.name == node => Ask::Allow,
        ("", "get" | "list" | "watch") if a.name.is_empty() => {
            no(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            no(format!("node '{node}' cannot read '{}', only its own Node object", a.name))
        }
        _ => no(""),
    }
}

fn own_pod(node: &str, a: &Attributes) -> Ask {
    match (a.subresource.as_str(), a.verb.as_str()) {
        ("", "get") => get_only(a),
        ("", "list" | "watch") if selects_node(a, node) => Ask::Allow,
        ("", "list" | "watch") if !a.name.is_empty() => Ask::Related,
        ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ask::Allow,
        _ => no(""),
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize<'a>(&'a self, a: &'a Attributes) -> BoxFuture<'a, Result<Decision, Status>> {
        Box::pin(async move {
            let no = |reason: String| Ok(Decision::NoOpinion { reason });
            let node = match a.user.node() {
                None => return no(String::new()),
                Some("") => return no(format!("unknown node for user {:?}", a.user.name)),
                Some(node) => node,
            };
            let allowed = match ask(node, a) {
                Ask::Allow => true,
                Ask::No(reason) => return no(reason),
                Ask::Related => self.related(node, a).await?,
                Ask::Rules => {
                    return Ok(match self.rules.iter().any(|r| r.allows(a)) {
                        true => Decision::Allow { reason: String::new() },
                        false => Decision::NoOpinion { reason: String::new() },
                    });
                }
            };
            match allowed {
                true => Ok(Decision::Allow { reason: String::new() }),
                false => no(format!("no relationship found between node '{node}' and this object")),
            }
        })
    }

    fn rules_for<'a>(
        &'a self,
        user: &'a User,
        _namespace: &'a str,
    ) -> BoxFuture<'a, Result<RulesFor, Status>> {
        let mut out = RulesFor::default();
        if user.node().is_some() {
            out.incomplete = true;
            out.evaluation_error = "node authorizer does not support user rule resolution".into();
        }
        Box::pin(async move { Ok(out) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use copepod_meta::testing::{Objects, json as object};

    #[tokio::test]
    async fn a_node_sees_only_what_its_pods_need() {
        let objects = Objects::default();
        for (name, node, spec) in [
            (
                "p1",
                "n1",
                r#","volumes":[{"secret":{"secretName":"s1"}}],"containers":[{"env":[{"valueFrom":{"configMapKeyRef":{"name":"c1"}}}]}]"#,
            ),
            ("p2", "n2", r#","imagePullSecrets":[{"name":"s2"}]"#),
        ] {
            let json = format!(
                r#"{{"metadata":{{"name":"{name}","namespace":"a"}},"spec":{{"nodeName":"{node}","serviceAccountName":"sa-{node}"{spec}}}}}"#
            );
            objects.put("", "pods", object(&json));
        }
        let authorizer = NodeAuthorizer::new(Arc::new(objects));
        let unrelated = "no relationship found between node 'n1' and this object";
        for (verb, resource, namespace, name, selector, want) in [
            ("get", "secrets", "a", "s1", "", "yes"),
            ("get", "secrets", "a", "s2", "", unrelated),
            ("get", "secrets", "b", "s1", "", unrelated),
            ("list", "secrets", "a", "", "", "No Object name found"),
            ("update", "secrets", "a", "s1", "", "can only read resources of this type"),
            ("get", "configmaps", "a", "c1", "", "yes"),
            ("create", "serviceaccounts/token", "a", "sa-n1", "", "yes"),
            ("create", "serviceaccounts/token", "a", "sa-n2", "", unrelated),
            ("list", "pods", "", "", "spec.nodeName=n1", "yes"),
            (
                "list",
                "pods",
                "",
                "",
                "spec.nodeName=n2",
                "can only list/watch pods with spec.nodeName field selector",
            ),
            ("get", "pods", "a", "p1", "", "yes"),
            ("get", "pods", "a", "p2", "", unrelated),
            ("get", "nodes", "", "n1", "", "yes"),
            ("get", "nodes", "", "n2", "", "node 'n1' cannot read 'n2', only its own Node object"),
            ("patch", "nodes/status", "", "n1", "", "yes"),
            ("list", "services", "", "", "", "yes"),
            ("delete", "services", "a", "x", "", ""),
        ] {
            let user = User {
                name: "system:node:n1".into(),
                groups: vec!["system:nodes".into()],
                ..User::default()
            };
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let attributes = Attributes {
                user: Arc::new(user),
                verb: verb.into(),
                resource: resource.into(),
                subresource: subresource.into(),
                namespace: namespace.into(),
                name: name.into(),
                field_selector: selector.into(),
                is_resource: true,
                ..Attributes::default()
            };
            let got = match authorizer.authorize(&attributes).await.expect("decides") {
                Decision::Allow { .. } => "yes".to_string(),
                Decision::Deny { reason } | Decision::NoOpinion { reason } => reason,
            };
            assert_eq!(got, want, "{verb} {resource}/{subresource} {namespace}/{name}");
        }
    }
}
