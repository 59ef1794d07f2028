//! The node: POST until a pod runs, beside the bare calls of the container runtime, which are its floor; the agent's memory
//! and CPU with its pods running. As root, on a machine with containerd.

use anyhow::{Context as _, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Options;
use super::programs;
use super::results::{Measured, Part, Run};
use super::side::Which;
use crate::pods::{self, Pairs};

pub fn measure(root: &Path, options: &Options) -> anyhow::Result<Part> {
    ensure!(!options.image.is_empty(), "the part `pods` needs --image, once for each file that hack/images printed");
    let program = programs::ours(root, options, &["copepod-cli"])?.join("copepod");
    let images: Vec<String> = options.image.iter().map(|image| image.display().to_string()).collect();
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let run = Run::begin(root, &BTreeMap::new())?;
    let begun = Instant::now();
    let seen = pods::figures(program.to_str().context("a path that is no text")?, &images, true)?;
    let (mut bare, mut whole) = pairs("pod_one_ms", &seen.one);
    let (more_bare, more_whole) = pairs("pod_30_ms", &seen.burst);
    bare.extend(more_bare);
    whole.extend(more_whole);
    if let Some((mib, percent)) = seen.agent {
        let agent = Measured::default().with("agent_memory_30_pods_mib", mib);
        whole.push(agent.with("agent_cpu_30_pods_percent", percent));
    }
    let measured = BTreeMap::from([(Which::Floor, bare), (Which::Ours, whole)]);
    Ok(Part::of(run.ended(seen.one.bare.len(), begun.elapsed())?, &measured))
}

fn pairs(row: &str, pairs: &Pairs) -> (Vec<Measured>, Vec<Measured>) {
    let each = |times: &[Duration]| {
        times.iter().map(|time| Measured::default().with(row, time.as_secs_f64() * 1e3)).collect()
    };
    (each(&pairs.bare), each(&pairs.whole))
}
