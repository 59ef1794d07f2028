//! NetworkPolicy. upstream: pkg/registry/networking/networkpolicy/strategy.go, pkg/apis/networking/validation
//!
//! upstream, too: SetDefaults_NetworkPolicy

use copepod_meta::{ErrorList, Value, names};

use crate::cells;
use crate::check::At;
use crate::core::ip::{self, Cidr};
use crate::core::pod::defaults::{each, fill_nil};
use crate::generic::bump_generation_if_changed;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// The strategy.
pub struct NetworkPolicy;

/// (rules, whom they are about)
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

impl Strategy for NetworkPolicy {
    fn default(&self, _version: &str, policy: &mut Value) {
        let both = !policy.list_at(&["spec", "egress"]).is_empty();
        let spec = policy.make(&["spec"]);
        if spec.list_at(&["policyTypes"]).is_empty() {
            let types = ["Ingress", "Egress"].iter().take(if both { 2 } else { 1 });
            spec.set(&["policyTypes"], types.map(|t| Value::from(*t)).collect::<Vec<_>>());
        }
        for (rules, _) in DIRECTIONS {
            for rule in each(spec, &[rules]) {
                for port in each(rule, &["ports"]) {
                    fill_nil(port, "protocol", "TCP");
                }
            }
        }
    }
    fn prepare_create(&self, _cx: &Context, policy: &mut Value) {
        policy.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, _cx: &Context, policy: &mut Value, old: &Value) {
        bump_generation_if_changed(policy, old, "io.k8s.api.networking.v1.NetworkPolicySpec");
    }
    fn validate_create(&self, _cx: &Context, policy: &Value, e: &mut ErrorList) {
        metadata::standard_finalizers(policy, e);
        validate(policy, false, &[], e);
    }
    fn validate_update(&self, _cx: &Context, policy: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate_update_core(policy, old, e);
        let root = At::root(old);
        let mut wrong = ErrorList::new();
        metadata::label_selector(root.get("spec.podSelector"), false, &mut wrong);
        let mut known = Vec::new();
        for (rules, peers) in DIRECTIONS {
            for rule in old.list_at(&["spec", rules]) {
                for block in rule.list_at(&[peers]).iter().map(|p| p.get("ipBlock")).filter(|b| !b.is_null())
                {
                    known.push(block.str_at(&["cidr"]));
                    known.extend(block.list_at(&["except"]).iter().filter_map(Value::as_str));
                }
            }
        }
        validate(policy, !wrong.is_empty(), &known, e);
    }
    fn warnings(&self, _cx: &Context, policy: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        let root = At::root(policy);
        let spec = root.get("spec");
        for (rules, peers) in DIRECTIONS {
            for rule in spec.get(rules).items() {
                for peer in rule.get(peers).items() {
                    let block = peer.get("ipBlock");
                    if !block.is_set() {
                        continue;
                    }
                    ip::cidr_warnings(block.get("cidr"), &mut out);
                    for except in block.get("except").items() {
                        ip::cidr_warnings(except, &mut out);
                    }
                }
            }
        }
        out
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns("networking/NetworkPolicy")
    }
    fn row(&self, policy: &Value) -> Row {
        // The selector is a struct: absent selects everything, and prints as nothing does.
        let selector = cells::selector(policy.at(&["spec", "podSelector"]));
        cells::row([cells::name(policy), selector.into(), cells::age(policy)])
    }
}

/// upstream: ValidateNetworkPolicySpec
fn validate(policy: &Value, invalid_values: bool, known: &[&str], e: &mut ErrorList) {
    let root = At::root(policy);
    let spec = root.get("spec");
    metadata::label_selector(spec.get("podSelector"), invalid_values, e);
    for (rules, peers) in DIRECTIONS {
        for rule in spec.get(rules).items() {
            for item in rule.get("ports").items() {
                port(item, e);
            }
            for item in rule.get(peers).items() {
                peer(item, invalid_values, known, e);
            }
        }
    }
    let types = spec.get("policyTypes");
    if types.len() > DIRECTIONS.len() {
        return types.invalid(e, "may not specify more than two policyTypes");
    }
    for ty in types.items() {
        ty.one_of(e, &["Ingress", "Egress"]);
    }
}

/// upstream: ValidateNetworkPolicyPort
fn port(at: At, e: &mut ErrorList) {
    let (protocol, port, end) = (at.get("protocol"), at.get("port"), at.get("endPort"));
    if protocol.is_set() {
        protocol.one_of(e, &["TCP", "UDP", "SCTP"]);
    }
    match port.value {
        Value::Null => {
            if end.is_set() {
                end.invalid(e, "may not be specified when `port` is not specified");
            }
        }
        Value::String(name) => {
            if end.is_set() {
                end.invalid(e, "may not be specified when `port` is non-numeric");
            }
            port.invalid_each(e, names::port_name(name));
        }
        _ => {
            port.port(e);
            if end.is_set() {
                if end.int() < port.int() {
                    end.with(port.value).invalid(e, "must be greater than or equal to `port`");
                }
                end.port(e);
            }
        }
    }
}

/// upstream: ValidateNetworkPolicyPeer
fn peer(at: At, invalid_values: bool, known: &[&str], e: &mut ErrorList) {
    let selectors = [at.get("podSelector"), at.get("namespaceSelector")];
    let block = at.get("ipBlock");
    for selector in &selectors {
        metadata::label_selector(*selector, invalid_values, e);
    }
    if block.is_set() {
        ip_block(block, known, e);
    }
    match (selectors.iter().any(At::is_set), block.is_set()) {
        (false, false) => at.required(e, "must specify a peer"),
        (true, true) => at.forbidden(e, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

/// upstream: ValidateIPBlock
fn ip_block(at: At, known: &[&str], e: &mut ErrorList) {
    let cidr = at.get("cidr");
    if !cidr.need(e) {
        return;
    }
    ip::legacy_cidr(cidr, known, e);
    let Some(outer) = Cidr::parse(cidr.str()) else { return };
    for except in at.get("except").items() {
        ip::legacy_cidr(except, known, e);
        let Some(inner) = Cidr::parse(except.str()) else { continue };
        if !outer.contains(inner.network()) || outer.bits >= inner.bits {
            except.invalid(e, "must be a strict subset of `cidr`");
        }
    }
}
