//! Job. upstream: pkg/registry/batch/job/strategy.go, pkg/apis/batch/validation
//!
//! upstream, too: addConversionFuncs

use copepod_meta::{ErrorList, LabelSelector, Value, names, time};

use super::job_spec::{self, INDEXED};
use super::job_status;
use crate::apps;
use crate::cells;
use crate::check::At;
use crate::core::pod::defaults::{each, fill, fill_nil};
use crate::core::pod::options::Options;
use crate::core::pod::warnings;
use crate::equality::same;
use crate::generic::{bump_generation_if_changed, clear_status, keep};
use crate::strategy::{Cell, Column, Context, DefaultPropagation, Row, Strategy};
use crate::{metadata, print};

/// The strategy.
pub struct Job;
/// `jobs/status`
pub struct JobStatus;

const SPEC: &str = "io.k8s.api.batch.v1.JobSpec";
const TEMPLATE_LABELS: [&str; 4] = ["spec", "template", "metadata", "labels"];
/// Labels that tell a job's pods, the old name and the new one.
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
/// Marks a job whose labels defaulting took from its template. Upstream gives both the same map, so that what is generated
/// into the one stands in the other. No type has a member of this name: encoders pass it over, as it is lost upstream when an
/// object is decoded anew (after a webhook).
const SHARES_LABELS: &str = "\u{0}sharesLabels";

/// Defaults of a spec, of a Job or in a CronJob's template.
pub(super) fn default_policy(spec: &mut Value) {
    for rule in each(spec, &["podFailurePolicy", "rules"]) {
        for pattern in each(rule, &["onPodConditions"]) {
            fill(pattern, "status", "True");
        }
    }
}

/// upstream: SetDefaults_Job
fn default(job: &mut Value) {
    apps::default_template(job);
    let labels = job.at(&TEMPLATE_LABELS).clone();
    if labels.as_map().is_some() && job.map_at(&["metadata", "labels"]).is_empty() {
        if !labels.is_empty() {
            job.set(&["metadata", "labels"], labels);
        }
        job.set(&[SHARES_LABELS], true);
    }
    let spec = job.make(&["spec"]);
    default_policy(spec);
    if spec.get("completions").is_null() && spec.get("parallelism").is_null() {
        spec.set(&["completions"], 1);
    }
    fill_nil(spec, "parallelism", 1);
    let retries = if spec.get("backoffLimitPerIndex").is_null() { 6 } else { i64::from(i32::MAX) };
    fill_nil(spec, "backoffLimit", retries);
    fill_nil(spec, "completionMode", "NonIndexed");
    fill_nil(spec, "suspend", false);
    let replace = if spec.get("podFailurePolicy").is_null() { "TerminatingOrFailed" } else { "Failed" };
    fill_nil(spec, "podReplacementPolicy", replace);
    fill_nil(spec, "manualSelector", false);
}

/// upstream: generateSelector
fn generate_selector(job: &mut Value) {
    let name = job.str_at(&["metadata", "name"]).to_string();
    let uid = job.str_at(&["metadata", "uid"]).to_string();
    let labels = job.make(&TEMPLATE_LABELS);
    for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
        for key in keys {
            fill_nil(labels, key, value.as_str());
        }
    }
    fill_nil(job.make(&["spec", "selector", "matchLabels"]), UID_LABELS[1], uid.as_str());
}

fn manual(job: &Value) -> bool {
    job.at(&["spec", "manualSelector"]).as_bool().unwrap_or(false)
}

