//! Taking a node away: what is left on the machine when nobody will manage its pods any more. And the cgroup of one of
//! several nodes of a machine, by which all of its processes are found.
//!
//! Not part of the agent: an agent that ends leaves its pods running.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use copepod_cri::{CriClient, CriError, Runtime};
use futures::StreamExt as _;

use crate::cgroup::Cgroups;

/// Sandboxes stopped at a time.
const AT_ONCE: usize = 8;

/// A runtime that has just started listens before it can answer.
const START_WAIT: Duration = Duration::from_secs(10);
const START_POLL: Duration = Duration::from_millis(50);

/// Stops and removes all pods of the runtime at `socket`; how many there were. CNI gives their addresses back.
pub async fn remove_all_pods(socket: &Path) -> Result<usize, CriError> {
    let runtime = CriClient::new(&format!("unix://{}", socket.display()), None)?;
    let until = Instant::now() + START_WAIT;
    let sandboxes = loop {
        match runtime.list_pod_sandboxes(None).await {
            Ok(sandboxes) => break sandboxes,
            Err(error) if Instant::now() > until => return Err(error),
            Err(error) => tracing::debug!(error = error.grpc_text(), "waiting for the container runtime"),
        }
        tokio::time::sleep(START_POLL).await;
    };
    let count = sandboxes.len();
    let runtime = &runtime;
    let mut removals = futures::stream::iter(sandboxes)
        .map(|sandbox| async move {
            runtime.stop_pod_sandbox(&sandbox.id).await?;
            runtime.remove_pod_sandbox(&sandbox.id).await
        })
        .buffer_unordered(AT_ONCE);
    while let Some(removed) = removals.next().await {
        removed?;
    }
    Ok(count)
}

/// Removes the cgroups that an agent with this `--cgroup-root` made.
pub fn remove_cgroups(root: &str) -> io::Result<()> {
    Cgroups::new(root, true)?.remove_all()
}

/// Processes in the cgroups that an agent with this `--cgroup-root` made: what is left of pods whose runtime is gone.
pub fn pod_processes(root: &str) -> io::Result<Vec<i32>> {
    Cgroups::new(root, true)?.processes()
}

/// Makes the cgroup of a node, in which an agent with this `--cgroup-root` can work.
pub fn make_cgroup(root: &str) -> io::Result<()> {
    Cgroups::new(root, true)?.create(root)
}

/// Puts a process among the node's own, those that belong to no pod.
pub fn join(root: &str, pid: i32) -> io::Result<()> {
    Cgroups::new(root, true)?.join(pid)
}

/// The node's own processes.
pub fn joined(root: &str) -> io::Result<Vec<i32>> {
    Cgroups::new(root, true)?.joined()
}

/// All processes of the node, those of its pods among them.
pub fn processes_below(root: &str) -> io::Result<Vec<i32>> {
    Cgroups::new(root, true)?.processes_below(root)
}
