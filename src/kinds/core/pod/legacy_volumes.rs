//! Volume sources of storage systems that drivers have replaced, and CSI. upstream: validation.go validate*VolumeSource

use copepod_meta::{ErrorList, names};

use super::volumes::local_descending_path;
use crate::check::At;

/// All of these members must be there.
pub fn required(at: At, members: &[&str], e: &mut ErrorList) {
    for member in members {
        at.get(member).need(e);
    }
}

pub fn git_repo(at: At, e: &mut ErrorList) {
    at.get("repository").need(e);
    local_descending_path(at.get("directory"), e);
}

/// A cloud disk: an id and a partition. upstream: validateGCEPersistentDiskVolumeSource and of AWS
pub fn disk(at: At, id: &str, e: &mut ErrorList) {
    at.get(id).need(e);
    let partition = at.get("partition");
    if !(0..=255).contains(&partition.int()) {
        partition.invalid_int(e, names::range_error(1, 255));
    }
}

pub fn nfs(at: At, e: &mut ErrorList) {
    required(at, &["server", "path"], e);
    let path = at.get("path");
    if !path.str().starts_with('/') {
        path.invalid(e, "must be an absolute path");
    }
}

/// Whether a name of an initiator or target has its naming authority's form; `None`: of no known authority.
fn iscsi_name(name: &str) -> Option<bool> {
    let fixed = |prefix: &str, len: usize| {
        // The byte after the prefix may be anything: upstream's pattern has an unescaped dot there.
        let rest = name.strip_prefix(prefix)?;
        let mut chars = rest.chars();
        chars.next()?;
        let tail = chars.as_str();
        Some(tail.len() == len && tail.bytes().all(|c| c.is_ascii_alphanumeric()))
    };
    if name.starts_with("iqn") {
        Some(is_iqn(name))
    } else if name.starts_with("eui") {
        Some(fixed("eui", 16).unwrap_or(false))
    } else if name.starts_with("naa") {
        Some(fixed("naa", 32).unwrap_or(false))
    } else {
        None
    }
}

/// `iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`
fn is_iqn(name: &str) -> bool {
    let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|c| c.is_ascii_digit());
    let Some(rest) = name.strip_prefix("iqn.") else { return false };
    let (Some(year), Some(month)) = (rest.get(..4), rest.get(5..7)) else { return false };
    let dated = digits(year, 4) && rest.as_bytes()[4] == b'-' && digits(month, 2);
    let Some(tail) = rest.get(7..).and_then(|t| t.strip_prefix('.')) else { return false };
    let Some((domain, unit)) = tail.split_once(':') else { return false };
    dated
        && !domain.is_empty()
        && domain.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.'))
        && !unit.is_empty()
        && !unit.contains(|c: char| ",;*&$|".contains(c) || c.is_ascii_whitespace())
}

pub fn iscsi(at: At, e: &mut ErrorList) {
    const AUTHORITY: &str = "must be valid format starting with iqn, eui, or naa";
    iscsi_with(at, AUTHORITY, e);
}

/// The checks that the pod's and the persistent volume's source share; they word one of them differently.
pub fn iscsi_with(at: At, authority: &str, e: &mut ErrorList) {
    at.get("targetPortal").need(e);
    let iqn = at.get("iqn");
    if iqn.need(e) {
        match iscsi_name(iqn.str()) {
            None => iqn.invalid(e, authority),
            Some(false) => iqn.invalid(e, "must be valid format"),
            Some(true) => {}
        }
    }
    at.get("lun").in_range(e, 0, 255);
    let secret = at.get("secretRef");
    if (at.get("chapAuthDiscovery").bool() || at.get("chapAuthSession").bool()) && !secret.is_set() {
        secret.required(e, "");
    }
    if authority == "must be valid format" && secret.is_set() {
        secret.get("name").need(e);
    }
    let initiator = at.get("initiatorName");
    if initiator.is_set() {
        let at = at.get("initiatorname");
        let at = at.with(initiator.value);
        match iscsi_name(at.str()) {
            None => at.invalid(e, authority),
            Some(false) => at.invalid(e, "must be valid format"),
            Some(true) => {}
        }
    }
}

/// What volume names and portals may be together.
pub const ISCSI_NAME_LENGTH: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
                                     iscsi.initiatorName is specified.";

pub fn iscsi_name_length(volume: At, e: &mut ErrorList) {
    let name = volume.get("name");
    let portal = volume.get("iscsi.targetPortal");
    if volume.get("iscsi.initiatorName").is_set() && name.len() + 1 + portal.len() > 64 {
        name.invalid(e, ISCSI_NAME_LENGTH);
    }
}

