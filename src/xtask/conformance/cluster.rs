//! The cluster that the suite runs against: two nodes of `copepod up` and a registry of images, or one that is there.
//!
//! Owns: what it started; all of it ends with this value unless it is to be kept. Does not: know tests.
//!
//! When it breaks: what could not be taken down is told, with the command that does it.

use anyhow::{Context as _, bail};
use copepod_pki::files::{self, Mode};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::cast::Cast;
use super::group::Group;
use super::others::{self, Places};

/// Nodes: tests that move pods between nodes need two.
const NODES: usize = 2;
/// The address that conformance/upstream/coredns.yaml gives the service.
const CLUSTER_DNS: &str = "10.96.0.10";
/// Upstream's programs need some seconds, more on a busy machine.
const READY_TIME_MAX: Duration = Duration::from_secs(180);
const READY_INTERVAL: Duration = Duration::from_millis(500);

/// What a cluster of ours is made of.
pub struct Parts {
    /// The checkout.
    pub root: PathBuf,
    /// `copepod`.
    pub copepod: PathBuf,
    /// To wait for nodes and to install what runs as pods.
    pub kubectl: PathBuf,
    /// Who plays which component.
    pub cast: Cast,
    /// Names of published images are pulled from their registries.
    pub real_images: bool,
    /// More flags for `copepod up`.
    pub flags: Vec<String>,
    /// Leave it when this value goes.
    pub keep: bool,
}

/// A cluster.
pub struct Cluster {
    /// An administrator's.
    pub kubeconfig: PathBuf,
    _ours: Option<Ours>,
}

/// One that we started.
struct Ours {
    parts: Parts,
    data: PathBuf,
    registry: PathBuf,
    others: Vec<Group>,
}

impl Cluster {
    /// One that somebody else runs.
    pub fn given(kubeconfig: &Path) -> Cluster {
        Cluster { kubeconfig: kubeconfig.to_owned(), _ours: None }
    }

    /// Starts one whose state lies in this folder.
    pub fn start(parts: Parts, folder: &Path) -> anyhow::Result<Cluster> {
        let folder = std::path::absolute(folder)?;
        let (data, registry) = (folder.join("cluster"), folder.join("registry"));
        let kubeconfig = folder.join("admin.kubeconfig");
        // What fails from here on takes down what is there.
        let mut ours = Ours { parts, data, registry, others: Vec::new() };
        files::private_dir(&folder)?;
        // What a run that was killed left.
        ours.down()?;
        ours.up()?;
        let text = output(ours.copepod().arg("kubeconfig"))?;
        files::write(&kubeconfig, text.as_bytes(), Mode::Private)?;
        if !ours.parts.real_images {
            ours.serve_images(&text)?;
        }
        ours.start_others(&folder)?;
        ours.wait(&kubeconfig)?;
        Ok(Cluster { kubeconfig, _ours: Some(ours) })
    }
}

impl Ours {
    fn copepod(&self) -> Command {
        let mut command = Command::new(&self.parts.copepod);
        command.arg("--data-dir").arg(&self.data);
        command
    }

    fn script(&self, name: &str) -> Command {
        Command::new(self.parts.root.join(name))
    }

    /// The image of sandboxes is loaded; all others are pulled.
    fn up(&self) -> anyhow::Result<()> {
        let upstream = self.parts.root.join("conformance/upstream");
        let etcd = tool(&self.parts.root, "etcd")?;
        let mut command = self.copepod();
        command.args(["up", "--no-kubeconfig", "--separate", &format!("--nodes={NODES}")]);
        command.arg(format!("--etcd={}", etcd.display()));
        command.arg(format!("--containerd-import={}", upstream.join("containerd.toml").display()));
        // Volumes from images need 2.x; where Debian's newest does not run here, the installed one has to do.
        if let Some(containerd) = output(self.script("hack/containerd").arg("sid"))?.lines().last() {
            command.arg(format!("--containerd={containerd}"));
        }
        let images = output(&mut self.script("hack/images"))?;
        for image in images.lines().filter(|path| path.ends_with("pause.tar")) {
            command.arg(format!("--load={image}"));
        }
        if !self.parts.real_images {
            let config = self.registry.join("certs.d");
            std::fs::create_dir_all(&config)?;
            command.arg(format!("--registry-config={}", config.display()));
        }
        if self.parts.cast.upstream("dns") {
            command.arg(format!("--cluster-dns={CLUSTER_DNS}"));
        }
        let without = self.parts.cast.without();
        if !without.is_empty() {
            command.arg(format!("--without={}", without.join(","))).arg("--no-wait");
        }
        succeed(command.args(&self.parts.flags).stdout(Stdio::null()))
    }

