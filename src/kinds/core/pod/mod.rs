//! Pod. upstream: pkg/registry/core/pod/strategy.go
//!
//! | module | what |
//! |---|---|
//! | [`options`] | what passes by feature gate or because the stored pod has it |
//! | [`spec`] and the modules it calls | the pod's spec, here and in templates |
//! | [`update`], [`status`], [`resize`] | what may change, by whom |
//! | [`defaults`] | defaults and same-version conversions |
//! | [`table`], [`warnings`] | what people see |
//!
//! upstream, too: addConversionFuncs

pub(crate) mod annotations;
pub(crate) mod containers;
pub(crate) mod defaults;
pub(crate) mod env;
pub(crate) mod legacy_volumes;
pub(crate) mod mounts;
pub(crate) mod options;
pub(crate) mod overlaps;
pub(crate) mod probes;
pub(crate) mod projected;
pub(crate) mod qos;
pub(crate) mod resize;
pub(crate) mod scheduling;
pub(crate) mod security;
pub(crate) mod spec;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod update;
pub(crate) mod volumes;
pub(crate) mod warnings;
pub(crate) mod windows;

use copepod_meta::pod_references::CONTAINER_LISTS;
use copepod_meta::{ErrorList, Value};

use crate::At;
use crate::cells;
use crate::equality::same;
use crate::generic::{bump_generation_if_changed, keep};
use crate::metadata;
use crate::strategy::{Column, Context, Graceful, Row, Strategy};
use options::Options;

/// The strategy.
pub struct Pod;
/// `pods/status`
pub struct PodStatus;
/// `pods/ephemeralcontainers`
pub struct PodEphemeralContainers;
/// `pods/resize`
pub struct PodResize;

impl Strategy for Pod {
    fn default(&self, _version: &str, object: &mut Value) {
        defaults::pod(object);
    }
    fn to_hub(&self, _version: &str, object: &mut Value) {
        defaults::convert_pod(object);
    }
    fn from_hub(&self, _version: &str, object: &mut Value) {
        defaults::convert_pod(object);
    }

    fn prepare_create(&self, cx: &Context, pod: &mut Value) {
        template::drop_disabled(pod, None, &["spec"]);
        pod.set(&["metadata", "generation"], 1);
        let class = qos::stored(pod).to_string();
        let mut status = Value::map();
        status.set(&["phase"], "Pending");
        status.set(&["qosClass"], class);
        if !pod.list_at(&["spec", "schedulingGates"]).is_empty() {
            status.set(&["conditions"], vec![gated_condition(cx.now)]);
        }
        pod.set(&["status"], status);
        merge_label_keys(pod);
        app_armor_from_annotations(pod);
    }

    fn prepare_update(&self, _cx: &Context, pod: &mut Value, old: &Value) {
        template::drop_disabled(pod, Some(old), &["spec"]);
        keep(pod, old, "status");
        bump_generation_if_changed(pod, old, update::POD_SPEC);
    }

    fn validate_create(&self, cx: &Context, pod: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(pod, e);
        let opts = Options::for_pod(cx, pod, None);
        update::metadata_and_spec(pod, &opts, e);
        let root = At::root(pod);
        let spec = root.get("spec");
        if !spec.get("ephemeralContainers").is_empty() {
            spec.get("ephemeralContainers").forbidden(e, "cannot be set on create");
        }
        if !spec.get("nodeName").is_empty() && !spec.get("schedulingGates").is_empty() {
            spec.get("nodeName").forbidden(e, "cannot be set until all schedulingGates have been cleared");
        }
        annotations::match_fields(pod, spec, e);
    }

    fn validate_update(&self, cx: &Context, pod: &Value, old: &Value, e: &mut ErrorList) {
        update::validate(pod, old, &Options::for_pod(cx, pod, Some(old)), e);
    }

    fn warnings(&self, _cx: &Context, pod: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        if old.is_none() {
            warnings::host_name(pod, &mut out);
            warnings::of(At::root(pod), false, &mut out);
        }
        out
    }

