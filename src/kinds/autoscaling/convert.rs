//! Between autoscaling/v1 and v2 (the hub). What v1 has no fields for it keeps in annotations, as JSON.
//!
//! upstream: pkg/apis/autoscaling/v1/conversion.go
//!
//! upstream, too: Convert_autoscaling_ContainerResourceMetricSource_To_v1_ContainerResourceMetricSource,
//! Convert_autoscaling_ContainerResourceMetricStatus_To_v1_ContainerResourceMetricStatus,
//! Convert_autoscaling_ExternalMetricSource_To_v1_ExternalMetricSource,
//! Convert_autoscaling_ExternalMetricStatus_To_v1_ExternalMetricStatus,
//! Convert_autoscaling_HorizontalPodAutoscalerSpec_To_v1_HorizontalPodAutoscalerSpec,
//! Convert_autoscaling_HorizontalPodAutoscalerStatus_To_v1_HorizontalPodAutoscalerStatus,
//! Convert_autoscaling_HorizontalPodAutoscaler_To_v1_HorizontalPodAutoscaler,
//! Convert_autoscaling_HorizontalPodAutoscaler_To_v2_HorizontalPodAutoscaler,
//! Convert_autoscaling_ObjectMetricSource_To_v1_ObjectMetricSource,
//! Convert_autoscaling_ObjectMetricStatus_To_v1_ObjectMetricStatus,
//! Convert_autoscaling_PodsMetricSource_To_v1_PodsMetricSource,
//! Convert_autoscaling_PodsMetricStatus_To_v1_PodsMetricStatus,
//! Convert_autoscaling_ResourceMetricSource_To_v1_ResourceMetricSource,
//! Convert_autoscaling_ResourceMetricStatus_To_v1_ResourceMetricStatus,
//! Convert_v1_ContainerResourceMetricSource_To_autoscaling_ContainerResourceMetricSource,
//! Convert_v1_ContainerResourceMetricStatus_To_autoscaling_ContainerResourceMetricStatus,
//! Convert_v1_ExternalMetricSource_To_autoscaling_ExternalMetricSource,
//! Convert_v1_ExternalMetricStatus_To_autoscaling_ExternalMetricStatus,
//! Convert_v1_HorizontalPodAutoscalerSpec_To_autoscaling_HorizontalPodAutoscalerSpec,
//! Convert_v1_HorizontalPodAutoscalerStatus_To_autoscaling_HorizontalPodAutoscalerStatus,
//! Convert_v1_HorizontalPodAutoscaler_To_autoscaling_HorizontalPodAutoscaler,
//! Convert_v1_ObjectMetricSource_To_autoscaling_ObjectMetricSource,
//! Convert_v1_ObjectMetricStatus_To_autoscaling_ObjectMetricStatus,
//! Convert_v1_PodsMetricSource_To_autoscaling_PodsMetricSource,
//! Convert_v1_PodsMetricStatus_To_autoscaling_PodsMetricStatus,
//! Convert_v1_ResourceMetricSource_To_autoscaling_ResourceMetricSource,
//! Convert_v1_ResourceMetricStatus_To_autoscaling_ResourceMetricStatus,
//! Convert_v2_HorizontalPodAutoscaler_To_autoscaling_HorizontalPodAutoscaler

use copepod_meta::{Value, debug_json};

use crate::print;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const ALL: [&str; 6] = [
    METRICS,
    CURRENT,
    CONDITIONS,
    BEHAVIOR,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];
const SOURCES: [&str; 5] = ["object", "pods", "resource", "containerResource", "external"];
/// The target that an autoscaler without metrics has.
pub(super) const DEFAULT_CPU: i64 = 80;

/// upstream: DropRoundTripHorizontalPodAutoscalerAnnotations
pub(super) fn drop_annotations(object: &mut Value) {
    for annotation in ALL {
        object.remove(&["metadata", "annotations", annotation]);
    }
    let left = object.at(&["metadata", "annotations"]);
    if !left.is_null() && left.is_empty() {
        object.remove(&["metadata", "annotations"]);
    }
}

/// The metric that says how busy CPUs are to be.
pub(super) fn cpu_metric(percent: i64) -> Value {
    let mut metric = Value::map();
    metric.set(&["type"], "Resource");
    metric.set(&["resource", "name"], "cpu");
    metric.set(&["resource", "target", "type"], "Utilization");
    metric.set(&["resource", "target", "averageUtilization"], percent);
    metric
}

fn cpu_percent(metric: &Value) -> Option<i64> {
    let resource = metric.get("resource");
    let is_cpu = metric.str_at(&["type"]) == "Resource" && resource.str_at(&["name"]) == "cpu";
    resource.at(&["target", "averageUtilization"]).as_int().filter(|_| is_cpu)
}

