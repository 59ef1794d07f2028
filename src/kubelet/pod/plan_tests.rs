//! Table tests of the decision. A pod is written as `policy; init...; regular...`, what is there as
//! `sandbox-state name=state...`, the plan comes out as one line.

use super::*;
use crate::pod::model::{ContainerObserved, ProbeResults, SandboxObserved};

/// `Always a b`, `Never init:i side:s a`.
fn pod(text: &str) -> Pod {
    let mut words = text.split_whitespace();
    let policy = words.next().expect("a policy");
    let mut pod = Pod::default();
    pod.metadata.name = Some("p".into());
    pod.metadata.namespace = Some("n".into());
    pod.metadata.uid = Some("u".into());
    let mut spec =
        k8s_openapi::api::core::v1::PodSpec { restart_policy: Some(policy.into()), ..Default::default() };
    let mut inits = Vec::new();
    for word in words {
        let container =
            |name: &str| Container { name: name.into(), image: Some("image".into()), ..Default::default() };
        match word.split_once(':') {
            Some(("init", name)) => inits.push(container(name)),
            Some(("side", name)) => {
                inits.push(Container { restart_policy: Some("Always".into()), ..container(name) });
            }
            Some(("probed", name)) => {
                inits.push(Container {
                    restart_policy: Some("Always".into()),
                    startup_probe: Some(Default::default()),
                    ..container(name)
                });
            }
            _ => spec.containers.push(container(word)),
        }
    }
    spec.init_containers = (!inits.is_empty()).then_some(inits);
    pod.spec = Some(spec);
    pod
}

/// `up a=run b=0 c=1@5`: sandbox up, a runs, b exited with 0, c with 1 at second 5. `down`, `none`, `noip`, `two`.
fn observed(text: &str, pod: &Pod) -> Observed {
    let mut words = text.split_whitespace();
    let sandbox = |id: &str, attempt, ready, ip: &str| SandboxObserved {
        id: id.into(),
        attempt,
        ready,
        created_at: i64::from(attempt),
        host_network: false,
        ips: Some(if ip.is_empty() { vec![] } else { vec![ip.into()] }),
    };
    let sandboxes = match words.next().expect("a sandbox state") {
        "none" => vec![],
        "up" => vec![sandbox("s0", 0, true, "10.0.0.1")],
        "down" => vec![sandbox("s0", 0, false, "10.0.0.1")],
        "noip" => vec![sandbox("s0", 0, true, "")],
        "two" => vec![sandbox("s1", 1, true, "10.0.0.2"), sandbox("s0", 0, true, "10.0.0.1")],
        other => panic!("sandbox state {other}"),
    };
    let hash_of = |name: &str| {
        crate::pod::model::find_container(pod, name).map_or(0, |(_, container)| container_hash(&container))
    };
    let containers = words
        .map(|word| {
            let (name, state) = word.split_once('=').expect("name=state");
            let (state, at) = state.split_once('@').unwrap_or((state, "0"));
            let mut instance = ContainerObserved {
                id: format!("{name}-id"),
                sandbox_id: "s0".into(),
                name: name.into(),
                state: RunState::Exited,
                restart_count: 0,
                created_at: 0,
                started_at: None,
                finished_at: Some(Timestamp::from_second(at.parse().expect("a second")).expect("a time")),
                exit_code: 0,
                reason: String::new(),
                message: String::new(),
                image: "image".into(),
                image_id: "image".into(),
                hash: hash_of(name),
                user: None,
            };
            match state {
                "run" => instance.state = RunState::Running,
                "made" => instance.state = RunState::Created,
                "lost" => instance.state = RunState::Unknown,
                "changed" => {
                    instance.state = RunState::Running;
                    instance.hash = 1;
                }
                code => instance.exit_code = code.parse().expect("an exit code"),
            }
            instance
        })
        .collect();
    Observed { sandboxes, containers }
}

fn render(pod: &Pod, plan: &Plan) -> String {
    let mut out = Vec::new();
    if plan.kill_pod {
        out.push("killpod".to_owned());
    }
    out.extend(plan.kill.iter().map(|kill| format!("kill:{}({:?})", kill.name, kill.reason)));
    match &plan.sandbox {
        SandboxPlan::Keep(_) => {}
        SandboxPlan::Create { attempt, .. } => out.push(format!("sandbox:{attempt}")),
        SandboxPlan::None => out.push("nosandbox".into()),
    }
    out.extend(plan.start.iter().map(|start| format!("start:{}", container_at(pod, *start).name)));
    out.extend(plan.waiting.iter().map(|wait| format!("wait:{}", wait.name)));
    out.join(" ")
}

