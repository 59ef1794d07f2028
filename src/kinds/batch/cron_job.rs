//! CronJob. upstream: pkg/registry/batch/cronjob/strategy.go, pkg/apis/batch/validation

use copepod_meta::{ErrorList, Value};

use super::{cron, job, job_spec};
use crate::apps;
use crate::cells::{self, NONE, UNSET};
use crate::check::At;
use crate::core::pod::defaults::{self, fill, fill_nil};
use crate::core::pod::options::Options;
use crate::core::pod::{annotations, warnings};
use crate::equality::same;
use crate::generic::{bump_generation_if_changed, clear_status, keep};
use crate::strategy::{Column, Context, Row, Strategy};
use crate::{metadata, print};

/// The strategy.
pub struct CronJob;
/// `cronjobs/status`
pub struct CronJobStatus;

const TEMPLATE: [&str; 4] = ["spec", "jobTemplate", "spec", "template"];

/// upstream: SetDefaults_CronJob
fn default(object: &mut Value) {
    defaults::template(object.make(&TEMPLATE));
    job::default_policy(object.make(&["spec", "jobTemplate", "spec"]));
    let spec = object.make(&["spec"]);
    fill(spec, "concurrencyPolicy", "Allow");
    fill_nil(spec, "suspend", false);
    fill_nil(spec, "successfulJobsHistoryLimit", 3);
    fill_nil(spec, "failedJobsHistoryLimit", 1);
}

fn convert(object: &mut Value) {
    if let Some(template) = object.at_mut(&TEMPLATE) {
        defaults::convert_template(template);
    }
}

fn options(cx: &Context, old: Option<&Value>) -> Options {
    let old = old.map(|o| o.at(&TEMPLATE));
    let mut options = Options::new(cx, old.map(|t| t.get("spec")));
    if let Some(old) = old {
        options.invalid_deletion_cost =
            annotations::deletion_cost(old.at(&["metadata", "annotations"])).is_err();
    }
    options
}

impl Strategy for CronJob {
    fn default(&self, _version: &str, object: &mut Value) {
        default(object);
    }
    fn to_hub(&self, _version: &str, object: &mut Value) {
        convert(object);
    }
    fn from_hub(&self, _version: &str, object: &mut Value) {
        convert(object);
    }
    fn prepare_create(&self, _cx: &Context, object: &mut Value) {
        crate::core::pod::template::drop_disabled(
            object,
            None,
            &["spec", "jobTemplate", "spec", "template", "spec"],
        );
        clear_status(object);
        object.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        crate::core::pod::template::drop_disabled(
            object,
            Some(old),
            &["spec", "jobTemplate", "spec", "template", "spec"],
        );
        keep(object, old, "status");
        bump_generation_if_changed(object, old, "io.k8s.api.batch.v1.CronJobSpec");
    }
    fn validate_create(&self, cx: &Context, object: &Value, e: &mut ErrorList) {
        // Jobs get the name with a dash and ten digits.
        const NAME_MAX: usize = 52;
        metadata::standard_finalizers(object, e);
        let root = At::root(object);
        validate(root.get("spec"), None, &options(cx, None), e);
        let name = root.get("metadata.name");
        if name.len() > NAME_MAX {
            name.invalid(e, "must be no more than 52 characters");
        }
    }
    fn validate_update(&self, cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(object, old, e);
        let root = At::root(object);
        validate(root.get("spec"), Some(old.get("spec")), &options(cx, Some(old)), e);
    }
    fn warnings(&self, _cx: &Context, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        let generation = |v: &Value| v.int_at(&["metadata", "generation"]);
        if old.is_none() {
            apps::host_name(object, &mut out);
        }
        if old.is_none_or(|old| generation(old) != generation(object)) {
            let path = "spec.jobTemplate.spec";
            job_spec::warn(object.at(&["spec", "jobTemplate", "spec"]), path, &mut out);
            warnings::of_template(object, "spec.jobTemplate.spec.template", &mut out);
        }
        if old.is_some() && object.str_at(&["spec", "schedule"]).contains("TZ") {
            out.push(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                    .into(),
            );
        }
        out
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("batch/CronJob")
    }
    fn row(&self, object: &Value) -> Row {
        let spec = object.get("spec");
        let (names, images) = cells::containers(object.at(&TEMPLATE).get("spec"));
        let last = object.str_at(&["status", "lastScheduleTime"]);
        cells::row([
            cells::name(object),
            spec.str_at(&["schedule"]).into(),
            spec.get("timeZone").as_str().unwrap_or(NONE).into(),
            match spec.get("suspend").as_bool() {
                Some(true) => "True",
                Some(false) => "False",
                None => UNSET,
            }
            .into(),
            (object.list_at(&["status", "active"]).len() as i64).into(),
            if last.is_empty() { NONE.into() } else { cells::since(last) },
            cells::age(object),
            names,
            images,
            cells::selector(spec.at(&["jobTemplate", "spec", "selector"])).into(),
        ])
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&CronJobStatus as &dyn Strategy)
    }
}

impl Strategy for CronJobStatus {
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        keep(object, old, "spec");
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

/// upstream: validateCronJobSpec
fn validate(spec: At, old: Option<&Value>, opts: &Options, e: &mut ErrorList) {
    let zone = spec.get("timeZone");
    let schedule = spec.get("schedule");
    if schedule.need(e) {
        if let Err(message) = cron::check(schedule.str()) {
            schedule.invalid(e, message);
        }
        let zone_inside = schedule.str().contains("TZ");
        let allowed = old.is_some_and(|o| o.str_at(&["schedule"]).contains("TZ"));
        if zone_inside && allowed && zone.is_set() {
            schedule.invalid(e, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
        } else if zone_inside && !allowed {
            schedule.invalid(e, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        }
    }
    spec.get("startingDeadlineSeconds").not_negative(e);
    if old.is_none_or(|o| !same(o.get("timeZone"), zone.value)) {
        time_zone(zone, e);
    }
    let policy = spec.get("concurrencyPolicy");
    if policy.need(e) {
        policy.one_of(e, &["Allow", "Forbid", "Replace"]);
    }
    let job = spec.get("jobTemplate.spec");
    job_spec::validate_common(job, opts, e);
    let selector = job.get("selector");
    if selector.is_set() {
        let printed = print::json(selector.value, print::LABEL_SELECTOR);
        selector.invalid_printed(e, printed, "`selector` will be auto-generated");
    }
    if job.get("manualSelector").bool() {
        job.get("manualSelector").not_supported(e, &["nil", "false"]);
    }
    spec.get("successfulJobsHistoryLimit").not_negative(e);
    spec.get("failedJobsHistoryLimit").not_negative(e);
}

/// upstream: validateTimeZone
fn time_zone(at: At, e: &mut ErrorList) {
    const PART_MAX: usize = 14;
    if !at.is_set() {
        return;
    }
    let name = at.str();
    if name.is_empty() {
        return at.invalid(e, "timeZone must be nil or non-empty string");
    }
    for part in name.split('/') {
        let good = |c: char| c.is_ascii_alphanumeric() || ".-_+".contains(c);
        let long = part.is_empty() || part.len() > PART_MAX;
        if part == "." || part == ".." || part.starts_with('-') || long || !part.chars().all(good) {
            return at.invalid(e, format!("unknown time zone {name}"));
        }
    }
    if name.eq_ignore_ascii_case("local") {
        at.invalid(e, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    }
    if let Some(message) = cron::zone_error(name) {
        at.invalid(e, message);
    }
}
