//! One server, its folder, its clients.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use copepod_apiserver::{Options, Running, StartError, start};
use copepod_pki::kubeconfig::Kubeconfig;
use copepod_pki::{Authority, PkiError};
use copepod_serve::Shutdown;
use tempfile::TempDir;

use crate::certificates;

/// Why there is no server to test with: the test fails, there is nothing to retry.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// The server did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Flags of a test that are none.
    #[error(transparent)]
    Options(#[from] copepod_apiserver::options::OptionsError),
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The store.
    #[error(transparent)]
    Store(#[from] copepod_store::StoreError),
    /// Files.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The kubeconfig or the client.
    #[error("client: {0}")]
    Client(String),
    /// The server ended before it was ready.
    #[error("the server ended before it was ready")]
    NotReady,
}

/// A running API server. Dropping it ends it.
pub struct TestServer {
    /// Where it listens.
    pub address: SocketAddr,
    folder: TempDir,
    authority: Authority,
    running: Option<Running>,
    shutdown: Shutdown,
}

impl TestServer {
    /// In memory, with `Node,RBAC` and the default admission plugins.
    pub async fn start() -> Result<TestServer, TestError> {
        TestServer::start_with(&[]).await
    }

    /// With more flags; a flag that is set here already is overridden.
    pub async fn start_with(flags: &[&str]) -> Result<TestServer, TestError> {
        let folder = TempDir::new()?;
        let authority = certificates::write(folder.path())?;
        certificates::service_account_key(folder.path())?;
        let file = |name: &str| folder.path().join(name).display().to_string();
        let mut arguments: Vec<String> = [
            "testkit",
            "--bind-address=127.0.0.1",
            "--secure-port=0",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--enable-bootstrap-token-auth",
            "--allow-privileged",
        ]
        .map(String::from)
        .to_vec();
        for (flag, name) in [
            ("tls-cert-file", "apiserver.crt"),
            ("tls-private-key-file", "apiserver.key"),
            ("client-ca-file", "ca.crt"),
            ("service-account-signing-key-file", "sa.key"),
        ] {
            arguments.push(format!("--{flag}={}", file(name)));
        }
        if !flags.iter().any(|flag| flag.starts_with("--storage=") || flag.starts_with("--etcd-servers=")) {
            arguments.push("--storage=memory".into());
        }
        arguments.extend(flags.iter().map(|f| (*f).to_string()));
        let shutdown = Shutdown::new();
        let running = start(Options::parse_arguments(arguments)?, shutdown.clone()).await?;
        if !running.ready().await {
            return Err(TestError::NotReady);
        }
        Ok(TestServer { address: running.address, folder, authority, running: Some(running), shutdown })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Certificates and keys: `ca.crt`, `admin.crt`, `admin.key`, `sa.key` and those of [`TestServer::user`].
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> Result<String, TestError> {
        self.kubeconfig_of("admin")
    }

    /// A kubeconfig for a user of a group, by client certificate.
    pub fn user(&self, name: &str, group: Option<&str>) -> Result<String, TestError> {
        let file = format!("user-{}", name.replace([':', '/'], "-"));
        certificates::client(&self.authority, self.folder.path(), &file, name, group)?;
        self.kubeconfig_of(&file)
    }

    fn kubeconfig_of(&self, file: &str) -> Result<String, TestError> {
        let read = |name: String| std::fs::read_to_string(self.folder.path().join(name));
        let certificate_pem = read(format!("{file}.crt"))?;
        let key_pem = read(format!("{file}.key"))?;
        Ok(Kubeconfig {
            name: "testkit",
            server: &self.url(),
            ca_pem: &self.authority.certificate_pem,
            certificate_pem: &certificate_pem,
            key_pem: &key_pem,
        }
        .to_yaml())
    }

    /// The administrator's client.
    pub async fn client(&self) -> Result<kube::Client, TestError> {
        client(&self.kubeconfig()?).await
    }

    /// The client of a user of a group.
    pub async fn client_of(&self, name: &str, group: Option<&str>) -> Result<kube::Client, TestError> {
        client(&self.user(name, group)?).await
    }

    /// The server itself, for tests that look behind HTTP.
    pub fn server(&self) -> Option<&Arc<copepod_apiserver::server::Server>> {
        self.running.as_ref().map(|r| &r.server)
    }

    /// Compacts the store up to now, as the server itself does every few minutes: older revisions are 410 from here on.
    pub async fn forget_history(&self) -> Result<(), TestError> {
        let Some(running) = &self.running else { return Err(TestError::NotReady) };
        let store = &running.server.store;
        store.compact(store.current_revision().await?).await?;
        Ok(())
    }

    /// Ends it in order and waits for that.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(running) = self.running.take() {
            running.ended().await;
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn client(kubeconfig: &str) -> Result<kube::Client, TestError> {
    let wrong = |e: &dyn std::fmt::Display| TestError::Client(e.to_string());
    let kubeconfig = kube::config::Kubeconfig::from_yaml(kubeconfig).map_err(|e| wrong(&e))?;
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| wrong(&e))?;
    kube::Client::try_from(config).map_err(|e| wrong(&e))
}

#[cfg(test)]
mod behind;
#[cfg(test)]
mod edges;
#[cfg(test)]
mod probes;
#[cfg(test)]
mod tests;