    fn graceful_delete(&self, pod: &Value, asked: Option<i64>) -> Graceful {
        let own = pod.at(&["spec", "terminationGracePeriodSeconds"]).as_int();
        let ended = matches!(pod.str_at(&["status", "phase"]), "Failed" | "Succeeded");
        if ended || pod.str_at(&["spec", "nodeName"]).is_empty() {
            return Graceful::After(0);
        }
        let seconds = asked.or(own).unwrap_or(0);
        Graceful::After(if seconds < 0 { 1 } else { seconds })
    }

    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }

    fn columns(&self) -> &'static [Column] {
        cells::columns("core/Pod")
    }
    fn row(&self, pod: &Value) -> Row {
        table::row(pod)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }
    fn field(&self, pod: &Value, name: &str) -> String {
        match name {
            "spec.hostNetwork" => pod.bool_at(&["spec", "hostNetwork"]).to_string(),
            "status.podIP" => {
                pod.list_at(&["status", "podIPs"]).first().map_or(String::new(), |i| i.str_at(&["ip"]).into())
            }
            // Upstream takes the selector and has no value for it.
            "status.podIPs" => String::new(),
            _ => pod.str_at(&name.split('.').collect::<Vec<_>>()).into(),
        }
    }
    fn field_paths(&self) -> Option<&'static [&'static str]> {
        Some(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.serviceAccount",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ])
    }
    fn indexed_field(&self) -> Option<&'static str> {
        Some("spec.nodeName")
    }

    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        match name {
            "status" => Some(&PodStatus),
            "ephemeralcontainers" => Some(&PodEphemeralContainers),
            "resize" => Some(&PodResize),
            _ => None,
        }
    }
}

impl Strategy for PodStatus {
    fn prepare_update(&self, _cx: &Context, pod: &mut Value, old: &Value) {
        keep(pod, old, "spec");
        pod.remove(&["metadata", "deletionTimestamp"]);
        match old.at(&["metadata", "ownerReferences"]) {
            Value::Null => {
                pod.remove(&["metadata", "ownerReferences"]);
            }
            owners => pod.set(&["metadata", "ownerReferences"], owners.clone()),
        }
        let class = old.str_at(&["status", "qosClass"]);
        if pod.str_at(&["status", "qosClass"]).is_empty() && !class.is_empty() {
            pod.set(&["status", "qosClass"], class);
        }
        status::keep_observed_generation(pod, old);
    }
    fn validate_update(&self, cx: &Context, pod: &Value, old: &Value, e: &mut ErrorList) {
        status::validate(cx, pod, old, &Options::for_pod(cx, pod, Some(old)), e);
    }
    fn warnings(&self, _cx: &Context, pod: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        let root = At::root(pod);
        for list in ["status.podIPs", "status.hostIPs"] {
            for item in root.get(list).items() {
                crate::core::ip::warnings(item.get("ip"), &mut out);
            }
        }
        out
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]]
    }
}

impl Strategy for PodEphemeralContainers {
    fn prepare_update(&self, _cx: &Context, pod: &mut Value, old: &Value) {
        let own = pod.at(&["spec", "ephemeralContainers"]).clone();
        keep(pod, old, "spec");
        keep(pod, old, "status");
        metadata::reset_for_status(pod, old);
        pod.set(&["spec", "ephemeralContainers"], own);
        bump_generation_if_changed(pod, old, update::POD_SPEC);
    }
    fn validate_update(&self, cx: &Context, pod: &Value, old: &Value, e: &mut ErrorList) {
        update::validate_ephemeral(pod, old, &Options::for_pod(cx, pod, Some(old)), e);
    }
}

