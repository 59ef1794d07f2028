//! An API server inside the test's process, on the in-memory store: ready in milliseconds, gone with its value.
//!
//! ```no_run
//! # async fn test() -> Result<(), Box<dyn std::error::Error>> {
//! let server = copepod_testkit::TestServer::start().await?;
//! let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::default_namespaced(server.client().await?);
//! # Ok(()) }
//! ```
//!
//! It is the real server with the real certificates, authentication, RBAC and admission; nothing is mocked. It knows nothing of nodes:
//! controllers, scheduler and kubelets are started by tests that want them, against [`TestServer::kubeconfig`].

mod certificates;
mod server;

pub use server::{TestError, TestServer};
