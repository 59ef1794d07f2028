//! `/stats/summary`: use of cpu and memory, of the node and of each container, from the runtime's figures.
//!
//! upstream: kubelet/server/stats/summary.go, kubelet/stats/cri_stats_provider.go

use std::collections::BTreeMap;

use copepod_cri::api;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    container::labels,
    context::Context,
    pod::model::{names, uid},
};

/// The summary. What is not measured is left out.
pub async fn summary(context: &Context) -> Result<Value, String> {
    let stats = context.runtime.list_container_stats().await.map_err(|error| error.grpc_text())?;
    let mut containers: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for one in &stats {
        let Some(attributes) = &one.attributes else { continue };
        let label = |name: &str| attributes.labels.get(name).cloned().unwrap_or_default();
        let started = Timestamp::now();
        containers.entry(label(labels::POD_UID)).or_default().push(json!({
            "name": label(labels::CONTAINER_NAME),
            "startTime": started.to_string(),
            "cpu": one.cpu.as_ref().map(cpu),
            "memory": one.memory.as_ref().map(memory),
            "rootfs": one.writable_layer.as_ref().map(|layer| json!({
                "time": time(layer.timestamp),
                "usedBytes": layer.used_bytes.as_ref().map(|value| value.value),
                "inodesUsed": layer.inodes_used.as_ref().map(|value| value.value),
            })),
        }));
    }
    let pods: Vec<Value> = context
        .pods
        .all()
        .iter()
        .map(|pod| {
            let (namespace, name) = names(pod);
            json!({
                "podRef": {"name": name, "namespace": namespace, "uid": uid(pod)},
                "startTime": context.pods.status(uid(pod)).and_then(|status| status.start_time),
                "containers": containers.remove(uid(pod)).unwrap_or_default(),
            })
        })
        .collect();
    Ok(json!({"node": node(context), "pods": pods}))
}

fn time(nanos: i64) -> Option<String> {
    Timestamp::from_nanosecond(i128::from(nanos)).ok().map(|time| time.to_string())
}

fn cpu(usage: &api::CpuUsage) -> Value {
    json!({
        "time": time(usage.timestamp),
        "usageNanoCores": usage.usage_nano_cores.as_ref().map(|value| value.value),
        "usageCoreNanoSeconds": usage.usage_core_nano_seconds.as_ref().map(|value| value.value),
    })
}

fn memory(usage: &api::MemoryUsage) -> Value {
    json!({
        "time": time(usage.timestamp),
        "workingSetBytes": usage.working_set_bytes.as_ref().map(|value| value.value),
        "usageBytes": usage.usage_bytes.as_ref().map(|value| value.value),
        "rssBytes": usage.rss_bytes.as_ref().map(|value| value.value),
    })
}

/// The machine's own figures, from /proc.
fn node(context: &Context) -> Value {
    let now = Timestamp::now().to_string();
    let busy = std::fs::read_to_string("/proc/stat").ok().and_then(|text| {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        // user, nice, system, (idle, iowait,) irq, softirq, steal; a tick is 10 ms on every Linux.
        let busy: u64 =
            ticks.iter().enumerate().filter(|(at, _)| !(3..=4).contains(at)).take(6).map(|(_, t)| t).sum();
        Some(busy * 10_000_000)
    });
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<i64>().ok().map(|kib| kib * 1024)
    });
    json!({
        "nodeName": context.config.node_name,
        "startTime": now,
        "cpu": {"time": now, "usageCoreNanoSeconds": busy},
        "memory": {
            "time": now,
            "availableBytes": available,
            "workingSetBytes": available.map(|available| context.machine.memory_bytes - available),
        },
    })
}
