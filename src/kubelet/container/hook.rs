//! Lifecycle hooks.
//!
//! upstream: kubelet/lifecycle/handlers.go

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use crate::{
    context::Context,
    probe::http::{self, HttpTarget},
    text::{go_list, pod_text},
};

/// Limit of an HTTP hook. Upstream has none of its own; the grace period or the start of the container ends it.
const HTTP_TIMEOUT: Duration = Duration::from_secs(600);

/// Runs a hook. The error is the message for the container's status.
pub async fn run(
    context: &Context,
    pod: &Pod,
    container: &Container,
    container_id: &str,
    pod_ips: &[String],
    handler: &LifecycleHandler,
) -> Result<(), String> {
    let name = &container.name;
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = go_list(&command.iter().map(String::as_str).collect::<Vec<_>>());
        let failed = |error: &str, output: &[u8]| {
            format!(
                "Exec lifecycle hook ({shown}) for Container {name:?} in Pod {:?} failed - error: {error}, message: {:?}",
                pod_text(pod),
                String::from_utf8_lossy(output)
            )
        };
        return match context.runtime.exec_sync(container_id, command.clone(), None).await {
            Ok(output) if output.exit_code == 0 => Ok(()),
            Ok(output) => {
                let all = [output.stdout, output.stderr].concat();
                let words = command.join(" ");
                Err(failed(
                    &format!(
                        "command '{words}' exited with {}: {}",
                        output.exit_code,
                        String::from_utf8_lossy(&all)
                    ),
                    &all,
                ))
            }
            Err(error) => Err(failed(&error.grpc_text(), b"")),
        };
    }
    if let Some(get) = &handler.http_get {
        let target = HttpTarget::new(
            get,
            container,
            pod_ips.first().map(String::as_str).unwrap_or_default(),
            "lifecycle",
        );
        let result = match target {
            Ok(target) => http::get(&target, HTTP_TIMEOUT).await.map(drop).map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        return result.map_err(|error| {
            format!(
                "HTTP lifecycle hook ({}) for Container {name:?} in Pod {:?} failed - error: {error}",
                get.path.as_deref().unwrap_or_default(),
                pod_text(pod)
            )
        });
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("Cannot run handler: invalid handler".into())
}
