//! A command in the container: exit code 0 is well.
//!
//! upstream: pkg/probe/exec/exec.go

use std::time::Duration;

use copepod_cri::{CriError, Runtime};

use super::Outcome;

/// Most of the output that a message shows.
const OUTPUT_BYTES_MAX: usize = 10 * 1024;

/// Runs the command.
pub async fn probe(runtime: &dyn Runtime, id: &str, command: Vec<String>, timeout: Duration) -> Outcome {
    match runtime.exec_sync(id, command.clone(), Some(timeout)).await {
        Ok(output) if output.exit_code == 0 => Outcome::Success,
        Ok(output) => {
            let mut all = [output.stdout, output.stderr].concat();
            all.truncate(OUTPUT_BYTES_MAX);
            Outcome::Failure(String::from_utf8_lossy(&all).into_owned())
        }
        Err(CriError::DeadlineExceeded(_)) => {
            let shown = command.join(" ");
            let limit = crate::text::go_duration(timeout);
            Outcome::Failure(format!("command timed out: {shown:?} timed out after {limit}"))
        }
        Err(error) => Outcome::Error(error.grpc_text()),
    }
}
