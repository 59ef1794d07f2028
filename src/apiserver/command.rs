//! The API server's command line.

use copepod_serve::Shutdown;

use crate::options::{Options, OptionsError};
use crate::version;

/// Parses flags (the first argument is the program's name) and serves until `shutdown`.
pub async fn run(arguments: Vec<String>, shutdown: Shutdown) -> anyhow::Result<()> {
    let options = match Options::parse_arguments(arguments) {
        Ok(options) => options,
        Err(OptionsError::Clap(error)) => error.exit(),
        Err(error) => return Err(error.into()),
    };
    if options.misc.version.as_deref().is_some_and(|v| v != "false") {
        println!("Kubernetes {}", version::GIT_VERSION);
        return Ok(());
    }
    copepod_serve::logging::init(options.misc.verbosity);
    Ok(crate::run::run(options, shutdown).await?)
}
