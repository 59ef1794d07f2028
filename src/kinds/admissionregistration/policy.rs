//! ValidatingAdmissionPolicy, MutatingAdmissionPolicy.
//!
//! upstream: pkg/registry/admissionregistration/*admissionpolicy/strategy.go, pkg/apis/admissionregistration/validation.
//! That the writer may read the kind of parameters is checked by the registry, not here.

use copepod_meta::{ErrorList, Value, names};
use std::collections::BTreeSet;

use super::rules;
use crate::cells::{self, UNSET};
use crate::check::At;
use crate::core::pod::defaults::fill_nil;
use crate::equality::same;
use crate::generic::{bump_generation_if_spec_changed, clear_status, keep};
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// Either kind.
pub struct Policy {
    /// A policy that changes objects.
    pub mutating: bool,
}
/// `validatingadmissionpolicies/status`
pub struct PolicyStatus;

fn default(policy: &mut Value) {
    fill_nil(policy.make(&["spec"]), "failurePolicy", "Fail");
    rules::default_resources(policy, &["spec", "matchConstraints"]);
}

impl Strategy for Policy {
    fn default(&self, _version: &str, policy: &mut Value) {
        default(policy);
    }
    fn prepare_create(&self, _cx: &Context, policy: &mut Value) {
        clear_status(policy);
        policy.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, _cx: &Context, policy: &mut Value, old: &Value) {
        keep(policy, old, "status");
        bump_generation_if_spec_changed(policy, old);
    }
    fn validate_create(&self, cx: &Context, policy: &Value, e: &mut ErrorList) {
        self.validate(policy, false, e);
        if (cx.feature)("ManifestBasedAdmissionControlConfig")
            && let Some(message) = rules::reserved(policy)
        {
            let root = At::root(policy);
            root.get("metadata.name").invalid(e, message);
        }
    }
    fn validate_update(&self, _cx: &Context, policy: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate(policy, false, &names::dns1123_subdomain_prefixed, e);
        let unchanged = |member: &str| same(policy.at(&["spec", member]), old.at(&["spec", member]));
        self.validate(policy, unchanged("paramKind") && unchanged("matchConditions"), e);
    }
    fn warnings(&self, cx: &Context, policy: &Value, old: Option<&Value>) -> Vec<String> {
        let refused = old.is_none() && (cx.feature)("ManifestBasedAdmissionControlConfig");
        let message = rules::reserved(policy).filter(|_| !refused);
        message.map(|m| format!("metadata.name: {m}")).into_iter().collect()
    }
    fn allow_unconditional_update(&self) -> bool {
        false
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        if self.mutating { &[] } else { &[&["status"]] }
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns(match self.mutating {
            true => "admissionregistration/MutatingAdmissionPolicy",
            false => "admissionregistration/ValidatingAdmissionPolicy",
        })
    }
    fn row(&self, policy: &Value) -> Row {
        let spec = policy.get("spec");
        let steps = spec.list_at(&[if self.mutating { "mutations" } else { "validations" }]);
        let kind = spec.get("paramKind");
        let text = match kind.is_null() {
            true => UNSET.into(),
            false => format!("{}/{}", kind.str_at(&["apiVersion"]), kind.str_at(&["kind"])),
        };
        cells::row([cells::name(policy), (steps.len() as i64).into(), text.into(), cells::age(policy)])
    }
    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "status" && !self.mutating).then_some(&PolicyStatus as &dyn Strategy)
    }
}

impl Strategy for PolicyStatus {
    fn prepare_update(&self, _cx: &Context, policy: &mut Value, old: &Value) {
        keep(policy, old, "spec");
        metadata::reset_for_status(policy, old);
    }
    fn validate_update(&self, _cx: &Context, policy: &Value, _old: &Value, e: &mut ErrorList) {
        let root = At::root(policy);
        for warning in root.get("status.typeChecking.expressionWarnings").items() {
            warning.get("warning").need(e);
            let field = warning.get("fieldRef");
            if field.str().trim().is_empty() {
                field.required(e, "");
            }
        }
        metadata::conditions(root.get("status.conditions"), e);
    }
    fn allow_unconditional_update(&self) -> bool {
        false
    }
    fn reset_fields(&self) -> &'static [&'static [&'static str]] {
        &[&["metadata"], &["spec"]]
    }
}

