//! What every `Runtime` must do, as functions over the trait: run on the fake, and on a real runtime when
//! `COPEPOD_CRI_ENDPOINT` names its socket and `COPEPOD_CRI_IMAGE` an image with a shell that is already there.

use std::{collections::HashMap, time::Duration};

use futures::StreamExt;

use crate::{CriClient, CriError, EventKind, Runtime, api, fake::FakeRuntime};

const UID_LABEL: &str = "io.kubernetes.pod.uid";

struct Fixture {
    runtime: Box<dyn Runtime>,
    image: String,
    uid: String,
    logs: tempfile::TempDir,
}

impl Fixture {
    fn sandbox(&self) -> api::PodSandboxConfig {
        api::PodSandboxConfig {
            metadata: Some(api::PodSandboxMetadata {
                name: "contract".into(),
                uid: self.uid.clone(),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: "contract".into(),
            log_directory: self.logs.path().to_string_lossy().into_owned(),
            labels: self.labels(),
            linux: Some(api::LinuxPodSandboxConfig {
                security_context: Some(api::LinuxSandboxSecurityContext {
                    namespace_options: Some(api::NamespaceOption::default()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn container(&self, name: &str, script: &str) -> api::ContainerConfig {
        api::ContainerConfig {
            metadata: Some(api::ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(api::ImageSpec { image: self.image.clone(), ..Default::default() }),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            labels: self.labels(),
            log_path: format!("{name}.log"),
            linux: Some(api::LinuxContainerConfig::default()),
            ..Default::default()
        }
    }

    fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(UID_LABEL.to_owned(), self.uid.clone())])
    }
}

/// Runs `check` on the fake and on the real runtime, if one is named.
async fn on_each(name: &str, check: impl AsyncFn(Fixture)) {
    let logs = || tempfile::tempdir().expect("a temporary directory");
    let uid = format!("{name}-{}", std::process::id());
    let fake = FakeRuntime::default();
    fake.add_image("image");
    check(Fixture { runtime: Box::new(fake), image: "image".into(), uid: uid.clone(), logs: logs() }).await;
    let Ok(endpoint) = std::env::var("COPEPOD_CRI_ENDPOINT") else { return };
    let image =
        std::env::var("COPEPOD_CRI_IMAGE").unwrap_or_else(|_| "docker.io/library/busybox:latest".into());
    let client = CriClient::new(&endpoint, None).expect("a unix socket");
    check(Fixture { runtime: Box::new(client), image, uid, logs: logs() }).await;
}

async fn until_exited(runtime: &dyn Runtime, id: &str) -> api::ContainerStatus {
    for _ in 0..200 {
        let status = runtime.container_status(id).await.expect("a status");
        if status.state() == api::ContainerState::ContainerExited {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("container {id} did not exit");
}

#[tokio::test]
async fn a_pod_lives_and_dies() {
    on_each("lives", async |fixture| {
        let runtime = fixture.runtime.as_ref();
        let sandbox = runtime.run_pod_sandbox(fixture.sandbox(), "").await.expect("a sandbox");
        let status = runtime.pod_sandbox_status(&sandbox).await.expect("its status");
        assert_eq!(status.state(), api::PodSandboxState::SandboxReady);
        assert!(!status.network.expect("a network").ip.is_empty());

        let config = fixture.container("main", "sleep 1000");
        let id = runtime.create_container(&sandbox, config, fixture.sandbox()).await.expect("a container");
        let created = runtime.container_status(&id).await.expect("status");
        assert_eq!(created.state(), api::ContainerState::ContainerCreated);
        runtime.start_container(&id).await.expect("started");
        let running = runtime.container_status(&id).await.expect("status");
        assert_eq!(running.state(), api::ContainerState::ContainerRunning);
        assert!(running.started_at >= created.created_at);

        let filter = api::ContainerFilter { label_selector: fixture.labels(), ..Default::default() };
        let listed = runtime.list_containers(Some(filter)).await.expect("a list");
        assert_eq!(listed.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
        assert_eq!(listed[0].pod_sandbox_id, sandbox);

        runtime.stop_container(&id, Duration::from_secs(0)).await.expect("stopped");
        assert_eq!(until_exited(runtime, &id).await.exit_code, 137);
        runtime.stop_pod_sandbox(&sandbox).await.expect("sandbox stopped");
        let status = runtime.pod_sandbox_status(&sandbox).await.expect("its status");
        assert_eq!(status.state(), api::PodSandboxState::SandboxNotready);
        runtime.remove_pod_sandbox(&sandbox).await.expect("sandbox removed");
        assert!(runtime.pod_sandbox_status(&sandbox).await.is_err_and(|error| error.is_not_found()));
        assert!(runtime.container_status(&id).await.is_err_and(|error| error.is_not_found()));
    })
    .await;
}

/// CRI: stop and remove are idempotent; questions about the unknown are NotFound.
#[tokio::test]
async fn what_is_gone_is_gone() {
    on_each("gone", async |fixture| {
        let runtime = fixture.runtime.as_ref();
        runtime.stop_pod_sandbox("no-such-id").await.expect("stop is idempotent");
        runtime.remove_pod_sandbox("no-such-id").await.expect("remove is idempotent");
        runtime.stop_container("no-such-id", Duration::ZERO).await.expect("stop is idempotent");
        runtime.remove_container("no-such-id").await.expect("remove is idempotent");
        assert!(matches!(runtime.container_status("no-such-id").await, Err(CriError::NotFound(_))));
        assert!(matches!(runtime.pod_sandbox_status("no-such-id").await, Err(CriError::NotFound(_))));
        let image = api::ImageSpec { image: "localhost/no/such:image".into(), ..Default::default() };
        assert_eq!(runtime.image_status(image.clone()).await.expect("an answer"), None);
        runtime.remove_image(image).await.expect("remove is idempotent");
    })
    .await;
}

/// Exit codes reach the status, and the exit is announced on a stream opened before.
#[tokio::test]
async fn exits_are_reported_and_announced() {
    on_each("exits", async |fixture| {
        let runtime = fixture.runtime.as_ref();
        let events = runtime.events().await.expect("events");
        let (seen, mut events_seen) = tokio::sync::mpsc::channel(64);
        let forward = tokio::spawn(events.for_each(move |event| {
            let seen = seen.clone();
            async move { seen.send(event.expect("an event")).await.expect("a listener") }
        }));
        let sandbox = runtime.run_pod_sandbox(fixture.sandbox(), "").await.expect("a sandbox");
        let config = fixture.container("fails", "exit 3");
        let id = runtime.create_container(&sandbox, config, fixture.sandbox()).await.expect("a container");
        runtime.start_container(&id).await.expect("started");
        let stopped = async {
            while let Some(event) = events_seen.recv().await {
                if event.id == id && event.kind == EventKind::Stopped {
                    return;
                }
            }
            panic!("the stream ended");
        };
        tokio::time::timeout(Duration::from_secs(10), stopped).await.expect("an exit event");
        let status = until_exited(runtime, &id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
        forward.abort();
        runtime.remove_pod_sandbox(&sandbox).await.expect("removed");
    })
    .await;
}

/// The same name and attempt cannot be taken twice: this is what keeps a pod from having two sandboxes.
#[tokio::test]
async fn names_are_unique() {
    on_each("unique", async |fixture| {
        let runtime = fixture.runtime.as_ref();
        let sandbox = runtime.run_pod_sandbox(fixture.sandbox(), "").await.expect("a sandbox");
        assert!(runtime.run_pod_sandbox(fixture.sandbox(), "").await.is_err());
        let config = fixture.container("main", "sleep 1000");
        runtime.create_container(&sandbox, config.clone(), fixture.sandbox()).await.expect("a container");
        assert!(runtime.create_container(&sandbox, config, fixture.sandbox()).await.is_err());
        runtime.remove_pod_sandbox(&sandbox).await.expect("removed");
    })
    .await;
}

/// The command of an exec and its code; an exec in a dead container is an error.
#[tokio::test]
async fn exec_runs_in_the_container() {
    on_each("exec", async |fixture| {
        let runtime = fixture.runtime.as_ref();
        let sandbox = runtime.run_pod_sandbox(fixture.sandbox(), "").await.expect("a sandbox");
        let config = fixture.container("main", "sleep 1000");
        let id = runtime.create_container(&sandbox, config, fixture.sandbox()).await.expect("a container");
        runtime.start_container(&id).await.expect("started");
        let command = vec!["/bin/true".to_owned()];
        let output =
            runtime.exec_sync(&id, command.clone(), Some(Duration::from_secs(5))).await.expect("output");
        assert_eq!(output.exit_code, 0);
        runtime.stop_container(&id, Duration::from_secs(0)).await.expect("stopped");
        until_exited(runtime, &id).await;
        assert!(runtime.exec_sync(&id, command, Some(Duration::from_secs(5))).await.is_err());
        runtime.remove_pod_sandbox(&sandbox).await.expect("removed");
    })
    .await;
}

/// What a pod costs in bare calls, for comparison with the node agent's own time. Prints; judges nothing.
#[tokio::test]
#[ignore = "a measurement: run it alone, with --nocapture, on a named runtime"]
async fn bare_calls_timed() {
    let Ok(endpoint) = std::env::var("COPEPOD_CRI_ENDPOINT") else { return };
    let image =
        std::env::var("COPEPOD_CRI_IMAGE").unwrap_or_else(|_| "docker.io/library/busybox:latest".into());
    let runtime: Box<dyn Runtime> = Box::new(CriClient::new(&endpoint, None).expect("a unix socket"));
    let mut fixture = Fixture {
        runtime,
        image,
        uid: String::new(),
        logs: tempfile::tempdir().expect("a temporary directory"),
    };
    let mut totals = Vec::new();
    for round in 0..20 {
        fixture.uid = format!("timed-{}-{round}", std::process::id());
        let runtime = fixture.runtime.as_ref();
        let begun = std::time::Instant::now();
        let sandbox = runtime.run_pod_sandbox(fixture.sandbox(), "").await.expect("a sandbox");
        let config = fixture.container("main", "sleep 1000");
        let id = runtime.create_container(&sandbox, config, fixture.sandbox()).await.expect("a container");
        runtime.start_container(&id).await.expect("started");
        totals.push(begun.elapsed().as_millis());
        runtime.remove_pod_sandbox(&sandbox).await.expect("removed");
    }
    totals.sort_unstable();
    println!("sandbox + create + start, ms: min {} median {} max {}", totals[0], totals[10], totals[19]);
}
