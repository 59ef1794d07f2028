//! ResourceQuota objects bound what a namespace holds; admission charges, the quota controller sets right.
//!
//! Usage is written to the quota's status before the object is stored. If that object is then refused after all, the
//! controller gives the charge back, as upstream.
//!
//! upstream: apiserver/pkg/admission/plugin/resourcequota/controller.go, pkg/quota/v1/evaluator/core

use crate::helpers::{forbidden, is};
use crate::quota::{self, ResourceList, count, is_extended, pod_limits, pod_requests, print};
use copepod_meta::{
    Admission, AdmissionRequest, BoxFuture, GroupResource, Lister, Operation, Quantity, Status, Timestamp,
    Value, Writer, time,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Mutex;

/// How often a status write that lost a race is tried again. upstream: numEvaluatorThreads' 3 retries
const RETRIES_MAX: usize = 3;

const POD_RESOURCES: [&str; 11] = [
    "count/pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];

pub struct ResourceQuota {
    lister: Arc<dyn Lister>,
    writer: Arc<dyn Writer>,
    quotas: GroupResource,
    /// Requests that a quota concerns are charged one after another in this process: between processes the
    /// resourceVersion of the status write decides.
    charging: Mutex<()>,
}

impl ResourceQuota {
    pub fn new(lister: Arc<dyn Lister>, writer: Arc<dyn Writer>) -> ResourceQuota {
        ResourceQuota {
            lister,
            writer,
            quotas: GroupResource::new("", "resourcequotas"),
            charging: Mutex::new(()),
        }
    }

    async fn charge(&self, request: &AdmissionRequest<'_>) -> Result<(), Status> {
        let listed = self.lister.list(&self.quotas, request.namespace).await?;
        if listed.is_empty() {
            return Ok(());
        }
        let _one_at_a_time = self.charging.lock().await;
        for quota in listed {
            let name = quota.object.str_at(&["metadata", "name"]).to_string();
            self.charge_one(request, &name, quota.object).await?;
        }
        Ok(())
    }

    /// Charges one quota; the newest state is read again when the write lost a race.
    async fn charge_one(
        &self,
        request: &AdmissionRequest<'_>,
        name: &str,
        mut quota: Arc<Value>,
    ) -> Result<(), Status> {
        let mut attempt = 0;
        loop {
            let Some(used) = charged(&quota, request)? else { return Ok(()) };
            if request.dry_run {
                return Ok(());
            }
            let mut updated = (*quota).clone();
            updated.set(&["status", "used"], quota::to_value(&used));
            match self.writer.update(&self.quotas, "status", updated).await {
                Ok(_) => return Ok(()),
                Err(e) if e.code == 409 && attempt < RETRIES_MAX => attempt += 1,
                Err(e) => return Err(e),
            }
            match self.lister.get_consistent(&self.quotas, request.namespace, name).await? {
                Some(newest) => quota = newest.object,
                // Removed in the meantime: it bounds nothing any more.
                None => return Ok(()),
            }
        }
    }
}

/// The new `status.used` of a quota, `None` if the request does not concern it. upstream: CheckRequest
fn charged(quota: &Value, request: &AdmissionRequest<'_>) -> Result<Option<ResourceList>, Status> {
    let Some(object) = request.object.as_deref() else { return Ok(None) };
    let name = quota.str_at(&["metadata", "name"]);
    let hard = quota::from_value(quota.at(&["status", "hard"]));
    let matching: BTreeSet<&str> = hard.keys().map(String::as_str).filter(|r| concerns(request, r)).collect();
    if matching.is_empty() || !scopes_match(quota, request, object) {
        return Ok(None);
    }
    if is(request, "", "pods") {
        let missing = unset_requirements(object, &matching);
        if !missing.is_empty() {
            return Err(forbidden(request, format!("failed quota: {name}: must specify {missing}")));
        }
    }
    let used = quota::from_value(quota.at(&["status", "used"]));
    if let Some(names) = unknown(&matching, &used) {
        return Err(forbidden(request, format!("status unknown for quota: {name}, resources: {names}")));
    }
    let mut delta = usage(request, object, time::now());
    let negative: Vec<&str> = delta.iter().filter(|(_, v)| v.sign() < 0).map(|(k, _)| k.as_str()).collect();
    if !negative.is_empty() {
        return Err(forbidden(
            request,
            format!("quota usage is negative for resource(s): {}", negative.join(",")),
        ));
    }
    if let (Operation::Update, Some(old)) = (request.operation, request.old_object)
        && scopes_match(quota, request, old)
    {
        subtract(&mut delta, &usage(request, old, time::now()));
    }
    delta.retain(|k, v| !v.is_zero() && hard.contains_key(k));
    if delta.is_empty() {
        return Ok(None);
    }
    let mut total = used.clone();
    quota::add(&mut total, &delta);
    let exceeded: BTreeSet<&String> = delta.keys().filter(|k| total[*k] > hard[*k]).collect();
    if !exceeded.is_empty() && request.subresource != "status" {
        let only = |list: &ResourceList| {
            let entries = list.iter().filter(|(k, _)| exceeded.contains(k));
            print(&entries.map(|(k, v)| (k.clone(), v.clone())).collect())
        };
        let (requested, used, limited) = (only(&delta), only(&used), only(&hard));
        return Err(forbidden(
            request,
            format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"),
        ));
    }
    Ok(Some(total))
}

fn unknown(matching: &BTreeSet<&str>, used: &ResourceList) -> Option<String> {
    let missing: Vec<&str> = matching.iter().filter(|r| !used.contains_key(**r)).copied().collect();
    (!missing.is_empty()).then(|| matching.iter().copied().collect::<Vec<_>>().join(","))
}

/// `a - b`, not below zero.
fn subtract(a: &mut ResourceList, b: &ResourceList) {
    for (name, amount) in a.iter_mut() {
        if let Some(before) = b.get(name) {
            let rest = amount.sub(before);
            *amount = if rest.sign() < 0 { count(0) } else { rest };
        }
    }
}

/// `count/pods`, `count/deployments.apps`
fn object_count(request: &AdmissionRequest<'_>) -> String {
    format!("count/{}", request.resource.group_resource())
}

/// Whether a quota on `name` counts objects of the request's resource.
fn concerns(request: &AdmissionRequest<'_>, name: &str) -> bool {
    if name == object_count(request) {
        return true;
    }
    match (request.resource.group.as_str(), request.resource.resource.as_str()) {
        ("", "pods") => {
            POD_RESOURCES.contains(&name)
                || name.starts_with("hugepages-")
                || name.starts_with("requests.hugepages-")
                || name.strip_prefix("requests.").is_some_and(is_extended)
        }
        ("", "services") => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
        ("", "persistentvolumeclaims") => {
            matches!(name, "persistentvolumeclaims" | "requests.storage")
                || name.contains(".storageclass.storage.k8s.io/")
        }
        ("", own @ ("configmaps" | "secrets" | "resourcequotas" | "replicationcontrollers")) => name == own,
        _ => false,
    }
}

/// What an object counts for. upstream: the evaluators' Usage
fn usage(request: &AdmissionRequest<'_>, object: &Value, now: Timestamp) -> ResourceList {
    let mut out = ResourceList::from([(object_count(request), count(1))]);
    match (request.resource.group.as_str(), request.resource.resource.as_str()) {
        ("", "pods") if !finished(object, now) => pod_usage(object, &mut out),
        ("", "services") => service_usage(object, &mut out),
        ("", "persistentvolumeclaims") => claim_usage(object, &mut out),
        ("", own @ ("configmaps" | "secrets" | "resourcequotas" | "replicationcontrollers")) => {
            out.insert(own.into(), count(1));
        }
        _ => {}
    }
    out
}

/// Ended, or overdue in ending. upstream: QuotaV1Pod
fn finished(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod.str_at(&["status", "phase"]), "Failed" | "Succeeded") {
        return true;
    }
    let deleted = pod.at(&["metadata", "deletionTimestamp"]).as_str().and_then(time::parse);
    let grace = pod.at(&["metadata", "deletionGracePeriodSeconds"]).as_int();
    deleted.zip(grace).is_some_and(|(at, seconds)| now > time::plus_seconds(at, seconds))
}

fn pod_usage(pod: &Value, out: &mut ResourceList) {
    out.insert("pods".into(), count(1));
    let requests = pod_requests(pod);
    for (name, amount) in &requests {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            out.insert(name.clone(), amount.clone());
            out.insert(format!("requests.{name}"), amount.clone());
        } else if is_extended(name) {
            out.insert(format!("requests.{name}"), amount.clone());
        }
    }
    for (name, amount) in pod_limits(pod) {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            out.insert(format!("limits.{name}"), amount);
        }
    }
}

