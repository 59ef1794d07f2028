//! The programs that are measured, and what measures them. What was not named is built.

use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Options;
use crate::diff::{first_line, tool};

/// Paths of all of them. Schedulers and agents are looked for by the parts that need them.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Upstream's kube-apiserver.
    pub upstream: PathBuf,
    /// copepod-apiserver.
    pub ours: PathBuf,
    pub floor: PathBuf,
    pub etcd: PathBuf,
    /// The Go half.
    pub client: PathBuf,
}

impl Programs {
    pub fn find(root: &Path, options: &Options) -> anyhow::Result<Programs> {
        let floor = "copepod-conformance-floor";
        let bin = ours(root, options, &["copepod-apiserver", floor])?;
        Ok(Programs {
            upstream: tool(root, &options.upstream, "kube-apiserver")?,
            ours: bin.join("copepod-apiserver"),
            floor: bin.join(floor),
            etcd: tool(root, &options.etcd, "etcd")?,
            client: client(root)?,
        })
    }

    /// What each says of itself.
    pub fn versions(&self) -> anyhow::Result<BTreeMap<String, String>> {
        Ok(BTreeMap::from([
            ("upstream".into(), first_line(Command::new(&self.upstream).arg("--version"))?),
            ("etcd".into(), first_line(Command::new(&self.etcd).arg("--version"))?),
            ("go".into(), first_line(Command::new("go").arg("version"))?),
            ("rust".into(), first_line(Command::new("rustc").arg("--version"))?),
        ]))
    }
}

/// The folder with our programs in it, built for release.
pub fn ours(root: &Path, options: &Options, packages: &[&str]) -> anyhow::Result<PathBuf> {
    if let Some(folder) = &options.bin {
        return Ok(std::path::absolute(folder)?);
    }
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--release", "--locked"]).current_dir(root);
    let status = command.args(packages.iter().flat_map(|p| ["-p", p])).status()?;
    if !status.success() {
        bail!("our programs do not build");
    }
    Ok(std::path::absolute(root.join("target/release"))?)
}

fn client(root: &Path) -> anyhow::Result<PathBuf> {
    let out = std::path::absolute(root.join("target/conformance-bench"))?;
    // The flags are those of upstream's programs: packages that they share are compiled once.
    let status = Command::new("go")
        .args(["build", "-mod=readonly", "-trimpath", "-o"])
        .arg(&out)
        .arg(".")
        .env("CGO_ENABLED", "0")
        .current_dir(root.join("conformance/bench"))
        .status()
        .context("could not run go")?;
    if !status.success() {
        bail!("conformance/bench does not build");
    }
    Ok(out)
}
