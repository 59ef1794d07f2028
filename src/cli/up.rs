//! `copepod up`: makes what is missing, starts what does not run, waits until the node is ready. Doing it twice is as good
//! as once.

use crate::containerd::Programs;
use crate::doctor::network::{self, Range};
use crate::layout::Layout;
use crate::settings::{CLUSTERS_MAX, Settings, Storage};
use crate::units::{self, Unit};
use crate::{components, containerd, doctor, image, kubeconfig};
use anyhow::{Context as _, bail};
use clap::Args;
use copepod_pki::files::{self, Mode};
use copepod_pki::{ClusterPki, ClusterSpec};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Start the cluster, or what of it is not running, and wait until its node is ready.
///
/// Settings are kept in the data folder: a later 'up' without flags starts the same cluster. A second cluster on one
/// machine needs only a data folder of its own ('copepod --data-dir DIR up'): ports, bridge, addresses of pods and the
/// context are then chosen so that the two do not meet.
#[derive(Debug, Args)]
pub struct Up {
    /// Keep objects in an etcd started from this program instead of in the embedded store.
    #[arg(long, value_name = "PROGRAM", num_args = 0..=1, default_missing_value = "etcd", conflicts_with = "etcd_servers")]
    etcd: Option<String>,
    /// Port of that etcd; the next one is for its peers [default: 1000 above the API server's].
    #[arg(long, value_name = "PORT")]
    etcd_port: Option<u16>,
    /// Keep objects in this etcd, which somebody else runs, instead of in the embedded store.
    #[arg(long, value_name = "URLS")]
    etcd_servers: Option<String>,
    /// The containerd to run pods with, 1.6 to 2.x; its ctr and shim are looked for beside it [default: that of the PATH].
    #[arg(long, value_name = "PROGRAM")]
    containerd: Option<String>,
    /// Run each component in a process of its own instead of all in one.
    #[arg(long)]
    separate: bool,
    /// Name of this machine's node [default: the host name].
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Address of this machine's node [default: that of the default route].
    #[arg(long, value_name = "ADDRESS")]
    node_ip: Option<IpAddr>,
    /// Address that the API server listens on [default: 0.0.0.0, all of the machine's].
    #[arg(long, value_name = "ADDRESS")]
    bind_address: Option<IpAddr>,
    /// Port of the API server [default: 6443].
    #[arg(long, value_name = "PORT")]
    secure_port: Option<u16>,
    /// Port of the kubelet [default: 10250].
    #[arg(long, value_name = "PORT")]
    kubelet_port: Option<u16>,
    /// Health and metrics port of the controller manager [default: 10257].
    #[arg(long, value_name = "PORT")]
    controller_manager_port: Option<u16>,
    /// Health and metrics port of the scheduler [default: 10259].
    #[arg(long, value_name = "PORT")]
    scheduler_port: Option<u16>,
    /// Addresses of pods [default: 10.244.0.0/24].
    #[arg(long, value_name = "RANGE")]
    pod_cidr: Option<String>,
    /// Addresses of services [default: 10.96.0.0/12].
    #[arg(long, value_name = "RANGE")]
    service_cidr: Option<String>,
    /// Name of the bridge that pods hang on, also that of their cgroup [default: copepod0].
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,
    /// Name of the context in the kubeconfig [default: copepod].
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Do not touch the kubeconfig of the user (the first of KUBECONFIG, or ~/.kube/config).
    #[arg(long)]
    no_kubeconfig: bool,
    /// Load the images of this tar file into the node before it is ready; may be given several times.
    #[arg(long = "load", value_name = "FILE")]
    images: Vec<PathBuf>,
    /// How long to wait for each step, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// Names of the processes that a cluster with these settings has, in the order of their start.
pub fn unit_names(settings: &Settings) -> Vec<&'static str> {
    let mut names = vec!["containerd"];
    if matches!(settings.storage, Storage::Etcd { .. }) {
        names.push("etcd");
    }
    match settings.separate {
        true => names.extend(components::COMPONENTS.iter().map(|c| c.name)),
        false => names.push("copepod"),
    }
    names
}

/// The address that packets to elsewhere leave from; nothing is sent to find it.
fn default_address() -> IpAddr {
    let ask = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("192.0.2.1:9")?;
        Ok(socket.local_addr()?.ip())
    };
    ask().unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