fn service_usage(service: &Value, out: &mut ResourceList) {
    let ports = service.list_at(&["spec", "ports"]);
    let explicit = ports.iter().filter(|p| p.int_at(&["nodePort"]) != 0).count();
    let kind = service.str_at(&["spec", "type"]);
    let allocated = service.at(&["spec", "allocateLoadBalancerNodePorts"]).as_bool() != Some(false);
    let node_ports = match kind {
        "NodePort" => ports.len(),
        "LoadBalancer" if allocated => ports.len(),
        "LoadBalancer" => explicit,
        _ => 0,
    };
    out.insert("services".into(), count(1));
    out.insert("services.nodeports".into(), count(i64::try_from(node_ports).unwrap_or(i64::MAX)));
    out.insert("services.loadbalancers".into(), count(i64::from(kind == "LoadBalancer")));
}

fn claim_usage(claim: &Value, out: &mut ResourceList) {
    out.insert("persistentvolumeclaims".into(), count(1));
    let amount = Quantity::parse(claim.str_at(&["spec", "resources", "requests", "storage"])).ok();
    let annotated = claim.str_at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]);
    let class = if annotated.is_empty() { claim.str_at(&["spec", "storageClassName"]) } else { annotated };
    let prefix = format!("{class}.storageclass.storage.k8s.io");
    if !class.is_empty() {
        out.insert(format!("{prefix}/persistentvolumeclaims"), count(1));
    }
    if let Some(amount) = amount {
        out.insert("requests.storage".into(), amount.clone());
        if !class.is_empty() {
            out.insert(format!("{prefix}/requests.storage"), amount);
        }
    }
}