    /// Serves the stand-in images as every registry, at the address under which nodes reach this machine.
    fn serve_images(&self, kubeconfig: &str) -> anyhow::Result<()> {
        let host = server_host(kubeconfig).context("the kubeconfig names no server")?;
        let mut serve = self.script("conformance/images/serve");
        let address = output(serve.arg("--listen").arg(format!("{host}:0")).arg(&self.registry))?;
        eprintln!("images: served on {}", address.trim());
        Ok(())
    }

    fn start_others(&mut self, folder: &Path) -> anyhow::Result<()> {
        let root = &self.parts.root;
        let texts = root.join("conformance/upstream");
        let places = Places {
            copepod: &self.parts.copepod,
            data: &self.data,
            folder: &folder.join("upstream"),
            texts: &texts,
            program: &|name| tool(root, name),
        };
        self.others = others::start(&self.parts.cast, &places)?;
        Ok(())
    }

    /// Until all nodes are ready and take pods, and DNS where there is one.
    fn wait(&self, kubeconfig: &Path) -> anyhow::Result<()> {
        let until = Instant::now() + READY_TIME_MAX;
        let kubectl = |arguments: &[&str]| {
            let mut command = Command::new(&self.parts.kubectl);
            command.arg("--kubeconfig").arg(kubeconfig).args(arguments);
            command
        };
        // A line a node: the Ready condition, then the taints.
        let seen = || -> anyhow::Result<String> {
            let ready = "{.status.conditions[?(@.type==\"Ready\")].status}";
            let lines =
                format!("jsonpath={{range .items[*]}}{ready} {{.spec.taints[*].key}}{{\"\\n\"}}{{end}}");
            let asked = kubectl(&["get", "nodes", "-o", &lines]).stderr(Stdio::null()).output()?;
            Ok(String::from_utf8_lossy(&asked.stdout).into_owned())
        };
        loop {
            let seen = seen()?;
            if seen.lines().filter(|line| line.trim() == "True").count() == NODES {
                break;
            }
            if Instant::now() > until {
                let waited = READY_TIME_MAX.as_secs();
                bail!("{NODES} nodes do not take pods after {waited} s; ready, and taints:\n{seen}");
            }
            std::thread::sleep(READY_INTERVAL);
        }
        if self.parts.cast.upstream("dns") {
            let file = self.parts.root.join("conformance/upstream/coredns.yaml");
            succeed(kubectl(&["apply", "-f"]).arg(file).stdout(Stdio::null()))?;
            let rollout = ["rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=120s"];
            succeed(kubectl(&rollout).stdout(Stdio::null()))?;
        }
        Ok(())
    }

    fn down(&mut self) -> anyhow::Result<()> {
        self.others.clear();
        if self.data.exists() {
            succeed(self.copepod().args(["down", "--purge"]).stdout(Stdio::null()))?;
        }
        if self.registry.exists() {
            succeed(self.script("conformance/images/serve").arg("--stop").arg(&self.registry))?;
            std::fs::remove_dir_all(&self.registry)?;
        }
        Ok(())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let by_hand =
            format!("{} --data-dir {} down --purge", self.parts.copepod.display(), self.data.display());
        if self.parts.keep {
            // Whoever keeps the cluster ends it as a whole.
            std::mem::take(&mut self.others).into_iter().for_each(std::mem::forget);
            eprintln!("the cluster stays; when you are done: {by_hand}");
        } else if let Err(error) = self.down() {
            eprintln!("the cluster may still be there: {error:#}; try: {by_hand}");
        }
    }
}

/// `10.200.0.1` of a kubeconfig's `server: https://10.200.0.1:6443`.
fn server_host(kubeconfig: &str) -> Option<&str> {
    let line = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("server: https://"))?;
    line.rsplit_once(':').map(|(host, _)| host)
}

/// What `hack/tools NAME` builds; the newest of several versions.
pub fn tool(root: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let paths = output(Command::new(root.join("hack/tools")).arg(name))?;
    Ok(PathBuf::from(paths.lines().last().with_context(|| format!("hack/tools {name} named no file"))?))
}

/// Runs a command that must succeed; what it says on stderr goes to ours.
fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// What a command that must succeed says on stdout.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}
