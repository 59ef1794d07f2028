//! How long a pod takes from POST to Running, beside the bare CRI calls that it cannot do without.
//!
//! Both are measured in turn on one containerd, so that what else the machine does weighs on both. The bare pod has the
//! same image, cgroup and log folder as the cluster's, but no volumes.

use crate::child::Killed;
use anyhow::{Context as _, bail};
use copepod_cri::{CriClient, Runtime, api};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Pods one at a time.
const ROUNDS: usize = 15;
/// Pods at once, and how often that is done.
const BURST: usize = 30;
const BURST_ROUNDS: usize = 3;
/// The kubelet is looked at so long, so long after its pods have started.
const AGENT_SETTLE: Duration = Duration::from_secs(5);
const AGENT_WATCHED: Duration = Duration::from_secs(20);
/// The slowest that is still a measurement.
const WAIT: Duration = Duration::from_secs(120);
const IMAGE: &str = "localhost/copepod/web:1";

/// What was seen.
#[derive(Default)]
pub struct Seen {
    /// RunPodSandbox, CreateContainer, StartContainer of each pod.
    steps: Vec<[Duration; 3]>,
    /// The three together, and POST to Running, of pods one at a time.
    pub one: Pairs,
    /// Until the last of [`BURST`] runs.
    pub burst: Pairs,
    /// The kubelet with [`BURST`] pods running: MiB, and CPU in percent of a core. Only where it is a process of its own.
    pub agent: Option<(f64, f64)>,
}

/// The bare calls, where the kubelet leaves them alone, and the whole cluster in turn.
#[derive(Default)]
pub struct Pairs {
    pub bare: Vec<Duration>,
    pub whole: Vec<Duration>,
}

/// Measures a cluster started from `program`, with `images` (tar files that `hack/images` made), and tells.
pub fn measure(program: &str, images: &[&str]) -> anyhow::Result<()> {
    let mut seen = figures(program, images, &Kubelet::Within)?;
    println!("one at a time, {ROUNDS} pods, ms: median (least - most)");
    for (index, name) in ["  RunPodSandbox", "  CreateContainer", "  StartContainer"].iter().enumerate() {
        tell(name, &mut seen.steps.iter().map(|each| each[index]).collect::<Vec<_>>());
    }
    seen.one.tell();
    println!("{BURST} at once, {BURST_ROUNDS} times, ms: median (least - most) of the last pod's end");
    seen.burst.tell();
    Ok(())
}

impl Pairs {
    fn tell(&mut self) {
        let least = tell("bare calls", &mut self.bare);
        let ours = tell("POST to Running", &mut self.whole);
        println!("{:<24} {:>7.2}", "ratio of the medians", ours.as_secs_f64() / least.as_secs_f64());
    }
}

/// Who starts the pods.
pub enum Kubelet {
    /// Ours, in the one process of the cluster.
    Within,
    /// Ours, as a process of its own.
    Separate,
    /// One that takes ours' place in a cluster of separate processes.
    Instead(Start),
}

/// Starts a kubelet for the cluster whose folder this is.
pub type Start = Box<dyn Fn(&Path) -> anyhow::Result<Killed>>;

/// The same, without telling.
pub fn figures(program: &str, images: &[&str], kubelet: &Kubelet) -> anyhow::Result<Seen> {
    copepod_serve::install_crypto_provider();
    let dir = std::env::temp_dir().join(format!("copepod-measure-{}", std::process::id()));
    let cluster = Cluster { program: program.into(), dir: dir.display().to_string() };
    let mut flags = vec!["up".to_owned(), "--no-kubeconfig".into()];
    let separate = !matches!(kubelet, Kubelet::Within);
    flags.extend(separate.then(|| "--separate".to_owned()));
    flags.extend(images.iter().flat_map(|image| ["--load".to_owned(), (*image).to_owned()]));
    cluster.run(&flags)?;
    let other = match kubelet {
        Kubelet::Within | Kubelet::Separate => None,
        Kubelet::Instead(start) => {
            end(pid(&dir)?)?;
            Some(start(&dir)?)
        }
    };
    let pid = match &other {
        Some(other) => Some(other.0.id()),
        None if separate => Some(pid(&dir)?),
        None => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        // Upstream's kubelet ends pods that it does not know.
        let bare = if other.is_some() { None } else { Some(Bare::new(&dir)?) };
        all(&dir, bare.as_ref(), pid).await
    })
}

/// Of our kubelet.
fn pid(dir: &Path) -> anyhow::Result<u32> {
    let file = std::fs::read_to_string(dir.join("run/kubelet.pid"))?;
    file.split_whitespace().next().context("no process id")?.parse().context("no process id")
}

