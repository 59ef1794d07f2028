//! Volume mounts and devices. upstream: validation.go ValidateVolumeMounts, ValidateVolumeDevices

use copepod_meta::ErrorList;
use std::collections::{BTreeMap, BTreeSet};

use super::containers::Pod;
use super::volumes::{has_backstep, local_descending_path};
use crate::check::At;

/// Name to path, as upstream's maps: of equal names the last one counts.
fn paths<'a>(container: &At<'a, '_>, list: &str, path: &str) -> BTreeMap<&'a str, &'a str> {
    container.value.list_at(&[list]).iter().map(|m| (m.str_at(&["name"]), m.str_at(&[path]))).collect()
}

/// upstream: ValidateVolumeMounts
pub fn mounts(container: At, pod: &Pod, e: &mut ErrorList) {
    let devices = paths(&container, "volumeDevices", "devicePath");
    let privileged = container.get("securityContext.privileged").bool();
    let list = container.get("volumeMounts");
    let mut seen = BTreeSet::new();
    for mount in list.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        name.need(e);
        if !pod.volumes.contains_key(name.str()) {
            name.not_found(e);
        }
        path.need(e);
        if !seen.insert(path.str()) {
            path.invalid(e, "must be unique");
        }
        if devices.contains_key(name.str()) {
            name.invalid(e, "must not already exist in volumeDevices");
        }
        if devices.values().any(|d| *d == path.str()) {
            path.invalid(e, "must not already exist as a path in volumeDevices");
        }
        // These paths lack the index, as upstream's do.
        let (sub_path, sub_expr) = (mount.get("subPath"), mount.get("subPathExpr"));
        if !sub_path.is_empty() {
            local_descending_path(list.get("subPath").with(sub_path.value), e);
        }
        if !sub_expr.is_empty() {
            if !sub_path.is_empty() {
                sub_expr.invalid(e, "subPathExpr and subPath are mutually exclusive");
            }
            local_descending_path(list.get("subPathExpr").with(sub_expr.value), e);
        }
        let propagation = mount.get("mountPropagation");
        if propagation.is_set() {
            let at = list.get("mountPropagation");
            let at = at.with(propagation.value);
            at.one_of(e, &["Bidirectional", "HostToContainer", "None"]);
            if at.str() == "Bidirectional" && !privileged {
                at.forbidden(e, "Bidirectional mount propagation is available only to privileged containers");
            }
        }
        recursive_read_only(mount, list, e);
    }
}

/// upstream: validateMountRecursiveReadOnly
fn recursive_read_only(mount: At, list: At, e: &mut ErrorList) {
    let value = mount.get("recursiveReadOnly");
    let at = list.get("recursiveReadOnly");
    let at = at.with(value.value);
    match at.str() {
        "" if !at.is_set() => {}
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.get("readOnly").bool() {
                at.forbidden(e, "may only be specified when readOnly is true");
            }
            if !matches!(mount.get("mountPropagation").str(), "" | "None") {
                at.forbidden(e, "may only be specified when mountPropagation is None or not specified");
            }
        }
        _ => at.not_supported(e, &["Disabled", "Enabled", "IfPossible"]),
    }
}

/// upstream: ValidateVolumeDevices
pub fn devices(container: At, pod: &Pod, e: &mut ErrorList) {
    let mounted = paths(&container, "volumeMounts", "mountPath");
    let (mut names, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for device in container.get("volumeDevices").items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        let volume = pod.volumes.get(name.str());
        name.need(e);
        if names.contains(name.str()) {
            name.invalid(e, "must be unique");
        }
        match volume {
            Some(v) if v.get("persistentVolumeClaim").is_null() && v.get("ephemeral").is_null() => name
                .invalid(
                    e,
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                ),
            Some(_) => {}
            None => name.not_found(e),
        }
        path.need(e);
        if seen.contains(path.str()) {
            path.invalid(e, "must be unique");
        }
        if !path.is_empty() && has_backstep(path.str()) {
            path.invalid(e, "can not contain backsteps ('..')");
        } else {
            seen.insert(path.str());
        }
        if mounted.contains_key(name.str()) {
            name.invalid(e, "must not already exist in volumeMounts");
        }
        if mounted.values().any(|m| *m == path.str()) {
            path.invalid(e, "must not already exist as a path in volumeMounts");
        }
        if !name.is_empty() {
            names.insert(name.str());
        }
    }
}
