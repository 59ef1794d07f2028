//! Volumes of a pod: exactly one source each, and the sources' own rules (also shared by PersistentVolume).
//!
//! upstream: validation.go ValidateVolumes, validateVolumeSource

use copepod_meta::{ErrorList, Value, names};
use std::collections::{BTreeMap, BTreeSet};

use super::env;
use super::options::Options;
use super::{legacy_volumes as legacy, projected};
use crate::check::At;
use crate::core::persistent_volume_claim as claim;
use crate::core::resources::quantity;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
/// The complaint about a second source.
pub const ONE_TYPE: &str = "may not specify more than 1 volume type";

/// Checks all volumes; the valid ones by name. upstream: ValidateVolumes
pub fn volumes<'v>(list: At<'v, '_>, opts: &Options, e: &mut ErrorList) -> BTreeMap<&'v str, &'v Value> {
    let pod_name = opts.pod.as_ref().map_or("", |p| p.name.as_str());
    let mut created: BTreeSet<String> = BTreeSet::new();
    if !pod_name.is_empty() {
        let ephemeral = list.items().filter(|v| v.get("ephemeral").is_set());
        created.extend(ephemeral.map(|v| format!("{pod_name}-{}", v.value.str_at(&["name"]))));
    }
    let mut valid = BTreeMap::new();
    for volume in list.items() {
        let before = e.len();
        source(volume, opts, e);
        let name = volume.get("name");
        if name.need(e) {
            name.dns_label(e);
        }
        if valid.contains_key(name.str()) {
            name.duplicate(e);
        }
        if e.len() == before {
            valid.insert(name.str(), volume.value);
        }
        let claim_name = volume.get("persistentVolumeClaim.claimName");
        if created.contains(claim_name.str()) {
            claim_name.invalid(e, "must not reference a PVC that gets created for an ephemeral volume");
        }
    }
    valid
}

type Check = fn(At, &Options, &mut ErrorList);

/// Sources in upstream's order: JSON name, the name in the error for a second source, the name in the paths of the
/// source's own errors (upstream misspells some), the source's own check.
const SOURCES: &[(&str, &str, &str, Check)] = &[
    ("emptyDir", "emptyDir", "emptyDir", |at, _, e| empty_dir(at, e)),
    ("hostPath", "hostPath", "hostPath", |at, _, e| host_path(at, e)),
    ("gitRepo", "gitRepo", "gitRepo", |at, _, e| legacy::git_repo(at, e)),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk", |at, _, e| legacy::disk(at, "pdName", e)),
    ("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore", |at, _, e| {
        legacy::disk(at, "volumeID", e);
    }),
    ("secret", "secret", "secret", |at, _, e| key_source(at, "secretName", e)),
    ("nfs", "nfs", "nfs", |at, _, e| legacy::nfs(at, e)),
    ("iscsi", "iscsi", "iscsi", |at, _, e| legacy::iscsi(at, e)),
    ("glusterfs", "glusterfs", "glusterfs", |at, _, e| legacy::required(at, &["endpoints", "path"], e)),
    ("flocker", "flocker", "flocker", |at, _, e| legacy::flocker(at, e)),
    ("persistentVolumeClaim", "persistentVolumeClaim", "persistentVolumeClaim", |at, _, e| {
        legacy::required(at, &["claimName"], e);
    }),
    ("rbd", "rbd", "rbd", |at, _, e| legacy::required(at, &["monitors", "image"], e)),
    ("cinder", "cinder", "cinder", |at, _, e| legacy::cinder(at, e)),
    ("cephfs", "cephFS", "cephfs", |at, _, e| legacy::required(at, &["monitors"], e)),
    ("quobyte", "quobyte", "quobyte", |at, _, e| legacy::quobyte(at, e)),
    ("downwardAPI", "downwarAPI", "downwardAPI", |at, _, e| downward_api(at, e)),
    ("fc", "fc", "fc", |at, _, e| legacy::fc(at, e)),
    ("flexVolume", "flexVolume", "flexVolume", |at, _, e| legacy::flex(at, e)),
    ("configMap", "configMap", "configMap", |at, _, e| key_source(at, "name", e)),
    ("azureFile", "azureFile", "azureFile", |at, _, e| legacy::required(at, &["secretName", "shareName"], e)),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume", |at, _, e| legacy::required(at, &["volumePath"], e)),
    ("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk", |at, _, e| {
        legacy::required(at, &["pdID"], e);
    }),
    ("portworxVolume", "portworxVolume", "portworxVolume", |at, _, e| legacy::required(at, &["volumeID"], e)),
    ("azureDisk", "azureDisk", "azureDisk", |at, _, e| legacy::azure_disk(at, e)),
    ("storageos", "storageos", "storageos", |at, _, e| legacy::storageos(at, e)),
    ("projected", "projected", "projected", projected::validate),
    ("scaleIO", "scaleIO", "scaleIO", |at, _, e| {
        legacy::required(at, &["gateway", "system", "volumeName"], e)
    }),
    ("csi", "csi", "csi", |at, _, e| legacy::csi(at, e)),
    ("ephemeral", "ephemeral", "ephemeral", |at, _, e| ephemeral(at, e)),
    ("image", "image", "image", image),
];

