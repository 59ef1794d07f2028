//! What is a pod's own by its number: name, host name, labels, claims. Pure.
//!
//! upstream: pkg/controller/statefulset/stateful_set_utils.go

use copepod_client::object::{MetaExt, controller_reference};
use serde_json::{Map, Value, json};

use crate::common::{revisions, template};
use crate::kinds::{Pod, StatefulSet, Template};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The name of a pod.
pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name())
}

/// The number in a pod's name; `None` if the name is none of the set's.
pub(super) fn ordinal_of(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let number = pod.metadata.name().strip_prefix(set.metadata.name())?.strip_prefix('-')?;
    number.parse().ok().filter(|ordinal: &i32| ordinal.to_string() == number)
}

/// Whether the set wants a pod of this number.
pub(super) fn is_wanted(set: &StatefulSet, ordinal: i32) -> bool {
    let first = set.spec.ordinals.start;
    (first..first.saturating_add(set.spec.replicas.unwrap_or(1))).contains(&ordinal)
}

/// The names of the claims of a pod.
pub(super) fn claim_names(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = String> {
    let names = set.spec.volume_claim_templates.iter();
    names.map(move |wanted| claim_name(set, wanted["metadata"]["name"].as_str().unwrap_or_default(), ordinal))
}

/// Whether a claim of this name is one of the set's.
pub(super) fn is_claim_of(set: &StatefulSet, claim: &str) -> bool {
    set.spec.volume_claim_templates.iter().any(|wanted| {
        let template = wanted["metadata"]["name"].as_str().unwrap_or_default();
        let rest = claim.strip_prefix(template).and_then(|rest| rest.strip_prefix('-'));
        rest.and_then(|rest| rest.strip_prefix(set.metadata.name())).is_some_and(|rest| rest.starts_with('-'))
    })
}

/// The claims of a pod.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<Value> {
    let claim = |wanted: &Value| {
        let mut claim = wanted.clone();
        let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
        let mut labels = wanted["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        for (key, value) in set.spec.selector.match_labels.iter().flatten() {
            labels.insert(key.clone(), json!(value));
        }
        let mut metadata = Map::new();
        metadata.insert("name".into(), json!(claim_name(set, name, ordinal)));
        metadata.insert("namespace".into(), json!(MetaExt::namespace(&set.metadata)));
        metadata.insert("labels".into(), Value::Object(labels));
        if let Some(annotations) = wanted["metadata"].get("annotations") {
            metadata.insert("annotations".into(), annotations.clone());
        }
        claim["metadata"] = Value::Object(metadata);
        claim["apiVersion"] = json!("v1");
        claim["kind"] = json!("PersistentVolumeClaim");
        if let Some(fields) = claim.as_object_mut() {
            fields.remove("status");
        }
        claim
    };
    set.spec.volume_claim_templates.iter().map(claim).collect()
}

fn claim_name(set: &StatefulSet, template: &str, ordinal: i32) -> String {
    format!("{template}-{}-{ordinal}", set.metadata.name())
}

/// The pod of a number, of one state of the template.
pub(super) fn pod(set: &StatefulSet, from: &Template, revision: &str, ordinal: i32) -> Value {
    let name = pod_name(set, ordinal);
    let owner = controller_reference(set);
    let mut pod = template::pod(&from.0, MetaExt::namespace(&set.metadata), set.metadata.name(), &owner);
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.remove("generateName");
    }
    pod["metadata"]["name"] = json!(name);
    let labels = &mut pod["metadata"]["labels"];
    labels[POD_NAME] = json!(name);
    labels[POD_INDEX] = json!(ordinal.to_string());
    labels[revisions::HASH_LABEL] = json!(revision);
    pod["spec"]["hostname"] = json!(name);
    pod["spec"]["subdomain"] = json!(set.spec.service_name);
    let templates: Vec<&str> = set
        .spec
        .volume_claim_templates
        .iter()
        .filter_map(|claim| claim["metadata"]["name"].as_str())
        .collect();
    let known = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    let mut volumes: Vec<Value> = templates
        .iter()
        .map(|name| {
            let claim = claim_name(set, name, ordinal);
            json!({"name": name, "persistentVolumeClaim": {"claimName": claim}})
        })
        .collect();
    volumes.extend(known.into_iter().filter(|volume| !templates.iter().any(|name| volume["name"] == *name)));
    if !volumes.is_empty() {
        pod["spec"]["volumes"] = json!(volumes);
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_pod_has_its_own_name_and_claims() {
        let set: StatefulSet = serde_json::from_value(json!({"metadata": {"name": "db", "namespace": "x"},
            "spec": {"serviceName": "svc", "selector": {"matchLabels": {"app": "db"}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"kept": 1}}]}}))
        .expect("a set");
        let template = Template(Arc::new(json!({"spec": {"volumes": [{"name": "data"}, {"name": "tmp"}]}})));
        let made = pod(&set, &template, "db-1", 2);
        assert_eq!(made["metadata"]["name"], "db-2");
        assert_eq!(made["spec"]["hostname"], "db-2");
        assert_eq!(made["spec"]["subdomain"], "svc");
        assert_eq!(
            made["spec"]["volumes"],
            json!([
            {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-2"}}, {"name": "tmp"}])
        );
        assert_eq!(
            claims(&set, 2)[0]["metadata"],
            json!({"name": "data-db-2", "namespace": "x", "labels": {"app": "db"}})
        );
        assert_eq!(claims(&set, 2)[0]["spec"]["kept"], 1);
        let pod: Pod = serde_json::from_value(made).expect("a pod");
        assert_eq!(ordinal_of(&set, &pod), Some(2));
    }
}
