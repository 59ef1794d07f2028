//! A pod gets what its RuntimeClass says: the overhead of its sandbox, and where it may be scheduled.
//!
//! An overhead counts in scheduling and quota, so a pod cannot bring one of its own.
//!
//! upstream: plugin/pkg/admission/runtimeclass/admission.go

use crate::helpers::{forbidden, is};
use crate::quota::from_value;
use copepod_meta::field::quote;
use copepod_meta::{
    Admission, AdmissionRequest, BoxFuture, GroupResource, Listed, Lister, Map, Operation, Reason, Status,
    Value,
};
use std::sync::Arc;

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const UNBACKED: &str = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

pub struct RuntimeClass {
    lister: Arc<dyn Lister>,
    classes: GroupResource,
}

impl RuntimeClass {
    pub fn new(lister: Arc<dyn Lister>) -> RuntimeClass {
        RuntimeClass { lister, classes: GroupResource::new("node.k8s.io", "runtimeclasses") }
    }

    /// The class that the pod names; `None`: it names none.
    async fn class_of(&self, request: &AdmissionRequest<'_>) -> Result<Option<Listed>, Status> {
        let pod = request.object.as_deref();
        let Some(name) = pod.and_then(|pod| pod.at(&["spec", "runtimeClassName"]).as_str()) else {
            return Ok(None);
        };
        if name.is_empty() {
            // What upstream's client says before it asks.
            return Err(Status::new(500, Reason::Unknown, "resource name may not be empty"));
        }
        let mut found = self.lister.get(&self.classes, "", name).await?;
        if found.is_none() {
            // The cache may be behind a class that was made a moment ago.
            found = self.lister.get_consistent(&self.classes, "", name).await?;
        }
        match found {
            Some(class) => Ok(Some(class)),
            None => Err(forbidden(request, format!("pod rejected: RuntimeClass {} not found", quote(name)))),
        }
    }
}

fn concerns(request: &AdmissionRequest<'_>) -> bool {
    is(request, "", "pods") && request.subresource.is_empty()
}

fn set_overhead(request: &mut AdmissionRequest<'_>, class: &Value) -> Result<(), Status> {
    let overhead = class.get("overhead");
    if overhead.is_null() {
        return Ok(());
    }
    let fixed = overhead.get("podFixed");
    let Some(pod) = request.object.as_deref_mut() else { return Ok(()) };
    let given = pod.at(&["spec", "overhead"]);
    if !given.is_empty() && from_value(given) != from_value(fixed) {
        return Err(forbidden(request, MISMATCH));
    }
    set_or_remove(pod, "overhead", fixed.clone());
    Ok(())
}

fn set_scheduling(request: &mut AdmissionRequest<'_>, class: &Value) -> Result<(), Status> {
    let scheduling = class.get("scheduling");
    if scheduling.is_null() {
        return Ok(());
    }
    let Some(pod) = request.object.as_deref_mut() else { return Ok(()) };
    let wanted = scheduling.get("nodeSelector");
    let mut selector = pod.at(&["spec", "nodeSelector"]).clone();
    if selector.is_null() {
        selector = wanted.clone();
    } else {
        for (key, value) in wanted.as_map().into_iter().flat_map(Map::iter) {
            let own = selector.get(key);
            if !own.is_null() && own != value {
                let (own, value) = (own.as_str().unwrap_or(""), value.as_str().unwrap_or(""));
                let why = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] \
                     = {own}"
                );
                return Err(forbidden(request, why));
            }
            selector.set(&[key], value.clone());
        }
    }
    let tolerations =
        merge_tolerations(pod.list_at(&["spec", "tolerations"]), scheduling.list_at(&["tolerations"]));
    set_or_remove(pod, "nodeSelector", selector);
    let tolerations = if tolerations.is_empty() { Value::Null } else { Value::List(tolerations) };
    set_or_remove(pod, "tolerations", tolerations);
    Ok(())
}