/// upstream: validateVolumeSource
fn source(volume: At, opts: &Options, e: &mut ErrorList) {
    let mut found = false;
    for (json, second, own, check) in SOURCES {
        let value = volume.get(json);
        if !value.is_set() {
            continue;
        }
        // emptyDir comes first, so it is never the second one.
        if std::mem::replace(&mut found, true) {
            volume.get(second).forbidden(e, ONE_TYPE);
        } else {
            check(volume.get(own).with(value.value), opts, e);
            if *json == "ephemeral" {
                created_claim_name(volume, opts, e);
            }
        }
        if *json == "iscsi" {
            legacy::iscsi_name_length(volume, e);
        }
    }
    if !found {
        volume.required(e, "must specify a volume type");
    }
}

/// The claim made for the volume must have a valid name.
fn created_claim_name(volume: At, opts: &Options, e: &mut ErrorList) {
    let name = volume.get("name");
    let Some(pod) = opts.pod.as_ref().filter(|p| !p.name.is_empty() && !name.is_empty()) else { return };
    let made = format!("{}-{}", pod.name, name.str());
    for message in names::dns1123_subdomain(&made) {
        name.invalid(e, format!("PVC name {}: {message}", copepod_meta::field::quote(&made)));
    }
}

fn empty_dir(at: At, e: &mut ErrorList) {
    let limit = at.get("sizeLimit");
    if limit.is_set() && quantity(limit.value).sign() < 0 {
        limit.forbidden(e, "SizeLimit field must be a valid resource quantity");
    }
}

/// upstream: validateHostPathVolumeSource
pub fn host_path(at: At, e: &mut ErrorList) {
    let path = at.get("path");
    if !path.need(e) {
        return;
    }
    no_backsteps(path, e);
    at.get("type").one_of(
        e,
        &[
            "",
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ],
    );
}

/// A Secret or ConfigMap as files. upstream: validateSecretVolumeSource, validateConfigMapVolumeSource
fn key_source(at: At, name: &str, e: &mut ErrorList) {
    at.get(name).need(e);
    file_mode(at.get("defaultMode"), e);
    for item in at.get("items").items() {
        key_to_path(item, e);
    }
}

/// upstream: validateKeyToPath
pub fn key_to_path(at: At, e: &mut ErrorList) {
    at.get("key").need(e);
    let path = at.get("path");
    path.need(e);
    local_non_reserved_path(path, e);
    file_mode(at.get("mode"), e);
}

/// A file mode, if set.
pub fn file_mode(at: At, e: &mut ErrorList) {
    if at.is_set() && !(0..=0o777).contains(&at.int()) {
        at.invalid_int(e, FILE_MODE);
    }
}

/// upstream: validateDownwardAPIVolumeSource. Files are reported at the source, without an index.
fn downward_api(at: At, e: &mut ErrorList) {
    file_mode(at.get("defaultMode"), e);
    for file in at.value.list_at(&["items"]) {
        downward_api_file(at.with(file), e);
    }
}

/// upstream: validateDownwardAPIVolumeFile
pub fn downward_api_file(at: At, e: &mut ErrorList) {
    let path = at.get("path");
    path.need(e);
    local_non_reserved_path(path, e);
    let (field, resource) = (at.get("fieldRef"), at.get("resourceFieldRef"));
    if field.is_set() {
        env::field_ref(field, env::VOLUME_FIELDS, e);
        if resource.is_set() {
            at.invalid_str(
                e,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            );
        }
    } else if resource.is_set() {
        env::resource_field_ref(resource, true, e);
    } else {
        at.required(e, "one of fieldRef and resourceFieldRef is required");
    }
    file_mode(at.get("mode"), e);
}

/// upstream: validateEphemeralVolumeSource
fn ephemeral(at: At, e: &mut ErrorList) {
    let template = at.get("volumeClaimTemplate");
    if !template.is_set() {
        return template.required(e, "");
    }
    claim::validate_template(template, e);
}

/// upstream: validateImageVolumeSource
fn image(at: At, opts: &Options, e: &mut ErrorList) {
    if opts.is_pod {
        at.get("reference").need(e);
    }
    super::containers::pull_policy(at.get("pullPolicy"), e);
}

/// Whether a path has a `..` element.
pub fn has_backstep(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// upstream: validatePathNoBacksteps
pub fn no_backsteps(at: At, e: &mut ErrorList) {
    if has_backstep(at.str()) {
        at.invalid(e, "must not contain '..'");
    }
}

/// upstream: validateLocalDescendingPath
pub fn local_descending_path(at: At, e: &mut ErrorList) {
    if at.str().starts_with('/') {
        at.invalid(e, "must be a relative path");
    }
    no_backsteps(at, e);
}

/// upstream: ValidateLocalNonReservedPath
pub fn local_non_reserved_path(at: At, e: &mut ErrorList) {
    local_descending_path(at, e);
    if at.str().starts_with("..") && !at.str().starts_with("../") {
        at.invalid(e, "must not start with '..'");
    }
}
