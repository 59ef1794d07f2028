//! LimitRange objects give containers default requests and limits, and bound them.
//!
//! upstream: plugin/pkg/admission/limitranger/admission.go

use crate::helpers::{forbidden, is};
use crate::quota::{self, ResourceList, pod_limits, pod_requests};
use copepod_meta::{
    Admission, AdmissionRequest, BoxFuture, GroupResource, Listed, Lister, Operation, Quantity, Status, Value,
};
use std::sync::Arc;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Above this, whole units are compared instead of thousandths. upstream: resource.MaxMilliValue
const MAX_MILLI_VALUE: i64 = i64::MAX / 1000;

pub struct LimitRanger {
    lister: Arc<dyn Lister>,
    ranges: GroupResource,
}

impl LimitRanger {
    pub fn new(lister: Arc<dyn Lister>) -> LimitRanger {
        LimitRanger { lister, ranges: GroupResource::new("", "limitranges") }
    }

    async fn ranges(&self, request: &AdmissionRequest<'_>) -> Result<Vec<Listed>, Status> {
        let deleted = request.old_object.is_some_and(|o| !o.at(&["metadata", "deletionTimestamp"]).is_null());
        if deleted || !concerns(request) {
            return Ok(Vec::new());
        }
        self.lister.list(&self.ranges, request.namespace).await
    }
}

fn concerns(request: &AdmissionRequest<'_>) -> bool {
    let pods = is(request, "", "pods");
    match (request.subresource, request.operation) {
        ("resize", Operation::Update) => pods,
        ("", Operation::Create) => pods || is(request, "", "persistentvolumeclaims"),
        ("", Operation::Update) => is(request, "", "persistentvolumeclaims"),
        _ => false,
    }
}

/// Fills in what a LimitRange has defaults for. upstream: mergePodResourceRequirements
fn apply_defaults(range: &Value, pod: &mut Value) {
    let (mut requests, mut limits) = (ResourceList::new(), ResourceList::new());
    for limit in range.list_at(&["spec", "limits"]).iter().filter(|l| l.str_at(&["type"]) == "Container") {
        requests.extend(quota::from_value(limit.get("defaultRequest")));
        limits.extend(quota::from_value(limit.get("default")));
    }
    let mut notes = Vec::new();
    for (list, shown) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod.at_mut(&["spec", list]).and_then(Value::as_list_mut);
        for container in containers.into_iter().flatten() {
            let name = container.str_at(&["name"]).to_string();
            let mut fill = |field: &str, defaults: &ResourceList, word: &str| {
                let absent: Vec<_> = defaults
                    .iter()
                    .filter(|(k, _)| container.at(&["resources", field, k]).is_null())
                    .collect();
                if absent.is_empty() {
                    return;
                }
                for (key, amount) in &absent {
                    container.set(&["resources", field, key], amount.to_string());
                }
                let names: Vec<&str> = absent.iter().map(|(k, _)| k.as_str()).collect();
                notes.push(format!("{} {word} for {shown} {name}", names.join(", ")));
            };
            fill("requests", &requests, "request");
            fill("limits", &limits, "limit");
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.set(&["metadata", "annotations", ANNOTATION], text);
    }
}

/// Amounts at a common precision.
fn comparable(amounts: [Option<&Quantity>; 3]) -> [i64; 3] {
    let whole = amounts.map(|a| a.map_or(0, Quantity::value));
    match whole.iter().all(|v| *v <= MAX_MILLI_VALUE) {
        true => amounts.map(|a| a.map_or(0, Quantity::milli_value)),
        false => whole,
    }
}

/// What one bound of a LimitRange says to requests and limits.
struct Check<'a> {
    kind: &'a str,
    name: &'a str,
    enforced: &'a Quantity,
    request: Option<&'a Quantity>,
    limit: Option<&'a Quantity>,
}

