//! What webhooks and policies are asked about. upstream: pkg/apis/admissionregistration/validation
//!
//! Expressions are checked in all but this: that they compile as CEL.

use copepod_meta::{ErrorList, Value, names};
use std::collections::BTreeSet;

use crate::cells::UNSET;
use crate::check::At;
use crate::core::pod::defaults::{each, fill_nil};
use crate::metadata;

/// Names that are not for the API.
const STATIC_SUFFIX: &str = ".static.k8s.io";

/// The complaint about a name of the sort that manifests on the server's disk have.
pub(super) fn reserved(object: &Value) -> Option<String> {
    object.str_at(&["metadata", "name"]).ends_with(STATIC_SUFFIX).then(|| {
        format!(
            "names ending with \"{STATIC_SUFFIX}\" are reserved for static manifest-based configurations and cannot be \
             managed via the API"
        )
    })
}

/// upstream: SetDefaults_MatchResources, SetDefaults_Rule
pub(super) fn default_resources(at: &mut Value, path: &[&str]) {
    let Some(resources) = at.at_mut(path).filter(|r| !r.is_null()) else { return };
    fill_nil(resources, "matchPolicy", "Equivalent");
    fill_nil(resources, "namespaceSelector", Value::map());
    fill_nil(resources, "objectSelector", Value::map());
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in each(resources, &[list]) {
            fill_nil(rule, "scope", "*");
        }
    }
}

/// upstream: validateMatchResources
pub(super) fn match_resources(at: At, e: &mut ErrorList) {
    if !at.is_set() {
        return;
    }
    let policy = at.get("matchPolicy");
    match policy.is_set() {
        true => policy.one_of(e, &["Equivalent", "Exact"]),
        false => policy.required(e, ""),
    }
    for selector in ["namespaceSelector", "objectSelector"].map(|m| at.get(m)) {
        match selector.is_set() {
            true => metadata::label_selector(selector, false, e),
            false => selector.required(e, ""),
        }
    }
    for list in ["resourceRules", "excludeResourceRules"].map(|m| at.get(m)) {
        for rule in list.items() {
            let mut seen = BTreeSet::new();
            for name in rule.get("resourceNames").items() {
                name.invalid_each(e, names::path_segment(name.str()));
                if !seen.insert(name.str()) {
                    name.duplicate(e);
                }
            }
            rule_with_operations(rule, e);
        }
    }
}

/// Deletions cannot be mutated. upstream: supportedMutatingOperations
pub(super) fn no_deletions(at: At, e: &mut ErrorList) {
    let rules = at.get("resourceRules");
    let shown = rules.get("operations");
    for rule in rules.value.list_at(&[]) {
        for operation in rule.list_at(&["operations"]) {
            shown.with(operation).one_of(e, &["*", "CONNECT", "CREATE", "UPDATE"]);
        }
    }
}

/// upstream: validateParamRef
pub(super) fn param_ref(at: At, e: &mut ErrorList) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    if !at.is_set() {
        return;
    }
    let (name, selector) = (at.get("name"), at.get("selector"));
    if !name.is_empty() {
        name.invalid_each(e, names::path_segment(name.str()));
        if selector.is_set() {
            name.forbidden(e, EXCLUSIVE);
        }
    }
    if selector.is_set() {
        metadata::label_selector(selector, false, e);
        if !name.is_empty() {
            selector.forbidden(e, EXCLUSIVE);
        }
    } else if name.is_empty() {
        at.required(e, "one of name or selector must be specified");
    }
    let action = at.get("parameterNotFoundAction");
    if action.need(e) {
        action.one_of(e, &["Deny", "Allow"]);
    }
}

/// How a binding's parameters are called in tables.
pub(super) fn param_text(at: &Value) -> String {
    let (namespace, name) = (at.str_at(&["namespace"]), at.str_at(&["name"]));
    match (name, namespace) {
        ("", _) if at.get("selector").is_null() => UNSET.into(),
        ("", _) => selector_text(at.get("selector")),
        (name, "") => format!("*/{name}"),
        (name, namespace) => format!("{namespace}/{name}"),
    }
}