/// v1 to v2.
pub(super) fn to_v2(object: &mut Value) {
    let percent = object.remove(&["spec", "targetCPUUtilizationPercentage"]);
    let mut metrics: Vec<Value> = percent.and_then(|p| p.as_int()).map(cpu_metric).into_iter().collect();
    if let Some(list) = annotation(object, METRICS).as_ref().and_then(Value::as_list) {
        let others = list.iter().map(|m| metric_to_v2(m, false));
        metrics = others.chain(metrics).collect();
    }
    if metrics.is_empty() {
        metrics.push(cpu_metric(DEFAULT_CPU));
    }
    object.set(&["spec", "metrics"], metrics);
    if let Some(behavior) = annotation(object, BEHAVIOR).filter(|b| !b.is_empty()) {
        object.set(&["spec", "behavior"], behavior_to_v2(&behavior));
    }
    if let Some(percent) = object.remove(&["status", "currentCPUUtilizationPercentage"]) {
        let mut status = Value::map();
        status.set(&["type"], "Resource");
        status.set(&["resource", "name"], "cpu");
        status.set(&["resource", "current", "averageUtilization"], percent);
        object.set(&["status", "currentMetrics"], vec![status]);
    }
    if let Some(list) = annotation(object, CURRENT).as_ref().and_then(Value::as_list) {
        let current: Vec<Value> = list.iter().map(|m| metric_to_v2(m, true)).collect();
        object.set(&["status", "currentMetrics"], current);
    }
    if let Some(conditions) = annotation(object, CONDITIONS) {
        object.set(&["status", "conditions"], conditions);
    }
    drop_annotations(object);
}

fn annotation(object: &Value, name: &str) -> Option<Value> {
    let text = object.at(&["metadata", "annotations", name]).as_str()?;
    serde_json::from_str(text).ok().map(|json| from_json(&json))
}

fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => n.as_i64().map_or(Value::Null, Value::Int),
        serde_json::Value::String(s) => Value::string(s),
        serde_json::Value::Array(a) => Value::List(a.iter().map(from_json).collect()),
        serde_json::Value::Object(o) => {
            let mut map = Value::map();
            for (key, value) in o.iter().filter(|(_, v)| !v.is_null()) {
                map.set(&[key], from_json(value));
            }
            map
        }
    }
}

/// The annotation has the names of Go's fields.
fn behavior_to_v2(value: &Value) -> Value {
    match value {
        Value::Map(map) => {
            let mut out = Value::map();
            for (key, member) in map.iter() {
                let mut chars = key.chars();
                let first = chars.next().map(|c| c.to_ascii_lowercase());
                let key: String = first.into_iter().chain(chars).collect();
                out.set(&[&key], behavior_to_v2(member));
            }
            out
        }
        Value::List(list) => Value::List(list.iter().map(behavior_to_v2).collect()),
        other => other.clone(),
    }
}

/// Copies what is there.
fn copy(to: &mut Value, path: &[&str], from: &Value, member: &str) {
    if !from.get(member).is_null() {
        to.set(path, from.get(member).clone());
    }
}

/// A metric (or, `current`, its status) of v1.
fn metric_to_v2(v1: &Value, current: bool) -> Value {
    let mut out = Value::map();
    copy(&mut out, &["type"], v1, "type");
    let goal = if current { "current" } else { "target" };
    for source in SOURCES {
        let old = v1.get(source);
        if old.is_null() {
            continue;
        }
        let mut new = Value::map();
        copy(&mut new, &["name"], old, "name");
        copy(&mut new, &["container"], old, "container");
        copy(&mut new, &["describedObject"], old, "target");
        copy(&mut new, &["metric", "name"], old, "metricName");
        let selector = if source == "external" { "metricSelector" } else { "selector" };
        copy(&mut new, &["metric", "selector"], old, selector);
        let prefix = |rest: &str| format!("{goal}{rest}");
        let average = if source == "object" { "averageValue".into() } else { prefix("AverageValue") };
        copy(&mut new, &[goal, "averageValue"], old, &average);
        copy(&mut new, &[goal, "averageUtilization"], old, &prefix("AverageUtilization"));
        let value = prefix("Value");
        let averaged = !new.at(&[goal, "averageValue"]).is_null();
        // v1 cannot leave an object's value out.
        if !(source == "object" && !current && averaged && old.str_at(&[&value]) == "0") {
            copy(&mut new, &[goal, "value"], old, &value);
        }
        if !current {
            let ty = match source {
                "object" if averaged => "AverageValue",
                "object" => "Value",
                "external" if !new.at(&[goal, "value"]).is_null() => "Value",
                "resource" | "containerResource" if !new.at(&[goal, "averageUtilization"]).is_null() => {
                    "Utilization"
                }
                _ => "AverageValue",
            };
            new.set(&[goal, "type"], ty);
        }
        out.set(&[source], new);
    }
    out
}

