//! PersistentVolumeClaim, and claim templates in pods and StatefulSets.
//!
//! upstream: pkg/registry/core/persistentvolumeclaim/strategy.go, validation.go ValidatePersistentVolumeClaim*

use copepod_meta::ErrorList;

use crate::check::At;
use crate::core::resources::{self, quantity};
use crate::metadata;

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// What passes because the stored claim has it.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// Label values of the selector are not checked.
    pub invalid_selector_values: bool,
    /// API groups of data sources are not checked.
    pub invalid_data_source_group: bool,
}

/// A claim's template: labels, annotations, spec. upstream: ValidatePersistentVolumeClaimTemplate
pub fn validate_template(at: At, e: &mut ErrorList) {
    let meta = at.get("metadata");
    metadata::annotations(meta.get("annotations"), e);
    metadata::labels(meta.get("labels"), e);
    // In the order of Go's struct.
    for member in [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ] {
        let own = meta.get(member);
        if !own.is_empty() {
            // Go's name of the field, its first letter lower: uid and friends come out odd.
            let printed = if member == "uid" { "uID" } else { member };
            meta.get(printed).forbidden(e, "cannot be set");
        }
    }
    validate_spec(at.get("spec"), Options::default(), e);
}

/// upstream: ValidatePersistentVolumeClaimSpec
pub fn validate_spec(spec: At, opts: Options, e: &mut ErrorList) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        modes.required(e, "at least 1 access mode is required");
    }
    metadata::label_selector(spec.get("selector"), opts.invalid_selector_values, e);
    access_modes(modes, e);
    let resources = spec.get("resources");
    // The path leaves `requests` out, as upstream's does.
    let storage = resources.key("storage");
    let storage = storage.with(spec.value.at(&["resources", "requests", "storage"]));
    if !storage.is_set() {
        storage.required(e, "");
    } else if quantity(storage.value).sign() <= 0 {
        storage.invalid_str(e, &quantity(storage.value).to_string(), "must be greater than zero");
    } else {
        resources::validate_amount(storage, "storage", e);
    }
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        class.dns_subdomain(e);
    }
    let mode = spec.get("volumeMode");
    if mode.is_set() {
        mode.one_of(e, &["Block", "Filesystem"]);
    }
    data_sources(spec, opts, e);
    let attributes = spec.get("volumeAttributesClassName");
    if !attributes.is_empty() {
        attributes.dns_subdomain(e);
    }
}

/// Modes of a claim or a volume; each bad one is reported at the list.
pub fn access_modes(modes: At, e: &mut ErrorList) {
    let (mut single, mut other) = (false, false);
    for mode in modes.value.list_at(&[]) {
        modes.with(mode).one_of(e, ACCESS_MODES);
        match mode.as_str() {
            Some("ReadWriteOncePod") => single = true,
            Some(mode) => other |= ACCESS_MODES.contains(&mode),
            None => {}
        }
    }
    if single && other {
        modes.forbidden(e, "may not use ReadWriteOncePod with other access modes");
    }
}

fn data_sources(spec: At, opts: Options, e: &mut ErrorList) {
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    for at in [source, reference] {
        if at.is_set() {
            data_source(at, opts, e);
        }
    }
    let namespace = reference.get("namespace");
    if !namespace.is_empty() {
        namespace.dns_label(e);
    }
    // Upstream passes a path where a value belongs; it prints as an empty object.
    let value = || "{}".to_string();
    if !namespace.is_empty() {
        if source.is_set() {
            spec.invalid_printed(
                e,
                value(),
                "may not be specified when dataSourceRef.namespace is specified",
            );
        }
    } else if source.is_set() && reference.is_set() {
        let differs = |m: &str| source.value.get(m) != reference.value.get(m);
        if ["apiGroup", "kind", "name"].into_iter().any(differs) {
            spec.invalid_printed(e, value(), "must match dataSourceRef");
        }
    }
}

/// upstream: validateDataSource
fn data_source(at: At, opts: Options, e: &mut ErrorList) {
    at.get("name").need(e);
    let kind = at.get("kind");
    kind.need(e);
    let group = at.get("apiGroup");
    if group.is_empty() && kind.str() != "PersistentVolumeClaim" {
        let message = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        at.invalid_str(e, kind.str(), message);
    }
    if !group.is_empty() && !opts.invalid_data_source_group {
        group.dns_subdomain(e);
    }
}
