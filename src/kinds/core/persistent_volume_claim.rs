//! PersistentVolumeClaim, and claim templates in pods and StatefulSets.
//!
//! upstream: pkg/registry/core/persistentvolumeclaim/strategy.go, validation.go ValidatePersistentVolumeClaim*

use copepod_meta::{ErrorList, Path, Value, names};

use super::pod::defaults::{fill, fill_nil, round_up};
use crate::cells::{self, UNSET};
use crate::check::{At, IMMUTABLE};
use crate::core::resources::{self, quantity};
use crate::equality::{same, same_as};
use crate::generic::{clear_status, keep};
use crate::strategy::{Column, Context, Row, Strategy};
use crate::{diff, metadata, print};

/// The strategy.
pub struct PersistentVolumeClaim;
/// `persistentvolumeclaims/status`
pub struct PersistentVolumeClaimStatus;

const SPEC: &str = "io.k8s.api.core.v1.PersistentVolumeClaimSpec";
/// Where the class was before the spec had a field for it.
pub(crate) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const SOURCE: [&str; 2] = ["spec", "dataSource"];
const SOURCE_REF: [&str; 2] = ["spec", "dataSourceRef"];

fn default(claim: &mut Value) {
    fill_nil(claim.make(&["spec"]), "volumeMode", "Filesystem");
    fill(claim.make(&["status"]), "phase", "Pending");
    for path in [
        &["spec", "resources", "limits"][..],
        &["spec", "resources", "requests"],
        &["status", "capacity"],
        &["status", "allocatedResources"],
    ] {
        round_up(claim, path);
    }
}

/// upstream: DropDisabledFields, EnforceDataSourceBackwardsCompatibility
fn drop_sources(cx: &Context, claim: &mut Value, old: Option<&Value>) {
    let in_use = |path: &[&str]| old.is_some_and(|old| !old.at(path).is_null());
    let elsewhere = !claim.at(&SOURCE_REF).str_at(&["namespace"]).is_empty();
    if elsewhere && !(cx.feature)("CrossNamespaceVolumeDataSource") && !in_use(&SOURCE_REF) {
        claim.remove(&SOURCE_REF);
    }
    if in_use(&SOURCE) || in_use(&SOURCE_REF) || !claim.at(&SOURCE_REF).is_null() {
        return;
    }
    let source = claim.at(&SOURCE);
    let known = matches!(
        (source.str_at(&["kind"]), source.str_at(&["apiGroup"])),
        ("PersistentVolumeClaim", "") | ("VolumeSnapshot", "snapshot.storage.k8s.io")
    );
    if !known {
        claim.remove(&SOURCE);
    }
}

/// The two fields for one thing say the same. upstream: NormalizeDataSources
fn normalize_sources(claim: &mut Value) {
    let (source, reference) = (claim.at(&SOURCE), claim.at(&SOURCE_REF));
    let (from, to) = match (source.is_null(), reference.is_null()) {
        (false, true) => (source.clone(), SOURCE_REF),
        (true, false) if reference.str_at(&["namespace"]).is_empty() => (reference.clone(), SOURCE),
        _ => return,
    };
    let mut copy = Value::map();
    for member in ["apiGroup", "kind", "name"] {
        if !from.get(member).is_null() {
            copy.set(&[member], from.get(member).clone());
        }
    }
    claim.set(&to, copy);
}

