//! Table tests of the status. A case is a pod, what the runtime has, what is known besides; the status comes out as
//! `Phase | container state ... | condition ...`.

use super::*;
use crate::pod::model::{ProbeResults, SandboxObserved};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 3}, "spec": spec
    }))
    .expect("a pod")
}

/// `a=run`, `a=1` (exited), `a=made`; newest first. The sandbox is up unless the text begins with `down` or `none`.
fn observed(text: &str) -> Observed {
    let mut words = text.split_whitespace().peekable();
    let ready = match words.peek() {
        Some(&"down") => Some(false),
        Some(&"none") => None,
        _ => Some(true),
    };
    if ready != Some(true) {
        words.next();
    }
    let sandboxes = ready
        .map(|ready| SandboxObserved {
            id: "s".into(),
            attempt: 0,
            ready,
            created_at: 1,
            host_network: false,
            ips: Some(vec!["10.0.0.1".into()]),
        })
        .into_iter()
        .collect();
    let containers = words
        .enumerate()
        .map(|(index, word)| {
            let (name, state) = word.split_once('=').expect("name=state");
            let code = state.parse().ok();
            ContainerObserved {
                id: format!("{name}{index}"),
                sandbox_id: "s".into(),
                name: name.into(),
                state: match (state, code) {
                    ("run", _) => RunState::Running,
                    ("made", _) => RunState::Created,
                    ("lost", _) => RunState::Unknown,
                    (_, Some(_)) => RunState::Exited,
                    other => panic!("state {other:?}"),
                },
                restart_count: 0,
                created_at: 100 - i64::try_from(index).expect("small"),
                started_at: Some(at(10)),
                finished_at: code.map(|_: i32| at(20)),
                exit_code: code.unwrap_or(0),
                reason: code
                    .map_or(String::new(), |code| if code == 0 { "Completed" } else { "Error" }.into()),
                message: String::new(),
                image: "docker.io/library/x:1".into(),
                image_id: "sha256:x".into(),
                hash: 0,
                user: None,
            }
        })
        .collect();
    Observed { sandboxes, containers }
}

fn show_state(state: Option<&ContainerState>) -> String {
    let Some(state) = state else { return "-".into() };
    if state.running.is_some() {
        "running".into()
    } else if let Some(end) = &state.terminated {
        format!("{}({})", end.reason.as_deref().unwrap_or("-"), end.exit_code)
    } else if let Some(waiting) = &state.waiting {
        waiting.reason.clone().unwrap_or_else(|| "waiting".into())
    } else {
        "-".into()
    }
}

fn render(status: &PodStatus) -> String {
    let list = |list: &Option<Vec<ContainerStatus>>| {
        list.iter()
            .flatten()
            .map(|status| {
                let ready = if status.ready { "+" } else { "" };
                let last = match status.last_state.as_ref().and_then(|state| state.terminated.as_ref()) {
                    Some(_) => format!("<{}", show_state(status.last_state.as_ref())),
                    None => String::new(),
                };
                format!("{}:{}{ready}{last}", status.name, show_state(status.state.as_ref()))
            })
            .collect::<Vec<_>>()
    };
    let mut containers = list(&status.init_container_statuses);
    containers.extend(list(&status.container_statuses));
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .flatten()
        .map(|condition| {
            let reason = condition.reason.as_deref().map(|reason| format!("({reason})")).unwrap_or_default();
            let short = match condition.type_.as_str() {
                "PodReadyToStartContainers" => "Sandbox",
                "PodScheduled" => return String::new(),
                other => other,
            };
            format!("{short}={}{reason}", if condition.status == "True" { "T" } else { "F" })
        })
        .filter(|text| !text.is_empty())
        .collect();
    format!(
        "{} | {} | {}",
        status.phase.as_deref().unwrap_or("-"),
        containers.join(" "),
        conditions.join(" ")
    )
}

struct Case<'a> {
    spec: serde_json::Value,
    state: &'a str,
    probes: &'a [(&'a str, ProbeResults)],
    errors: &'a [(&'a str, &'a str)],
    old: PodStatus,
    terminal: bool,
}

fn case(spec: serde_json::Value, state: &str) -> Case<'_> {
    Case { spec, state, probes: &[], errors: &[], old: PodStatus::default(), terminal: false }
}

fn status_of(case: &Case<'_>) -> PodStatus {
    let pod = pod(case.spec.clone());
    let probes: ProbeTable = case.probes.iter().map(|(id, results)| ((*id).to_owned(), *results)).collect();
    let errors: StartErrors = case
        .errors
        .iter()
        .map(|(name, reason)| ((*name).to_owned(), ((*reason).to_owned(), "m".to_owned())))
        .collect();
    generate(StatusInputs {
        pod: &pod,
        observed: &observed(case.state),
        probes: &probes,
        errors: &errors,
        old: &case.old,
        runtime_name: "containerd",
        host_ips: &["192.0.2.1".to_owned()],
        terminal: case.terminal,
        now: at(1000),
    })
}

fn check(case: Case<'_>, want: &str) {
    assert_eq!(render(&status_of(&case)), want, "{} | {}", case.spec, case.state);
}

fn one(policy: &str) -> serde_json::Value {
    serde_json::json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "x:1"}]})
}

