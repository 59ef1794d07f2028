//! Node. upstream: pkg/registry/core/node/strategy.go, validation.go ValidateNode, ValidateNodeUpdate

use copepod_meta::{ErrorList, Value, names};
use std::collections::{BTreeMap, BTreeSet};

use super::{ip, resources};
use crate::cells::{self, NONE, UNKNOWN};
use crate::check::At;
use crate::core::pod::defaults::round_up;
use crate::core::pod::scheduling::EFFECTS;
use crate::generic::keep;
use crate::strategy::{Column, Context, Row, Strategy};
use crate::{metadata, print};

/// The strategy.
pub struct Node;
/// `nodes/status`
pub struct NodeStatus;

/// upstream: SetDefaults_NodeStatus, SetDefaults_ResourceList
fn default(node: &mut Value) {
    for list in ["capacity", "allocatable"] {
        round_up(node, &["status", list]);
    }
    let capacity = node.at(&["status", "capacity"]).clone();
    if node.at(&["status", "allocatable"]).is_null() && !capacity.is_null() {
        node.set(&["status", "allocatable"], capacity);
    }
}

/// podCIDR says what podCIDRs says first. upstream: Convert_v1_NodeSpec_To_core_NodeSpec
fn convert(node: &mut Value) {
    let single = node.str_at(&["spec", "podCIDR"]).to_string();
    let first = node.list_at(&["spec", "podCIDRs"]).first().and_then(Value::as_str).map(str::to_string);
    match (single.as_str(), first) {
        ("", Some(first)) => node.set(&["spec", "podCIDR"], first),
        ("", None) => {}
        (single, first) if first.as_deref() != Some(single) => {
            node.set(&["spec", "podCIDRs"], vec![Value::string(single)]);
        }
        _ => {}
    }
}

impl Strategy for Node {
    fn default(&self, _version: &str, node: &mut Value) {
        default(node);
    }
    fn to_hub(&self, _version: &str, node: &mut Value) {
        convert(node);
    }
    fn from_hub(&self, _version: &str, node: &mut Value) {
        convert(node);
    }
    fn prepare_create(&self, _cx: &Context, node: &mut Value) {
        node.remove(&["spec", "configSource"]);
        node.remove(&["status", "config"]);
    }
    fn prepare_update(&self, _cx: &Context, node: &mut Value, old: &Value) {
        keep(node, old, "status");
        if old.at(&["spec", "configSource"]).is_null() {
            node.remove(&["spec", "configSource"]);
        }
    }
    fn validate_create(&self, _cx: &Context, node: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(node, e);
        validate(node, e);
    }
    fn validate_update(&self, _cx: &Context, node: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_core(node, false, &names::dns1123_subdomain_prefixed, e);
        validate(node, e);
        validate_update(node, old, e);
    }
    fn warnings(&self, _cx: &Context, node: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        let root = At::root(node);
        if root.get("spec.configSource").is_set() {
            out.push("spec.configSource: the feature is removed".into());
        }
        if !root.get("spec.externalID").is_empty() {
            out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
        }
        for cidr in root.get("spec.podCIDRs").items() {
            ip::cidr_warnings(cidr, &mut out);
        }
        out
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["status"]]
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("core/Node")
    }
    fn row(&self, node: &Value) -> Row {
        row(node)
    }
    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }
    fn field(&self, node: &Value, name: &str) -> String {
        match name {
            "spec.unschedulable" => node.bool_at(&["spec", "unschedulable"]).to_string(),
            _ => String::new(),
        }
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status").then_some(&NodeStatus as &dyn Strategy)
    }
}

impl Strategy for NodeStatus {
    fn prepare_update(&self, _cx: &Context, node: &mut Value, old: &Value) {
        keep(node, old, "spec");
        if old.at(&["status", "config"]).is_null() {
            node.remove(&["status", "config"]);
        }
    }
    fn validate_update(&self, _cx: &Context, node: &Value, old: &Value, e: &mut ErrorList) {
        validate_update(node, old, e);
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["spec"]]
    }
}

