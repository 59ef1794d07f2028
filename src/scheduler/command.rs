//! The scheduler's command line, with upstream's flags.

use clap::Parser;
use copepod_client::Shutdown;
use copepod_client::program::{self, Program, ProgramFlags};
use copepod_serve::flags::Unsupported;
use copepod_serve::metrics::Registry;

use crate::Config;

#[derive(Debug, Clone)]
struct Scheduler;

impl Program for Scheduler {
    const AGENT: &'static str = "copepod-scheduler";
    const LEASE: &'static str = "kube-scheduler";
    const PORT: u16 = 10259;
}

/// Assigns pods to nodes.
#[derive(Debug, Parser)]
#[command(name = "copepod-scheduler", version)]
struct Flags {
    #[command(flatten)]
    program: ProgramFlags<Scheduler>,
}

const IN_FLIGHT: &str = "requests are bounded by their number in flight";

/// Flags of upstream's that would change what this program does.
const UNSUPPORTED: [Unsupported; 3] = [
    Unsupported {
        name: "config",
        harmless: &[""],
        why: "profiles and plugin settings are fixed to the defaults",
    },
    Unsupported { name: "kube-api-qps", harmless: &["50"], why: IN_FLIGHT },
    Unsupported { name: "kube-api-burst", harmless: &["100"], why: IN_FLIGHT },
];

/// Parses flags (the first argument is the program's name) and schedules until `shutdown`.
pub async fn run(arguments: Vec<String>, shutdown: Shutdown) -> anyhow::Result<()> {
    let flags = Flags::parse_from(program::screen(arguments, &UNSUPPORTED)?);
    let registry = Registry::new();
    let config = Config { registry: registry.clone() };
    let work = async |started: program::Started| {
        crate::run(started.client, config, started.shutdown).await;
        Ok(())
    };
    flags.program.run(registry, shutdown, work).await
}
