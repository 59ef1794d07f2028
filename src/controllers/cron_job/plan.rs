//! The next step of a cron job. Pure.

use std::sync::Arc;
use std::time::Duration;

use copepod_client::object::MetaExt;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::schedule::Schedule;
use crate::job::finished;
use crate::kinds::{CronJob, CronJobStatus, Job};

/// So many missed times mean that something is wrong with clocks. upstream: mostRecentScheduleTime
const MISSED_MAX: usize = 100;
/// Times are looked for a moment after they are due. upstream: nextScheduleDelta
const DELTA: Duration = Duration::from_millis(100);
const TIMESTAMP: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// What one turn does.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Turn {
    /// Finished jobs that are not kept.
    pub delete: Vec<String>,
    /// Running jobs that the next one replaces.
    pub replace: Vec<String>,
    /// A job to be created, and when it was due.
    pub create: Option<(Value, Timestamp)>,
    /// The status, if it is another one.
    pub status: Option<CronJobStatus>,
    /// Events: warning, reason, message.
    pub events: Vec<(bool, &'static str, String)>,
    /// Another look after this time.
    pub after: Option<Duration>,
}

pub(super) fn plan(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Turn {
    let mut turn = Turn { delete: too_old(cron, jobs), ..Turn::default() };
    let mut status = follow_jobs(cron, jobs, &mut turn);
    if !cron.metadata.deleting() && !cron.spec.suspend {
        match schedule_of(cron) {
            Ok((schedule, zone)) => at_times(cron, jobs, &schedule, &zone, now, &mut status, &mut turn),
            Err((reason, message)) => turn.events.push((true, reason, message)),
        }
    }
    turn.status = (status != cron.status).then_some(status);
    turn
}

fn schedule_of(cron: &CronJob) -> Result<(Schedule, TimeZone), (&'static str, String)> {
    let zone = match &cron.spec.time_zone {
        None => TimeZone::UTC,
        Some(name) => TimeZone::get(name)
            .map_err(|error| ("UnknownTimeZone", format!("invalid timeZone: {name:?}: {error}")))?,
    };
    let schedule = Schedule::parse(&cron.spec.schedule).map_err(|error| {
        ("UnparseableSchedule", format!("unparseable schedule: {:?} : {error}", cron.spec.schedule))
    })?;
    Ok((schedule, zone))
}

/// Keeps `status.active` in step with the jobs, and tells when one has ended.
fn follow_jobs(cron: &CronJob, jobs: &[Arc<Job>], turn: &mut Turn) -> CronJobStatus {
    let mut status = cron.status.clone();
    let listed =
        |status: &CronJobStatus, job: &Job| status.active.iter().any(|r| r["uid"] == job.metadata.uid());
    for job in jobs {
        match finished(job) {
            Some(how) if listed(&status, job) => {
                status.active.retain(|reference| reference["uid"] != job.metadata.uid());
                let name = job.metadata.name();
                turn.events.push((
                    false,
                    "SawCompletedJob",
                    format!("Saw completed job: {name}, condition: {how}"),
                ));
            }
            None if !listed(&status, job) => status.active.push(reference(job)),
            _ => {}
        }
        if let Some(ended) = &job.status.completion_time
            && finished(job) == Some("Complete")
            && status.last_successful_time.as_ref().is_none_or(|last| last.0 < ended.0)
        {
            status.last_successful_time = Some(ended.clone());
        }
    }
    status.active.retain(|reference| {
        let there = jobs.iter().any(|job| reference["uid"] == job.metadata.uid());
        if !there {
            let name = reference["name"].as_str().unwrap_or_default();
            turn.events.push((false, "MissingJob", format!("Active job went missing: {name}")));
        }
        there
    });
    status
}

fn reference(job: &Job) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": job.metadata.namespace,
        "name": job.metadata.name, "uid": job.metadata.uid, "resourceVersion": job.metadata.resource_version})
}

