//! `copepod image`: images of the nodes, through containerd's own tool.

use crate::containerd::Programs;
use crate::layout::Layout;
use crate::nodes;
use crate::settings::Settings;
use anyhow::{Context as _, bail};
use clap::Subcommand;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Container images of the nodes.
#[derive(Debug, Subcommand)]
pub enum Image {
    /// Load images from a tar file into every node, as written by 'docker save' or in the OCI layout.
    Load {
        /// The file.
        file: PathBuf,
    },
    /// List the images of the nodes.
    List,
}

impl Image {
    /// Runs the command.
    pub fn run(&self, layout: &Layout) -> anyhow::Result<()> {
        let settings = Settings::load(layout)?;
        match self {
            Image::Load { file } => {
                let file = file.canonicalize().with_context(|| format!("{}", file.display()))?;
                for name in nodes::load(layout, &settings, &file)? {
                    println!("{name}");
                }
            }
            Image::List => {
                let mut names = BTreeSet::new();
                for socket in nodes::sockets(layout, &settings)? {
                    let output = ctr(&settings, &socket, &["images", "list", "--quiet"])?;
                    let text = String::from_utf8_lossy(&output.stdout);
                    // Each image also stands under its digest.
                    names.extend(text.lines().filter(|l| !l.starts_with("sha256:")).map(str::to_owned));
                }
                names.iter().for_each(|name| println!("{name}"));
            }
        }
        Ok(())
    }
}

/// Loads all images of a file into the containerd at this socket; their names.
pub fn load(settings: &Settings, socket: &Path, file: &Path) -> anyhow::Result<Vec<String>> {
    let output = ctr(settings, socket, &["images", "import", &file.display().to_string()])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(imported(&text))
}

/// The images that ctr says it has imported: 1.x unpacks them itself, 2.x lets the daemon do it and tells in columns.
fn imported(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["unpacking", name, ..] => Some((*name).to_owned()),
            [name, "saved"] => Some((*name).to_owned()),
            _ => None,
        }
    };
    text.lines().filter_map(name).collect()
}

/// The images that CRI sees live in containerd's namespace `k8s.io`.
fn ctr(settings: &Settings, socket: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    if !socket.exists() {
        bail!("containerd does not run: start the cluster with 'copepod up'");
    }
    let mut command = Command::new(Programs::find(settings.containerd.as_deref())?.ctr);
    command.arg("--address").arg(socket).args(["--namespace", "k8s.io"]).args(arguments);
    let output = command.output().context("could not run 'ctr'")?;
    if !output.status.success() {
        bail!("ctr {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ctr 1.6.20 and 2.1.9 print for one file.
    #[test]
    fn imported_images_are_read_from_both_forms() {
        let old = "unpacking localhost/copepod/web:1 (sha256:5f43)...done\n";
        let new = "localhost/copepod/web:1                 \tsaved\t\napplication/vnd.docker.distribution.manifest.v2+json sha256:5f43\nImporting\telapsed: 0.7 s\ttotal:   0.0 B\t(0.0 B/s)\t\n";
        assert_eq!(imported(old), ["localhost/copepod/web:1"]);
        assert_eq!(imported(new), ["localhost/copepod/web:1"]);
    }
}
