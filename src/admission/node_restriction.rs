//! A kubelet writes only what is its own: its Node, its Lease, the status of its pods, mirror pods, tokens of its pods.
//!
//! upstream: plugin/pkg/admission/noderestriction/admission.go. A token's audience must be one that the pod's projected
//! volumes ask for; audiences of CSI drivers and the `request-serviceaccounts-token-audience` verb come with storage.

use crate::helpers::{MIRROR_POD, forbidden, is_mirror_pod};
use copepod_meta::{
    Admission, AdmissionRequest, BoxFuture, GroupResource, Lister, Operation, Status, Value, pod_references,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Labels of kubernetes.io and k8s.io that a kubelet may set. upstream: k8s.io/kubelet/pkg/apis/well_known_labels.go
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

pub struct NodeRestriction {
    lister: Arc<dyn Lister>,
}

/// The plugin's verdict on one kind of object; the text is why not.
type Verdict = Result<(), String>;

fn refuse(text: impl Into<String>) -> Verdict {
    Err(text.into())
}

impl NodeRestriction {
    pub fn new(lister: Arc<dyn Lister>) -> NodeRestriction {
        NodeRestriction { lister }
    }

    async fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Value>, Status> {
        let pods = GroupResource::new("", "pods");
        if let Some(found) = self.lister.get(&pods, namespace, name).await? {
            return Ok(found.object);
        }
        let live = self.lister.get_consistent(&pods, namespace, name).await?;
        live.map(|l| l.object).ok_or_else(|| Status::not_found(&pods, name))
    }

    async fn check(&self, node: &str, request: &AdmissionRequest<'_>) -> Result<Verdict, Status> {
        let r = request;
        Ok(match (r.resource.group.as_str(), r.resource.resource.as_str(), r.subresource) {
            ("", "pods", "") => return self.pod_itself(node, r).await,
            ("", "pods", "status") => pod_status(node, r),
            ("", "pods", "eviction") => {
                let bound = self.pod(r.namespace, r.name).await?.str_at(&["spec", "nodeName"]) == node;
                let why = || format!("node {node} can only evict pods with spec.nodeName set to itself");
                if bound { Ok(()) } else { Err(why()) }
            }
            ("", "pods", other) => refuse(format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            )),
            ("", "nodes", _) => own_node(node, r),
            ("", "persistentvolumeclaims", "status") => claim_status(node, r),
            ("", "persistentvolumeclaims", _) => refuse("may only update PVC status"),
            ("", "serviceaccounts", "token") => return self.token(node, r).await,
            ("coordination.k8s.io", "leases", _) if r.namespace != "kube-node-lease" => {
                refuse("can only access leases in the \"kube-node-lease\" system namespace")
            }
            ("coordination.k8s.io", "leases", _) if requested_name(r) != node => {
                refuse("can only access node lease with the same name as the requesting node")
            }
            ("storage.k8s.io", "csinodes", _) if requested_name(r) != node => {
                refuse("can only access CSINode with the same name as the requesting node")
            }
            ("resource.k8s.io", "resourceslices", _) => resource_slice(node, r),
            ("certificates.k8s.io", "certificatesigningrequests", "") => signing_request(node, r),
            _ => Ok(()),
        })
    }

    async fn pod_itself(&self, node: &str, r: &AdmissionRequest<'_>) -> Result<Verdict, Status> {
        match r.operation {
            Operation::Create => {
                let Some(pod) = r.object.as_deref() else { return Ok(Ok(())) };
                let verdict = mirror_pod(node, pod);
                if verdict.is_err() {
                    return Ok(verdict);
                }
                let nodes = GroupResource::new("", "nodes");
                let Some(own) = self.lister.get(&nodes, "", node).await? else {
                    return Err(Status::not_found(&nodes, node));
                };
                let (uid, owner) = (own.object.str_at(&["metadata", "uid"]), owner(pod).str_at(&["uid"]));
                Ok(match uid == owner {
                    true => object_references(node, pod),
                    false => refuse(format!("node {node} UID mismatch: expected {owner} got {uid}")),
                })
            }
            Operation::Delete => {
                let pod = self.pod(r.namespace, r.name).await?;
                Ok(match pod.str_at(&["spec", "nodeName"]) == node {
                    true => Ok(()),
                    false => {
                        refuse(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
                    }
                })
            }
            other => Ok(refuse(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                other.as_str()
            ))),
        }
    }

    /// A node asks for tokens only in the name of a pod that runs on it.
    async fn token(&self, node: &str, r: &AdmissionRequest<'_>) -> Result<Verdict, Status> {
        let Some(token) = r.object.as_deref().filter(|_| r.operation == Operation::Create) else {
            return Ok(Ok(()));
        };
        let bound = token.at(&["spec", "boundObjectRef"]);
        let text = |key| bound.str_at(&[key]);
        if text("apiVersion") != "v1" || text("kind") != "Pod" || text("name").is_empty() {
            return Ok(refuse("node requested token not bound to a pod"));
        }
        if text("uid").is_empty() {
            return Ok(refuse("node requested token with a pod binding without a uid"));
        }
        let pod = self.pod(r.namespace, text("name")).await?;
        if pod.str_at(&["metadata", "uid"]) != text("uid") {
            return Ok(refuse(format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
                 deleted and then recreated",
                text("uid")
            )));
        }
        if pod.str_at(&["spec", "nodeName"]) != node {
            return Ok(refuse("node requested token bound to a pod scheduled on a different node"));
        }
        let audience = match token.list_at(&["spec", "audiences"]) {
            [] => "",
            [one] => one.as_str().unwrap_or(""),
            _ => return Ok(refuse("node may only request 0 or 1 audiences")),
        };
        let mut sources =
            pod.list_at(&["spec", "volumes"]).iter().flat_map(|v| v.list_at(&["projected", "sources"]));
        let asked = sources.any(|s| {
            let projection = s.get("serviceAccountToken");
            !projection.is_null() && projection.str_at(&["audience"]) == audience
        });
        Ok(match asked {
            true => Ok(()),
            false => refuse(format!(
                "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
                r.user.name
            )),
        })
    }
}

