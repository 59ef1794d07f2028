//! apps: workloads made of a pod template. What they share is here.

pub(crate) mod controller_revision;
pub(crate) mod daemon_set;
pub(crate) mod deployment;
pub(crate) mod replica_set;
pub(crate) mod stateful_set;

use copepod_meta::{ErrorList, LabelSelector, Value, names};

use crate::check::At;
use crate::core::pod::options::Options;
use crate::core::pod::{defaults, template, warnings};
use crate::equality::same_as;
use crate::print;
use crate::strategy::Context;

/// The type by whose facts templates are compared.
pub(crate) const TEMPLATE: &str = "io.k8s.api.core.v1.PodTemplateSpec";

/// Defaults of `spec.template`.
pub(crate) fn default_template(object: &mut Value) {
    defaults::template(object.make(&["spec", "template"]));
}

/// Same-version conversions of `spec.template`.
pub(crate) fn convert_template(object: &mut Value) {
    if let Some(template) = object.at_mut(&["spec", "template"]) {
        defaults::convert_template(template);
    }
}

/// Options for `spec.template`. upstream: GetValidationOptionsFromPodTemplate
pub(crate) fn options(cx: &Context, old: Option<&Value>) -> Options {
    let mut options = Options::new(cx, old.map(|o| o.at(&["spec", "template", "spec"])));
    if let Some(old) = old {
        let annotations = old.at(&["spec", "template", "metadata", "annotations"]);
        options.invalid_deletion_cost = crate::core::pod::annotations::deletion_cost(annotations).is_err();
    }
    options
}

/// A selector that must be there and select something; its parsed form if it has one.
pub(crate) fn selector(at: At, empty: &str, e: &mut ErrorList) -> Option<LabelSelector> {
    if !at.is_set() {
        at.required(e, "");
    } else {
        crate::metadata::label_selector(at, false, e);
        if at.value.map_at(&["matchLabels"]).is_empty() && at.value.list_at(&["matchExpressions"]).is_empty()
        {
            at.invalid_printed(e, print::json(at.value, print::LABEL_SELECTOR), empty);
        }
    }
    LabelSelector::from_value(at.value).ok()
}

/// The template's labels must match. A selector that is empty is told of elsewhere.
pub(crate) fn labels_match(selector: &LabelSelector, template: At, e: &mut ErrorList) {
    let labels = template.get("metadata.labels");
    if !selector.is_empty() && !selector.matches_map(labels.map()) {
        invalid_labels(labels, e);
    }
}

/// The labels as upstream prints them: `null` when there are none.
pub(crate) fn invalid_labels(labels: At, e: &mut ErrorList) {
    let printed = match labels.is_set() {
        true => copepod_meta::debug_json::to_string(labels.value),
        false => "null".into(),
    };
    labels.invalid_printed(e, printed, "`selector` does not match template `labels`");
}

/// A template whose pods run for ever. upstream: ValidatePodTemplateSpecForReplicaSet and its siblings
pub(crate) fn forever(at: At, what: &str, e: &mut ErrorList) {
    let restart = at.get("spec.restartPolicy");
    if restart.str() != "Always" {
        restart.not_supported(e, &["Always"]);
    }
    let deadline = at.get("spec.activeDeadlineSeconds");
    if deadline.is_set() {
        deadline.forbidden(e, format!("activeDeadlineSeconds in {what} is not Supported"));
    }
}

/// Selector and template of a Deployment or a ReplicaSet; the text about an empty selector is the same for both.
/// upstream: ValidateDeploymentSpec, ValidateReplicaSetSpec
pub(crate) fn selected_template(spec: At, opts: &Options, e: &mut ErrorList) {
    let at = spec.get("selector");
    match selector(at, "empty selector is invalid for deployment", e) {
        Some(selector) => replica_template(spec.get("template"), &selector, opts, e),
        None => {
            at.invalid_printed(e, print::json(at.value, print::LABEL_SELECTOR), "invalid label selector");
        }
    }
}

