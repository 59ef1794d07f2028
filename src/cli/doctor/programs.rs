//! Programs of others that the cluster or its users run.

use super::{Finding, Weight};
use crate::containerd::{CNI_PLUGINS, Programs, cni_dir};
use crate::settings::Settings;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Minor version of the API that the cluster serves; kubectl may be one off.
const KUBERNETES_MINOR: i64 = 36;

/// The full path of a program.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Not in everybody's PATH, but where Debian puts what administrators use.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|p| p.is_file())
}

fn program(name: &str, package: &str) -> Result<String, String> {
    match find_program(name) {
        Some(path) => Ok(path.display().to_string()),
        None => Err(format!("apt-get install {package}")),
    }
}

pub(super) fn findings(settings: &Settings) -> Vec<Finding> {
    let plugins = cni_dir()
        .map(|dir| dir.display().to_string())
        .ok_or_else(|| "apt-get install containernetworking-plugins".into());
    let mut out = vec![
        Finding::new(Weight::Needed, "containerd", containerd(settings)),
        Finding::new(Weight::Needed, "runc", program("runc", "runc")),
        Finding::new(Weight::Needed, format!("CNI plugins {}", CNI_PLUGINS.join(", ")), plugins),
        Finding::new(Weight::Needed, "iptables (for the CNI plugins)", program("iptables", "iptables")),
        Finding::new(Weight::Needed, "ip", program("ip", "iproute2")),
        Finding::new(Weight::Wished, "kubectl", kubectl()),
    ];
    if settings.nodes > 0 {
        for name in ["unshare", "nsenter"] {
            let what = format!("{name} (for nodes in namespaces)");
            out.push(Finding::new(Weight::Needed, what, program(name, "util-linux")));
        }
    }
    out
}

fn containerd(settings: &Settings) -> Result<String, String> {
    match Programs::find(settings.containerd.as_deref()) {
        Ok(found) => Ok(format!("{} ({})", found.containerd.display(), found.version)),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// kubectl works with servers one minor version older or newer.
fn kubectl() -> Result<String, String> {
    let Some(path) = find_program("kubectl") else {
        return Err("hack/tools kubectl   # prints the path of one that it builds".into());
    };
    let shown = path.display();
    match kubectl_minor(&path) {
        Some(minor) if (minor - KUBERNETES_MINOR).abs() <= 1 => Ok(format!("{shown} (v1.{minor})")),
        Some(minor) => Err(format!(
            "hack/tools kubectl   # {shown} is v1.{minor}, the cluster v1.{KUBERNETES_MINOR}: more than one version apart"
        )),
        None => Err(format!("hack/tools kubectl   # {shown} does not tell its version")),
    }
}

fn kubectl_minor(path: &Path) -> Option<i64> {
    let output = Command::new(path).args(["version", "--client", "--output=json"]).output().ok()?;
    minor_of(&String::from_utf8_lossy(&output.stdout))
}

/// Vendors write `36+`.
fn minor_of(json: &str) -> Option<i64> {
    let version: serde_json::Value = serde_json::from_str(json).ok()?;
    version["clientVersion"]["minor"].as_str()?.trim_end_matches('+').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectls_version_is_read() {
        for (text, want) in [
            (r#"{"clientVersion": {"major": "1", "minor": "36", "gitVersion": "v1.36.3"}}"#, Some(36)),
            (r#"{"clientVersion": {"major": "1", "minor": "30+"}}"#, Some(30)),
            ("error: unknown flag", None),
        ] {
            assert_eq!(minor_of(text), want, "{text}");
        }
    }
}
