//! Upstream's programs in a cluster of ours: kube-apiserver, kube-controller-manager, kube-scheduler, and in each node
//! kubelet and kube-proxy. CoreDNS runs as pods.
//!
//! Owns: those processes; they end with this value. `copepod up --without` made all that they need: keys, kubeconfigs, the
//! store, nodes. Flags are those of `copepod up` where upstream knows them; what else upstream wants in a node that is a
//! network namespace stands in `conformance/upstream`.

use anyhow::Context as _;
use copepod_pki::files::{self, Mode};
use copepod_pki::kubeconfig::Kubeconfig;
use copepod_pki::{Authority, Leaf, Usage};
use serde::Deserialize;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cast::Cast;
use super::group::Group;

/// What `copepod up` keeps of its settings, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    node_name: String,
    nodes: u8,
    node_cidr: String,
    pod_cidr: String,
    service_cidr: String,
    secure_port: u16,
    controller_manager_port: u16,
    scheduler_port: u16,
    bridge: String,
    storage: Storage,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Storage {
    Etcd { port: u16 },
}

/// A node of the cluster, as `copepod up --nodes` lays it out.
struct Node {
    name: String,
    address: String,
    folder: PathBuf,
    cgroup: String,
}

/// Where programs and data are.
pub struct Places<'a> {
    /// `copepod`, to get into nodes.
    pub copepod: &'a Path,
    /// The cluster's data folder.
    pub data: &'a Path,
    /// Logs and configurations of upstream's programs.
    pub folder: &'a Path,
    /// `conformance/upstream`.
    pub texts: &'a Path,
    /// Builds and names a program of upstream's.
    pub program: &'a dyn Fn(&str) -> anyhow::Result<PathBuf>,
}

/// Starts what upstream plays; `copepod up` has been run.
pub fn start(cast: &Cast, places: &Places<'_>) -> anyhow::Result<Vec<Group>> {
    let settings = places.data.join("settings.json");
    let text = std::fs::read(&settings).with_context(|| settings.display().to_string())?;
    let settings: Settings = serde_json::from_slice(&text).context("settings of the cluster")?;
    files::private_dir(places.folder)?;
    let stage = Stage { places, settings };
    let mut running = Vec::new();
    if cast.upstream("apiserver") {
        running.push(stage.here("kube-apiserver", stage.apiserver())?);
    }
    if cast.upstream("controller-manager") {
        running.push(stage.here("kube-controller-manager", stage.controller_manager())?);
    }
    if cast.upstream("scheduler") {
        running.push(stage.here("kube-scheduler", stage.scheduler())?);
    }
    for node in stage.nodes()? {
        if cast.upstream("kubelet") {
            running.push(stage.inside("kubelet", &node, stage.kubelet(&node)?)?);
        }
        if cast.upstream("proxy") {
            running.push(stage.inside("kube-proxy", &node, stage.proxy(&node)?)?);
        }
    }
    Ok(running)
}

struct Stage<'a> {
    places: &'a Places<'a>,
    settings: Settings,
}