/// Asks a process to end and waits until it has.
fn end(pid: u32) -> anyhow::Result<()> {
    let status = Command::new("kill").arg(pid.to_string()).status()?;
    anyhow::ensure!(status.success(), "process {pid} could not be asked to end");
    let begun = Instant::now();
    // What nobody has reaped yet has ended, too.
    while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        anyhow::ensure!(begun.elapsed() < WAIT, "process {pid} does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A cluster that goes with this value.
struct Cluster {
    program: String,
    dir: String,
}

impl Cluster {
    fn run(&self, arguments: &[String]) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        let status = command.args(["--data-dir", &self.dir]).args(arguments).status();
        let status = status.with_context(|| format!("could not run {}", self.program))?;
        anyhow::ensure!(status.success(), "{} {} failed", self.program, arguments.join(" "));
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["down".into(), "--purge".into()]) {
            eprintln!("the measured cluster is still there: {error:#}");
        }
    }
}

async fn all(dir: &Path, bare: Option<&Bare>, kubelet: Option<u32>) -> anyhow::Result<Seen> {
    let pods = api(dir).await?;
    let mut seen = Seen::default();
    // Once for the caches of both.
    if let Some(bare) = bare {
        bare.pod("warm").await?;
    }
    post(&pods, "warm").await?;
    for round in 0..ROUNDS {
        if let Some(bare) = bare {
            let each = bare.pod(&format!("bare-{round}")).await?;
            seen.one.bare.push(each.iter().sum());
            seen.steps.push(each);
        }
        seen.one.whole.push(post(&pods, &format!("whole-{round}")).await?);
    }
    for round in 0..BURST_ROUNDS {
        if let Some(bare) = bare {
            seen.burst.bare.push(bare.burst(round).await?);
        }
        seen.burst.whole.push(burst(&pods, round).await?);
        if let Some(pid) = kubelet.filter(|_| round + 1 == BURST_ROUNDS) {
            seen.agent = Some(agent(pid).await?);
        }
        remove(&pods, BURST).await?;
    }
    Ok(seen)
}

/// Memory and CPU of the kubelet while its pods just run.
async fn agent(pid: u32) -> anyhow::Result<(f64, f64)> {
    tokio::time::sleep(AGENT_SETTLE).await;
    let before = cpu_ticks(pid)?;
    tokio::time::sleep(AGENT_WATCHED).await;
    // A tick is 10 ms on every Linux that this runs on (USER_HZ): a percent of a second.
    let percent = (cpu_ticks(pid)? - before) as f64 / AGENT_WATCHED.as_secs_f64();
    Ok((crate::bench::resident_mib(pid)?, percent))
}

fn cpu_ticks(pid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command's name stands in parentheses and may hold anything.
    let rest: Vec<&str> = text.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
    let field = |index: usize| rest.get(index).context("no stat")?.parse::<u64>().context("no stat");
    Ok(field(11)? + field(12)?)
}

fn tell(name: &str, times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (first, last) = (times[0], times[times.len() - 1]);
    let median = times[times.len() / 2];
    println!("{name:<24} {:>7.0} ({:.0} - {:.0})", ms(median), ms(first), ms(last));
    median
}

/// The runtime, without anybody in front.
struct Bare {
    runtime: CriClient,
    logs: String,
    cgroup: String,
}

impl Bare {
    fn new(dir: &Path) -> anyhow::Result<Bare> {
        let settings = std::fs::read_to_string(dir.join("settings.json"))?;
        let settings: serde_json::Value = serde_json::from_str(&settings)?;
        let bridge = settings["bridge"].as_str().context("settings without a bridge")?;
        Ok(Bare {
            runtime: CriClient::new(&format!("unix://{}", dir.join("containerd.sock").display()), None)?,
            logs: dir.join("log/pods").display().to_string(),
            cgroup: format!("/{bridge}/kubepods/besteffort"),
        })
    }

    /// Makes a pod, takes the times of the three calls, and removes it.
    async fn pod(&self, name: &str) -> anyhow::Result<[Duration; 3]> {
        let (times, sandbox) = self.start(name).await?;
        self.remove(&sandbox).await?;
        Ok(times)
    }