/// Containers that do not say what the quota bounds: `cpu for: a,b; memory for: a`. upstream: Constraints
fn unset_requirements(pod: &Value, matching: &BTreeSet<&str>) -> String {
    let pod_level = ["requests", "limits"].iter().any(|w| !pod.map_at(&["spec", "resources", w]).is_empty());
    if pod_level {
        return String::new();
    }
    let wanted = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
    let mut out = Vec::new();
    for resource in wanted.into_iter().filter(|r| matching.contains(r)) {
        let (which, name) = match resource.split_once('.') {
            Some((which, name)) => (which, name),
            None => ("requests", resource),
        };
        let containers = ["containers", "initContainers"].iter().flat_map(|l| pod.list_at(&["spec", l]));
        let without: BTreeSet<&str> = containers
            .filter(|c| c.at(&["resources", which, name]).is_null())
            .map(|c| c.str_at(&["name"]))
            .collect();
        if !without.is_empty() {
            out.push(format!("{resource} for: {}", without.into_iter().collect::<Vec<_>>().join(",")));
        }
    }
    out.join("; ")
}

/// Whether the object is in all scopes of the quota; only pods have scopes. upstream: podMatchesScopeFunc
fn scopes_match(quota: &Value, request: &AdmissionRequest<'_>, object: &Value) -> bool {
    let scopes = quota.list_at(&["spec", "scopes"]).iter().filter_map(Value::as_str);
    let selectors = quota.list_at(&["spec", "scopeSelector", "matchExpressions"]);
    if !is(request, "", "pods") {
        return scopes.count() == 0 && selectors.is_empty();
    }
    scopes.into_iter().all(|s| in_scope(object, s, "Exists", &[]))
        && selectors.iter().all(|e| {
            in_scope(object, e.str_at(&["scopeName"]), e.str_at(&["operator"]), e.list_at(&["values"]))
        })
}