impl Strategy for PersistentVolumeClaim {
    fn default(&self, _version: &str, claim: &mut Value) {
        default(claim);
    }
    fn prepare_create(&self, cx: &Context, claim: &mut Value) {
        clear_status(claim);
        // What reading the stored claim would give it.
        claim.set(&["status", "phase"], "Pending");
        drop_sources(cx, claim, None);
        normalize_sources(claim);
    }
    fn prepare_update(&self, cx: &Context, claim: &mut Value, old: &Value) {
        keep(claim, old, "status");
        drop_sources(cx, claim, Some(old));
        normalize_sources(claim);
    }
    fn validate_create(&self, _cx: &Context, claim: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(claim, e);
        validate_spec(At::root(claim).get("spec"), Options::default(), e);
    }
    fn validate_update(&self, _cx: &Context, claim: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(claim, old, e);
        metadata::validate_core(claim, true, &names::dns1123_subdomain_prefixed, e);
        validate_spec(At::root(claim).get("spec"), Options::of(old), e);
        let mut old = old.clone();
        normalize_sources(&mut old);
        update(claim, &old, e);
    }
    fn warnings(&self, _cx: &Context, claim: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        if claim.map_at(&["metadata", "annotations"]).contains_key(CLASS_ANNOTATION) {
            out.push(format!(
                "metadata.annotations[{CLASS_ANNOTATION}]: deprecated since v1.8; use \"storageClassName\" attribute \
                 instead"
            ));
        }
        let root = At::root(claim);
        spec_warnings(root.get("spec"), &mut out);
        out
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("core/PersistentVolumeClaim")
    }
    fn row(&self, claim: &Value) -> Row {
        let (spec, status) = (claim.get("spec"), claim.get("status"));
        let volume = spec.str_at(&["volumeName"]);
        let (mut capacity, mut modes) = (String::new(), String::new());
        if !volume.is_empty() {
            capacity = quantity(status.at(&["capacity", "storage"])).to_string();
            modes = short_modes(status.get("accessModes"));
        }
        let deleted = !claim.at(&["metadata", "deletionTimestamp"]).is_null();
        cells::row([
            cells::name(claim),
            (if deleted { "Terminating" } else { status.str_at(&["phase"]) }).into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            class(claim).into(),
            spec.get("volumeAttributesClassName").as_str().unwrap_or(UNSET).into(),
            cells::age(claim),
            spec.get("volumeMode").as_str().unwrap_or(UNSET).into(),
        ])
    }
    fn selectable_fields(&self) -> &'static [&'static str] {
        &["name"]
    }
    fn field(&self, claim: &Value, _name: &str) -> String {
        claim.str_at(&["metadata", "name"]).into()
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&PersistentVolumeClaimStatus as &dyn Strategy)
    }
}