impl Strategy for PodResize {
    fn prepare_update(&self, _cx: &Context, pod: &mut Value, old: &Value) {
        resize::prepare(pod, old);
        bump_generation_if_changed(pod, old, update::POD_SPEC);
    }
    fn validate_update(&self, cx: &Context, pod: &Value, old: &Value, e: &mut ErrorList) {
        resize::validate(pod, old, &Options::for_pod(cx, pod, Some(old)), e);
    }
}

/// upstream: applySchedulingGatedCondition
fn gated_condition(now: &str) -> Value {
    let mut condition = Value::map();
    for (name, text) in [
        ("type", "PodScheduled"),
        ("status", "False"),
        ("lastTransitionTime", now),
        ("reason", "SchedulingGated"),
        ("message", "Scheduling is blocked due to non-empty scheduling gates"),
    ] {
        condition.set(&[name], text);
    }
    condition
}

/// Keys that must (not) match become expressions over the pod's own labels.
/// upstream: mutatePodAffinity, mutateTopologySpreadConstraints
fn merge_label_keys(pod: &mut Value) {
    let labels = pod.at(&["metadata", "labels"]).clone();
    for kind in ["podAffinity", "podAntiAffinity"] {
        let required = ["spec", "affinity", kind, "requiredDuringSchedulingIgnoredDuringExecution"];
        let preferred = ["spec", "affinity", kind, "preferredDuringSchedulingIgnoredDuringExecution"];
        for term in defaults::each(pod, &preferred).filter_map(|t| t.at_mut(&["podAffinityTerm"])) {
            merge_keys(term, &labels);
        }
        defaults::each(pod, &required).for_each(|term| merge_keys(term, &labels));
    }
    defaults::each(pod, &["spec", "topologySpreadConstraints"]).for_each(|c| merge_keys(c, &labels));
}

fn merge_keys(term: &mut Value, labels: &Value) {
    if term.get("labelSelector").is_null() {
        return;
    }
    for (member, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys = term.list_at(&[member]).to_vec();
        for key in keys.iter().filter_map(Value::as_str) {
            let Some(value) = labels.map_at(&[]).get(key) else { continue };
            let mut expression = Value::map();
            expression.set(&["key"], key);
            expression.set(&["operator"], operator);
            expression.set(&["values"], vec![value.clone()]);
            let list = term.make(&["labelSelector", "matchExpressions"]);
            match list.as_list_mut() {
                Some(list) => list.push(expression),
                None => *list = vec![expression].into(),
            }
        }
    }
}

/// The field that an AppArmor annotation stands for. upstream: podutil.ApparmorFieldForAnnotation
fn app_armor_field(annotation: &str) -> Option<Value> {
    let mut profile = Value::map();
    match annotation {
        "unconfined" => profile.set(&["type"], "Unconfined"),
        "runtime/default" => profile.set(&["type"], "RuntimeDefault"),
        other => {
            let local = other.strip_prefix("localhost/").filter(|l| !l.is_empty())?;
            profile.set(&["type"], "Localhost");
            profile.set(&["localhostProfile"], local);
        }
    }
    Some(profile)
}

/// Old annotations become fields. upstream: applyAppArmorVersionSkew
fn app_armor_from_annotations(pod: &mut Value) {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let annotations = pod.at(&["metadata", "annotations"]).clone();
    let any = annotations.map_at(&[]).keys().any(|k| k.starts_with(PREFIX));
    if !any || pod.str_at(&["spec", "os", "name"]) == "windows" {
        return;
    }
    let of_pod = pod.at(&["spec", "securityContext", "appArmorProfile"]).clone();
    for list in CONTAINER_LISTS {
        for container in defaults::each(pod, &["spec", list]) {
            let annotation = annotations.get(&format!("{PREFIX}{}", container.str_at(&["name"]))).as_str();
            let own = container.at(&["securityContext", "appArmorProfile"]);
            if let Some(field) = annotation.filter(|_| own.is_null()).and_then(app_armor_field)
                && !same(&field, &of_pod)
            {
                container.set(&["securityContext", "appArmorProfile"], field);
            }
        }
    }
}
