//! What autoscalers look at. upstream: pkg/apis/autoscaling/validation validateMetrics; printers formatHPAMetrics

use copepod_meta::{ErrorList, Value, names};

use super::horizontal_pod_autoscaler::{Reference, reference};
use crate::cells::{NONE, UNKNOWN};
use crate::check::At;
use crate::core::resources::{self, quantity};

const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

/// upstream: validateMetrics
pub(super) fn validate(list: At, min_replicas: Option<i64>, options: Reference, e: &mut ErrorList) {
    for metric in list.items() {
        one(metric, options, e);
    }
    let scalable = list.items().any(|m| matches!(m.get("type").str(), "Object" | "External"));
    if min_replicas == Some(0) && !scalable {
        list.forbidden(
            e,
            "must specify at least one Object or External metric to support scaling to zero replicas",
        );
    }
}

/// upstream: validateMetricSpec
fn one(metric: At, options: Reference, e: &mut ErrorList) {
    let ty = metric.get("type");
    if ty.is_empty() {
        ty.required(e, "must specify a metric source type");
    }
    ty.one_of(e, &TYPES);
    let mut present = Vec::new();
    for source in ["object", "external", "pods", "resource", "containerResource"] {
        let at = metric.get(source);
        if !at.is_set() {
            continue;
        }
        present.push(source);
        if present.len() > 1 {
            continue;
        }
        match source {
            "object" => object(at, options, e),
            "external" => external(at, e),
            "pods" => pods(at, e),
            _ => resource(at, source == "containerResource", e),
        }
    }
    let expected = match ty.str() {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "External" => "external",
        "ContainerResource" => "containerResource",
        _ => "",
    };
    if expected.is_empty() {
        ty.one_of(e, &TYPES);
    } else if !present.contains(&expected) {
        metric.get(expected).required(e, "must populate information for the given metric source");
    }
    if present.len() != 1 {
        for source in present.into_iter().filter(|s| *s != expected) {
            metric.get(source).forbidden(e, "must populate the given metric source only");
        }
    }
}

fn object(at: At, options: Reference, e: &mut ErrorList) {
    reference(at.get("describedObject"), options, e);
    identifier(at.get("metric"), e);
    let target = at.get("target");
    goal(target, e);
    if !target.get("value").is_set() && !target.get("averageValue").is_set() {
        target.get("averageValue").required(e, "must set either a target value or averageValue");
    }
}

fn external(at: At, e: &mut ErrorList) {
    identifier(at.get("metric"), e);
    let target = at.get("target");
    goal(target, e);
    let (value, average) = (target.get("value"), target.get("averageValue"));
    match (value.is_set(), average.is_set()) {
        (false, false) => {
            average.required(e, "must set either a target value for metric or a per-pod target");
        }
        (true, true) => {
            value.forbidden(e, "may not set both a target value for metric and a per-pod target");
        }
        _ => {}
    }
}

fn pods(at: At, e: &mut ErrorList) {
    identifier(at.get("metric"), e);
    let target = at.get("target");
    goal(target, e);
    if !target.get("averageValue").is_set() {
        target.get("averageValue").required(e, "must specify a positive target averageValue");
    }
}

/// upstream: validateResourceSource, validateContainerResourceSource
fn resource(at: At, of_container: bool, e: &mut ErrorList) {
    let (name, container) = (at.get("name"), at.get("container"));
    if name.is_empty() {
        name.required(e, "must specify a resource name");
    } else if of_container {
        resources::validate_container_name(name, name.str(), e);
    }
    if of_container {
        match container.is_empty() {
            true => container.required(e, "must specify a container"),
            false => container.dns_label(e),
        }
    }
    let target = at.get("target");
    goal(target, e);
    let (percent, average) = (target.get("averageUtilization"), target.get("averageValue"));
    match (percent.is_set(), average.is_set()) {
        (false, false) => {
            percent.required(e, "must set either a target raw value or a target utilization");
        }
        (true, true) => {
            average.forbidden(e, "may not set both a target raw value and a target utilization");
        }
        _ => {}
    }
}

/// upstream: validateMetricTarget
fn goal(at: At, e: &mut ErrorList) {
    let ty = at.get("type");
    if ty.is_empty() {
        ty.required(e, "must specify a metric target type");
    }
    if !matches!(ty.str(), "Utilization" | "Value" | "AverageValue") {
        ty.invalid(e, "must be either Utilization, Value, or AverageValue");
    }
    for amount in [at.get("value"), at.get("averageValue")] {
        if amount.is_set() && quantity(amount.value).sign() <= 0 {
            amount.invalid(e, "must be positive");
        }
    }
    let percent = at.get("averageUtilization");
    if percent.opt_int().is_some_and(|n| n < 1) {
        percent.invalid(e, "must be greater than 0");
    }
}

fn identifier(at: At, e: &mut ErrorList) {
    let name = at.get("name");
    match name.is_empty() {
        true => name.required(e, "must specify a metric name"),
        false => name.invalid_each(e, names::path_segment(name.str())),
    }
}

/// upstream: formatHPAMetrics
pub(super) fn text(specs: &[Value], statuses: &[Value]) -> String {
    const SHOWN_MAX: usize = 2;
    if specs.is_empty() {
        return NONE.into();
    }
    let none = Value::Null;
    let each = specs.iter().enumerate().map(|(i, spec)| one_text(spec, statuses.get(i).unwrap_or(&none)));
    let all: Vec<String> = each.take(SHOWN_MAX).collect();
    let shown = all.join(", ");
    match specs.len().checked_sub(SHOWN_MAX) {
        Some(more @ 1..) => format!("{shown} + {more} more..."),
        _ => shown,
    }
}

fn one_text(spec: &Value, status: &Value) -> String {
    let source = match spec.str_at(&["type"]) {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".into(),
    };
    let (target, status) = (spec.at(&[source, "target"]), status.get(source));
    let current = status.get("current");
    let amount = |v: &Value| quantity(v).to_string();
    // Absent amounts of what was measured print as Go prints a nil pointer.
    let measured = |member: &str, needed: bool| match current.get(member) {
        _ if status.is_null() => UNKNOWN.to_string(),
        Value::Null if needed => UNKNOWN.to_string(),
        Value::Null => "<nil>".to_string(),
        value => amount(value),
    };
    let average = target.get("averageValue");
    match source {
        "external" | "object" if !average.is_null() => {
            format!("{}/{} (avg)", measured("averageValue", true), amount(average))
        }
        "external" | "object" => format!("{}/{}", measured("value", false), amount(target.get("value"))),
        "pods" => format!("{}/{}", measured("averageValue", false), amount(average)),
        _ => {
            let name = spec.str_at(&[source, "name"]);
            if !average.is_null() {
                return format!("{name}: {}/{}", measured("averageValue", false), amount(average));
            }
            let percent = |v: &Value, none: &str| v.as_int().map_or(none.to_string(), |n| format!("{n}%"));
            let now = percent(current.get("averageUtilization"), UNKNOWN);
            format!("{name}: {now}/{}", percent(target.get("averageUtilization"), "<auto>"))
        }
    }
}
