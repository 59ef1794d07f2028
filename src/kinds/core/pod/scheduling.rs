//! Where a pod may run: affinity, tolerations, spread constraints, gates. upstream: validation.go

use copepod_meta::{ErrorList, Value, names};
use std::collections::{BTreeMap, BTreeSet};

use super::options::Options;
use crate::check::At;
use crate::metadata::{label_name, label_selector};

const VALUES_NEEDED: &str = "must be specified when `operator` is 'In' or 'NotIn'";
const VALUES_REFUSED: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
const NO_OPERATOR: &str = "not a valid selector operator";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
/// Taint effects, in upstream's order.
pub const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// upstream: validateAffinity
pub fn affinity(at: At, opts: &Options, e: &mut ErrorList) {
    let node = at.get("nodeAffinity");
    let required = node.get(REQUIRED);
    if required.is_set() {
        node_selector(required, opts.invalid_node_affinity_values, e);
    }
    for term in node.get(PREFERRED).items() {
        weight(term, e);
        node_selector_term(term.get("preference"), true, e);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pod = at.get(kind);
        for term in pod.get(REQUIRED).items() {
            pod_affinity_term(term, opts.invalid_affinity_values, e);
        }
        for term in pod.get(PREFERRED).items() {
            weight(term, e);
            pod_affinity_term(term.get("podAffinityTerm"), opts.invalid_affinity_values, e);
        }
    }
}

fn weight(term: At, e: &mut ErrorList) {
    let weight = term.get("weight");
    if !(1..=100).contains(&weight.int()) {
        weight.invalid_int(e, "must be in the range 1-100");
    }
}

/// upstream: ValidateNodeSelector
pub fn node_selector(at: At, invalid_values: bool, e: &mut ErrorList) {
    let terms = at.get("nodeSelectorTerms");
    if terms.is_empty() {
        return terms.required(e, "must have at least one node selector term");
    }
    for term in terms.items() {
        node_selector_term(term, invalid_values, e);
    }
}

/// upstream: ValidateNodeSelectorTerm
pub fn node_selector_term(at: At, invalid_values: bool, e: &mut ErrorList) {
    for requirement in at.get("matchExpressions").items() {
        node_label_requirement(requirement, invalid_values, e);
    }
    for requirement in at.get("matchFields").items() {
        node_field_requirement(requirement, e);
    }
}

