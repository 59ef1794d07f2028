//! What a job does and when it is done. upstream: validateJobSpec

use copepod_meta::{ErrorList, LabelSelector, Value};
use std::collections::BTreeSet;

use crate::apps;
use crate::check::At;
use crate::core::pod::options::Options;
use crate::core::pod::template;
use crate::{metadata, print};

/// The completion mode in which every pod has a number.
pub(super) const INDEXED: &str = "Indexed";
const SOFT_LIMIT: i64 = 100_000;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

/// upstream: ValidateJobSpec
pub(super) fn validate(spec: At, opts: &Options, invalid_values: bool, e: &mut ErrorList) {
    validate_common(spec, opts, e);
    let selector = spec.get("selector");
    if selector.is_set() {
        metadata::label_selector(selector, invalid_values, e);
    } else {
        selector.required(e, "");
    }
    let labels = spec.get("template.metadata.labels");
    let parsed = LabelSelector::from_value(selector.value);
    if !selector.is_set() || parsed.is_ok_and(|s| !s.matches_map(labels.map())) {
        apps::invalid_labels(labels, e);
    }
}

/// upstream: validateJobSpec
pub(super) fn validate_common(spec: At, opts: &Options, e: &mut ErrorList) {
    let numbers = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    apps::not_negative(spec, &numbers, e);
    let per_index = spec.get("backoffLimitPerIndex");
    let max_failed = spec.get("maxFailedIndexes");
    if max_failed.is_set() && !per_index.is_set() {
        per_index.required(e, "when maxFailedIndexes is specified");
    }
    managed_by(spec.get("managedBy"), e);
    let mode = spec.get("completionMode");
    if mode.is_set() {
        mode.one_of(e, &["NonIndexed", INDEXED]);
    }
    if mode.str() == INDEXED {
        indexed(spec, e);
    }
    if !mode.is_set() || mode.str() == "NonIndexed" {
        for at in [per_index, max_failed] {
            if at.is_set() {
                at.invalid(e, "requires indexed completion mode");
            }
        }
    }
    let failure = spec.get("podFailurePolicy");
    if failure.is_set() {
        failure_policy(spec, failure, e);
    }
    let success = spec.get("successPolicy");
    if success.is_set() {
        if mode.str() == INDEXED {
            success_policy(spec, success, e);
        } else {
            let printed = print::internal(success.value, "batch/SuccessPolicy");
            success.invalid_printed(e, printed, "requires indexed completion mode");
        }
    }
    let replacement = spec.get("podReplacementPolicy");
    if replacement.is_set() {
        let all = ["Failed", "TerminatingOrFailed"];
        replacement.one_of(e, if failure.is_set() { &all[..1] } else { &all });
    }
    template::validate(spec.get("template"), opts, e);
    let restart = spec.get("template.spec.restartPolicy");
    match restart.str() {
        "" | "Always" => restart.required(e, "valid values: \"OnFailure\", \"Never\""),
        "Never" => {}
        "OnFailure" if failure.is_set() => {
            restart.invalid(e, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" => {}
        _ => restart.not_supported(e, &["OnFailure", "Never"]),
    }
}

fn managed_by(at: At, e: &mut ErrorList) {
    const MAX: usize = 63;
    if at.is_set() {
        at.domain_prefixed_path(e);
        if at.len() > MAX {
            at.too_long(e, MAX);
        }
    }
}

fn indexed(spec: At, e: &mut ErrorList) {
    const HIGH_PARALLELISM_MAX: i64 = 10_000;
    const HIGH_FAILED_MAX: i64 = 10_000;
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    let failed = spec.get("maxFailedIndexes");
    let above = |at: &At, max: i64, detail: &str, e: &mut ErrorList| {
        if at.opt_int().is_some_and(|n| n > max) {
            at.invalid(e, format!("must be less than or equal to {max}{detail}"));
        }
    };
    if !completions.is_set() {
        completions.required(e, "when completion mode is Indexed");
    }
    above(&parallelism, SOFT_LIMIT, " when completion mode is Indexed", e);
    if completions.is_set() && failed.opt_int().is_some_and(|n| n > completions.int()) {
        failed.invalid(e, "must be less than or equal to completions");
    }
    above(&failed, SOFT_LIMIT, "", e);
    if completions.int() > SOFT_LIMIT && spec.get("backoffLimitPerIndex").is_set() {
        if !failed.is_set() {
            failed.required(e, "must be specified when completions is above 100000");
        }
        let detail = " when completions are above 100000 and used with backoff limit per index";
        above(&parallelism, HIGH_PARALLELISM_MAX, detail, e);
        above(&failed, HIGH_FAILED_MAX, detail, e);
    }
}

fn failure_policy(spec: At, policy: At, e: &mut ErrorList) {
    const RULES_MAX: usize = 20;
    let rules = policy.get("rules");
    if rules.len() > RULES_MAX {
        rules.too_many(e, rules.len(), RULES_MAX);
    }
    let mut names = BTreeSet::new();
    for list in ["containers", "initContainers"] {
        let containers = spec.value.list_at(&["template", "spec", list]).iter();
        names.extend(containers.map(|c| c.str_at(&["name"])));
    }
    for rule in rules.items() {
        let action = rule.get("action");
        match action.str() {
            "" => required_one_of(action, &ACTIONS, e),
            "FailIndex" if !spec.get("backoffLimitPerIndex").is_set() => {
                action.invalid(e, "requires the backoffLimitPerIndex to be set");
            }
            _ => action.one_of(e, &ACTIONS),
        }
        let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        if codes.is_set() {
            exit_codes(codes, &names, e);
        }
        pod_conditions(conditions, e);
        match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => {
                rule.invalid_omitted(e, "specifying both OnExitCodes and OnPodConditions is not supported");
            }
            (false, false) => {
                rule.invalid_omitted(e, "specifying one of OnExitCodes and OnPodConditions is required");
            }
            _ => {}
        }
    }
}

fn required_one_of(at: At, allowed: &[&str], e: &mut ErrorList) {
    let quoted: Vec<String> = allowed.iter().map(|s| copepod_meta::field::quote(s)).collect();
    at.required(e, &format!("valid values: {}", print::go_list(&quoted)));
}

fn pod_conditions(list: At, e: &mut ErrorList) {
    const MAX: usize = 20;
    if list.len() > MAX {
        list.too_many(e, list.len(), MAX);
    }
    for pattern in list.items() {
        pattern.get("type").qualified_name(e);
        let status = pattern.get("status");
        let allowed = ["False", "True", "Unknown"];
        match status.str() {
            "" => required_one_of(status, &allowed, e),
            _ => status.one_of(e, &allowed),
        }
    }
}

fn exit_codes(at: At, names: &BTreeSet<&str>, e: &mut ErrorList) {
    const MAX: usize = 255;
    let operator = at.get("operator");
    match operator.str() {
        "" => required_one_of(operator, &["In", "NotIn"], e),
        _ => operator.one_of(e, &["In", "NotIn"]),
    }
    let container = at.get("containerName");
    if container.is_set() && !names.contains(container.str()) {
        container.invalid(e, "must be one of the container or initContainer names in the pod template");
    }
    let values = at.get("values");
    if values.is_empty() {
        values.invalid_pointer(e, "at least one value is required");
    } else if values.len() > MAX {
        values.too_many(e, values.len(), MAX);
    }
    let mut seen = BTreeSet::new();
    let mut last = i64::MIN;
    let mut ordered = true;
    for value in values.items() {
        if operator.str() == "In" && value.int() == 0 {
            value.invalid_int(e, "must not be 0 for the In operator");
        }
        if !seen.insert(value.int()) {
            value.duplicate(e);
        }
        ordered &= last <= value.int();
        last = value.int();
    }
    if !ordered {
        values.invalid(e, "must be ordered");
    }
}

fn success_policy(spec: At, policy: At, e: &mut ErrorList) {
    const RULES_MAX: usize = 20;
    const INDEXES_MAX: usize = 64 * 1024;
    let rules = policy.get("rules");
    if rules.is_empty() {
        rules.required(e, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > RULES_MAX {
        rules.too_many(e, rules.len(), RULES_MAX);
    }
    let completions = spec.get("completions").int();
    for rule in rules.items() {
        let (count, indexes) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
        if !count.is_set() && !indexes.is_set() {
            rule.required(e, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let mut total = 0;
        if indexes.is_set() {
            if indexes.len() > INDEXES_MAX {
                indexes.too_long(e, INDEXES_MAX);
            }
            match count_indexes(indexes.str(), completions) {
                Ok(n) => total = n,
                Err(message) => indexes.invalid(e, format!("error parsing succeededIndexes: {message}")),
            }
        }
        count.not_negative(e);
        let above = |max: i64, what: &str, e: &mut ErrorList| {
            if count.int() > max {
                count.invalid(e, format!("must be less than or equal to {max} (the number of {what})"));
            }
        };
        above(completions, "specified completions", e);
        if indexes.is_set() {
            above(total, "indexes in the specified succeededIndexes field", e);
        }
    }
}

/// How many indexes `1,3-5` names. upstream: validateIndexesFormat
pub(super) fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let mut last = None;
    let mut total = 0;
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let (low, high) = interval_of(interval, completions)?;
        if let Some(last) = last
            && last >= low
        {
            return Err(format!("non-increasing order, previous: {last}, current: {low}"));
        }
        total += high - low + 1;
        last = Some(high);
    }
    Ok(total)
}

/// upstream: parseIndexInterval
pub(super) fn interval_of(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let quote = copepod_meta::field::quote;
    let parts: Vec<&str> = text.split('-').collect();
    let number = |part: &str| {
        let n: i64 = part
            .parse()
            .map_err(|_| format!("cannot convert string to integer for index: {}", quote(part)))?;
        if n >= completions { Err(format!("too large index: {}", quote(part))) } else { Ok(n) }
    };
    match parts[..] {
        [one] => number(one).map(|n| (n, n)),
        [low, high] => {
            let (low, high) = (number(low)?, number(high)?);
            if low >= high {
                return Err(format!("non-increasing order, previous: {low}, current: {high}"));
            }
            Ok((low, high))
        }
        _ => Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            quote(text)
        )),
    }
}

/// upstream: WarningsForJobSpec, less the template
pub(super) fn warn(spec: &Value, path: &str, out: &mut Vec<String>) {
    const PARALLELISM_SOFT_LIMIT: i64 = 10_000;
    if spec.str_at(&["completionMode"]) == INDEXED
        && spec.int_at(&["completions"]) > SOFT_LIMIT
        && spec.int_at(&["parallelism"]) > PARALLELISM_SOFT_LIMIT
    {
        out.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
}
