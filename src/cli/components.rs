//! The components of a cluster: their flags, and how one or all of them run in this process.
//!
//! One set of flags serves both ways: `up` hands it to separate processes, or [`run_all`] to each component's own parser
//! within one process. There is no second way to configure a component.

use crate::layout::Layout;
use crate::settings::{Settings, Storage};
use anyhow::Context as _;
use copepod_serve::{Shutdown, component};
use futures::future::BoxFuture;
use std::net::IpAddr;
use std::time::Duration;

/// One component.
#[derive(Clone, Copy)]
pub struct Component {
    /// Its sub-command, unit name and kubeconfig.
    pub name: &'static str,
    /// Its user's certificate; "" for the API server, which is no client of itself.
    pub leaf: &'static str,
    flags: fn(&Layout, &Settings) -> Vec<String>,
    run: fn(Vec<String>, Shutdown) -> BoxFuture<'static, anyhow::Result<()>>,
}

/// The one that the others are clients of.
const API_SERVER: Component = Component {
    name: "apiserver",
    leaf: "",
    flags: apiserver_flags,
    run: |a, s| Box::pin(copepod_apiserver::command::run(a, s)),
};

/// All components, in the order in which they start.
pub const COMPONENTS: [Component; 4] = [
    API_SERVER,
    Component {
        name: "controller-manager",
        leaf: "controller-manager",
        flags: controller_manager_flags,
        run: |a, s| Box::pin(copepod_controllers::command::run(a, s)),
    },
    Component {
        name: "scheduler",
        leaf: "scheduler",
        flags: scheduler_flags,
        run: |a, s| Box::pin(copepod_scheduler::command::run(a, s)),
    },
    Component {
        name: "kubelet",
        leaf: "node",
        flags: kubelet_flags,
        run: |a, s| Box::pin(copepod_kubelet::command::run(a, s)),
    },
];

/// How long the API server may take until the others start anyway and wait for it themselves.
const API_WAIT: Duration = Duration::from_secs(10);

impl Component {
    /// Program name and flags.
    pub fn arguments(&self, layout: &Layout, settings: &Settings) -> Vec<String> {
        let mut out = vec![format!("copepod {}", self.name)];
        if !self.leaf.is_empty() {
            out.push(format!("--kubeconfig={}", layout.kubeconfig(self.name).display()));
        }
        out.extend((self.flags)(layout, settings));
        out
    }
}

/// The components that run beside this machine's other programs.
pub fn here(settings: &Settings) -> impl Iterator<Item = &'static Component> {
    COMPONENTS.iter().filter(|component| settings.runs_here(component.name))
}

/// The component that goes by this sub-command.
pub fn find(name: &str) -> Option<&'static Component> {
    COMPONENTS.iter().find(|c| c.name == name)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Runs one component in this process until it ends or a signal comes.
pub fn run_one(component: &Component, arguments: Vec<String>) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let shutdown = component::shutdown_on_signals();
        (component.run)(arguments, shutdown).await
    })
}