/// upstream: ValidateNodeSelectorRequirement
fn node_label_requirement(at: At, invalid_values: bool, e: &mut ErrorList) {
    let (operator, values, key) = (at.get("operator"), at.get("values"), at.get("key"));
    match operator.str() {
        "In" | "NotIn" if values.is_empty() => values.required(e, VALUES_NEEDED),
        "Exists" | "DoesNotExist" if !values.is_empty() => values.forbidden(e, VALUES_REFUSED),
        "Gt" | "Lt" if values.len() != 1 => {
            values.required(e, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => operator.invalid(e, NO_OPERATOR),
    }
    label_name(key, key.str(), e);
    if !invalid_values {
        for value in values.items() {
            value.invalid_each(e, names::label_value(value.str()));
        }
    }
}

/// upstream: ValidateNodeFieldSelectorRequirement
fn node_field_requirement(at: At, e: &mut ErrorList) {
    let (operator, values, key) = (at.get("operator"), at.get("values"), at.get("key"));
    match operator.str() {
        "In" | "NotIn" if values.len() != 1 => values
            .required(e, "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"),
        "In" | "NotIn" => {}
        _ => operator.invalid(e, NO_OPERATOR),
    }
    if key.str() != "metadata.name" {
        return key.invalid(e, "not a valid field selector key");
    }
    for value in values.items() {
        value.dns_subdomain(e);
    }
}

/// upstream: validatePodAffinityTerm
fn pod_affinity_term(at: At, invalid_values: bool, e: &mut ErrorList) {
    label_selector(at.get("labelSelector"), invalid_values, e);
    label_selector(at.get("namespaceSelector"), invalid_values, e);
    for name in at.value.list_at(&["namespaces"]) {
        at.get("namespace").with(name).dns_label(e);
    }
    match_label_keys(at, e);
    let key = at.get("topologyKey");
    if key.is_empty() {
        key.required(e, "can not be empty");
    }
    label_name(key, key.str(), e);
}

/// upstream: ValidateMatchLabelKeysAndMismatchLabelKeys
pub fn match_label_keys(at: At, e: &mut ErrorList) {
    let (matching, mismatching) = (at.get("matchLabelKeys"), at.get("mismatchLabelKeys"));
    let selector = at.get("labelSelector");
    for keys in [matching, mismatching] {
        if keys.is_empty() {
            continue;
        }
        if !selector.is_set() {
            keys.forbidden(e, "must not be specified when labelSelector is not set");
            continue;
        }
        for key in keys.items() {
            label_name(key, key.str(), e);
        }
    }
    let index: BTreeMap<&str, usize> =
        matching.items().enumerate().map(|(i, k)| (k.value.as_str().unwrap_or(""), i)).collect();
    let mut seen: BTreeSet<&str> = selector.value.map_at(&["matchLabels"]).keys().collect();
    for expression in selector.value.list_at(&["matchExpressions"]) {
        let key = expression.str_at(&["key"]);
        // The selector made of matchLabelKeys is merged already: seen twice means that the user gave it too.
        if let Some(i) = index.get(key).filter(|_| seen.contains(key)) {
            let at = at.index(*i);
            at.invalid_str(e, key, "exists in both matchLabelKeys and labelSelector");
        }
        seen.insert(key);
    }
    for key in matching.items().filter(|k| mismatching.value.list_at(&[]).contains(k.value)) {
        key.invalid(e, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

/// upstream: ValidateMatchLabelKeysInTopologySpread
fn legacy_match_label_keys(at: At, e: &mut ErrorList) {
    let (keys, selector) = (at.get("matchLabelKeys"), at.get("labelSelector"));
    if keys.is_empty() {
        return;
    }
    if !selector.is_set() {
        keys.forbidden(e, "must not be specified when labelSelector is not set");
    }
    let expressions = selector.value.list_at(&["matchExpressions"]).iter().map(|x| x.str_at(&["key"]));
    let taken: BTreeSet<&str> = selector.value.map_at(&["matchLabels"]).keys().chain(expressions).collect();
    for key in keys.items() {
        label_name(key, key.str(), e);
        if taken.contains(key.str()) {
            key.invalid(e, "exists in both matchLabelKeys and labelSelector");
        }
    }
}

/// upstream: validateTopologySpreadConstraints
pub fn spread_constraints(list: At, opts: &Options, e: &mut ErrorList) {
    let all = list.value.list_at(&[]);
    for (i, constraint) in list.items().enumerate() {
        let (key, action) = (constraint.get("topologyKey"), constraint.get("whenUnsatisfiable"));
        positive(constraint.get("maxSkew"), e);
        if key.is_empty() {
            key.required(e, "can not be empty");
        }
        action.one_of(e, &["DoNotSchedule", "ScheduleAnyway"]);
        let repeats = |other: &&Value| {
            other.str_at(&["topologyKey"]) == key.str()
                && other.str_at(&["whenUnsatisfiable"]) == action.str()
        };
        if all[i + 1..].iter().find(repeats).is_some() {
            let pair = format!("{{{}, {}}}", key.str(), action.str());
            constraint.get("{topologyKey, whenUnsatisfiable}").duplicate_str(e, &pair);
        }
        let domains = constraint.get("minDomains");
        if domains.is_set() {
            positive(domains, e);
            if action.str() != "DoNotSchedule" {
                let message = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                    action.str()
                );
                domains.invalid_int(e, message);
            }
        }
        for member in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let policy = constraint.get(member);
            if policy.is_set() {
                policy.one_of(e, &["Honor", "Ignore"]);
            }
        }
        if opts.legacy_spread_keys {
            legacy_match_label_keys(constraint, e);
        } else {
            match_label_keys(constraint, e);
        }
        if !opts.invalid_spread_selectors {
            label_selector(constraint.get("labelSelector"), false, e);
        }
    }
}

/// Must be above 0. upstream: ValidatePositiveField
pub fn positive(at: At, e: &mut ErrorList) {
    if at.int() <= 0 {
        at.invalid_int(e, "must be greater than zero");
    }
}

/// upstream: ValidateTolerations
pub fn tolerations(list: At, comparison: bool, e: &mut ErrorList) {
    for toleration in list.items() {
        let (key, operator) = (toleration.get("key"), toleration.get("operator"));
        let (value, effect) = (toleration.get("value"), toleration.get("effect"));
        if !key.is_empty() {
            label_name(key, key.str(), e);
        } else if operator.str() != "Exists" {
            operator.invalid(
                e,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if toleration.get("tolerationSeconds").is_set() && effect.str() != "NoExecute" {
            effect.invalid(e, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        toleration_operator(operator, value, comparison, e);
        if !effect.is_empty() {
            effect.one_of(e, EFFECTS);
        }
    }
}

fn toleration_operator(operator: At, value: At, comparison: bool, e: &mut ErrorList) {
    match operator.str() {
        "Equal" | "" => {
            let wrong = names::label_value(value.str());
            if !wrong.is_empty() {
                operator.invalid_str(e, value.str(), wrong.join(";"));
            }
        }
        "Exists" => {
            if !value.is_empty() {
                operator.invalid_str(e, value.str(), "value must be empty when `operator` is 'Exists'");
            }
        }
        "Lt" | "Gt" if !comparison => operator.not_supported(e, &["Equal", "Exists", "Lt", "Gt"]),
        "Lt" | "Gt" => {
            if value.str().parse::<i64>().is_err() {
                let text = copepod_meta::field::quote(value.str());
                value.invalid(e, format!("strconv.ParseInt: parsing {text}: invalid syntax"));
            }
        }
        _ => operator.not_supported(e, &["Equal", "Exists"]),
    }
}

/// upstream: validateSchedulingGates
pub fn gates(list: At, e: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for gate in list.items() {
        let name = gate.get("name").str();
        for message in names::qualified_name(name) {
            gate.invalid_str(e, name, message);
        }
        if !seen.insert(name) {
            gate.duplicate_str(e, name);
        }
    }
}
