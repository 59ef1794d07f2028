//! The listener's certificates: given, made by ourselves, read again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use copepod_access::AuthenticatorChain;
use copepod_access::x509::ClientCertificates;
use copepod_serve::Shutdown;
use copepod_serve::directory::{DirectoryWatch, EXCHANGES};
use copepod_serve::tls::{SniFiles, TlsFiles, TlsSettings};
use tokio::sync::watch;

use super::{StartError, advertise_address, flag, read};
use crate::bootstrap::Trust;
use crate::options::{Authentication as AuthenticationFlags, Options};

/// Files are looked at so often even if no event came: one can be missed (network mounts, bind mounts).
/// upstream: server/dynamiccertificates FileRefreshDuration
const RELOAD: Duration = Duration::from_secs(60);

pub(super) fn tls_files(options: &Options) -> Result<TlsFiles, StartError> {
    let serving = &options.serving;
    let default = match (&serving.tls_cert_file, &serving.tls_private_key_file) {
        (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
        (None, None) => own_certificate(options)?,
        _ => return Err(flag("--tls-cert-file and --tls-private-key-file go together")),
    };
    let sni: Result<Vec<SniFiles>, StartError> =
        serving.tls_sni_cert_key.iter().map(|s| sni_files(s)).collect();
    let authentication = &options.authentication;
    let authorities = [&authentication.client_ca_file, &authentication.requestheader_client_ca_file];
    Ok(TlsFiles {
        default,
        sni: sni?,
        client_ca: authorities.into_iter().flatten().cloned().collect(),
        min_version: serving.tls_min_version.clone(),
        cipher_suites: serving.tls_cipher_suites.clone(),
        http2: !serving.disable_http2_serving,
    })
}

/// `certificate,key:name,name`
fn sni_files(text: &str) -> Result<SniFiles, StartError> {
    let (files, names) = text.split_once(':').unwrap_or((text, ""));
    let Some((certificate, key)) = files.split_once(',') else {
        return Err(flag("expected comma separated certificate and key file paths"));
    };
    let names: Vec<String> = names.split(',').filter(|n| !n.is_empty()).map(str::to_string).collect();
    if names.is_empty() {
        return Err(flag(
            "--tls-sni-cert-key needs the names that the certificate is for: certificate,key:name",
        ));
    }
    Ok(SniFiles { certificate: certificate.into(), key: key.into(), names })
}

/// A certificate of our own making in `--cert-dir`, as upstream makes one.
fn own_certificate(options: &Options) -> Result<(PathBuf, PathBuf), StartError> {
    let folder = &options.serving.cert_dir;
    std::fs::create_dir_all(folder).map_err(|source| StartError::File { path: folder.clone(), source })?;
    let authority = copepod_pki::Authority::ensure(folder, "apiserver-ca", "copepod-apiserver-ca")?;
    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let names: Vec<String> = names.map(String::from).to_vec();
    let service = options.misc.service_cluster_ip_range.first().and_then(|r| r.hosts().next());
    let addresses: Vec<IpAddr> =
        [IpAddr::from([127, 0, 0, 1]), advertise_address(options)].into_iter().chain(service).collect();
    authority.ensure_leaf(
        folder,
        &copepod_pki::Leaf {
            file: "apiserver",
            common_name: "copepod-apiserver",
            organization: None,
            usage: copepod_pki::Usage::Server,
            names: &names,
            addresses: &addresses,
        },
    )?;
    Ok((folder.join("apiserver.crt"), folder.join("apiserver.key")))
}

/// Files whose change is taken over without a restart: certificates and keys of the listener, and the authorities of clients
/// and of front proxies. Not the token file: upstream reads it once too.
///
/// upstream: server/dynamiccertificates DynamicFileCAContent, DynamicCertKeyPairContent
pub(super) struct Reloader {
    paths: Vec<PathBuf>,
    /// What the files held when they were last taken over.
    seen: Vec<Option<Vec<u8>>>,
}

/// What is made of the files.
pub(super) struct Reloaded {
    pub(super) tls: Arc<TlsSettings>,
    pub(super) authenticator: Arc<AuthenticatorChain>,
    pub(super) trust: watch::Sender<Trust>,
    pub(super) options: AuthenticationFlags,
}

impl Reloader {
    /// Before anything is made of the files, so that no change in between is missed.
    pub(super) fn new(files: &TlsFiles) -> Reloader {
        let mut reloader = Reloader { paths: files.paths(), seen: Vec::new() };
        reloader.seen = reloader.contents();
        reloader
    }

    fn contents(&self) -> Vec<Option<Vec<u8>>> {
        // A file that cannot be read is a change like any other; what comes of it is said when it is used.
        self.paths.iter().map(|path| std::fs::read(path).ok()).collect()
    }

    /// Until the server ends.
    pub(super) async fn run(mut self, reloaded: Reloaded, shutdown: Shutdown) {
        let directories = match self.watch() {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(%error, "files of certificates are not watched, only looked at every minute");
                None
            }
        };
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = changed(directories.as_ref()) => {}
                () = tokio::time::sleep(RELOAD) => {}
            }
            let now = self.contents();
            if now == self.seen {
                continue;
            }
            match reloaded.reload() {
                Ok(()) => {
                    self.seen = now;
                    tracing::info!("certificates were read again");
                }
                // A half-written file, or a certificate whose key comes in a moment: what is in use stays in use.
                Err(error) => tracing::error!(%error, "changed certificates cannot be used"),
            }
        }
    }

    fn watch(&self) -> std::io::Result<DirectoryWatch> {
        let parents: BTreeSet<&Path> = self.paths.iter().filter_map(|path| path.parent()).collect();
        let mut parents =
            parents.into_iter().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
        let first = parents.next().ok_or_else(|| std::io::Error::other("no files"))?;
        let watch = DirectoryWatch::new(first, EXCHANGES)?;
        for parent in parents {
            watch.add(parent, EXCHANGES)?;
        }
        Ok(watch)
    }
}

