//! `copepod image`: images of the node, through containerd's own tool.

use crate::containerd::Programs;
use crate::layout::Layout;
use crate::settings::Settings;
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
fn ctr(layout: &Layout, arguments: &[&str]) -> anyhow::Result<Output> {
    let socket = layout.containerd_socket();
    if !socket.exists() {
        bail!("containerd does not run: start the cluster with 'copepod up'");
    }
    let wanted = Settings::read(layout)?.and_then(|settings| settings.containerd);
    let mut command = Command::new(Programs::find(wanted.as_deref())?.ctr);
    command.arg("--address").arg(&socket).args(["--namespace", "k8s.io"]).args(arguments);
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