impl Check<'_> {
    fn min(&self) -> Option<String> {
        let Check { kind, name, enforced, request, limit } = self;
        let [r, l, e] = comparable([*request, *limit, Some(enforced)]);
        let head = format!("minimum {name} usage per {kind} is {enforced}");
        match (request, limit) {
            (None, _) => Some(format!("{head}.  No request is specified")),
            (Some(request), _) if r < e => Some(format!("{head}, but request is {request}")),
            (_, Some(limit)) if l < e => Some(format!("{head}, but limit is {limit}")),
            _ => None,
        }
    }
    fn max(&self) -> Option<String> {
        let Check { kind, name, enforced, request, limit } = self;
        let [r, l, e] = comparable([*request, *limit, Some(enforced)]);
        let head = format!("maximum {name} usage per {kind} is {enforced}");
        match (request, limit) {
            (_, None) => Some(format!("{head}.  No limit is specified")),
            (_, Some(limit)) if l > e => Some(format!("{head}, but limit is {limit}")),
            (Some(request), _) if r > e => Some(format!("{head}, but request is {request}")),
            _ => None,
        }
    }
    /// Claims have no limits: their request is what is bounded.
    fn max_request(&self) -> Option<String> {
        let Check { kind, name, enforced, request, .. } = self;
        let [r, _, e] = comparable([*request, None, Some(enforced)]);
        let head = format!("maximum {name} usage per {kind} is {enforced}");
        match request {
            None => Some(format!("{head}.  No request is specified")),
            Some(request) if r > e => Some(format!("{head}, but request is {request}")),
            _ => None,
        }
    }
    fn ratio(&self) -> Option<String> {
        let Check { kind, name, enforced, request, limit } = self;
        let [r, l, _] = comparable([*request, *limit, Some(enforced)]);
        let head = format!("{name} max limit to request ratio per {kind} is {enforced}");
        if request.is_none() || r == 0 {
            return Some(format!("{head}, but no request is specified or request is 0"));
        }
        if limit.is_none() || l == 0 {
            return Some(format!("{head}, but no limit is specified or limit is 0"));
        }
        let ratio = l as f64 / r as f64;
        let exceeded = ratio > enforced.nano() as f64 / 1e9;
        exceeded.then(|| format!("{head}, but provided ratio is {ratio:.6}"))
    }
}

/// All that one LimitRange has against requests and limits of `kind`.
fn violations(
    limit: &Value,
    kind: &str,
    requests: &ResourceList,
    limits: &ResourceList,
    errors: &mut Vec<String>,
) {
    let claim = kind == "PersistentVolumeClaim";
    for field in ["min", "max", "maxLimitRequestRatio"] {
        for (name, enforced) in &quota::from_value(limit.get(field)) {
            let check = Check { kind, name, enforced, request: requests.get(name), limit: limits.get(name) };
            errors.extend(match field {
                "min" => check.min(),
                "max" if claim => check.max_request(),
                "max" => check.max(),
                _ if claim => None,
                _ => check.ratio(),
            });
        }
    }
}

fn check_pod(range: &Value, pod: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for limit in range.list_at(&["spec", "limits"]) {
        match limit.str_at(&["type"]) {
            "Container" => {
                for container in
                    ["containers", "initContainers"].iter().flat_map(|l| pod.list_at(&["spec", l]))
                {
                    let list = |which| quota::from_value(container.at(&["resources", which]));
                    violations(limit, "Container", &list("requests"), &list("limits"), &mut errors);
                }
            }
            "Pod" => violations(limit, "Pod", &pod_requests(pod), &pod_limits(pod), &mut errors),
            _ => {}
        }
    }
    errors
}

fn check_claim(range: &Value, claim: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    let requests = quota::from_value(claim.at(&["spec", "resources", "requests"]));
    for limit in
        range.list_at(&["spec", "limits"]).iter().filter(|l| l.str_at(&["type"]) == "PersistentVolumeClaim")
    {
        violations(limit, "PersistentVolumeClaim", &requests, &ResourceList::new(), &mut errors);
    }
    errors
}

impl Admission for LimitRanger {
    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let ranges = self.ranges(request).await?;
            if is(request, "", "pods")
                && let Some(pod) = request.object.as_deref_mut()
            {
                ranges.iter().for_each(|range| apply_defaults(&range.object, pod));
            }
            Ok(())
        })
    }

    fn validate<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            for range in self.ranges(request).await? {
                let Some(object) = request.object.as_deref() else { return Ok(()) };
                let errors = match is(request, "", "pods") {
                    true => check_pod(&range.object, object),
                    false => check_claim(&range.object, object),
                };
                match errors.as_slice() {
                    [] => {}
                    [one] => return Err(forbidden(request, one)),
                    many => return Err(forbidden(request, format!("[{}]", many.join(", ")))),
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, run};

    #[tokio::test]
    async fn defaults_and_bounds() {
        let range = r#"{"metadata":{"namespace":"a","name":"l"},"spec":{"limits":[{"type":"Container","default":{"cpu":"200m"},"defaultRequest":{"cpu":"100m"},"max":{"cpu":"1"},"min":{"cpu":"50m"}}]}}"#;
        for case in [
            Case {
                name: "defaults",
                object: r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c"}]}}"#,
                want: r#"{"metadata":{"annotations":{"kubernetes.io/limit-ranger":"LimitRanger plugin set: cpu request for container c; cpu limit for container c"},"name":"p"},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"200m"},"requests":{"cpu":"100m"}}}]}}"#,
            },
            Case {
                name: "too much",
                object: r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"2"},"requests":{"cpu":"2"}}}]}}"#,
                want: r#"403 pods "p" is forbidden: maximum cpu usage per Container is 1, but limit is 2"#,
            },
            Case {
                name: "too little",
                object: r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"1"},"requests":{"cpu":"10m"}}}]}}"#,
                want: r#"403 pods "p" is forbidden: minimum cpu usage per Container is 50m, but request is 10m"#,
            },
        ] {
            run("LimitRanger", "", "pods", &[("", "limitranges", range)], case).await;
        }
    }
}