impl Policy {
    /// upstream: validateValidatingAdmissionPolicySpec, validateMutatingAdmissionPolicySpec
    fn validate(&self, policy: &Value, same_conditions: bool, e: &mut ErrorList) {
        let root = At::root(policy);
        let spec = root.get("spec");
        let failure = spec.get("failurePolicy");
        match failure.is_set() {
            true => failure.one_of(e, &["Fail", "Ignore"]),
            false => failure.required(e, ""),
        }
        if spec.get("paramKind").is_set() {
            rules::param_kind(spec.get("paramKind"), e);
        }
        let resources = spec.get("matchConstraints");
        if resources.is_set() {
            rules::match_resources(resources, e);
            resources.get("resourceRules").need(e);
            if self.mutating {
                rules::no_deletions(resources, e);
            }
        } else {
            resources.required(e, "");
        }
        if !same_conditions {
            rules::match_conditions(spec.get("matchConditions"), e);
        }
        for variable in spec.get("variables").items() {
            let (name, expression) = (variable.get("name"), variable.get("expression"));
            if name.str().trim().is_empty() {
                name.required(e, "name is not specified");
            } else if !is_identifier(name.str()) {
                name.invalid(e, "must be a valid CEL identifier");
            }
            if expression.str().trim().is_empty() {
                expression.required(e, "expression is not specified");
            }
        }
        match self.mutating {
            true => mutations(spec, e),
            false => validations(spec, policy.str_at(&["metadata", "name"]), e),
        }
    }
}

fn is_identifier(name: &str) -> bool {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    let good = |c: char| c == '_' || c.is_ascii_alphanumeric();
    !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(good) && !RESERVED.contains(&name)
}

fn validations(spec: At, name: &str, e: &mut ErrorList) {
    const ONE: &str = "validations or auditAnnotations must contain at least one item";
    let (list, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if list.is_empty() && annotations.is_empty() {
        list.required(e, ONE);
        return annotations.required(e, ONE);
    }
    for validation in list.items() {
        let [expression, dynamic, message, reason] =
            ["expression", "messageExpression", "message", "reason"].map(|m| validation.get(m));
        if expression.str().trim().is_empty() {
            expression.required(e, "expression is not specified");
        }
        for text in [dynamic, message] {
            if !text.is_empty() && text.str().trim().is_empty() {
                text.invalid(e, "must be non-empty if specified");
            }
        }
        if message.str().trim().contains(['\n', '\r']) {
            message.invalid(e, "must not contain line breaks");
        }
        if reason.is_set() {
            reason.one_of(e, &["Forbidden", "Invalid", "RequestEntityTooLarge"]);
        }
    }
    audit_annotations(annotations, name, e);
}

fn audit_annotations(list: At, name: &str, e: &mut ErrorList) {
    const MAX: usize = 20;
    const EXPRESSION_MAX: usize = 5 * 1024;
    if list.len() > MAX {
        list.invalid(e, format!("must not have more than {MAX} auditAnnotations"));
    }
    let mut seen = BTreeSet::new();
    for annotation in list.items() {
        let (key, value) = (annotation.get("key"), annotation.get("valueExpression"));
        if name.is_empty() {
            key.invalid(e, "requires metadata.name be non-empty");
        } else {
            let full = Value::from(format!("{name}/{}", key.str()));
            key.with(&full).qualified_name(e);
        }
        match value.str().trim().len() {
            0 => value.required(e, "valueExpression is not specified"),
            n if n > EXPRESSION_MAX => {
                value.required(e, &format!("must not exceed {EXPRESSION_MAX} bytes in length"));
            }
            _ => {}
        }
        if !seen.insert(key.str()) {
            key.duplicate(e);
        }
    }
}

fn mutations(spec: At, e: &mut ErrorList) {
    let list = spec.get("mutations");
    if list.is_empty() {
        list.required(e, "mutations must contain at least one item");
    }
    for mutation in list.items() {
        let ty = mutation.get("patchType");
        let (own, other) = match ty.str() {
            "" => {
                ty.required(e, "");
                continue;
            }
            "JSONPatch" => ("jsonPatch", "applyConfiguration"),
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
            _ => {
                ty.not_supported(e, &["ApplyConfiguration", "JSONPatch"]);
                continue;
            }
        };
        let (own, unwanted) = (mutation.get(own), mutation.get(other));
        if !own.is_set() {
            own.required(e, &format!("must be specified when patchType is {}", ty.str()));
        } else if own.get("expression").str().trim().is_empty() {
            own.get("expression").required(e, "");
        }
        if unwanted.is_set() {
            let message = format!("must not be specified when patchType is {}", ty.str());
            unwanted.invalid_str(e, &format!("{{{other}}}"), message);
        }
    }
    let again = spec.get("reinvocationPolicy");
    if again.need(e) {
        again.one_of(e, &["IfNeeded", "Never"]);
    }
}