fn in_scope(pod: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    let terminating = pod.at(&["spec", "activeDeadlineSeconds"]).as_int().is_some_and(|s| s >= 0);
    let best_effort = || pod_requests(pod).is_empty() && pod_limits(pod).is_empty();
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            let class = pod.str_at(&["spec", "priorityClassName"]);
            let listed = values.iter().any(|v| v.as_str() == Some(class));
            match operator {
                "Exists" => !class.is_empty(),
                "DoesNotExist" => class.is_empty(),
                "In" => listed,
                _ => !listed,
            }
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn crosses_namespaces(pod: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = pod.at(&["spec", "affinity", kind]);
        let required = affinity.list_at(&["requiredDuringSchedulingIgnoredDuringExecution"]).iter();
        let preferred = affinity.list_at(&["preferredDuringSchedulingIgnoredDuringExecution"]).iter();
        required
            .chain(preferred.map(|p| p.get("podAffinityTerm")))
            .any(|term| !term.list_at(&["namespaces"]).is_empty() || !term.get("namespaceSelector").is_null())
    })
}

/// Which writes may change usage.
fn charges(request: &AdmissionRequest<'_>) -> bool {
    let update = request.operation == Operation::Update;
    match (request.subresource, request.operation) {
        ("", Operation::Create) => true,
        ("resize", Operation::Update) => is(request, "", "pods"),
        ("", Operation::Update) => {
            is(request, "", "services")
                || is(request, "", "persistentvolumeclaims")
                || (update && deadline_changed(request))
        }
        _ => false,
    }
}

/// A pod that comes to have a deadline moves from one scope to another.
fn deadline_changed(request: &AdmissionRequest<'_>) -> bool {
    let deadline = |o: Option<&Value>| o.is_some_and(|o| !o.at(&["spec", "activeDeadlineSeconds"]).is_null());
    is(request, "", "pods") && deadline(request.object.as_deref()) != deadline(request.old_object)
}

impl Admission for ResourceQuota {
    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn admit<'a>(&'a self, _request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async { Ok(()) })
    }

    fn validate<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let own = is(request, "", "namespaces");
            match !own && !request.namespace.is_empty() && charges(request) {
                true => self.charge(request).await,
                false => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, objects, run_as};
    use copepod_meta::{GroupResource, Lister as _, User};

    #[tokio::test]
    async fn what_is_over_is_refused_and_what_is_under_is_charged() {
        let quota = r#"{"metadata":{"namespace":"a","name":"q"},"status":{"hard":{"pods":"1","requests.cpu":"1"},"used":{"pods":"0","requests.cpu":"0"}}}"#;
        let stored = objects(&[("", "resourcequotas", quota)]);
        let pod = r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"600m"}}}]}}"#;
        for case in [
            Case {
                name: "no request where one is bounded",
                object: r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c"}]}}"#,
                want: r#"403 pods "p" is forbidden: failed quota: q: must specify requests.cpu for: c"#,
            },
            Case { name: "the first", object: pod, want: r#""name":"p""# },
            Case {
                name: "the second",
                object: pod,
                want: r#"403 pods "p" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=600m, used: pods=1,requests.cpu=600m, limited: pods=1,requests.cpu=1"#,
            },
        ] {
            run_as(&User::default(), "ResourceQuota", "", "pods", "", stored.clone(), case).await;
        }
        let left = stored
            .get(&GroupResource::new("", "resourcequotas"), "a", "q")
            .await
            .expect("reads")
            .expect("is there");
        assert_eq!(left.object.str_at(&["status", "used", "pods"]), "1");
    }
}
