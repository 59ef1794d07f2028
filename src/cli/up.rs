//! `copepod up`: makes what is missing, starts what does not run, waits until the nodes are ready. Doing it twice is as good
//! as once.

use crate::containerd::Programs;
use crate::doctor::network::{self, Range};
use crate::layout::Layout;
use crate::nodes::plan::NODES_MAX;
use crate::nodes::{self, Place};
use crate::settings::{CLUSTERS_MAX, Settings, Storage};
use crate::units::{self, Unit};
use crate::{components, containerd, doctor, kubeconfig, outwards};
use anyhow::{Context as _, bail};
use clap::Args;
use copepod_kubelet::node::pressure::Thresholds;
use copepod_pki::files::{self, Mode};
use copepod_pki::{ClusterPki, ClusterSpec};
use std::collections::BTreeSet;
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Start the cluster, or what of it is not running, and wait until its nodes are ready.
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
    /// So many nodes on this machine, each with a network, mounts, a host name, a containerd and a kubelet of its own; chosen
    /// by the first 'up' [default: one, which is the machine itself].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(NODES_MAX)))]
    nodes: Option<u8>,
    /// Name of this machine's node; of several, what is put before -1, -2 ... [default: the host name].
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Address of this machine's node [default: that of the default route].
    #[arg(long, value_name = "ADDRESS", conflicts_with = "nodes")]
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
    /// Addresses of several nodes; the first is the API server's [default: 10.200.0.0/24].
    #[arg(long, value_name = "RANGE")]
    node_cidr: Option<String>,
    /// Addresses of pods [default: 10.244.0.0/24, and /16 for several nodes].
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
    /// Do not run these components, for which you run another program: all is made that it needs. 'none' takes that back.
    #[arg(long, value_name = "COMPONENTS", value_delimiter = ',',
        value_parser = ["apiserver", "controller-manager", "scheduler", "kubelet", "none"])]
    without: Vec<String>,
    /// Folder with containerd's hosts.toml files for registries [default: /etc/containerd/certs.d].
    #[arg(long, value_name = "DIR")]
    registry_config: Option<PathBuf>,
    /// Add the tables of this file to the configuration of containerd: further runtime handlers, for example.
    #[arg(long, value_name = "FILE")]
    containerd_import: Option<PathBuf>,
    /// Address of a DNS service that you run in the cluster, CoreDNS for example: pods ask it for names [default: they ask whom
    /// their node asks].
    #[arg(long, value_name = "ADDRESS")]
    cluster_dns: Option<IpAddr>,
    /// What has to stay free on a node so that it takes pods, as signal<threshold [default: 1Gi of disk, 100Mi of memory].
    #[arg(long, value_name = "THRESHOLDS")]
    eviction_hard: Option<Thresholds>,
    /// Start all and do not wait until it is ready.
    #[arg(long)]
    no_wait: bool,
    /// Load the images of this tar file into each node before it is ready; may be given several times.
    #[arg(long = "load", value_name = "FILE")]
    images: Vec<PathBuf>,
    /// How long to wait for each step, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// Names of the processes that a cluster with these settings has on this machine outside of nodes, in the order of their
/// start.
pub fn unit_names(settings: &Settings) -> Vec<&'static str> {
    let mut names = Vec::new();
    if settings.nodes == 0 {
        names.push("containerd");
    }
    if matches!(settings.storage, Storage::Etcd { .. }) {
        names.push("etcd");
    }
    let mut here = components::here(settings).map(|c| c.name).peekable();
    match settings.separate {
        true => names.extend(here),
        false => names.extend(here.peek().map(|_| "copepod")),
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
    choose(0, Ok)
}