impl Strategy for PersistentVolumeClaimStatus {
    fn prepare_update(&self, _cx: &Context, claim: &mut Value, old: &Value) {
        keep(claim, old, "spec");
    }
    fn validate_update(&self, _cx: &Context, claim: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(claim, old, e);
        let root = At::root(claim);
        if root.get("metadata.resourceVersion").is_empty() {
            root.get("resourceVersion").required(e, "");
        }
        if root.get("spec.accessModes").is_empty() {
            root.get("Spec.accessModes").required(e, "");
        }
        status(root.get("status"), e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

/// The storage class of a claim or a volume, wherever it is written.
pub(crate) fn class(object: &Value) -> &str {
    match object.at(&["metadata", "annotations", CLASS_ANNOTATION]).as_str() {
        Some(class) => class,
        None => object.str_at(&["spec", "storageClassName"]),
    }
}

/// upstream: GetAccessModesAsString
pub(crate) fn short_modes(modes: &Value) -> String {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |long: &str| modes.list_at(&[]).iter().any(|m| m.as_str() == Some(long));
    let shown: Vec<&str> = SHORT.iter().filter(|(long, _)| has(long)).map(|(_, short)| *short).collect();
    shown.join(",")
}

/// upstream: GetWarningsForPersistentVolumeClaimSpec
pub(crate) fn spec_warnings(spec: At, out: &mut Vec<String>) {
    const WHOLE: i128 = 1_000_000_000;
    for list in ["requests", "limits"] {
        let resources = spec.get("resources");
        let list = resources.get(list);
        let at = list.key("storage");
        let amount = quantity(at.value);
        if amount.nano() % WHOLE != 0 {
            out.push(format!(
                "{}: fractional byte value \"{amount}\" is invalid, must be an integer",
                at.path
            ));
        }
    }
}

/// upstream: validatePersistentVolumeClaimResourceKey; whether the name is right.
fn resource_key(list: At, name: &str, e: &mut ErrorList) -> bool {
    let before = e.len();
    for message in names::qualified_name(name) {
        list.invalid_str(e, name, message);
    }
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if e.len() == before && native && name != "storage" {
        let value = Value::from(name);
        list.with(&value).not_supported(e, &["storage"]);
    }
    e.len() == before
}

/// upstream: validateBasicResource
pub(crate) fn basic_amount(at: At, e: &mut ErrorList) -> bool {
    let value = quantity(at.value).value();
    if value < 0 {
        at.invalid_printed(e, value.to_string(), "must be a valid resource quantity");
    }
    value >= 0
}

/// upstream: ValidatePersistentVolumeClaimStatusUpdate
fn status(status: At, e: &mut ErrorList) {
    const STATES: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    for (_, amount) in status.get("capacity").entries() {
        basic_amount(amount, e);
    }
    let states = status.get("allocatedResourceStatuses");
    for (name, state) in states.map().iter() {
        resource_key(states, name, e);
        if !STATES.contains(&state.as_str().unwrap_or("")) {
            let value = Value::from(name);
            let mut sorted = STATES;
            sorted.sort_unstable();
            states.with(&value).not_supported(e, &sorted);
        }
    }
    let allocated = status.get("allocatedResources");
    for (name, amount) in allocated.entries() {
        if resource_key(allocated, name, e) && basic_amount(amount, e) {
            resources::validate_amount(amount, "storage", e);
        }
    }
}

/// upstream: ValidatePersistentVolumeClaimUpdate, after the claim itself
fn update(claim: &Value, old: &Value, e: &mut ErrorList) {
    const MAY_NOT: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    const CLASS: [&str; 1] = ["storageClassName"];
    let root = At::root(claim);
    let (mut new_spec, mut old_spec) = (claim.get("spec").clone(), old.get("spec").clone());
    if old_spec.str_at(&["volumeName"]).is_empty() {
        copy(&mut old_spec, &new_spec, &["volumeName"]);
    }
    let annotation = |v: &Value| v.at(&["metadata", "annotations", CLASS_ANNOTATION]).clone();
    let (was, is) = (annotation(old), annotation(claim));
    let (old_class, new_class) = (old_spec.get(CLASS[0]).clone(), new_spec.get(CLASS[0]).clone());
    if !was.is_null() && old_class.is_null() && new_class == was && (is.is_null() || is == was) {
        new_spec.remove(&CLASS);
    } else {
        if was.as_str().unwrap_or("") != is.as_str().unwrap_or("") {
            let path = Path::new("metadata.annotations");
            At::new(&is, path.child(CLASS_ANNOTATION)).invalid(e, IMMUTABLE);
        }
        if !new_class.is_null() && old_class.is_null() && (was.is_null() || was == new_class) {
            copy(&mut new_spec, &old_spec, &CLASS);
        }
    }
    let request = ["resources", "requests", "storage"];
    let (old_size, new_size) = (quantity(old_spec.at(&request)), quantity(new_spec.at(&request)));
    if claim.str_at(&["status", "phase"]) == "Bound" {
        if !new_spec.at(&request[..2]).is_null() {
            new_spec.set(&request, old_size.to_string());
        }
        copy(&mut new_spec, &old_spec, &["volumeAttributesClassName"]);
    }
    if !same_as(&new_spec, &old_spec, SPEC) {
        let ty = "core/PersistentVolumeClaimSpec";
        let text = diff::unified(&print::pretty(&old_spec, ty), &print::pretty(&new_spec, ty));
        root.get("spec").forbidden(e, format!("{MAY_NOT}\n{text}"));
    }
    if new_size < old_size && new_size <= quantity(old.at(&["status", "capacity", "storage"])) {
        let at = root.get("spec.resources.requests.storage");
        at.forbidden(e, "field can not be less than status.capacity");
    }
    let mode = root.get("spec.volumeMode");
    root.get("volumeMode").with(mode.value).immutable_pointer(e, old.at(&["spec", "volumeMode"]));
    let attributes = root.get("spec.volumeAttributesClassName");
    let had = old.at(&["spec", "volumeAttributesClassName"]);
    let changed = !same(attributes.value, had) || attributes.is_set() == had.is_null();
    if changed && !old.at(&["status", "currentVolumeAttributesClassName"]).is_null() {
        let what = match attributes.is_set() {
            false => "nil",
            true if attributes.str().is_empty() => "empty string",
            true => return,
        };
        let rest = "is forbidden when status.currentVolumeAttributesClassName is not nil";
        attributes.forbidden(e, format!("update to {what} {rest}"));
    }
}

/// Makes a member what it is elsewhere.
pub(crate) fn copy(to: &mut Value, from: &Value, path: &[&str]) {
    match from.at(path) {
        Value::Null => drop(to.remove(path)),
        value => to.set(path, value.clone()),
    }
}

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// What passes because the stored claim has it.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// Label values of the selector are not checked.
    pub invalid_selector_values: bool,
    /// API groups of data sources are not checked.
    pub invalid_data_source_group: bool,
}

impl Options {
    /// Of the stored claim. upstream: ValidationOptionsForPersistentVolumeClaim
    fn of(old: &Value) -> Options {
        let root = At::root(old);
        let mut wrong = ErrorList::new();
        metadata::label_selector(root.get("spec.selector"), false, &mut wrong);
        let grouped = |path: [&str; 2]| !old.at(&path).get("apiGroup").is_null();
        Options {
            invalid_selector_values: !wrong.is_empty(),
            invalid_data_source_group: grouped(SOURCE) || grouped(SOURCE_REF),
        }
    }
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
