//! The API server's command line.

use copepod_serve::Shutdown;

use crate::options::{Options, OptionsError};
use crate::run::Running;
use crate::version;

/// Parses flags (the first argument is the program's name) and serves until `shutdown`.
pub async fn run(arguments: Vec<String>, shutdown: Shutdown) -> anyhow::Result<()> {
    if let Some(running) = start(arguments, shutdown).await? {
        running.ended().await;
    }
    Ok(())
}

/// Parses flags and begins to serve; `None` when the flags only asked for something to be printed.
pub async fn start(arguments: Vec<String>, shutdown: Shutdown) -> anyhow::Result<Option<Running>> {
    let options = match Options::parse_arguments(arguments) {
        Ok(options) => options,
        Err(OptionsError::Clap(error)) => error.exit(),
        Err(error) => return Err(error.into()),
    };
    if options.misc.version.as_deref().is_some_and(|v| v != "false") {
        println!("Kubernetes {}", version::GIT_VERSION);
        return Ok(None);
    }
    copepod_serve::logging::init(options.misc.verbosity);
    Ok(Some(crate::run::start(options, shutdown).await?))
}
