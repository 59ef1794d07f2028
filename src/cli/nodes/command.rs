//! `copepod node`: into a node's namespaces.

use super::{HOLDER, find, holder};
use crate::doctor::find_program;
use crate::layout::Layout;
use crate::settings::Settings;
use crate::units;
use anyhow::Context as _;
use clap::Subcommand;
use copepod_kubelet::teardown;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// The nodes of a cluster with several.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Run a command in the namespaces of a node: its network, its mounts, its host name.
    ///
    /// The command takes this process's place: signals and exit code are its own. It is ended by 'copepod down'.
    Exec {
        /// The node's name.
        node: String,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Be a node. `up` starts this in namespaces of its own.
    #[command(hide = true)]
    Hold {
        /// The node's name.
        node: String,
    },
}

impl NodeCommand {
    /// Runs the command.
    pub fn run(&self, layout: &Layout) -> anyhow::Result<()> {
        let settings = Settings::load(layout)?;
        match self {
            NodeCommand::Exec { node, command } => exec(layout, &settings, node, command),
            NodeCommand::Hold { node } => holder::hold(layout, &settings, &find(layout, &settings, node)?),
        }
    }
}

/// Returns only when the command cannot be run. Namespaces of mounts can be entered by processes of one thread only, which
/// this one need not be; util-linux's program is.
fn exec(layout: &Layout, settings: &Settings, name: &str, command: &[String]) -> anyhow::Result<()> {
    let place = find(layout, settings, name)?;
    let holder = units::running(&place.layout, HOLDER)?
        .with_context(|| format!("node {name} does not run: 'copepod up' starts what is missing"))?;
    teardown::join(&place.node.cgroup, nix::unistd::getpid().as_raw())
        .context("entering the node's cgroup")?;
    let nsenter = find_program("nsenter").context("apt-get install util-linux   # nsenter is missing")?;
    let namespace = |option, name| format!("--{option}=/proc/{}/ns/{name}", holder.pid);
    let error = Command::new(nsenter)
        .args([namespace("net", "net"), namespace("uts", "uts"), namespace("mount", "mnt")])
        .arg("--")
        .args(command)
        .exec();
    Err(error).context("could not run 'nsenter'")
}