/// Finished jobs beyond the history limits, the oldest first.
fn too_old(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<String> {
    let mut out = Vec::new();
    for (how, limit) in [
        ("Complete", cron.spec.successful_jobs_history_limit),
        ("Failed", cron.spec.failed_jobs_history_limit),
    ] {
        let Some(limit) = limit else { continue };
        let mut ended: Vec<&Arc<Job>> = jobs.iter().filter(|job| finished(job) == Some(how)).collect();
        ended.sort_by_key(|job| {
            (job.status.start_time.as_ref().map(|time| time.0), job.metadata.name().to_owned())
        });
        let excess = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        out.extend(ended[..excess].iter().map(|job| job.metadata.name().to_owned()));
    }
    out
}

/// upstream: cronjob_controllerv2.go syncCronJob
fn at_times(
    cron: &CronJob,
    jobs: &[Arc<Job>],
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
    status: &mut CronJobStatus,
    turn: &mut Turn,
) {
    let next = schedule.next(now, zone);
    turn.after =
        next.and_then(|next| Duration::try_from(next.duration_since(now)).ok()).map(|wait| wait + DELTA);
    let Some((due, missed)) = most_recent(cron, schedule, zone, now) else { return };
    if missed > MISSED_MAX {
        let message = format!(
            "too many missed start times: {missed}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        );
        turn.events.push((true, "TooManyMissedTimes", message));
    }
    let deadline = cron.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    if deadline.is_some_and(|deadline| now.duration_since(due) > deadline) {
        let message =
            format!("Missed scheduled time to start a job: {}", due.strftime("%a, %d %b %Y %H:%M:%S +0000"));
        turn.events.push((true, "MissSchedule", message));
        return;
    }
    let name = format!("{}-{}", cron.metadata.name(), due.as_second() / 60);
    if jobs.iter().any(|job| job.metadata.name() == name)
        || status.last_schedule_time.as_ref().is_some_and(|t| t.0 == due)
    {
        return;
    }
    if !status.active.is_empty() {
        match cron.spec.concurrency_policy.as_str() {
            "Forbid" => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                turn.events.push((false, "JobAlreadyActive", message.into()));
                return;
            }
            "Replace" => {
                let names = status.active.iter().filter_map(|reference| reference["name"].as_str());
                turn.replace = names.map(str::to_owned).collect();
                status.active.clear();
            }
            _ => {}
        }
    }
    turn.create = Some((job_for(cron, &name, due), due));
}

/// The last time that is due and was not served, and how many there were.
fn most_recent(
    cron: &CronJob,
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
) -> Option<(Timestamp, usize)> {
    let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let mut from = cron.status.last_schedule_time.as_ref().map_or(created, |time| time.0);
    if let Some(deadline) = cron.spec.starting_deadline_seconds {
        from = from.max(now.checked_sub(SignedDuration::from_secs(deadline)).ok()?);
    }
    let (mut found, mut count) = (None, 0);
    let mut at = schedule.next(from, zone)?;
    while at <= now {
        found = Some(at);
        count += 1;
        if count > MISSED_MAX {
            // Long ago: only the last one matters, and it lies within two steps of now.
            let step = schedule.next(at, zone)?.duration_since(at);
            let near = now.checked_sub(step).and_then(|near| near.checked_sub(step)).ok()?;
            at = schedule.next(near.max(at), zone)?;
            while at <= now {
                found = Some(at);
                at = schedule.next(at, zone)?;
            }
            break;
        }
        at = schedule.next(at, zone)?;
    }
    found.map(|found| (found, count))
}

fn job_for(cron: &CronJob, name: &str, due: Timestamp) -> Value {
    let template = &cron.spec.job_template;
    let mut annotations = template["metadata"]["annotations"].clone();
    if annotations.is_null() {
        annotations = json!({});
    }
    let zone =
        cron.spec.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC);
    let local = due.to_zoned(zone);
    let shown = if local.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    annotations[TIMESTAMP] = json!(local.strftime(shown).to_string());
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": MetaExt::namespace(&cron.metadata),
            "labels": template["metadata"]["labels"], "annotations": annotations,
            "ownerReferences": [copepod_client::object::controller_reference(cron)]},
        "spec": template["spec"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(extra: Value) -> CronJob {
        let mut value = json!({"metadata": {"name": "c", "namespace": "x", "uid": "C",
                "creationTimestamp": "2026-01-01T00:00:30Z"},
            "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Allow", "jobTemplate": {"spec": {"kept": 1}},
                "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1}, "status": {}});
        for (path, new) in extra.as_object().expect("paths") {
            let (parent, key) = path.rsplit_once('/').expect("a path");
            value.pointer_mut(parent).expect("a parent")[key] = new.clone();
        }
        serde_json::from_value(value).expect("a cron job")
    }

    fn job(name: &str, ended: &str) -> Arc<Job> {
        let conditions =
            if ended.is_empty() { json!([]) } else { json!([{"type": ended, "status": "True"}]) };
        let value = json!({"metadata": {"name": name, "uid": name}, "status": {"conditions": conditions}});
        Arc::new(serde_json::from_value(value).expect("a job"))
    }

    fn at(time: &str) -> Timestamp {
        time.parse().expect("a time")
    }

    #[test]
    fn jobs_start_when_they_are_due() {
        let busy = json!([{"name": "c-1", "uid": "c-1"}]);
        for (name, extra, jobs, now, created) in [
            ("not yet", json!({}), vec![], "2026-01-01T00:00:50Z", ""),
            ("due", json!({}), vec![], "2026-01-01T00:01:00Z", "c-29453761"),
            ("only the last of those missed", json!({}), vec![], "2026-01-01T00:05:10Z", "c-29453765"),
            (
                "already made",
                json!({"/status/lastScheduleTime": "2026-01-01T00:01:00Z"}),
                vec![],
                "2026-01-01T00:01:30Z",
                "",
            ),
            ("suspended", json!({"/spec/suspend": true}), vec![], "2026-01-01T00:05:00Z", ""),
            ("too late", json!({"/spec/startingDeadlineSeconds": 5}), vec![], "2026-01-01T00:01:30Z", ""),
            (
                "one runs, allowed",
                json!({"/status/active": busy}),
                vec![job("c-1", "")],
                "2026-01-01T00:01:00Z",
                "c-29453761",
            ),
            (
                "one runs, forbidden",
                json!({"/status/active": busy, "/spec/concurrencyPolicy": "Forbid"}),
                vec![job("c-1", "")],
                "2026-01-01T00:01:00Z",
                "",
            ),
            (
                "one runs, replaced",
                json!({"/status/active": busy, "/spec/concurrencyPolicy": "Replace"}),
                vec![job("c-1", "")],
                "2026-01-01T00:01:00Z",
                "c-29453761",
            ),
        ] {
            let turn = plan(&cron(extra), &jobs, at(now));
            let made =
                turn.create.as_ref().map(|(job, _)| job["metadata"]["name"].as_str().unwrap_or_default());
            assert_eq!(made.unwrap_or_default(), created, "{name}");
            assert_eq!(turn.replace.len(), usize::from(name.ends_with("replaced")), "{name}");
        }
    }

    #[test]
    fn a_job_takes_all_of_its_template() {
        let turn = plan(&cron(json!({})), &[], at("2026-01-01T00:01:00Z"));
        let (job, _) = turn.create.expect("a job");
        assert_eq!(job["spec"]["kept"], 1);
        assert_eq!(job["metadata"]["annotations"][TIMESTAMP], "2026-01-01T00:01:00Z");
    }

    #[test]
    fn finished_jobs_leave_the_list_and_old_ones_go() {
        let active = json!([{"name": "a", "uid": "a"}, {"name": "gone", "uid": "gone"}]);
        let jobs = [job("a", "Complete"), job("b", "Complete"), job("f", "Failed")];
        let turn = plan(&cron(json!({"/status/active": active})), &jobs, at("2026-01-01T00:00:40Z"));
        assert_eq!(turn.delete, ["a"]);
        assert_eq!(turn.status.expect("a status").active, Vec::<Value>::new());
        let reasons: Vec<&str> = turn.events.iter().map(|(_, reason, _)| *reason).collect();
        assert_eq!(reasons, ["SawCompletedJob", "MissingJob"]);
        assert_eq!(turn.after.map(|after| after.as_millis()), Some(20_100));
    }
}