/// On create the request has no name yet; the object has.
fn requested_name<'a>(r: &'a AdmissionRequest<'_>) -> &'a str {
    match r.operation {
        Operation::Create => r.object.as_deref().map_or("", |o| o.str_at(&["metadata", "name"])),
        _ => r.name,
    }
}

fn owner(pod: &Value) -> &Value {
    static NONE: Value = Value::Null;
    pod.list_at(&["metadata", "ownerReferences"]).first().unwrap_or(&NONE)
}

fn mirror_pod(node: &str, pod: &Value) -> Verdict {
    if !is_mirror_pod(pod) {
        return refuse(format!(
            "pod does not have {MIRROR_POD:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if pod.str_at(&["spec", "nodeName"]) != node {
        return refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners = pod.list_at(&["metadata", "ownerReferences"]).len();
    if owners > 1 {
        return refuse(format!(
            "node {node:?} can only create pods with a single owner reference set to itself"
        ));
    }
    let owner = owner(pod);
    let text = |key| owner.str_at(&[key]);
    if owners == 0 || text("apiVersion") != "v1" || text("kind") != "Node" || text("name") != node {
        return refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if !owner.bool_at(&["controller"]) {
        return refuse(format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner.bool_at(&["blockOwnerDeletion"]) {
        return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    Ok(())
}

/// upstream: pkg/api/pod/util.go HasAPIObjectReference
fn object_references(node: &str, pod: &Value) -> Verdict {
    let spec = pod.get("spec");
    let found = if !spec.str_at(&["serviceAccountName"]).is_empty() {
        Some("serviceaccounts")
    } else if pod_references::secret_names(spec).next().is_some() {
        Some("secrets")
    } else if pod_references::config_map_names(spec).next().is_some() {
        Some("configmaps")
    } else if !spec.list_at(&["resourceClaims"]).is_empty() {
        Some("resourceclaims")
    } else {
        spec.list_at(&["volumes"]).iter().find_map(volume_reference)
    };
    match found {
        Some(what) => refuse(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

/// What a volume needs of the API.
fn volume_reference(volume: &Value) -> Option<&'static str> {
    const VOLUMES: [(&str, &str); 7] = [
        ("configMap", "configmaps (via configmap volumes)"),
        ("secret", "secrets (via secret volumes)"),
        ("csi", "csidrivers (via CSI volumes)"),
        ("glusterfs", "endpoints (via glusterFS volumes)"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
        ("azureFile", "secrets (via azureFile volumes)"),
    ];
    const SOURCES: [(&str, &str); 5] = [
        ("configMap", "configmaps (via projected volumes)"),
        ("secret", "secrets (via projected volumes)"),
        ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    let first = |of: &Value, known: &[(&str, &'static str)]| {
        known.iter().find(|(member, _)| !of.get(member).is_null()).map(|(_, what)| *what)
    };
    let sources = || volume.list_at(&["projected", "sources"]).iter();
    first(volume, &VOLUMES).or_else(|| sources().find_map(|source| first(source, &SOURCES)))
}

fn pod_status(node: &str, r: &AdmissionRequest<'_>) -> Verdict {
    let (Operation::Update, Some(old), Some(new)) = (r.operation, r.old_object, r.object.as_deref()) else {
        return refuse(format!("unexpected operation {:?}", r.operation.as_str()));
    };
    if old.str_at(&["spec", "nodeName"]) != node {
        return refuse(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    for (path, shown) in [
        (["metadata", "labels"], "labels through pod status"),
        (["status", "resourceClaimStatuses"], "resource claim statues"),
        (["status", "extendedResourceClaimStatus"], "extended resource claim status"),
    ] {
        let (a, b) = (old.at(&path), new.at(&path));
        if a != b && !(a.is_empty() && b.is_empty()) {
            return refuse(format!("node {node:?} cannot update {shown}"));
        }
    }
    Ok(())
}

/// Only capacity and conditions of a claim's status are the node's.
fn claim_status(node: &str, r: &AdmissionRequest<'_>) -> Verdict {
    let (Operation::Update, Some(old), Some(new)) = (r.operation, r.old_object, r.object.as_deref()) else {
        return refuse(format!("unexpected operation {:?}", r.operation.as_str()));
    };
    let strip = |claim: &Value| {
        let mut claim = claim.clone();
        for path in [
            ["metadata", "resourceVersion"],
            ["metadata", "managedFields"],
            ["status", "capacity"],
            ["status", "conditions"],
            ["status", "allocatedResourceStatuses"],
            ["status", "allocatedResources"],
        ] {
            claim.remove(&path);
        }
        claim
    };
    match strip(old) == strip(new) {
        true => Ok(()),
        false => refuse(format!(
            "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
        )),
    }
}

fn own_node(node: &str, r: &AdmissionRequest<'_>) -> Verdict {
    // The name of a create is only in the object.
    let name = if r.name.is_empty() { requested_name(r) } else { r.name };
    if name != node {
        return refuse(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = r.object.as_deref() else { return Ok(()) };
    match (r.operation, r.old_object) {
        (Operation::Create, _) => {
            if !new.at(&["spec", "configSource"]).is_null() {
                return refuse(format!(
                    "node {node:?} is not allowed to create pods with a non-nil configSource"
                ));
            }
            match forbidden_labels(new, &Value::Null).as_str() {
                "" => Ok(()),
                labels => {
                    refuse(format!("node {node:?} is not allowed to set the following labels: {labels}"))
                }
            }
        }
        (Operation::Update, Some(old)) => {
            let source = new.at(&["spec", "configSource"]);
            if !source.is_null() && source != old.at(&["spec", "configSource"]) {
                return refuse(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            for (path, shown) in
                [(["spec", "taints"], "taints"), (["metadata", "ownerReferences"], "ownerReferences")]
            {
                let (a, b) = (new.at(&path), old.at(&path));
                if a != b && !(a.is_empty() && b.is_empty()) {
                    return refuse(format!("node {node:?} is not allowed to modify {shown}"));
                }
            }
            match forbidden_labels(new, old).as_str() {
                "" => Ok(()),
                labels => refuse(format!("is not allowed to modify labels: {labels}")),
            }
        }
        _ => Ok(()),
    }
}

/// Labels that differ and are not the kubelet's to set, sorted.
fn forbidden_labels(new: &Value, old: &Value) -> String {
    let path = ["metadata", "labels"];
    let (a, b) = (new.map_at(&path), old.map_at(&path));
    let differing: BTreeSet<&str> = a.keys().chain(b.keys()).filter(|k| a.get(k) != b.get(k)).collect();
    let within = |namespace: &str, domain: &str| {
        namespace == domain || namespace.strip_suffix(domain).is_some_and(|head| head.ends_with('.'))
    };
    let not_ours = differing.into_iter().filter(|label| {
        let namespace = label.split_once('/').map_or("", |(ns, _)| ns);
        let restricted = within(namespace, "node-restriction.kubernetes.io");
        let reserved = within(namespace, "kubernetes.io") || within(namespace, "k8s.io");
        let kubelets = KUBELET_LABELS.contains(label)
            || within(namespace, "kubelet.kubernetes.io")
            || within(namespace, "node.kubernetes.io");
        restricted || (reserved && !kubelets)
    });
    not_ours.collect::<Vec<_>>().join(", ")
}

fn resource_slice(node: &str, r: &AdmissionRequest<'_>) -> Verdict {
    let own = |object: Option<&Value>| object.is_none_or(|o| o.str_at(&["spec", "nodeName"]) == node);
    match r.operation {
        Operation::Create if !own(r.object.as_deref()) => {
            refuse("can only create ResourceSlice with the same NodeName as the requesting node")
        }
        Operation::Delete if !own(r.old_object) => {
            refuse("can only delete ResourceSlice with the same NodeName as the requesting node")
        }
        _ => Ok(()),
    }
}

/// A node asks for certificates in its own name only.
fn signing_request(node: &str, r: &AdmissionRequest<'_>) -> Verdict {
    let Some(request) = r.object.as_deref().filter(|_| r.operation == Operation::Create) else {
        return Ok(());
    };
    let signer = request.str_at(&["spec", "signerName"]);
    if !matches!(signer, "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet") {
        return Ok(());
    }
    let Value::Bytes(pem) = request.at(&["spec", "request"]) else {
        return refuse("unable to parse csr: PEM block type must be CERTIFICATE REQUEST");
    };
    let parsed = x509_parser::pem::parse_x509_pem(pem).map_err(|e| format!("unable to parse csr: {e}"))?.1;
    use x509_parser::prelude::FromDer as _;
    let (_, csr) = x509_parser::certification_request::X509CertificationRequest::from_der(&parsed.contents)
        .map_err(|e| format!("unable to parse csr: {e}"))?;
    let names = csr.certification_request_info.subject.iter_common_name().filter_map(|n| n.as_str().ok());
    match names.last() == Some(format!("system:node:{node}").as_str()) {
        true => Ok(()),
        false => refuse(format!("can only create a node CSR with CN=system:node:{node}")),
    }
}

impl Admission for NodeRestriction {
    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let node = match request.user.node() {
                None => return Ok(()),
                Some("") => {
                    let why = format!("could not determine node from user {:?}", request.user.name);
                    return Err(forbidden(request, why));
                }
                Some(node) => node,
            };
            self.check(node, request).await?.map_err(|why| forbidden(request, why))
        })
    }

    fn validate<'a>(&'a self, _request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, objects, run_as};
    use copepod_meta::User;

    #[tokio::test]
    async fn a_node_writes_what_is_its_own() {
        let user =
            User { name: "system:node:n1".into(), groups: vec!["system:nodes".into()], ..User::default() };
        let standing = [
            ("", "nodes", r#"{"metadata":{"name":"n1","uid":"u"}}"#),
            (
                "",
                "pods",
                r#"{"metadata":{"namespace":"a","name":"p","uid":"1"},"spec":{"nodeName":"n1","volumes":[{"projected":{"sources":[{"serviceAccountToken":{"path":"t"}}]}}]}}"#,
            ),
        ];
        for (group, resource, subresource, case) in [
            (
                "",
                "nodes",
                "",
                Case {
                    name: "its node",
                    object: r#"{"metadata":{"name":"n1","labels":{"kubernetes.io/os":"linux","x":"y"}}}"#,
                    want: "n1",
                },
            ),
            (
                "",
                "nodes",
                "",
                Case {
                    name: "another node",
                    object: r#"{"metadata":{"name":"n2"}}"#,
                    want: r#"403 nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2""#,
                },
            ),
            (
                "",
                "nodes",
                "",
                Case {
                    name: "a reserved label",
                    object: r#"{"metadata":{"name":"n1","labels":{"node-restriction.kubernetes.io/x":"y"}}}"#,
                    want: r#"node "n1" is not allowed to set the following labels: node-restriction.kubernetes.io/x"#,
                },
            ),
            (
                "",
                "pods",
                "",
                Case {
                    name: "a plain pod",
                    object: r#"{"metadata":{"name":"q"}}"#,
                    want: r#"pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods"#,
                },
            ),
            (
                "",
                "pods",
                "",
                Case {
                    name: "a mirror pod",
                    object: r#"{"metadata":{"name":"q","annotations":{"kubernetes.io/config.mirror":"x"},"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n1","uid":"u","controller":true}]},"spec":{"nodeName":"n1"}}"#,
                    want: r#""nodeName":"n1""#,
                },
            ),
            (
                "",
                "serviceaccounts",
                "token",
                Case {
                    name: "a token of its pod",
                    object: r#"{"spec":{"boundObjectRef":{"apiVersion":"v1","kind":"Pod","name":"p","uid":"1"}}}"#,
                    want: "boundObjectRef",
                },
            ),
            (
                "",
                "serviceaccounts",
                "token",
                Case {
                    name: "a token for nobody",
                    object: r#"{"spec":{}}"#,
                    want: "node requested token not bound to a pod",
                },
            ),
            (
                "",
                "serviceaccounts",
                "token",
                Case {
                    name: "an audience of nobody",
                    object: r#"{"spec":{"audiences":["vault"],"boundObjectRef":{"apiVersion":"v1","kind":"Pod","name":"p","uid":"1"}}}"#,
                    want: r#"audience "vault" not found in pod spec volume"#,
                },
            ),
        ] {
            run_as(&user, "NodeRestriction", group, resource, subresource, objects(&standing), case).await;
        }
    }
}
