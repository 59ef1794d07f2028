//! Label selectors.

use std::collections::BTreeMap;

use copepod_meta::scheduling::requirement_holds;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

/// Whether labels match. An empty selector matches everything; callers refuse it where that is not meant.
pub fn matches(selector: &LabelSelector, meta: &ObjectMeta) -> bool {
    let empty = BTreeMap::new();
    let labels = meta.labels.as_ref().unwrap_or(&empty);
    matches_labels(selector, labels)
}

/// The same for a plain map of labels.
pub fn matches_labels(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let values = requirement.values.iter().flatten().map(String::as_str);
            let value = labels.get(&requirement.key).map(String::as_str);
            requirement_holds(&requirement.operator, values, value)
        })
}

/// Whether a selector selects everything.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.iter().flatten().next().is_none()
        && selector.match_expressions.iter().flatten().next().is_none()
}