pub fn flocker(at: At, e: &mut ErrorList) {
    let (name, uuid) = (at.get("datasetName"), at.get("datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        at.required(e, "one of datasetName and datasetUUID is required");
    }
    if !name.is_empty() && !uuid.is_empty() {
        at.invalid_str(e, "resource", "datasetName and datasetUUID can not be specified simultaneously");
    }
    if name.str().contains('/') {
        name.invalid(e, "must not contain '/'");
    }
}

pub fn cinder(at: At, e: &mut ErrorList) {
    at.get("volumeID").need(e);
    let secret = at.get("secretRef");
    if secret.is_set() {
        secret.get("name").need(e);
    }
}

pub fn quobyte(at: At, e: &mut ErrorList) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let (registry, tenant) = (at.get("registry"), at.get("tenant"));
    if registry.is_empty() {
        registry.required(e, PAIRS);
    } else if tenant.len() >= 65 {
        tenant.required(e, "must be a UUID and may not exceed a length of 64 characters");
    } else {
        for pair in registry.str().split(',').filter(|p| !is_host_port(p)) {
            let _one_error_a_pair = pair;
            registry.invalid(e, PAIRS);
        }
    }
    at.get("volume").need(e);
}

/// Go's net.SplitHostPort succeeds.
fn is_host_port(s: &str) -> bool {
    match s.strip_prefix('[') {
        Some(rest) => rest
            .split_once("]:")
            .is_some_and(|(host, port)| !host.contains('[') && !port.contains([':', '[', ']'])),
        None => s.matches(':').count() == 1 && !s.contains(['[', ']']),
    }
}

pub fn fc(at: At, e: &mut ErrorList) {
    let (targets, wwids, lun) = (at.get("targetWWNs"), at.get("wwids"), at.get("lun"));
    if targets.is_empty() && wwids.is_empty() {
        targets.required(e, "must specify either targetWWNs or wwids, but not both");
    }
    if !targets.is_empty() && !wwids.is_empty() {
        targets.invalid(e, "targetWWNs and wwids can not be specified simultaneously");
    }
    if !targets.is_empty() {
        if lun.is_set() {
            lun.in_range(e, 0, 255);
        } else {
            lun.required(e, "lun is required if targetWWNs is specified");
        }
    }
}

pub fn flex(at: At, e: &mut ErrorList) {
    at.get("driver").need(e);
    for (key, option) in at.get("options").entries() {
        let namespace = key.split('/').next().unwrap_or(key);
        let normalized = format!(".{}", namespace.to_lowercase());
        if normalized.ends_with(".kubernetes.io") || normalized.ends_with(".k8s.io") {
            option.invalid_str(e, key, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

pub fn azure_disk(at: At, e: &mut ErrorList) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    required(at, &["diskName", "diskURI"], e);
    let (caching, kind, uri) = (at.get("cachingMode"), at.get("kind"), at.get("diskURI"));
    if caching.is_set() {
        caching.one_of(e, &["None", "ReadOnly", "ReadWrite"]);
    }
    if kind.is_set() {
        kind.one_of(e, &["Dedicated", "Managed", "Shared"]);
        if kind.str() == "Managed" && !uri.str().starts_with("/subscriptions/") {
            uri.not_supported(e, &[MANAGED]);
        }
        if kind.str() != "Managed" && !uri.str().starts_with("https://") {
            uri.not_supported(e, &[BLOB]);
        }
    }
}

pub fn storageos(at: At, e: &mut ErrorList) {
    let (name, namespace, secret) = (at.get("volumeName"), at.get("volumeNamespace"), at.get("secretRef"));
    if name.need(e) {
        name.dns_label(e);
    }
    if !namespace.is_empty() {
        namespace.dns_label(e);
    }
    if secret.is_set() {
        secret.get("name").need(e);
    }
}

/// upstream: ValidateCSIDriverName
pub fn csi_driver_name(at: At, e: &mut ErrorList) {
    const DRIVER_NAME_BYTES_MAX: usize = 63;
    if !at.need(e) {
        return;
    }
    if at.len() > DRIVER_NAME_BYTES_MAX {
        at.too_long(e, DRIVER_NAME_BYTES_MAX);
    }
    at.invalid_each(e, names::dns1123_subdomain(&at.str().to_lowercase()));
}

pub fn csi(at: At, e: &mut ErrorList) {
    csi_driver_name(at.get("driver"), e);
    let secret = at.get("nodePublishSecretRef");
    if secret.is_set() {
        let name = secret.get("name");
        if name.need(e) {
            // Upstream reports the secret's name at the source's own `name`.
            at.get("name").with(name.value).dns_subdomain(e);
        }
    }
}