/// Runs all components of this machine in this process. When one fails the others are asked to end, and the process with them: half a
/// cluster helps nobody, and whoever supervises the process starts a whole one.
pub fn run_all(layout: &Layout, settings: &Settings) -> anyhow::Result<()> {
    copepod_serve::logging::init(2);
    runtime()?.block_on(async {
        let signal = component::shutdown_on_signals();
        // Clients end before the API server does, so that their last words are heard.
        let (clients, server) = (signal.child_token(), Shutdown::new());
        let mut running = tokio::task::JoinSet::new();
        if settings.runs(API_SERVER.name) {
            let arguments = API_SERVER.arguments(layout, settings);
            let started = copepod_apiserver::command::start(arguments, server.clone()).await?;
            let Some(api) = started else { return Ok(()) };
            // Clients that come before their roles are there would be refused, and come again only after a back-off.
            tokio::select! {
                _ = tokio::time::timeout(API_WAIT, api.ready()) => {}
                () = signal.cancelled() => {}
            }
            running.spawn(async move {
                api.ended().await;
                (API_SERVER.name, Ok(()))
            });
        }
        for component in here(settings).filter(|component| component.name != API_SERVER.name) {
            let work = (component.run)(component.arguments(layout, settings), clients.clone());
            running.spawn(async move { (component.name, work.await) });
        }
        let mut result = Ok(());
        while let Some(ended) = running.join_next().await {
            let (name, outcome) = ended.context("a component panicked")?;
            if let Err(error) = outcome
                && result.is_ok()
            {
                tracing::error!(component = name, error = format!("{error:#}"), "a component failed");
                result = Err(error.context(format!("{name} failed")));
            }
            clients.cancel();
            if running.len() <= 1 {
                server.cancel();
            }
        }
        result
    })
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

/// `copepod up` passes stricter settings than the program's own defaults, which are upstream's.
fn apiserver_flags(layout: &Layout, settings: &Settings) -> Vec<String> {
    let pki = |name: &str| layout.pki().join(name).display().to_string();
    let mut out = vec![
        flag("bind-address", settings.bind_address),
        flag("secure-port", settings.secure_port),
        flag("advertise-address", settings.api_address()),
        flag("tls-cert-file", pki("apiserver.crt")),
        flag("tls-private-key-file", pki("apiserver.key")),
        flag("client-ca-file", pki("ca.crt")),
        // Upstream's own default refuses every privileged pod; all installers of clusters set it.
        flag("allow-privileged", true),
        flag("anonymous-auth", true),
        flag("anonymous-paths", "/healthz,/livez,/readyz,/version"),
        flag("authorization-mode", "Node,RBAC"),
        flag("enable-admission-plugins", "NodeRestriction"),
        flag("enable-bootstrap-token-auth", true),
        flag("service-account-issuer", format!("https://kubernetes.default.svc.{}", settings.domain)),
        flag("service-account-signing-key-file", pki("sa.key")),
        flag("service-account-key-file", pki("sa.pub")),
        flag("service-cluster-ip-range", &settings.service_cidr),
        flag("kubelet-certificate-authority", pki("ca.crt")),
        flag("kubelet-client-certificate", pki("apiserver-kubelet-client.crt")),
        flag("kubelet-client-key", pki("apiserver-kubelet-client.key")),
        flag("kubelet-preferred-address-types", "InternalIP,Hostname"),
        flag("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        flag("requestheader-allowed-names", "front-proxy-client"),
        flag("requestheader-username-headers", "X-Remote-User"),
        flag("requestheader-uid-headers", "X-Remote-Uid"),
        flag("requestheader-group-headers", "X-Remote-Group"),
        flag("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
    ];
    out.push(match &settings.storage {
        Storage::Embedded => flag("storage", format!("embedded:{}", layout.store().display())),
        Storage::Etcd { port, .. } => flag("etcd-servers", format!("http://127.0.0.1:{port}")),
        Storage::External { servers } => flag("etcd-servers", servers),
    });
    out
}

/// No election: `up` runs one of each, and the one that comes after a crash need not wait for a lease to run out.
fn controller_manager_flags(layout: &Layout, settings: &Settings) -> Vec<String> {
    vec![
        flag("bind-address", "127.0.0.1"),
        flag("secure-port", settings.controller_manager_port),
        flag("leader-elect", false),
        flag("use-service-account-credentials", true),
        flag("tls-cert-file", layout.pki().join("component.crt").display()),
        flag("tls-private-key-file", layout.pki().join("component.key").display()),
        flag("root-ca-file", layout.pki().join("ca.crt").display()),
    ]
}

fn scheduler_flags(layout: &Layout, settings: &Settings) -> Vec<String> {
    vec![
        flag("bind-address", "127.0.0.1"),
        flag("secure-port", settings.scheduler_port),
        flag("leader-elect", false),
        flag("tls-cert-file", layout.pki().join("component.crt").display()),
        flag("tls-private-key-file", layout.pki().join("component.key").display()),
    ]
}

fn kubelet_flags(layout: &Layout, settings: &Settings) -> Vec<String> {
    let (name, address) = (&settings.node_name, settings.node_ip);
    KubeletOf { layout, name, address, cgroup: &settings.cgroup_root() }.flags(settings)
}

/// The node that a kubelet is for: the machine itself, or one of several.
#[derive(Clone, Copy, Debug)]
pub struct KubeletOf<'a> {
    /// Where its things are.
    pub layout: &'a Layout,
    /// Its name.
    pub name: &'a str,
    /// Its address.
    pub address: IpAddr,
    /// The cgroup of its pods.
    pub cgroup: &'a str,
}

impl KubeletOf<'_> {
    /// The flags of its kubelet.
    pub fn flags(self, settings: &Settings) -> Vec<String> {
        let KubeletOf { layout, name, address, cgroup } = self;
        let socket = format!("unix://{}", layout.containerd_socket().display());
        let mut out = vec![
            flag("hostname-override", name),
            flag("node-ip", address),
            flag("address", "0.0.0.0"),
            flag("port", settings.kubelet_port),
            flag("root-dir", layout.kubelet().display()),
            flag("pod-manifest-path", layout.manifests().display()),
            flag("container-runtime-endpoint", &socket),
            flag("containerd-endpoint", &socket),
            flag("pod-logs-dir", layout.join("log/pods").display()),
            flag("cgroup-root", cgroup),
            flag("tls-cert-file", layout.pki().join("kubelet.crt").display()),
            flag("tls-private-key-file", layout.pki().join("kubelet.key").display()),
            flag("client-ca-file", layout.pki().join("ca.crt").display()),
            flag("cluster-domain", &settings.domain),
            flag("eviction-hard", &settings.eviction_hard),
        ];
        out.extend(settings.cluster_dns.map(|address| flag("cluster-dns", address)));
        out
    }
}
