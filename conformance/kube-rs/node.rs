//! What needs a node: waiting for pods, logs, exec, attach, port-forward, eviction.

use crate::{Case, Place, node_case};
use anyhow::{Context as _, ensure};
use futures::{AsyncReadExt as _, FutureExt as _};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess, EvictParams, LogParams, Patch, PatchParams, PostParams};
use kube::runtime::conditions::{is_deleted, is_pod_running};
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(crate) const CASES: &[Case] = &[
    node_case("exec: output, error, exit code", |p| exec(p).boxed()),
    node_case("exec: input ends, a megabyte both ways", |p| input(p).boxed()),
    node_case("exec: a terminal", |p| terminal(p).boxed()),
    node_case("attach", |p| attach(p).boxed()),
    node_case("port-forward", |p| port_forward(p).boxed()),
    node_case("logs, followed", |p| logs(p).boxed()),
    node_case("an ephemeral container, then eviction", |p| ephemeral(p).boxed()),
];

/// A pod of one container `c` that runs.
async fn running(p: &Place, container: serde_json::Value) -> anyhow::Result<Api<Pod>> {
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}}))?;
    match p.api().create(&PostParams::default(), &account).await {
        // A controller makes it too.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        other => drop(other?),
    }
    let image = std::env::var("CONFORMANCE_IMAGE").unwrap_or_else(|_| "localhost/copepod/web:1".into());
    let mut pod = json!({"metadata": {"name": "p"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": image}]}});
    for (key, value) in container.as_object().into_iter().flatten() {
        pod["spec"]["containers"][0][key] = value.clone();
    }
    let pods: Api<Pod> = p.api();
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    await_condition(pods.clone(), "p", is_pod_running()).await.context("it never ran")?;
    Ok(pods)
}

fn sleeps() -> serde_json::Value {
    json!({"command": ["sleep", "1000"]})
}

/// What a process wrote, and how it ended.
struct Ended {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: Status,
}

/// Sends the input, ends it, and reads to the end.
async fn finish(mut process: AttachedProcess, stdin: Vec<u8>) -> anyhow::Result<Ended> {
    let (input, output, errors) = (process.stdin(), process.stdout(), process.stderr());
    let status = process.take_status().context("no status")?;
    let write = async {
        if let Some(mut input) = input {
            input.write_all(&stdin).await?;
            input.shutdown().await?;
        }
        anyhow::Ok(())
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let read = async {
        if let Some(mut output) = output {
            output.read_to_end(&mut stdout).await?;
        }
        anyhow::Ok(())
    };
    let read_errors = async {
        if let Some(mut errors) = errors {
            errors.read_to_end(&mut stderr).await?;
        }
        anyhow::Ok(())
    };
    futures::try_join!(write, read, read_errors)?;
    let status = status.await.context("it ended without a status")?;
    process.join().await?;
    Ok(Ended { stdout, stderr, status })
}

async fn exec(p: Place) -> anyhow::Result<()> {
    let pods = running(&p, sleeps()).await?;
    let process = pods.exec("p", ["sh", "-c", "echo out; echo err >&2"], &AttachParams::default()).await?;
    let ended = finish(process, Vec::new()).await?;
    ensure!(ended.stdout == b"out\n" && ended.stderr == b"err\n", "{:?} {:?}", ended.stdout, ended.stderr);
    ensure!(ended.status.status.as_deref() == Some("Success"), "{:?}", ended.status);
    let process = pods.exec("p", ["sh", "-c", "exit 42"], &AttachParams::default()).await?;
    let status = finish(process, Vec::new()).await?.status;
    let causes = status.details.as_ref().and_then(|d| d.causes.as_ref()).context("no causes")?;
    ensure!(status.reason.as_deref() == Some("NonZeroExitCode"), "{status:?}");
    ensure!(
        causes.iter().any(|c| c.reason.as_deref() == Some("ExitCode") && c.message.as_deref() == Some("42")),
        "{causes:?}"
    );
    let missing = pods.exec("nothing", ["true"], &AttachParams::default()).await;
    ensure!(missing.is_err(), "exec in a pod that is not there");
    Ok(())
}

async fn input(p: Place) -> anyhow::Result<()> {
    let pods = running(&p, sleeps()).await?;
    let params = AttachParams::default().stdin(true).stderr(false);
    let ended = finish(pods.exec("p", ["cat"], &params).await?, b"through\n".to_vec()).await?;
    ensure!(ended.stdout == b"through\n", "{:?}", ended.stdout);
    let large: Vec<u8> = (0..1_000_000_u32).map(|i| (i * 7 / 3) as u8).collect();
    let ended = finish(pods.exec("p", ["cat"], &params).await?, large.clone()).await?;
    ensure!(ended.stdout == large, "{} bytes came back, or others", ended.stdout.len());
    Ok(())
}

async fn terminal(p: Place) -> anyhow::Result<()> {
    let pods = running(&p, sleeps()).await?;
    let params = AttachParams::interactive_tty().stdin(false);
    let mut process = pods.exec("p", ["sh", "-c", "tty; sleep 1; stty size"], &params).await?;
    let mut sizes = process.terminal_size().context("no terminal")?;
    sizes.try_send(kube::api::TerminalSize { width: 132, height: 43 })?;
    let ended = finish(process, Vec::new()).await?;
    let text = String::from_utf8_lossy(&ended.stdout);
    ensure!(text.starts_with("/dev/pts/") && text.contains("43 132"), "{text:?}");
    Ok(())
}

async fn attach(p: Place) -> anyhow::Result<()> {
    let talks = json!({"stdin": true, "stdinOnce": true, "command": ["sh", "-c", "read x; echo got $x; read y; sleep 1; echo end"]});
    let pods = running(&p, talks).await?;
    let params = AttachParams::default().stdin(true).container("c");
    let ended = finish(pods.attach("p", &params).await?, b"word\n".to_vec()).await?;
    ensure!(ended.stdout == b"got word\nend\n", "{:?}", String::from_utf8_lossy(&ended.stdout));
    Ok(())
}

async fn port_forward(p: Place) -> anyhow::Result<()> {
    let ready = json!({"readinessProbe": {"periodSeconds": 1, "httpGet": {"port": 8080}}});
    let pods = running(&p, ready).await?;
    let listening = |pod: Option<&Pod>| {
        let statuses = pod.and_then(|p| p.status.as_ref()).and_then(|s| s.container_statuses.as_ref());
        statuses.is_some_and(|s| s.iter().any(|c| c.ready))
    };
    await_condition(pods.clone(), "p", listening).await?;
    let mut forwarder = pods.portforward("p", &[8080]).await?;
    let mut stream = forwarder.take_stream(8080).context("no stream")?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.") && answer.contains("It runs."), "{answer:?}");
    // The pod closed first, and the runtime with it its WebSocket; kube then has nobody to say its own farewell to.
    forwarder.abort();
    // A port that nobody listens on is told as an error of that port.
    let mut forwarder = pods.portforward("p", &[9]).await?;
    let error = forwarder.take_error(9).context("no error channel")?;
    let mut stream = forwarder.take_stream(9).context("no stream")?;
    stream.write_all(b"x").await?;
    let error = error.await.context("nobody refused")?;
    ensure!(error.contains("refused"), "{error}");
    Ok(())
}

async fn logs(p: Place) -> anyhow::Result<()> {
    let pods =
        running(&p, json!({"command": ["sh", "-c", "echo one; sleep 1; echo two; sleep 1000"]})).await?;
    let params = LogParams { follow: true, container: Some("c".into()), ..LogParams::default() };
    let mut stream = Box::pin(pods.log_stream("p", &params).await?);
    let mut text = [0; 8];
    stream.read_exact(&mut text).await?;
    ensure!(&text == b"one\ntwo\n", "{text:?}");
    let tail = pods.logs("p", &LogParams { tail_lines: Some(1), ..LogParams::default() }).await?;
    ensure!(tail == "two\n", "{tail:?}");
    Ok(())
}

async fn ephemeral(p: Place) -> anyhow::Result<()> {
    let pods = running(&p, sleeps()).await?;
    let image = pods.get("p").await?.spec.and_then(|s| s.containers[0].image.clone()).context("no image")?;
    let patch = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": image, "command": ["sleep", "1000"]}]}});
    pods.patch_ephemeral_containers("p", &PatchParams::default(), &Patch::Strategic(patch)).await?;
    let runs = |pod: Option<&Pod>| {
        let statuses =
            pod.and_then(|p| p.status.as_ref()).and_then(|s| s.ephemeral_container_statuses.as_ref());
        statuses
            .is_some_and(|s| s.iter().any(|c| c.state.as_ref().is_some_and(|state| state.running.is_some())))
    };
    let pod = await_condition(pods.clone(), "p", runs).await?.context("no pod")?;
    pods.evict("p", &EvictParams::default()).await?;
    await_condition(pods, "p", is_deleted(&pod.uid().context("no uid")?)).await?;
    Ok(())
}