impl Strategy for Job {
    fn default(&self, _version: &str, job: &mut Value) {
        default(job);
    }
    fn to_hub(&self, _version: &str, job: &mut Value) {
        apps::convert_template(job);
    }
    fn from_hub(&self, _version: &str, job: &mut Value) {
        apps::convert_template(job);
    }
    fn prepare_create(&self, _cx: &Context, job: &mut Value) {
        crate::core::pod::template::drop_disabled(job, None, &["spec", "template", "spec"]);
        let shares = job.remove(&[SHARES_LABELS]).is_some();
        if !manual(job) {
            generate_selector(job);
            if shares {
                let labels = job.at(&TEMPLATE_LABELS).clone();
                job.set(&["metadata", "labels"], labels);
            }
        }
        clear_status(job);
        job.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, _cx: &Context, job: &mut Value, old: &Value) {
        job.remove(&[SHARES_LABELS]);
        crate::core::pod::template::drop_disabled(job, Some(old), &["spec", "template", "spec"]);
        keep(job, old, "status");
        bump_generation_if_changed(job, old, SPEC);
    }
    fn validate_create(&self, cx: &Context, job: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(job, e);
        validate(job, true, &apps::options(cx, None), false, e);
    }
    fn validate_update(&self, cx: &Context, job: &Value, old: &Value, e: &mut ErrorList) {
        let opts = apps::options(cx, Some(old));
        let old_labels = old.map_at(&["spec", "template", "metadata", "labels"]);
        let prefixed = [NAME_LABELS[1], UID_LABELS[1]].iter().all(|l| old_labels.contains_key(l));
        let invalid_values = metadata::selector_has_invalid_value(old.at(&["spec", "selector"]));
        metadata::validate_core(job, true, &names::dns1123_subdomain_prefixed, e);
        validate(job, prefixed, &opts, invalid_values, e);
        metadata::validate_update_core(job, old, e);
        update(cx, job, old, &opts, invalid_values, e);
    }
    fn warnings(&self, _cx: &Context, job: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        let generation = |v: &Value| v.int_at(&["metadata", "generation"]);
        match old {
            Some(old) if generation(old) == generation(job) => return out,
            Some(_) => {}
            None => apps::host_name(job, &mut out),
        }
        job_spec::warn(job.get("spec"), "spec", &mut out);
        warnings::of_template(job, "spec.template", &mut out);
        out
    }
    fn default_propagation(&self) -> DefaultPropagation {
        DefaultPropagation::Orphan
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("batch/Job")
    }
    fn row(&self, job: &Value) -> Row {
        let (names, images) = cells::containers(job.at(&["spec", "template", "spec"]));
        cells::row([
            cells::name(job),
            state(job).into(),
            completions(job).into(),
            duration(job),
            cells::age(job),
            names,
            images,
            cells::selector(job.at(&["spec", "selector"])).into(),
        ])
    }
    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.successful"]
    }
    fn unknown_field(&self, name: &str) -> String {
        format!("field label {} not supported for Job", copepod_meta::field::quote(name))
    }
    fn field(&self, job: &Value, _name: &str) -> String {
        job.int_at(&["status", "succeeded"]).to_string()
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&JobStatus as &dyn Strategy)
    }
}

impl Strategy for JobStatus {
    fn prepare_update(&self, _cx: &Context, job: &mut Value, old: &Value) {
        job.remove(&[SHARES_LABELS]);
        keep(job, old, "spec");
    }
    fn validate_update(&self, _cx: &Context, job: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(job, old, e);
        job_status::validate(job, old, e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

fn state(job: &Value) -> &'static str {
    let is = |ty: &str| {
        let first = job.list_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == ty);
        first.is_some_and(|c| c.str_at(&["status"]) == "True")
    };
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if !job.at(&["metadata", "deletionTimestamp"]).is_null() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let done = job.int_at(&["status", "succeeded"]);
    match (job.at(&["spec", "completions"]).as_int(), job.int_at(&["spec", "parallelism"])) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallelism @ 2..) => format!("{done}/1 of {parallelism}"),
        (None, _) => format!("{done}/1"),
    }
}

fn duration(job: &Value) -> Cell {
    let start = job.str_at(&["status", "startTime"]);
    let end = job.str_at(&["status", "completionTime"]);
    match (time::parse(start), time::parse(end)) {
        (None, _) => "".into(),
        (Some(_), None) => cells::since(start),
        (Some(start), Some(end)) => time::human_duration(time::seconds_between(start, end)).into(),
    }
}

/// upstream: ValidateJob, less metadata
fn validate(job: &Value, prefixed: bool, opts: &Options, invalid_values: bool, e: &mut ErrorList) {
    generated_selector(job, prefixed, e);
    let root = At::root(job);
    let spec = root.get("spec");
    job_spec::validate(spec, opts, invalid_values, e);
    let completions = spec.get("completions").int();
    if spec.get("completionMode").str() == INDEXED && completions > 0 {
        let name = root.get("metadata.name");
        let last = format!("{}-{}", name.str(), completions - 1);
        if !names::dns1123_label(&last).is_empty() {
            name.invalid(e, format!("will not able to create pod with invalid DNS label: {last}"));
        }
    }
}

/// upstream: validateGeneratedSelector
fn generated_selector(job: &Value, prefixed: bool, e: &mut ErrorList) {
    let root = At::root(job);
    let selector = root.get("spec.selector");
    if manual(job) || !selector.is_set() {
        return;
    }
    let uid = root.get("metadata.uid");
    if uid.is_empty() {
        uid.required(e, "");
    }
    let (uid, name) = (uid.str(), job.str_at(&["metadata", "name"]));
    let labels = root.get("spec.template.metadata.labels");
    let mut expected = Value::map();
    for generation in if prefixed { 0..2 } else { 0..1 } {
        for (key, value) in [(UID_LABELS[generation], uid), (NAME_LABELS[generation], name)] {
            has_label(labels, key, value, e);
            expected.set(&[key], value);
        }
    }
    if let Ok(parsed) = LabelSelector::from_value(selector.value)
        && !parsed.matches_map(expected.map_at(&[]))
    {
        selector.invalid_printed(
            e,
            print::json(selector.value, print::LABEL_SELECTOR),
            "`selector` not auto-generated",
        );
    }
}

