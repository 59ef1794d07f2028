//! Pods from templates: raw JSON in, raw JSON out.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Map, Value, json};

/// Characters of names that read well and spell no words. upstream: apimachinery/pkg/util/rand/rand.go alphanums
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest generated name that leaves room for a suffix. upstream: apiserver/pkg/storage/names maxGeneratedNameLength
const PREFIX_MAX: usize = 253 - 5;

/// The pod that a template describes, with `prefix-` as the start of its generated name.
///
/// upstream: pkg/controller/controller_utils.go GetPodFromTemplate
pub fn pod(template: &Value, namespace: &str, prefix: &str, owner: &OwnerReference) -> Value {
    let mut metadata = Map::new();
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field).filter(|value| !value.is_null()) {
            metadata.insert(field.into(), value.clone());
        }
    }
    metadata.insert("generateName".into(), json!(generate_prefix(prefix)));
    metadata.insert("namespace".into(), json!(namespace));
    metadata.insert("ownerReferences".into(), json!([owner]));
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] })
}

/// `name-`, unless that would be too long for a pod. upstream: controller_utils.go getPodsPrefix
fn generate_prefix(name: &str) -> String {
    let prefix = format!("{name}-");
    if prefix.len() <= PREFIX_MAX { prefix } else { name.to_owned() }
}

/// A short hash of a template: stable for equal templates, different with another collision count.
///
/// The value differs from upstream's, which hashes a dump of Go structs; a ReplicaSet made by upstream is found by its
/// template, not by the hash, so that both can take turns.
pub fn hash(template: &Value, collisions: Option<i32>) -> String {
    let mut hash = Fnv32a::new();
    hash.write(canonical(template).as_bytes());
    if let Some(count) = collisions {
        hash.write(&i64::from(count).to_le_bytes());
    }
    safe_encode(&hash.0.to_string())
}

/// JSON in which absent, null and empty are the same: what the server drops must not change the hash.
fn canonical(value: &Value) -> String {
    fn strip(value: &Value) -> Option<Value> {
        match value {
            Value::Null => None,
            Value::Object(fields) => {
                let fields: Map<_, _> =
                    fields.iter().filter_map(|(key, value)| Some((key.clone(), strip(value)?))).collect();
                (!fields.is_empty()).then_some(Value::Object(fields))
            }
            Value::Array(items) if items.is_empty() => None,
            // `emptyDir: {}` in a list item has a meaning by its key; items themselves are kept.
            Value::Array(items) => Some(Value::Array(items.to_vec())),
            other => Some(other.clone()),
        }
    }
    strip(value).unwrap_or(Value::Null).to_string()
}

/// upstream: apimachinery/pkg/util/rand/rand.go SafeEncodeString
fn safe_encode(text: &str) -> String {
    text.bytes().map(|byte| SAFE[usize::from(byte) % SAFE.len()] as char).collect()
}

/// A random suffix as generated names have it.
pub fn random_suffix(length: usize) -> String {
    (0..length).map(|_| SAFE[rand::random::<u32>() as usize % SAFE.len()] as char).collect()
}

struct Fnv32a(u32);

impl Fnv32a {
    fn new() -> Self {
        Self(0x811c_9dc5)
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_templates_have_equal_hashes() {
        let a = json!({"spec": {"containers": [{"name": "c"}], "nodeSelector": null}, "metadata": {}});
        let b = json!({"spec": {"containers": [{"name": "c"}]}});
        let c = json!({"spec": {"containers": [{"name": "d"}]}});
        assert_eq!(hash(&a, None), hash(&b, None));
        assert_ne!(hash(&a, None), hash(&c, None));
        assert_ne!(hash(&a, None), hash(&a, Some(1)));
    }

    #[test]
    fn a_pod_takes_all_of_its_template() {
        let template = json!({"metadata": {"labels": {"a": "b"}, "creationTimestamp": null},
            "spec": {"containers": [], "fieldOfANewerServer": 1}});
        let owner = OwnerReference { name: "o".into(), ..OwnerReference::default() };
        let pod = pod(&template, "ns", "web", &owner);
        assert_eq!(pod["metadata"]["generateName"], "web-");
        assert_eq!(pod["metadata"]["labels"]["a"], "b");
        assert_eq!(pod["spec"]["fieldOfANewerServer"], 1);
        assert!(pod["metadata"].get("creationTimestamp").is_none());
    }
}