/// Waits for a change; for ever when nothing can be watched.
async fn changed(directories: Option<&DirectoryWatch>) {
    let Some(watch) = directories else { return std::future::pending().await };
    if let Err(error) = watch.changed().await {
        tracing::warn!(%error, "files of certificates are not watched any more, only looked at every minute");
        std::future::pending().await
    }
}

impl Reloaded {
    fn reload(&self) -> Result<(), StartError> {
        let authorities = |path: &Option<PathBuf>, known: Option<&ClientCertificates>| match (path, known) {
            (Some(path), Some(known)) => known.reload(&read(path)?).map_err(flag),
            _ => Ok(()),
        };
        // Each on its own: a bad serving certificate must not keep a revoked authority in use.
        let proxy = self.authenticator.front_proxy.as_ref().map(|proxy| &proxy.certificates);
        let all = [
            authorities(&self.options.client_ca_file, self.authenticator.client_certificates.as_deref()),
            authorities(&self.options.requestheader_client_ca_file, proxy),
            self.tls.reload().map_err(StartError::from),
            trust(&self.options).map(|trust| {
                self.trust.send_if_modified(|known| {
                    let changed = *known != trust;
                    *known = trust;
                    changed
                });
            }),
        ];
        all.into_iter().collect()
    }
}

/// Whom this server trusts, as `extension-apiserver-authentication` tells other servers.
pub(super) fn trust(authentication: &AuthenticationFlags) -> Result<Trust, StartError> {
    let mut trust = Trust::new();
    let text = |path: &Path| read(path).map(|pem| String::from_utf8_lossy(&pem).into_owned());
    if let Some(path) = &authentication.client_ca_file {
        trust.push(("client-ca-file".to_string(), text(path)?));
    }
    if let Some(path) = &authentication.requestheader_client_ca_file {
        trust.push(("requestheader-client-ca-file".to_string(), text(path)?));
        for (key, list) in [
            ("requestheader-allowed-names", &authentication.requestheader_allowed_names),
            ("requestheader-extra-headers-prefix", &authentication.requestheader_extra_headers_prefix),
            ("requestheader-group-headers", &authentication.requestheader_group_headers),
            ("requestheader-uid-headers", &authentication.requestheader_uid_headers),
            ("requestheader-username-headers", &authentication.requestheader_username_headers),
        ] {
            let quoted: Vec<String> = list.iter().map(|s| copepod_meta::field::quote(s)).collect();
            trust.push((key.to_string(), format!("[{}]", quoted.join(","))));
        }
    }
    Ok(trust)
}