fn with_init(policy: &str) -> serde_json::Value {
    serde_json::json!({"restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]})
}

#[test]
fn a_life() {
    let waits = "Initialized=T Ready=F(ContainersNotReady) ContainersReady=F(ContainersNotReady)";
    check(case(one("Always"), "none"), &format!("Pending | a:ContainerCreating | Sandbox=F {waits}"));
    check(case(one("Always"), ""), &format!("Pending | a:ContainerCreating | Sandbox=T {waits}"));
    check(case(one("Always"), "a=made"), &format!("Pending | a:waiting | Sandbox=T {waits}"));
    check(
        case(one("Always"), "a=run"),
        "Running | a:running+ | Sandbox=T Initialized=T Ready=T ContainersReady=T",
    );
    check(case(one("Always"), "a=1"), &format!("Running | a:Error(1) | Sandbox=T {waits}"));
    check(
        case(one("Always"), "a=run a=1"),
        "Running | a:running+<Error(1) | Sandbox=T Initialized=T Ready=T ContainersReady=T",
    );
    check(
        Case { errors: &[("a", "CrashLoopBackOff")], ..case(one("Always"), "a=1") },
        &format!("Running | a:CrashLoopBackOff<Error(1) | Sandbox=T {waits}"),
    );
    check(
        Case { errors: &[("a", "ErrImagePull")], ..case(one("Always"), "") },
        &format!("Pending | a:ErrImagePull | Sandbox=T {waits}"),
    );
}

#[test]
fn ends() {
    let done = "Sandbox=F Initialized=T(PodCompleted) Ready=F(PodCompleted) ContainersReady=F(PodCompleted)";
    let failed = "Initialized=T Ready=F(PodFailed) ContainersReady=F(PodFailed)";
    check(case(one("Never"), "down a=0"), &format!("Succeeded | a:Completed(0) | {done}"));
    check(case(one("OnFailure"), "down a=0"), &format!("Succeeded | a:Completed(0) | {done}"));
    check(case(one("Never"), "down a=2"), &format!("Failed | a:Error(2) | Sandbox=F {failed}"));
    check(
        Case { terminal: true, ..case(one("Always"), "down a=137") },
        &format!("Failed | a:Error(137) | Sandbox=F {failed}"),
    );
    check(
        Case { terminal: true, ..case(one("Always"), "down a=0") },
        &format!("Succeeded | a:Completed(0) | {done}"),
    );
    // A final phase stays, whatever is seen afterwards.
    let old: PodStatus = serde_json::from_value(serde_json::json!({"phase": "Failed", "reason": "Evicted"}))
        .expect("a status");
    let status = status_of(&Case { old, ..case(one("Always"), "none") });
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
}

#[test]
fn init_containers() {
    let waits = "Initialized=F(ContainersNotInitialized) Ready=F(ContainersNotReady) ContainersReady=F(ContainersNotReady)";
    check(
        case(with_init("Always"), "i=run"),
        &format!("Pending | i:running a:PodInitializing | Sandbox=T {waits}"),
    );
    check(
        Case { errors: &[("i", "CrashLoopBackOff")], ..case(with_init("Always"), "i=1") },
        &format!("Pending | i:CrashLoopBackOff<Error(1) a:PodInitializing | Sandbox=T {waits}"),
    );
    check(
        case(with_init("Never"), "i=1"),
        "Failed | i:Error(1) a:PodInitializing | Sandbox=T Initialized=F(ContainersNotInitialized) Ready=F(PodFailed) ContainersReady=F(PodFailed)",
    );
    check(
        case(with_init("Always"), "a=run i=0"),
        "Running | i:Completed(0)+ a:running+ | Sandbox=T Initialized=T Ready=T ContainersReady=T",
    );
}

#[test]
fn probes_decide_readiness() {
    let spec = serde_json::json!({"containers": [{"name": "a", "readinessProbe": {}, "startupProbe": {}}]});
    let ready = |startup, readiness| ProbeResults { startup, readiness, liveness: None };
    let waits = "Initialized=T Ready=F(ContainersNotReady) ContainersReady=F(ContainersNotReady)";
    for (results, want) in [
        (ready(None, None), format!("Running | a:running | Sandbox=T {waits}")),
        (ready(Some(true), None), format!("Running | a:running | Sandbox=T {waits}")),
        (ready(Some(true), Some(false)), format!("Running | a:running | Sandbox=T {waits}")),
        (
            ready(Some(true), Some(true)),
            "Running | a:running+ | Sandbox=T Initialized=T Ready=T ContainersReady=T".to_owned(),
        ),
    ] {
        check(Case { probes: &[("a0", results)], ..case(spec.clone(), "a=run") }, &want);
    }
}

#[test]
fn the_rest_of_the_status() {
    let status = status_of(&case(one("Always"), "a=run"));
    let json = serde_json::to_value(&status).expect("json");
    assert_eq!(json["podIP"], "10.0.0.1");
    assert_eq!(json["podIPs"], serde_json::json!([{"ip": "10.0.0.1"}]));
    assert_eq!(json["hostIPs"], serde_json::json!([{"ip": "192.0.2.1"}]));
    assert_eq!(json["qosClass"], "BestEffort");
    assert_eq!(json["observedGeneration"], 3);
    assert_eq!(json["startTime"], "1970-01-01T00:16:40Z");
    let container = &json["containerStatuses"][0];
    assert_eq!(container["containerID"], "containerd://a0");
    assert_eq!(container["started"], true);
    assert_eq!(container["state"]["running"]["startedAt"], "1970-01-01T00:00:10Z");

    // Times of conditions change with their status only.
    let old = status.clone();
    let mut later = case(one("Always"), "a=run");
    later.old = old;
    let again = status_of(&later);
    assert_eq!(again, status);
}

#[test]
fn readiness_gates() {
    let mut spec = one("Always");
    spec["readinessGates"] = serde_json::json!([{"conditionType": "x.io/ready"}]);
    let status = status_of(&case(spec, "a=run"));
    let ready =
        status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready").expect("Ready");
    assert_eq!(ready.reason.as_deref(), Some("ReadinessGatesNotReady"));
    assert_eq!(
        ready.message.as_deref(),
        Some("corresponding condition of pod readiness gate \"x.io/ready\" does not exist.")
    );
}
