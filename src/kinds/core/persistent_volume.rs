//! PersistentVolume. upstream: pkg/registry/core/persistentvolume/strategy.go, validation.go ValidatePersistentVolume*
//!
//! upstream, too: SetDefaults_PersistentVolume

use copepod_meta::{ErrorList, Path, Value, names};

use super::node_labels;
use super::persistent_volume_claim::{self as claim, CLASS_ANNOTATION};
use super::pod::defaults::{each, fill, fill_nil, round_up};
use super::pod::legacy_volumes as legacy;
use super::pod::scheduling;
use super::pod::volumes::{self, ONE_TYPE};
use crate::cells::{self, UNSET};
use crate::check::At;
use crate::core::resources::quantity;
use crate::equality::{same, same_as};
use crate::generic::{clear_status, keep};
use crate::strategy::{Column, Context, Row, Strategy};
use crate::{diff, metadata, print};

/// The strategy.
pub struct PersistentVolume;
/// `persistentvolumes/status`
pub struct PersistentVolumeStatus;

const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
const SPEC: &str = "io.k8s.api.core.v1.PersistentVolumeSpec";

fn default(volume: &mut Value) {
    fill(volume.make(&["status"]), "phase", "Pending");
    let spec = volume.make(&["spec"]);
    fill(spec, "persistentVolumeReclaimPolicy", "Retain");
    fill_nil(spec, "volumeMode", "Filesystem");
    round_up(spec, &["capacity"]);
    let mut in_source = |source: &str, defaults: &[(&str, &str)], pointers: bool| {
        if let Some(source) = spec.at_mut(&[source]).filter(|s| !s.is_null()) {
            for (member, value) in defaults {
                if pointers { fill_nil(source, member, *value) } else { fill(source, member, *value) }
            }
        }
    };
    in_source("hostPath", &[("type", "")], true);
    in_source("iscsi", &[("iscsiInterface", "default")], false);
    in_source("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")], false);
    in_source("azureDisk", &[("cachingMode", "ReadWrite"), ("kind", "Shared"), ("fsType", "ext4")], true);
    in_source("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")], false);
    if let Some(azure) = spec.at_mut(&["azureDisk"]).filter(|s| !s.is_null()) {
        fill_nil(azure, "readOnly", false);
    }
}

impl Strategy for PersistentVolume {
    fn default(&self, _version: &str, volume: &mut Value) {
        default(volume);
    }
    fn prepare_create(&self, cx: &Context, volume: &mut Value) {
        clear_status(volume);
        volume.set(&["status", "phase"], "Pending");
        volume.set(&["status", "lastPhaseTransitionTime"], cx.now);
    }
    fn prepare_update(&self, _cx: &Context, volume: &mut Value, old: &Value) {
        keep(volume, old, "status");
    }
    fn validate_create(&self, _cx: &Context, volume: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(volume, e);
        validate(volume, None, e);
        mount_options(volume, e);
    }
    fn validate_update(&self, cx: &Context, volume: &Value, old: &Value, e: &mut ErrorList) {
        for first in [true, false] {
            metadata::validate_core(volume, false, &names::dns1123_subdomain_prefixed, e);
            validate(volume, Some(old), e);
            if first {
                mount_options(volume, e);
            }
        }
        update(cx, volume, old, e);
    }
    fn warnings(&self, _cx: &Context, volume: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings(volume)
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("core/PersistentVolume")
    }
    fn row(&self, volume: &Value) -> Row {
        let (spec, status) = (volume.get("spec"), volume.get("status"));
        let reference = spec.get("claimRef");
        let bound = match reference.is_null() {
            true => String::new(),
            false => format!("{}/{}", reference.str_at(&["namespace"]), reference.str_at(&["name"])),
        };
        let deleted = !volume.at(&["metadata", "deletionTimestamp"]).is_null();
        cells::row([
            cells::name(volume),
            quantity(spec.at(&["capacity", "storage"])).to_string().into(),
            claim::short_modes(spec.get("accessModes")).into(),
            spec.str_at(&["persistentVolumeReclaimPolicy"]).into(),
            (if deleted { "Terminating" } else { status.str_at(&["phase"]) }).into(),
            bound.into(),
            claim::class(volume).into(),
            spec.get("volumeAttributesClassName").as_str().unwrap_or(UNSET).into(),
            status.str_at(&["reason"]).into(),
            cells::age(volume),
            spec.get("volumeMode").as_str().unwrap_or(UNSET).into(),
        ])
    }
    fn selectable_fields(&self) -> &'static [&'static str] {
        &["name"]
    }
    fn field(&self, volume: &Value, _name: &str) -> String {
        volume.str_at(&["metadata", "name"]).into()
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&PersistentVolumeStatus as &dyn Strategy)
    }
}