/// The first of this machine's possible clusters that meets nothing which is there already, with `flags` applied. Where
/// each does, because of a flag, it is the first of all: the checks that follow say what is taken.
fn choose(nodes: u8, flags: impl Fn(Settings) -> anyhow::Result<Settings>) -> anyhow::Result<Settings> {
    let (name, address) = (host_name()?, default_address());
    let number = |number| flags(Settings::fresh(number, nodes, name.clone(), address));
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
            None => choose(self.nodes.unwrap_or(0), |fresh| self.over(fresh))?,
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

        let places = nodes::places(layout, &settings)?;
        for place in &places {
            self.start_node(layout, &settings, &programs, place, &progress)?;
        }
        for unit in units(layout, &settings, &programs)? {
            if units::start(layout, &unit)? {
                own_cgroup(layout, &settings, unit.name)?;
                progress.say(format_args!("started {}", unit.name));
            }
            if unit.name == "containerd" {
                self.wait_for_containerd(layout)?;
                self.load_images(layout, &settings, &progress)?;
            }
        }
        if !places.is_empty() {
            self.load_images(layout, &settings, &progress)?;
        }
        let api = settings.runs("apiserver") && !self.no_wait;
        if api {
            self.wait_for_api(layout, &settings)?;
            progress.say("the API server is ready");
        }
        for place in places.iter().filter(|_| settings.runs("kubelet")) {
            if units::start(&place.layout, &nodes::kubelet_unit(layout, &settings, place)?)? {
                progress.say(format_args!("started kubelet of {}", place.node.name));
            }
        }
        if api && settings.runs("kubelet") {
            self.wait_for_nodes(layout, &settings, &places)?;
            let names = nodes::names(&settings)?;
            let (noun, verb) = if names.len() == 1 { ("node", "is") } else { ("nodes", "are") };
            progress.say(format_args!("{noun} {} {verb} ready", names.join(", ")));
        } else {
            progress.say("not waited for: 'copepod status' says what runs");
        }
        self.say_what_next(layout, &settings)
    }

    /// Starts one of several nodes and its containerd.
    fn start_node(
        &self,
        layout: &Layout,
        settings: &Settings,
        programs: &Programs,
        place: &Place,
        progress: &Progress,
    ) -> anyhow::Result<()> {
        let started = nodes::start_holder(layout, settings, place, |layout, unit, ready| {
            self.wait(layout, unit, "waiting for the node", ready)
        });
        if started.with_context(|| format!("node {}", place.node.name))? {
            progress.say(format_args!("started node {}", place.node.name));
        }
        if units::start(&place.layout, &nodes::containerd_unit(layout, place, programs)?)? {
            progress.say(format_args!("started containerd of {}", place.node.name));
        }
        self.wait_for_containerd(&place.layout)
    }

    fn load_images(&self, layout: &Layout, settings: &Settings, progress: &Progress) -> anyhow::Result<()> {
        for file in &self.images {
            for name in nodes::load(layout, settings, file)? {
                progress.say(format_args!("loaded {name}"));
            }
        }
        Ok(())
    }

    /// A second cluster has other ports and names than the documentation says: its user must be told.
    fn say_what_was_chosen(&self, settings: &Settings) {
        let first = Settings::fresh(0, settings.nodes, settings.node_name.clone(), settings.node_ip);
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
        let path = |given: &Option<PathBuf>, base: Option<String>| match given {
            Some(path) => {
                let found = path.canonicalize().with_context(|| format!("{}", path.display()))?;
                Ok(Some(found.display().to_string()))
            }
            None => anyhow::Ok(base),
        };
        let without = match self.without.is_empty() {
            true => base.without,
            false => self.without.iter().filter(|name| *name != "none").cloned().collect(),
        };
        Ok(Settings {
            nodes: self.nodes.unwrap_or(base.nodes),
            node_cidr: self.node_cidr.clone().unwrap_or(base.node_cidr),
            without,
            registry_config: path(&self.registry_config, base.registry_config)?,
            containerd_import: path(&self.containerd_import, base.containerd_import)?,
            cluster_dns: self.cluster_dns.or(base.cluster_dns),
            eviction_hard: self.eviction_hard.as_ref().map_or(base.eviction_hard, Thresholds::to_string),
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
        if self.nodes.is_some_and(|nodes| nodes != before.nodes) {
            bail!(
                "--nodes is chosen once: 'copepod down --purge' first, or start another cluster with --data-dir"
            );
        }
        let here = unit_names(before).into_iter().map(|name| (layout.clone(), name)).collect::<Vec<_>>();
        let there = nodes::places(layout, before)?;
        let there = there.iter().flat_map(|p| nodes::UNITS.map(|name| (p.layout.clone(), name)));
        for (layout, name) in here.into_iter().chain(there) {
            if units::running(&layout, name)?.is_some() {
                bail!("the cluster runs with other settings: stop it with 'copepod down' first");
            }
        }
        Ok(())
    }

    /// Certificates, kubeconfigs, configuration of containerd, the way out of the machine.
    fn prepare(&self, layout: &Layout, settings: &Settings, programs: &Programs) -> anyhow::Result<()> {
        let mut addresses = vec![[127, 0, 0, 1].into(), settings.node_ip];
        addresses.extend((settings.nodes > 0).then(|| settings.api_address()));
        let spec = ClusterSpec {
            // Of several nodes each has its own besides; there must be none for a node that is not there.
            node_name: nodes::names(settings)?.swap_remove(0),
            addresses,
            service_address: service_address(&settings.service_cidr)?,
            domain: settings.domain.clone(),
        };
        ClusterPki::ensure(&layout.pki(), &spec)?;
        for component in components::COMPONENTS
            .iter()
            .filter(|c| !c.leaf.is_empty() && (settings.nodes == 0 || c.leaf != "node"))
        {
            let text = kubeconfig::render(layout, settings, component.leaf)?;
            files::write(&layout.kubeconfig(component.name), text.as_bytes(), Mode::Private)?;
        }
        let admin = kubeconfig::render(layout, settings, "admin")?;
        files::write(&layout.kubeconfig("admin"), admin.as_bytes(), Mode::Private)?;
        match settings.nodes {
            0 => {
                let network = containerd::bridged_network(settings)?;
                containerd::write_config(layout, settings, programs, &network)?;
                outwards::open(layout, settings)
            }
            _ => nodes::prepare(layout, settings, programs),
        }
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

    /// Follows the node objects until the Ready condition of each is true.
    fn wait_for_nodes(&self, layout: &Layout, settings: &Settings, places: &[Place]) -> anyhow::Result<()> {
        let file = layout.kubeconfig("admin");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut agents: Vec<(&Layout, &str)> = places.iter().map(|p| (&p.layout, "kubelet")).collect();
        if agents.is_empty() {
            agents.push((layout, if settings.separate { "kubelet" } else { "copepod" }));
        }
        let mut missing: BTreeSet<String> = nodes::names(settings)?.into_iter().collect();
        let waited = runtime.block_on(async {
            tokio::select! {
                ready = nodes_ready(&file, &mut missing) => Some(ready),
                () = tokio::time::sleep(Duration::from_secs(self.timeout)) => None,
                () = any_ended(&agents) => None,
            }
        });
        if let Some(result) = waited {
            return result;
        }
        let missing = missing.into_iter().collect::<Vec<_>>().join(", ");
        for (layout, unit) in &agents {
            if units::running(layout, unit)?.is_none() {
                let (log, tail) = (layout.log(unit), units::log_tail(layout, unit));
                bail!(
                    "node {missing} cannot become ready: {unit} ended; the end of {}:\n{tail}",
                    log.display()
                );
            }
        }
        let (layout, unit) = agents[0];
        let (log, tail) = (layout.log(unit), units::log_tail(layout, unit));
        bail!("node {missing} is not ready after {} s; the end of {}:\n{tail}", self.timeout, log.display());
    }

    fn say_what_next(&self, layout: &Layout, settings: &Settings) -> anyhow::Result<()> {
        if let (false, Some(file)) = (self.no_kubeconfig, kubeconfig::user_file()) {
            kubeconfig::merge(layout, settings, &file)?;
            eprintln!("          context {:?} is in {}", settings.context, file.display());
        }
        if self.no_wait {
            // Nobody has seen that it is up.
            return Ok(());
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

/// All processes of the cluster that are in no node.
fn units(layout: &Layout, settings: &Settings, programs: &Programs) -> anyhow::Result<Vec<Unit>> {
    let own = std::env::current_exe().context("which program is this?")?.display().to_string();
    let unit = |name, command| Unit { name, command, path_first: None };
    let mut out = Vec::new();
    if settings.nodes == 0 {
        out.push(programs.unit(layout));
    }
    if let Storage::Etcd { program, port } = &settings.storage {
        out.push(unit("etcd", etcd_command(layout, program, *port)));
    }
    if settings.separate {
        for component in components::here(settings) {
            let mut command = vec![own.clone(), component.name.to_string()];
            command.extend(component.arguments(layout, settings).into_iter().skip(1));
            out.push(unit(component.name, command));
        }
    } else if components::here(settings).next().is_some() {
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

/// Until one of the units is gone. A process that is not our child can only be looked at.
async fn any_ended(units: &[(&Layout, &str)]) {
    while units.iter().all(|(layout, unit)| matches!(units::running(layout, unit), Ok(Some(_)))) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits by watch, not by asking again and again, until none is missing. Before a kubelet has registered there is nothing
/// yet; that too is seen by the watch.
async fn nodes_ready(kubeconfig: &std::path::Path, missing: &mut BTreeSet<String>) -> anyhow::Result<()> {
    use futures::StreamExt as _;
    use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
    use kube::runtime::{WatchStreamExt as _, watcher};
    let config = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config =
        kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await?;
    let client = kube::Client::try_from(config)?;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Node"));
    let api: Api<DynamicObject> = Api::all_with(client, &kind);
    let mut changes = watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
    while let Some(change) = changes.next().await {
        let object = match change {
            Ok(object) => object,
            // The watcher comes back by itself: the server may still be starting.
            Err(error) => {
                tracing::debug!(%error, "waiting for nodes");
                continue;
            }
        };
        let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let now: Vec<_> = conditions.iter().filter(|c| c["status"] == "True").collect();
        let name = object.metadata.name.as_deref().unwrap_or_default();
        if now.iter().any(|c| c["type"] == "Ready") && missing.remove(name) {
            let pressure =
                |c: &&&serde_json::Value| c["type"].as_str().is_some_and(|t| t.ends_with("Pressure"));
            for condition in now.iter().filter(pressure) {
                let why = condition["message"].as_str().unwrap_or_default();
                eprintln!("warning: node {name} takes no pods: {why}; see 'copepod doctor'");
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
    }
    bail!("the watch on nodes ended")
}
