//! Kubeconfig files, written as kubectl writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a kubeconfig says: one cluster, one user, one context, all of one name.
#[derive(Clone, Debug)]
pub struct Kubeconfig<'a> {
    /// Name of cluster, user and context.
    pub name: &'a str,
    /// `https://127.0.0.1:6443`
    pub server: &'a str,
    /// The cluster's authority.
    pub ca_pem: &'a str,
    /// The user's certificate.
    pub certificate_pem: &'a str,
    /// The user's key.
    pub key_pem: &'a str,
}

impl Kubeconfig<'_> {
    /// The text of the file.
    pub fn to_yaml(&self) -> String {
        let b64 = |text: &str| STANDARD.encode(text);
        let Kubeconfig { name, server, .. } = self;
        format!(
            "apiVersion: v1\n\
             clusters:\n\
             - cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n  name: {name}\n\
             contexts:\n\
             - context:\n    cluster: {name}\n    user: {name}\n  name: {name}\n\
             current-context: {name}\n\
             kind: Config\n\
             preferences: {{}}\n\
             users:\n\
             - name: {name}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n",
            ca = b64(self.ca_pem),
            certificate = b64(self.certificate_pem),
            key = b64(self.key_pem),
        )
    }
}
