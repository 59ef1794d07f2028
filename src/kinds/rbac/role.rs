//! Role and ClusterRole.

use copepod_meta::{ErrorList, Value};

use crate::check::At;
use crate::metadata::{self, path_segment_name};
use crate::strategy::{Context, Strategy};

/// In a namespace.
pub struct Role;
/// In the cluster, perhaps made of other ones.
pub struct ClusterRole;

impl Strategy for Role {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        path_segment_name(name, prefix)
    }
    fn validate_create(&self, _cx: &Context, role: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(role, e);
        rules(role, true, e);
    }
    fn validate_update(&self, _cx: &Context, role: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_core(role, true, &path_segment_name, e);
        rules(role, true, e);
        metadata::validate_update_core(role, old, e);
    }
    fn allow_create_on_update(&self) -> bool {
        true
    }
}

impl Strategy for ClusterRole {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        path_segment_name(name, prefix)
    }
    fn validate_create(&self, _cx: &Context, role: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(role, e);
        cluster(role, None, e);
    }
    fn validate_update(&self, _cx: &Context, role: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_core(role, false, &path_segment_name, e);
        cluster(role, Some(old), e);
        metadata::validate_update_core(role, old, e);
    }
    fn allow_create_on_update(&self) -> bool {
        true
    }
}

/// upstream: ValidateClusterRole
fn cluster(role: &Value, old: Option<&Value>, e: &mut ErrorList) {
    rules(role, false, e);
    let root = At::root(role);
    if !root.get("aggregationRule").is_set() {
        return;
    }
    let path = ["aggregationRule", "clusterRoleSelectors"];
    let stored = old.map_or(&[][..], |o| o.list_at(&path));
    let invalid_values = stored.iter().any(metadata::selector_has_invalid_value);
    let selectors = root.get("aggregationRule.clusterRoleSelectors");
    if selectors.is_empty() {
        selectors.required(e, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for selector in selectors.items() {
        metadata::label_selector(selector, invalid_values, e);
        if copepod_meta::LabelSelector::from_value(selector.value).is_err() {
            // Upstream prints the selector that it could not make.
            selector.invalid_printed(e, "null".into(), "invalid label selector.");
        }
    }
}

/// upstream: ValidatePolicyRule
fn rules(role: &Value, namespaced: bool, e: &mut ErrorList) {
    let root = At::root(role);
    for rule in root.get("rules").items() {
        if rule.get("verbs").is_empty() {
            rule.get("verbs").required(e, "verbs must contain at least one value");
        }
        let urls = rule.get("nonResourceURLs");
        if !urls.is_empty() {
            if namespaced {
                urls.invalid(e, "namespaced rules cannot apply to non-resource URLs");
            }
            if ["apiGroups", "resources", "resourceNames"].iter().any(|m| !rule.get(m).is_empty()) {
                urls.invalid(e, "rules cannot apply to both regular resources and non-resource URLs");
            }
            continue;
        }
        if rule.get("apiGroups").is_empty() {
            rule.get("apiGroups").required(e, "resource rules must supply at least one api group");
        }
        if rule.get("resources").is_empty() {
            rule.get("resources").required(e, "resource rules must supply at least one resource");
        }
    }
}