impl Stage<'_> {
    fn pki(&self, file: &str) -> String {
        self.places.data.join("pki").join(file).display().to_string()
    }

    fn kubeconfig(&self, who: &str) -> String {
        self.places.data.join(format!("kubeconfig/{who}.kubeconfig")).display().to_string()
    }

    /// The address at this place of the nodes' range: 1 is the machine's, 11 the first node's.
    fn address(&self, place: u8) -> String {
        let base = self.settings.node_cidr.rsplit_once('.').map_or("", |(base, _)| base);
        format!("{base}.{place}")
    }

    fn nodes(&self) -> anyhow::Result<Vec<Node>> {
        anyhow::ensure!(self.settings.nodes > 0, "upstream's programs need nodes of their own");
        let node = |number: u8| Node {
            name: format!("{}-{number}", self.settings.node_name),
            address: self.address(10 + number),
            folder: self.places.data.join(format!("nodes/{number}")),
            cgroup: format!("/{}/{number}", self.settings.bridge),
        };
        Ok((1..=self.settings.nodes).map(node).collect())
    }

    fn here(&self, name: &str, flags: Vec<String>) -> anyhow::Result<Group> {
        let mut command = Command::new((self.places.program)(name)?);
        command.args(flags);
        self.spawn(name, command)
    }

    fn inside(&self, name: &str, node: &Node, flags: Vec<String>) -> anyhow::Result<Group> {
        let program = (self.places.program)(name)?;
        let mut command = Command::new(self.places.copepod);
        command.arg("--data-dir").arg(self.places.data).args(["node", "exec", &node.name, "--"]);
        command.arg(program).args(flags);
        self.spawn(&format!("{name}-{}", node.name), command)
    }

    fn spawn(&self, name: &str, mut command: Command) -> anyhow::Result<Group> {
        let log = std::fs::File::create(self.places.folder.join(format!("{name}.log")))?;
        eprintln!("upstream: starting {name}");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        Ok(Group(child))
    }

    fn apiserver(&self) -> Vec<String> {
        let Storage::Etcd { port } = self.settings.storage;
        vec![
            format!("--etcd-servers=http://127.0.0.1:{port}"),
            "--bind-address=0.0.0.0".into(),
            format!("--secure-port={}", self.settings.secure_port),
            format!("--advertise-address={}", self.address(1)),
            format!("--tls-cert-file={}", self.pki("apiserver.crt")),
            format!("--tls-private-key-file={}", self.pki("apiserver.key")),
            format!("--client-ca-file={}", self.pki("ca.crt")),
            "--allow-privileged=true".into(),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--enable-bootstrap-token-auth=true".into(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            format!("--service-account-signing-key-file={}", self.pki("sa.key")),
            format!("--service-account-key-file={}", self.pki("sa.pub")),
            format!("--service-cluster-ip-range={}", self.settings.service_cidr),
            format!("--kubelet-certificate-authority={}", self.pki("ca.crt")),
            format!("--kubelet-client-certificate={}", self.pki("apiserver-kubelet-client.crt")),
            format!("--kubelet-client-key={}", self.pki("apiserver-kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP,Hostname".into(),
            format!("--requestheader-client-ca-file={}", self.pki("front-proxy-ca.crt")),
            "--requestheader-allowed-names=front-proxy-client".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            format!("--proxy-client-cert-file={}", self.pki("front-proxy-client.crt")),
            format!("--proxy-client-key-file={}", self.pki("front-proxy-client.key")),
            // No proxy runs beside it.
            "--enable-aggregator-routing=true".into(),
        ]
    }

    fn controller_manager(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", self.kubeconfig("controller-manager")),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={}", self.settings.controller_manager_port),
            "--leader-elect=false".into(),
            "--use-service-account-credentials=true".into(),
            format!("--root-ca-file={}", self.pki("ca.crt")),
            format!("--service-account-private-key-file={}", self.pki("sa.key")),
            format!("--cluster-signing-cert-file={}", self.pki("ca.crt")),
            format!("--cluster-signing-key-file={}", self.pki("ca.key")),
        ]
    }

    fn scheduler(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", self.kubeconfig("scheduler")),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={}", self.settings.scheduler_port),
            "--leader-elect=false".into(),
        ]
    }

    /// A text of `conformance/upstream` with what stands in braces filled in, as a file.
    fn filled(&self, text: &str, node: &Node, values: &[(&str, &str)]) -> anyhow::Result<String> {
        let path = self.places.texts.join(text);
        let mut filled = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for (name, value) in values {
            filled = filled.replace(&format!("{{{name}}}"), value);
        }
        let file = self.places.folder.join(format!("{}-{text}", node.name));
        files::write(&file, filled.as_bytes(), Mode::Private)?;
        Ok(file.display().to_string())
    }

    fn kubelet(&self, node: &Node) -> anyhow::Result<Vec<String>> {
        let in_node = |file: &str| node.folder.join(file).display().to_string();
        let config = self.filled(
            "kubelet.yaml",
            node,
            &[
                ("client_ca", &self.pki("ca.crt")),
                ("certificate", &in_node("pki/kubelet.crt")),
                ("key", &in_node("pki/kubelet.key")),
                ("socket", &in_node("containerd.sock")),
                ("manifests", &in_node("manifests")),
                ("cgroup", &node.cgroup),
            ],
        )?;
        Ok(vec![
            format!("--config={config}"),
            format!("--kubeconfig={}", in_node("kubeconfig/kubelet.kubeconfig")),
            format!("--hostname-override={}", node.name),
            format!("--node-ip={}", node.address),
        ])
    }

    fn proxy(&self, node: &Node) -> anyhow::Result<Vec<String>> {
        let kubeconfig = self.proxy_kubeconfig()?;
        let values = [
            ("kubeconfig", kubeconfig.as_str()),
            ("node", &node.name),
            ("pod_cidr", &self.settings.pod_cidr),
        ];
        Ok(vec![format!("--config={}", self.filled("kube-proxy.yaml", node, &values)?)])
    }

    /// For upstream's user of the proxy, whose role each API server knows.
    fn proxy_kubeconfig(&self) -> anyhow::Result<String> {
        let pki = self.places.data.join("pki");
        let authority = Authority::ensure(&pki, "ca", "kubernetes")?;
        let leaf = Leaf {
            file: "kube-proxy",
            common_name: "system:kube-proxy",
            organization: None,
            usage: Usage::Client,
            names: &[],
            addresses: &[],
        };
        authority.ensure_leaf(self.places.folder, &leaf)?;
        let read = |file: &str| std::fs::read_to_string(self.places.folder.join(file));
        let text = Kubeconfig {
            name: "kube-proxy",
            server: &format!("https://{}:{}", self.address(1), self.settings.secure_port),
            ca_pem: &authority.certificate_pem,
            certificate_pem: &read("kube-proxy.crt")?,
            key_pem: &read("kube-proxy.key")?,
        }
        .to_yaml();
        let file = self.places.folder.join("kube-proxy.kubeconfig");
        files::write(&file, text.as_bytes(), Mode::Private)?;
        Ok(file.display().to_string())
    }
}
