//! Which keys and certificates a cluster has; names, users and groups as kubeadm lays them out.

use crate::PkiError;
use crate::authority::{Authority, Leaf, Usage};
use crate::files::{self, Mode};
use rcgen::KeyPair;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What the certificates have to name.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// Name of this machine's node.
    pub node_name: String,
    /// Addresses under which API server and kubelet are reached.
    pub addresses: Vec<IpAddr>,
    /// Address of the `kubernetes` Service.
    pub service_address: IpAddr,
    /// `cluster.local`
    pub domain: String,
}

/// The folder that holds them.
#[derive(Clone, Debug)]
pub struct ClusterPki {
    dir: PathBuf,
}

impl ClusterPki {
    /// Makes all that is missing or has to be renewed; names of the certificates that were made.
    pub fn ensure(dir: &Path, spec: &ClusterSpec) -> Result<(ClusterPki, Vec<String>), PkiError> {
        files::private_dir(dir)?;
        let ca = Authority::ensure(dir, "ca", "kubernetes")?;
        let front_proxy = Authority::ensure(dir, "front-proxy-ca", "front-proxy-ca")?;
        ensure_service_account_key(dir)?;

        let node_user = node_user(&spec.node_name);
        let server_names = server_names(spec);
        let node_names = vec![spec.node_name.clone(), "localhost".to_string()];
        let mut server_addresses = spec.addresses.clone();
        server_addresses.push(spec.service_address);
        let client = |file, common_name, organization| Leaf {
            file,
            common_name,
            organization,
            usage: Usage::Client,
            names: &[],
            addresses: &[],
        };
        let leaves = [
            (
                &ca,
                Leaf {
                    file: "apiserver",
                    common_name: "kube-apiserver",
                    organization: None,
                    usage: Usage::Server,
                    names: &server_names,
                    addresses: &server_addresses,
                },
            ),
            (
                &ca,
                Leaf {
                    file: "kubelet",
                    common_name: &node_user,
                    organization: Some("system:nodes"),
                    usage: Usage::Server,
                    names: &node_names,
                    addresses: &spec.addresses,
                },
            ),
            (
                &ca,
                Leaf {
                    file: "component",
                    common_name: "localhost",
                    organization: None,
                    usage: Usage::Server,
                    names: &node_names,
                    addresses: &spec.addresses,
                },
            ),
            (
                &ca,
                client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters")),
            ),
            (&ca, client("admin", "kubernetes-admin", Some("system:masters"))),
            (&ca, client("controller-manager", "system:kube-controller-manager", None)),
            (&ca, client("scheduler", "system:kube-scheduler", None)),
            (&ca, client("node", &node_user, Some("system:nodes"))),
            (&front_proxy, client("front-proxy-client", "front-proxy-client", None)),
        ];
        let mut made = Vec::new();
        for (authority, leaf) in &leaves {
            if authority.ensure_leaf(dir, leaf)? {
                made.push(leaf.file.to_string());
            }
        }
        Ok((ClusterPki { dir: dir.into() }, made))
    }

    /// Makes what a further node needs in a folder of its own: `ca.crt`, and what [`ClusterPki::ensure`] calls `kubelet` and
    /// `node`. `dir` holds the cluster's; names of the certificates that were made.
    pub fn ensure_node(
        dir: &Path,
        node_dir: &Path,
        node_name: &str,
        address: IpAddr,
    ) -> Result<Vec<String>, PkiError> {
        files::private_dir(node_dir)?;
        let ca = Authority::ensure(dir, "ca", "kubernetes")?;
        files::write(&node_dir.join("ca.crt"), ca.certificate_pem.as_bytes(), Mode::Public)?;
        let user = node_user(node_name);
        let names = [node_name.to_owned(), "localhost".to_owned()];
        let addresses = [[127, 0, 0, 1].into(), address];
        let client = Leaf {
            file: "node",
            common_name: &user,
            organization: Some("system:nodes"),
            usage: Usage::Client,
            names: &[],
            addresses: &[],
        };
        let server = Leaf {
            file: "kubelet",
            usage: Usage::Server,
            names: &names,
            addresses: &addresses,
            ..client.clone()
        };
        let mut made = Vec::new();
        for leaf in [server, client] {
            if ca.ensure_leaf(node_dir, &leaf)? {
                made.push(leaf.file.to_owned());
            }
        }
        Ok(made)
    }

    /// The path of `<name>.crt`.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.crt"))
    }

    /// The path of `<name>.key`.
    pub fn key(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.key"))
    }

    /// The path of `<name>.pub`.
    pub fn public_key(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pub"))
    }
}

/// Who a node is to the API server: the name by which the node authorizer and NodeRestriction know it.
fn node_user(node_name: &str) -> String {
    format!("system:node:{node_name}")
}

/// What the API server is called inside and outside of the cluster.
fn server_names(spec: &ClusterSpec) -> Vec<String> {
    let mut names = vec![spec.node_name.clone(), "localhost".into(), "kubernetes".into()];
    for suffix in ["default", "default.svc", &format!("default.svc.{}", spec.domain)] {
        names.push(format!("kubernetes.{suffix}"));
    }
    names.dedup();
    names
}

/// The key that signs service account tokens. It is never renewed: that would end every token.
fn ensure_service_account_key(dir: &Path) -> Result<(), PkiError> {
    let (private, public) = (dir.join("sa.key"), dir.join("sa.pub"));
    let key = match files::read(&private)? {
        Some(pem) => KeyPair::from_pem(&pem)
            .map_err(|source| PkiError::Damaged { path: private.display().to_string(), source })?,
        None => {
            let key = KeyPair::generate()?;
            files::write(&private, key.serialize_pem().as_bytes(), Mode::Private)?;
            key
        }
    };
    if files::read(&public)?.is_none() {
        files::write(&public, key.public_key_pem().as_bytes(), Mode::Public)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_makes_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let spec = ClusterSpec {
            node_name: "n1".into(),
            addresses: vec!["127.0.0.1".parse().expect("an address")],
            service_address: "10.96.0.1".parse().expect("an address"),
            domain: "cluster.local".into(),
        };
        let (pki, made) = ClusterPki::ensure(dir.path(), &spec).expect("a pki");
        assert_eq!(made.len(), 9);
        let key = std::fs::read(pki.key("sa")).expect("a key");
        let (_, made) = ClusterPki::ensure(dir.path(), &spec).expect("a pki");
        assert_eq!(made, Vec::<String>::new());
        assert_eq!(std::fs::read(pki.key("sa")).expect("a key"), key);
        // A machine that moves gets certificates for its new address, and only those that name one.
        let moved = ClusterSpec { addresses: vec!["10.1.2.3".parse().expect("an address")], ..spec };
        let (_, made) = ClusterPki::ensure(dir.path(), &moved).expect("a pki");
        assert_eq!(made, ["apiserver", "kubelet", "component"]);
        // A further node is known by the same authority.
        let node = dir.path().join("n2");
        let address = "10.200.0.12".parse().expect("an address");
        for want in [vec!["kubelet", "node"], vec![]] {
            let made = ClusterPki::ensure_node(dir.path(), &node, "n2", address).expect("a node's");
            assert_eq!(made, want);
        }
        let read = |path: PathBuf| std::fs::read(path).expect("a file");
        assert_eq!(read(node.join("ca.crt")), read(pki.certificate("ca")));
        assert_ne!(read(node.join("node.crt")), read(pki.certificate("node")));
    }
}