fn set_or_remove(pod: &mut Value, field: &str, value: Value) {
    if value.is_null() {
        pod.remove(&["spec", field]);
    } else {
        pod.set(&["spec", field], value);
    }
}

/// Both lists without what another toleration covers; of equal ones the first stays.
/// upstream: pkg/util/tolerations/tolerations.go MergeTolerations
fn merge_tolerations(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut merged: Vec<&Value> = Vec::new();
    for (i, toleration) in all.iter().enumerate() {
        let covered = merged.iter().any(|kept| is_superset(kept, toleration))
            || all[i + 1..].iter().any(|later| !equal(later, toleration) && is_superset(later, toleration));
        if !covered {
            merged.push(toleration);
        }
    }
    merged.into_iter().cloned().collect()
}

/// Members that are empty and members that are absent are the same; of the seconds zero is something.
fn equal(a: &Value, b: &Value) -> bool {
    ["key", "operator", "value", "effect"].iter().all(|field| a.str_at(&[field]) == b.str_at(&[field]))
        && a.get("tolerationSeconds") == b.get("tolerationSeconds")
}

/// Whether `wide` tolerates all that `narrow` does. upstream: pkg/util/tolerations/tolerations.go isSuperset
fn is_superset(wide: &Value, narrow: &Value) -> bool {
    if equal(wide, narrow) {
        return true;
    }
    let [key, operator, effect] = ["key", "operator", "effect"].map(|field| wide.str_at(&[field]));
    // No key with Exists means every key.
    if narrow.str_at(&["key"]) != key && !(key.is_empty() && operator == "Exists") {
        return false;
    }
    if narrow.str_at(&["effect"]) != effect && !effect.is_empty() {
        return false;
    }
    if effect == "NoExecute"
        && let Some(seconds) = wide.get("tolerationSeconds").as_int()
        && narrow.get("tolerationSeconds").as_int().is_none_or(|narrow| narrow > seconds)
    {
        return false;
    }
    match operator {
        "Equal" | "" => {
            narrow.str_at(&["operator"]) == "Equal" && narrow.str_at(&["value"]) == wide.str_at(&["value"])
        }
        "Exists" => true,
        _ => false,
    }
}

