//! The node: POST until a pod runs, beside the bare calls of the container runtime, which are its floor; the agent's memory
//! and CPU with its pods running. Ours and upstream's kubelet in turn, each in a cluster of ours. As root, on a machine with
//! containerd.

use anyhow::{Context as _, ensure};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::Options;
use super::programs;
use super::results::{Measured, Part, Run};
use super::side::Which;
use crate::child::Killed;
use crate::diff::pair::spawn;
use crate::diff::{first_line, tool};
use crate::pods::{self, Kubelet, Pairs, Seen};

pub fn measure(root: &Path, options: &Options) -> anyhow::Result<Part> {
    ensure!(
        !options.image.is_empty(),
        "the part `pods` needs --image, once for each file that hack/images printed"
    );
    let program = programs::ours(root, options, &["copepod-cli"])?.join("copepod");
    let upstream = tool(root, &options.upstream_kubelet, "kubelet")?;
    let images: Vec<String> = options.image.iter().map(|image| image.display().to_string()).collect();
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let versions =
        BTreeMap::from([("upstream".into(), first_line(Command::new(&upstream).arg("--version"))?)]);
    let run = Run::begin(root, &versions)?;
    let begun = Instant::now();
    let program = program.to_str().context("a path that is no text")?;
    let theirs = Kubelet::Instead(Box::new(move |dir| start(&upstream, dir)));
    let ours = pods::figures(program, &images, &Kubelet::Separate)?;
    let theirs = pods::figures(program, &images, &theirs)?;
    let rounds = ours.one.bare.len();
    let mut measured = BTreeMap::from([(Which::Ours, whole(&ours)), (Which::Upstream, whole(&theirs))]);
    measured.insert(Which::Floor, figures("pod_one_ms", &ours.one.bare));
    let burst = figures("pod_30_ms", &ours.burst.bare);
    measured.entry(Which::Floor).or_default().extend(burst);
    Ok(Part::of(run.ended(rounds, begun.elapsed())?, &measured))
}

fn whole(seen: &Seen) -> Vec<Measured> {
    let of = |pairs: &Pairs, row| figures(row, &pairs.whole);
    let mut all = of(&seen.one, "pod_one_ms");
    all.extend(of(&seen.burst, "pod_30_ms"));
    if let Some((mib, percent)) = seen.agent {
        let agent = Measured::default().with("agent_memory_30_pods_mib", mib);
        all.push(agent.with("agent_cpu_30_pods_percent", percent));
    }
    all
}

fn figures(row: &str, times: &[Duration]) -> Vec<Measured> {
    times.iter().map(|time| Measured::default().with(row, time.as_secs_f64() * 1e3)).collect()
}

/// Starts upstream's kubelet in the place of ours: the same node, runtime, certificates and cgroups.
fn start(program: &Path, dir: &Path) -> anyhow::Result<Killed> {
    let settings = std::fs::read_to_string(dir.join("settings.json"))?;
    let settings: serde_json::Value = serde_json::from_str(&settings)?;
    let setting = |name: &str| settings[name].as_str().with_context(|| format!("settings without {name}"));
    let path = |name: &str| dir.join(name).display().to_string();
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": false}, "x509": {"clientCAFile": path("pki/ca.crt")}},
        "port": settings["kubeletPort"],
        "healthzPort": 0,
        "tlsCertFile": path("pki/kubelet.crt"),
        "tlsPrivateKeyFile": path("pki/kubelet.key"),
        "containerRuntimeEndpoint": format!("unix://{}", path("containerd.sock")),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", setting("bridge")?),
        "failCgroupV1": false,
        "failSwapOn": false,
        "podLogsDir": path("log/pods"),
        // A test machine with a full disk is not what is measured.
        "evictionHard": {"memory.available": "1Mi"},
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": false,
    });
    let file: PathBuf = dir.join("upstream-kubelet.json");
    std::fs::write(&file, config.to_string())?;
    let flags = vec![
        format!("--config={}", file.display()),
        format!("--kubeconfig={}", path("kubeconfig/kubelet.kubeconfig")),
        format!("--hostname-override={}", setting("nodeName")?),
        format!("--node-ip={}", setting("nodeIp")?),
        format!("--root-dir={}", path("upstream-kubelet")),
    ];
    spawn(program, flags, &dir.join("log/upstream-kubelet.log"))
}
