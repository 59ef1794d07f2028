//! `copepod image`: images of the node, through containerd's own tool.

use crate::layout::Layout;
use anyhow::{Context as _, bail};
use clap::Subcommand;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Container images of the node.
#[derive(Debug, Subcommand)]
pub enum Image {
    /// Load images from a tar file, as written by 'docker save' or in the OCI layout.
    Load {
        /// The file.
        file: PathBuf,
    },
    /// List the images of the node.
    List,
}

impl Image {
    /// Runs the command.
    pub fn run(&self, layout: &Layout) -> anyhow::Result<()> {
        match self {
            Image::Load { file } => {
                let file = file.canonicalize().with_context(|| format!("{}", file.display()))?;
                for name in load(layout, &file)? {
                    println!("{name}");
                }
            }
            Image::List => {
                let output = ctr(layout, &["images", "list", "--quiet"])?;
                let text = String::from_utf8_lossy(&output.stdout);
                // Each image also stands under its digest.
                text.lines().filter(|l| !l.starts_with("sha256:")).for_each(|l| println!("{l}"));
            }
        }
        Ok(())
    }
}

/// Loads all images of a file; their names.
pub fn load(layout: &Layout, file: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let output = ctr(layout, &["images", "import", &file.display().to_string()])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = text.lines().filter_map(|l| l.strip_prefix("unpacking ")).filter_map(|l| l.split(' ').next());
    Ok(names.map(String::from).collect())
}

/// The images that CRI sees live in containerd's namespace `k8s.io`.
fn ctr(layout: &Layout, arguments: &[&str]) -> anyhow::Result<Output> {
    let socket = layout.containerd_socket();
    if !socket.exists() {
        bail!("containerd does not run: start the cluster with 'copepod up'");
    }
    let mut command = Command::new("ctr");
    command.arg("--address").arg(&socket).args(["--namespace", "k8s.io"]).args(arguments);
    let output =
        command.output().context("could not run 'ctr': install it with 'apt-get install containerd'")?;
    if !output.status.success() {
        bail!("ctr {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}