/// upstream: ValidateNode, less metadata
fn validate(node: &Value, e: &mut ErrorList) {
    let root = At::root(node);
    // Upstream reports taints below metadata.
    let taints = root.get("metadata.taints");
    validate_taints(taints.with(node.at(&["spec", "taints"])), e);
    amounts(root, e);
    let swap = root.get("metadata.nodeSwapStatus.capacity");
    let swap = swap.with(node.at(&["status", "nodeInfo", "swap", "capacity"]));
    if swap.is_set() && swap.int() <= 0 {
        swap.invalid_int(e, "must be greater than zero");
    }
    declared_features(root.get("status.declaredFeatures"), e);
    pod_cidrs(root.get("spec.podCIDRs"), e);
}

fn pod_cidrs(list: At, e: &mut ErrorList) {
    for cidr in list.items() {
        ip::legacy_cidr(cidr, &[], e);
    }
    if list.len() < 2 {
        return;
    }
    let parsed: Vec<Option<ip::Cidr>> = list.items().map(|c| ip::Cidr::parse(c.str())).collect();
    if let Some(i) = parsed.iter().position(Option::is_none) {
        let bad = list.index(i);
        let why = format!(
            "invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR[{i}]: <nil> (invalid CIDR address: {})",
            bad.str()
        );
        e.push(copepod_meta::FieldError::internal(&list.path, why));
    }
    let families: BTreeSet<bool> = parsed.iter().flatten().map(|c| c.ip.is_ipv4()).collect();
    if parsed.iter().any(Option::is_none) || families.len() != 2 || list.len() > 2 {
        list.invalid(e, "may specify no more than one CIDR for each IP family");
    }
}

/// upstream: ValidateNodeResources; names are members of the path, not keys.
fn amounts(root: At, e: &mut ErrorList) {
    for list in ["status.capacity", "status.allocatable"] {
        let at = root.get(list);
        for (name, amount) in at.map().iter() {
            // `get` would step at dots; the path prints the same.
            resources::validate_amount(At::new(amount, at.path.child(name)), name, e);
        }
    }
}

/// upstream: validateNodeTaints
pub fn validate_taints(list: At, e: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for taint in list.items() {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        metadata::label_name(key, key.str(), e);
        let wrong = names::label_value(value.str());
        if !wrong.is_empty() {
            value.invalid(e, wrong.join(";"));
        }
        if effect.need(e) {
            effect.one_of(e, EFFECTS);
        }
        if !seen.insert((effect.str(), key.str())) {
            let printed = print::internal(taint.value, "core/Taint");
            taint.duplicate_printed(e, printed, "taints must be unique by key and effect pair");
        }
    }
}

/// upstream: validateNodeDeclaredFeatures
fn declared_features(list: At, e: &mut ErrorList) {
    const FEATURE_BYTES_MAX: usize = 253;
    let mut features = list.items().peekable();
    while let Some(feature) = features.next() {
        let name = feature.str();
        let quoted = copepod_meta::field::quote(name);
        if name.len() > FEATURE_BYTES_MAX {
            feature.invalid(
                e,
                format!("invalid feature name {quoted}: must be no more than {FEATURE_BYTES_MAX} characters"),
            );
        } else if !is_feature(name) {
            feature.invalid(
                e,
                format!(
                    "invalid feature name {quoted}: must start with an UpperCamelCase segment, with subsequent segments \
                     separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters \
                     and slashes"
                ),
            );
        }
        match features.peek() {
            Some(next) if next.str() == name => next.duplicate(e),
            Some(next) if next.str() < name => next.invalid(e, "list must be sorted alphabetically"),
            _ => {}
        }
    }
}

