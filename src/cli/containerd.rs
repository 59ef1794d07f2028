//! The cluster's own containerd: which program it is, its configuration, and the pod network that it makes with CNI
//! plugins.
//!
//! It shares nothing with a containerd of the machine: own root, state, socket and network configuration. Versions 1.6 to
//! 2.x serve; 2.x reads another form of the configuration.

use crate::doctor::find_program;
use crate::doctor::network::Range;
use crate::layout::Layout;
use crate::settings::Settings;
use crate::units::Unit;
use anyhow::{Context as _, bail};
use copepod_pki::files::{self, Mode};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The image of sandboxes, made by `hack/images` so that no registry is needed.
pub const PAUSE_IMAGE: &str = "localhost/copepod/pause:1";
/// Where Debian and others put CNI plugins.
pub const CNI_DIRS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
/// The plugins that the pod network needs.
pub const CNI_PLUGINS: [&str; 5] = ["bridge", "ptp", "host-local", "portmap", "loopback"];
/// Folder with hosts.toml files for registries, as administrators know it.
const REGISTRIES: &str = "/etc/containerd/certs.d";

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

/// A containerd with the programs that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// The daemon.
    pub containerd: PathBuf,
    /// Its command line tool, of the same release.
    pub ctr: PathBuf,
    /// `1.6.20`, `2.1.9` ...
    pub version: String,
}

