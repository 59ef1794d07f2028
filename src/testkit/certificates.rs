//! Keys and certificates of one test's server, in a folder that ends with it.

use std::path::Path;

use copepod_pki::{Authority, Leaf, PkiError, Usage};

/// Writes the authority, the server's and the administrator's certificate; the authority is handed back for more clients.
pub fn write(folder: &Path) -> Result<Authority, PkiError> {
    let authority = Authority::ensure(folder, "ca", "copepod-testkit")?;
    let names = vec!["localhost".to_string()];
    let addresses = ["127.0.0.1".parse().unwrap_or(std::net::IpAddr::from([127, 0, 0, 1]))];
    let server = Leaf {
        file: "apiserver",
        common_name: "kube-apiserver",
        organization: None,
        usage: Usage::Server,
        names: &names,
        addresses: &addresses,
    };
    authority.ensure_leaf(folder, &server)?;
    client(&authority, folder, "admin", "kubernetes-admin", Some("system:masters"))?;
    Ok(authority)
}

/// A client certificate in `<file>.crt` and `<file>.key`.
pub fn client(
    authority: &Authority,
    folder: &Path,
    file: &str,
    user: &str,
    group: Option<&str>,
) -> Result<(), PkiError> {
    let leaf = Leaf {
        file,
        common_name: user,
        organization: group,
        usage: Usage::Client,
        names: &[],
        addresses: &[],
    };
    authority.ensure_leaf(folder, &leaf).map(|_| ())
}

/// The key that service account tokens are signed with, in `sa.key`.
pub fn service_account_key(folder: &Path) -> Result<(), std::io::Error> {
    let key = rcgen::KeyPair::generate().map_err(std::io::Error::other)?;
    std::fs::write(folder.join("sa.key"), key.serialize_pem())
}