fn is_feature(name: &str) -> bool {
    let segment = |s: &str, first: fn(&u8) -> bool| {
        s.as_bytes().first().is_some_and(first) && s.bytes().all(|c| c.is_ascii_alphanumeric())
    };
    let mut segments = name.split('/');
    segments.next().is_some_and(|s| segment(s, u8::is_ascii_uppercase))
        && segments.all(|s| segment(s, u8::is_ascii_alphabetic))
}

/// upstream: ValidateNodeUpdate
fn validate_update(node: &Value, old: &Value, e: &mut ErrorList) {
    const CIDR: &str = "node updates may not change podCIDR except from \"\" to valid";
    metadata::validate_update_core(node, old, e);
    let root = At::root(node);
    amounts(root, e);
    declared_features(root.get("status.declaredFeatures"), e);
    let mut seen: Vec<&Value> = Vec::new();
    for address in root.get("status.addresses").items() {
        if seen.contains(&address.value) {
            address.duplicate_printed(e, print::internal(address.value, "core/NodeAddress"), "");
        }
        seen.push(address.value);
    }
    let (cidrs, was) = (root.get("spec.podCIDRs"), old.list_at(&["spec", "podCIDRs"]));
    if !was.is_empty() {
        let now = cidrs.value.list_at(&[]);
        let changed =
            if was.len() == now.len() { was.iter().zip(now).filter(|(a, b)| a != b).count() } else { 1 };
        for _each in 0..changed {
            cidrs.forbidden(e, CIDR);
        }
    }
    let provider = root.get("spec.providerID");
    let had = old.str_at(&["spec", "providerID"]);
    if !had.is_empty() && had != provider.str() {
        provider.forbidden(e, "node updates may not change providerID except from \"\" to valid");
    }
    let taints = root.get("metadata.taints");
    validate_taints(taints.with(node.at(&["spec", "taints"])), e);
    let external = root.get("spec.externalID");
    if external.str() != old.str_at(&["spec", "externalID"]) {
        external.forbidden(e, "may not be updated");
    }
}

/// upstream: printNode
fn row(node: &Value) -> Row {
    let conditions = node.list_at(&["status", "conditions"]);
    let mut status = match conditions.iter().rfind(|c| c.str_at(&["type"]) == "Ready") {
        Some(c) if c.str_at(&["status"]) == "True" => vec!["Ready"],
        Some(_) => vec!["NotReady"],
        None => vec!["Unknown"],
    };
    if node.bool_at(&["spec", "unschedulable"]) {
        status.push("SchedulingDisabled");
    }
    let info = |member: &str| match node.str_at(&["status", "nodeInfo", member]) {
        "" => UNKNOWN.to_string(),
        text => text.to_string(),
    };
    let mut kernel = info("kernelVersion");
    let arch = node.str_at(&["status", "nodeInfo", "architecture"]);
    if !arch.is_empty() {
        kernel = format!("{kernel} ({arch})");
    }
    let address = |ty: &str| {
        let all = node.list_at(&["status", "addresses"]);
        all.iter().find(|a| a.str_at(&["type"]) == ty).map_or(NONE, |a| a.str_at(&["address"]))
    };
    cells::row([
        cells::name(node),
        status.join(",").into(),
        roles(node).into(),
        cells::age(node),
        node.str_at(&["status", "nodeInfo", "kubeletVersion"]).into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        info("osImage").into(),
        kernel.into(),
        info("containerRuntimeVersion").into(),
    ])
}

fn roles(node: &Value) -> String {
    let mut roles: BTreeMap<&str, ()> = BTreeMap::new();
    for (key, value) in node.map_at(&["metadata", "labels"]).iter() {
        let value = value.as_str().unwrap_or("");
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/").filter(|r| !r.is_empty()) {
            roles.insert(role, ());
        } else if key == "kubernetes.io/role" && !value.is_empty() {
            roles.insert(value, ());
        }
    }
    if roles.is_empty() { NONE.into() } else { roles.into_keys().collect::<Vec<_>>().join(",") }
}
