//! A crate uses lower floors only; what may be linked by whom.
//!
//! The floors are those of `src/ARCHITECTURE.md`. Normal and build dependencies count; tests may reach higher.

use anyhow::{Context as _, bail};
use std::path::Path;
use std::process::Command;

/// Every crate of the workspace and its floor. Programs that judge a cluster from outside stand on the lowest: they link
/// nothing of ours.
const FLOORS: [(&str, u8); 23] = [
    ("copepod-meta", 0),
    ("copepod-schema", 1),
    ("copepod-codec", 2),
    ("copepod-merge", 2),
    ("copepod-pki", 1),
    ("copepod-streaming", 1),
    ("copepod-serve", 1),
    ("copepod-cri", 1),
    ("copepod-kinds", 3),
    ("copepod-store", 3),
    ("copepod-client", 3),
    ("copepod-access", 4),
    ("copepod-admission", 4),
    ("copepod-registry", 5),
    ("copepod-apiserver", 6),
    ("copepod-controllers", 6),
    ("copepod-scheduler", 6),
    ("copepod-kubelet", 6),
    ("copepod-cli", 7),
    ("copepod-testkit", 7),
    ("xtask", 7),
    ("copepod-conformance-kube-rs", 0),
    // Stands on the accept loop that it is the floor of.
    ("copepod-conformance-floor", 2),
];

/// Crates that only some may link: (linked, by whom, why).
const ONLY: [(&str, &[&str], &str); 6] = [
    ("etcd-client", &["copepod-store"], "the store is the one way to etcd"),
    ("redb", &["copepod-store"], "the store owns the embedded engine"),
    (
        "copepod-store",
        &["copepod-registry", "copepod-apiserver", "copepod-testkit"],
        "everything else is a client of the API",
    ),
    (
        "copepod-kinds",
        &["copepod-registry", "copepod-apiserver", "xtask"],
        "clients know no server-side behaviour",
    ),
    ("copepod-registry", &["copepod-apiserver", "copepod-testkit"], "everything else is a client of the API"),
    (
        "kube",
        &[
            "copepod-client",
            "copepod-controllers",
            "copepod-scheduler",
            "copepod-kubelet",
            "copepod-cli",
            "copepod-testkit",
            "xtask",
            "copepod-conformance-kube-rs",
        ],
        "the server is no client",
    ),
];

fn floor(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(n, _)| *n == name).map(|(_, f)| *f)
}

/// All findings; none: in order.
pub fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("could not run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let mut edges = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or("").to_string();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if dependency["kind"].as_str() != Some("dev") {
                edges.push((name.clone(), dependency["name"].as_str().unwrap_or("").to_string()));
            }
        }
    }
    Ok(judge(&edges))
}

fn judge(edges: &[(String, String)]) -> Vec<String> {
    let mut findings = Vec::new();
    for (user, used) in edges {
        let Some(own) = floor(user) else {
            findings.push(format!("{user}: has no floor; give it one in src/xtask/layers.rs"));
            continue;
        };
        if floor(used).is_some_and(|below| below >= own) {
            findings.push(format!("{user} uses {used}, which is not on a lower floor"));
        }
        if let Some((_, by, why)) = ONLY.iter().find(|(linked, ..)| linked == used)
            && !by.contains(&user.as_str())
        {
            findings.push(format!("{user} links {used}: {why}"));
        }
    }
    findings.dedup();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_use_lower_floors_only() {
        assert_eq!(check(&crate::root()).expect("reads the workspace"), Vec::<String>::new());
    }

    #[test]
    fn each_rule_can_fail() {
        for (user, used, want) in [
            ("copepod-codec", "copepod-meta", ""),
            (
                "copepod-meta",
                "copepod-codec",
                "copepod-meta uses copepod-codec, which is not on a lower floor",
            ),
            (
                "copepod-kubelet",
                "copepod-scheduler",
                "copepod-kubelet uses copepod-scheduler, which is not on a lower floor",
            ),
            (
                "copepod-kubelet",
                "copepod-store",
                "copepod-kubelet links copepod-store: everything else is a client of the API",
            ),
            ("stranger", "copepod-meta", "stranger: has no floor; give it one in src/xtask/layers.rs"),
        ] {
            let got = judge(&[(user.into(), used.into())]);
            assert_eq!(got.join("; "), want);
        }
    }
}
