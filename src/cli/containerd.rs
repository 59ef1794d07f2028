//! The cluster's own containerd: its configuration, and the pod network that it makes with CNI plugins.
//!
//! It shares nothing with a containerd of the machine: own root, state, socket and network configuration.

use crate::layout::Layout;
use crate::settings::Settings;
use copepod_pki::files::{self, Mode};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The image of sandboxes, made by `hack/images` so that no registry is needed.
pub const PAUSE_IMAGE: &str = "localhost/copepod/pause:1";
/// Where Debian and others put CNI plugins.
pub const CNI_DIRS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
/// The plugins that the pod network needs.
pub const CNI_PLUGINS: [&str; 4] = ["bridge", "host-local", "portmap", "loopback"];

/// The folder that has all plugins.
pub fn cni_dir() -> Option<PathBuf> {
    let mut dirs = CNI_DIRS.iter().map(Path::new);
    dirs.find(|dir| CNI_PLUGINS.iter().all(|p| dir.join(p).exists())).map(PathBuf::from)
}

/// Whether this process may raise limits; without it containerd must not lower an oom score.
pub fn can_raise_limits() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map(str::trim);
    let bits = effective.and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
    bits >> CAP_SYS_RESOURCE & 1 == 1
}

/// Writes configuration of containerd and network.
pub fn write_config(layout: &Layout, settings: &Settings) -> anyhow::Result<()> {
    files::write(&layout.join("containerd/config.toml"), config(layout).as_bytes(), Mode::Public)?;
    let network = network(settings)?;
    files::write(&layout.join("cni/10-copepod.conflist"), network.as_bytes(), Mode::Public)?;
    Ok(())
}

fn config(layout: &Layout) -> String {
    let path = |p: PathBuf| format!("{:?}", p.display().to_string());
    let cni = cni_dir().unwrap_or_else(|| PathBuf::from(CNI_DIRS[0]));
    let mut out = String::from("# Written by 'copepod up' at each start.\nversion = 2\n");
    // Writing into a String cannot fail.
    let mut line = |text: String| {
        let _infallible = writeln!(out, "{text}");
    };
    line(format!("root = {}", path(layout.join("containerd/root"))));
    line(format!("state = {}", path(layout.join("containerd/state"))));
    line("oom_score = 0".into());
    line(format!("[grpc]\n  address = {}", path(layout.containerd_socket())));
    line("[plugins.\"io.containerd.grpc.v1.cri\"]".into());
    line(format!("  sandbox_image = {PAUSE_IMAGE:?}"));
    line(format!("  restrict_oom_score_adj = {}", !can_raise_limits()));
    line("  [plugins.\"io.containerd.grpc.v1.cri\".cni]".into());
    line(format!("    bin_dir = {}\n    conf_dir = {}", path(cni), path(layout.join("cni"))));
    line(
        "  [plugins.\"io.containerd.grpc.v1.cri\".registry]\n    config_path = \"/etc/containerd/certs.d\""
            .into(),
    );
    line("  [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n    default_runtime_name = \"runc\"".into());
    line("  [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]".into());
    line("    runtime_type = \"io.containerd.runc.v2\"".into());
    out
}

fn network(settings: &Settings) -> anyhow::Result<String> {
    let bridge = serde_json::json!({
        "type": "bridge",
        "bridge": settings.bridge,
        "isGateway": true,
        "ipMasq": true,
        "hairpinMode": true,
        "promiscMode": false,
        "ipam": {
            "type": "host-local",
            "dataDir": format!("/run/cni-ipam-{}", settings.bridge),
            "ranges": [[{ "subnet": settings.pod_cidr }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    });
    let portmap = serde_json::json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    let list = serde_json::json!({ "cniVersion": "0.4.0", "name": "copepod", "plugins": [bridge, portmap] });
    Ok(serde_json::to_string_pretty(&list)? + "\n")
}
