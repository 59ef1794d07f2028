//! The listener's certificates: given, made by ourselves, read again.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use copepod_serve::Shutdown;
use copepod_serve::tls::{SniFiles, TlsFiles, TlsSettings};

use super::{StartError, advertise_address, flag};
use crate::options::Options;

/// Certificates are read again so often; a file system event could be missed (network mounts, bind mounts).
/// upstream: server/dynamiccertificates FileRefreshDuration
const CERTIFICATE_RELOAD: Duration = Duration::from_secs(60);

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

/// Reads certificates again when their files have changed.
pub(super) async fn reload_certificates(tls: Arc<TlsSettings>, shutdown: Shutdown) {
    let stamp = |paths: &[PathBuf]| -> Vec<Option<std::time::SystemTime>> {
        paths.iter().map(|p| std::fs::metadata(p).and_then(|m| m.modified()).ok()).collect()
    };
    let paths = tls.paths();
    let mut seen = stamp(&paths);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(CERTIFICATE_RELOAD) => {}
        }
        let now = stamp(&paths);
        if now == seen {
            continue;
        }
        match tls.reload() {
            Ok(()) => {
                seen = now;
                tracing::info!("certificates were read again");
            }
            // Half-written files: the old ones stay in use, the next round looks again.
            Err(error) => tracing::error!(%error, "changed certificates cannot be used"),
        }
    }
}
