//! MutatingWebhookConfiguration, ValidatingWebhookConfiguration.
//!
//! upstream: pkg/registry/admissionregistration/*webhookconfiguration/strategy.go, pkg/apis/admissionregistration/validation.
//! Match conditions are checked in all but this: that their CEL compiles.

use copepod_meta::{ErrorList, Value, names};
use std::collections::BTreeSet;

use super::rules::{match_conditions, reserved, rule_with_operations};
use super::webhook_client as client;
use crate::cells;
use crate::check::At;
use crate::core::pod::defaults::{each, fill_nil};
use crate::equality::same;
use crate::generic::bump_generation;
use crate::metadata;
use crate::strategy::{Column, Context, Row, Strategy};

/// Either kind.
pub struct WebhookConfiguration {
    /// Webhooks that change objects.
    pub mutating: bool,
}

const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];

/// What passes because it was stored already.
#[derive(Clone, Copy, Default)]
struct Options {
    match_conditions: bool,
    side_effects: bool,
    unknown_versions: bool,
    same_names: bool,
    selector_values: bool,
}

impl Options {
    fn of(new: &Value, old: &Value) -> Options {
        let (hooks, new_hooks) = (old.list_at(&["webhooks"]), new.list_at(&["webhooks"]));
        let conditions = |hook: &Value| hook.get("matchConditions").clone();
        let root = At::root(old);
        let list = root.get("webhooks");
        let mut seen = BTreeSet::new();
        Options {
            match_conditions: hooks.len() == new_hooks.len()
                && hooks.iter().zip(new_hooks).all(|(a, b)| same(&conditions(a), &conditions(b))),
            side_effects: hooks.iter().any(|h| !NO_SIDE_EFFECTS.contains(&h.str_at(&["sideEffects"]))),
            unknown_versions: hooks.iter().any(|h| {
                let versions = h.list_at(&["admissionReviewVersions"]);
                !versions.is_empty() && !versions.iter().any(known_version)
            }),
            same_names: !hooks.iter().all(|h| seen.insert(h.str_at(&["name"]))),
            selector_values: list.items().any(|hook| {
                let mut wrong = ErrorList::new();
                metadata::label_selector(hook.get("namespaceSelector"), false, &mut wrong);
                metadata::label_selector(hook.get("objectSelector"), false, &mut wrong);
                !wrong.is_empty()
            }),
        }
    }
}

fn known_version(version: &Value) -> bool {
    VERSIONS.contains(&version.as_str().unwrap_or(""))
}

impl Strategy for WebhookConfiguration {
    fn default(&self, _version: &str, object: &mut Value) {
        for hook in each(object, &["webhooks"]) {
            fill_nil(hook, "failurePolicy", "Fail");
            fill_nil(hook, "matchPolicy", "Equivalent");
            fill_nil(hook, "namespaceSelector", Value::map());
            fill_nil(hook, "objectSelector", Value::map());
            fill_nil(hook, "timeoutSeconds", 10);
            if self.mutating {
                fill_nil(hook, "reinvocationPolicy", "Never");
            }
            for rule in each(hook, &["rules"]) {
                fill_nil(rule, "scope", "*");
            }
            if let Some(service) = hook.at_mut(&["clientConfig", "service"]).filter(|s| !s.is_null()) {
                fill_nil(service, "port", 443);
            }
        }
    }
    fn prepare_create(&self, _cx: &Context, object: &mut Value) {
        object.set(&["metadata", "generation"], 1);
    }
    fn prepare_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        if !same(object.get("webhooks"), old.get("webhooks")) {
            bump_generation(object, old);
        }
    }
    fn validate_create(&self, cx: &Context, object: &Value, e: &mut ErrorList) {
        self.validate(object, Options::default(), e);
        let root = At::root(object);
        if (cx.feature)("ManifestBasedAdmissionControlConfig")
            && let Some(message) = reserved(object)
        {
            root.get("metadata.name").invalid(e, message);
        }
    }
    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value, e: &mut ErrorList) {
        metadata::validate(object, false, &names::dns1123_subdomain_prefixed, e);
        self.validate(object, Options::of(object, old), e);
    }
    fn warnings(&self, cx: &Context, object: &Value, old: Option<&Value>) -> Vec<String> {
        let refused = old.is_none() && (cx.feature)("ManifestBasedAdmissionControlConfig");
        let message = reserved(object).filter(|_| !refused);
        message.map(|m| format!("metadata.name: {m}")).into_iter().collect()
    }
    fn allow_unconditional_update(&self) -> bool {
        false
    }
    fn columns(&self) -> &'static [Column] {
        cells::columns(match self.mutating {
            true => "admissionregistration/MutatingWebhookConfiguration",
            false => "admissionregistration/ValidatingWebhookConfiguration",
        })
    }
    fn row(&self, object: &Value) -> Row {
        let hooks = object.list_at(&["webhooks"]).len() as i64;
        cells::row([cells::name(object), hooks.into(), cells::age(object)])
    }
}