impl Strategy for PersistentVolumeStatus {
    fn prepare_update(&self, cx: &Context, volume: &mut Value, old: &Value) {
        const TIME: [&str; 2] = ["status", "lastPhaseTransitionTime"];
        keep(volume, old, "spec");
        let phase = |v: &Value| v.str_at(&["status", "phase"]).to_string();
        let (was, is) = (old.at(&TIME), volume.at(&TIME));
        if phase(old) == phase(volume) {
            if is.is_null() {
                claim::copy(volume, old, &TIME);
            }
        } else if is.is_null() || same(is, was) {
            volume.set(&TIME, cx.now);
        }
    }
    fn validate_update(&self, _cx: &Context, volume: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(volume, old, e);
        let root = At::root(volume);
        if root.get("metadata.resourceVersion").is_empty() {
            root.get("resourceVersion").required(e, "");
        }
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

type Check = fn(At, &str, &mut ErrorList);

/// Sources in upstream's order: JSON name, the name in the error for a second source, the name in the paths of the
/// source's own errors, the source's own check.
const SOURCES: &[(&str, &str, &str, Check)] = &[
    ("hostPath", "hostPath", "hostPath", |at, _, e| volumes::host_path(at, e)),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk", |at, _, e| legacy::disk(at, "pdName", e)),
    ("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore", |at, _, e| {
        legacy::disk(at, "volumeID", e);
    }),
    ("glusterfs", "glusterfs", "glusterfs", |at, _, e| glusterfs(at, e)),
    ("flocker", "flocker", "flocker", |at, _, e| legacy::flocker(at, e)),
    ("nfs", "nfs", "nfs", |at, _, e| legacy::nfs(at, e)),
    ("rbd", "rbd", "rbd", |at, _, e| legacy::required(at, &["monitors", "image"], e)),
    ("quobyte", "quobyte", "quobyte", |at, _, e| legacy::quobyte(at, e)),
    ("cephfs", "cephFS", "cephfs", |at, _, e| legacy::required(at, &["monitors"], e)),
    ("iscsi", "iscsi", "iscsi", iscsi),
    ("cinder", "cinder", "cinder", |at, _, e| {
        at.get("volumeID").need(e);
        secret(at.get("secretRef"), e);
    }),
    ("fc", "fc", "fc", |at, _, e| legacy::fc(at, e)),
    ("flexVolume", "", "flexVolume", |at, _, e| legacy::flex(at, e)),
    ("azureFile", "azureFile", "azureFile", |at, _, e| {
        legacy::required(at, &["secretName", "shareName"], e);
        if at.get("secretNamespace").is_set() {
            at.get("secretNamespace").need(e);
        }
    }),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume", |at, _, e| legacy::required(at, &["volumePath"], e)),
    ("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk", |at, _, e| {
        legacy::required(at, &["pdID"], e);
    }),
    ("portworxVolume", "portworxVolume", "portworxVolume", |at, _, e| legacy::required(at, &["volumeID"], e)),
    ("azureDisk", "azureDisk", "azureDisk", |at, _, e| legacy::azure_disk(at, e)),
    ("scaleIO", "scaleIO", "scaleIO", |at, _, e| {
        legacy::required(at, &["gateway", "system", "volumeName"], e);
    }),
    ("local", "local", "local", |at, _, e| {
        if at.get("path").need(e) {
            volumes::no_backsteps(at.get("path"), e);
        }
    }),
    ("storageos", "storageos", "storageos", |at, _, e| storageos(at, e)),
    ("csi", "csi", "csi", |at, _, e| csi(at, e)),
];

fn glusterfs(at: At, e: &mut ErrorList) {
    legacy::required(at, &["endpoints", "path"], e);
    let namespace = at.get("endpointsNamespace");
    if namespace.is_set() {
        match namespace.str() {
            "" => namespace.invalid(e, "if the endpointnamespace is set, it must be a valid namespace name"),
            _ => namespace.dns_label(e),
        }
    }
}

fn iscsi(at: At, volume: &str, e: &mut ErrorList) {
    const LENGTH_MAX: usize = 64;
    let portal = at.get("targetPortal");
    portal.need(e);
    if at.get("initiatorName").is_set() && volume.len() + 1 + portal.len() > LENGTH_MAX {
        at.get("targetportal").with(portal.value).invalid(e, legacy::ISCSI_NAME_LENGTH);
    }
    // The portal was looked at above.
    let mut rest = ErrorList::new();
    legacy::iscsi_with(at, "must be valid format", &mut rest);
    let skip = usize::from(portal.is_empty());
    e.extend(rest.into_iter().skip(skip));
}

fn secret(at: At, e: &mut ErrorList) {
    if at.is_set() {
        legacy::required(at, &["name", "namespace"], e);
    }
}

fn storageos(at: At, e: &mut ErrorList) {
    let (name, namespace) = (at.get("volumeName"), at.get("volumeNamespace"));
    if name.need(e) {
        name.dns_label(e);
    }
    if !namespace.is_empty() {
        namespace.dns_label(e);
    }
    secret(at.get("secretRef"), e);
}

fn csi(at: At, e: &mut ErrorList) {
    legacy::csi_driver_name(at.get("driver"), e);
    at.get("volumeHandle").need(e);
    let secrets = [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ];
    for secret in secrets.map(|s| at.get(s)).into_iter().filter(At::is_set) {
        let (name, namespace) = (secret.get("name"), secret.get("namespace"));
        if name.need(e) {
            name.dns_subdomain(e);
        }
        if namespace.need(e) {
            namespace.dns_label(e);
        }
    }
}

/// upstream: ValidatePersistentVolumeSpec
fn validate(volume: &Value, old: Option<&Value>, e: &mut ErrorList) {
    let root = At::root(volume);
    let spec = root.get("spec");
    spec.get("accessModes").need(e);
    claim::access_modes(spec.get("accessModes"), e);
    capacity(spec.get("capacity"), e);
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        policy.one_of(e, &["Delete", "Recycle", "Retain"]);
    }
    let affinity = spec.get("nodeAffinity");
    if affinity.is_set() {
        let required = affinity.get("required");
        if required.is_set() {
            let invalid_values = old.is_some_and(bad_affinity_values);
            scheduling::node_selector(required, invalid_values, e);
        } else {
            required.required(e, "must specify required node constraints");
        }
    }
    sources(spec, volume.str_at(&["metadata", "name"]), e);
    let host = spec.get("hostPath.path");
    let host_root = spec.get("hostPath").is_set() && is_root(host.str());
    if host_root && policy.str() == "Recycle" {
        policy.forbidden(e, "may not be 'recycle' for a hostPath mount of '/'");
    }
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        class.dns_subdomain(e);
    }
    let mode = spec.get("volumeMode");
    if mode.is_set() {
        mode.one_of(e, &["Block", "Filesystem"]);
    }
    let attributes = spec.get("volumeAttributesClassName");
    if attributes.is_set() {
        match attributes.str() {
            "" => attributes.required(e, "an empty string is disallowed"),
            _ => attributes.dns_subdomain(e),
        }
        if !spec.get("csi").is_set() {
            spec.get("csi").required(e, "has to be specified when using volumeAttributesClassName");
        }
    }
}