impl Admission for RuntimeClass {
    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            if !concerns(request) {
                return Ok(());
            }
            let Some(class) = self.class_of(request).await? else { return Ok(()) };
            set_overhead(request, &class.object)?;
            set_scheduling(request, &class.object)
        })
    }

    fn validate<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            if !concerns(request) {
                return Ok(());
            }
            let class = self.class_of(request).await?;
            let Some(pod) = request.object.as_deref() else { return Ok(()) };
            let given = pod.at(&["spec", "overhead"]);
            let defined = class.as_ref().map_or(&Value::Null, |class| class.object.get("overhead"));
            match defined.is_null() {
                true if !given.is_null() => Err(forbidden(request, UNBACKED)),
                false if from_value(given) != from_value(defined.get("podFixed")) => {
                    Err(forbidden(request, MISMATCH))
                }
                _ => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, run};
    use copepod_meta::testing::json;

    const HEAVY: &str = r#"{"metadata":{"name":"heavy"},"handler":"h","overhead":{"podFixed":{"cpu":"1"}}}"#;
    const PLACED: &str = r#"{"metadata":{"name":"placed"},"handler":"h","scheduling":{"nodeSelector":{"disk":"ssd"},"tolerations":[{"key":"k","operator":"Exists"}]}}"#;

    #[tokio::test]
    async fn pods_get_what_their_class_says() {
        let standing = [("node.k8s.io", "runtimeclasses", HEAVY), ("node.k8s.io", "runtimeclasses", PLACED)];
        for (name, spec, want) in [
            ("no class", "{}", r#"{"metadata":{"name":"p"},"spec":{}}"#),
            (
                "no class but an overhead",
                r#"{"overhead":{"cpu":"1"}}"#,
                r#"403 pods "p" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"#,
            ),
            (
                "a class without an overhead",
                r#"{"runtimeClassName":"placed","overhead":{"cpu":"1"}}"#,
                r#"403 pods "p" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"#,
            ),
            (
                "a class that is not there",
                r#"{"runtimeClassName":"gone"}"#,
                r#"403 pods "p" is forbidden: pod rejected: RuntimeClass "gone" not found"#,
            ),
            ("an empty class", r#"{"runtimeClassName":""}"#, "500 resource name may not be empty"),
            ("the overhead", r#"{"runtimeClassName":"heavy"}"#, r#""overhead":{"cpu":"1"}"#),
            (
                "the overhead, said already",
                r#"{"runtimeClassName":"heavy","overhead":{"cpu":"1000m"}}"#,
                r#""overhead":{"cpu":"1"}"#,
            ),
            (
                "another overhead",
                r#"{"runtimeClassName":"heavy","overhead":{"cpu":"2"}}"#,
                r#"403 pods "p" is forbidden: pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"#,
            ),
            (
                "where it may be scheduled",
                r#"{"runtimeClassName":"placed"}"#,
                r#"{"nodeSelector":{"disk":"ssd"},"runtimeClassName":"placed","tolerations":[{"key":"k","operator":"Exists"}]}"#,
            ),
            (
                "a selector and a toleration of its own",
                r#"{"runtimeClassName":"placed","nodeSelector":{"arch":"x"},"tolerations":[{"key":"k","operator":"Equal","value":"v"}]}"#,
                r#"{"nodeSelector":{"arch":"x","disk":"ssd"},"runtimeClassName":"placed","tolerations":[{"key":"k","operator":"Exists"}]}"#,
            ),
            (
                "a selector that contradicts",
                r#"{"runtimeClassName":"placed","nodeSelector":{"disk":"hdd"}}"#,
                r#"403 pods "p" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[disk] = ssd; pod.spec.nodeSelector[disk] = hdd"#,
            ),
        ] {
            let object = format!(r#"{{"metadata":{{"name":"p"}},"spec":{spec}}}"#);
            let case = Case { name, object: &object, want };
            run("RuntimeClass", "", "pods", &standing, case).await;
        }
    }

    /// `key operator value effect seconds`, `-` for nothing, of both lists and of what is left of them.
    #[test]
    fn tolerations_that_another_covers_are_left_out() {
        let all = r#"{"operator":"Exists"}"#;
        let k = r#"{"key":"k","operator":"Exists","effect":"NoExecute"}"#;
        let k9 = r#"{"key":"k","operator":"Exists","effect":"NoExecute","tolerationSeconds":9}"#;
        let k5 = r#"{"key":"k","operator":"Equal","value":"v","effect":"NoExecute","tolerationSeconds":5}"#;
        let l = r#"{"key":"l","operator":"Equal","value":"v"}"#;
        let l_bare = r#"{"key":"l","value":"v"}"#;
        for (first, second, want) in [
            (vec![], vec![], vec![]),
            (vec![l], vec![l], vec![l]),
            (vec![l, k], vec![all], vec![all]),
            (vec![k9], vec![k], vec![k]),
            (vec![k5], vec![k9], vec![k9]),
            (vec![k9], vec![k5], vec![k9]),
            (vec![l], vec![k], vec![l, k]),
            // An operator left out is Equal for the one that covers, but not for the covered.
            (vec![l_bare], vec![l], vec![l_bare]),
            (vec![l], vec![l_bare], vec![l_bare]),
        ] {
            let [first, second, want] =
                [first, second, want].map(|list| list.into_iter().map(json).collect::<Vec<_>>());
            assert_eq!(merge_tolerations(&first, &second), want, "{first:?} {second:?}");
        }
    }
}
