//! ValidatingAdmissionPolicyBinding, MutatingAdmissionPolicyBinding.
//!
//! upstream: pkg/registry/admissionregistration/*admissionpolicybinding/strategy.go, pkg/apis/admissionregistration/validation.
//! That the writer may read the parameters is checked by the registry, not here.

use copepod_meta::{ErrorList, Value, names};
use std::collections::BTreeSet;

use super::rules;
use crate::cells;
use crate::check::At;
use crate::generic::bump_generation_if_spec_changed;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// Either kind.
pub struct PolicyBinding {
    /// Of a policy that changes objects.
    pub mutating: bool,
}

impl Strategy for PolicyBinding {
    fn default(&self, _version: &str, binding: &mut Value) {
        rules::default_resources(binding, &["spec", "matchResources"]);
    }
    fn prepare_create(&self, _cx: &Context, binding: &mut Value) {
        binding.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, _cx: &Context, binding: &mut Value, old: &Value) {
        bump_generation_if_spec_changed(binding, old);
    }
    fn validate_create(&self, cx: &Context, binding: &Value, e: &mut ErrorList) {
        self.validate(binding, e);
        if (cx.feature)("ManifestBasedAdmissionControlConfig")
            && let Some(message) = rules::reserved(binding)
        {
            let root = At::root(binding);
            root.get("metadata.name").invalid(e, message);
        }
    }
    fn validate_update(&self, _cx: &Context, binding: &Value, _old: &Value, e: &mut ErrorList) {
        metadata::validate(binding, false, &names::dns1123_subdomain_prefixed, e);
        self.validate(binding, e);
    }
    fn warnings(&self, cx: &Context, binding: &Value, old: Option<&Value>) -> Vec<String> {
        let refused = old.is_none() && (cx.feature)("ManifestBasedAdmissionControlConfig");
        let message = rules::reserved(binding).filter(|_| !refused);
        message.map(|m| format!("metadata.name: {m}")).into_iter().collect()
    }
    fn allow_unconditional_update(&self) -> bool {
        false
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns(match self.mutating {
            true => "admissionregistration/MutatingAdmissionPolicyBinding",
            false => "admissionregistration/ValidatingAdmissionPolicyBinding",
        })
    }
    fn row(&self, binding: &Value) -> Row {
        let spec = binding.get("spec");
        let policy = spec.str_at(&["policyName"]);
        let params = rules::param_text(spec.get("paramRef"));
        cells::row([cells::name(binding), policy.into(), params.into(), cells::age(binding)])
    }
}

impl PolicyBinding {
    /// upstream: validateValidatingAdmissionPolicyBindingSpec, validateMutatingAdmissionPolicyBindingSpec
    fn validate(&self, binding: &Value, e: &mut ErrorList) {
        let root = At::root(binding);
        let spec = root.get("spec");
        let policy = spec.get("policyName");
        if policy.need(e) {
            policy.dns_subdomain(e);
        }
        rules::param_ref(spec.get("paramRef"), e);
        let resources = spec.get("matchResources");
        rules::match_resources(resources, e);
        match self.mutating {
            true => rules::no_deletions(resources, e),
            false => actions(spec.get("validationActions"), e),
        }
    }
}

/// upstream: validateValidationActions
fn actions(list: At, e: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for action in list.items() {
        action.one_of(e, &["Audit", "Deny", "Warn"]);
        if !seen.insert(action.str()) {
            action.duplicate(e);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let message = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                       response and headers serves no purpose)";
        list.invalid(e, message);
    }
    if list.is_empty() {
        list.required(e, "at least one validation action is required");
    }
}