fn check(pod_text: &str, state: &str, probes: &[(&str, ProbeResults)], want: &str) {
    let pod = pod(pod_text);
    let observed = observed(state, &pod);
    let probes: ProbeTable = probes.iter().map(|(name, result)| (format!("{name}-id"), *result)).collect();
    let mut backoff = Backoff::default();
    // `crashy` has crashed before: it is in back-off for ten seconds after its end at second 100.
    let crash = Timestamp::from_second(100).expect("a time");
    let known = spec(&pod).containers.iter().chain(init_containers(&pod));
    if let Some(crashy) = known.into_iter().find(|container| container.name == "crashy") {
        backoff.next(&backoff::key(crashy), crash, crash);
    }
    let now = Timestamp::from_second(105).expect("a time");
    let plan = plan(Inputs { pod: &pod, observed: &observed, probes: &probes, backoff: &backoff, now });
    assert_eq!(render(&pod, &plan), want, "{pod_text} | {state}");
}

#[test]
fn sandboxes() {
    for (pod, state, want) in [
        ("Always a b", "none", "killpod sandbox:0 start:a start:b"),
        ("Always init:i a", "none", "killpod sandbox:0 start:i"),
        ("Always a", "down a=137", "killpod sandbox:1 start:a"),
        ("Always a", "noip a=run", "killpod sandbox:1 start:a"),
        ("Always a", "two a=run", "killpod sandbox:2 start:a"),
        ("Never a", "down a=0", "killpod nosandbox"),
        ("Never a", "none", "killpod sandbox:0 start:a"),
        ("OnFailure a b", "down a=0 b=1", "killpod sandbox:1 start:b"),
        ("OnFailure a", "down a=0", "killpod nosandbox"),
        ("OnFailure init:i a", "down i=0", "killpod sandbox:1 start:i"),
    ] {
        check(pod, state, &[], want);
    }
}

#[test]
fn restarts() {
    for (pod, state, want) in [
        ("Always a b", "up a=run b=run", ""),
        ("Always a b", "up a=run", "start:b"),
        ("Always a", "up a=made", "start:a"),
        ("Always a", "up a=0", "start:a"),
        ("OnFailure a", "up a=1", "start:a"),
        ("OnFailure a", "up a=0", "killpod nosandbox"),
        ("OnFailure a b", "up a=0 b=run", ""),
        ("Never a", "up a=1", "killpod nosandbox"),
        ("Never a b", "up a=1 b=run", ""),
        ("Always a", "up a=lost", "kill:a(Unknown) start:a"),
        ("Never a", "up a=changed", "kill:a(Other) start:a"),
        ("Always crashy", "up crashy=1@100", "wait:crashy"),
        ("Always crashy", "up crashy=1@90", "start:crashy"),
        ("Always crashy a", "up crashy=1@100", "start:a wait:crashy"),
    ] {
        check(pod, state, &[], want);
    }
}

#[test]
fn init_containers_in_order() {
    for (pod, state, want) in [
        ("Always init:i init:j a", "up", "start:i"),
        ("Always init:i init:j a", "up i=run", ""),
        ("Always init:i init:j a", "up i=0", "start:j"),
        ("Always init:i init:j a", "up i=0 j=0", "start:a"),
        ("Always init:i init:j a", "up i=0 j=0 a=run", ""),
        ("Always init:i a", "up i=1", "start:i"),
        ("OnFailure init:i a", "up i=1", "start:i"),
        ("Never init:i a", "up i=1", "killpod nosandbox"),
        ("Always init:i a", "up a=run", ""),
        ("Always init:crashy a", "up crashy=1@100", "wait:crashy"),
        ("Always init:crashy side:s a", "up crashy=1@100", "wait:crashy"),
    ] {
        check(pod, state, &[], want);
    }
}

#[test]
fn sidecars() {
    let ok = ProbeResults { startup: Some(true), ..Default::default() };
    let failed = ProbeResults { startup: Some(false), ..Default::default() };
    for (pod, state, probes, want) in [
        ("Always side:s init:i a", "up", vec![], "start:s"),
        ("Always side:s init:i a", "up s=run", vec![], "start:i"),
        ("Always side:s a", "up s=run", vec![], "start:a"),
        ("Always side:s a", "up s=0 a=run", vec![], "start:s"),
        ("Always side:s a", "up a=run", vec![], "start:s"),
        ("Always probed:s a", "up s=run", vec![], ""),
        ("Always probed:s a", "up s=run", vec![("s", ok)], "start:a"),
        ("Always probed:s a", "up s=run", vec![("s", failed)], "kill:s(StartupProbe) start:s"),
        ("Never side:s a", "up s=run a=0", vec![], "killpod nosandbox"),
    ] {
        check(pod, state, &probes, want);
    }
}

#[test]
fn probes() {
    let dead = ProbeResults { liveness: Some(false), ..Default::default() };
    let unstarted = ProbeResults { startup: Some(false), ..Default::default() };
    let unready = ProbeResults { readiness: Some(false), ..Default::default() };
    for (pod, state, probes, want) in [
        ("Always a", "up a=run", vec![("a", dead)], "kill:a(LivenessProbe) start:a"),
        ("Never a", "up a=run", vec![("a", dead)], "killpod kill:a(LivenessProbe) nosandbox"),
        ("Always a", "up a=run", vec![("a", unstarted)], "kill:a(StartupProbe) start:a"),
        ("Always a", "up a=run", vec![("a", unready)], ""),
    ] {
        check(pod, state, &probes, want);
    }
}