fn host_name() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    Ok(name.trim().to_lowercase())
}

/// The address of the `kubernetes` Service: the first of the range.
fn service_address(cidr: &str) -> anyhow::Result<IpAddr> {
    match Range::parse(cidr) {
        Ok(range) => Ok(range.address(1).into()),
        Err(error) => bail!("--service-cidr: {error}"),
    }
}

/// What a first `up` without flags would choose.
pub fn first_settings() -> anyhow::Result<Settings> {
    choose(Ok)
}

/// The first of this machine's possible clusters that meets nothing which is there already, with `flags` applied. Where
/// each does, because of a flag, it is the first of all: the checks that follow say what is taken.
fn choose(flags: impl Fn(Settings) -> anyhow::Result<Settings>) -> anyhow::Result<Settings> {
    let (name, address) = (host_name()?, default_address());
    let number = |number| flags(Settings::fresh(number, name.clone(), address));
    for candidate in 0..CLUSTERS_MAX {
        let settings = number(candidate)?;
        if !network::taken(&settings) {
            return Ok(settings);
        }
    }
    number(0)
}

/// Seconds since the start, and what has been done.
struct Progress(Instant);

impl Progress {
    fn say(&self, what: impl std::fmt::Display) {
        eprintln!("{:>6.1} s  {what}", self.0.elapsed().as_secs_f64());
    }
}

impl Up {
    /// Runs the command.
    pub fn run(&self, layout: &Layout) -> anyhow::Result<()> {
        let progress = Progress(Instant::now());
        let before = Settings::read(layout)?;
        let settings = match before.clone() {
            Some(before) => self.over(before)?,
            None => choose(|fresh| self.over(fresh))?,
        };
        match before {
            Some(before) if before != settings => self.refuse_changes_while_running(layout, &before)?,
            Some(_) => {}
            None => self.say_what_was_chosen(&settings),
        }
        for warning in doctor::require(layout, &settings)? {
            eprintln!("warning: {warning}");
        }
        let programs = Programs::find(settings.containerd.as_deref())?;
        for dir in ["run", "log", "kubeconfig", "containerd", "cni", "manifests", "kubelet", "store"] {
            files::private_dir(&layout.join(dir))?;
        }
        settings.save(layout)?;
        self.prepare(layout, &settings, &programs)?;

        for unit in units(layout, &settings, &programs)? {
            if units::start(layout, &unit)? {
                own_cgroup(layout, &settings, unit.name)?;
                progress.say(format_args!("started {}", unit.name));
            }
            if unit.name == "containerd" {
                self.wait_for_containerd(layout)?;
                for file in &self.images {
                    for name in image::load(layout, file)? {
                        progress.say(format_args!("loaded {name}"));
                    }
                }
            }
        }
        self.wait_for_api(layout, &settings)?;
        progress.say("the API server is ready");
        self.wait_for_node(layout, &settings)?;
        progress.say(format_args!("node {} is ready", settings.node_name));
        self.say_what_next(layout, &settings)
    }

    /// A second cluster has other ports and names than the documentation says: its user must be told.
    fn say_what_was_chosen(&self, settings: &Settings) {
        let first = Settings::fresh(0, settings.node_name.clone(), settings.node_ip);
        if self.bridge.is_none() && settings.bridge != first.bridge {
            eprintln!(
                "there is another cluster on this machine, or something else has its ports, bridge or addresses: this one has \
                 port {}, bridge {}, pods in {}, context {:?}",
                settings.secure_port, settings.bridge, settings.pod_cidr, settings.context
            );
        }
    }