    async fn start(&self, name: &str) -> anyhow::Result<([Duration; 3], String)> {
        let mut last = Instant::now();
        let mut lap = || {
            let now = Instant::now();
            let time = now - last;
            last = now;
            time
        };
        let config = self.sandbox(name);
        let sandbox = self.runtime.run_pod_sandbox(config.clone(), "").await?;
        let made = lap();
        let container = api::ContainerConfig {
            metadata: Some(api::ContainerMetadata { name: "c".into(), attempt: 0 }),
            image: Some(api::ImageSpec { image: IMAGE.into(), ..Default::default() }),
            labels: HashMap::from([("io.kubernetes.pod.uid".into(), name.to_owned())]),
            log_path: "c.log".into(),
            linux: Some(api::LinuxContainerConfig::default()),
            ..Default::default()
        };
        let id = self.runtime.create_container(&sandbox, container, config).await?;
        let created = lap();
        self.runtime.start_container(&id).await?;
        Ok(([made, created, lap()], sandbox))
    }

    fn sandbox(&self, name: &str) -> api::PodSandboxConfig {
        api::PodSandboxConfig {
            metadata: Some(api::PodSandboxMetadata {
                name: name.into(),
                uid: name.into(),
                namespace: "bare".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: format!("{}/bare_{name}", self.logs),
            linux: Some(api::LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/pod{name}", self.cgroup),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    async fn remove(&self, sandbox: &str) -> anyhow::Result<()> {
        self.runtime.stop_pod_sandbox(sandbox).await?;
        self.runtime.remove_pod_sandbox(sandbox).await?;
        Ok(())
    }

    async fn burst(&self, round: usize) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let starts =
            (0..BURST).map(|index| async move { self.start(&format!("burst-{round}-{index}")).await });
        let made = futures::future::try_join_all(starts).await?;
        let time = begun.elapsed();
        futures::stream::iter(made)
            .map(Ok)
            .try_for_each_concurrent(4, |(_, sandbox)| async move { self.remove(&sandbox).await })
            .await?;
        Ok(time)
    }
}

async fn api(dir: &Path) -> anyhow::Result<Api<Pod>> {
    let file = kube::config::Kubeconfig::read_from(dir.join("kubeconfig/admin.kubeconfig"))?;
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await?;
    Ok(Api::namespaced(kube::Client::try_from(config)?, "default"))
}

fn pod(name: &str) -> anyhow::Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"measured": "yes"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": IMAGE, "imagePullPolicy": "IfNotPresent"}],
        },
    }))?)
}

/// From the POST until a watch shows the pod Running.
async fn post(pods: &Api<Pod>, name: &str) -> anyhow::Result<Duration> {
    let watch = follow(pods, 1, Until::Running).await?;
    let pod = pod(name)?;
    let begun = Instant::now();
    pods.create(&PostParams::default(), &pod).await?;
    watch.await??;
    let time = begun.elapsed();
    remove(pods, 1).await?;
    Ok(time)
}

async fn burst(pods: &Api<Pod>, round: usize) -> anyhow::Result<Duration> {
    let watch = follow(pods, BURST, Until::Running).await?;
    let made =
        (0..BURST).map(|index| pod(&format!("burst-{round}-{index}"))).collect::<Result<Vec<_>, _>>()?;
    let begun = Instant::now();
    futures::future::try_join_all(
        made.iter().map(|pod| async move { pods.create(&PostParams::default(), pod).await }),
    )
    .await?;
    watch.await??;
    Ok(begun.elapsed())
}

async fn remove(pods: &Api<Pod>, count: usize) -> anyhow::Result<()> {
    let watch = follow(pods, count, Until::Gone).await?;
    let all = kube::api::ListParams::default().labels("measured=yes");
    pods.delete_collection(&DeleteParams::default().grace_period(0), &all).await?;
    watch.await??;
    // What the node still does after the object is gone is not the next one's.
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Until {
    Running,
    Gone,
}

/// Begins to watch from now on; ends when so many pods have come that far.
async fn follow(
    pods: &Api<Pod>,
    count: usize,
    until: Until,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<()>>> {
    let selected = kube::api::ListParams::default().labels("measured=yes");
    let version =
        pods.list(&selected).await?.metadata.resource_version.context("a list without a version")?;
    let mut events = pods.watch(&WatchParams::default().labels("measured=yes"), &version).await?.boxed();
    let wait = async move {
        let mut seen = std::collections::HashSet::new();
        while seen.len() < count {
            let Some(event) = events.try_next().await? else { bail!("the watch ended") };
            let pod = match (event, until) {
                (WatchEvent::Modified(pod), Until::Running) => pod,
                (WatchEvent::Deleted(pod), Until::Gone) => pod,
                (WatchEvent::Error(status), _) => bail!("the watch: {}", status.message),
                _ => continue,
            };
            let running = pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
            if until == Until::Gone || running {
                seen.insert(pod.metadata.name.unwrap_or_default());
            }
        }
        Ok(())
    };
    Ok(tokio::spawn(async move { tokio::time::timeout(WAIT, wait).await.context("too slow")? }))
}