/// A spec inside a VolumeAttachment. upstream: ValidatePersistentVolumeSpec, inline
pub(crate) fn validate_inline(spec: At, e: &mut ErrorList) {
    const INLINE: &str = "may not be specified in the context of inline volumes";
    let forbidden = |member: &str, e: &mut ErrorList| {
        if !spec.get(member).is_empty() {
            spec.get(member).forbidden(e, INLINE);
        }
    };
    forbidden("claimRef", e);
    forbidden("capacity", e);
    if !spec.get("csi").is_set() {
        spec.get("csi").required(e, "has to be specified in the context of inline volumes");
    }
    spec.get("accessModes").need(e);
    claim::access_modes(spec.get("accessModes"), e);
    let only = |member: &str, prefix: &str, value: &str, e: &mut ErrorList| {
        let at = spec.get(member);
        if at.is_set() && at.str() != value && !(member.starts_with("persistent") && at.str().is_empty()) {
            at.forbidden(e, format!("may {prefix} {value} in the context of inline volumes"));
        }
    };
    only("persistentVolumeReclaimPolicy", "only be", "Retain", e);
    forbidden("nodeAffinity", e);
    sources(spec, "", e);
    forbidden("storageClassName", e);
    only("volumeMode", "not specify volumeMode other than", "Filesystem", e);
    let attributes = spec.get("volumeAttributesClassName");
    if attributes.is_set() {
        match attributes.str() {
            "" => attributes.required(e, "an empty string is disallowed"),
            _ => attributes.dns_subdomain(e),
        }
    }
}