/// upstream: ValidatePodTemplateSpecForReplicaSet
fn replica_template(at: At, selector: &LabelSelector, opts: &Options, e: &mut ErrorList) {
    labels_match(selector, at, e);
    template::validate(at, opts, e);
    forever(at, "ReplicaSet", e);
}

/// An immutable selector.
pub(crate) fn immutable_selector(object: &Value, old: &Value, e: &mut ErrorList) {
    let path = ["spec", "selector"];
    if !same_as(object.at(&path), old.at(&path), print::LABEL_SELECTOR) {
        let root = At::root(object);
        let at = root.get("spec.selector");
        let printed = match at.is_set() {
            true => print::json(at.value, print::LABEL_SELECTOR),
            false => "null".into(),
        };
        at.invalid_printed(e, printed, crate::check::IMMUTABLE);
    }
}

/// Numbers that must not be negative.
pub(crate) fn not_negative(at: At, members: &[&str], e: &mut ErrorList) {
    for member in members {
        at.get(member).not_negative(e);
    }
}

/// Numbers of `status` that cannot be above `status.replicas`, and `availableReplicas` above `readyReplicas`.
pub(crate) fn at_most_replicas(at: At, members: &[&str], ready: &str, e: &mut ErrorList) {
    let replicas = at.get("replicas").int();
    for member in members {
        if at.get(member).int() > replicas {
            at.get(member).invalid_int(e, "cannot be greater than status.replicas");
        }
    }
    if at.get("availableReplicas").int() > at.get("readyReplicas").int() {
        at.get("availableReplicas").invalid_int(e, format!("cannot be greater than {ready}"));
    }
}

/// A counter that only grows. upstream: IsDecremented
pub(crate) fn not_decremented(at: At, old: &Value, e: &mut ErrorList) {
    let decremented = match (at.opt_int(), old.as_int()) {
        (None, Some(_)) => true,
        (Some(new), Some(old)) => new < old,
        _ => false,
    };
    if decremented {
        at.invalid_int(e, "cannot be decremented");
    }
}

/// An amount or a percentage. upstream: ValidatePositiveIntOrPercent
pub(crate) fn int_or_percent(at: At, e: &mut ErrorList) {
    match at.value {
        Value::String(text) => at.invalid_each(e, names::percent(text)),
        _ => at.not_negative(e),
    }
}

/// The number in an amount or a percentage; 0 for texts that are neither. upstream: getIntOrPercentValue
pub(crate) fn amount(value: &Value) -> i64 {
    match value {
        Value::String(text) => text.strip_suffix('%').unwrap_or(text).parse().unwrap_or(0),
        value => value.as_int().unwrap_or(0),
    }
}

/// upstream: IsNotMoreThan100Percent
pub(crate) fn at_most_100_percent(at: At, e: &mut ErrorList) {
    let is_percent = at.value.as_str().is_some_and(|text| names::percent(text).is_empty());
    if is_percent && amount(at.value) > 100 {
        at.invalid(e, "must not be greater than 100%");
    }
}

/// Warnings about a workload: its name (on create) and its template (when it changed).
pub(crate) fn warn(object: &Value, old: Option<&Value>, named: bool) -> Vec<String> {
    let mut out = Vec::new();
    let generation = |v: &Value| v.int_at(&["metadata", "generation"]);
    match old {
        Some(old) if generation(old) == generation(object) => return out,
        Some(_) => {}
        None if named => host_name(object, &mut out),
        None => {}
    }
    warnings::of_template(object, "spec.template", &mut out);
    out
}

/// The warning about names that make poor host names of pods.
pub(crate) fn host_name(object: &Value, out: &mut Vec<String>) {
    let wrong = names::dns1123_label(object.str_at(&["metadata", "name"]));
    if !wrong.is_empty() {
        out.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is \
             recommended: {}",
            print::go_list(&wrong)
        ));
    }
}