/// v2 to v1.
pub(super) fn to_v1(object: &mut Value) {
    drop_annotations(object);
    let metrics = object.remove(&["spec", "metrics"]).unwrap_or_default();
    let metrics = metrics.list_at(&[]);
    let mut annotate = |name: &str, text: String| object.set(&["metadata", "annotations", name], text);
    let others: Vec<String> =
        metrics.iter().filter(|m| cpu_percent(m).is_none()).map(|m| metric_to_v1(m, false)).collect();
    if !others.is_empty() {
        annotate(METRICS, format!("[{}]", others.join(",")));
    }
    if let Some(percent) = metrics.iter().find_map(cpu_percent) {
        object.set(&["spec", "targetCPUUtilizationPercentage"], percent);
    }
    if let Some(behavior) = object.remove(&["spec", "behavior"]).filter(|b| !b.is_null()) {
        let text = print::internal(&behavior, "autoscaling/HorizontalPodAutoscalerBehavior");
        object.set(&["metadata", "annotations", BEHAVIOR], text);
    }
    let current = object.remove(&["status", "currentMetrics"]).unwrap_or_default();
    let current = current.list_at(&[]);
    if !current.is_empty() {
        let texts: Vec<String> = current.iter().map(|m| metric_to_v1(m, true)).collect();
        object.set(&["metadata", "annotations", CURRENT], format!("[{}]", texts.join(",")));
    }
    let is_cpu = |m: &&Value| m.str_at(&["type"]) == "Resource" && m.str_at(&["resource", "name"]) == "cpu";
    let percent = |m: &Value| m.at(&["resource", "current", "averageUtilization"]).as_int();
    if let Some(percent) = current.iter().filter(is_cpu).filter_map(percent).next_back() {
        object.set(&["status", "currentCPUUtilizationPercentage"], percent);
    }
    let conditions = object.remove(&["status", "conditions"]).unwrap_or_default();
    if !conditions.is_empty() {
        let texts: Vec<String> = conditions.list_at(&[]).iter().map(condition_to_v1).collect();
        object.set(&["metadata", "annotations", CONDITIONS], format!("[{}]", texts.join(",")));
    }
}

/// A JSON object with its members in Go's order.
#[derive(Default)]
struct Json(Vec<String>);

impl Json {
    fn text(&mut self, name: &str, text: String) -> &mut Json {
        self.0.push(format!("\"{name}\":{text}"));
        self
    }
    /// A member that is always there; `zero` stands for an absent one.
    fn always(&mut self, name: &str, value: &Value, zero: &str) -> &mut Json {
        let text = if value.is_null() { zero.into() } else { debug_json::to_string(value) };
        self.text(name, text)
    }
    /// A member that may be absent.
    fn optional(&mut self, name: &str, value: &Value) -> &mut Json {
        if value.is_null() { self } else { self.text(name, debug_json::to_string(value)) }
    }
    fn selector(&mut self, name: &str, value: &Value) -> &mut Json {
        if value.is_null() { self } else { self.text(name, print::json(value, print::LABEL_SELECTOR)) }
    }
    fn end(&self) -> String {
        format!("{{{}}}", self.0.join(","))
    }
}

fn reference(value: &Value) -> String {
    let mut out = Json::default();
    out.always("kind", value.get("kind"), "\"\"").always("name", value.get("name"), "\"\"");
    if !value.get("apiVersion").is_empty() {
        out.optional("apiVersion", value.get("apiVersion"));
    }
    out.end()
}

fn condition_to_v1(condition: &Value) -> String {
    let mut out = Json::default();
    out.always("type", condition.get("type"), "\"\"")
        .always("status", condition.get("status"), "\"\"")
        .always("lastTransitionTime", condition.get("lastTransitionTime"), "null");
    for member in ["reason", "message"] {
        if !condition.get(member).is_empty() {
            out.optional(member, condition.get(member));
        }
    }
    out.end()
}

fn metric_to_v1(metric: &Value, current: bool) -> String {
    const NONE: &str = "\"\"";
    const ZERO: &str = "\"0\"";
    let mut out = Json::default();
    out.always("type", metric.get("type"), NONE);
    for source in SOURCES {
        let new = metric.get(source);
        if new.is_null() {
            continue;
        }
        let goal = if current { "current" } else { "target" };
        let [value, average, percent] =
            ["value", "averageValue", "averageUtilization"].map(|m| new.at(&[goal, m]));
        let (name, selector) = (new.at(&["metric", "name"]), new.at(&["metric", "selector"]));
        let named = |rest: &str| format!("{goal}{rest}");
        let mut old = Json::default();
        match source {
            "object" => {
                old.text("target", reference(new.get("describedObject")))
                    .always("metricName", name, NONE)
                    .always(&named("Value"), value, ZERO)
                    .selector("selector", selector)
                    .optional("averageValue", average);
            }
            "pods" => {
                old.always("metricName", name, NONE)
                    .always(&named("AverageValue"), average, ZERO)
                    .selector("selector", selector);
            }
            "external" => {
                old.always("metricName", name, NONE).selector("metricSelector", selector);
                match current {
                    true => old.always("currentValue", value, ZERO),
                    false => old.optional("targetValue", value),
                };
                old.optional(&named("AverageValue"), average);
            }
            _ => {
                old.always("name", new.get("name"), NONE).optional(&named("AverageUtilization"), percent);
                match current {
                    true => old.always("currentAverageValue", average, ZERO),
                    false => old.optional("targetAverageValue", average),
                };
                if source == "containerResource" {
                    old.always("container", new.get("container"), NONE);
                }
            }
        }
        out.text(source, old.end());
    }
    out.end()
}