/// Go's path.Clean makes it `/`.
fn is_root(path: &str) -> bool {
    let mut depth = 0_usize;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
    }
    path.starts_with('/') && depth == 0
}

fn bad_affinity_values(old: &Value) -> bool {
    old.list_at(&["spec", "nodeAffinity", "required", "nodeSelectorTerms"])
        .iter()
        .any(metadata::selector_has_invalid_value)
}

fn capacity(list: At, e: &mut ErrorList) {
    if list.is_empty() {
        list.required(e, "");
    }
    if !list.map().contains_key("storage") || list.len() > 1 {
        let printed = match list.value {
            Value::Null => "null".into(),
            value => copepod_meta::debug_json::to_string(value),
        };
        let mut error = copepod_meta::FieldError::not_supported(&list.path, &Value::Null, &["storage"]);
        error.value = Some(printed);
        e.push(error);
    }
    for (_, amount) in list.entries() {
        claim::basic_amount(amount, e);
        let value = quantity(amount.value);
        if value.sign() <= 0 {
            amount.invalid_str(e, &value.to_string(), "must be greater than zero");
        }
    }
}

fn sources(spec: At, name: &str, e: &mut ErrorList) {
    let mut found = false;
    for (json, second, own, check) in SOURCES {
        let value = spec.get(json);
        if !value.is_set() {
            continue;
        }
        // Upstream forgot to count before flexVolume.
        if std::mem::replace(&mut found, true) && !second.is_empty() {
            spec.get(second).forbidden(e, ONE_TYPE);
            continue;
        }
        check(spec.get(own).with(value.value), name, e);
        if *json == "local" && !spec.get("nodeAffinity").is_set() {
            spec.get("nodeAffinity").required(e, "Local volume requires node affinity");
        }
    }
    if !found {
        spec.required(e, "must specify a volume type");
    }
}

/// upstream: pkg/volume/validation checkMountOption
fn mount_options(volume: &Value, e: &mut ErrorList) {
    const TAKE_OPTIONS: [&str; 13] = [
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "glusterfs",
        "nfs",
        "rbd",
        "quobyte",
        "iscsi",
        "cinder",
        "cephfs",
        "azureFile",
        "vsphereVolume",
        "azureDisk",
        "photonPersistentDisk",
    ];
    let annotations = volume.map_at(&["metadata", "annotations"]);
    if TAKE_OPTIONS.iter().all(|s| volume.at(&["spec", s]).is_null())
        && annotations.contains_key(MOUNT_OPTIONS)
    {
        let path = Path::new("metadata.annotations");
        let at = At::new(&Value::Null, path.child(MOUNT_OPTIONS));
        at.forbidden(e, "may not specify mount options for this volume type");
    }
}

/// The members of the spec that are its source.
fn source_of(volume: &Value) -> Value {
    let mut out = Value::map();
    for (json, ..) in SOURCES {
        claim::copy(&mut out, volume.get("spec"), &[json]);
    }
    out
}