    /// The flags over what a former `up` was told, or over the defaults.
    fn over(&self, base: Settings) -> anyhow::Result<Settings> {
        let secure_port = self.secure_port.unwrap_or(base.secure_port);
        let storage = match (&self.etcd, &self.etcd_servers) {
            (Some(program), _) => {
                let found =
                    doctor::find_program(program).or_else(|| PathBuf::from(program).canonicalize().ok());
                let program = found.with_context(|| {
                    format!("there is no etcd program {program:?}: build one with 'hack/tools etcd' or install one")
                })?;
                let port = match base.storage {
                    Storage::Etcd { port, .. } => port,
                    _ => secure_port.saturating_add(1000),
                };
                Storage::Etcd { program: program.display().to_string(), port: self.etcd_port.unwrap_or(port) }
            }
            (None, Some(servers)) => Storage::External { servers: servers.clone() },
            (None, None) => base.storage,
        };
        let containerd = match &self.containerd {
            Some(program) => Some(Programs::find(Some(program))?.containerd.display().to_string()),
            None => base.containerd,
        };
        Ok(Settings {
            node_name: self.node_name.clone().unwrap_or(base.node_name),
            node_ip: self.node_ip.unwrap_or(base.node_ip),
            bind_address: self.bind_address.unwrap_or(base.bind_address),
            secure_port,
            kubelet_port: self.kubelet_port.unwrap_or(base.kubelet_port),
            controller_manager_port: self.controller_manager_port.unwrap_or(base.controller_manager_port),
            scheduler_port: self.scheduler_port.unwrap_or(base.scheduler_port),
            storage,
            separate: self.separate || base.separate,
            pod_cidr: self.pod_cidr.clone().unwrap_or(base.pod_cidr),
            service_cidr: self.service_cidr.clone().unwrap_or(base.service_cidr),
            bridge: self.bridge.clone().unwrap_or(base.bridge),
            domain: base.domain,
            context: self.context.clone().unwrap_or(base.context),
            containerd,
        })
    }

    fn refuse_changes_while_running(&self, layout: &Layout, before: &Settings) -> anyhow::Result<()> {
        for name in unit_names(before) {
            if units::running(layout, name)?.is_some() {
                bail!("the cluster runs with other settings: stop it with 'copepod down' first");
            }
        }
        Ok(())
    }

    /// Certificates, kubeconfigs, configuration of containerd.
    fn prepare(&self, layout: &Layout, settings: &Settings, programs: &Programs) -> anyhow::Result<()> {
        let spec = ClusterSpec {
            node_name: settings.node_name.clone(),
            addresses: vec![[127, 0, 0, 1].into(), settings.node_ip],
            service_address: service_address(&settings.service_cidr)?,
            domain: settings.domain.clone(),
        };
        ClusterPki::ensure(&layout.pki(), &spec)?;
        for component in components::COMPONENTS.iter().filter(|c| !c.leaf.is_empty()) {
            let text = kubeconfig::render(layout, settings, component.leaf)?;
            files::write(&layout.kubeconfig(component.name), text.as_bytes(), Mode::Private)?;
        }
        let admin = kubeconfig::render(layout, settings, "admin")?;
        files::write(&layout.kubeconfig("admin"), admin.as_bytes(), Mode::Private)?;
        containerd::write_config(layout, settings, programs)
    }