impl Programs {
    /// The programs that the settings name, or those in the PATH.
    pub fn find(wanted: Option<&str>) -> anyhow::Result<Programs> {
        let containerd = match wanted {
            Some(path) => PathBuf::from(path)
                .canonicalize()
                .with_context(|| format!("there is no containerd program {path:?}"))?,
            None => find_program("containerd").context("apt-get install containerd")?,
        };
        // Releases must not be mixed: the tool beside the daemon comes first.
        let beside = containerd.with_file_name("ctr");
        let ctr = if beside.is_file() { Some(beside) } else { find_program("ctr") };
        let ctr = ctr.context("apt-get install containerd   # ctr is missing")?;
        let output = Command::new(&containerd)
            .arg("--version")
            .output()
            .with_context(|| format!("could not run {}", containerd.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let Some(version) = version_of(&text) else {
            bail!("{} does not tell its version: {:?}", containerd.display(), text.trim());
        };
        Ok(Programs { containerd, ctr, version: version.to_owned() })
    }

    /// Major and minor number.
    fn release(&self) -> (u32, u32) {
        let mut numbers = self.version.split('.').map(|word| word.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// Version of the configuration that we write for it.
    fn form(&self) -> u32 {
        form_of(self.release())
    }

    /// The daemon as a process of the cluster. It looks for its shim in the PATH before it looks beside itself: of two
    /// releases on a machine the shim must be its own.
    pub fn unit(&self, layout: &Layout) -> Unit {
        let config = config_file(layout).display().to_string();
        Unit {
            name: "containerd",
            command: vec![self.containerd.display().to_string(), "--config".into(), config],
            path_first: self.containerd.parent().map(PathBuf::from),
        }
    }
}

/// `containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1` and `... v2.1.9 ...` are 1.6.20 and 2.1.9.
fn version_of(text: &str) -> Option<&str> {
    let word = text.split_whitespace().nth(2)?.trim_start_matches('v');
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    (end > 0).then_some(&word[..end])
}

/// 2.x still reads the former version, but names its plugins otherwise.
fn form_of(release: (u32, u32)) -> u32 {
    if release >= (2, 0) { 3 } else { 2 }
}

fn config_file(layout: &Layout) -> PathBuf {
    layout.join("containerd/config.toml")
}

/// Writes configuration of containerd and network.
pub fn write_config(
    layout: &Layout,
    settings: &Settings,
    programs: &Programs,
    network: &str,
) -> anyhow::Result<()> {
    let cni = cni_dir().unwrap_or_else(|| PathBuf::from(CNI_DIRS[0]));
    let registries = settings.registry_config.as_deref().unwrap_or(REGISTRIES);
    let mut text = config(layout, &cni, Path::new(registries), !can_raise_limits(), programs.release());
    if let Some(file) = &settings.containerd_import {
        let more = std::fs::read_to_string(file).with_context(|| format!("--containerd-import {file}"))?;
        text += &imported(&more, programs.form()).with_context(|| format!("--containerd-import {file}"))?;
    }
    files::write(&config_file(layout), text.as_bytes(), Mode::Public)?;
    files::write(&layout.join("cni/10-copepod.conflist"), network.as_bytes(), Mode::Public)?;
    Ok(())
}

/// More settings, to stand behind our own. containerd's own `imports` do not serve: 1.6 to 2.1 replace the whole section of a
/// plugin by that of an imported file, so that a further runtime handler would take the pod network away.
fn imported(text: &str, form: u32) -> anyhow::Result<String> {
    let mut out = String::from("# From --containerd-import:\n");
    let mut in_table = false;
    for line in text.lines() {
        let words = line.trim();
        in_table |= words.starts_with('[');
        if in_table || words.is_empty() || words.starts_with('#') {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        let version = words.split_once('=').filter(|(key, _)| key.trim() == "version");
        match version.map(|(_, value)| value.split('#').next().unwrap_or_default().trim()) {
            Some(value) if value == form.to_string() => {}
            Some(value) => {
                bail!("it has version {value}; this containerd's configuration is written in version {form}")
            }
            None => bail!("{words:?} is outside of a table: only tables can be added"),
        }
    }
    Ok(out)
}

/// The same settings in the form of 1.x or of 2.x.
fn config(
    layout: &Layout,
    cni: &Path,
    registries: &Path,
    restrict_oom_score: bool,
    release: (u32, u32),
) -> String {
    let v2 = release >= (2, 0);
    let quoted = |p: &Path| format!("{:?}", p.display().to_string());
    let form = form_of(release);
    let (runtime, images) = match v2 {
        true => ("io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"),
        false => ("io.containerd.grpc.v1.cri", "io.containerd.grpc.v1.cri"),
    };
    let mut tables: Vec<(String, Vec<(&str, String)>)> = vec![
        ("grpc".into(), vec![("address", quoted(&layout.containerd_socket()))]),
        // It makes this folder, which is below /opt unless told.
        (
            "plugins.\"io.containerd.internal.v1.opt\"".into(),
            vec![("path", quoted(&layout.join("containerd/opt")))],
        ),
    ];
    let mut general = vec![("restrict_oom_score_adj", restrict_oom_score.to_string())];
    if v2 {
        tables.push((
            format!("plugins.{images:?}.pinned_images"),
            vec![("sandbox", format!("{PAUSE_IMAGE:?}"))],
        ));
        // Its socket is one for the whole machine.
        tables.push(("plugins.\"io.containerd.nri.v1.nri\"".into(), vec![("disable", "true".into())]));
    } else {
        general.push(("sandbox_image", format!("{PAUSE_IMAGE:?}")));
    }
    tables.push((format!("plugins.{runtime:?}"), general));
    let dirs = match release >= (2, 1) {
        true => ("bin_dirs", format!("[{}]", quoted(cni))),
        false => ("bin_dir", quoted(cni)),
    };
    tables.push((format!("plugins.{runtime:?}.cni"), vec![dirs, ("conf_dir", quoted(&layout.join("cni")))]));
    tables.push((format!("plugins.{images:?}.registry"), vec![("config_path", quoted(registries))]));
    tables
        .push((format!("plugins.{runtime:?}.containerd"), vec![("default_runtime_name", "\"runc\"".into())]));
    tables.push((
        format!("plugins.{runtime:?}.containerd.runtimes.runc"),
        vec![("runtime_type", "\"io.containerd.runc.v2\"".into())],
    ));
    let mut out = format!(
        "# Written by 'copepod up' at each start.\nversion = {form}\nroot = {}\nstate = {}\noom_score = 0\n",
        quoted(&layout.join("containerd/root")),
        quoted(&layout.join("containerd/state")),
    );
    for (name, pairs) in tables {
        // Writing into a String cannot fail.
        let _infallible = writeln!(out, "[{name}]");
        for (key, value) in pairs {
            let _infallible = writeln!(out, "  {key} = {value}");
        }
    }
    out
}

/// The network of the machine's own pods: a bridge. What leaves it is translated by the rule of [`crate::outwards`].
pub fn bridged_network(settings: &Settings) -> anyhow::Result<String> {
    let bridge = serde_json::json!({
        "type": "bridge",
        "bridge": settings.bridge,
        "isGateway": true,
        "ipMasq": false,
        "hairpinMode": true,
        "promiscMode": false,
        "ipam": {
            "type": "host-local",
            "dataDir": format!("/run/cni-ipam-{}", settings.bridge),
            "ranges": [[{ "subnet": settings.pod_cidr }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    });
    network_of(bridge)
}

/// The network of the pods of one of several nodes: a cable for each pod, and nothing translated; who is reached over which
/// node is known by routes.
pub fn routed_network(pods: &Range, addresses_in_use: &Path) -> anyhow::Result<String> {
    network_of(serde_json::json!({
        "type": "ptp",
        "ipMasq": false,
        "ipam": {
            "type": "host-local",
            "dataDir": addresses_in_use.display().to_string(),
            "ranges": [[{ "subnet": pods.to_string() }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    }))
}

fn network_of(first: serde_json::Value) -> anyhow::Result<String> {
    let portmap = serde_json::json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    let list = serde_json::json!({ "cniVersion": "0.4.0", "name": "copepod", "plugins": [first, portmap] });
    Ok(serde_json::to_string_pretty(&list)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First lines of real releases.
    #[test]
    fn versions_are_read() {
        for (text, want) in [
            ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", Some("1.6.20")),
            ("containerd github.com/containerd/containerd v1.7.27 05044ec0a9a75232", Some("1.7.27")),
            ("containerd github.com/containerd/containerd/v2 2.1.9+unknown ", Some("2.1.9")),
            ("containerd github.com/containerd/containerd/v2 v2.0.0-rc.1 x", Some("2.0.0")),
            ("something else", None),
        ] {
            assert_eq!(version_of(text), want, "{text}");
        }
    }

    /// A table must not stand twice, and the keys of the other form must not be there: containerd refuses or ignores them.
    #[test]
    fn both_forms_have_each_table_once() {
        let layout = Layout::new("/d".into());
        for release in [(1, 6), (1, 7), (2, 0), (2, 1)] {
            let v2 = release >= (2, 0);
            let text = config(&layout, Path::new("/cni"), Path::new("/registries"), true, release);
            let mut heads: Vec<&str> = text.lines().filter(|line| line.starts_with('[')).collect();
            let count = heads.len();
            heads.sort_unstable();
            heads.dedup();
            assert_eq!(heads.len(), count, "{text}");
            assert_eq!(text.contains("version = 3"), v2, "{text}");
            assert_eq!(text.contains("io.containerd.grpc.v1.cri"), !v2, "{text}");
            assert_eq!(text.contains("bin_dirs = [\"/cni\"]"), release >= (2, 1), "{text}");
            assert!(text.contains("config_path = \"/registries\""), "{text}");
        }
    }

    #[test]
    fn more_tables_are_added_and_nothing_else() {
        let handler =
            "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.other]\n  runtime_type = \"x\"\n";
        let text = imported(&format!("# mine\nversion = 2 # old\n{handler}"), 2).expect("tables");
        assert!(text.contains("# mine\n") && text.ends_with(handler) && !text.contains("version"), "{text}");
        for (text, want) in [
            ("version = 2\n", "it has version 2; this containerd's configuration is written in version 3"),
            ("root = \"/x\"\n[a]\n", "\"root = \\\"/x\\\"\" is outside of a table: only tables can be added"),
        ] {
            assert_eq!(imported(text, 3).expect_err("refused").to_string(), want);
        }
    }
}