impl WebhookConfiguration {
    /// upstream: validateMutatingWebhookConfiguration and its sibling
    fn validate(&self, object: &Value, options: Options, e: &mut ErrorList) {
        let root = At::root(object);
        let mut seen = BTreeSet::new();
        for hook in root.get("webhooks").items() {
            self.webhook(hook, options, e);
            versions(hook.get("admissionReviewVersions"), options.unknown_versions, e);
            let name = hook.get("name");
            if !options.same_names && !name.is_empty() && !seen.insert(name.str()) {
                name.duplicate(e);
            }
        }
    }

    /// upstream: validateMutatingWebhook, validateValidatingWebhook
    fn webhook(&self, hook: At, options: Options, e: &mut ErrorList) {
        const SECONDS_MAX: i64 = 30;
        full_name(hook.get("name"), e);
        for rule in hook.get("rules").items() {
            rule_with_operations(rule, e);
        }
        let optional = |member: &str, allowed: &[&str], e: &mut ErrorList| {
            if hook.get(member).is_set() {
                hook.get(member).one_of(e, allowed);
            }
        };
        optional("failurePolicy", &["Fail", "Ignore"], e);
        optional("matchPolicy", &["Equivalent", "Exact"], e);
        let allowed: &[&str] = if options.side_effects { &SIDE_EFFECTS } else { &NO_SIDE_EFFECTS };
        let effects = hook.get("sideEffects");
        match effects.is_set() {
            true => effects.one_of(e, allowed),
            false => effects.required(e, &format!("must specify one of {}", allowed.join(", "))),
        }
        let timeout = hook.get("timeoutSeconds");
        if timeout.opt_int().is_some_and(|n| !(1..=SECONDS_MAX).contains(&n)) {
            timeout.invalid(e, "the timeout value must be between 1 and 30 seconds");
        }
        metadata::label_selector(hook.get("namespaceSelector"), options.selector_values, e);
        metadata::label_selector(hook.get("objectSelector"), options.selector_values, e);
        if self.mutating {
            optional("reinvocationPolicy", &["IfNeeded", "Never"], e);
        }
        let config = hook.get("clientConfig");
        let (url, service) = (config.get("url"), config.get("service"));
        match (url.is_set(), service.is_set()) {
            (true, false) => client::url(url, e),
            (false, true) => client::service(service, e),
            _ => config.required(e, "exactly one of url or service is required"),
        }
        if !options.match_conditions {
            match_conditions(hook.get("matchConditions"), e);
        }
    }
}

/// upstream: IsFullyQualifiedName
fn full_name(name: At, e: &mut ErrorList) {
    const SEGMENTS_MIN: usize = 3;
    if !name.need(e) {
        return;
    }
    let wrong = names::dns1123_subdomain(name.str());
    if !wrong.is_empty() {
        name.invalid(e, wrong.join(","));
    } else if name.str().split('.').count() < SEGMENTS_MIN {
        name.invalid(e, "should be a domain with at least three segments separated by dots");
    }
}

/// upstream: validateAdmissionReviewVersions
fn versions(list: At, unknown: bool, e: &mut ErrorList) {
    let all = VERSIONS.join(", ");
    if list.is_empty() {
        return list.required(e, &format!("must specify one of {all}"));
    }
    let mut seen = BTreeSet::new();
    for version in list.items() {
        if !seen.insert(version.str()) {
            version.invalid(e, "duplicate version");
            continue;
        }
        version.invalid_each(e, names::dns1035_label(version.str()));
    }
    if !unknown && !list.items().any(|v| known_version(v.value)) {
        list.invalid(e, format!("must include at least one of {all}"));
    }
}
