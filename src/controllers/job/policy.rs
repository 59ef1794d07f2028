//! What a job's policies say about its pods: which failures count, and which successes are enough. Pure.
//!
//! upstream: pkg/controller/job/pod_failure_policy.go, success_policy.go

use copepod_client::object::MetaExt;

use super::indexes::Indexes;
use crate::kinds::{ExitCodes, Job, Pod, SuccessRule};

/// What a failed pod means for its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It counts.
    Counts,
    /// As if it had not been.
    Ignored,
    /// Its index has failed, whatever the limit says.
    FailsIndex,
    /// The job has failed: why.
    FailsJob(String),
}

impl Failure {
    /// Whether the failure is one of those that a limit counts.
    pub(super) fn counts(&self) -> bool {
        *self != Self::Ignored
    }
}

/// The first rule that matches decides.
pub(super) fn of_failed(job: &Job, pod: &Pod) -> Failure {
    let Some(policy) = &job.spec.pod_failure_policy else { return Failure::Counts };
    let (namespace, name) = (MetaExt::namespace(&pod.metadata), pod.metadata.name());
    for (index, rule) in policy.rules.iter().enumerate() {
        let action = rule.action.as_str();
        let what = if let Some(wanted) = &rule.on_exit_codes {
            exit_code(pod, wanted).map(|(container, code)| {
                format!("Container {container} for pod {namespace}/{name} failed with exit code {code}")
            })
        } else {
            let matching = pod.status.conditions.iter().find(|condition| {
                let same = |p: &crate::kinds::ConditionPattern| {
                    p.kind == condition.kind && p.status == condition.status
                };
                rule.on_pod_conditions.iter().any(same)
            });
            matching.map(|condition| format!("Pod {namespace}/{name} has condition {}", condition.kind))
        };
        let Some(what) = what else { continue };
        match action {
            "Ignore" => return Failure::Ignored,
            "FailIndex" => return Failure::FailsIndex,
            "Count" => return Failure::Counts,
            "FailJob" => {
                return Failure::FailsJob(format!("{what} matching {action} rule at index {index}"));
            }
            // An action of a newer server: the next rule may be one that is known.
            _ => {}
        }
    }
    Failure::Counts
}

/// The container that ended with one of the codes, and its code.
fn exit_code(pod: &Pod, wanted: &ExitCodes) -> Option<(String, i64)> {
    let all = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
    let named = all.filter(|c| wanted.container_name.as_ref().is_none_or(|name| *name == c.name));
    let ended = named.filter_map(|c| Some((c.name.clone(), c.state["terminated"]["exitCode"].as_i64()?)));
    ended.filter(|(_, code)| *code != 0).find(|(_, code)| match wanted.operator.as_str() {
        "In" => wanted.values.contains(code),
        "NotIn" => !wanted.values.contains(code),
        _ => false,
    })
}

/// Says which rule of the success policy is met, if one is.
pub(super) fn success(rules: &[SuccessRule], completions: i32, succeeded: &Indexes) -> Option<String> {
    if succeeded.len() == 0 {
        return None;
    }
    let met = |rule: &SuccessRule| match &rule.succeeded_indexes {
        Some(text) => {
            let wanted = Indexes::parse(text, completions);
            let there = wanted.overlap(succeeded);
            wanted.len() > 0
                && (there == wanted.len() || rule.succeeded_count.is_some_and(|count| there >= count))
        }
        None => rule.succeeded_count.is_some_and(|count| succeeded.len() >= count),
    };
    rules.iter().position(met).map(|index| format!("Matched rules at index {index}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn decide(rules: Value, pod: Value) -> Failure {
        let job: Job =
            serde_json::from_value(json!({"spec": {"podFailurePolicy": {"rules": rules}}})).expect("a job");
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        of_failed(&job, &pod)
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let pod = |main: i64, init: i64| {
            let ended =
                |name: &str, code: i64| json!({"name": name, "state": {"terminated": {"exitCode": code}}});
            json!({"metadata": {"name": "p", "namespace": "x"}, "status": {"phase": "Failed",
                "conditions": [{"type": "DisruptionTarget", "status": "True"}],
                "containerStatuses": [ended("main", main)], "initContainerStatuses": [ended("init", init)]}})
        };
        let codes = |action: &str, operator: &str, values: Value, container: Value| json!([{"action": action, "onExitCodes": {"operator": operator, "values": values, "containerName": container}}]);
        let disrupted = |action: &str| json!([{"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]);
        let job = |text: &str| Failure::FailsJob(text.into());
        for (name, rules, pod, want) in [
            ("no rule", json!([]), pod(1, 0), Failure::Counts),
            (
                "a code of a list",
                codes("FailJob", "In", json!([3, 42]), json!(null)),
                pod(42, 0),
                job("Container main for pod x/p failed with exit code 42 matching FailJob rule at index 0"),
            ),
            ("another code", codes("FailJob", "In", json!([3]), json!(null)), pod(1, 0), Failure::Counts),
            (
                "zero is no failure",
                codes("FailJob", "NotIn", json!([3]), json!("main")),
                pod(0, 9),
                Failure::Counts,
            ),
            (
                "init containers too",
                codes("FailJob", "NotIn", json!([3]), json!("init")),
                pod(0, 9),
                job("Container init for pod x/p failed with exit code 9 matching FailJob rule at index 0"),
            ),
            ("disruption ignored", disrupted("Ignore"), pod(1, 0), Failure::Ignored),
            ("counted by name", disrupted("Count"), pod(1, 0), Failure::Counts),
            ("its index only", disrupted("FailIndex"), pod(1, 0), Failure::FailsIndex),
            (
                "by condition",
                disrupted("FailJob"),
                pod(1, 0),
                job("Pod x/p has condition DisruptionTarget matching FailJob rule at index 0"),
            ),
        ] {
            assert_eq!(decide(rules, pod), want, "{name}");
        }
    }

    #[test]
    fn some_indexes_may_be_enough() {
        let rule =
            |indexes: Value, count: Value| json!({"succeededIndexes": indexes, "succeededCount": count});
        for (name, rules, succeeded, want) in [
            ("none yet", json!([rule(json!(null), json!(0))]), "", None),
            ("the leader", json!([rule(json!("0"), json!(null))]), "0,4", Some(0)),
            ("not the leader", json!([rule(json!("0"), json!(null))]), "1-9", None),
            ("so many", json!([rule(json!(null), json!(3))]), "1,5,7", Some(0)),
            ("too few", json!([rule(json!(null), json!(3))]), "1,5", None),
            ("so many of some", json!([rule(json!("0-4"), json!(2))]), "1,3,8", Some(0)),
            (
                "the second rule",
                json!([rule(json!("0"), json!(null)), rule(json!(null), json!(1))]),
                "4",
                Some(1),
            ),
            ("no such index", json!([rule(json!("50"), json!(1))]), "1", None),
        ] {
            let rules: Vec<SuccessRule> = serde_json::from_value(rules).expect("rules");
            let met = success(&rules, 10, &Indexes::parse(succeeded, 10));
            assert_eq!(met, want.map(|index: i32| format!("Matched rules at index {index}")), "{name}");
        }
    }
}
