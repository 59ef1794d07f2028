//! StorageClass. upstream: pkg/registry/storage/storageclass/strategy.go, pkg/apis/storage/validation

use copepod_meta::{ErrorList, Value, names};
use std::collections::{BTreeMap, BTreeSet};

use crate::cells;
use crate::check::At;
use crate::core::node_labels;
use crate::core::pod::defaults::fill_nil;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct StorageClass;

impl Strategy for StorageClass {
    fn default(&self, _version: &str, class: &mut Value) {
        fill_nil(class, "reclaimPolicy", "Delete");
        fill_nil(class, "volumeBindingMode", "Immediate");
    }
    fn validate_create(&self, _cx: &Context, class: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(class, e);
        validate(class, e);
    }
    fn validate_update(&self, _cx: &Context, class: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_core(class, false, &names::dns1123_subdomain_prefixed, e);
        validate(class, e);
        metadata::validate_update_core(class, old, e);
        let root = At::root(class);
        root.get("parameters").immutable_map(e, old.get("parameters"));
        root.get("provisioner").immutable(e, old.get("provisioner"));
        for member in ["reclaimPolicy", "volumeBindingMode"] {
            root.get(member).immutable_pointer(e, old.get(member));
        }
    }
    fn warnings(&self, _cx: &Context, class: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        let root = At::root(class);
        for term in root.get("allowedTopologies").items() {
            for expression in term.get("matchLabelExpressions").items() {
                let key = expression.get("key");
                if let Some(message) = node_labels::deprecated(key.str()) {
                    out.push(format!("{}: {message}", key.path));
                }
            }
        }
        out
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("storage/StorageClass")
    }
    fn row(&self, class: &Value) -> Row {
        const DEFAULT: [&str; 2] = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ];
        let mut name = class.str_at(&["metadata", "name"]).to_string();
        if DEFAULT.iter().any(|a| class.str_at(&["metadata", "annotations", a]) == "true") {
            name.push_str(" (default)");
        }
        cells::row([
            name.into(),
            class.str_at(&["provisioner"]).into(),
            class.get("reclaimPolicy").as_str().unwrap_or("Delete").into(),
            class.get("volumeBindingMode").as_str().unwrap_or("Immediate").into(),
            class.get("allowVolumeExpansion").as_bool().unwrap_or(false).into(),
            cells::age(class),
        ])
    }
}

/// upstream: ValidateStorageClass
fn validate(class: &Value, e: &mut ErrorList) {
    let root = At::root(class);
    provisioner(root.get("provisioner"), e);
    parameters(root.get("parameters"), e);
    let policy = root.get("reclaimPolicy");
    if !policy.is_empty() {
        policy.one_of(e, &["Delete", "Retain"]);
    }
    let mode = root.get("volumeBindingMode");
    match mode.is_set() {
        true => mode.one_of(e, &["Immediate", "WaitForFirstConsumer"]),
        false => mode.required(e, ""),
    }
    topologies(root.get("allowedTopologies"), e);
}

/// upstream: validateProvisioner
pub(super) fn provisioner(at: At, e: &mut ErrorList) {
    if at.need(e) {
        let lower = Value::from(at.str().to_lowercase());
        at.with(&lower).qualified_name(e);
    }
}

/// upstream: validateParameters
pub(super) fn parameters(at: At, e: &mut ErrorList) {
    const COUNT_MAX: usize = 512;
    const SIZE_MAX: usize = 256 << 10;
    if at.len() > COUNT_MAX {
        return at.too_long(e, COUNT_MAX);
    }
    let mut size = 0;
    for (key, value) in at.entries() {
        if key.is_empty() {
            at.invalid_str(e, key, "field can not be empty.");
        }
        size += key.len() + value.len();
    }
    if size > SIZE_MAX {
        at.too_long(e, SIZE_MAX);
    }
}

/// upstream: validateAllowedTopologies
fn topologies(list: At, e: &mut ErrorList) {
    // Upstream starts with as many empty terms as there are real ones.
    let mut seen: Vec<BTreeMap<&str, BTreeSet<&str>>> = vec![BTreeMap::new(); list.len()];
    for term in list.items() {
        let mut keys = BTreeMap::new();
        let expressions = term.get("matchLabelExpressions");
        for requirement in expressions.items() {
            let (key, values) = (requirement.get("key"), requirement.get("values"));
            values.need(e);
            let mut set = BTreeSet::new();
            for value in values.items() {
                if !set.insert(value.str()) {
                    value.duplicate(e);
                }
            }
            metadata::label_name(key, key.str(), e);
            if keys.insert(key.str(), set).is_some() {
                key.duplicate(e);
            }
        }
        for _same in seen.iter().filter(|s| **s == keys) {
            expressions.duplicate_str(e, "");
        }
        seen.push(keys);
    }
}
