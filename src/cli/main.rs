//! `copepod`: a cluster on this machine from one binary.
//!
//! | module | what |
//! |---|---|
//! | [`settings`] | what `up` was told, kept in the data folder for the other commands |
//! | [`layout`] | where everything lies below the data folder |
//! | [`units`] | the processes of a cluster: started detached, found again, stopped |
//! | [`nodes`] | several nodes on this machine, in namespaces of their own |
//! | [`components`] | the flags of each component, and running several in one process |
//! | [`containerd`] | the configuration of the cluster's own containerd and of the pod network |
//! | [`up`], [`down`], [`status`], [`doctor`], [`image`], [`kubeconfig`] | the commands |
//!
//! `copepod apiserver|controller-manager|scheduler|kubelet` are the separate programs under one name, flag for flag.

mod components;
mod containerd;
mod doctor;
mod down;
mod image;
mod kubeconfig;
mod layout;
mod nodes;
mod outwards;
mod program;
mod settings;
mod status;
mod units;
mod up;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Returns freed memory to the machine within a second and keeps few arenas: most of the time there is little to do.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What stands below the list of commands.
const AFTER_HELP: &str = "\
The components are commands too, with upstream's flags: apiserver, controller-manager, scheduler, kubelet.

Examples:
  copepod doctor                     what this machine lacks
  copepod up                         a cluster; twice is as good as once
  copepod up --etcd --separate       objects in etcd, a process for each component
  copepod up --nodes 3               three nodes on this machine
  copepod node exec NAME -- ip addr  a command in the network, mounts and host name of one of them
  copepod --data-dir /var/lib/b up   a second cluster beside the first
  copepod image load web.tar         an image for their pods, without a registry
  copepod status                     what runs, and how to call kubectl
  copepod down --purge               nothing is left";

/// A Kubernetes cluster on this machine, from one binary.
#[derive(Debug, Parser)]
#[command(name = "copepod", version, propagate_version = true, after_help = AFTER_HELP)]
struct Arguments {
    /// Where the cluster keeps its state; another folder is another cluster.
    #[arg(long, global = true, default_value = layout::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the cluster, or what of it is not running, and wait until its nodes are ready.
    Up(Box<up::Up>),
    /// Stop the cluster and its pods.
    Down(down::Down),
    /// Say what runs, how much memory it takes and how long its certificates are good.
    Status,
    /// Check whether this machine has what a cluster needs; name the command that mends what is missing.
    Doctor,
    /// Print an administrator's kubeconfig.
    Kubeconfig,
    /// Container images of the nodes.
    #[command(subcommand)]
    Image(image::Image),
    /// The nodes of a cluster with several.
    #[command(subcommand)]
    Node(nodes::command::NodeCommand),
    /// Run all components in this process, in the foreground. `up` starts this in the background.
    #[command(hide = true)]
    Run,
}

fn main() -> ExitCode {
    copepod_serve::install_crypto_provider();
    let mut arguments: Vec<String> = std::env::args().collect();
    // The components have command lines of their own.
    if let Some(component) = arguments.get(1).and_then(|name| components::find(name)) {
        arguments.remove(1);
        arguments[0] = format!("copepod {}", component.name);
        return finish(components::run_one(component, arguments));
    }
    let Arguments { data_dir, command } = Arguments::parse();
    if !matches!(command, Command::Run) {
        end_quietly_on_closed_pipe();
    }
    let layout = layout::Layout::new(data_dir);
    finish(match command {
        Command::Up(up) => up.run(&layout),
        Command::Down(down) => down.run(&layout),
        Command::Status => status::run(&layout),
        Command::Doctor => doctor::run(&layout),
        Command::Kubeconfig => kubeconfig::print(&layout),
        Command::Image(image) => image.run(&layout),
        Command::Node(node) => node.run(&layout),
        Command::Run => settings::Settings::load(&layout).and_then(|s| components::run_all(&layout, &s)),
    })
}

/// `copepod status | head` is no reason to complain: ends as other commands do when nobody reads on.
#[allow(unsafe_code, reason = "the default action of SIGPIPE needs no handler that could be unsafe")]
fn end_quietly_on_closed_pipe() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: SIG_DFL installs no handler.
    if let Err(error) = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) } {
        eprintln!("SIGPIPE stays ignored: {error}");
    }
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
