//! Node labels that have newer names. upstream: pkg/api/node/util.go

use crate::check::At;

/// Why a label should not be used any more.
pub fn deprecated(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        _ => return None,
    })
}

/// Warnings about a node selector term. `values`: also about values that no label can have.
/// upstream: GetWarningsForNodeSelectorTerm
pub fn term_warnings(term: At, values: bool, out: &mut Vec<String>) {
    for expression in term.get("matchExpressions").items() {
        let key = expression.get("key");
        if let Some(why) = deprecated(key.str()) {
            out.push(format!("{}: {} is {why}", key.path, key.str()));
        }
        if values {
            for value in expression.get("values").items() {
                for message in copepod_meta::names::label_value(value.str()) {
                    let quoted = copepod_meta::field::quote(value.str());
                    out.push(format!("{}: {quoted} is invalid, {message}", value.path));
                }
            }
        }
    }
}