    fn wait(
        &self,
        layout: &Layout,
        unit: &str,
        what: &str,
        mut ready: impl FnMut() -> bool,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(self.timeout);
        while !ready() {
            let alive = units::running(layout, unit)?.is_some();
            if !alive || Instant::now() > until {
                let how = if alive { "is not ready in time" } else { "ended" };
                let (log, tail) = (layout.log(unit), units::log_tail(layout, unit));
                bail!("{what}: {unit} {how}; the end of {}:\n{tail}", log.display());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn wait_for_containerd(&self, layout: &Layout) -> anyhow::Result<()> {
        let socket = layout.containerd_socket();
        self.wait(layout, "containerd", "waiting for containerd", || UnixStream::connect(&socket).is_ok())
    }

    fn wait_for_api(&self, layout: &Layout, settings: &Settings) -> anyhow::Result<()> {
        let unit = if settings.separate { "apiserver" } else { "copepod" };
        let address = (IpAddr::from([127, 0, 0, 1]), settings.secure_port);
        self.wait(layout, unit, "waiting for the API server", || TcpStream::connect(address).is_ok())
    }

    /// Follows the node object until its Ready condition is true.
    fn wait_for_node(&self, layout: &Layout, settings: &Settings) -> anyhow::Result<()> {
        let file = layout.kubeconfig("admin");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let unit = if settings.separate { "kubelet" } else { "copepod" };
        let waited = runtime.block_on(async {
            tokio::select! {
                ready = node_ready(&file, &settings.node_name) => Some(ready),
                () = tokio::time::sleep(Duration::from_secs(self.timeout)) => None,
                () = ended(layout, unit) => None,
            }
        });
        let how = match (waited, units::running(layout, unit)?) {
            (Some(result), _) => return result,
            (None, Some(_)) => format!("is not ready after {} s", self.timeout),
            (None, None) => format!("cannot become ready: {unit} ended"),
        };
        let (log, tail) = (layout.log(unit), units::log_tail(layout, unit));
        bail!("node {} {how}; the end of {}:\n{tail}", settings.node_name, log.display());
    }

    fn say_what_next(&self, layout: &Layout, settings: &Settings) -> anyhow::Result<()> {
        if let (false, Some(file)) = (self.no_kubeconfig, kubeconfig::user_file()) {
            kubeconfig::merge(layout, settings, &file)?;
            eprintln!("          context {:?} is in {}", settings.context, file.display());
        }
        let kubectl = kubeconfig::command(layout, settings)?;
        let copepod = match layout.is_default() {
            true => "copepod".to_owned(),
            false => format!("copepod --data-dir {}", layout.root().display()),
        };
        println!("The cluster is up. Try:\n  {kubectl} get nodes\n  {kubectl} run web --image={}", WEB_IMAGE);
        println!("  {kubectl} get pods --watch\n  {copepod} status");
        Ok(())
    }
}

/// The demo image that `hack/images` makes.
const WEB_IMAGE: &str = "localhost/copepod/web:1";

/// All processes of the cluster.
fn units(layout: &Layout, settings: &Settings, programs: &Programs) -> anyhow::Result<Vec<Unit>> {
    let own = std::env::current_exe().context("which program is this?")?.display().to_string();
    let unit = |name, command| Unit { name, command, path_first: None };
    let mut out = vec![programs.unit(layout)];
    if let Storage::Etcd { program, port } = &settings.storage {
        out.push(unit("etcd", etcd_command(layout, program, *port)));
    }
    if settings.separate {
        for component in &components::COMPONENTS {
            let mut command = vec![own.clone(), component.name.to_string()];
            command.extend(component.arguments(layout, settings).into_iter().skip(1));
            out.push(unit(component.name, command));
        }
    } else {
        let root = layout.root().display().to_string();
        out.push(unit("copepod", vec![own, "--data-dir".into(), root, "run".into()]));
    }
    Ok(out)
}

/// A single member that only this machine reaches.
fn etcd_command(layout: &Layout, program: &str, port: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", port + 1));
    let mut out = vec![program.to_string()];
    for (name, value) in [
        ("name", "copepod"),
        ("data-dir", &layout.join("etcd").display().to_string()),
        ("listen-client-urls", &client),
        ("advertise-client-urls", &client),
        ("listen-peer-urls", &peer),
        ("initial-advertise-peer-urls", &peer),
        ("initial-cluster", &format!("copepod={peer}")),
        ("log-level", "warn"),
    ] {
        out.push(format!("--{name}={value}"));
    }
    out
}

/// A unit is not of the session that started it. Where that cannot be said to the kernel the cluster runs all the same.
fn own_cgroup(layout: &Layout, settings: &Settings, name: &str) -> anyhow::Result<()> {
    if let Some(unit) = units::running(layout, name)?
        && let Err(error) = copepod_kubelet::teardown::adopt(&settings.cgroup_root(), unit.pid)
    {
        eprintln!("warning: {name} stays in the cgroup of this session: {error}");
    }
    Ok(())
}

/// Until the unit is gone. A process that is not our child can only be looked at.
async fn ended(layout: &Layout, unit: &str) {
    while matches!(units::running(layout, unit), Ok(Some(_))) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits by watch, not by asking again and again. Before the kubelet has registered there is nothing yet; that too is
/// seen by the watch.
async fn node_ready(kubeconfig: &std::path::Path, node: &str) -> anyhow::Result<()> {
    use futures::StreamExt as _;
    use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
    use kube::runtime::{WatchStreamExt as _, watcher};
    let config = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config =
        kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await?;
    let client = kube::Client::try_from(config)?;
    let nodes = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Node"));
    let api: Api<DynamicObject> = Api::all_with(client, &nodes);
    let only = watcher::Config::default().fields(&format!("metadata.name={node}"));
    let mut changes = watcher(api, only).default_backoff().applied_objects().boxed();
    while let Some(change) = changes.next().await {
        let object = match change {
            Ok(object) => object,
            // The watcher comes back by itself: the server may still be starting.
            Err(error) => {
                tracing::debug!(%error, node, "waiting for the node");
                continue;
            }
        };
        let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
            return Ok(());
        }
    }
    bail!("the watch on node {node} ended")
}