/// As the generated code of Go's protobuf types prints it.
fn selector_text(selector: &Value) -> String {
    let labels = selector.map_at(&["matchLabels"]).iter();
    let labels: String = labels.map(|(k, v)| format!("{k}: {},", v.as_str().unwrap_or(""))).collect();
    let one = |x: &Value| {
        let values: Vec<&str> = x.list_at(&["values"]).iter().filter_map(Value::as_str).collect();
        format!(
            "LabelSelectorRequirement{{Key:{},Operator:{},Values:{},}},",
            x.str_at(&["key"]),
            x.str_at(&["operator"]),
            crate::print::go_list(&values)
        )
    };
    let expressions: String = selector.list_at(&["matchExpressions"]).iter().map(one).collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

/// upstream: validateParamKind
pub(super) fn param_kind(at: At, e: &mut ErrorList) {
    let (version, kind) = (at.get("apiVersion"), at.get("kind"));
    if version.need(e) {
        group_version(version, e);
    }
    if kind.need(e) {
        let wrong = names::dns1035_label(&kind.str().to_lowercase());
        if !wrong.is_empty() {
            let wrong = wrong.join(",");
            kind.invalid(e, format!("may have mixed case, but should otherwise match: {wrong}"));
        }
    }
}

fn group_version(at: At, e: &mut ErrorList) {
    let text = at.str();
    let (group, version) = match text.matches('/').count() {
        _ if text == "/" => ("", ""),
        0 => ("", text),
        1 => text.split_once('/').unwrap_or(("", text)),
        _ => return at.invalid(e, format!("unexpected GroupVersion string: {text}")),
    };
    let wrong = names::dns1123_subdomain(group);
    if !group.is_empty() && !wrong.is_empty() {
        at.invalid_str(e, group, wrong.join(","));
    }
    let wrong = names::dns1035_label(version);
    if version.is_empty() {
        at.invalid(e, "version must be specified");
    } else if !wrong.is_empty() {
        at.invalid_str(e, version, wrong.join(","));
    }
}

fn has_wildcard(list: At) -> bool {
    list.items().any(|item| item.str() == "*")
}

/// upstream: validateRuleWithOperations
pub(super) fn rule_with_operations(rule: At, e: &mut ErrorList) {
    let alone = |list: At, what: &str, e: &mut ErrorList| {
        list.need(e);
        if list.len() > 1 && has_wildcard(list) {
            list.invalid(e, format!("if '*' is present, must not specify other {what}"));
        }
    };
    let operations = rule.get("operations");
    alone(operations, "operations", e);
    for operation in operations.items() {
        operation.one_of(e, &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]);
    }
    alone(rule.get("apiGroups"), "API groups", e);
    alone(rule.get("apiVersions"), "API versions", e);
    for version in rule.get("apiVersions").items() {
        version.need(e);
    }
    resources(rule.get("resources"), e);
    let scope = rule.get("scope");
    if scope.is_set() {
        scope.one_of(e, &["*", "Cluster", "Namespaced"]);
    }
}

/// upstream: validateResources
fn resources(list: At, e: &mut ErrorList) {
    list.need(e);
    // Resources of which all subresources were named; subresources that were named of all resources.
    let (mut wide, mut deep) = (BTreeSet::new(), BTreeSet::new());
    let mut plain = false;
    for item in list.items() {
        let text = item.str();
        if !item.need(e) {
            continue;
        }
        let Some((resource, sub)) = text.split_once('/') else {
            plain = text != "*";
            continue;
        };
        if wide.contains(resource) {
            item.invalid(e, format!("if '{resource}/*' is present, must not specify {text}"));
        }
        if deep.contains(sub) {
            item.invalid(e, format!("if '*/{sub}' is present, must not specify {text}"));
        }
        if sub == "*" {
            wide.insert(resource);
        }
        if resource == "*" {
            deep.insert(sub);
        }
    }
    let has = |text: &str| list.items().any(|item| item.str() == text);
    if list.len() > 1 && has("*/*") {
        list.invalid(e, "if '*/*' is present, must not specify other resources");
    }
    if has("*") && plain {
        list.invalid(e, "if '*' is present, must not specify other resources without subresources");
    }
}

/// upstream: validateMatchConditions
pub(super) fn match_conditions(list: At, e: &mut ErrorList) {
    const MAX: usize = 64;
    if list.len() > MAX {
        list.too_many(e, list.len(), MAX);
    }
    let mut seen = BTreeSet::new();
    for condition in list.items() {
        let (name, expression) = (condition.get("name"), condition.get("expression"));
        if expression.str().trim().is_empty() {
            expression.required(e, "");
        }
        if name.need(e) {
            name.qualified_name(e);
            if !seen.insert(name.str()) {
                name.duplicate(e);
            }
        }
    }
}