/// upstream: ValidatePersistentVolumeUpdate, after the volume itself
fn update(cx: &Context, volume: &Value, old: &Value, e: &mut ErrorList) {
    const TYPE: &str = "core/PersistentVolumeSource";
    let root = At::root(volume);
    let (mut source, old_source) = (source_of(volume), source_of(old));
    if !old_source.get("csi").is_null() && old_source.at(&["csi", "controllerExpandSecretRef"]).is_null() {
        source.remove(&["csi", "controllerExpandSecretRef"]);
    }
    if !same_as(&source, &old_source, SPEC) {
        let text = diff::unified(&print::pretty(&old_source, TYPE), &print::pretty(&source, TYPE));
        root.get("spec.persistentvolumesource")
            .forbidden(e, format!("spec.persistentvolumesource is immutable after creation\n{text}"));
    }
    let mode = root.get("spec.volumeMode");
    root.get("volumeMode").with(mode.value).immutable_pointer(e, old.at(&["spec", "volumeMode"]));
    let (affinity, old_affinity) = (root.get("spec.nodeAffinity"), old.at(&["spec", "nodeAffinity"]));
    if !old_affinity.is_null() && !(cx.feature)("MutablePVNodeAffinity") {
        let ty = "io.k8s.api.core.v1.VolumeNodeAffinity";
        if !same_as(affinity.value, &renamed(old_affinity, affinity.value), ty) {
            let printed = match affinity.value {
                Value::Null => "null".into(),
                value => print::internal(value, "core/VolumeNodeAffinity"),
            };
            let message = "field is immutable, except for updating from beta label to GA";
            root.get("nodeAffinity").invalid_printed(e, printed, message);
        }
    }
    let had = !old.at(&["spec", "volumeAttributesClassName"]).is_null();
    let attributes = root.get("spec.volumeAttributesClassName");
    if had && !attributes.is_set() {
        attributes.forbidden(e, "update from non-nil value to nil is forbidden");
    }
}

/// The stored affinity, with those of its label names renamed that the new one names as they are called now.
/// upstream: getMaskNodeSelectorLabelChangeEqualities
fn renamed(old: &Value, new: &Value) -> Value {
    let today = |key: &str| match key {
        "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
        "beta.kubernetes.io/os" => "kubernetes.io/os",
        "beta.kubernetes.io/arch" => "kubernetes.io/arch",
        "beta.kubernetes.io/instance-type" => "node.kubernetes.io/instance-type",
        // Upstream looks up a map: what is not in it becomes "".
        _ => "",
    };
    let mut out = old.clone();
    let terms = ["required", "nodeSelectorTerms"];
    for (term, new_term) in each(&mut out, &terms).zip(new.list_at(&terms)) {
        for list in ["matchExpressions", "matchFields"] {
            for (requirement, new) in each(term, &[list]).zip(new_term.list_at(&[list])) {
                let key = new.str_at(&["key"]);
                if today(requirement.str_at(&["key"])) == key {
                    requirement.set(&["key"], key);
                }
            }
        }
    }
    out
}

/// upstream: pkg/api/persistentvolume warningsForPersistentVolumeSpecAndMeta
fn warnings(volume: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let annotations = volume.map_at(&["metadata", "annotations"]);
    let deprecated = [
        (CLASS_ANNOTATION, "deprecated since v1.8; use \"storageClassName\" attribute instead"),
        (MOUNT_OPTIONS, "deprecated since v1.31; use \"mountOptions\" attribute instead"),
    ];
    for (key, message) in deprecated.iter().filter(|(key, _)| annotations.contains_key(key)) {
        out.push(format!("metadata.annotations[{key}]: {message}"));
    }
    let root = At::root(volume);
    let spec = root.get("spec");
    if spec.get("persistentVolumeReclaimPolicy").str() == "Recycle" {
        out.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach \
             is to use dynamic provisioning."
                .into(),
        );
    }
    for term in spec.get("nodeAffinity.required.nodeSelectorTerms").items() {
        node_labels::term_warnings(term, false, &mut out);
    }
    let sources = [
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    for (json, shown, message) in sources {
        if spec.get(json).is_set() {
            out.push(format!("spec.{shown}: {message}"));
        }
    }
    out
}