/// upstream: ValidateHasLabel
fn has_label(labels: At, key: &str, expected: &str, e: &mut ErrorList) {
    let at = labels.key(key);
    let message = format!("must be '{expected}'");
    if !at.is_set() {
        at.required(e, &message);
    } else if at.str() != expected {
        at.invalid_printed(e, copepod_meta::debug_json::to_string(labels.value), message);
    }
}

/// upstream: ValidateJobSpecUpdate
fn update(cx: &Context, job: &Value, old: &Value, opts: &Options, invalid_values: bool, e: &mut ErrorList) {
    let root = At::root(job);
    let spec = root.get("spec");
    let old_spec = old.get("spec");
    job_spec::validate(spec, opts, invalid_values, e);
    completions_update(spec, old_spec, e);
    apps::immutable_selector(job, old, e);
    template_update(cx, job, old, e);
    spec.get("completionMode").immutable_pointer(e, old_spec.get("completionMode"));
    spec.get("podFailurePolicy").immutable_internal(
        e,
        old_spec.get("podFailurePolicy"),
        "io.k8s.api.batch.v1.PodFailurePolicy",
        "batch/PodFailurePolicy",
    );
    spec.get("backoffLimitPerIndex").immutable_pointer(e, old_spec.get("backoffLimitPerIndex"));
    spec.get("managedBy").immutable_pointer(e, old_spec.get("managedBy"));
    spec.get("successPolicy").immutable_internal(
        e,
        old_spec.get("successPolicy"),
        "io.k8s.api.batch.v1.SuccessPolicy",
        "batch/SuccessPolicy",
    );
}

/// upstream: validateCompletions
fn completions_update(spec: At, old: &Value, e: &mut ErrorList) {
    let at = spec.get("completions");
    if spec.get("completionMode").str() != INDEXED {
        return at.immutable_pointer(e, old.get("completions"));
    }
    if at.is_set() && !same(at.value, old.get("completions")) && at.int() != spec.get("parallelism").int() {
        // Upstream takes the root of the path: `spec`.
        at.invalid(e, "can only be modified in tandem with spec.parallelism");
    }
}

/// upstream: validatePodTemplateUpdate
fn template_update(cx: &Context, job: &Value, old: &Value, e: &mut ErrorList) {
    let suspended = old.at(&["spec", "suspend"]).as_bool().unwrap_or(false);
    let not_started = old.at(&["status", "startTime"]).is_null();
    let is_suspended = old
        .list_at(&["status", "conditions"])
        .iter()
        .any(|c| c.str_at(&["type"]) == "Suspended" && c.str_at(&["status"]) == "True");
    let quiet = suspended && (not_started || is_suspended) && old.int_at(&["status", "active"]) == 0;
    let scheduling = match (cx.feature)("MutableSchedulingDirectivesForSuspendedJobs") {
        true => quiet,
        false => suspended && not_started,
    };
    let resources = quiet && (cx.feature)("MutablePodResourcesForSuspendedJobs");

    let root = At::root(job);
    let at = root.get("spec.template");
    let mut allowed = old.at(&["spec", "template"]).clone();
    if scheduling {
        allow_scheduling(&mut allowed, at.value);
    }
    if !(suspended && resources) {
        return at.immutable_internal(e, &allowed, apps::TEMPLATE, "core/PodTemplateSpec");
    }
    let spec = at.value.get("spec");
    for list in ["containers", "initContainers"] {
        let new = spec.list_at(&[list]);
        if new.len() != allowed.list_at(&["spec", list]).len() {
            continue;
        }
        for (old, new) in each(&mut allowed, &["spec", list]).zip(new) {
            if old.str_at(&["name"]) == new.str_at(&["name"]) {
                copy(old, new, &["resources"]);
            }
        }
    }
    root.get("spec.template.spec").immutable_internal(
        e,
        allowed.get("spec"),
        "io.k8s.api.core.v1.PodSpec",
        "core/PodSpec",
    );
}

fn copy(to: &mut Value, from: &Value, path: &[&str]) {
    match from.at(path) {
        Value::Null => {
            to.remove(path);
        }
        value => to.set(path, value.clone()),
    }
}

/// What may change while nothing was scheduled.
fn allow_scheduling(allowed: &mut Value, new: &Value) {
    let affinity = ["spec", "affinity"];
    let node_affinity = ["spec", "affinity", "nodeAffinity"];
    if !new.at(&affinity).is_null() || !allowed.at(&affinity).is_null() {
        if new.at(&affinity).is_null() {
            allowed.remove(&node_affinity);
            if allowed.at(&affinity).is_empty() {
                allowed.remove(&affinity);
            }
        } else {
            allowed.make(&affinity);
            copy(allowed, new, &node_affinity);
        }
    }
    for path in [&["spec", "nodeSelector"][..], &["spec", "tolerations"], &["spec", "schedulingGates"]] {
        copy(allowed, new, path);
    }
    for path in [["metadata", "annotations"], ["metadata", "labels"]] {
        copy(allowed, new, &path);
    }
}
